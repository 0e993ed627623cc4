// The page Log: what was agreed, slot by slot, newest first.

import { get } from "./api.js";
import { h, icon, plural, put } from "./dom.js";
import { VirtualList } from "./list.js";
import { listen } from "./live.js";
import { Standing } from "./standing.js";

const PAGE = 100;
const KEPT_MAX = 20_000;
const COMMANDS_SHOWN = 300;
const KINDS = { batch: "paxos", view: "rule", abort: "wrong", noop: "client" };
const OUTCOMES = {
  committed: "done",
  aborted: "wrong",
  "partly aborted": "wrong",
  undecided: "journal",
};

/** Open the log; `rest` is a slot to begin at, or nothing for the newest. */
export function open(main, rest) {
  return new Log(main, rest);
}

class Log {
  constructor(main, rest) {
    this.entries = [];
    this.following = true;
    this.deaf = () => {};
    this.count = h("span.quiet", { role: "status" });
    this.list = new VirtualList({
      label: "Log",
      rowHeight: 44,
      row: (entry) => this.row(entry),
      open: (entry) => this.choose(entry),
      choose: (entry) => this.choose(entry),
      nearEnd: () => this.older(),
    });
    this.standing = new Standing({
      list: this.list,
      sign: "log",
      what: "The log",
      empty: [
        "No slot is kept",
        "Nothing has been agreed yet, or all of it is older than what is kept.",
      ],
      again: () => this.refresh(),
    });
    this.panel = h("aside.panel.card", {
      hidden: true,
      "aria-live": "polite",
      "aria-label": "Slot",
    });
    this.follow = h("button", {
      type: "button",
      "aria-pressed": "true",
      onclick: () => this.setFollowing(!this.following),
    }, "Follow");
    const jump = h("input", {
      type: "search",
      inputmode: "numeric",
      placeholder: "Go to slot",
      "aria-label": "Go to slot",
    });
    const form = h("form.inline", {
      onsubmit: (event) => {
        event.preventDefault();
        const slot = Number(jump.value);
        if (slot > 0) location.hash = `#/log/${slot}`;
      },
    }, jump);
    main.append(
      h(
        "section.page.page-full",
        {},
        h("header.head", {}, h("h1", {}, "Log"), this.count, h("span.grow"), form, this.follow),
        h(
          "div.split",
          {},
          h(
            "div.card.listing.log",
            {},
            h(
              "div.columns",
              { "aria-hidden": "true" },
              h("span", {}, "Slot"),
              h("span", {}, "What"),
              h("span.hide-small", {}, "Ballot"),
              h("span.hide-small", {}, "Accepted by"),
              h("span.hide-small", {}, "View"),
              h("span", {}, "Outcome"),
            ),
            this.standing.strip,
            this.list.element,
            this.standing.place,
          ),
          this.panel,
        ),
      ),
    );
    this.move(rest);
    this.meetAcceptors();
  }

  close() {
    this.closed = true;
    this.deaf();
    this.list.close();
  }

  refresh() {
    this.look();
    if (!this.acceptors) this.meetAcceptors();
  }

  async move(rest) {
    const slot = Number(rest);
    this.setFollowing(!slot, false);
    this.entries = this.list.items = [];
    this.standing.loading();
    this.standing.draw(0);
    await this.look(slot ? slot + 20 : null);
    if (slot && !this.closed && this.standing.isLoaded) {
      const index = this.entries.findIndex((entry) => entry.slot === slot);
      if (index >= 0) this.list.choose(index);
      else this.count.textContent = this.whyNot(slot);
      this.list.element.focus();
    }
  }

  /** Why a slot is not among those that came. */
  whyNot(slot) {
    if (slot < this.firstKept) return `slot ${slot.toLocaleString()} is not kept any more`;
    return slot > this.decided
      ? `slot ${slot.toLocaleString()} is not decided yet`
      : `slot ${slot.toLocaleString()} did not come`;
  }

