// The model that the diagram draws: messages with both ends, disk commits and stages, made from the
// API's trace of a request or from a trace file of the simulator.

import { byRequestOrder, plural, role } from "./dom.js";

const GROUPS = {
  "@acceptors": ["acceptor"],
  "@learners": ["learner"],
  "@stores": ["store"],
  "@phase2": ["acceptor", "learner"],
};

/** The model of an answer of `/v1/traces/{id}`. Times are microseconds from the start. */
export function fromApi(trace) {
  const events = trace.events;
  const start = Math.min(
    trace.started_us ?? Infinity,
    ...events.map((event) => event.time_us - (event.kind === "committed" ? event.duration_us : 0)),
  );
  const at = (time) => time - start;
  const sent = new Map();
  for (const event of events) {
    if (event.kind !== "sent") continue;
    if (!sent.has(event.message_id)) sent.set(event.message_id, []);
    sent.get(event.message_id).push(event);
  }
  const messages = [];
  const arrived = new Set();
  for (const event of events) {
    if (event.kind !== "received") continue;
    const origin = (sent.get(event.message_id) ?? []).find((one) =>
      one.to === event.node || GROUPS[one.to]?.includes(role(event.node))
    );
    if (origin) arrived.add(origin);
    messages.push(
      message(
        origin ?? event,
        event.from ?? origin?.node,
        event.node,
        origin ? at(origin.time_us) : null,
        at(event.time_us),
      ),
    );
  }
  for (const list of sent.values()) {
    for (const event of list) {
      if (!arrived.has(event) && !GROUPS[event.to] && event.to) {
        messages.push(message(event, event.node, event.to, at(event.time_us), null));
      }
    }
  }
  const commits = events.filter((event) => event.kind === "committed")
    .map((event) => ({
      node: event.node,
      from: at(event.time_us - event.duration_us),
      to: at(event.time_us),
      summary: event.summary,
      slot: event.slot,
    }));
  const stages = (trace.stages ?? []).map((stage) => ({
    name: stage.name,
    from: at(stage.start_us),
    to: at(stage.end_us),
  }));
  const captions = captionsOf(
    messages.filter((one) => one.slot === trace.slot),
    trace.quorum,
    trace.stores ?? [],
  );
  return finish({
    title: trace.request,
    request: trace.request,
    slot: trace.slot,
    complete: trace.complete,
    messages,
    commits,
    stages,
    captions,
    notes: [],
  });
}

/**
 * What the messages of a slot prove about its quorum and its votes: a vote that was not recorded
 * may still have been cast. If they are not known, `quorum` is undefined and `stores` is empty.
 */
function captionsOf(messages, quorum, stores) {
  const of = (type) => messages.filter((one) => one.type === type);
  const accepted = new Map();
  for (const { ballot, from } of of("paxos.accepted")) {
    accepted.set(ballot, (accepted.get(ballot) ?? new Set()).add(from));
  }
  const most = Math.max(0, ...[...accepted.values()].map((names) => names.size));
  const voted = new Set(of("txn.vote").map(({ from }) => from));
  const missing = stores.filter((store) => !voted.has(store));
  const decisions = of("txn.decision");
  const isAborted = decisions.some(({ content }) => content?.aborted?.length);
  const isWhole = stores.length > 0 && !missing.length && decisions.length > 0 && !isAborted;
  const ended = isAborted
    ? "an abort in the log ended it"
    : decisions.length
    ? "decided"
    : "answered; decision not recorded";
  const votes = stores.length
    ? missing.map((store) => `vote of ${store}: not recorded`)
    : [plural(voted.size, "vote").concat(" recorded")];
  return {
    quorum: quorum !== undefined && most >= quorum
      ? "a majority accepted: chosen"
      : `votes of ${plural(most, "acceptor")} recorded`,
    vote: isWhole ? "all votes received: decided" : [ended, ...votes].join("; "),
  };
}

function message(event, from, to, sent, received) {
  return {
    type: event.type,
    from,
    to,
    sent,
    received,
    summary: event.summary,
    slot: event.slot,
    ballot: event.ballot,
    epoch: event.epoch,
    content: event.content,
    id: event.message_id ?? `${from}/${event.type}/${event.slot}`,
  };
}

/** Complete a model: lanes, the order of messages, steps and the total length. */
function finish(model) {
  const lanes = new Set();
  for (const one of model.messages) {
    lanes.add(one.from);
    lanes.add(one.to);
  }
  for (const one of model.commits) lanes.add(one.node);
  model.lanes = [...lanes].sort(byRequestOrder);
  const begin = (one) => one.sent ?? one.received;
  model.messages.sort((one, other) =>
    begin(one) - begin(other) || byRequestOrder(one.to, other.to)
  );
  model.steps = [];
  const known = new Map();
  for (const one of model.messages) {
    const name = `${one.type}|${one.slot ?? ""}|${one.ballot ?? ""}|${one.epoch ?? ""}|${
      /^client\./.test(one.type) ? one.id : ""
    }`;
    let step = known.get(name);
    if (!step) {
      step = { number: model.steps.length, type: one.type, at: begin(one), messages: [] };
      known.set(name, step);
      model.steps.push(step);
    }
    one.step = step;
    step.messages.push(one);
  }
  const ends = model.messages.map((one) => one.received ?? one.sent);
  model.length = Math.max(
    1,
    ...ends,
    ...model.commits.map((one) => one.to),
    ...model.stages.map((one) => one.to),
  );
  return model;
}

