// What each message and stage of a write means; the diagram shows it beside what is selected.

/** The colour (`kind`), the title and the explanation of a message type. */
export function explain(type) {
  return MESSAGES[type] ??
    {
      kind: type.startsWith("paxos") ? "paxos" : type.startsWith("txn") ? "commit" : "client",
      title: type,
      text: "",
    };
}

export const STAGES = {
  queue: {
    kind: "client",
    title: "queue",
    text: "From the request's arrival at the gateway to the leader's proposal. The command waits " +
      "for its turn, and for other commands to share its slot.",
  },
  journal: {
    kind: "journal",
    title: "journal",
    text: "The acceptors write the slot to disk. An acceptor answers only after the write would " +
      "survive a power failure.",
  },
  quorum: {
    kind: "paxos",
    title: "quorum",
    text: "Until a majority of acceptors has accepted the same value under the same ballot. The " +
      "value is then chosen and can't change any more.",
  },
  vote: {
    kind: "commit",
    title: "vote",
    text: "Two-phase commit: every store of the view makes the slot durable and votes. If a vote " +
      "does not arrive in time, the transaction is aborted.",
  },
  answer: {
    kind: "done",
    title: "answer",
    text: "The coordinator knows the outcome and the gateway answers the client. Meanwhile the " +
      "stores apply the slot.",
  },
};

const MESSAGES = {
  "client.submit": {
    kind: "client",
    title: "The gateway submits a command to the leader",
    text: "The gateway numbers the commands of its session and keeps the number when it sends a " +
      "command again, so a command is applied once however often it arrives. Only the leader of " +
      "the named ballot may propose it.",
  },
  "client.redirect": {
    kind: "client",
    title: "Not the leader",
    text: "This ballot no longer leads and never will again. The gateway submits the command to " +
      "the current leader.",
  },
  "client.result": {
    kind: "done",
    title: "The result of a command",
    text: "Every replica computes it when it applies the decided slot, so all come to the same " +
      "result: done, a failed precondition, or aborted.",
  },
  "paxos.prepare": {
    kind: "rule",
    title: "Phase 1a: Prepare",
    text: "A candidate asks all acceptors to promise its ballot for every slot from this one on. " +
      "The highest ballot wins.",
  },
  "paxos.promise": {
    kind: "rule",
    title: "Phase 1b: Promise",
    text: "The acceptor will accept nothing under a lower ballot. It reports what it has already " +
      "accepted: the new leader must propose those values again.",
  },
  "paxos.accept": {
    kind: "paxos",
    title: "Phase 2a: Accept",
    text: "The leader proposes a batch of commands for the next free slot under its ballot. The " +
      "learners receive the value at the same time, so it crosses the broker once.",
  },
  "paxos.accepted": {
    kind: "paxos",
    title: "Phase 2b: Accepted, and on disk",
    text:
      "An acceptor accepts unless it has promised a higher ballot, and writes its journal (the " +
      "amber bar) before it answers. When a majority has accepted the same slot under the same " +
      "ballot, the value is chosen.",
  },
  "paxos.reject": {
    kind: "wrong",
    title: "Rejected: a higher ballot is promised",
    text: "Another proposer became leader, or another leader's lease is still valid. The sender " +
      "must stop using this ballot.",
  },
  "txn.prepare": {
    kind: "commit",
    title: "2PC, first phase: Prepare",
    text: "The slot is chosen, so its position in the log is final. The coordinator asks every " +
      "store of the view whether it can commit: contents present, hashes correct, room on disk.",
  },
  "txn.vote": {
    kind: "commit",
    title: "2PC, first phase: a store's vote",
    text:
      "Yes means that the slot is in the store's journal and only the decision is missing. If " +
      "one store stays silent, the coordinator proposes an Abort, which is agreed in the log.",
  },
  "txn.progress": {
    kind: "commit",
    title: "The vote is delayed",
    text: "The store is fetching contents from another store first.",
  },
  "txn.decision": {
    kind: "done",
    title: "2PC, second phase: the decision",
    text:
      "The slot's commands commit once all votes have arrived. No second round of consensus is " +
      "needed, because only an Abort in the log could decide otherwise; commands that such an " +
      "Abort names are not applied.",
  },
  "txn.inquiry": {
    kind: "rule",
    title: "A new coordinator asks for open transactions",
    text:
      "Once it has answered, the store rejects messages of the former coordinator: the former " +
      "coordinator is fenced.",
  },
  "txn.state": {
    kind: "rule",
    title: "What this store has prepared and applied",
    text: "With the answers of all stores the new coordinator knows which slots may have been " +
      "committed.",
  },
  "txn.fenced": {
    kind: "wrong",
    title: "Fenced",
    text: "The store has answered a newer coordinator and rejects this one.",
  },
  "learn.progress": {
    kind: "client",
    title: "A learner reports its progress",
    text: "The leader grants leases and accepts commands only as far as slots are decided.",
  },
  "learn.pull": {
    kind: "client",
    title: "A learner asks for slots that it missed",
    text: "No step depends on a notification arriving: a learner that missed one asks for it.",
  },
  "learn.chosen": { kind: "client", title: "Chosen slots, from another learner", text: "" },
  "sync.pull": { kind: "client", title: "A store asks for newer decided slots", text: "" },
  "sync.decided": { kind: "client", title: "Decided slots", text: "" },
  "log.propose": {
    kind: "rule",
    title: "A View or an Abort for the log",
    text: "Which learner coordinates and which stores take part are values in the log, so all " +
      "nodes agree on them.",
  },
  "read.request": {
    kind: "client",
    title: "A read",
    text: "Any store of the view that holds a read lease may answer: read one, write all.",
  },
  "read.reply": { kind: "done", title: "A store's answer to a read", text: "" },
  "lease.ask": { kind: "rule", title: "A store asks for a read lease", text: "" },
  "lease.grant": {
    kind: "rule",
    title: "A read lease",
    text: "Until it expires, no write can be acknowledged that this store has not prepared.",
  },
  "chunk.put": {
    kind: "journal",
    title: "A chunk of contents",
    text:
      "Large contents are sent before the command, directly to all stores. Each chunk is named " +
      "by its SHA-256.",
  },
  "chunk.stored": { kind: "journal", title: "The chunk is durable", text: "" },
};
