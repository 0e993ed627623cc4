"""An event loop whose clock jumps to the next timer, so that a busy machine changes nothing."""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar
from unittest import mock

Result = TypeVar("Result")


class _Jumps(selectors.DefaultSelector):
    """Waits for nothing; what it would have waited is what the clock shows."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now_s += max(0.0, timeout)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jumps = _Jumps()
        super().__init__(self.jumps)

    def time(self) -> float:
        return self.jumps.now_s


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run it to its end; `time.perf_counter_ns` shows the loop's time."""
    loop = _Loop()

    def now_ns() -> int:
        return round(loop.time() * 1e9)

    clock = mock.patch.object(time, "perf_counter_ns", now_ns)
    with asyncio.Runner(loop_factory=lambda: loop) as runner, clock:
        return runner.run(main)
