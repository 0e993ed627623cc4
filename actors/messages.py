"""Every message that crosses the broker, and the flows they make.

Founding (once; `actors.membership`)::

    acceptor-1            every member           acceptors
        | genesis.census ----->|                     |
        |<---- genesis.present |                     |
        | genesis.propose -------------------------->|   journalled
        |<------------------------------ genesis.held|
        | genesis.founded ---->|-------------------->|   journalled; voting may begin
    any node | genesis.inquiry --> acceptors ; acceptor | genesis.founded --> node

Election and lease (Paxos Made Simple, section 3; leases as in Paxos Made Live, section 5.2)::

    proposer              acceptors                everybody
        | paxos.prepare ----->|   journalled
        |<----- paxos.promise |   (or paxos.reject)
        | lease.heartbeat --->|
        |<------ lease.granted|
        | leader.beat ----------------------------------->|

One write, six hops::

    gateway     leader      acceptors   learners     stores     coordinator (a learner)
      | client.submit ->|        |          |           |           |
      |         | paxos.accept ->|          |           |           |
      |         | paxos.accept ------------>|           |           |
      |         |        | paxos.accepted ->|           |           |
      |         |        |          | txn.prepare ----->|           |
      |         |        |          |           | txn.vote -------->|
      |<------------------------------------------- client.result   |
      |         |        |          |           |<-- txn.decision   |
      |         |<----------------- learn.progress      |           |

One read::

    gateway            store            leader
      | read.request --->| lease.ask ----->|   (unless it holds a lease)
      |<----- read.reply |<--- lease.grant |
      | chunk.get ------>|
      |<----- chunk.data |

Whoever misses something asks: `learn.pull` (chosen slots), `sync.pull` (decided ones).
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from actors.ballot import Ballot
from actors.values import (
    Abort,
    AcceptedValue,
    Batch,
    Command,
    DecidedSlot,
    Entry,
    Frozen,
    Genesis,
    NoOp,
    Outcome,
    PreparedSlot,
    Refusal,
    SlotValue,
    Value,
    View,
)

# -- founding ---------------------------------------------------------------------------------


class Census(Frozen):
    """acceptor-1 asks every member whether its disk is empty, in order to found a cluster."""

    type: Literal["genesis.census"] = "genesis.census"
    disk: str
    incarnation: int


class Present(Frozen):
    """The answer to one `Census`, echoing it. `cluster` is what the answering disk holds."""

    type: Literal["genesis.present"] = "genesis.present"
    asker_disk: str
    asker_incarnation: int
    cluster: str


class ProposeGenesis(Frozen):
    """acceptor-1 to the other acceptors: hold this durably."""

    type: Literal["genesis.propose"] = "genesis.propose"
    genesis: Genesis


class HoldsGenesis(Frozen):
    """The sender's disk holds the genesis of this cluster."""

    type: Literal["genesis.held"] = "genesis.held"
    cluster: str


class Inquiry(Frozen):
    """A starting node asks the acceptors which cluster lives here."""

    type: Literal["genesis.inquiry"] = "genesis.inquiry"
    cluster: str


class Founded(Frozen):
    """All acceptors hold `genesis`. `asker_*` echo the `Inquiry`; empty: nobody asked."""

    type: Literal["genesis.founded"] = "genesis.founded"
    genesis: Genesis
    asker_disk: str = ""
    asker_incarnation: int = 0


class NodeHeartbeat(Frozen):
    """A sign of life. `journal_commits` counts the commits of the sender's journal so far.

    `applied` is the end of the applied prefix, `durable` what of it would survive a crash;
    `scanned` ends the chosen prefix; `state_hash` chains all applied slots.
    """

    type: Literal["node.heartbeat"] = "node.heartbeat"
    role: str
    journal_commits: int
    applied: int = 0
    durable: int = 0
    scanned: int = 0
    state_hash: str = ""
    ballot: Ballot | None = None
    view: View | None = None
    pending: int = 0
    in_doubt: int = 0
    halted: str = ""


class StaleDisk(Frozen):
    """The receiver's disk once reported more commits than it holds now: it is an older copy."""

    type: Literal["node.stale_disk"] = "node.stale_disk"
    disk: str
    incarnation: int
    journal_commits: int


# -- Paxos ------------------------------------------------------------------------------------


class Prepare(Frozen):
    """Phase 1a for all slots from `first_slot` on."""

    type: Literal["paxos.prepare"] = "paxos.prepare"
    ballot: Ballot
    first_slot: int


class Promise(Frozen):
    """Phase 1b, one page: covers the slots `first_slot <= s < next_slot` (`None`: all that follow).

    A covered slot that is not in `accepted` is empty at this acceptor.
    """

    type: Literal["paxos.promise"] = "paxos.promise"
    ballot: Ballot
    first_slot: int
    next_slot: int | None
    accepted: tuple[AcceptedValue, ...]
    truncated_below: int


class Accept(Frozen):
    """Phase 2a, to acceptors and learners. `learner` is to hear the votes; empty: all learners."""

    type: Literal["paxos.accept"] = "paxos.accept"
    ballot: Ballot
    slot: int
    value: Value
    learner: str = ""