// -- trace files of the simulator --------------------------------------------------------------

const PERIODIC = new Set([
  "node.heartbeat",
  "leader.beat",
  "lease.heartbeat",
  "lease.granted",
  "learn.progress",
]);

/** Read a file of `synod sim --trace` in small steps: its records and its requests. */
export async function readSimulation(file, progress) {
  const lines = (await file.text()).split("\n");
  const records = [];
  const requests = new Map();
  for (let index = 0; index < lines.length; index += 1) {
    if (index % 2_000 === 0) {
      progress(index / lines.length);
      await new Promise((done) => setTimeout(done));
    }
    if (!lines[index]) continue;
    const record = JSON.parse(lines[index]);
    records.push(record);
    if (record.type === "client.submit" && !requests.has(record.request)) {
      requests.set(record.request, {
        request: record.request,
        at: record.time_ms,
        slot: null,
        what: what(record.message.command),
      });
    }
    if (record.type === "paxos.accept" && record.message.value?.commands) {
      for (const command of record.message.value.commands) {
        const found = requests.get(`${command.session}-${command.sequence}`);
        if (found) found.slot ??= record.slot;
      }
    }
  }
  return { records, requests: [...requests.values()] };
}

const what = (command) =>
  [
    command.operation.kind.replaceAll("_", " "),
    command.operation.path ?? command.operation.source ?? "",
  ].join(" ").trim();

/** The model of one request of a simulation: its own messages and those of its slot. */
export function ofRequest(simulation, wanted) {
  const mine = (record) =>
    record.request === wanted.request || (wanted.slot !== null && record.slot === wanted.slot);
  return simulated(
    simulation.records.filter((record) => record.type && mine(record)).slice(0, 800),
    `${wanted.request}: ${wanted.what}`,
    simulation.records,
  );
}

/** The model of all messages from a time on, without periodic ones such as heartbeats. */
export function ofTime(simulation, fromMs, most = 300) {
  const chosen = [];
  for (const record of simulation.records) {
    if (record.time_ms < fromMs || !record.type || PERIODIC.has(record.type)) continue;
    chosen.push(record);
    if (chosen.length >= most) break;
  }
  return simulated(chosen, `from ${(fromMs / 1000).toFixed(3)} s`, simulation.records);
}

function simulated(records, title, all) {
  const start = records.length ? records[0].time_ms : 0;
  const us = (ms) => (ms === null ? null : Math.round((ms - start) * 1000));
  const messages = records.map((record) => ({
    type: record.type,
    from: record.sender,
    to: record.receiver,
    sent: us(record.time_ms),
    received: us(record.arrives_ms),
    summary: record.lost ? "lost" : record.duplicated ? "delivered a second time" : "",
    slot: record.slot,
    ballot: record.ballot,
    epoch: record.epoch,
    content: record.message,
    lost: record.lost,
    duplicated: record.duplicated,
    id: `${record.sender}/${record.type}/${record.slot}/${record.request ?? ""}`,
  }));
  const end = Math.max(0, ...messages.map((one) => one.received ?? one.sent));
  const notes = all.filter((record) =>
    record.event && us(record.time_ms) >= -1000 && us(record.time_ms) <= end
  ).map((record) => ({ at: us(record.time_ms), text: record.event }));
  const model = finish({
    title,
    request: null,
    slot: null,
    complete: true,
    messages,
    commits: [],
    stages: [],
    captions: captionsOf(messages, undefined, []),
    notes,
  });
  model.stages = inferStages(model);
  return model;
}

/** The stages of a simulated request, inferred from the first message of each kind. */
function inferStages(model) {
  const first = (type) => model.messages.find((one) => one.type === type)?.sent;
  const marks = [["queue", first("client.submit")], ["quorum", first("paxos.accept")], [
    "vote",
    first("txn.prepare"),
  ], ["answer", first("txn.decision")]];
  const end = Math.max(
    ...model.messages.filter((one) => one.type === "client.result").map((one) =>
      one.received ?? one.sent
    ),
    0,
  );
  if (marks.some(([, at]) => at === undefined) || end <= marks.at(-1)[1]) return [];
  return marks.map(([name, from], index) => ({ name, from, to: marks[index + 1]?.[1] ?? end }))
    .filter((stage) => stage.to > stage.from);
}
