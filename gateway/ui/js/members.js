// The members of the cluster: the configuration, and each change with what it waits for.

import { byRequestOrder, h, plural } from "./dom.js";

const DISK_CHARS = 8;
const ROLES = ["proposer", "learner", "store"];

/** The section of the page Cluster; `draw` shows a state that `/v1/cluster` has answered. */
export class MembersSection {
  constructor() {
    this.configuration = h("p.quiet");
    this.changes = h("ul.changes", { "aria-label": "Changes under way" });
    this.rows = h("tbody");
    this.table = h(
      "table.members",
      {},
      h("caption", {}, "Members, their disks and what they wait for"),
      h(
        "thead",
        {},
        h("tr", {}, ["Member", "Disk", "State"].map((text) => h("th", { scope: "col" }, text))),
      ),
      this.rows,
    );
    this.element = h(
      "section.card.pad.membership",
      { "aria-label": "Members", hidden: true },
      h("h2", {}, "Members"),
      this.configuration,
      this.changes,
      // A wide table scrolls in its own box, also by keyboard.
      h(
        "div.scrolled",
        { tabindex: "0", role: "group", "aria-label": "Table of members" },
        this.table,
      ),
    );
  }

  draw({ acceptors, roster, members }) {
    this.element.hidden = !acceptors || !roster;
    if (this.element.hidden) return;
    const { configuration, changes } = texts(acceptors, roster, members);
    this.configuration.textContent = configuration;
    this.changes.replaceChildren(...changes.map((change) => h("li", {}, change)));
    this.changes.hidden = !changes.length;
    const rows = [...members].sort((one, other) => byRequestOrder(one.name, other.name))
      .map(rowOf);
    // Most states say the same, and a new row would take the reader's selection away.
    const shown = JSON.stringify(rows);
    if (this.shown === shown) return;
    this.shown = shown;
    this.rows.replaceChildren(...rows.map(row));
  }
}

function texts(acceptors, roster, members) {
  const counted = members.filter(({ standing }) => ["member", "joining"].includes(standing));
  const others = ROLES.map((role) =>
    plural(counted.filter((member) => member.role === role).length, role)
  ).join(", ");
  const changes = [];
  if (acceptors.waits_for) changes.push(`Waits for ${acceptors.waits_for}`);
  if (roster.waits_for) changes.push(`Waits for ${roster.waits_for}`);
  for (const { name, standing, waits_for: waits } of members) {
    if (standing === "joining") changes.push(`${name} joins, and waits for ${waits}`);
    if (standing === "leaving") changes.push(`${name} leaves, and waits for ${waits}`);
  }
  const { version } = acceptors;
  const next = acceptors.change ? `, to become version ${acceptors.change.version}` : "";
  return {
    configuration:
      `${plural(acceptors.members.length, "acceptor")} of version ${version}${next}; ` +
      `${others} of version ${roster.version}`,
    changes,
  };
}

function rowOf({ name, disk, runs_on: runsOn, standing, waits_for: waits, command }) {
  const short = (id) => id?.slice(0, DISK_CHARS) ?? "";
  const state = {
    newcomer: "waits to be added: ",
    uncounted: `runs on disk ${short(runsOn)}, which does not vote: `,
    removed: "was removed, and may be switched off",
    joining: "joins",
    leaving: "leaves",
    member: "member",
  }[standing];
  // What a silent member waits for counts up, which would redraw the table every second.
  const silent = waits?.startsWith("it to be heard") ? ", silent" : "";
  const missing = standing === "member" && waits && !silent ? `, waits for ${waits}` : silent;
  return { name, disk: short(disk ?? runsOn), state: state + missing, command, standing };
}

function row({ name, disk, state, command, standing }) {
  return h(
    `tr.${standing}`,
    {},
    h("th", { scope: "row" }, name),
    h("td", {}, disk && h("code", {}, disk)),
    h("td", {}, state, command && h("code", {}, command)),
  );
}
