// What each message means, in the order of a write's way; shown beside the diagram.

/** Colour and words of a message type. */
export function about(type) {
  return ABOUT[type] ??
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
    text:
      "From the request's arrival at the gateway to the leader's proposal: the command waits for its turn and for others to share a slot with.",
  },
  journal: {
    kind: "journal",
    title: "journal",
    text:
      "The acceptors write the slot to disk. Nobody answers before it would survive a power cut.",
  },
  quorum: {
    kind: "paxos",
    title: "quorum",
    text:
      "Until a majority of acceptors has accepted the same value under the same ballot: now it is chosen and can't change any more.",
  },
  vote: {
    kind: "commit",
    title: "vote",
    text:
      "Two-phase commit: every store of the view makes the slot durable and votes; a vote that stays away ends in an abort.",
  },
  answer: {
    kind: "done",
    title: "answer",
    text:
      "The coordinator knows the outcome; the answer travels to the client. Stores apply the slot meanwhile.",
  },
};

const ABOUT = {
  "client.submit": {
    kind: "client",
    title: "A command goes to the leader",
    text:
      "The gateway gives the command its number within the session. If it has to send it again, the number stays the same, so it is applied once however often it arrives. The ballot says which leader may propose it, and no other.",
  },
  "client.redirect": {
    kind: "client",
    title: "“I don't lead”",
    text:
      "This ballot leads no more and never will again. The gateway sends the command to whoever leads now.",
  },
  "client.result": {
    kind: "done",
    title: "The outcome",
    text:
      "Computed where the decided slot is applied, so every replica comes to the same result: done, a precondition that does not hold, or aborted.",
  },
  "paxos.prepare": {
    kind: "rule",
    title: "Phase 1a: “promise me this ballot”",
    text:
      "A candidate asks all acceptors to promise its ballot for every slot from here on. The higher ballot wins.",
  },
  "paxos.promise": {
    kind: "rule",
    title: "Phase 1b: a promise",
    text:
      "The acceptor will take nothing from lower ballots, and says what it has accepted already: the new leader must propose that again.",
  },
  "paxos.accept": {
    kind: "paxos",
    title: "Phase 2a: “accept this value for this slot”",
    text:
      "The leader proposes a batch of commands for the next free slot, under its ballot. The learners get the value at the same time, so that it crosses the broker once.",
  },
  "paxos.accepted": {
    kind: "paxos",
    title: "Phase 2b: accepted, and on disk",
    text:
      "An acceptor accepts unless it promised a higher ballot, and it journals before it answers (the amber bar). When a majority says so for the same slot and ballot, the value is chosen.",
  },
  "paxos.reject": {
    kind: "wrong",
    title: "Refused: a higher ballot is promised",
    text:
      "Somebody else became leader, or a lease is running. The sender must not go on with this ballot.",
  },
  "txn.prepare": {
    kind: "commit",
    title: "2PC, first phase: “can you commit this?”",
    text:
      "The slot is chosen, so its place in the order is certain. The coordinator asks every store of the view whether it can keep the promise: contents there, hashes right, room on the disk.",
  },
  "txn.vote": {
    kind: "commit",
    title: "A store's vote",
    text:
      "Yes means: it is in the journal, and nothing but the decision is missing. One silent store is enough to end in an abort, which is agreed in the log.",
  },
  "txn.progress": {
    kind: "commit",
    title: "“Have patience”",
    text: "The store is getting contents from a peer first.",
  },
  "txn.decision": {
    kind: "done",
    title: "2PC, second phase: the decision",
    text:
      "How the slot ends. Its commands commit once all votes are in, without a second round of consensus, because only an Abort in the log could say otherwise; the commands that such an Abort names do not happen.",
  },
  "txn.inquiry": {
    kind: "rule",
    title: "A new view asks what is open",
    text:
      "A new coordinator took over. From this answer on the store refuses the old one: that is the fence.",
  },
  "txn.state": {
    kind: "rule",
    title: "What this store has prepared and applied",
    text:
      "From all answers together the new coordinator knows which slots may have been committed.",
  },
  "txn.fenced": {
    kind: "wrong",
    title: "Fenced",
    text: "The store has answered a newer coordinator and serves this one no more.",
  },
  "learn.progress": {
    kind: "client",
    title: "How far the learner is",
    text: "The leader gives leases and takes new commands only up to what is decided.",
  },
  "learn.pull": {
    kind: "client",
    title: "“What did I miss?”",
    text: "Nothing depends on a notification arriving: whoever misses something asks.",
  },
  "learn.chosen": { kind: "client", title: "Chosen slots, from another learner", text: "" },
  "sync.pull": { kind: "client", title: "“What was decided since?”", text: "" },
  "sync.decided": { kind: "client", title: "Decided slots", text: "" },
  "log.propose": {
    kind: "rule",
    title: "A View or an Abort for the log",
    text:
      "Who coordinates and which stores take part are values in the log like any other, so all agree on them.",
  },
  "read.request": {
    kind: "client",
    title: "A read",
    text: "Any one store of the view with a read lease may answer: read one, write all.",
  },
  "read.reply": { kind: "done", title: "The answer of one store", text: "" },
  "lease.ask": { kind: "rule", title: "“May I serve reads?”", text: "" },
  "lease.grant": {
    kind: "rule",
    title: "A read lease",
    text: "For so long no write can be acknowledged that this store has not prepared.",
  },
  "chunk.put": {
    kind: "journal",
    title: "A chunk of contents",
    text:
      "Large contents travel before the command, straight to all stores, named by their SHA-256.",
  },
  "chunk.stored": { kind: "journal", title: "The chunk is durable", text: "" },
};
