// The page Requests: running and recent requests, each of which opens as a sequence diagram.

import { get, pause } from "./api.js";
import { toast } from "./dialog.js";
import { clock, duration, h, icon } from "./dom.js";
import { Diagram } from "./diagram.js";
import { VirtualList } from "./list.js";
import { listen } from "./live.js";
import { ListStatus } from "./list-status.js";
import { fromApi, ofRequest, ofTime, readSimulation } from "./trace.js";

const ROWS_MAX = 400;
const WRITES = new Set(["PUT", "POST", "DELETE"]);
const CHANGING = new Set(["files", "directories", "move", "copy", "transactions"]);

/** Whether a request is a write, by its method and route; its id is known only with the answer. */
const isWrite = ({ method, route }) => WRITES.has(method) && CHANGING.has(route);

/** Shown in place of the id of a request that has none. */
function idLabel(request) {
  if (!isWrite(request)) return CHANGING.has(request.route) ? "read" : request.route;
  return request.status === null ? "write, no id yet" : "write, no id";
}

/** What the diagram does not show; empty if all stages of the request were recorded. */
function missingParts(trace) {
  if (!trace.traced) return "Partial: the messages of this request's slot were not recorded.";
  if (trace.complete) return "";
  const seen = trace.stages.map((stage) => stage.name).join(", ") || "none";
  return "Partial: the request is still running, or not all of its messages were recorded " +
    `(recorded stages: ${seen}). What is not drawn may still have happened.`;
}

/** Open the list, or the diagram of the request that the address names. */
export function open(main, rest) {
  const view = new Requests(main);
  view.navigate(rest);
  return view;
}

class Requests {
  constructor(main) {
    this.main = main;
    this.filter = "";
    this.following = true;
    this.stopListening = () => {};
    this.diagram = null;
    this.list = null;
  }

  close() {
    this.generation = null;
    this.stopListening();
    this.diagram?.close();
    this.list?.close();
    this.diagram = this.list = null;
  }

  navigate(rest) {
    this.close();
    const id = decodeURIComponent(rest);
    if (id && id !== "simulation") this.showTrace(id);
    else if (id === "simulation" && this.simulation) this.showSimulation();
    else this.showList();
  }

  refresh() {
    if (this.list) this.load();
  }

  // -- the list ----------------------------------------------------------------------------------

  showList() {
    this.rows = [];
    this.count = h("span.quiet", { role: "status" });
    this.list = new VirtualList({
      label: "Requests",
      rowHeight: 44,
      row: (request) => this.row(request),
      open: (request) => this.openRequest(request),
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
        this.load();
        this.follow();
      },
    }, "Follow");
    this.status = new ListStatus({
      list: this.list,
      iconName: "requests",
      subject: "The list of requests",
      empty: ["No request yet", "This gateway has received no request for files since it started."],
      noMatch: "No request matches",
      retry: () => this.load(),
    });
    const picker = h("input", {
      type: "file",
      hidden: true,
      "aria-label": "A trace of the simulator",
      onchange: () => picker.files[0] && this.openSimulation(picker.files[0]),
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
              title: "A file written by synod sim --trace",
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
            h("span", {}, "Duration"),
          ),
          this.status.strip,
          this.list.element,
          this.status.placeholder,
        ),
      ),
    );
    this.generation = {};
    this.show();
    this.load();
    this.follow();
  }

  follow() {
    this.stopListening();
    this.stopListening = this.following
      ? listen(
        "requests",
        ({ requests, problem }) => (requests ? this.merge(requests) : this.showFailure(problem)),
      )
      : () => {};
  }

  async load() {
    const { generation } = this;
    try {
      const { requests } = await get("/v1/requests?limit=200");
      if (this.generation === generation && this.list) this.merge(requests);
    } catch (error) {
      if (this.generation === generation && this.list) this.showFailure(error.message);
    }
  }

  showFailure(why) {
    this.status.setFailed(why);
    this.show();
  }

  /** Merge the newest requests in. Older ones stay, except running ones: their end is unknown. */
  merge(newest) {
    this.status.setLoaded();
    const lowest = newest.at(-1)?.number ?? Infinity;
    const known = new Map(this.rows.map((request) => [request.number, request]));
    // The list does not redraw a row whose object is the same.
    const fresh = newest.map((
      request,
    ) => (known.get(request.number)?.status ? known.get(request.number) : request));
    this.rows = [
      ...fresh,
      ...this.rows.filter((request) => request.number < lowest && request.status !== null),
    ].slice(0, ROWS_MAX);
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
    this.count.textContent = this.status.loadedAtMs
      ? `${running} in flight, ${this.rows.length} shown`
      : "";
    this.status.draw(
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
        : h("span.hide-small.quiet", {}, idLabel(request)),
      h(
        "span",
        {},
        h(
          `span.tag.${kind}`,
          request.status === 0
            ? { title: "The client disconnected before the answer; a write may have been applied." }
            : {},
          request.status === 0 ? "client left" : request.status ?? "running",
        ),
      ),
      h("span.took", {}, request.status === null ? "" : duration(request.duration_us)),
    );
  }

  openRequest(request) {
    if (request.request) location.hash = `#/requests/${encodeURIComponent(request.request)}`;
    else if (!isWrite(request)) {
      toast("A read has no diagram: it sends no messages through the log. Choose a write.");
    } else {
      toast(
        request.status === null
          ? "This write is still running. Its diagram is available once it is answered."
          : "This write has no diagram: it was refused before it was sent, or has no id.",
      );
    }
  }

  // -- one request -------------------------------------------------------------------------------

  async showTrace(id) {
    const generation = (this.generation = {});
    const body = h("div", {}, h("p.loading", {}, "Collecting the messages…"));
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
        if (this.generation !== generation) return;
        // The last records arrive shortly after the answer.
        if (trace.events.length && (trace.complete || left <= 0)) {
          const subject = trace.events.find((event) => event.type === "client.submit")?.summary ??
            "";
          head.append(
            h("span.grow"),
            trace.slot === null
              ? ""
              : h("a.tag.paxos", { href: `#/log/${trace.slot}` }, `slot ${trace.slot}`),
          );
          this.showDiagram(
            body,
            fromApi(trace),
            subject.replace(/^please: /, ""),
            missingParts(trace),
          );
          return;
        }
        if (left <= 0) {
          throw new Error(
            "This gateway has no record of its messages. Recording may be off (setting trace), " +
              "or the request used messages that are not recorded one by one.",
          );
        }
      } catch (error) {
        if (this.generation !== generation) return;
        if (left <= 0 || (error.status && error.status !== 404)) {
          body.replaceChildren(
            h(
              "div.empty",
              {},
              icon("requests"),
              h("h2", {}, "This request has no diagram"),
              h("p.quiet", {}, error.message),
            ),
          );
          return;
        }
      }
      await pause(300);
    }
  }

  showDiagram(body, model, subject, note = "") {
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

  async openSimulation(file) {
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
      toast(`${file.name} is not a trace of the simulator: ${error.message}`, true);
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
      h("option", { value: "" }, "all messages from…"),
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
      this.showDiagram(
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

  /** Handle a key; returns whether this page uses it. */
  key(event, typing) {
    if (typing && event.target.type !== "range") return false;
    if (event.ctrlKey || event.target.closest?.(".menu")) return false;
    if (this.diagram) return this.diagram.key(event);
    if (event.target.closest?.("button, a") && event.key === "Enter") return false;
    return this.list?.key(event) ?? false;
  }
}
