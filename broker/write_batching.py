"""Lets writes that come at about the same time leave together.

After a slot is decided its clients come back one by one, as fast as they are answered. Were each
command sent on at once, the leader would put them into many small slots, and it is slots and
messages that cost, not commands. So a busy gateway holds writes back until half of those that it
has to do with lately wait together (two such halves keep every node busy), or for a moment. A
client that is alone never waits.
"""

import asyncio
from collections.abc import Callable

from actors.calls import Call, Write

DELAY_S_MAX = 0.06
"""How long a write is held back at most; half the time that writes take, if that is less."""

LOAD_WINDOW_S = 0.25
"""For so long, and for as long again at most, it counts how many writes were under way at once."""


class WriteBatcher:
    """The writes of one node that wait for others; `release` takes them, in order."""

    def __init__(self, release: Callable[[list[Call]], None]) -> None:
        self._release = release
        self._waiting: list[Call] = []
        self._started_s: dict[int, float] = {}
        """When each write that is under way came in, by its token."""
        self._average_s = 0.0
        """How long writes take, a moving average."""
        self._peak = 0
        self._previous_peak = 0
        self._window_start_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: Call) -> None:
        """A call came in; see `finished`. All but writes go on at once."""
        if not isinstance(call, Write):
            self._release([call])
            return
        loop = asyncio.get_running_loop()
        self._started_s[call.token] = loop.time()
        self._track_peak(loop.time())
        self._waiting.append(call)
        if 2 * len(self._waiting) >= max(self._peak, self._previous_peak):
            self.flush()
        elif self._timer is None:
            delay_s = min(DELAY_S_MAX, self._average_s / 2)
            self._timer = loop.call_later(delay_s, self.flush)

    def finished(self, call: Call) -> None:
        """It was answered, or nobody waits for its answer any more."""
        started_s = self._started_s.pop(call.token, None)
        if started_s is not None:
            took_s = asyncio.get_running_loop().time() - started_s
            self._average_s += (took_s - self._average_s) / 16

    def flush(self) -> None:
        """Let go what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._release(waiting)

    def _track_peak(self, now_s: float) -> None:
        if now_s - self._window_start_s > LOAD_WINDOW_S:
            recent = now_s - self._window_start_s < 2 * LOAD_WINDOW_S
            self._previous_peak = self._peak if recent else 0
            self._peak = 0
            self._window_start_s = now_s
        self._peak = max(self._peak, len(self._started_s))
