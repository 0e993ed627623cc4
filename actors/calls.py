"""Local calls from a gateway's process to its own actor, and their answers.

A call never crosses the broker: the runtime delivers it to the actor in an `Envelope` from the node
itself, and returns the `Answer` with the same `token` to the caller.
"""

from dataclasses import dataclass, field
from typing import Literal

from actors.messages import Action, AuditRead, NodeHeartbeat, ReadReply, ReadRequest, SnapshotPage
from actors.numbers import Milliseconds
from actors.paxos.ballot import Ballot
from actors.paxos.membership import Membership
from actors.values import Frozen, IdempotencyKey, Operation, Outcome, Principal, View

NOTHING_READ = "a read changes nothing"
"""The `fact` of a `NotDone` that answers a read."""


class Call(Frozen):
    """A local call. The runtime chooses `token`, which comes back in the answer."""

    token: int


class Write(Call):
    """Run `operation` once, for `principal`; without one, for the administrator.

    `retry_aborted`: if aborted, try once more, as a new sequence.
    """

    type: Literal["call.write"] = "call.write"
    operation: Operation
    idempotency: IdempotencyKey | None = None
    retry_aborted: bool = True
    principal: Principal | None = None


class GiveUp(Call):
    """End the wait of the write with token `write`, and answer what is certain by now.

    The actor's own patience is measured by delayed messages, which don't come while the broker is
    away; a call needs no broker.
    """

    type: Literal["call.give_up"] = "call.give_up"
    write: int


class Read(Call):
    """Ask a store. `request.number` is ignored; the actor numbers its requests itself."""

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


class ReadAudit(Call):
    """Ask a learner for records of the audit: `learner`, or any. `request.number` is ignored; an
    `AuditPage` answers.
    """

    type: Literal["call.read_audit"] = "call.read_audit"
    request: AuditRead
    learner: str = ""


class HoldChunks(Call):
    """Have every store keep all its chunks for `for_ms`, also those no longer in use."""

    type: Literal["call.hold_chunks"] = "call.hold_chunks"
    for_ms: Milliseconds


class KeepChunks(Call):
    """Have every store keep these chunks, at most `KEEP_NAMES_MAX`, and the chunks that they list,
    for `for_ms`.
    """

    type: Literal["call.keep_chunks"] = "call.keep_chunks"
    names: tuple[str, ...]
    for_ms: Milliseconds


class CopySnapshot(Call):
    """Get page `page` of the state at `slot` from `source`, as the last answer named it.

    Slot 0 asks any replica for its state at slot `at_least` or later. If a snapshot is gone, the
    answer is page 0 of another one, and the caller starts over.
    """

    type: Literal["call.copy_snapshot"] = "call.copy_snapshot"
    at_least: int
    source: str = ""
    slot: int = 0
    page: int = 0


class MemberChange(Call):
    """Replace, add or remove a member, for the principal with the owner `principal`; without one,
    for the administrator.
    """

    type: Literal["call.change_member"] = "call.change_member"
    action: Action
    name: str
    principal: str | None = None


class Survey(Call):
    """Ask for the cluster as this node knows it."""

    type: Literal["call.survey"] = "call.survey"


AnyCall = (
    Write
    | GiveUp
    | Read
    | Upload
    | Fetch
    | Survey
    | ReadLog
    | ReadAudit
    | HoldChunks
    | KeepChunks
    | CopySnapshot
    | MemberChange
)


@dataclass(frozen=True, slots=True)
class WriteDecided:
    """The command was decided; `retried`: after a first try that was aborted."""

    request: str
    outcome: Outcome
    retried: bool = False


@dataclass(frozen=True, slots=True)
class NotDone:
    """The request was not carried out and never will be, for `reason`; `fact` makes that final.

    `no_room`: a store's disk is full.
    """

    reason: str
    fact: str
    no_room: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """The command may or may not be applied; the actor goes on asking. `request` is its id."""

    request: str


@dataclass(frozen=True, slots=True)
class ReadDone:
    """A store's reply, and which store sent it."""

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
    """The stores were asked to keep chunks. They don't answer, so the caller has to ask again."""


