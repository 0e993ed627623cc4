"""Has the stores keep the chunks that a request needs, for as long as the request takes.

Stores delete what nothing uses once the time is over that it is kept for. An upload or a download
puts that off again and again. A renewal may get lost: several come within that time.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from actors.messages import KEEP_NAMES_MAX
from actors.numbers import Milliseconds
from actors.store.chunks import READING_GRACE_MS, RELEASED_GRACE_MS, RENEWALS
from gateway.cluster import Cluster
from gateway.http.problems import Problem


@dataclass(frozen=True, slots=True)
class RenewalSchedule:
    """How long each renewal keeps chunks for, and after what time the next one follows."""

    for_ms: Milliseconds
    every_ms: Milliseconds

    def __post_init__(self) -> None:
        assert self.every_ms * RENEWALS <= self.for_ms, self


DOWNLOAD_SCHEDULE = RenewalSchedule(for_ms=READING_GRACE_MS, every_ms=RELEASED_GRACE_MS // RENEWALS)
"""A version may be replaced as soon as its download begins, and is kept for `RELEASED_GRACE_MS` at
least from then on: the renewals begin within that time."""


def upload_schedule(chunk_grace_ms: Milliseconds) -> RenewalSchedule:
    """What a store keeps an uploaded chunk for is a setting; this is in step with it."""
    return RenewalSchedule(for_ms=chunk_grace_ms, every_ms=chunk_grace_ms // RENEWALS)


class KeptChunks:
    """The chunks that one request needs. The first one begins the renewals."""

    def __init__(
        self, cluster: Cluster, schedule: RenewalSchedule, group: asyncio.TaskGroup
    ) -> None:
        self._cluster = cluster
        self._schedule = schedule
        self._group = group
        self._names: dict[str, None] = {}
        self._renewing: asyncio.Task[None] | None = None

    def add(self, names: Iterable[str]) -> None:
        """These, too, from the next renewal on; until then their upload or read keeps them."""
        self._names.update(dict.fromkeys(names))
        if self._names and self._renewing is None:
            self._renewing = self._group.create_task(self._renew())

    def replace_by_manifest(self, manifest: str, names: Iterable[str]) -> None:
        """A manifest that is on the stores stands for the chunks `names`, which it lists."""
        for name in names:
            self._names.pop(name, None)
        self.add((manifest,))

    def end(self) -> None:
        """The request needs nothing any more."""
        if self._renewing is not None:
            self._renewing.cancel()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._schedule.every_ms / 1000)
            # Where a cluster can't be reached the next renewal has to do.
            with contextlib.suppress(Problem):
                names = tuple(self._names)
                for start in range(0, len(names), KEEP_NAMES_MAX):
                    part = names[start : start + KEEP_NAMES_MAX]
                    await self._cluster.keep_chunks(part, self._schedule.for_ms)


@contextlib.asynccontextmanager
async def keep_chunks(cluster: Cluster, schedule: RenewalSchedule) -> AsyncIterator[KeptChunks]:
    """While the block runs, the stores keep what is added to the `KeptChunks`."""
    try:
        async with asyncio.TaskGroup() as group:
            kept = KeptChunks(cluster, schedule, group)
            try:
                yield kept
            finally:
                kept.end()
    except ExceptionGroup as errors:
        raise first_error(errors) from errors


def first_error(error: Exception) -> Exception:
    """The error that ended a group of tasks; the others were cancelled because of it."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
