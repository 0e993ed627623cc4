"""The two loops of a load: closed, and open with a fixed rate of arrivals."""

import asyncio
import gc
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from chaos.bench.cases import LoadCase, Verb
from chaos.bench.recording import LoadResult, OperationEnd, Recording

WARM_UP_S = 0.5
"""How long a load runs before its operations count."""

LARGE_BYTES = 1024 * 1024
"""Operations of more take so long that there is no warm-up: of few, none may be left out."""

PAUSE_AFTER_REFUSAL_S = 0.05
"""How long a client of a closed loop waits after a refusal; one of an open loop does not."""

_EARLY_NS = 1_000_000
"""Event loops wake to the millisecond, and late. A request is sent by so much before it is due
rather than after; its latency then counts from the moment when it was sent."""

_STAMP_EVERY_BYTES = 64 * 1024
"""No two contents have equal parts of this size: nothing can be stored by reference."""


class StoreSession(Protocol):
    """One client of a store, with one request at a time. None of the calls raises for what the
    store or the network does."""

    async def read(self, key: str) -> OperationEnd:
        """Read the value of a key that has one."""

    async def write(self, key: str, content: bytes) -> OperationEnd:
        """Replace the value of a key."""

    def close(self) -> None:
        """End the session."""


class Contents:
    """Contents of one size, none of them equal to another, and not compressible."""

    def __init__(self, size_bytes: int, seed: int) -> None:
        chance = random.Random(seed)
        self._base = bytearray(chance.randbytes(size_bytes))
        self._name = chance.randbytes(4)
        self._number = 0

    def new(self) -> bytes:
        """The next one."""
        self._number += 1
        base = self._base
        stamp = self._name + self._number.to_bytes(8, "big")
        for at in range(0, len(base), _STAMP_EVERY_BYTES):
            base[at : at + len(stamp)] = stamp[: len(base) - at]
        return bytes(base)


class _Operations:
    """Draws the operations of one client."""

    def __init__(self, case: LoadCase, keys: Sequence[str], seed: int) -> None:
        self._mix = case.mix
        self._keys = keys
        self._chance = random.Random(seed)
        self._contents = Contents(case.size_bytes, seed)

    def next(self) -> tuple[Verb, str, bytes]:
        """The next one, with its key and what a write writes. Taken before its clock starts: a
        large content takes a while to make.
        """
        verb = self._mix.choose(self._chance)
        content = self._contents.new() if verb == "write" else b""
        return verb, self._chance.choice(self._keys), content


def arrival_ns(number: int, rate: float, begin_ns: int) -> int:
    """When the request of this number is due, the first one has 0: at even distances."""
    return begin_ns + int(number * 1e9 / rate)


async def run_load(
    sessions: Sequence[StoreSession],
    case: LoadCase,
    keys: Sequence[str],
    seconds: float,
    *,
    warm_up_s: float | None = None,
    seed: int = 0,
) -> LoadResult:
    """Run a case with one of `sessions` for each client, and wait for what is under way then."""
    if warm_up_s is None:
        warm_up_s = WARM_UP_S if case.size_bytes <= LARGE_BYTES else 0.0
    assert len(sessions) == case.clients, (len(sessions), case)
    operations = [_Operations(case, keys, seed + number) for number in range(case.clients)]
    begin_ns = time.perf_counter_ns()
    from_ns = begin_ns + int(warm_up_s * 1e9)
    until_ns = from_ns + int(seconds * 1e9)
    recording = Recording(from_ns, until_ns, case.clients)
    arrivals = None if case.rate is None else _Arrivals(case.rate, begin_ns, until_ns)
    pairs = zip(sessions, operations, strict=True)
    with _collecting_later():
        used_s = time.process_time()
        async with asyncio.TaskGroup() as group:
            for session, drawn in pairs:
                if arrivals is None:
                    group.create_task(_work_on(session, drawn, recording))
                else:
                    group.create_task(_take_arrivals(session, drawn, recording, arrivals))
        took_s = (time.perf_counter_ns() - begin_ns) / 1e9
        cores = (time.process_time() - used_s) / took_s
    for due_ns in arrivals or ():
        recording.add_unsent(due_ns)
    return recording.result(cores)


async def _work_on(session: StoreSession, operations: _Operations, recording: Recording) -> None:
    """The closed loop of one client."""
    while True:
        verb, key, content = operations.next()
        began_ns = time.perf_counter_ns()
        if began_ns >= recording.until_ns:
            return
        end = await (session.read(key) if verb == "read" else session.write(key, content))
        recording.add(verb, began_ns, time.perf_counter_ns(), end)
        if end.fate != "done":
            await asyncio.sleep(PAUSE_AFTER_REFUSAL_S)


class _Arrivals:
    """The moments at which requests are due; each is taken once, in their order."""

    def __init__(self, rate: float, begin_ns: int, until_ns: int) -> None:
        self._rate = rate
        self._begin_ns = begin_ns
        self._until_ns = until_ns
        self._number = 0

    def __iter__(self) -> Iterator[int]:
        while (due_ns := self.next()) is not None:
            yield due_ns

    def next(self) -> int | None:
        """The next one; `None` after the last."""
        due_ns = arrival_ns(self._number, self._rate, self._begin_ns)
        if due_ns >= self._until_ns:
            return None
        self._number += 1
        return due_ns


async def _take_arrivals(
    session: StoreSession,
    operations: _Operations,
    recording: Recording,
    arrivals: _Arrivals,
) -> None:
    """The open loop of one connection.

    Together the connections are a queue with as many servers: a request whose moment has come waits
    until one is free, and this wait is a part of its latency (no coordinated omission).
    """
    while time.perf_counter_ns() < recording.until_ns:
        due_ns = arrivals.next()
        if due_ns is None:
            return
        verb, key, content = operations.next()
        now_ns = time.perf_counter_ns()
        if (early_ns := due_ns - now_ns - _EARLY_NS) > 0:
            await asyncio.sleep(early_ns / 1e9)
            now_ns = time.perf_counter_ns()
        end = await (session.read(key) if verb == "read" else session.write(key, content))
        recording.add(verb, min(due_ns, now_ns), time.perf_counter_ns(), end)


@contextmanager
def _collecting_later() -> Iterator[None]:
    """No collection of garbage within the block: it would show as the latency of a store."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
