"""Virtual time: the events to come, in the order in which they happen."""

import heapq
from collections.abc import Callable
from typing import Any

US_PER_MS = 1_000

Callback = Callable[[Any], None]


class Schedule:
    """True time, and the events that are due. Events of one moment run as they were scheduled."""

    __slots__ = ("_count", "_events", "now_us")

    def __init__(self) -> None:
        self.now_us = 0
        self._events: list[tuple[int, int, Callback, Any]] = []
        self._count = 0

    @property
    def now_ms(self) -> int:
        """True time in milliseconds."""
        return self.now_us // US_PER_MS

    def at_us(self, when_us: int, action: Callback, argument: Any = None) -> None:
        """Call `action` with `argument` at a moment of true time."""
        self._count += 1
        heapq.heappush(self._events, (when_us, self._count, action, argument))

    def after_us(self, delay_us: int, action: Callback, argument: Any = None) -> None:
        """Call `action` with `argument` after a delay."""
        self._count += 1
        heapq.heappush(self._events, (self.now_us + delay_us, self._count, action, argument))

    def run_to_us(self, end_us: int) -> None:
        """Run every event that is due up to and at a moment, and let time pass until then."""
        events = self._events
        pop = heapq.heappop
        while events and events[0][0] <= end_us:
            self.now_us, _, action, argument = pop(events)
            action(argument)
        self.now_us = max(self.now_us, end_us)
