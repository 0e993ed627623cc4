"""Has the stores keep the chunks that a request needs, for as long as the request takes.

Stores delete unused chunks after the moment that they are kept until. An upload or a download puts
that moment off periodically. A renewal may get lost, so several are sent within that time.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import NoReturn

from actors.messages import KEEP_NAMES_MAX
from actors.numbers import Milliseconds
from actors.store.chunks import READING_GRACE_MS, RELEASED_GRACE_MS, RENEWALS
from gateway.cluster import Cluster
from gateway.http.problems import Problem


@dataclass(frozen=True, slots=True)
class RenewalSchedule:
    """How long each renewal keeps chunks, and after what time the next renewal follows."""

    for_ms: Milliseconds
    every_ms: Milliseconds

    def __post_init__(self) -> None:
        assert self.every_ms * RENEWALS <= self.for_ms, self


DOWNLOAD_SCHEDULE = RenewalSchedule(for_ms=READING_GRACE_MS, every_ms=RELEASED_GRACE_MS // RENEWALS)
"""A version may be replaced as soon as its download begins, and is kept for `RELEASED_GRACE_MS` at
least from then on: the renewals begin within that time."""


def upload_schedule(chunk_grace_ms: Milliseconds) -> RenewalSchedule:
    """The schedule that fits the setting for how long a store keeps an uploaded chunk."""
    return RenewalSchedule(for_ms=chunk_grace_ms, every_ms=chunk_grace_ms // RENEWALS)


class KeptChunks:
    """The chunks that one request needs. Renewals begin with the first chunk."""

    def __init__(
        self, cluster: Cluster, schedule: RenewalSchedule, group: asyncio.TaskGroup
    ) -> None:
        self._cluster = cluster
        self._schedule = schedule
        self._group = group
        self._names: dict[str, None] = {}
        self._renewing: asyncio.Task[None] | None = None

    def add(self, names: Iterable[str]) -> None:
        """Keep these, too, from the next renewal on; until then their upload or read keeps them."""
        self._names.update(dict.fromkeys(names))
        if self._names and self._renewing is None:
            self._renewing = self._group.create_task(self._renew())

    def replace_by_manifest(self, manifest: str, names: Iterable[str]) -> None:
        """Keep the manifest, which the stores have, in place of the chunks that it lists."""
        for name in names:
            self._names.pop(name, None)
        self.add((manifest,))

    def end(self) -> None:
        """Stop the renewals: the request needs its chunks no longer."""
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None  # The task refers to this object.

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._schedule.every_ms / 1000)
            # If the cluster can't be reached now, the next renewal may succeed.
            with contextlib.suppress(Problem):
                names = tuple(self._names)
                for start in range(0, len(names), KEEP_NAMES_MAX):
                    part = names[start : start + KEEP_NAMES_MAX]
                    await self._cluster.keep_chunks(part, self._schedule.for_ms)


@contextlib.asynccontextmanager
async def keep_chunks(cluster: Cluster, schedule: RenewalSchedule) -> AsyncIterator[KeptChunks]:
    """While the block runs, the stores keep the chunks that are added to the `KeptChunks`."""
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            kept = KeptChunks(cluster, schedule, group)
            try:
                yield kept
            except Exception as error:
                # Not through the group: up to Python 3.12 its own exception refers to itself.
                failure = error
            finally:
                kept.end()
    except ExceptionGroup as errors:
        raise_first_error(errors)
    try:
        if failure is not None:
            raise_first_error(failure)
    finally:
        failure = None  # This frame is in its traceback.


def raise_first_error(error: Exception) -> NoReturn:
    """Raise `first_error(error)`, without a reference to its group.

    The group refers to it, so the two would be garbage that only a collection frees.
    """
    first = first_error(error)
    context = first.__context__
    try:
        raise first
    finally:
        first.__context__ = context
        del first, context  # This frame is in its traceback.


def first_error(error: Exception) -> Exception:
    """The error that ended a group of tasks; the others were cancelled because of it."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
