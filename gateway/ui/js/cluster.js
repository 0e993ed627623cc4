// The page Cluster: the state of every node, what changed and why, and recent rates and latencies.

import { get } from "./api.js";
import { chart } from "./charts.js";
import { byRequestOrder, clock, h, icon, plural } from "./dom.js";
import { listen, recent } from "./live.js";
import { MembersSection } from "./members.js";

// Used until the gateway reports after how long it considers a node silent.
let silentMs = 6_000;
// The gateway sends the cluster's state once a second.
const OUTDATED_MS = 5_000;
const ROLES = [
  ["gateway", "Gateway", "serves clients"],
  ["proposer", "Proposers", "one leads and orders writes"],
  ["acceptor", "Acceptors", "a majority is a quorum"],
  ["learner", "Learners", "one coordinates commits"],
  ["store", "Stores", "write all, read one"],
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

/** Open the page, which receives the cluster's state once a second. */
export function open(main) {
  return new ClusterPage(main);
}

class ClusterPage {
  constructor(main) {
    this.nodes = new Map();
    this.verdict = h("p.verdict", { role: "status" }, "…");
    this.reasons = h("ul.reasons.card.pad", { hidden: true, "aria-label": "Why" });
    this.latest = null;
    this.problem = "";
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
        title: "Requests per second",
        unit: "",
        series: [{ label: "writes", colour: "paxos", fill: true, of: (one) => one.writes_per_s }, {
          label: "reads",
          colour: "commit",
          of: (one) => one.reads_per_s,
        }],
      }),
      chart({
        title: "Write latency",
        unit: " ms",
        series: [{
          label: "median",
          colour: "done",
          fill: true,
          of: (one) => one.write_p50_ms,
        }, { label: "p99", colour: "journal", of: (one) => one.write_p99_ms }],
      }),
    ];
    this.facts = h("dl.summary");
    this.members = new MembersSection();
    this.topology = h(
      "div.topology.card",
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
      this.topology,
      h("div.charts", {}, this.charts.map((one) => one.element)),
      this.members.element,
      h("section.card.pad", {}, h("h2", {}, "What changed, and why"), this.history),
    );
    main.append(this.page);
    this.subscriptions = [
      listen("figures", (figures) => this.figures(figures)),
      listen("change", () => this.drawHistory()),
      listen("cluster", (cluster) => this.receive(cluster)),
      listen("alive", () => {
        this.drawVerdict();
        this.drawHistory();
      }),
    ];
    // The latest state becomes outdated without any event.
    this.clock = setInterval(() => this.drawVerdict(), 1_000);
    this.drawHistory();
    this.figures(recent.figures.at(-1));
    this.load();
  }

  close() {
    this.closed = true;
    clearInterval(this.clock);
    for (const end of this.subscriptions) end();
    for (const one of this.charts) one.close();
  }

  refresh() {
    this.load();
  }

  figures(figures) {
    for (const one of this.charts) one.draw(recent.figures);
    this.topology.classList.toggle("busy", Boolean(figures && figures.writes_per_s > 0.5));
  }

  async load() {
    try {
      const seen = await get("/v1/cluster", { attempts: 1 });
      if (!this.closed) this.receive(seen);
    } catch (error) {
      if (!this.closed) this.receive({ problem: error.message });
    }
  }

  /** Show a new state. If it is a `problem`, the former state stays and is marked as outdated. */
  receive(picture) {
    if (picture.problem !== undefined) {
      this.problem = picture.problem;
      this.drawVerdict();
      return;
    }
    this.problem = "";
    this.draw(picture);
  }

  drawVerdict() {
    const { kind, text, reasons } = verdict(this.latest, this.problem, recent.alive);
    const shown = [text, ...reasons].join("\n");
    this.page.classList.toggle("old", kind === "unknown" && Boolean(this.latest));
    if (this.shown === shown) return;
    this.shown = shown;
    this.verdict.className = `verdict ${kind}`;
    this.verdict.textContent = text;
    this.reasons.replaceChildren(...reasons.map((reason) => h("li", {}, reason)));
    this.reasons.hidden = !reasons.length;
  }

  draw(cluster) {
    const gateways = cluster.nodes.some((node) => node.name === cluster.gateway)
      ? []
      : [{ name: cluster.gateway, role: "gateway", seen: true, age_ms: 0, self: true }];
    const nodes = [...gateways, ...cluster.nodes].sort((one, other) =>
      byRequestOrder(one.name, other.name)
    );
    const applied = Math.max(
      0,
      ...nodes.map((node) => node.applied ?? 0),
      ...nodes.map((node) => node.chosen_through ?? 0),
    );
    silentMs = cluster.silent_ms ?? silentMs;
    for (const node of nodes) this.drawNode(node, applied, cluster);
    this.forgetAllBut(new Set(nodes.map(({ name }) => name)));
    this.members.draw(cluster);
    this.latest = { cluster, nodes, atMs: Date.now() };
    this.drawVerdict();
    const { view, condition } = cluster;
    const noLeader = condition.writes === "unknown" ? "unknown" : "none";
    this.facts.replaceChildren(
      ...[
        ["leader", cluster.leader ?? noLeader],
        ["ballot", withShortDisk(cluster.leases?.ballot ?? "–")],
        ["coordinator", view?.coordinator ?? "–"],
        ["view", view ? `epoch ${view.epoch}, ${plural(view.stores.length, "store")}` : "–"],
        ["slot", applied.toLocaleString()],
      ]
        .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    );
  }

  /** Take away the cards of nodes that were removed from the cluster. */
  forgetAllBut(names) {
    for (const [name, { element }] of this.nodes) {
      if (names.has(name)) continue;
      element.remove();
      this.nodes.delete(name);
    }
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
        leaseText: h("p.held"),
        leaseBar: h("i"),
      };
      card.element.append(
        h("span.dot"),
        card.name,
        card.mark,
        card.line,
        h("div.lag", { "aria-hidden": "true" }, card.bar),
        card.detail,
        card.leaseText,
        h("div.lag.lease", { "aria-hidden": "true" }, card.leaseBar),
      );
      this.nodes.set(node.name, card);
      this.columns.get(node.role)?.append(card.element);
    }
    const now = state(node);
    const lead = node.leader ? "leader" : node.coordinator ? "coordinator" : "";
    const classes = `node ${now} ${lead} ${
      node.role === "store" && !node.in_view ? "outside" : ""
    }`;
    if (card.classes !== classes) {
      card.classes = classes;
      card.element.className = classes;
      card.mark.replaceChildren(...(lead ? [lead === "leader" ? icon("crown") : "", lead] : []));
    }
    const at = Math.max(node.applied ?? 0, node.role === "proposer" ? node.chosen_through ?? 0 : 0);
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
        ? "this gateway"
        : carries
        ? [`slot ${at.toLocaleString()}`, behind > 1 && `${behind.toLocaleString()} behind`].filter(
          Boolean,
        ).join(" · ")
        : activity(node),
    );
    card.bar.style.width = carries ? `${applied ? Math.max(2, (at / applied) * 100) : 100}%` : "0";
    card.bar.parentElement.hidden = !carries;
    card.bar.classList.toggle("late", behind > 20);
    const details = [];
    if (node.in_doubt) details.push(`${node.in_doubt} in doubt`);
    if (node.pending) details.push(`${node.pending} waiting`);
    if (node.role === "store" && node.seen && !node.in_view) details.push("outside the view");
    if (node.role === "learner" && node.epoch !== null && node.epoch !== undefined) {
      details.push(`epoch ${node.epoch}`);
    }
    if (node.incarnation > 1) details.push(`start ${node.incarnation}`);
    text(card.detail, now === "halted" ? node.halted : details.join(" · "));
    this.drawLease(card, node, now, cluster.leases);
    card.element.title = [
      node.name,
      node.state_hash && `state ${node.state_hash.slice(0, 12)}`,
      node.ballot && `${node.role === "acceptor" ? "promised" : "leads under"} ${node.ballot}`,
      node.journal_commits !== undefined &&
      `${node.journal_commits.toLocaleString()} commits on disk`,
      node.name === cluster.gateway && `session ${cluster.session}`,
    ].filter(Boolean).join("\n");
  }

  /** Show how long a node's lease is valid, or which other ballot an acceptor has promised. */
  drawLease(card, node, now, leases) {
    const left = node.leader
      ? leases?.left_ms
      : node.role === "store"
      ? leases?.read_left_ms[node.name] ?? 0
      : undefined;
    const isLease = now === "alive" && left !== undefined;
    card.leaseBar.parentElement.hidden = !isLease;
    if (isLease) card.leaseBar.style.width = `${Math.min(100, (left / leases.lease_ms) * 100)}%`;
    const isOtherBallot = now === "alive" && node.role === "acceptor" && leases &&
      node.ballot !== leases.ballot;
    card.leaseText.classList.toggle("foreign", Boolean(isOtherBallot));
    const kind = node.leader ? "lease" : "read lease";
    if (isLease) {
      text(
        card.leaseText,
        left >= 50
          ? `${kind} for ${(left / 1000).toFixed(1)} s`
          : node.leader
          ? "its lease has expired"
          : "no read lease",
      );
    } else text(card.leaseText, isOtherBallot ? `not the leader's ${short(leases.ballot)}` : "");
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
            ? "This gateway has observed no change yet."
            : "Not known: this page is not connected to the gateway.",
        )]),
    );
  }
}

