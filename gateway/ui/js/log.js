// The page Log: the slots of the replicated log, newest first.

import { get } from "./api.js";
import { h, icon, plural, setChildren } from "./dom.js";
import { VirtualList } from "./list.js";
import { listen } from "./live.js";
import { ListStatus } from "./list-status.js";

const PAGE = 100;
const ENTRIES_MAX = 20_000;
const COMMANDS_SHOWN = 300;
const KINDS = {
  batch: "paxos",
  view: "rule",
  members: "rule",
  settled: "rule",
  roster: "rule",
  abort: "wrong",
  noop: "client",
};
const OUTCOMES = {
  committed: "done",
  aborted: "wrong",
  "partly aborted": "wrong",
  undecided: "journal",
};

/** Open the log; `rest` is the slot to show, or empty for the newest. */
export function open(main, rest) {
  return new Log(main, rest);
}

class Log {
  constructor(main, rest) {
    this.entries = [];
    this.following = true;
    this.stopListening = () => {};
    this.count = h("span.quiet", { role: "status" });
    this.list = new VirtualList({
      label: "Log",
      rowHeight: 44,
      row: (entry) => this.row(entry),
      open: (entry) => this.choose(entry),
      choose: (entry) => this.choose(entry),
      nearEnd: () => this.loadOlder(),
    });
    this.status = new ListStatus({
      list: this.list,
      iconName: "log",
      subject: "The log",
      empty: [
        "The log is empty",
        "No slot has been decided yet, or all of them have been truncated.",
      ],
      retry: () => this.refresh(),
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
              h("span", {}, "Value"),
              h("span.hide-small", {}, "Ballot"),
              h("span.hide-small", {}, "Accepted by"),
              h("span.hide-small", {}, "View"),
              h("span", {}, "Outcome"),
            ),
            this.status.strip,
            this.list.element,
            this.status.placeholder,
          ),
          this.panel,
        ),
      ),
    );
    this.navigate(rest);
    this.loadAcceptors();
  }

  close() {
    this.closed = true;
    this.stopListening();
    this.list.close();
  }

  refresh() {
    this.load();
    if (!this.acceptors) this.loadAcceptors();
  }

  async navigate(rest) {
    const slot = Number(rest);
    this.setFollowing(!slot, false);
    this.entries = this.list.items = [];
    this.status.setLoading();
    this.status.draw(0);
    await this.load(slot ? slot + 20 : null);
    if (slot && !this.closed && this.status.isLoaded) {
      const index = this.entries.findIndex((entry) => entry.slot === slot);
      if (index >= 0) this.list.choose(index);
      else this.count.textContent = this.whyMissing(slot);
      this.list.element.focus();
    }
  }

  /** Why a slot is not among the loaded ones. */
  whyMissing(slot) {
    if (slot < this.firstKept) return `slot ${slot.toLocaleString()} has been truncated`;
    return slot > this.decided
      ? `slot ${slot.toLocaleString()} is not decided yet`
      : `slot ${slot.toLocaleString()} was not sent by the gateway`;
  }

  setFollowing(on, reload = true) {
    this.following = on;
    this.follow.setAttribute("aria-pressed", on);
    this.stopListening();
    this.stopListening = on
      ? listen(
        "log",
        (page) => (page.problem === undefined
          ? this.receivePage(page, true)
          : this.showFailure(page.problem)),
      )
      : () => {};
    if (on && reload) this.load();
  }

  async load(before = null) {
    try {
      const page = await get(
        `/v1/log?limit=${PAGE}&commands=1${before ? `&before=${before}` : ""}`,
      );
      if (!this.closed) this.receivePage(page, before === null);
    } catch (error) {
      if (!this.closed) this.showFailure(error.message);
    }
  }

  showFailure(why) {
    this.status.setFailed(why);
    this.status.draw(this.entries.length);
  }

  receivePage(page, newest) {
    this.decided = page.decided;
    this.firstKept = page.first_kept;
    this.status.setLoaded();
    this.merge(page.entries, newest);
  }

  /** Merge entries in: newer ones, and those whose outcome or votes have changed. */
  merge(entries, newest) {
    const known = new Map(this.entries.map((entry) => [entry.slot, entry]));
    for (const entry of entries) {
      const previous = known.get(entry.slot);
      // The list does not redraw a row whose object is the same.
      if (
        previous?.outcome !== entry.outcome ||
        previous.accepted_by.length !== entry.accepted_by.length
      ) known.set(entry.slot, entry);
    }
    const chosen = this.list.items[this.list.chosen]?.slot;
    this.entries = [...known.values()].sort((one, other) => other.slot - one.slot);
    const lowest = entries.at(-1)?.slot ?? 0;
    // A gap between the shown entries and the new ones would hide slots: drop the old ones.
    if (
      newest && this.entries.length > entries.length &&
      !this.entries.some((entry) => entry.slot === lowest - 1) && lowest > (this.firstKept ?? 1)
    ) this.entries = entries.slice();
    this.entries.length = Math.min(this.entries.length, ENTRIES_MAX);
    this.list.items = this.entries;
    this.list.chosen = this.entries.findIndex((entry) => entry.slot === chosen);
    this.list.draw();
    this.status.draw(this.entries.length);
    // The slot in the panel may have been decided since.
    const selected = this.panel.hidden ? undefined : known.get(this.panelSlot);
    if (selected && selected.outcome !== this.panelOutcome) this.choose(selected);
    const [decided, firstKept] = [this.decided, this.firstKept].map((slot) =>
      slot?.toLocaleString() ?? "–"
    );
    this.count.textContent = `${decided} decided, kept from slot ${firstKept}`;
  }

  async loadOlder() {
    const last = this.entries.at(-1);
    if (
      !last || this.fetching || last.slot <= (this.firstKept ?? 1) ||
      this.entries.length >= ENTRIES_MAX
    ) return;
    this.fetching = true;
    try {
      const page = await get(`/v1/log?limit=${PAGE}&commands=1&before=${last.slot}`);
      if (!this.closed && page.entries.length) this.merge(page.entries, false);
    } catch (error) {
      if (!this.closed) this.showFailure(error.message);
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

  /** A dot for each acceptor, filled if its vote for this slot was received. */
  dots(entry) {
    const accepted = new Set(entry.accepted_by);
    if (!accepted.size) {
      return h("span.quiet", {
        title:
          "No votes received: this learner has the slot from another learner or from its journal",
      }, "–");
    }
    const label = `accepted by ${
      [...accepted].map((name) => name.replace("acceptor-", "")).join(", ")
    }`;
    return h(
      "span.dots",
      { role: "img", "aria-label": label, title: label },
      (this.acceptors ?? [...accepted]).map((name) => h(`i${accepted.has(name) ? ".yes" : ""}`)),
    );
  }

  async loadAcceptors() {
    let nodes;
    try {
      ({ nodes } = await get("/v1/cluster"));
    } catch {
      return; // Only received votes get a dot until the page is refreshed.
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
      if (!this.closed && this.panelSlot === entry.slot) {
        this.panel.append(
          h(
            "p.wrong-text",
            {},
            `The slot's other commands could not be loaded: ${error.message}`,
          ),
        );
      }
      return;
    }
    if (!this.closed && this.panelSlot === entry.slot && entries[0]?.slot === entry.slot) {
      this.drawPanel(entries[0]);
    }
  }

  drawPanel(entry) {
    this.panelSlot = entry.slot;
    this.panelOutcome = entry.outcome;
    this.panel.hidden = false;
    const facts = [["view", entry.epoch], [
      "ballot",
      entry.ballot && h("span.mono", {}, entry.ballot),
    ], [
      "accepted by",
      entry.accepted_by.length
        ? this.voters(entry)
        : "not known: this learner has the slot from another learner or from its journal",
    ]].filter(([, value]) => value !== null);
    const missing = entry.commands_count - entry.commands.length;
    setChildren(
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
          title: accepted.has(name) ? `${name} accepted` : `no vote of ${name} was received`,
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
