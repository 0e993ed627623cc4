"""Chunks that pass through a gateway: in memory, or on the disk while they wait for a client."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Literal

from gateway.http.client_timeouts import LEAST_BYTES_PER_S, ClientTooSlow, WaitAllowance
from gateway.http.memory_budget import MemoryBudget, no_capacity
from gateway.http.problems import Problem
from gateway.http.spill import SpillFile, SpillSlot

_SLOW_CHECK_S = 0.05
"""How often the gateway checks whether a reader makes progress. One that took no piece since then,
less than about 1 MiB/s, counts as slow, so that others wait no longer than this for it."""

_PIECE_BYTES = 128 * 1024
"""How much a fast reader's connection receives at once. It is copied, because a connection that
waits for its reader would otherwise hold a whole chunk for its last piece. It holds two at most.
"""

_SMALL_PIECE_BYTES = 32 * 1024
"""The same for other readers, who may be many and slow; also the unit of disk reads and writes,
because data that arrives in tiny parts would cause very many writes."""

Reader = Literal["unknown", "fast", "slow"]
"""The reader's pace with the last chunk: whether it took it before others needed its memory."""

Sink = Callable[[bytes], Awaitable[None]]
"""Takes a piece of a download; returns when there is room for the next one."""


class IncomingChunk:
    """A body, or a chunk of one, while its parts arrive.

    It is in memory while there is space, and otherwise goes to the disk: incomplete chunks must not
    take memory from complete ones.
    """

    def __init__(self, memory: MemoryBudget, spill: SpillFile, timeout_s: float) -> None:
        self._memory = memory
        self._spill = spill
        self._timeout_s = timeout_s
        self._data = bytearray()
        """The parts that are not on the disk."""
        self._held = 0
        """How much of the memory budget this chunk uses: nothing once it is on the disk."""
        self._slot: SpillSlot | None = None
        self._written = 0
        self._digest = hashlib.sha256()
        """The digest of the written bytes, to detect corruption on the disk."""

    @property
    def size(self) -> int:
        """How many bytes arrived."""
        return self._written + len(self._data)

    async def add(self, piece: bytes) -> None:
        """Add the next part. Raises `Problem` if there is no space for it."""
        if self._slot is None:
            if self._memory.allows_partial(len(piece)):
                await self._memory.acquire_partial(len(piece), self._timeout_s)
                self._held += len(piece)
                self._data += piece
                return
            self._slot = self._spill.slot()
            if self._slot is None:
                raise no_capacity("too many slow bodies")
            await self._write(self._slot)
            self._forget()
        self._data += piece
        if len(self._data) >= _SMALL_PIECE_BYTES:
            await self._write(self._slot)

    async def complete(self) -> bytes:
        """The whole chunk; from now on the caller owns its memory. Raises `Problem`."""
        if self._slot is None:
            data = bytes(self._data)
            self._data = bytearray()
            self._held = 0
            self._memory.end_partial(len(data))
            return data
        await self._write(self._slot)
        await self._memory.acquire(self._written, self._timeout_s)
        try:
            data = await self._slot.read(0, self._written)
            if hashlib.sha256(data).digest() != self._digest.digest():
                raise no_capacity("its disk gave back other bytes than were written")
        except BaseException:
            self._memory.release(self._written)
            raise
        return data

    def drop(self) -> None:
        """Release memory and disk, whether the chunk is complete or not."""
        self._data = bytearray()
        self._forget()
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    def _forget(self) -> None:
        held, self._held = self._held, 0
        self._memory.end_partial(held)
        self._memory.release(held)

    async def _write(self, slot: SpillSlot) -> None:
        data, self._data = self._data, bytearray()
        if data:
            await slot.write(self._written, data)
            self._digest.update(data)
            self._written += len(data)


class OutgoingChunk:
    """A chunk being sent to a reader: in memory, until others need the space of a slow reader.

    It owns `taken` bytes of the memory budget and releases them.
    """

    def __init__(
        self,
        data: bytes,
        taken: int,
        memory: MemoryBudget,
        spill: SpillFile,
        on_slow: Callable[[], None],
    ) -> None:
        self._moved = False
        self._size = len(data)
        self._data: bytes | None = data
        self._memory_taken = taken
        self._memory = memory
        self._spill = spill
        self._on_slow = on_slow
        self._slot: SpillSlot | None = None
        self._sent_to = self._checked_to = 0
        """How far the reader has come, now and at the last check."""

    async def send(
        self, start: int, stop: int, sink: Sink, allowance: WaitAllowance, reader: Reader
    ) -> Reader:
        """Pass the bytes from `start` to `stop` to `sink`; returns the reader's pace.

        Raises `Problem`, `ClientTooSlow`, alone or in groups.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._schedule_check(0 if reader == "slow" else _SLOW_CHECK_S, group)
                try:
                    while start < stop:
                        fast = reader == "fast" and not self._moved
                        size = _PIECE_BYTES if fast else _SMALL_PIECE_BYTES
                        end = min(stop, start + size)
                        await _send_piece(await self._piece(start, end), sink, allowance)
                        start = self._sent_to = end
                finally:
                    self._timer.cancel()
        finally:
            self._forget()
            if self._slot is not None:
                self._slot.release()
        return "slow" if self._moved else "fast"

    def _schedule_check(self, delay_s: float, group: asyncio.TaskGroup) -> None:
        """Check after `delay_s`, and periodically, whether the reader blocks others."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay_s, self._check_reader, group)

    def _check_reader(self, group: asyncio.TaskGroup) -> None:
        if self._slot is not None:
            return
        if self._sent_to == self._checked_to and self._memory.scarce:
            self._on_slow()
            group.create_task(self._move())
        self._checked_to = self._sent_to
        self._schedule_check(_SLOW_CHECK_S, group)

    async def _piece(self, start: int, end: int) -> bytes:
        if self._data is not None:
            return self._data[start:end]
        assert self._slot is not None, "neither in memory nor on the disk"
        return await self._slot.read(start, end - start)

    async def _move(self) -> None:
        """Move the bytes to the disk. If that has no space they stay, and the move is retried."""
        data = self._data
        self._slot = slot = self._spill.slot()
        if data is None or slot is None:
            return
        try:
            await slot.write(0, data)
        except Problem:
            self._slot = None
            slot.release()
            return
        self._moved = True
        self._forget()

    def _forget(self) -> None:
        self._data = None
        self._memory.release(self._memory_taken)
        self._memory_taken = 0


async def _send_piece(piece: bytes, sink: Sink, allowance: WaitAllowance) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        async with asyncio.timeout(allowance.left_s):
            await sink(piece)
    except TimeoutError:
        raise ClientTooSlow(
            f"the reader stalled, or took less than {LEAST_BYTES_PER_S} bytes a second"
        ) from None
    allowance.moved(len(piece), loop.time() - began_s)
