"""What the doors ask of their own node's client actor, and what they are told.

A call never crosses the broker: the runtime hands it to the actor in an `Envelope` from the node
itself, and carries the `Answer` with the same `token` back to whoever waits.
"""

from dataclasses import dataclass, field
from typing import Literal

from actors.messages import NodeHeartbeat, ReadReply, ReadRequest, SnapshotPage
from actors.numbers import Milliseconds
from actors.paxos.ballot import Ballot
from actors.values import Frozen, IdempotencyKey, Operation, Outcome, View

NOTHING_READ = "a read changes nothing"
"""The `fact` of a `NotDone` that answers a read."""


class Call(Frozen):
    """A local call. `token` is the runtime's; it comes back in the answer."""

    token: int


class Write(Call):
    """Run `operation` once; `retry_aborted` allows one more try, as a new sequence, if aborted."""

    type: Literal["call.write"] = "call.write"
    operation: Operation
    idempotency: IdempotencyKey | None = None
    retry_aborted: bool = True


class GiveUp(Call):
    """The caller of the write with token `write` waits no longer: what is certain by now?

    The actor's own patience is counted by delayed messages, which don't come while the broker is
    away; a call needs no broker.
    """

    type: Literal["call.give_up"] = "call.give_up"
    write: int


class Read(Call):
    """Ask a store. `request.number` is ignored; the actor numbers what it sends."""

    type: Literal["call.read"] = "call.read"
    request: ReadRequest


class Upload(Call):
    """Make a chunk durable on every store of the view."""

    type: Literal["call.upload"] = "call.upload"
    sha256: str
    manifest: bool
    data: bytes


class Fetch(Call):
    """Get a chunk from any store, checked against its name."""

    type: Literal["call.fetch"] = "call.fetch"
    sha256: str


class ReadLog(Call):
    """The newest chosen slots below `before` (0: of all), `limit` of them, with `commands_max`
    commands each at most (0: all); a `LogPage` answers.
    """

    type: Literal["call.read_log"] = "call.read_log"
    before: int
    limit: int
    commands_max: int = 0


class HoldChunks(Call):
    """Have every store keep all its chunks for `for_ms`, also those that nothing names any more."""

    type: Literal["call.hold_chunks"] = "call.hold_chunks"
    for_ms: Milliseconds


class KeepChunks(Call):
    """Have every store keep these chunks, at most `KEEP_NAMES_MAX`, and what they list for
    `for_ms`.
    """

    type: Literal["call.keep_chunks"] = "call.keep_chunks"
    names: tuple[str, ...]
    for_ms: Milliseconds


class CopySnapshot(Call):
    """Get page `page` of the state at `slot` from `source`, as the last answer named it.

    Slot 0 asks any replica for its state, at slot `at_least` or later. Where a snapshot is gone the
    answer is page 0 of another one, and the caller begins anew.
    """

    type: Literal["call.copy_snapshot"] = "call.copy_snapshot"
    at_least: int
    source: str = ""
    slot: int = 0
    page: int = 0


class Survey(Call):
    """What this node has heard of the cluster."""

    type: Literal["call.survey"] = "call.survey"


AnyCall = (
    Write
    | GiveUp
    | Read
    | Upload
    | Fetch
    | Survey
    | ReadLog
    | HoldChunks
    | KeepChunks
    | CopySnapshot
)


@dataclass(frozen=True, slots=True)
class WriteDecided:
    """The command was decided; `retried` tells that an aborted first try came before it."""

    request: str
    outcome: Outcome
    retried: bool = False


@dataclass(frozen=True, slots=True)
class NotDone:
    """It did not happen and never will; `fact` names what makes that final, `reason` the cause.

    `no_room`: a store's disk is full.
    """

    reason: str
    fact: str
    no_room: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """The command may or may not happen; the actor goes on asking. `request` names it."""

    request: str


@dataclass(frozen=True, slots=True)
class ReadDone:
    """A store's reply, and which store gave it."""

    store: str
    reply: ReadReply


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The chunk is durable on every store of the view."""


@dataclass(frozen=True, slots=True)
class FetchedChunk:
    """The chunk's bytes; their SHA-256 was checked."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Absent:
    """Every store of the view, with the disk that the view names, lacks the chunk."""


@dataclass(frozen=True, slots=True)
class Holding:
    """The stores were asked to keep chunks; none of them answers that, so ask again in time."""


@dataclass(frozen=True, slots=True)
class CopiedPage:
    """A page of a state. All pages of one copy come from one `source`: one start of one replica."""

    source: str
    page: SnapshotPage


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node's last heartbeat and how long ago it came."""

    age_ms: Milliseconds
    incarnation: int
    heartbeat: NodeHeartbeat


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """What the leader's last beat said of the leases, and how long ago it came."""

    age_ms: Milliseconds
    ballot: Ballot
    left_ms: Milliseconds
    read_left_ms: dict[str, Milliseconds]


@dataclass(frozen=True, slots=True)
class Surveyed:
    """The cluster as this node knows it; `ready` tells whether it could send a write to a leader.

    Whether the stores could commit the write is another question: a new one needs `stores_needed`
    whole stores in the view. `view_heard` tells whether a learner has told of the view since this
    node started; else it is that of the genesis. The last sign of life came `heard_ms` ago (`None`:
    none did), and this node has listened without a long gap for `listening_ms`: no silence that it
    saw is longer. A node of which nothing comes for `silent_ms` counts as silent.
    """

    cluster: str
    leader: str | None
    ready: bool
    view: View | None
    session: str | None
    nodes: dict[str, NodeReport] = field(default_factory=dict)
    expected: dict[str, tuple[str, ...]] = field(default_factory=dict)
    leases: LeaseReport | None = None
    view_heard: bool = True
    stores_needed: int = 1
    heard_ms: Milliseconds | None = 0
    listening_ms: Milliseconds = 0
    silent_ms: Milliseconds = 6_000


WriteAnswer = WriteDecided | NotDone | Unknown
ReadAnswer = ReadDone | NotDone
UploadAnswer = Uploaded | NotDone
FetchAnswer = FetchedChunk | Absent | NotDone
CopyAnswer = CopiedPage | NotDone