class Accepted(Frozen):
    """Phase 2b, to the learners. The value is not repeated."""

    type: Literal["paxos.accepted"] = "paxos.accepted"
    ballot: Ballot
    slot: int


class Reject(Frozen):
    """`ballot` can't be served: a higher one is promised, a lease runs, or slots are gone."""

    type: Literal["paxos.reject"] = "paxos.reject"
    ballot: Ballot
    promised: Ballot
    lease_left_ms: int
    truncated_below: int


class LeaseHeartbeat(Frozen):
    """The leader asks for its lease; `number` rises with every heartbeat of a ballot."""

    type: Literal["lease.heartbeat"] = "lease.heartbeat"
    ballot: Ballot
    number: int


class LeaseGranted(Frozen):
    """The acceptor promises no other ballot for one lease from its receipt of `number`."""

    type: Literal["lease.granted"] = "lease.granted"
    ballot: Ballot
    number: int


class LeaderBeat(Frozen):
    """Who leads, to everybody. `ready`: it holds a lease and takes commands."""

    type: Literal["leader.beat"] = "leader.beat"
    ballot: Ballot
    ready: bool
    chosen_through: int


# -- learning ---------------------------------------------------------------------------------


class Progress(Frozen):
    """A learner's end of the chosen prefix, with the view there, and of the decided one."""

    type: Literal["learn.progress"] = "learn.progress"
    scanned: int
    decided: int
    view: View


class PullChosen(Frozen):
    """Send me what you know of the slots `first_slot <= s <= last_slot`."""

    type: Literal["learn.pull"] = "learn.pull"
    first_slot: int
    last_slot: int


class Chosen(Frozen):
    """Chosen slots, from a learner."""

    type: Literal["learn.chosen"] = "learn.chosen"
    entries: tuple[SlotValue, ...]


class AcceptedRange(Frozen):
    """What one acceptor accepted in a range, with values: an `Accepted` for each entry."""

    type: Literal["learn.accepted"] = "learn.accepted"
    entries: tuple[AcceptedValue, ...]
    truncated_below: int


class ProposeValue(Frozen):
    """The coordinator asks the leader to put a View or an Abort into the log."""

    type: Literal["log.propose"] = "log.propose"
    value: Annotated[View | Abort, Field(discriminator="kind")]


class Truncate(Frozen):
    """Everything below `below` is durable at all learners and stores; acceptors may forget it."""

    type: Literal["log.truncate"] = "log.truncate"
    below: int


# -- two-phase commit -------------------------------------------------------------------------


class TxnPrepare(Frozen):
    """Phase 1 of 2PC for one slot."""

    type: Literal["txn.prepare"] = "txn.prepare"
    epoch: int
    slot: int
    batch: Batch


class TxnVote(Frozen):
    """The store has journalled the slot; all commands but `refused` are prepared."""

    type: Literal["txn.vote"] = "txn.vote"
    epoch: int
    slot: int
    refused: tuple[Refusal, ...]
    durable: int


class TxnProgress(Frozen):
    """A store still works on a prepare (it pulls contents from a peer): have patience."""

    type: Literal["txn.progress"] = "txn.progress"
    epoch: int
    slot: int


class TxnDecision(Frozen):
    """A decided slot: all its commands commit but `aborted`.

    It was chosen under `ballot`. `value` is given for slots that hold no commands. A decision is
    told only once it is final, so it is true in every epoch.
    """

    type: Literal["txn.decision"] = "txn.decision"
    epoch: int
    slot: int
    ballot: Ballot
    aborted: tuple[int, ...] = ()
    value: Annotated[View | Abort | NoOp, Field(discriminator="kind")] | None = None


class TxnInquiry(Frozen):
    """A new coordinator asks what became of all slots above `decided`, and fences the store."""

    type: Literal["txn.inquiry"] = "txn.inquiry"
    view: View
    decided: int


class TxnState(Frozen):
    """The answer: older epochs are refused from now on. A slot not named is not prepared."""

    type: Literal["txn.state"] = "txn.state"
    epoch: int
    applied: int
    prepared: tuple[PreparedSlot, ...]


class Fenced(Frozen):
    """The sender has answered a coordinator of a newer epoch and won't serve the receiver's."""

    type: Literal["txn.fenced"] = "txn.fenced"
    epoch: int


class PullDecided(Frozen):
    """Send me the decided slots after `applied`."""

    type: Literal["sync.pull"] = "sync.pull"
    applied: int


class Decided(Frozen):
    """Decided slots in order; `first_kept` is the lowest one that the sender still has."""

    type: Literal["sync.decided"] = "sync.decided"
    entries: tuple[DecidedSlot, ...]
    first_kept: int


# -- clients ----------------------------------------------------------------------------------


class Submit(Frozen):
    """A command for the leader of `ballot`, and of that ballot only.

    A proposer that is not leading under `ballot` refuses for good: a ballot is never used again
    once given up (section 3, rule 1), so a late copy of this message can't be proposed either.
    """

    type: Literal["client.submit"] = "client.submit"
    ballot: Ballot
    command: Command

    @property
    def request(self) -> str:
        """The request's id."""
        return self.command.request


