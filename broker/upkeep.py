"""What a node's runtime does for its journal beside the turns: mind the room, look for rot.

Nothing is mended here. The actor is told by notices, and decides what it means for its role.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from actors.notices import BlobRotten, DiskSpace, Notice, RowRotten
from broker.journal import Journal

LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class UpkeepOptions:
    """How a journal is looked after. A pass over all of it is followed by a rest."""

    disk_reserve_bytes: int = 64 * 1024 * 1024
    scrub_bytes_per_s: int = 1024 * 1024
    scrub_rest_s: float = 600.0


class Upkeep:
    """Looks after one journal until cancelled."""

    def __init__(
        self, journal: Journal, options: UpkeepOptions, notify: Callable[[Notice], None]
    ) -> None:
        self._journal = journal
        self._options = options
        self._notify = notify
        self._low = False
        self.scrubbed_bytes = 0
        """What was read and checked so far."""
        self.passes = 0
        """How often the whole journal was checked."""

    def announce_again(self) -> None:
        """The actor was made anew: what it was told, it has to be told again."""
        self._low = False

    async def run(self) -> None:
        """Raises `JournalCorrupt` where SQLite itself can't read the file any more."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mind_room())
            group.create_task(self._scrub())

    async def _mind_room(self) -> None:
        while True:
            free_bytes = self._journal.free_bytes()
            reserve = self._options.disk_reserve_bytes
            # A little more than the reserve ends the want of room, so that it does not flicker.
            low = free_bytes < (reserve * 5 // 4 if self._low else reserve)
            if low != self._low:
                self._low = low
                self._notify(DiskSpace(low=low, free_bytes=free_bytes))
            await asyncio.sleep(LOOK_S)

    async def _scrub(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self._scrub_rows()
            for name in self._journal.blob_names():
                sound, size_bytes = await asyncio.to_thread(self._journal.is_sound, name)
                if not sound:
                    self._notify(BlobRotten(sha256=name))
                await self._pace(size_bytes)
            self.passes += 1
            await asyncio.sleep(self._options.scrub_rest_s)

    async def _scrub_rows(self) -> None:
        after: str | None = ""
        while after is not None:
            page = await asyncio.to_thread(self._journal.scrub_rows, after)
            rotten, after, size_bytes = page
            for key in rotten:
                self._notify(RowRotten(key=key))
            await self._pace(size_bytes)

    async def _pace(self, size_bytes: int) -> None:
        self.scrubbed_bytes += size_bytes
        await asyncio.sleep(size_bytes / self._options.scrub_bytes_per_s)