@dataclass(frozen=True, slots=True)
class CopiedPage:
    """A page of a state. All pages of one copy come from one `source`: one start of one replica."""

    source: str
    page: SnapshotPage


@dataclass(frozen=True, slots=True)
class ChangeBegun:
    """The leader has proposed the change to `version`: of the acceptors, or of the roster of the
    other roles. Learners report whether it was chosen, and when it has ended. To replace a store, a
    learner or a proposer nothing is proposed: its new disk is seen, and joins by itself.
    """

    version: int


@dataclass(frozen=True, slots=True)
class ChangeNotBegun:
    """The leader refuses to change the members for `reason`; if `again`, what is missing comes by
    itself. Asking again is safe: what has begun is answered with its version.
    """

    reason: str
    again: bool


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node's last heartbeat, from which disk, and how long ago it came."""

    age_ms: Milliseconds
    incarnation: int
    heartbeat: NodeHeartbeat
    disk: str = ""


@dataclass(frozen=True, slots=True)
class AcceptorsReport:
    """The acceptors as learners have reported them, and their durable mark: no slot up to it is
    ever forgotten.
    """

    membership: Membership
    durable_mark: int

    @property
    def needs_former(self) -> bool:
        """Whether a disk that was replaced may still be needed: while a change is under way, and
        until its end can't be forgotten any more (decision 26, rule 18).
        """
        membership = self.membership
        return not membership.is_settled or self.durable_mark < membership.settled_slot


Standing = Literal["member", "uncounted", "joining", "newcomer", "leaving", "removed"]


@dataclass(frozen=True, slots=True)
class MemberReport:
    """A member, or another node that runs under a member's name, or did.

    `disk` is the one that counts: an acceptor's by its newest configuration, a store's by the view;
    empty: none, or any. `runs_on` is the disk of its last heartbeat; empty: none came. `standing`:

    - `member`: it is one, whether it lives or not, and no other disk was heard under its name;
    - `uncounted`: an acceptor that runs on another disk than the one that counts (to be replaced);
    - `joining`: a store that is to be in the view and is not yet, or lacks state or contents;
    - `newcomer`: no member; it waits to be added, or its name is a mistake;
    - `leaving`: it was removed, and may still be needed;
    - `removed`: it was removed, and may be switched off. So may a newcomer whose name was removed.

    `waits_for` says what is missing, for people; empty: nothing.
    """

    name: str
    role: str
    standing: Standing
    disk: str = ""
    runs_on: str = ""
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class MembersReport:
    """The members of all roles. `version` is that of the roster: of the names of the proposers,
    learners and stores; `slot` is where it was named last (0: in the genesis), and `is_durable`
    whether that can't be forgotten any more.
    """

    version: int
    slot: int
    is_durable: bool
    members: tuple[MemberReport, ...]

    def of(self, name: str) -> MemberReport | None:
        """The report on that node; `None`: nothing is known of it."""
        return next((member for member in self.members if member.name == name), None)


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """The leases as the leader's last beat reported them, and how long ago it came."""

    age_ms: Milliseconds
    ballot: Ballot
    left_ms: Milliseconds
    read_left_ms: dict[str, Milliseconds]


@dataclass(frozen=True, slots=True)
class Surveyed:
    """The cluster as this node knows it; `ready`: it could send a write to a leader.

    Whether the stores could commit the write is another question: a new one needs `stores_needed`
    whole stores in the view. `view_heard`: a heartbeat has reported the view since this node
    started; else it is that of the genesis. The last sign of life came `heard_ms` ago (`None`: none
    came), and this node has received messages without a long gap for `listening_ms`, so it can
    claim no longer silence of another node. A node counts as silent after `silent_ms`. `acceptors`
    are those of the genesis until a learner reports others, and `None` before it is known; so are
    `members`.
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
    acceptors: AcceptorsReport | None = None
    members: MembersReport | None = None


WriteAnswer = WriteDecided | NotDone | Unknown
ReadAnswer = ReadDone | NotDone
UploadAnswer = Uploaded | NotDone
FetchAnswer = FetchedChunk | Absent | NotDone
CopyAnswer = CopiedPage | NotDone
