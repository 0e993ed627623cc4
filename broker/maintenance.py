"""The journal's maintenance beside the turns: watch its disk space, shrink it, scrub it for rot.

Nothing is repaired here. Notices report what was found to the actor, which decides what to do.

Space is what the file system has free plus the free pages inside the file, where the next contents
go. But a commit passes through a log, so some space must be outside of the file.
Where space is scarce the file is shrunk step by step, because nodes that share a disk can't use
each other's free pages.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from actors.disk_events import BlobRotten, DiskSpace, Notice, RowRotten
from broker.journal import Journal
from broker.journal_folder import JournalFull

CHECK_INTERVAL_S = 1.0

_MIB = 1024 * 1024
_HYSTERESIS_BYTES = 8 * _MIB
_SCARCE_BYTES = 256 * _MIB
_VOTERS_RESERVE_BYTES = 16 * _MIB
"""Enough for a quorum to continue while deletions free space: a node's log takes a few MiB."""

_SHRINK_STEP_S = 0.002
"""A turn waits for at most one step, and the few milliseconds that committing its pages takes."""

_SHRINK_PAUSE_FACTOR = 4
"""After each step the journal is left to the turns for this many times the step's duration."""

_KEPT_FREE_BYTES = _MIB
_KEPT_FREE_ROOMY_BYTES = 64 * _MIB


@dataclass(frozen=True, slots=True)
class MaintenanceOptions:
    """Limits of a journal's maintenance. Each scrub of the whole journal is followed by a rest.

    Below `scarce_bytes` of free disk space the node begins to save space.
    """

    disk_reserve_bytes: int = 128 * _MIB
    scarce_bytes: int | None = None
    scrub_bytes_per_s: int = 1024 * 1024
    scrub_rest_s: float = 600.0

    @classmethod
    def of_role(cls, role: str, reserve_bytes: int, **others: Any) -> Self:
        """The options for a role: a store reserves `reserve_bytes`, all others only a part of it.

        Without the others nothing could be deleted once the stores are full.
        """
        own = reserve_bytes
        if role != "store":
            own = min(reserve_bytes // 4, _VOTERS_RESERVE_BYTES)
        scarce = reserve_bytes + min(reserve_bytes, _SCARCE_BYTES)
        return cls(disk_reserve_bytes=own, scarce_bytes=scarce, **others)

    @property
    def floor_bytes(self) -> int:
        """What must be free on the disk itself, however much is free inside the file."""
        return min(self.disk_reserve_bytes // 4, _VOTERS_RESERVE_BYTES)

    @property
    def enough_bytes(self) -> int:
        """Above this, space is no longer low: more than the reserve, as a hysteresis."""
        return self.disk_reserve_bytes + min(self.disk_reserve_bytes // 4, _HYSTERESIS_BYTES)

    def is_low(self, outside_bytes: int, inside_bytes: int, was_low: bool) -> bool:
        """Whether that is too little space."""
        wanted = self.enough_bytes if was_low else self.disk_reserve_bytes
        return outside_bytes < self.floor_bytes or outside_bytes + inside_bytes < wanted

    def is_scarce(self, outside_bytes: int) -> bool:
        """Whether the node should begin to save space."""
        limit = self.scarce_bytes
        return outside_bytes < (2 * self.disk_reserve_bytes if limit is None else limit)


class Maintenance:
    """Maintains one journal until cancelled."""

    def __init__(
        self, journal: Journal, options: MaintenanceOptions, notify: Callable[[Notice], None]
    ) -> None:
        self._journal = journal
        self._options = options
        self._notify = notify
        self._low = False
        self._scarce = False
        self.scrubbed_bytes = 0
        """The bytes read and checked so far."""
        self.passes = 0
        """How often the whole journal was scrubbed."""
        self.reclaimed_bytes = 0
        """By how much the file was shrunk so far."""

    def report_again(self) -> None:
        """Report low space once more, because the actor was rebuilt and does not know."""
        self._low = False

    async def run(self) -> None:
        """Watch the space and scrub. Raises `JournalCorrupt` if SQLite can't read the file,
        or `JournalFailed`.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_free_space())
            group.create_task(self._scrub())

    def check_free_space(self) -> None:
        """Notify the actor if space became low, or sufficient again.

        Also called after contents were written: those of a second may exceed the reserve.
        """
        outside = self._journal.free_bytes()
        inside = self._journal.reusable_bytes
        low = self._options.is_low(outside, inside, self._low)
        if low != self._low:
            self._low = low
            self._notify(DiskSpace(low=low, free_bytes=outside + inside))

    async def _watch_free_space(self) -> None:
        while True:
            self.check_free_space()
            scarce = self._options.is_scarce(self._journal.free_bytes())
            if scarce != self._scarce:
                self._scarce = scarce
                await asyncio.to_thread(self._journal.shorten_logs, scarce)
            await self._shrink()
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def _shrink(self) -> None:
        """Return free pages to the file system: nearly all if space is scarce, else the excess."""
        journal = self._journal
        keep_bytes = _KEPT_FREE_BYTES
        if not self._scarce:
            keep_bytes = max(_KEPT_FREE_ROOMY_BYTES, journal.size_bytes // 2)
        ends_at = time.monotonic() + CHECK_INTERVAL_S
        while time.monotonic() < ends_at and journal.reusable_bytes > keep_bytes:
            began_at = time.monotonic()
            given = await asyncio.to_thread(journal.shrink, _SHRINK_STEP_S, keep_bytes)
            if not given:
                return
            self.reclaimed_bytes += given
            await asyncio.sleep(_SHRINK_PAUSE_FACTOR * (time.monotonic() - began_at))

    async def _scrub(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            # Then no row is left for long in the log alone, which is not scrubbed.
            with contextlib.suppress(JournalFull):
                await asyncio.to_thread(self._journal.fold)
            await self._scrub_rows()
            for name in self._journal.blob_names():
                sound, size_bytes = await asyncio.to_thread(self._journal.is_sound, name)
                if not sound:
                    self._notify(BlobRotten(sha256=name))
                await self._throttle(size_bytes)
            self.passes += 1
            await asyncio.sleep(self._options.scrub_rest_s)

    async def _scrub_rows(self) -> None:
        after: str | None = ""
        while after is not None:
            page = await asyncio.to_thread(self._journal.scrub_rows, after)
            rotten, after, size_bytes = page
            for key in rotten:
                self._notify(RowRotten(key=key))
            await self._throttle(size_bytes)

    async def _throttle(self, size_bytes: int) -> None:
        self.scrubbed_bytes += size_bytes
        await asyncio.sleep(size_bytes / self._options.scrub_bytes_per_s)