  setFollowing(on, look = true) {
    this.following = on;
    this.follow.setAttribute("aria-pressed", on);
    this.deaf();
    this.deaf = on
      ? listen(
        "log",
        (page) => (page.problem === undefined ? this.came(page, true) : this.trouble(page.problem)),
      )
      : () => {};
    if (on && look) this.look();
  }

  async look(before = null) {
    try {
      const page = await get(
        `/v1/log?limit=${PAGE}&commands=1${before ? `&before=${before}` : ""}`,
      );
      if (!this.closed) this.came(page, before === null);
    } catch (error) {
      if (!this.closed) this.trouble(error.message);
    }
  }

  trouble(why) {
    this.standing.failed(why);
    this.standing.draw(this.entries.length);
  }

  came(page, newest) {
    this.decided = page.decided;
    this.firstKept = page.first_kept;
    this.standing.loaded();
    this.take(page.entries, newest);
  }

  /** Newer entries go on top; what was undecided may be decided now. */
  take(entries, newest) {
    const known = new Map(this.entries.map((entry) => [entry.slot, entry]));
    for (const entry of entries) {
      const former = known.get(entry.slot);
      // The same object means that a row need not be drawn again.
      if (
        former?.outcome !== entry.outcome || former.accepted_by.length !== entry.accepted_by.length
      ) known.set(entry.slot, entry);
    }
    const chosen = this.list.items[this.list.chosen]?.slot;
    this.entries = [...known.values()].sort((one, other) => other.slot - one.slot);
    const lowest = entries.at(-1)?.slot ?? 0;
    // A gap between what is shown and what came would hide slots: begin anew there.
    if (
      newest && this.entries.length > entries.length &&
      !this.entries.some((entry) => entry.slot === lowest - 1) && lowest > (this.firstKept ?? 1)
    ) this.entries = entries.slice();
    this.entries.length = Math.min(this.entries.length, KEPT_MAX);
    this.list.items = this.entries;
    this.list.chosen = this.entries.findIndex((entry) => entry.slot === chosen);
    this.list.draw();
    this.standing.draw(this.entries.length);
    // What the panel says of its slot may have been decided since.
    const told = this.panel.hidden ? undefined : known.get(this.shown);
    if (told && told.outcome !== this.shownOutcome) this.choose(told);
    this.count.textContent = `${this.decided?.toLocaleString() ?? "–"} decided, kept from ${
      this.firstKept?.toLocaleString() ?? "–"
    } on`;
  }

  async older() {
    const last = this.entries.at(-1);
    if (
      !last || this.fetching || last.slot <= (this.firstKept ?? 1) ||
      this.entries.length >= KEPT_MAX
    ) return;
    this.fetching = true;
    try {
      const page = await get(`/v1/log?limit=${PAGE}&commands=1&before=${last.slot}`);
      if (!this.closed && page.entries.length) this.take(page.entries, false);
    } catch (error) {
      if (!this.closed) this.trouble(error.message);
    } finally {
      this.fetching = false;
    }
  }

  row(entry) {
    const first = entry.commands[0];
    const more = entry.commands_count - 1;
    const what = first
      ? [
        h("b", {}, first.operation.replaceAll("_", " ")),
        " ",
        h("span", {}, first.path),
        more > 0 && h("span.quiet", {}, ` and ${more.toLocaleString()} more`),
      ]
      : [h("span", {}, entry.summary)];
    return h(
      "div.entry",
      {},
      h("span.slot", {}, entry.slot.toLocaleString()),
      h(
        "span.what",
        {},
        h(`i.pip.${KINDS[entry.kind] ?? "client"}`, { title: entry.kind }),
        ...what.filter(Boolean),
      ),
      h("span.mono.ballot.hide-small", {}, entry.ballot ?? "–"),
      h("span.votes.hide-small", {}, this.dots(entry)),
      h("span.view.hide-small", {}, entry.epoch ?? "–"),
      h("span", {}, h(`span.tag.${OUTCOMES[entry.outcome] ?? "client"}`, {}, entry.outcome)),
    );
  }

