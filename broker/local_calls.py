"""The local calls of one node that wait for an answer of its actor."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from actors.calls import Call
from broker.write_batching import WriteBatcher


class CallOutcomeUnknown(RuntimeError):
    """The actor was rebuilt before it answered the call."""


class CallRefused(RuntimeError):
    """Too many calls are under way: the call was rejected and has no effect."""


class Calls:
    """The calls under way, by token. `release` puts calls into the actor's inbox, in order."""

    def __init__(self, node: str, calls_max: int, release: Callable[[list[Call]], None]) -> None:
        self._node = node
        self._calls_max = calls_max
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last_token = 0
        self._batcher = WriteBatcher(release)

    def __len__(self) -> int:
        return len(self._waiting)

    async def run(self, make: Callable[[int], Call], timeout_s: float | None) -> Any:
        """See `broker.runtime.NodeHost.call`."""
        if len(self._waiting) >= self._calls_max:
            raise CallRefused(f"{self._node} has {len(self._waiting)} calls under way")
        self._last_token += 1
        token = self._last_token
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting[token] = future
        call = make(token)
        self._batcher.add(call)
        # Not `asyncio.timeout`, which costs three times as much: this runs for every write.
        timeout = None if timeout_s is None else loop.call_later(timeout_s, _time_out, future)
        try:
            return await future
        finally:
            if timeout is not None:
                timeout.cancel()
            self._waiting.pop(token, None)
            self._batcher.finished(call)

    def answer(self, token: int, value: Any) -> None:
        """Resolve the call with the actor's answer."""
        future = self._waiting.pop(token, None)
        if future is not None and not future.done():
            future.set_result(value)

    def fail(self, token: int, error: Exception) -> None:
        """Fail the call: its answer will never come."""
        future = self._waiting.pop(token, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def release(self) -> None:
        """Put the writes that wait to be batched into the inbox now."""
        self._batcher.flush()

    def fail_all_but(self, kept: Collection[int], error: Exception) -> None:
        """Fail all calls but those in `kept`."""
        for token in self._waiting.keys() - kept:
            self.fail(token, error)


def _time_out(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(TimeoutError("the node has not answered"))
