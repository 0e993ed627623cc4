// The page Cluster: every node as it lives, what changed and why, rate and latency of the last minutes.

import { get } from "./api.js";
import { chart } from "./charts.js";
import { byWay, clock, h, icon, plural } from "./dom.js";
import { listen, recent } from "./live.js";

// Until the gateway says after how long it takes a node for silent.
let silentMs = 6_000;
// The picture comes once a second.
const OLD_MS = 5_000;
const ROLES = [
  ["gateway", "Gateway", "takes requests"],
  ["proposer", "Proposers", "one leads and orders"],
  ["acceptor", "Acceptors", "any majority is enough"],
  ["learner", "Learners", "one coordinates"],
  ["store", "Stores", "all write, one reads"],
];
const KINDS = {
  leader: "rule",
  view: "rule",
  coordinator: "rule",
  node_silent: "wrong",
  node_halted: "wrong",
  node_back: "done",
  ready: "done",
  not_ready: "wrong",
};

/** Open the page. The gateway tells it once a second how things are. */
export function open(main) {
  return new ClusterPage(main);
}

class ClusterPage {
  constructor(main) {
    this.nodes = new Map();
    this.verdict = h("p.verdict", { role: "status" }, "…");
    this.reasons = h("ul.reasons.card.pad", { hidden: true, "aria-label": "Why" });
    this.told = null;
    this.trouble = "";
    this.columns = new Map(
      ROLES.map((
        [role, title, text],
      ) => [
        role,
        h(
          "section.column",
          { "aria-label": title },
          h("header", {}, h("h2", {}, title), h("p.quiet", {}, text)),
        ),
      ]),
    );
    this.history = h("ol.history", { tabindex: "0", "aria-label": "Changes, newest first" });
    this.charts = [
      chart({
        title: "Requests a second",
        unit: "",
        series: [{ label: "writes", colour: "paxos", fill: true, of: (one) => one.writes_per_s }, {
          label: "reads",
          colour: "commit",
          of: (one) => one.reads_per_s,
        }],
      }),
      chart({
        title: "Time a write takes",
        unit: " ms",
        series: [{
          label: "half of them",
          colour: "done",
          fill: true,
          of: (one) => one.write_p50_ms,
        }, { label: "99 of 100", colour: "journal", of: (one) => one.write_p99_ms }],
      }),
    ];
    this.facts = h("dl.summary");
    this.chamber = h(
      "div.chamber.card",
      {},
      [...this.columns.values()].flatMap((
        column,
        index,
      ) => (index ? [h("div.flow", { "aria-hidden": "true" }), column] : [column])),
    );
    this.page = h(
      "section.page.cluster",
      {},
      h("header.head", {}, h("h1", {}, "Cluster"), this.verdict, h("span.grow"), this.facts),
      this.reasons,
      this.chamber,
      h("div.charts", {}, this.charts.map((one) => one.element)),
      h("section.card.pad", {}, h("h2", {}, "What changed, and why"), this.history),
    );
    main.append(this.page);
    this.deaf = [
      listen("figures", (figures) => this.figures(figures)),
      listen("change", () => this.drawHistory()),
      listen("cluster", (cluster) => this.take(cluster)),
      listen("alive", () => {
        this.drawVerdict();
        this.drawHistory();
      }),
    ];
    // What was told grows old by itself, without any event.
    this.clock = setInterval(() => this.drawVerdict(), 1_000);
    this.drawHistory();
    this.figures(recent.figures.at(-1));
    this.look();
  }

  close() {
    this.closed = true;
    clearInterval(this.clock);
    for (const end of this.deaf) end();
    for (const one of this.charts) one.close();
  }

  refresh() {
    this.look();
  }

  figures(figures) {
    for (const one of this.charts) one.draw(recent.figures);
    this.chamber.classList.toggle("busy", Boolean(figures && figures.writes_per_s > 0.5));
  }

  async look() {
    try {
      const seen = await get("/v1/cluster", { attempts: 1 });
      if (!this.closed) this.take(seen);
    } catch (error) {
      if (!this.closed) this.take({ problem: error.message });
    }
  }

  /** A picture came, or why there is none: then the one of before stands, and is called old. */
  take(picture) {
    if (picture.problem !== undefined) {
      this.trouble = picture.problem;
      this.drawVerdict();
      return;
    }
    this.trouble = "";
    this.draw(picture);
  }

