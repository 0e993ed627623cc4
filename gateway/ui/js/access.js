// Who may do what: who you are, users, groups, API tokens, sessions. What a caller may not see is
// not shown, and what it may not do the cluster refuses, with the role that is missing.

import { call, get } from "./api.js";
import { ask, menu, moreButton, toast } from "./dialog.js";
import { h, icon, setChildren } from "./dom.js";

const ROLES = "read, write and admin on a path, operate, backup: write:/src, read:/docs, operate";
const HOUR_MS = 3_600_000;

/** Show the page; see `app.js`. */
export function open(main) {
  const page = new Access(main);
  page.refresh();
  return page;
}

class Access {
  constructor(main) {
    this.me = h("div.quiet", {}, "Loading…");
    this.users = h("div.rows");
    this.groups = h("div.rows");
    this.tokens = h("div.rows");
    this.sessions = h("div.rows");
    main.append(
      h(
        "section.page.access",
        {},
        h("header.head", {}, h("h1", {}, "Access"), h("span.grow"), this.me),
        section("Users", this.users, "New user", () => this.newUser()),
        section("Groups", this.groups, "New group", () => this.newGroup()),
        section("API tokens", this.tokens, "New token", () => this.newToken()),
        section("Sessions", this.sessions),
      ),
    );
  }

  async refresh() {
    const [me, users, groups, tokens, sessions] = await Promise.all([
      get("/v1/whoami"),
      all("users"),
      all("groups"),
      all("tokens"),
      all("sessions"),
    ]);
    this.drawMe(me);
    draw(this.users, users, "No users: everybody who is here has a token.", (user) => [
      user.name,
      [grantsText(user.grants), ...user.groups.map((group) => `group ${group}`)]
        .filter(Boolean).join(", ") || "nothing granted",
      user.has_password ? "" : "no password",
      [
        ["Grant…", () => this.changeGrants("users", user, "grant")],
        ["Revoke a grant…", () => this.changeGrants("users", user, "revoke")],
        ["Join a group…", () => this.changeGroups(user, "join")],
        ["Leave a group…", () => this.changeGroups(user, "leave")],
        ["Set password…", () => this.setPassword(user, me)],
        ["Remove…", () => this.remove("users", user.name, `the user ${user.name}`), "danger"],
      ],
    ]);
    draw(this.groups, groups, "No groups that you may see.", (group) => [
      group.name,
      grantsText(group.grants) || "nothing granted",
      "",
      [
        ["Grant…", () => this.changeGrants("groups", group, "grant")],
        ["Revoke a grant…", () => this.changeGrants("groups", group, "revoke")],
        ["Remove…", () => this.remove("groups", group.name, `the group ${group.name}`), "danger"],
      ],
    ]);
    draw(this.tokens, tokens, "No tokens that you may see.", (token) => [
      token.label || token.id,
      [grantsText(token.grants), ...token.groups.map((group) => `group ${group}`)]
        .filter(Boolean).join(", "),
      token.expires_in_ms === null ? "no end" : `ends in ${hours(token.expires_in_ms)}`,
      [["Revoke…", () => this.remove("tokens", token.id, `the token ${token.id}`), "danger"]],
    ]);
    draw(this.sessions, sessions, "No sessions that you may see.", (session) => [
      session.user ?? `token ${session.token}`,
      session.label || (session.current ? "this one" : "a browser"),
      `ends unused in ${hours(session.idle_expires_in_ms)}`,
      [["End…", () => this.remove("sessions", session.id, "this session"), "danger"]],
    ], "a session of ");
  }

  drawMe(me) {
    const name = me.user?.name ?? (me.session ? `token ${me.session.token}` : me.token?.id);
    setChildren(
      this.me,
      me.administrator ? "You are the administrator." : `You are ${name}.`,
      (me.session || me.administrator) &&
        h("button", { type: "button", onclick: () => logOut() }, "Log out"),
    );
  }

  newUser() {
    return this.change({
      title: "New user",
      action: "Make user",
      fields: [
        field("Name", { name: "name", required: true, autocomplete: "off" }),
        passwordField("Password", "password", "new-password"),
        grantsField(false),
        field("Groups, separated by commas", { name: "groups", autocomplete: "off" }),
      ],
      submit: (data) =>
        call("POST", "/v1/users", {
          attempts: 1,
          body: {
            name: data.get("name").trim(),
            password: data.get("password"),
            grants: parseGrants(data.get("grants")),
            groups: words(data.get("groups")),
          },
        }),
    }, "The user was made.");
  }

  newGroup() {
    return this.change({
      title: "New group",
      action: "Make group",
      fields: [
        field("Name", { name: "name", required: true, autocomplete: "off" }),
        grantsField(false),
      ],
      submit: (data) =>
        call("POST", "/v1/groups", {
          attempts: 1,
          body: { name: data.get("name").trim(), grants: parseGrants(data.get("grants")) },
        }),
    }, "The group was made.");
  }

