// The page Cluster: every node as it lives, what changed and why, rate and latency of the last minutes.

import { get } from "./api.js";
import { chart } from "./charts.js";
import { byWay, clock, h, icon, plural } from "./dom.js";
import { listen, recent } from "./live.js";

const SILENT_MS = 6_500;
const ROLES = [
  ["gateway", "Gateway", "takes requests"],
  ["proposer", "Proposers", "one leads and orders"],
  ["acceptor", "Acceptors", "any majority is enough"],
  ["learner", "Learners", "one coordinates"],
  ["store", "Stores", "all write, one reads"],
];
const KINDS = { leader: "rule", view: "rule", coordinator: "rule", node_silent: "wrong", node_halted: "wrong", node_back: "done", ready: "done", not_ready: "wrong" };

/** Open the page. The gateway tells it once a second how things are. */
export function open(main) {
  return new ClusterPage(main);
}

class ClusterPage {
  constructor(main) {
    this.nodes = new Map();
    this.verdict = h("p.verdict", { role: "status" }, "…");
    this.columns = new Map(ROLES.map(([role, title, text]) => [role, h("section.column", { "aria-label": title }, h("header", {}, h("h2", {}, title), h("p.quiet", {}, text)))]));
    this.history = h("ol.history");
    this.charts = [
      chart({ title: "Requests a second", unit: "", series: [{ label: "writes", colour: "paxos", fill: true, of: (one) => one.writes_per_s }, { label: "reads", colour: "commit", of: (one) => one.reads_per_s }] }),
      chart({ title: "Time a write takes", unit: " ms", series: [{ label: "half of them", colour: "done", fill: true, of: (one) => one.write_p50_ms }, { label: "99 of 100", colour: "journal", of: (one) => one.write_p99_ms }] }),
    ];
    this.facts = h("dl.summary");
    this.chamber = h("div.chamber.card", {}, [...this.columns.values()].flatMap((column, index) => (index ? [h("div.flow", { "aria-hidden": "true" }), column] : [column])));
    main.append(h("section.page.cluster", {}, h("header.head", {}, h("h1", {}, "Cluster"), this.verdict, h("span.grow"), this.facts),
      this.chamber,
      h("div.charts", {}, this.charts.map((one) => one.element)),
      h("section.card.pad", {}, h("h2", {}, "What changed, and why"), this.history)));
    this.deaf = [listen("figures", (figures) => this.figures(figures)), listen("change", () => this.drawHistory()), listen("cluster", (cluster) => this.draw(cluster))];
    this.drawHistory();
    this.figures(recent.figures.at(-1));
    this.look();
  }