  drawVerdict() {
    const { kind, text, reasons } = verdict(this.told, this.trouble, recent.alive);
    const said = [text, ...reasons].join("\n");
    this.page.classList.toggle("old", kind === "unknown" && Boolean(this.told));
    if (this.said === said) return;
    this.said = said;
    this.verdict.className = `verdict ${kind}`;
    this.verdict.textContent = text;
    this.reasons.replaceChildren(...reasons.map((reason) => h("li", {}, reason)));
    this.reasons.hidden = !reasons.length;
  }

  draw(cluster) {
    const gateways = cluster.nodes.some((node) => node.name === cluster.gateway)
      ? []
      : [{ name: cluster.gateway, role: "gateway", seen: true, age_ms: 0, self: true }];
    const nodes = [...gateways, ...cluster.nodes].sort((one, other) => byWay(one.name, other.name));
    const applied = Math.max(
      0,
      ...nodes.map((node) => node.applied ?? 0),
      ...nodes.map((node) => node.scanned ?? 0),
    );
    silentMs = cluster.silent_ms ?? silentMs;
    for (const node of nodes) this.drawNode(node, applied, cluster);
    this.told = { cluster, nodes, atMs: Date.now() };
    this.drawVerdict();
    const { view, condition } = cluster;
    const nobody = condition.writes === "unknown" ? "unknown" : "none";
    this.facts.replaceChildren(
      ...[
        ["leader", cluster.leader ?? nobody],
        ["ballot", cluster.leases?.ballot ?? "–"],
        ["coordinator", view?.coordinator ?? "–"],
        ["view", view ? `epoch ${view.epoch}, ${plural(view.stores.length, "store")}` : "–"],
        ["slot", applied.toLocaleString()],
      ]
        .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    );
  }

  drawNode(node, applied, cluster) {
    let card = this.nodes.get(node.name);
    if (!card) {
      card = {
        element: h("article.node"),
        name: h("h3", {}, node.name),
        mark: h("span.mark"),
        line: h("p"),
        bar: h("i"),
        detail: h("p.detail"),
        held: h("p.held"),
        left: h("i"),
      };
      card.element.append(
        h("span.dot"),
        card.name,
        card.mark,
        card.line,
        h("div.lag", { "aria-hidden": "true" }, card.bar),
        card.detail,
        card.held,
        h("div.lag.lease", { "aria-hidden": "true" }, card.left),
      );
      this.nodes.set(node.name, card);
      this.columns.get(node.role)?.append(card.element);
    }
    const now = state(node);
    const lead = node.leader ? "leader" : node.coordinator ? "coordinator" : "";
    const looks = `node ${now} ${lead} ${node.role === "store" && !node.in_view ? "outside" : ""}`;
    if (card.looks !== looks) {
      card.looks = looks;
      card.element.className = looks;
      card.mark.replaceChildren(...(lead ? [lead === "leader" ? icon("crown") : "", lead] : []));
    }
    const at = Math.max(node.applied ?? 0, node.role === "proposer" ? node.scanned ?? 0 : 0);
    const carries = ["learner", "store"].includes(node.role) && node.seen;
    const behind = applied - at;
    text(
      card.line,
      now === "halted"
        ? "halted"
        : now === "silent"
        ? (node.age_ms === undefined
          ? "not seen yet"
          : `silent for ${(node.age_ms / 1000).toFixed(0)} s`)
        : node.self
        ? "this one"
        : carries
        ? [`slot ${at.toLocaleString()}`, behind > 1 && `${behind.toLocaleString()} behind`].filter(
          Boolean,
        ).join(" · ")
        : doing(node),
    );
    card.bar.style.width = carries ? `${applied ? Math.max(2, (at / applied) * 100) : 100}%` : "0";
    card.bar.parentElement.hidden = !carries;
    card.bar.classList.toggle("late", behind > 20);
    const about = [];
    if (node.in_doubt) about.push(`${node.in_doubt} in doubt`);
    if (node.pending) about.push(`${node.pending} waiting`);
    if (node.role === "store" && node.seen && !node.in_view) about.push("outside the view");
    if (node.role === "learner" && node.epoch !== null && node.epoch !== undefined) {
      about.push(`epoch ${node.epoch}`);
    }
    if (node.incarnation > 1) about.push(`start ${node.incarnation}`);
    text(card.detail, now === "halted" ? node.halted : about.join(" · "));
    this.drawHeld(card, node, now, cluster.leases);
    card.element.title = [
      node.name,
      node.state_hash && `state ${node.state_hash.slice(0, 12)}`,
      node.ballot && `${node.role === "acceptor" ? "promised" : "leads under"} ${node.ballot}`,
      node.journal_commits !== undefined &&
      `${node.journal_commits.toLocaleString()} commits on disk`,
      node.name === cluster.gateway && `session ${cluster.session}`,
    ].filter(Boolean).join("\n");
  }

