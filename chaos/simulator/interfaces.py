"""What the parts of the simulation see of each other: the world knows them all, and they only this.

The world passes time and holds the chances; a node is run by it; the network carries what nodes
send. Each of them is handed what it needs as one of these, so that none imports another.
"""

import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from actors.effects import Envelope, TimerKey
from actors.numbers import Milliseconds
from actors.options import Options

Parcel = tuple[Envelope, ...]
"""What one turn sends to one destination: it arrives or is lost as a whole."""


class Trace(Protocol):
    """Writes down every parcel and what else happens."""

    def parcel(
        self,
        at_us: int,
        arrives_us: int | None,
        sender: str,
        receiver: str,
        parcel: Parcel,
        *,
        duplicate: bool,
    ) -> None:
        """A parcel leaves; `arrives_us` is `None` if it is lost."""

    def event(self, at_us: int, text: str) -> None:
        """Something happened that is no message."""


class Time(Protocol):
    """True time, in microseconds, and what is to happen in it."""

    now_us: int

    def at_us(self, when_us: int, action: Callable[[Any], None], argument: Any = None) -> None:
        """Have `action` called with `argument` at a moment."""

    def after_us(self, delay_us: int, action: Callable[[Any], None], argument: Any = None) -> None:
        """Have `action` called with `argument` after a while."""


class Receiver(Protocol):
    """A node, as the network sees it."""

    name: str
    serial: int
    inbox: deque[Any]

    def arrive(self, item: Any) -> None:
        """A parcel or the message of a timer is in its queue."""

    def resend_timer(self, timer: tuple[int, TimerKey, int]) -> None:
        """The message of a timer was lost."""

    def forget_queue(self) -> None:
        """The broker lost what waited for it."""

    def rearm(self) -> None:
        """It is connected again."""


class Surroundings(Time, Protocol):
    """The world, as the network sees it."""

    trace: Trace | None

    @property
    def machines(self) -> Mapping[str, Any]:
        """All nodes, by name; to the network each is a `Receiver`."""

    def stream(self, name: str) -> random.Random:
        """A source of randomness of its own for one purpose."""


class Carrier(Protocol):
    """The network, as a node sees it."""

    def publish(self, sender: str, to: str, parcel: Parcel) -> None:
        """Put a copy into the queue of each receiver, sooner or later or never."""

    def delay(
        self, machine: Receiver, key: TimerKey, generation: int, delay_ms: Milliseconds
    ) -> None:
        """Send a timer's message through its delay queue."""


class Host(Surroundings, Protocol):
    """The world, as a node sees it."""

    options: Options
    watcher: Any
    chances: random.Random
    jitter: random.Random
    identities: random.Random
    halted: dict[str, str]

    @property
    def network(self) -> Carrier:
        """What carries its messages."""

    @property
    def now(self) -> Milliseconds:
        """True time in milliseconds."""

    def tell(self, text: str) -> None:
        """Note something for the story of this run."""

    def died(self, machine: Any) -> None:
        """A process died in its turn."""

    def refused(self, machine: Any) -> None:
        """A process did not start, because rows of its journal are rotten."""

    def answered(self, token: int, value: Any) -> None:
        """A call has its answer."""

    def call_lost(self, token: int) -> None:
        """The node died with the call under way."""
