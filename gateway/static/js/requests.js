// The page Requests: what is under way and what was lately, each of them as a sequence diagram.

import { get, pause } from "./api.js";
import { toast } from "./dialog.js";
import { clock, duration, h, icon } from "./dom.js";
import { Diagram } from "./diagram.js";
import { VirtualList } from "./list.js";
import { listen } from "./live.js";
import { fromApi, ofRequest, ofTime, readSimulation } from "./trace.js";

const KEPT = 400;

/** Open the list, or the diagram of the request that the address names. */
export function open(main, rest) {
  const view = new Requests(main);
  view.move(rest);
  return view;
}

class Requests {
  constructor(main) {
    this.main = main;
    this.filter = "";
    this.following = true;
    this.deaf = () => {};
    this.diagram = null;
    this.list = null;
  }

  close() {
    this.turn = null;
    this.deaf();
    this.diagram?.close();
    this.list?.close();
    this.diagram = this.list = null;
  }

  move(rest) {
    this.close();
    const id = decodeURIComponent(rest);
    if (id && id !== "simulation") this.showTrace(id);
    else if (id === "simulation" && this.simulation) this.showSimulation();
    else this.showList();
  }

  refresh() {
    if (this.list) this.look();
  }

  // -- the list ----------------------------------------------------------------------------------

  showList() {
    this.rows = [];
    this.count = h("span.quiet", { role: "status" });
    this.list = new VirtualList({ label: "Requests", rowHeight: 44, row: (request) => this.row(request), open: (request) => this.enter(request) });
    const search = h("input", { type: "search", placeholder: "Filter by path or id", "aria-label": "Filter", value: this.filter, oninput: () => { this.filter = search.value.toLowerCase(); this.show(); } });
    const writes = h("button", { type: "button", "aria-pressed": `${Boolean(this.onlyWrites)}`, onclick: () => { this.onlyWrites = !this.onlyWrites; writes.setAttribute("aria-pressed", this.onlyWrites); this.show(); } }, "Writes only");
    const follow = h("button", { type: "button", "aria-pressed": `${this.following}`, onclick: () => { this.following = !this.following; follow.setAttribute("aria-pressed", this.following); this.look(); this.follow(); } }, "Follow");
    const picker = h("input", { type: "file", hidden: true, "aria-label": "A simulator's trace", onchange: () => picker.files[0] && this.load(picker.files[0]) });
    this.main.replaceChildren(h("section.page.page-full", {}, h("header.head", {}, h("h1", {}, "Requests"), this.count, h("span.grow"), search, writes, follow,
      h("button", { type: "button", title: "A file of synod sim --trace", onclick: () => picker.click() }, icon("requests"), "Open a simulation"), picker),
      h("div.card.listing.requests", {}, h("div.columns", { "aria-hidden": "true" }, h("span", {}, "Time"), h("span", {}, "What"), h("span.hide-small", {}, "Request"), h("span", {}, "Result"), h("span", {}, "Took")), this.list.element)));
    this.turn = {};
    this.look();
    this.follow();
  }

  follow() {
    this.deaf();
    this.deaf = this.following ? listen("requests", ({ requests }) => this.take(requests)) : () => {};
  }

  async look() {
    const { turn } = this;
    const { requests } = await get("/v1/requests?limit=200");
    if (this.turn === turn && this.list) this.take(requests);
  }

  /** The newest ones; what is known and older stays, unless it was under way and is not told of any more. */
  take(newest) {
    const lowest = newest.at(-1)?.number ?? Infinity;
    const known = new Map(this.rows.map((request) => [request.number, request]));
    // The same object means that a row need not be drawn again.
    const fresh = newest.map((request) => (known.get(request.number)?.status ? known.get(request.number) : request));
    this.rows = [...fresh, ...this.rows.filter((request) => request.number < lowest && request.status !== null)].slice(0, KEPT);
    this.show();
  }

  show() {
    const { filter } = this;
    const chosen = this.list.items[this.list.chosen]?.number;
    this.list.items = this.rows.filter((request) => (!this.onlyWrites || request.method !== "GET") && (!filter || `${request.path} ${request.request ?? ""}`.toLowerCase().includes(filter)));
    this.list.chosen = chosen === undefined ? -1 : this.list.items.findIndex((request) => request.number === chosen);
    this.list.draw();
    const running = this.rows.filter((request) => request.status === null).length;
    this.count.textContent = `${running} in flight, ${this.rows.length} shown`;
  }