  /** What a node may rely on: its lease and how long it still runs, or the ballot it has promised. */
  drawHeld(card, node, now, leases) {
    const left = node.leader
      ? leases?.left_ms
      : node.role === "store"
      ? leases?.read_left_ms[node.name] ?? 0
      : undefined;
    const isLease = now === "alive" && left !== undefined;
    card.left.parentElement.hidden = !isLease;
    if (isLease) card.left.style.width = `${Math.min(100, (left / leases.lease_ms) * 100)}%`;
    const foreign = now === "alive" && node.role === "acceptor" && leases &&
      node.ballot !== leases.ballot;
    card.held.classList.toggle("foreign", Boolean(foreign));
    const kind = node.leader ? "lease" : "read lease";
    if (isLease) {
      text(
        card.held,
        left >= 50
          ? `${kind} for ${(left / 1000).toFixed(1)} s`
          : node.leader
          ? "its lease has lapsed"
          : "no read lease",
      );
    } else text(card.held, foreign ? `not the leader's ${short(leases.ballot)}` : "");
  }

  drawHistory() {
    const changes = recent.changes.slice(-80).reverse();
    this.history.replaceChildren(
      ...(changes.length
        ? changes.map((change) =>
          h(
            "li",
            {},
            h("time", {}, clock(change.time_us / 1000)),
            h(`i.${KINDS[change.kind] ?? "client"}`),
            h("span", {}, change.summary),
          )
        )
        : [h(
          "li.quiet",
          {},
          recent.alive
            ? "This gateway has told of no change yet."
            : "Not known: the gateway is not connected to this page.",
        )]),
    );
  }
}

/**
 * What may be said of the cluster, by what was told (`null`: nothing yet) and how long ago. `good` only
 * if all is well and is known to be so now.
 */
export function verdict(told, trouble, alive, nowMs = Date.now()) {
  const was = told && `At ${clock(told.atMs)}: ${claim(told).text}.`;
  const unknown = (why) => ({
    kind: "unknown",
    text: "Unknown",
    reasons: [why, was].filter(Boolean),
  });
  if (alive === false) return unknown("The connection to the gateway is lost.");
  if (trouble) return unknown(trouble);
  if (!told) return { kind: "", text: "…", reasons: [] };
  const age = nowMs - told.atMs;
  if (age > OLD_MS) {
    return unknown(`Nothing has come from the gateway for ${Math.round(age / 1000)} s.`);
  }
  return claim(told);
}

function claim({ cluster, nodes }) {
  const { writes, reads, reasons, read_reasons: readReasons } = cluster.condition;
  const why = [...new Set([...reasons, ...readReasons].map((reason) => reason.detail))];
  const and = {
    served: "reads go on",
    refused: "reads are not served either",
    unknown: "nor whether reads are served",
  }[reads];
  if (writes === "unknown") {
    return { kind: "unknown", text: `Not known whether writes are taken; ${and}`, reasons: why };
  }
  if (writes === "refused") return { kind: "bad", text: `Takes no writes; ${and}`, reasons: why };
  if (reads !== "served") {
    return { kind: "bad", text: "Takes writes; reads are not served", reasons: why };
  }
  const waits = cluster.condition.warnings.filter(({ code }) => code === "silent_in_view").map((
    { detail },
  ) => detail);
  const away = nodes.filter((node) => state(node) !== "alive").length;
  const out = nodes.filter((node) => node.role === "store" && !node.in_view).length;
  if (away) {
    return {
      kind: "fair",
      text: `Takes writes; ${plural(away, "node")} ${away === 1 ? "is" : "are"} away`,
      reasons: waits,
    };
  }
  if (out) {
    return {
      kind: "fair",
      text: `Takes writes; ${plural(out, "store")} outside the view`,
      reasons: [],
    };
  }
  return { kind: "good", text: "All is well", reasons: [] };
}

function doing(node) {
  if (node.role === "acceptor") {
    return node.ballot ? `promised ${short(node.ballot)}` : "promised nothing yet";
  }
  if (node.role === "proposer") {
    return node.leader ? `leads under ${short(node.ballot ?? "–")}` : "stands by";
  }
  return "alive";
}

/** A ballot in little room: round, then the number of the proposer. */
const short = (ballot) => ballot.replace("proposer-", "p");

function state(node) {
  if (node.halted) return "halted";
  return !node.seen || node.age_ms >= silentMs ? "silent" : "alive";
}

function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}
