"""Batching of writes: a busy gateway delays writes briefly, so that several share a slot.

After a slot is decided, its clients send their next writes one by one, as they get their answers.
If each command were sent on at once, the leader would put them into many small slots; but slots and
messages are what costs, not commands. So a gateway holds writes back until half of its recent
concurrent writes wait together (two such halves keep every node busy), or for a short delay. A
client that is alone never waits.
"""

import asyncio
from collections.abc import Callable

from actors.calls import Call, Write

DELAY_S_MAX = 0.06
"""The longest delay of a write; half the average duration of writes, if that is less."""

LOAD_WINDOW_S = 0.25
"""The peak of concurrent writes is remembered for one such window, at most for two."""


class WriteBatcher:
    """Batches the writes of one node. `release` receives the calls, in order."""

    def __init__(self, release: Callable[[list[Call]], None]) -> None:
        self._release = release
        self._waiting: list[Call] = []
        self._started_s: dict[int, float] = {}
        """When each write under way was added, by its token."""
        self._average_s = 0.0
        """A moving average of the duration of writes."""
        self._peak = 0
        self._previous_peak = 0
        self._window_start_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: Call) -> None:
        """Release the call, now or later if it is a write; `finished` must follow."""
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
        """The call was answered, or its caller no longer waits."""
        started_s = self._started_s.pop(call.token, None)
        if started_s is not None:
            took_s = asyncio.get_running_loop().time() - started_s
            self._average_s += (took_s - self._average_s) / 16

    def flush(self) -> None:
        """Release all writes that wait."""
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
