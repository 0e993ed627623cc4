// The page Requests: what is under way and what was lately, each of them as a sequence diagram.

import { get, pause } from "./api.js";
import { toast } from "./dialog.js";
import { clock, duration, h, icon } from "./dom.js";
import { Diagram } from "./diagram.js";
import { VirtualList } from "./list.js";
import { listen } from "./live.js";
import { Standing } from "./standing.js";
import { fromApi, ofRequest, ofTime, readSimulation } from "./trace.js";

const KEPT = 400;
const WRITES = new Set(["PUT", "POST", "DELETE"]);
const CHANGING = new Set(["files", "directories", "move", "copy", "transactions"]);

/** A write by what was asked, not by whether it has its id yet: that comes with the answer. */
const isWrite = ({ method, route }) => WRITES.has(method) && CHANGING.has(route);

/** What stands for the id of a request that has none. */
function unnamed(request) {
  if (!isWrite(request)) return CHANGING.has(request.route) ? "read" : request.route;
  return request.status === null ? "write, no id yet" : "write, no id";
}

/** What a picture lacks; nothing if all stages of the request were seen. */
function partial(trace) {
  if (!trace.traced) return "Partial: the messages of this request's slot were not recorded.";
  if (trace.complete) return "";
  const seen = trace.stages.map((stage) => stage.name).join(", ") || "none";
  return `Partial: it is not complete, or not all of it was recorded (stages seen: ${seen}). What is not drawn may have happened.`;
}

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
    this.list = new VirtualList({
      label: "Requests",
      rowHeight: 44,
      row: (request) => this.row(request),
      open: (request) => this.enter(request),
    });
    const search = h("input", {
      type: "search",
      placeholder: "Filter by path or id",
      "aria-label": "Filter",
      value: this.filter,
      oninput: () => {
        this.filter = search.value.toLowerCase();
        this.show();
      },
    });
    const writes = h("button", {
      type: "button",
      "aria-pressed": `${Boolean(this.onlyWrites)}`,
      onclick: () => {
        this.onlyWrites = !this.onlyWrites;
        writes.setAttribute("aria-pressed", this.onlyWrites);
        this.show();
      },
    }, "Writes only");
    const follow = h("button", {
      type: "button",
      "aria-pressed": `${this.following}`,
      onclick: () => {
        this.following = !this.following;
        follow.setAttribute("aria-pressed", this.following);
        this.look();
        this.follow();
      },
    }, "Follow");
    this.standing = new Standing({
      list: this.list,
      sign: "requests",
      what: "The list of requests",
      empty: ["No request yet", "This gateway has had none about files since it began."],
      nothing: "No request matches",
      again: () => this.look(),
    });
    const picker = h("input", {
      type: "file",
      hidden: true,
      "aria-label": "A simulator's trace",
      onchange: () => picker.files[0] && this.load(picker.files[0]),
    });
    this.main.replaceChildren(
      h(
        "section.page.page-full",
        {},
        h(
          "header.head",
          {},
          h("h1", {}, "Requests"),
          this.count,
          h("span.grow"),
          search,
          writes,
          follow,
          h(
            "button",
            {
              type: "button",
              title: "A file of synod sim --trace",
              onclick: () => picker.click(),
            },
            icon("requests"),
            "Open a simulation",
          ),
          picker,
        ),
        h(
          "div.card.listing.requests",
          {},
          h(
            "div.columns",
            { "aria-hidden": "true" },
            h("span", {}, "Time"),
            h("span", {}, "What"),
            h("span.hide-small", {}, "Request"),
            h("span", {}, "Result"),
            h("span", {}, "Took"),
          ),
          this.standing.strip,
          this.list.element,
          this.standing.place,
        ),
      ),
    );
    this.turn = {};
    this.show();
    this.look();
    this.follow();
  }

  follow() {
    this.deaf();
    this.deaf = this.following
      ? listen(
        "requests",
        ({ requests, problem }) => (requests ? this.take(requests) : this.trouble(problem)),
      )
      : () => {};
  }

  async look() {
    const { turn } = this;
    try {
      const { requests } = await get("/v1/requests?limit=200");
      if (this.turn === turn && this.list) this.take(requests);
    } catch (error) {
      if (this.turn === turn && this.list) this.trouble(error.message);
    }
  }

  trouble(why) {
    this.standing.failed(why);
    this.show();
  }

  /** The newest ones; what is known and older stays, unless it was under way and is not told of any more. */
  take(newest) {
    this.standing.loaded();
    const lowest = newest.at(-1)?.number ?? Infinity;
    const known = new Map(this.rows.map((request) => [request.number, request]));
    // The same object means that a row need not be drawn again.
    const fresh = newest.map((
      request,
    ) => (known.get(request.number)?.status ? known.get(request.number) : request));
    this.rows = [
      ...fresh,
      ...this.rows.filter((request) => request.number < lowest && request.status !== null),
    ].slice(0, KEPT);
    this.show();
  }

  show() {
    const { filter } = this;
    const chosen = this.list.items[this.list.chosen]?.number;
    this.list.items = this.rows.filter((request) =>
      (!this.onlyWrites || isWrite(request)) &&
      (!filter || `${request.path} ${request.request ?? ""}`.toLowerCase().includes(filter))
    );
    this.list.chosen = chosen === undefined
      ? -1
      : this.list.items.findIndex((request) => request.number === chosen);
    this.list.draw();
    const running = this.rows.filter((request) => request.status === null).length;
    this.count.textContent = this.standing.atMs
      ? `${running} in flight, ${this.rows.length} shown`
      : "";
    this.standing.draw(
      this.list.items.length,
      this.rows.length ? filter || (this.onlyWrites ? "writes" : "") : "",
    );
  }

  row(request) {
    const path = decodeURIComponent(request.path.replace(/^\/v1\/(files|directories)/, ""));
    const kind = request.status === null
      ? "paxos"
      : request.status === 0
      ? "journal"
      : request.status < 300
      ? "done"
      : request.status < 500
      ? "journal"
      : "wrong";
    const what = h(
      "span.what",
      {},
      h("b", {}, request.method),
      " ",
      h("span", { title: path }, path),
    );
    return h(
      "div.entry",
      {},
      h("span.time", {}, clock(request.started_us / 1000)),
      what,
      request.request
        ? h("a.mono.hide-small", {
          href: `#/requests/${encodeURIComponent(request.request)}`,
          tabindex: "-1",
        }, request.request.replace(/^(gateway-\d+)\.(\w{4})\w*/, "$1.$2…"))
        : h("span.hide-small.quiet", {}, unnamed(request)),
      h(
        "span",
        {},
        h(
          `span.tag.${kind}`,
          request.status === 0
            ? { title: "The caller went away before the answer; a write may have been done." }
            : {},
          request.status === 0 ? "caller left" : request.status ?? "running",
        ),
      ),
      h("span.took", {}, request.status === null ? "" : duration(request.duration_us)),
    );
  }

  enter(request) {
    if (request.request) location.hash = `#/requests/${encodeURIComponent(request.request)}`;
    else if (!isWrite(request)) toast("A read has no messages in the log; choose a write.");
    else {toast(
        request.status === null
          ? "It is under way: its id, and its messages, are known with its answer."
          : "This write has no id: it was not told with the answer, or it was refused before it was sent.",
      );}
  }

  // -- one request -------------------------------------------------------------------------------

  async showTrace(id) {
    const turn = (this.turn = {});
    const body = h("div", {}, h("p.loading", {}, "Collecting its messages…"));
    const head = h(
      "div.head",
      {},
      h("a.button.bare", { href: "#/requests/" }, icon("back"), "Requests"),
      h("h1", {}, "One request"),
      h("code.quiet.hide-small", {}, id),
    );
    this.main.replaceChildren(h("section.page", {}, head, body));
    for (let left = 5;; left -= 1) {
      try {
        const trace = await get(`/v1/traces/${encodeURIComponent(id)}`);
        if (this.turn !== turn) return;
        // The last records come a moment after the answer.
        if (trace.events.length && (trace.complete || left <= 0)) {
          const subject = trace.events.find((event) => event.type === "client.submit")?.summary ??
            "";
          head.append(
            h("span.grow"),
            trace.slot === null
              ? ""
              : h("a.tag.paxos", { href: `#/log/${trace.slot}` }, `slot ${trace.slot}`),
          );
          this.show_(body, fromApi(trace), subject.replace(/^please: /, ""), partial(trace));
          return;
        }
        if (left <= 0) {
          throw new Error(
            "No message of it has been recorded here: recording may be off (the setting trace), or it took messages that are not told one by one.",
          );
        }
      } catch (error) {
        if (this.turn !== turn) return;
        if (left <= 0 || (error.status && error.status !== 404)) {
          body.replaceChildren(
            h(
              "div.empty",
              {},
              icon("requests"),
              h("h2", {}, "There is no picture of this request"),
              h("p.quiet", {}, error.message),
            ),
          );
          return;
        }
      }
      await pause(300);
    }
  }

  show_(body, model, subject, note = "") {
    this.diagram?.close();
    this.diagram = new Diagram(model);
    body.replaceChildren(
      ...[
        subject && h("p.subject", {}, subject),
        note && h("p.strip", { role: "note" }, note),
        this.diagram.element,
      ].filter(Boolean),
    );
  }

  // -- a simulator's run -------------------------------------------------------------------------

  async load(file) {
    const body = h("p.loading", { role: "status" }, "Reading…");
    this.close();
    this.main.replaceChildren(h("section.page", {}, body));
    try {
      this.simulation = await readSimulation(file, (part) => {
        body.textContent = `Reading… ${Math.round(part * 100)}%`;
      });
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
    const pick = h(
      "select",
      { "aria-label": "Request", onchange: () => draw() },
      h("option", { value: "" }, "everything from…"),
      simulation.requests.slice(0, 2_000).map((request, index) =>
        h("option", { value: index }, `${(request.at / 1000).toFixed(2)} s · ${request.what}`)
      ),
    );
    const from = h("input", {
      type: "range",
      min: 0,
      max: Math.floor(end),
      value: 0,
      "aria-label": "Moment",
      onchange: () => {
        pick.value = "";
        draw();
      },
    });
    const draw = () =>
      this.show_(
        body,
        pick.value === ""
          ? ofTime(simulation, Number(from.value))
          : ofRequest(simulation, simulation.requests[pick.value]),
        "",
      );
    if (simulation.requests.length) pick.value = "0";
    this.main.replaceChildren(
      h(
        "section.page",
        {},
        h(
          "div.head",
          {},
          h("a.button.bare", { href: "#/requests/" }, icon("back"), "Requests"),
          h("h1", {}, "A simulated run"),
          h("code.quiet", {}, simulation.name),
          h("span.grow"),
          pick,
          from,
        ),
        body,
      ),
    );
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
