"""What a node's runtime asks of whatever carries its messages.

Two transports keep this contract: `broker.rabbitmq` and, inside one process,
`broker.memory_broker`. Both lose messages rather than wait: whatever can't be sent now is dropped
and counted, because the protocol retransmits and nothing may grow without bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from actors.effects import Group, TimerKey
from actors.messages import AnyMessage
from actors.numbers import Milliseconds
from actors.options import role_of


class Parcel(NamedTuple):
    """What one turn of one node sends to one destination, in order.

    `cluster`, `disk` and `incarnation` are those of the sender; see `actors.effects.Envelope`.
    """

    cluster: str
    sender: str
    disk: str
    incarnation: int
    messages: tuple[AnyMessage, ...]


class TimerMessage(NamedTuple):
    """A delayed message from a node to itself: these timers, of these generations, are due."""

    disk: str
    incarnation: int
    timers: tuple[tuple[TimerKey, int], ...]


class Receipt(NamedTuple):
    """Names a delivery to the transport that made it.

    Acknowledging one acknowledges every earlier delivery of the same lane and session.
    """

    session: int
    lane: str
    tag: int


class Lane:
    """A node has two queues, so that contents never delay control messages."""

    CONTROL = "control"
    BULK = "bulk"


class Delivery(NamedTuple):
    """One message of the broker; `size_bytes` is what it weighs in the receiver's memory.

    `item` is `None` for what the transport dealt with by itself; it is delivered all the same, so
    that the acknowledgement of the turn covers it.
    """

    item: Parcel | TimerMessage | None
    receipt: Receipt
    size_bytes: int


class TransportRefused(RuntimeError):
    """The broker will never take this node as it is configured; trying again is of no use."""


@dataclass(slots=True)
class TransportHealth:
    """What a transport knows of itself. Counts only ever rise.

    `blocked` tells that the broker takes no messages at present (its memory or disk alarm).
    `dropped` counts messages that could not be handed to the broker.
    """

    connected: bool = False
    blocked: bool = False
    sessions: int = 0
    failures: int = 0
    dropped: int = 0
    quarantined: int = 0
    last_error: str = ""


class Transport(Protocol):
    """One node's connection to the broker."""

    @property
    def health(self) -> TransportHealth:
        """Live figures, updated in place."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """What `flush` has sent and the socket has not taken yet."""
        ...

    async def run(
        self,
        deliver: Callable[[Delivery], None],
        connected: Callable[[], None],
        unblocked: Callable[[], None],
    ) -> None:
        """Connect, stay connected, deliver; until cancelled.

        `connected` is called at the start of every session, before its first delivery, `unblocked`
        when a broker that took no messages takes them again within a session. Raises
        `TransportRefused` for what trying again can't cure.
        """
        ...

    def publish(self, to: str, parcel: Parcel) -> None:
        """Stage `parcel` for a node's name or a `Group`. Never waits, never fails."""
        ...

    def delay(self, delay_ms: Milliseconds, timer_message: TimerMessage) -> bool:
        """Stage `timer_message` to come back to this node after `delay_ms` or a little more.

        Returns whether it was staged; what was not is dropped and counted.
        """
        ...

    def quarantine(self, parcel: Parcel, reason: str) -> None:
        """Stage a message that this node can't digest for the quarantine."""
        ...

    def acknowledge(self, receipt: Receipt) -> None:
        """Stage the acknowledgement of `receipt` and all before it.

        It leaves after everything that is staged, or a moment later: until then the broker would
        deliver again, and a second delivery is harmless.
        """
        ...

    async def flush(self) -> None:
        """Send what is staged. Returns within a bounded time, also when nothing can be sent."""
        ...

    def emit(self, key: str, kind: str, body: bytes) -> bool:
        """Tell whoever looks on: publish JSON of the type `kind` to the topic `key`, at once.

        Returns whether it left; nobody waits for it and nothing is tried again.
        """
        ...

    def on_control(self, listener: Callable[[str, bytes], None]) -> None:
        """Have `listener` called with the type and body of what comes on the topic `control.#`."""
        ...


_GROUPS = {
    "acceptor": (Group.ACCEPTORS, Group.PHASE_2),
    "learner": (Group.LEARNERS, Group.PHASE_2, Group.HEARTBEATS),
    "store": (Group.STORES, Group.HEARTBEATS),
    "proposer": (Group.HEARTBEATS,),
    "gateway": (Group.HEARTBEATS,),
}


def groups_of(name: str) -> tuple[str, ...]:
    """The groups that the node `name` hears."""
    return _GROUPS[role_of(name)]


def has_bulk_lane(name: str) -> bool:
    """Whether the node `name` receives contents."""
    return role_of(name) in ("store", "gateway")
