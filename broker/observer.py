"""The interfaces through which a node's runtime is observed, and intercepted to inject faults."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from actors.effects import TimerKey
from actors.messages import AnyMessage
from actors.numbers import Milliseconds


class Observer:
    """Is notified of a node's activity. Every method does nothing here; override the relevant ones.

    They run within the node's turns, so they must be quick.
    """

    def received(self, sender: str, message: AnyMessage) -> None:
        """The actor processed a message, or a local call of its own node."""

    def sent(self, to: str, message: AnyMessage) -> None:
        """A message was handed to the transport."""

    def committed(self, rows: int, seconds: float) -> None:
        """A commit of so many records and blobs took this long."""

    def turn_finished(self, messages: int, seconds: float) -> None:
        """A turn that processed so many messages and timers ended."""

    def timer_expired(self, timer: TimerKey, late_ms: Milliseconds) -> None:
        """A timer expired, this much later than it was set for."""

    def timers_lost(self, count: int) -> None:
        """So many timers were overdue, so their messages were sent again."""

    def quarantined(self, reason: str) -> None:
        """The actor could not process a message."""

    def rebuilt(self, reason: str) -> None:
        """The actor was rebuilt from its journal."""

    def stalled(self, reason: str) -> None:
        """The node's disk is full: it is silent until there is space."""

    def halted(self, reason: str) -> None:
        """The node halted."""


class Observers(Observer):
    """Notifies several observers in order, each only through the methods that it overrides."""

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
    """The `methods` other than `default`, which does nothing; for those that are called often."""
    return tuple(method for method in methods if getattr(method, "__func__", None) is not default)


class Interceptor:
    """Intercepts every message that a node receives or sends, in order to inject faults.

    A node with an active interceptor sends one message at a time, so that "after the second one" is
    exact. Before `sending`, the turn is durable; after `sent`, the message has been sent.
    """

    @property
    def idle(self) -> bool:
        """Whether the runtime may skip it at present and run at full speed."""
        return False

    def recipients(self, to: str, message: AnyMessage) -> Sequence[str]:
        """The destinations to send `message` to, one after the other, instead of `to`."""
        return (to,)

    async def receiving(self, message: AnyMessage) -> None:
        """The actor is about to process `message`."""

    async def received(self, message: AnyMessage) -> None:
        """The actor processed `message`; no effect of it is durable yet."""

    async def sending(self, to: str, message: AnyMessage) -> None:
        """`message` is about to be sent."""

    async def sent(self, to: str, message: AnyMessage) -> None:
        """`message` has been sent."""