  close() {
    this.closed = true;
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
      if (!this.closed) this.draw(seen);
    } catch {
      // The banner says that the gateway is away; the picture stays as it was.
    }
  }

  draw(cluster) {
    const gateways = cluster.nodes.some((node) => node.name === cluster.gateway) ? [] : [{ name: cluster.gateway, role: "gateway", seen: true, age_ms: 0, self: true }];
    const nodes = [...gateways, ...cluster.nodes].sort((one, other) => byWay(one.name, other.name));
    const applied = Math.max(0, ...nodes.map((node) => node.applied ?? 0), ...nodes.map((node) => node.scanned ?? 0));
    const silent = nodes.filter((node) => state(node) !== "alive");
    for (const node of nodes) this.drawNode(node, applied, cluster);
    const stores = nodes.filter((node) => node.role === "store");
    const out = stores.filter((node) => !node.in_view).length;
    this.verdict.className = `verdict ${cluster.ready && !silent.length ? "good" : cluster.ready ? "fair" : "bad"}`;
    this.verdict.textContent = cluster.ready ? (silent.length ? `Takes writes; ${plural(silent.length, "node")} ${silent.length === 1 ? "is" : "are"} away` : out ? `Takes writes; ${plural(out, "store")} outside the view` : "All is well") : "Takes no writes at the moment";
    const view = cluster.view;
    this.facts.replaceChildren(...[["leader", cluster.leader ?? "none"], ["ballot", cluster.leases?.ballot ?? "–"], ["coordinator", view?.coordinator ?? "–"], ["view", view ? `epoch ${view.epoch}, ${plural(view.stores.length, "store")}` : "–"], ["slot", applied.toLocaleString()]]
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  drawNode(node, applied, cluster) {
    let card = this.nodes.get(node.name);
    if (!card) {
      card = { element: h("article.node"), name: h("h3", {}, node.name), mark: h("span.mark"), line: h("p"), bar: h("i"), detail: h("p.detail"), held: h("p.held"), left: h("i") };
      card.element.append(h("span.dot"), card.name, card.mark, card.line, h("div.lag", { "aria-hidden": "true" }, card.bar), card.detail, card.held, h("div.lag.lease", { "aria-hidden": "true" }, card.left));
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
    text(card.line, now === "halted" ? "halted" : now === "silent" ? (node.age_ms === undefined ? "not seen yet" : `silent for ${(node.age_ms / 1000).toFixed(0)} s`) : node.self ? "this one" : carries ? [`slot ${at.toLocaleString()}`, behind > 1 && `${behind.toLocaleString()} behind`].filter(Boolean).join(" · ") : doing(node));
    card.bar.style.width = carries ? `${applied ? Math.max(2, (at / applied) * 100) : 100}%` : "0";
    card.bar.parentElement.hidden = !carries;
    card.bar.classList.toggle("late", behind > 20);
    const about = [];
    if (node.in_doubt) about.push(`${node.in_doubt} in doubt`);
    if (node.pending) about.push(`${node.pending} waiting`);
    if (node.role === "store" && node.seen && !node.in_view) about.push("outside the view");
    if (node.role === "learner" && node.epoch !== null && node.epoch !== undefined) about.push(`epoch ${node.epoch}`);
    if (node.incarnation > 1) about.push(`start ${node.incarnation}`);
    text(card.detail, now === "halted" ? node.halted : about.join(" · "));
    this.drawHeld(card, node, now, cluster.leases);
    card.element.title = [node.name, node.state_hash && `state ${node.state_hash.slice(0, 12)}`, node.ballot && `${node.role === "acceptor" ? "promised" : "leads under"} ${node.ballot}`, node.journal_commits !== undefined && `${node.journal_commits.toLocaleString()} commits on disk`, node.name === cluster.gateway && `session ${cluster.session}`].filter(Boolean).join("\n");
  }

  /** What a node may rely on: its lease and how long it still runs, or the ballot it has promised. */
  drawHeld(card, node, now, leases) {
    const left = node.leader ? leases?.left_ms : node.role === "store" ? leases?.read_left_ms[node.name] ?? 0 : undefined;
    const isLease = now === "alive" && left !== undefined;
    card.left.parentElement.hidden = !isLease;
    if (isLease) card.left.style.width = `${Math.min(100, (left / leases.lease_ms) * 100)}%`;
    const foreign = now === "alive" && node.role === "acceptor" && leases && node.ballot !== leases.ballot;
    card.held.classList.toggle("foreign", Boolean(foreign));
    const kind = node.leader ? "lease" : "read lease";
    if (isLease) text(card.held, left >= 50 ? `${kind} for ${(left / 1000).toFixed(1)} s` : node.leader ? "its lease has lapsed" : "no read lease");
    else text(card.held, foreign ? `not the leader's ${short(leases.ballot)}` : "");
  }

  drawHistory() {
    const changes = recent.changes.slice(-80).reverse();
    this.history.replaceChildren(...(changes.length ? changes.map((change) => h("li", {}, h("time", {}, clock(change.time_us / 1000)), h(`i.${KINDS[change.kind] ?? "client"}`), h("span", {}, change.summary))) : [h("li.quiet", {}, "Nothing has changed since this page looks on.")]));
  }
}

function doing(node) {
  if (node.role === "acceptor") return node.ballot ? `promised ${short(node.ballot)}` : "promised nothing yet";
  if (node.role === "proposer") return node.leader ? `leads under ${short(node.ballot ?? "–")}` : "stands by";
  return "alive";
}

/** A ballot in little room: round, then the number of the proposer. */
const short = (ballot) => ballot.replace("proposer-", "p");

function state(node) {
  if (node.halted) return "halted";
  return !node.seen || node.age_ms > SILENT_MS ? "silent" : "alive";
}

function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}
