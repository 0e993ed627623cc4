"""What the network delivers into a node's queue: parcels of other nodes, and its own timers."""

from typing import NamedTuple

from actors.effects import Envelope, TimerKey

Envelopes = tuple[Envelope, ...]
"""What one turn sends to one destination, batched as the runtime does: lost only as a whole."""


class DueTimer(NamedTuple):
    """A timer that is due. `serial` is the start of the process that set it."""

    serial: int
    key: TimerKey
    generation: int
    """Which setting of the timer it belongs to; `SPURIOUS` fires whether it is set or not."""


SPURIOUS = -1