class Redirect(Frozen):
    """The refusal of a `Submit`: `ballot` does not lead and never will again.

    `never_proposed`: its owner, in the one incarnation that led it, also never proposed this
    command under it. So no copy sent to this ballot can ever be in the log.
    """

    type: Literal["client.redirect"] = "client.redirect"
    session: str
    sequence: int
    ballot: Ballot
    never_proposed: bool
    reason: str

    @property
    def request(self) -> str:
        """The request's id."""
        return f"{self.session}-{self.sequence}"


class Result(Frozen):
    """A decided command's outcome, to the node that waits for it."""

    type: Literal["client.result"] = "client.result"
    session: str
    sequence: int
    outcome: Outcome

    @property
    def request(self) -> str:
        """The request's id."""
        return f"{self.session}-{self.sequence}"


# -- reads and read leases --------------------------------------------------------------------


class LeaseAsk(Frozen):
    """A store asks for a read lease."""

    type: Literal["lease.ask"] = "lease.ask"
    number: int


class LeaseGrant(Frozen):
    """The store may serve reads for `duration_ms` from its sending of `number`, less the margin.

    It holds for this disk as added at `added_slot`, once the store has applied that slot.
    """

    type: Literal["lease.grant"] = "lease.grant"
    number: int
    epoch: int
    disk: str
    added_slot: int
    duration_ms: int


class ReadRequest(Frozen):
    """`what`: `entry`, `list` (a page after the name `after`) or `result` (of a command).

    A linearizable read needs the store's lease; a `stale` one any state at or above `at_least`.
    """

    type: Literal["read.request"] = "read.request"
    number: int
    what: Literal["entry", "list", "result"]
    path: str = ""
    session: str = ""
    sequence: int = 0
    after: str = ""
    limit: int = 1000
    consistency: Literal["linearizable", "stale"] = "linearizable"
    at_least: int = 0


ReadStatus = Literal["found", "absent", "not_served", "running", "forgotten", "unknown_session"]


class ReadReply(Frozen):
    """The state at `applied`. `not_served` says why this store can't answer; ask another."""

    type: Literal["read.reply"] = "read.reply"
    number: int
    status: ReadStatus
    applied: int
    entry: Entry | None = None
    children: tuple[Entry, ...] = ()
    more: bool = False
    outcome: Outcome | None = None
    detail: str = ""


# -- contents (the bulk lane) -----------------------------------------------------------------


class ChunkPut(Frozen):
    """A chunk for a store; on the broker `data` is the raw body. A `manifest` lists chunk names."""

    type: Literal["chunk.put"] = "chunk.put"
    sha256: str
    manifest: bool
    data: bytes


class ChunkStored(Frozen):
    """The chunk is durable at the sender: one credit back."""

    type: Literal["chunk.stored"] = "chunk.stored"
    sha256: str


class ChunkRefused(Frozen):
    """The chunk was not stored: it is not what its name says, or there is no room."""

    type: Literal["chunk.refused"] = "chunk.refused"
    sha256: str
    reason: str


class ChunkGet(Frozen):
    """Send me this chunk."""

    type: Literal["chunk.get"] = "chunk.get"
    sha256: str


class ChunkData(Frozen):
    """A chunk on its way to a reader or to a store that lacks it; sent by the runtime."""

    type: Literal["chunk.data"] = "chunk.data"
    sha256: str
    data: bytes


class ChunkMissing(Frozen):
    """The sender does not hold this chunk."""

    type: Literal["chunk.missing"] = "chunk.missing"
    sha256: str


BULK = ("chunk.put", "chunk.data")
"""Types whose `data` is a raw body and which travel on the receiver's bulk lane."""

Message = Annotated[
    Census
    | Present
    | ProposeGenesis
    | HoldsGenesis
    | Inquiry
    | Founded
    | NodeHeartbeat
    | StaleDisk
    | Prepare
    | Promise
    | Accept
    | Accepted
    | Reject
    | LeaseHeartbeat
    | LeaseGranted
    | LeaderBeat
    | Progress
    | PullChosen
    | Chosen
    | AcceptedRange
    | ProposeValue
    | Truncate
    | TxnPrepare
    | TxnVote
    | TxnProgress
    | TxnDecision
    | TxnInquiry
    | TxnState
    | Fenced
    | PullDecided
    | Decided
    | Submit
    | Redirect
    | Result
    | LeaseAsk
    | LeaseGrant
    | ReadRequest
    | ReadReply
    | ChunkPut
    | ChunkStored
    | ChunkRefused
    | ChunkGet
    | ChunkData
    | ChunkMissing,
    Field(discriminator="type"),
]

AnyMessage = Frozen
"""Any of the above."""

MESSAGES: TypeAdapter[tuple[Message, ...]] = TypeAdapter(tuple[Message, ...])
"""Reads and writes the messages of one turn to one destination, as a JSON list."""