  row(request) {
    const path = decodeURIComponent(request.path.replace(/^\/v1\/(files|directories)/, ""));
    const kind = request.status === null ? "paxos" : request.status < 300 ? "done" : request.status < 500 ? "journal" : "wrong";
    const what = h("span.what", {}, h("b", {}, request.method), " ", h("span", { title: path }, path));
    return h("div.entry", {}, h("span.time", {}, clock(request.started_us / 1000)), what,
      request.request ? h("a.mono.hide-small", { href: `#/requests/${encodeURIComponent(request.request)}`, tabindex: "-1" }, request.request.replace(/^(gateway-\d+)\.(\w{4})\w*/, "$1.$2…")) : h("span.hide-small.quiet", {}, "read"),
      h("span", {}, h(`span.tag.${kind}`, {}, request.status ?? "running")), h("span.took", {}, request.status === null ? "" : duration(request.duration_us)));
  }

  enter(request) {
    if (request.request) location.hash = `#/requests/${encodeURIComponent(request.request)}`;
    else toast("A read has no messages in the log; choose a write.");
  }

  // -- one request -------------------------------------------------------------------------------

  async showTrace(id) {
    const turn = (this.turn = {});
    const body = h("div", {}, h("p.loading", {}, "Collecting its messages…"));
    const head = h("div.head", {}, h("a.button.bare", { href: "#/requests/" }, icon("back"), "Requests"), h("h1", {}, "One request"), h("code.quiet.hide-small", {}, id));
    this.main.replaceChildren(h("section.page", {}, head, body));
    for (let left = 5; ; left -= 1) {
      try {
        const trace = await get(`/v1/traces/${encodeURIComponent(id)}`);
        if (this.turn !== turn) return;
        // The last records come a moment after the answer.
        if (trace.events.length && (trace.complete || left <= 0)) {
          const subject = trace.events.find((event) => event.type === "client.submit")?.summary ?? "";
          head.append(h("span.grow"), trace.slot === null ? "" : h("a.tag.paxos", { href: `#/log/${trace.slot}` }, `slot ${trace.slot}`));
          this.show_(body, fromApi(trace), subject.replace(/^please: /, ""));
          return;
        }
        if (left <= 0) throw new Error("No message of it was recorded: recording may be off (the setting trace), or it took messages that are not told one by one.");
      } catch (error) {
        if (this.turn !== turn) return;
        if (left <= 0 || (error.status && error.status !== 404)) {
          body.replaceChildren(h("div.empty", {}, icon("requests"), h("h2", {}, "There is no picture of this request"), h("p.quiet", {}, error.message)));
          return;
        }
      }
      await pause(300);
    }
  }

  show_(body, model, subject) {
    this.diagram?.close();
    this.diagram = new Diagram(model);
    body.replaceChildren(...[subject && h("p.subject", {}, subject), this.diagram.element].filter(Boolean));
  }

  // -- a simulator's run -------------------------------------------------------------------------

  async load(file) {
    const body = h("p.loading", { role: "status" }, "Reading…");
    this.close();
    this.main.replaceChildren(h("section.page", {}, body));
    try {
      this.simulation = await readSimulation(file, (part) => { body.textContent = `Reading… ${Math.round(part * 100)}%`; });
      this.simulation.name = file.name;
    } catch (error) {
      this.showList();
      toast(`${file.name} is no trace of the simulator: ${error.message}`, true);
      return;
    }
    if (location.hash === "#/requests/simulation") this.showSimulation();
    else location.hash = "#/requests/simulation";
  }

  showSimulation() {
    const { simulation } = this;
    const body = h("div");
    const end = simulation.records.at(-1)?.time_ms ?? 0;
    const pick = h("select", { "aria-label": "Request", onchange: () => draw() }, h("option", { value: "" }, "everything from…"), simulation.requests.slice(0, 2_000).map((request, index) => h("option", { value: index }, `${(request.at / 1000).toFixed(2)} s · ${request.what}`)));
    const from = h("input", { type: "range", min: 0, max: Math.floor(end), value: 0, "aria-label": "Moment", onchange: () => { pick.value = ""; draw(); } });
    const draw = () => this.show_(body, pick.value === "" ? ofTime(simulation, Number(from.value)) : ofRequest(simulation, simulation.requests[pick.value]), "");
    if (simulation.requests.length) pick.value = "0";
    this.main.replaceChildren(h("section.page", {}, h("div.head", {}, h("a.button.bare", { href: "#/requests/" }, icon("back"), "Requests"), h("h1", {}, "A simulated run"), h("code.quiet", {}, simulation.name), h("span.grow"), pick, from), body));
    draw();
  }

  /** Keys of the page. */
  key(event, typing) {
    if (typing && event.target.type !== "range") return false;
    if (event.ctrlKey || event.target.closest?.(".menu")) return false;
    if (this.diagram) return this.diagram.key(event);
    if (event.target.closest?.("button, a") && event.key === "Enter") return false;
    return this.list?.key(event) ?? false;
  }
}
