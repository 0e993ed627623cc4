"""The interface between a node's runtime and the broker that carries its messages.

It has two implementations: `broker.rabbitmq` and, within one process, `broker.memory_broker`. Both
drop messages rather than wait: whatever can't be sent now is dropped and counted, because the
protocol retransmits and no buffer may grow without bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from actors.effects import Group, TimerKey
from actors.messages import AnyMessage
from actors.numbers import Milliseconds
from actors.options import role_of


class Parcel(NamedTuple):
    """The messages that one turn of a node sends to one destination, in order.

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
    """Identifies a delivery to its transport.

    Acknowledging it acknowledges every earlier delivery of the same lane and session.
    """

    session: int
    lane: str
    tag: int


class Lane:
    """The two queues of a node; contents have their own, so as never to delay control messages."""

    CONTROL = "control"
    BULK = "bulk"


class Delivery(NamedTuple):
    """One message from the broker; `size_bytes` is its size in the receiver's memory.

    `item` is `None` if the transport handled the message itself; it is delivered nevertheless, so
    that the turn's acknowledgement covers it.
    """

    item: Parcel | TimerMessage | None
    receipt: Receipt
    size_bytes: int


class TransportRefused(RuntimeError):
    """The broker will never accept this node as it is configured, so a retry is useless."""


@dataclass(slots=True)
class TransportHealth:
    """The state of a transport. Counters only rise.

    `blocked`: the broker takes no messages at present (its memory or disk alarm).
    `dropped`: messages that could not be handed to the broker.
    `newer`: messages of a newer wire version than this node reads, which it dropped.
    `refused`: messages whose sender was not confirmed; they are quarantined as well.
    """

    connected: bool = False
    blocked: bool = False
    sessions: int = 0
    failures: int = 0
    dropped: int = 0
    quarantined: int = 0
    newer: int = 0
    refused: int = 0
    last_error: str = ""


class Transport(Protocol):
    """One node's connection to the broker."""

    @property
    def health(self) -> TransportHealth:
        """The current state, updated in place."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """The bytes that `flush` has sent and the socket has not taken yet."""
        ...

    async def run(
        self,
        deliver: Callable[[Delivery], None],
        connected: Callable[[], None],
        unblocked: Callable[[], None],
    ) -> None:
        """Stay connected and deliver until cancelled.

        `connected` is called at the start of every session, before its first delivery; `unblocked`
        when the broker takes messages again within a session. Raises `TransportRefused` if a retry
        can't help.
        """
        ...

    def publish(self, to: str, parcel: Parcel) -> None:
        """Stage `parcel` for a node's name or a `Group`. Never waits, never fails."""
        ...

    def delay(self, delay_ms: Milliseconds, timer_message: TimerMessage) -> bool:
        """Stage `timer_message` for delivery to this node after `delay_ms` or a little more.

        Returns whether it was staged; if not, it is dropped and counted.
        """
        ...

    def quarantine(self, parcel: Parcel, reason: str) -> None:
        """Stage a message that this node can't process for the quarantine."""
        ...

    def acknowledge(self, receipt: Receipt) -> None:
        """Stage the acknowledgement of `receipt` and all before it.

        It is sent after everything that is staged, or a little later: until then the broker may
        deliver again, which is harmless.
        """
        ...

    async def flush(self) -> None:
        """Send what is staged. Returns within a bounded time, even if nothing can be sent."""
        ...

    def emit(self, key: str, kind: str, body: bytes) -> bool:
        """Publish an event at once: JSON of the type `kind` on the topic `key`.

        Returns whether it was sent. An event is best effort and never retried.
        """
        ...

    def on_control(self, listener: Callable[[str, bytes], None]) -> None:
        """Call `listener` with the type and body of each event on the topics `control.#`."""
        ...


_GROUPS = {
    "acceptor": (Group.ACCEPTORS, Group.PHASE_2),
    "learner": (Group.LEARNERS, Group.PHASE_2, Group.HEARTBEATS),
    "store": (Group.STORES, Group.HEARTBEATS),
    "proposer": (Group.HEARTBEATS,),
    "gateway": (Group.HEARTBEATS,),
}


def groups_of(name: str) -> tuple[str, ...]:
    """The groups whose messages the node `name` receives."""
    return _GROUPS[role_of(name)]


def has_bulk_lane(name: str) -> bool:
    """Whether the node `name` receives contents."""
    return role_of(name) in ("store", "gateway")