  async newToken() {
    const made = await ask({
      title: "New API token",
      action: "Make token",
      fields: [
        field("What it is for", { name: "label", maxlength: 128, autocomplete: "off" }),
        grantsField(true),
        field("Days until it ends; empty: no end", { name: "days", type: "number", min: 1 }),
      ],
      submit: async (data) => {
        const days = Number(data.get("days"));
        const body = { label: data.get("label").trim(), grants: parseGrants(data.get("grants")) };
        if (days) body.expires_after_ms = days * 24 * HOUR_MS;
        // Only once: a copy would make another token.
        return (await call("POST", "/v1/tokens", { body, attempts: 1 })).json();
      },
    });
    if (!made) return;
    this.refresh();
    await ask({
      title: "The token, this once",
      text: "Copy it now: nobody can show it again.",
      action: "Done",
      cancel: "",
      fields: [
        field("Token", {
          name: "token",
          value: made.token,
          readonly: true,
          onfocus: (event) => event.currentTarget.select(),
        }),
      ],
    });
  }

  changeGrants(kind, item, how) {
    const url = `/v1/${kind}/${encodeURIComponent(item.name)}`;
    const value = how === "revoke" ? grantsText(item.grants) : "";
    return this.change({
      title: how === "grant" ? `Grant to ${item.name}` : `Revoke from ${item.name}`,
      action: how === "grant" ? "Grant" : "Revoke",
      danger: how === "revoke",
      fields: [grantsField(true, value)],
      submit: (data) => call("PATCH", url, { body: { [how]: parseGrants(data.get("grants")) } }),
    }, "Changed, for every command and read from now on.");
  }

  changeGroups(user, how) {
    const url = `/v1/users/${encodeURIComponent(user.name)}`;
    const value = how === "leave" ? user.groups.join(", ") : "";
    return this.change({
      title: how === "join" ? `Put ${user.name} into groups` : `Take ${user.name} out of groups`,
      action: how === "join" ? "Put in" : "Take out",
      fields: [
        field("Groups, separated by commas", {
          name: "groups",
          value,
          required: true,
          autocomplete: "off",
        }),
      ],
      submit: (data) => call("PATCH", url, { body: { [how]: words(data.get("groups")) } }),
    }, "Changed, for every command and read from now on.");
  }

  setPassword(user, me) {
    const own = me.user?.name === user.name;
    return this.change({
      title: `Set the password of ${user.name}`,
      text: "All sessions of this user end.",
      action: "Set password",
      fields: [
        own && passwordField("Current password", "current", "current-password"),
        passwordField("New password", "password", "new-password"),
      ].filter(Boolean),
      submit: (data) => {
        const body = { password: data.get("password") };
        if (own) body.current = data.get("current");
        // Only once: the first copy may have ended the session that would send a second.
        const url = `/v1/users/${encodeURIComponent(user.name)}/password`;
        return call("PUT", url, { body, attempts: 1 });
      },
    }, "The password is set.");
  }

  remove(kind, id, name) {
    const verb = { users: "Remove", groups: "Remove", tokens: "Revoke", sessions: "End" }[kind];
    return this.change({
      title: `${verb} ${name}?`,
      text: "Every command and read that comes after it is refused.",
      action: verb,
      danger: true,
      submit: () => call("DELETE", `/v1/${kind}/${encodeURIComponent(id)}`),
    }, "Done.");
  }

  /** Ask, do it, say so and show what there is now. */
  async change(dialog, done) {
    if (!(await ask(dialog))) return;
    toast(done);
    await this.refresh();
  }
}

async function logOut() {
  await call("POST", "/v1/logout");
  location.reload();
}

function section(title, rows, action, onclick) {
  return h(
    "section.card.pad",
    {},
    h(
      "header.head",
      {},
      h("h2", {}, title),
      h("span.grow"),
      action && h("button", { type: "button", onclick }, icon("plus"), action),
    ),
    rows,
  );
}

function draw(rows, items, nothing, cells, kind = "") {
  if (!items.length) {
    setChildren(rows, h("p.quiet", {}, nothing));
    return;
  }
  setChildren(
    rows,
    items.map((item) => {
      const [name, what, more, actions] = cells(item);
      return h(
        "div.access-row",
        {},
        h("strong", {}, name),
        h("span", {}, what),
        h("span.quiet", {}, more),
        moreButton(`Actions for ${kind}${name}`, (anchor) => menu(anchor, actions)),
      );
    }),
  );
}

function field(label, attributes) {
  return h("label", {}, label, h("input", { spellcheck: "false", ...attributes }));
}

function passwordField(label, name, autocomplete) {
  const minlength = autocomplete === "new-password" ? 12 : undefined;
  return field(label, { name, type: "password", required: true, minlength, autocomplete });
}

function grantsField(required, value = "") {
  return h(
    "label",
    { title: ROLES },
    "Grants, as write:/src, operate",
    h("input", { name: "grants", required, value, spellcheck: "false", autocomplete: "off" }),
  );
}

/** All items of a kind, page by page. */
async function all(kind) {
  const found = [];
  for (let after = ""; after !== null;) {
    const page = await get(`/v1/${kind}?after=${encodeURIComponent(after)}`);
    found.push(...page[kind]);
    after = page.next;
  }
  return found;
}

function words(text) {
  return text.split(",").map((word) => word.trim()).filter(Boolean);
}

function parseGrants(text) {
  return words(text).map((word) => {
    const [, role, path] = word.match(/^(\w+):?(.*)$/s) ?? [null, word, ""];
    return { role, path: path.replace(/^\/|\/$/g, "") };
  });
}

function grantsText(grants) {
  return grants.map(({ role, path }) =>
    ["operate", "backup"].includes(role) ? role : `${role}:/${path}`
  ).join(", ");
}

function hours(ms) {
  const count = ms / HOUR_MS;
  return count < 48 ? `${Math.round(count)} h` : `${Math.round(count / 24)} days`;
}
