"""The effects that an actor asks for, in fields, so that their order is a matter of structure.

The runtime carries effects out in one order only: `records` and `blobs` in one durable commit,
then `sends`, then `timers`, then `answers`, then the acknowledgement of what was received. If the
commit fails, nothing is sent and the actor is thrown away (design 2.1).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from actors.messages import AnyMessage
from actors.numbers import Milliseconds


class Group:
    """Destinations that stand for several nodes; every other destination is a node's name."""

    ACCEPTORS = "@acceptors"
    LEARNERS = "@learners"
    STORES = "@stores"
    HEARTBEATS = "@heartbeats"
    """Every proposer, learner, store and gateway."""
    PHASE_2 = "@phase2"
    """Every acceptor and every learner, for a proposal: one message carries it to all of them."""

    ALL = (ACCEPTORS, LEARNERS, STORES, HEARTBEATS, PHASE_2)


class Record(NamedTuple):
    """One row of the node's journal: `value` replaces what `key` held; `None` removes it.

    Keys are ordered as text; numbers in them are padded so that text order is number order.
    """

    key: str
    value: bytes | None


BLOB_ROW = "blob/"
"""The prefix of the keys under which `Actor.restore` receives the names of the journal's blobs."""


class Blob(NamedTuple):
    """Bytes under their SHA-256 (lower-case hex); `data=None` removes them.

    After a restart the actor receives the name of each blob as a row with the key `BLOB_ROW` +
    SHA-256 and an empty value.
    """

    sha256: str
    data: bytes | None


class Send(NamedTuple):
    """A message to a node or a `Group`. It may be lost, duplicated, delayed or reordered."""

    to: str
    message: AnyMessage


class SendBlob(NamedTuple):
    """The journal's blob `sha256`, sent as raw bytes on the receiver's bulk lane as `chunk.data`.

    If the journal does not hold it, the runtime sends `chunk.missing` instead.
    """

    to: str
    sha256: str


class TimerKey(NamedTuple):
    """Names a timer of one actor."""

    name: str
    subject: str = ""


class SetTimer(NamedTuple):
    """Expire `key` after a delay drawn by the runtime from `least_ms` to `most_ms`.

    Setting a key again replaces the earlier timer. A timer is only a hint: it may fire early,
    late, twice or never, so no safety rule may rest on one.
    """

    key: TimerKey
    least_ms: Milliseconds
    most_ms: Milliseconds


class CancelTimer(NamedTuple):
    """Forget `key`; an expiry already under way is ignored by the runtime."""

    key: TimerKey


class Answer(NamedTuple):
    """The answer to a local call (see `actors.gateway.gateway`), by the call's token."""

    token: int
    value: Any


@dataclass(frozen=True, slots=True)
class Effects:
    """The outcome of one step of an actor; `halt` is the reason why it refuses to go on."""

    records: tuple[Record, ...] = ()
    blobs: tuple[Blob, ...] = ()
    sends: tuple[Send | SendBlob, ...] = ()
    timers: tuple[SetTimer | CancelTimer, ...] = ()
    answers: tuple[Answer, ...] = ()
    halt: str | None = None


NOTHING = Effects()
"""The outcome of a step without effects."""


@dataclass(slots=True)
class Outbox:
    """Collects the effects of one step; every actor owns one and empties it when a step returns."""

    records: list[Record] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    sends: list[Send | SendBlob] = field(default_factory=list)
    timers: list[SetTimer | CancelTimer] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    halt: str | None = None

    def take(self) -> Effects:
        """Take what was collected since the last call; most steps collect nothing."""
        if not (
            self.records or self.sends or self.timers or self.blobs or self.answers or self.halt
        ):
            return NOTHING
        effects = Effects(
            tuple(self.records),
            tuple(self.blobs),
            tuple(self.sends),
            tuple(self.timers),
            tuple(self.answers),
            self.halt,
        )
        self.records.clear()
        self.blobs.clear()
        self.sends.clear()
        self.timers.clear()
        self.answers.clear()
        self.halt = None
        return effects


class Envelope(NamedTuple):
    """A message and who sent it. `cluster` is empty before the sender knows its cluster's id.

    `disk` is minted with an empty journal and kept by a plain restart; `incarnation` counts the
    starts of the process on that journal, from 1.
    """

    cluster: str
    sender: str
    disk: str
    incarnation: int
    message: AnyMessage


class Actor(Protocol):
    """A pure machine. `now` is the node's monotonic clock in milliseconds, handed in.

    A turn of the runtime is: any number of `receive` and `expire`, then one `settle`, then the
    commit and the rest. `settle` lets an actor act once on everything a turn brought: a leader puts
    the commands of a whole turn into one slot.
    """

    def restore(self, records: Iterable[Record], now: Milliseconds) -> Effects:
        """Called once, first: the names of the blobs, then the rows in key order.

        Raises `JournalUnreadable`.
        """
        ...

    def receive(self, envelope: Envelope, now: Milliseconds) -> Effects:
        """Handle one message."""
        ...

    def expire(self, timer: TimerKey, now: Milliseconds) -> Effects:
        """Handle an expired timer; timers are hints and may fire spuriously."""
        ...

    def settle(self, now: Milliseconds) -> Effects:
        """Finish the turn: its inbox is drained."""
        ...
