"""What a node's runtime tells whoever measures it. Every method does nothing here."""

from collections.abc import Callable, Sequence
from typing import Any

from actors.effects import TimerKey
from actors.messages import AnyMessage
from actors.numbers import Milliseconds


class Observer:
    """Override what is of interest. The methods are called on the node's path: be quick."""

    def received(self, sender: str, message: AnyMessage) -> None:
        """The actor took in a message, or a local call from its own node."""

    def sent(self, to: str, message: AnyMessage) -> None:
        """A message was handed to the transport."""

    def committed(self, rows: int, seconds: float) -> None:
        """A commit of so many records and blobs took this long."""

    def turned(self, messages: int, seconds: float) -> None:
        """A turn that took in so many messages and timers is over."""

    def expired(self, timer: TimerKey, late_ms: Milliseconds) -> None:
        """A timer came back, this much later than it was set for."""

    def timers_lost(self, count: int) -> None:
        """So many timers were overdue, and their messages were sent again."""

    def quarantined(self, reason: str) -> None:
        """The actor could not digest a message."""

    def rebuilt(self, reason: str) -> None:
        """The actor was thrown away and made anew from its journal."""

    def stalled(self, reason: str) -> None:
        """The node's disk is full: it is silent until there is room."""

    def halted(self, reason: str) -> None:
        """The node refuses to go on."""


class Observers(Observer):
    """Several that are told the same, one after the other; each only of what it overrides."""

    def __init__(self, *observers: Observer) -> None:
        self._received = _implementations("received", observers)
        self._sent = _implementations("sent", observers)
        self._committed = _implementations("committed", observers)
        self._turned = _implementations("turned", observers)
        self._expired = _implementations("expired", observers)
        self._observers = observers

    def received(self, sender: str, message: AnyMessage) -> None:
        """See `Observer`."""
        for tell in self._received:
            tell(sender, message)

    def sent(self, to: str, message: AnyMessage) -> None:
        """See `Observer`."""
        for tell in self._sent:
            tell(to, message)

    def committed(self, rows: int, seconds: float) -> None:
        """See `Observer`."""
        for tell in self._committed:
            tell(rows, seconds)

    def turned(self, messages: int, seconds: float) -> None:
        """See `Observer`."""
        for tell in self._turned:
            tell(messages, seconds)

    def expired(self, timer: TimerKey, late_ms: Milliseconds) -> None:
        """See `Observer`."""
        for tell in self._expired:
            tell(timer, late_ms)

    def timers_lost(self, count: int) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.timers_lost(count)

    def quarantined(self, reason: str) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.quarantined(reason)

    def rebuilt(self, reason: str) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.rebuilt(reason)

    def stalled(self, reason: str) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.stalled(reason)

    def halted(self, reason: str) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.halted(reason)


def _implementations(
    name: str, observers: tuple[Observer, ...]
) -> tuple[Callable[[Any, Any], None], ...]:
    """The methods of that name that do anything: most observers hear of one thing or another."""
    methods = (getattr(observer, name) for observer in observers)
    silent = getattr(Observer, name)
    return tuple(tell for tell in methods if getattr(tell, "__func__", tell) is not silent)


class Interceptor:
    """Where faults are put in on purpose: all that a node receives and sends passes through here.

    A node with a tap sends one message at a time, so that "after the second one" is exact. Before
    `sending`, the turn is durable; after `sent`, the message is on its way.
    """

    @property
    def asleep(self) -> bool:
        """Whether the runtime may pass it by at present, and work at full speed."""
        return False

    def addressees(self, to: str, message: AnyMessage) -> Sequence[str]:
        """To whom `message` leaves, one after the other, instead of to `to`."""
        return (to,)

    async def receiving(self, message: AnyMessage) -> None:
        """The actor is about to take in `message`."""

    async def received(self, message: AnyMessage) -> None:
        """The actor took in `message`; nothing of that is durable yet."""

    async def sending(self, to: str, message: AnyMessage) -> None:
        """`message` is about to leave."""

    async def sent(self, to: str, message: AnyMessage) -> None:
        """`message` has left."""