/**
 * The state of the cluster in one line, from the `latest` state (`null`: none yet) and its age. It
 * is `good` only if everything is well now; an outdated state is never good.
 */
export function verdict(latest, problem, alive, nowMs = Date.now()) {
  const before = latest && `At ${clock(latest.atMs)}: ${assess(latest).text}.`;
  const unknown = (why) => ({
    kind: "unknown",
    text: "Unknown",
    reasons: [why, before].filter(Boolean),
  });
  if (alive === false) return unknown("The connection to the gateway is lost.");
  if (problem) return unknown(problem);
  if (!latest) return { kind: "", text: "…", reasons: [] };
  const age = nowMs - latest.atMs;
  if (age > OUTDATED_MS) {
    return unknown(`Nothing has come from the gateway for ${Math.round(age / 1000)} s.`);
  }
  return assess(latest);
}

function assess({ cluster, nodes }) {
  const { writes, reads, reasons, read_reasons: readReasons } = cluster.condition;
  const why = [...new Set([...reasons, ...readReasons].map((reason) => reason.detail))];
  const readsText = {
    served: "reads are served",
    refused: "reads are not served either",
    unknown: "nor whether reads are served",
  }[reads];
  if (writes === "unknown") {
    return {
      kind: "unknown",
      text: `Not known whether writes are accepted; ${readsText}`,
      reasons: why,
    };
  }
  if (writes === "refused") {
    return { kind: "bad", text: `Accepts no writes; ${readsText}`, reasons: why };
  }
  if (reads !== "served") {
    return { kind: "bad", text: "Accepts writes; reads are not served", reasons: why };
  }
  const waiting = cluster.condition.warnings.filter(({ code }) => code === "silent_in_view").map((
    { detail },
  ) => detail);
  const silent = nodes.filter((node) => state(node) !== "alive").length;
  const outside = nodes.filter((node) => node.role === "store" && !node.in_view).length;
  if (silent) {
    return {
      kind: "fair",
      text: `Accepts writes; ${plural(silent, "node")} ${silent === 1 ? "is" : "are"} silent`,
      reasons: waiting,
    };
  }
  if (outside) {
    return {
      kind: "fair",
      text: `Accepts writes; ${plural(outside, "store")} outside the view`,
      reasons: [],
    };
  }
  return { kind: "good", text: "All is well", reasons: [] };
}

function activity(node) {
  if (node.role === "acceptor") {
    return node.ballot ? `promised ${short(node.ballot)}` : "promised nothing yet";
  }
  if (node.role === "proposer") {
    return node.leader ? `leads under ${short(node.ballot ?? "–")}` : "stands by";
  }
  return "alive";
}

/** A ballot of a proposer on another disk than that of the founding names the disk, too. */
const withShortDisk = (ballot) => ballot.replace(/(\/.{4}).*/, "$1");

/** A ballot in little room: round, then the number of the proposer. */
const short = (ballot) => withShortDisk(ballot).replace("proposer-", "p");

function state(node) {
  if (node.halted) return "halted";
  return !node.seen || node.age_ms >= silentMs ? "silent" : "alive";
}

function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}
