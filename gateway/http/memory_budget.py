"""A bound on the bytes that all requests hold in memory, granted in the order of the requests."""

import asyncio
from collections import deque
from typing import NamedTuple

from gateway.http.problems import UNAVAILABLE, Problem

TURN_TIMEOUT_S = 10.0
"""How long a request that has not begun waits for its turn, before it is refused."""

WAITERS_MAX = 1024
"""How many may wait. Further requests would wait in vain, so they are refused at once."""

_RETRY_AFTER_S = 2


class _Waiter(NamedTuple):
    size: int
    given: asyncio.Future[None]


class MemoryBudget:
    """A budget of bytes, granted first come, first served. A request waits for one grant at a time,
    so none gets two turns before another gets one.

    At most half of the budget is for incomplete chunks (`acquire_partial`), because those wait for
    their clients. The rest waits only for the cluster, so a turn comes within the cluster's time.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._free = bytes_max
        self._partial = 0
        self._waiting: deque[_Waiter] = deque()

    @property
    def held(self) -> int:
        """How many bytes are in use."""
        return self._bytes_max - self._free

    @property
    def scarce(self) -> bool:
        """Whether others wait for memory, or soon will."""
        return bool(self._waiting) or self._free < self._bytes_max // 2

    def allows_partial(self, size: int) -> bool:
        """Whether `size` more bytes of incomplete chunks may be held."""
        return self._partial + size <= self._bytes_max // 2

    def try_acquire(self, size: int) -> bool:
        """Take `size` bytes if that needs no wait; returns whether it did."""
        if self._waiting or size > self._free:
            return False
        self._free -= size
        return True

    async def acquire(self, size: int, timeout_s: float) -> None:
        """Take `size` bytes, in turn. Raises `Problem` after `timeout_s`."""
        if self.try_acquire(size):
            return
        if len(self._waiting) >= WAITERS_MAX:
            raise no_capacity(f"{WAITERS_MAX} requests wait for memory")
        turn = _Waiter(size, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(timeout_s):
                await turn.given
        except BaseException as error:
            if turn.given.cancelled():
                self._waiting.remove(turn)
                self._serve()  # The next ones may need less.
            else:
                self.release(size)
            if isinstance(error, TimeoutError):
                raise no_capacity(f"no turn came within {timeout_s:g} s") from None
            raise

    async def acquire_partial(self, size: int, timeout_s: float) -> None:
        """As `acquire`, for a part of a chunk. Only after `allows_partial`."""
        self._partial += size
        try:
            await self.acquire(size, timeout_s)
        except BaseException:
            self._partial -= size
            raise

    def end_partial(self, size: int) -> None:
        """`size` bytes of a partial chunk are complete now, or about to be released."""
        self._partial -= size
        assert self._partial >= 0, self._partial

    def release(self, size: int) -> None:
        """`size` bytes are free again."""
        self._free += size
        assert self._free <= self._bytes_max, (self._free, self._bytes_max)
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            turn = self._waiting[0]
            # A waiter that gave up removes itself in the same round, and serves the others.
            if turn.given.done() or turn.size > self._free:
                return
            self._waiting.popleft()
            self._free -= turn.size
            turn.given.set_result(None)


def no_capacity(why: str) -> Problem:
    """The problem for a request for which the gateway has no memory."""
    return Problem(
        UNAVAILABLE,
        f"Not accepted: the gateway has no room for more bodies at present ({why}). "
        "It did not happen and never will: no command was submitted. Try again.",
        headers={"retry-after": f"{_RETRY_AFTER_S}"},
        fields={"reason": "no room for more bodies", "fact": "no command was submitted"},
    )
