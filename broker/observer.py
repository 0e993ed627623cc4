"""What a node's runtime tells whoever measures it. Every method does nothing here."""

from collections.abc import Callable, Iterable, Sequence
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

    def turn_finished(self, messages: int, seconds: float) -> None:
        """A turn that took in so many messages and timers is over."""

    def timer_expired(self, timer: TimerKey, late_ms: Milliseconds) -> None:
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
        self._received = _overriding(Observer.received, (one.received for one in observers))
        self._sent = _overriding(Observer.sent, (one.sent for one in observers))
        self._committed = _overriding(Observer.committed, (one.committed for one in observers))
        self._turn_finished = _overriding(
            Observer.turn_finished, (one.turn_finished for one in observers)
        )
        self._timer_expired = _overriding(
            Observer.timer_expired, (one.timer_expired for one in observers)
        )
        self._observers = observers

    def received(self, sender: str, message: AnyMessage) -> None:
        """See `Observer`."""
        for notify in self._received:
            notify(sender, message)

    def sent(self, to: str, message: AnyMessage) -> None:
        """See `Observer`."""
        for notify in self._sent:
            notify(to, message)

    def committed(self, rows: int, seconds: float) -> None:
        """See `Observer`."""
        for notify in self._committed:
            notify(rows, seconds)

    def turn_finished(self, messages: int, seconds: float) -> None:
        """See `Observer`."""
        for notify in self._turn_finished:
            notify(messages, seconds)

    def timer_expired(self, timer: TimerKey, late_ms: Milliseconds) -> None:
        """See `Observer`."""
        for notify in self._timer_expired:
            notify(timer, late_ms)

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


def _overriding(
    default: object, methods: Iterable[Callable[[Any, Any], None]]
) -> tuple[Callable[[Any, Any], None], ...]:
    """Those of `methods` that are not `default`, which does nothing: these are called often."""
    return tuple(method for method in methods if getattr(method, "__func__", None) is not default)


class Interceptor:
    """Where faults are put in on purpose: all that a node receives and sends passes through here.

    A node with a tap sends one message at a time, so that "after the second one" is exact. Before
    `sending`, the turn is durable; after `sent`, the message is on its way.
    """

    @property
    def idle(self) -> bool:
        """Whether the runtime may pass it by at present, and work at full speed."""
        return False

    def recipients(self, to: str, message: AnyMessage) -> Sequence[str]:
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