  /** A dot for each acceptor, filled if its vote for this slot was heard. */
  dots(entry) {
    const accepted = new Set(entry.accepted_by);
    if (!accepted.size) {
      return h("span.quiet", {
        title: "This learner has it from another one, or from its journal: it heard no votes",
      }, "–");
    }
    const said = `accepted by ${
      [...accepted].map((name) => name.replace("acceptor-", "")).join(", ")
    }`;
    return h(
      "span.dots",
      { role: "img", "aria-label": said, title: said },
      (this.acceptors ?? [...accepted]).map((name) => h(`i${accepted.has(name) ? ".yes" : ""}`)),
    );
  }

  async meetAcceptors() {
    let nodes;
    try {
      ({ nodes } = await get("/v1/cluster"));
    } catch {
      return; // Then only the votes that were heard have a dot, until the page is refreshed.
    }
    if (this.closed) return;
    this.acceptors = nodes.filter((node) => node.role === "acceptor").map((node) => node.name);
    this.list.draw(true);
  }

  async choose(entry) {
    if (!entry) return;
    this.drawPanel(entry);
    if (entry.commands.length === entry.commands_count) return;
    let entries;
    try {
      ({ entries } = await get(`/v1/log?limit=1&before=${entry.slot + 1}`));
    } catch (error) {
      if (!this.closed && this.shown === entry.slot) {
        this.panel.append(
          h(
            "p.wrong-text",
            {},
            `The other commands of this slot could not be loaded: ${error.message}`,
          ),
        );
      }
      return;
    }
    if (!this.closed && this.shown === entry.slot && entries[0]?.slot === entry.slot) {
      this.drawPanel(entries[0]);
    }
  }

  drawPanel(entry) {
    this.shown = entry.slot;
    this.shownOutcome = entry.outcome;
    this.panel.hidden = false;
    const facts = [["view", entry.epoch], [
      "ballot",
      entry.ballot && h("span.mono", {}, entry.ballot),
    ], [
      "accepted by",
      entry.accepted_by.length
        ? this.voters(entry)
        : "not heard: this learner has it from another one, or from its journal",
    ]].filter(([, value]) => value !== null);
    const missing = entry.commands_count - entry.commands.length;
    put(
      this.panel,
      h(
        "header",
        {},
        h(`span.tag.${KINDS[entry.kind] ?? "client"}`, {}, entry.kind),
        h("h2", {}, `Slot ${entry.slot.toLocaleString()}`),
        h(`span.tag.${OUTCOMES[entry.outcome] ?? "client"}`, {}, entry.outcome),
        h("span.grow"),
        h("button.bare.icon", {
          type: "button",
          "aria-label": "Close the slot",
          onclick: () => {
            this.panel.hidden = true;
          },
        }, icon("close")),
      ),
      entry.kind !== "batch" && h("p", {}, entry.summary),
      h("dl.facts", {}, facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      entry.commands_count ? h("h3", {}, plural(entry.commands_count, "command")) : "",
      h(
        "ul.commands",
        {},
        entry.commands.slice(0, COMMANDS_SHOWN).map((command) =>
          h(
            "li",
            {},
            h(
              "a",
              { href: `#/requests/${encodeURIComponent(command.request)}` },
              h("b", {}, command.operation.replaceAll("_", " ")),
              " ",
              command.path,
            ),
            command.outcome === "decided" ? "" : h(
              `span.tag.${command.outcome ? "wrong" : "client"}`,
              {},
              command.outcome ?? "open",
            ),
          )
        ),
        missing > 0 && h("li.quiet", {}, "…"),
      ),
    );
  }

  voters(entry) {
    const accepted = new Set(entry.accepted_by);
    return h(
      "span.voters",
      {},
      (this.acceptors ?? entry.accepted_by).map((name) =>
        h(`span.voter${accepted.has(name) ? ".yes" : ""}`, {
          title: accepted.has(name) ? `${name} accepted` : `no vote of ${name} was heard`,
        }, name.replace("acceptor-", "a"))
      ),
    );
  }

  key(event, typing) {
    if (typing || event.ctrlKey || event.target.closest?.(".panel")) return false;
    if (event.target.closest?.("button, a") && event.key === "Enter") return false;
    return this.list.key(event);
  }
}
