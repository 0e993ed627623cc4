"""Space on the disk for chunks that wait for a slow client, so that none waits in memory.

It is one file without a name, divided into slots of one chunk each. It is closed, and its space
freed, whenever no slot is in use; a crash leaves nothing behind. No other process reads it, nor
does anything after a restart, so nothing is synced: written data stays in the kernel's page cache,
unless memory is short.

One thread does all reads and writes, in order: so nothing is written to a slot once another request
has it, even if a request is cancelled during a write, and no stall of the disk stops the loop.
"""

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

from gateway.http.memory_budget import no_capacity

_log = logging.getLogger("synod.gateway")
_Result = TypeVar("_Result")

_RETRY_S = 1.0
"""How long no slot is given after a failure of the disk, because it would fail again."""


class SpillFile:
    """Slots in a file in `folder`, which keeps `reserve_bytes` of the disk free."""

    def __init__(self, folder: Path, slot_bytes: int, slots: int, reserve_bytes: int) -> None:
        self._folder = folder
        self._slot_bytes = slot_bytes
        self._reserve_bytes = reserve_bytes
        self._free = list(range(slots - 1, -1, -1))  # The lowest first: the file stays short.
        self._slots = slots
        self._failed_s = -_RETRY_S
        self._thread: ThreadPoolExecutor | None = None
        self._file: BinaryIO | None = None
        """Opened, used and closed only in the thread."""

    @property
    def used(self) -> int:
        """How many slots are in use."""
        return self._slots - len(self._free)

    @property
    def full(self) -> bool:
        """Whether no slot is available."""
        return not self._free or time.monotonic() < self._failed_s + _RETRY_S

    def slot(self) -> "SpillSlot | None":
        """A slot, if one is available."""
        return None if self.full else SpillSlot(self, self._free.pop())

    def release(self, number: int) -> None:
        """The slot `number` is free again."""
        self._free.append(number)
        if self.used == 0 and self._thread is not None:
            self._thread.submit(self._close)

    async def write(self, number: int, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write into a slot. Raises `Problem` if the disk has no space."""
        assert offset + len(data) <= self._slot_bytes, (offset, len(data))
        await self._run(lambda: self._write(number * self._slot_bytes + offset, data))

    async def read(self, number: int, offset: int, size: int) -> bytes:
        """Read the written data. Raises `Problem` if the disk fails."""
        return await self._run(lambda: self._read(number * self._slot_bytes + offset, size))

    async def _run(self, function: Callable[[], _Result]) -> _Result:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "spill")
        try:
            return await asyncio.wrap_future(self._thread.submit(function))
        except OSError as error:
            self._failed_s = time.monotonic()
            _log.warning("a slow body found no space in %s: %s", self._folder, error)
            raise no_capacity("its disk has no space either") from error

    def _write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Open for as long as any slot is in use.
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        descriptor = self._file.fileno()
        free = os.fstatvfs(descriptor)
        if free.f_bavail * free.f_frsize < self._reserve_bytes + len(data):
            # The node's journal is on the same disk, and counts as full at that mark.
            raise OSError(f"less than {self._reserve_bytes} bytes of the disk are free")
        left = memoryview(data)
        while left:
            written = os.pwrite(descriptor, left, position)
            position += written
            left = left[written:]

    def _read(self, position: int, size: int) -> bytes:
        assert self._file is not None, "read before write"
        data = os.pread(self._file.fileno(), size, position)
        if len(data) != size:
            raise OSError(f"{size} bytes were written, {len(data)} are there")
        return data

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class SpillSlot:
    """Space for one chunk on the disk."""

    def __init__(self, spill: SpillFile, number: int) -> None:
        self._spill = spill
        self._number = number

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write `data` at `offset`. Raises `Problem` if the disk has no space."""
        await self._spill.write(self._number, offset, data)

    async def read(self, offset: int, size: int) -> bytes:
        """Read the data written there. Raises `Problem` if the disk fails."""
        return await self._spill.read(self._number, offset, size)

    def release(self) -> None:
        """Release the slot: from now on another request may have it."""
        self._spill.release(self._number)
