// The page Log: what was agreed, slot by slot, newest first.

import { get } from "./api.js";
import { h, icon, plural, put } from "./dom.js";
import { VirtualList } from "./list.js";

const PAGE = 100;
const NEWEST = 30;  // Slots of a busy cluster hold hundreds of commands: to follow, a few are enough.
const LOOK_MS = 2_000;
const KEPT_MAX = 20_000;
const KINDS = { batch: "paxos", view: "rule", abort: "wrong", noop: "client" };
const OUTCOMES = { committed: "done", aborted: "wrong", "partly aborted": "wrong", undecided: "journal" };

/** Open the log; `rest` is a slot to begin at, or nothing for the newest. */
export function open(main, rest) {
  return new Log(main, rest);
}

class Log {
  constructor(main, rest) {
    this.entries = [];
    this.next = null;
    this.following = true;
    this.count = h("span.quiet", { role: "status" });
    this.list = new VirtualList({ label: "Log", rowHeight: 44, row: (entry) => this.row(entry), open: (entry) => this.choose(entry), choose: (entry) => this.choose(entry), nearEnd: () => this.older() });
    this.panel = h("aside.panel.card", { hidden: true, "aria-live": "polite", "aria-label": "Slot" });
    this.follow = h("button", { type: "button", "aria-pressed": "true", onclick: () => this.setFollowing(!this.following) }, "Follow");
    const jump = h("input", { type: "search", inputmode: "numeric", placeholder: "Go to slot", "aria-label": "Go to slot" });
    const form = h("form.inline", { onsubmit: (event) => { event.preventDefault(); const slot = Number(jump.value); if (slot > 0) location.hash = `#/log/${slot}`; } }, jump);
    main.append(h("section.page.page-full", {}, h("header.head", {}, h("h1", {}, "Log"), this.count, h("span.grow"), form, this.follow),
      h("div.split", {}, h("div.card.listing.log", {}, h("div.columns", { "aria-hidden": "true" }, h("span", {}, "Slot"), h("span", {}, "What"), h("span.hide-small", {}, "Ballot"), h("span.hide-small", {}, "View"), h("span", {}, "Outcome")), this.list.element), this.panel)));
    this.move(rest);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.list.close();
  }

  refresh() {
    this.look();
  }

  async move(rest) {
    const slot = Number(rest);
    clearTimeout(this.timer);
    this.setFollowing(!slot, false);
    this.entries = [];
    await this.look(slot ? slot + 20 : null);
    if (slot && !this.closed) {
      const index = this.entries.findIndex((entry) => entry.slot === slot);
      if (index >= 0) this.list.choose(index);
      else this.count.textContent = `slot ${slot} is not kept any more`;
      this.list.element.focus();
    }
  }

  setFollowing(on, look = true) {
    this.following = on;
    this.follow.setAttribute("aria-pressed", on);
    if (on && look) this.look();
  }

  async look(before = null) {
    clearTimeout(this.timer);
    try {
      const page = await get(`/v1/log?limit=${before || !this.entries.length ? PAGE : NEWEST}${before ? `&before=${before}` : ""}`);
      if (this.closed) return;
      this.decided = page.decided;
      this.firstKept = page.first_kept;
      this.take(page.entries, before === null);
      if (this.next === null || before !== null) this.next = page.next;
    } catch (error) {
      this.count.textContent = error.message;
    }
    if (this.following && !this.closed) this.timer = setTimeout(() => this.look(), LOOK_MS);
  }

  /** Newer entries go on top; what was undecided may be decided now. */
  take(entries, newest) {
    const known = new Map(this.entries.map((entry) => [entry.slot, entry]));
    for (const entry of entries) known.set(entry.slot, entry);
    const chosen = this.list.items[this.list.chosen]?.slot;
    this.entries = [...known.values()].sort((one, other) => other.slot - one.slot);
    const lowest = entries.at(-1)?.slot ?? 0;
    // A gap between what is shown and what came would hide slots: begin anew there.
    if (newest && this.entries.length > entries.length && !this.entries.some((entry) => entry.slot === lowest - 1) && lowest > (this.firstKept ?? 1)) this.entries = entries.slice();
    this.entries.length = Math.min(this.entries.length, KEPT_MAX);
    this.list.items = this.entries;
    this.list.chosen = this.entries.findIndex((entry) => entry.slot === chosen);
    this.list.draw(true);
    this.count.textContent = `${this.decided?.toLocaleString() ?? "–"} decided, kept from ${this.firstKept?.toLocaleString() ?? "–"} on`;
  }

  async older() {
    const last = this.entries.at(-1);
    if (!last || this.fetching || last.slot <= (this.firstKept ?? 1) || this.entries.length >= KEPT_MAX) return;
    this.fetching = true;
    try {
      const page = await get(`/v1/log?limit=${PAGE}&before=${last.slot}`);
      if (!this.closed && page.entries.length) this.take(page.entries, false);
    } finally {
      this.fetching = false;
    }
  }

  row(entry) {
    const first = entry.commands?.[0];
    const what = first ? [h("b", {}, first.operation.replaceAll("_", " ")), " ", h("span", {}, first.path ?? ""), entry.commands.length > 1 && h("span.quiet", {}, ` and ${entry.commands.length - 1} more`)] : [h("span", {}, entry.summary ?? entry.kind)];
    return h("div.entry", {}, h("span.slot", {}, entry.slot.toLocaleString()), h("span.what", {}, h(`i.pip.${KINDS[entry.kind] ?? "client"}`, { title: entry.kind }), ...what.filter(Boolean)),
      h("span.mono.hide-small", {}, entry.ballot ?? "–"), h("span.hide-small", {}, entry.epoch ?? "–"), h("span", {}, h(`span.tag.${OUTCOMES[entry.outcome] ?? "client"}`, {}, entry.outcome ?? "–")));
  }

  choose(entry) {
    if (!entry) return;
    this.panel.hidden = false;
    const facts = [["kind", entry.kind], ["outcome", entry.outcome], ["ballot", entry.ballot], ["epoch", entry.epoch], ["accepted by", (entry.accepted_by ?? []).join(", ")]].filter(([, value]) => value !== null && value !== undefined && value !== "");
    put(this.panel, h("header", {}, h(`span.tag.${KINDS[entry.kind] ?? "client"}`, {}, entry.kind), h("h2", {}, `Slot ${entry.slot.toLocaleString()}`), h("span.grow"),
      h("button.bare.icon", { type: "button", "aria-label": "Close the slot", onclick: () => { this.panel.hidden = true; } }, icon("close"))),
    entry.kind !== "batch" && entry.summary && h("p", {}, entry.summary), h("dl.facts", {}, facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, `${value}`)])),
    entry.commands?.length ? h("h3", {}, plural(entry.commands.length, "command")) : "",
    h("ul.commands", {}, (entry.commands ?? []).slice(0, 300).map((command) => h("li", {}, h("a", { href: `#/requests/${encodeURIComponent(command.request)}` }, h("b", {}, command.operation.replaceAll("_", " ")), " ", command.path ?? ""), h(`span.tag.${["done", "decided"].includes(command.outcome) ? "done" : command.outcome ? "wrong" : "client"}`, {}, command.outcome ?? "–")))));
  }

  key(event, typing) {
    if (typing || event.ctrlKey || event.target.closest?.(".panel")) return false;
    if (event.target.closest?.("button, a") && event.key === "Enter") return false;
    return this.list.key(event);
  }
}
