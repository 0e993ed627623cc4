"""What a node's runtime tells whoever measures it. Every method does nothing here."""

from actors.effects import Milliseconds, TimerKey
from actors.messages import AnyMessage


class Observer:
    """Override what is of interest. The methods are called on the node's path: be quick."""

    def received(self, message: AnyMessage) -> None:
        """The actor took in a message or a local call."""

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

    def halted(self, reason: str) -> None:
        """The node refuses to go on."""


class Tap:
    """Where faults are put in on purpose: all that a node receives and sends passes through here.

    A node with a tap sends one message at a time, so that "after the second one" is exact. Before
    `sending`, the turn is durable; after `sent`, the message is on its way.
    """

    async def receiving(self, message: AnyMessage) -> None:
        """The actor is about to take in `message`."""

    async def received(self, message: AnyMessage) -> None:
        """The actor took in `message`; nothing of that is durable yet."""

    async def sending(self, to: str, message: AnyMessage) -> None:
        """`message` is about to leave."""

    async def sent(self, to: str, message: AnyMessage) -> None:
        """`message` has left."""
