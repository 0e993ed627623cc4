"""The chunks that a store holds, their users, and until when each is kept (design 4.9).

Contents are blobs in the journal; the store's actor knows only their names. A chunk has *users*,
the versions and prepared slots that name it, and it is *kept until* a moment that uploads and reads
put off. That moment only rises, whether users come or go. A chunk is deleted when nothing uses it
and that moment has passed. The check and the deletion happen in one step of the actor, so nothing
can begin to need the chunk in between.
"""

import heapq
import itertools
import json
from collections.abc import Iterable
from typing import TypeAlias

from pydantic import TypeAdapter

from actors.numbers import Milliseconds
from actors.values import (
    Batch,
    Chunked,
    Frozen,
    Indirect,
    Inline,
)

_NAMES = TypeAdapter(tuple[str, ...])

RELEASED_GRACE_MS = 60_000
"""How long the only chunk of a replaced version is kept for a client that has just read the entry.
"""

READING_GRACE_MS = 600_000
"""The same for a version of several chunks, which takes longer to read, and after each read."""

RENEWALS = 4
"""How many times an upload or a download renews its chunks within the time that they are kept, so
that the chunks outlive three lost renewals, or a pause of the store for as long."""

assert RELEASED_GRACE_MS <= READING_GRACE_MS

AnyContent: TypeAlias = Inline | Chunked | Indirect


class ChunkManifest(Frozen):
    """The names that a chunk lists, as the journal keeps them beside its bytes."""

    names: tuple[str, ...]


class Chunks:
    """The names of the held chunks, how many users each has, and until when each is kept.

    A name has one entry in the heap for as long as it is in `_kept_until`, and every held chunk
    without a user is in both. A manifest is never kept longer than the chunks that it lists.
    """

    def __init__(self) -> None:
        self.held: set[str] = set()
        self._manifests: dict[str, tuple[str, ...]] = {}
        self._users: dict[str, int] = {}
        self._kept_until: dict[str, Milliseconds] = {}
        """The time of a name that is no longer in it has passed."""
        self._kept_until_if_full: dict[str, Milliseconds] = {}
        """For the same names: until when each is kept if the disk is full."""
        self._due: list[tuple[Milliseconds, str]] = []
        """A heap of when to check each name again, at the latest at the end of its time."""

    def add(
        self, name: str, until: Milliseconds, until_if_full: Milliseconds | None = None
    ) -> None:
        """Note that the store holds the chunk, and keep it at least until `until`; on a full disk,
        until `until_if_full`.
        """
        self.held.add(name)
        self._raise(name, until, until_if_full)

    def add_manifest(self, name: str, manifest: ChunkManifest) -> None:
        """The chunk `name` lists others, which share its users and are kept with it from now on."""
        if name in self._manifests:
            return
        self._manifests[name] = manifest.names
        users = self._users.get(name, 0)
        until = self._kept_until.get(name)
        for listed in manifest.names:
            if users:
                self._users[listed] = self._users.get(listed, 0) + users
            if until is not None:
                self._raise(listed, until, self._kept_until_if_full[name])

    def has(self, name: str, as_manifest: bool) -> bool:
        """Whether the chunk is held, and known as a manifest if it is wanted as one."""
        return name in self.held and (not as_manifest or name in self._manifests)

    def lists(self, name: str) -> bool:
        """Whether the chunk is known as a manifest."""
        return name in self._manifests

    def manifest(self, name: str) -> ChunkManifest | None:
        """What the chunk `name` lists, if it is a manifest."""
        return ChunkManifest(names=self._manifests[name]) if name in self._manifests else None

    def is_used(self, name: str) -> bool:
        """Whether any version or prepared slot names it."""
        return name in self._users

    def keep(
        self, name: str, until: Milliseconds, until_if_full: Milliseconds | None = None
    ) -> None:
        """Keep the chunk, and those that it lists, at least until `until` for an upload or a read;
        see `add`. A chunk that is neither held nor a manifest is ignored, to save memory.
        """
        if name in self.held or name in self._manifests:
            self._raise(name, until, until_if_full)

    def missing(self, content: AnyContent) -> tuple[str, ...]:
        """The chunks of `content` that are not held; a missing manifest hides those it lists."""
        wanted: Iterable[str]
        if isinstance(content, Indirect):
            if not self.has(content.manifest, as_manifest=True):
                return (content.manifest,)
            wanted = self._manifests[content.manifest]
        else:
            wanted = self._named_by(content)
        return tuple(dict.fromkeys(name for name in wanted if name not in self.held))

    def use(self, content: AnyContent) -> None:
        """One more version or prepared slot names this content."""
        for name in self._named_by(content):
            self._users[name] = self._users.get(name, 0) + 1

    def release(self, content: AnyContent, now: Milliseconds) -> list[str]:
        """One version or prepared slot fewer names it; return the chunks without users."""
        names = self._named_by(content)
        unused: list[str] = []
        grace_ms = RELEASED_GRACE_MS if len(names) == 1 else READING_GRACE_MS
        for name in names:
            left = self._users.get(name, 0) - 1
            if left > 0:
                self._users[name] = left
            else:
                self._users.pop(name, None)
                unused.append(name)
                if name in self.held:
                    self._raise(name, now + grace_ms)
        return unused

    def forget_users(self, now: Milliseconds) -> None:
        """Forget all users; the caller counts those of another state."""
        for name in sorted(self.held & self._users.keys()):
            self._raise(name, now + READING_GRACE_MS)
        self._users.clear()

    def is_due(self, now: Milliseconds) -> bool:
        """Whether `take_expired` has a chunk to check."""
        return bool(self._due) and self._due[0][0] <= now

    def take_expired(self, now: Milliseconds, most: int) -> list[str]:
        """Check up to `most` chunks, the longest overdue first; return those that nothing uses and
        whose time is over. The caller removes them in the same step.
        """
        expired: list[str] = []
        for _ in range(most):
            if not self.is_due(now):
                break
            _, name = heapq.heappop(self._due)
            until = self._kept_until[name]
            if until > now:
                heapq.heappush(self._due, (until, name))
                continue
            del self._kept_until[name], self._kept_until_if_full[name]
            if name in self.held and name not in self._users:
                expired.append(name)
        return expired

    def take_unused_if_full(self, now: Milliseconds, most: int) -> list[str]:
        """Up to `most` chunks that nothing uses and that are kept only for an upload which has been
        silent for a while. It scans all chunks in `_kept_until_if_full`.
        """
        unused = (
            name
            for name, until in self._kept_until_if_full.items()
            if until <= now and name in self.held and name not in self._users
        )
        return list(itertools.islice(unused, most))

    def remove(self, name: str) -> bool:
        """Forget a deleted chunk; whether it was a manifest."""
        self.held.discard(name)
        return self._manifests.pop(name, None) is not None

    def lose(self, name: str) -> None:
        """Note that the chunk's bytes are gone or rotten; its users still need it."""
        self.held.discard(name)

    def _raise(
        self, name: str, until: Milliseconds, until_if_full: Milliseconds | None = None
    ) -> None:
        """Keep the chunk, and all that it lists, until then; never for a shorter time than before.

        Manifests may list manifests, so this is a loop; it enters one only if its time rises.
        """
        asked = until if until_if_full is None else until_if_full
        todo = [name]
        while todo:
            raised = todo.pop()
            former = self._kept_until.get(raised)
            if former is None:
                heapq.heappush(self._due, (until, raised))
                self._kept_until[raised], self._kept_until_if_full[raised] = until, asked
            elif former >= until and self._kept_until_if_full[raised] >= asked:
                continue
            else:
                self._kept_until[raised] = max(former, until)
                self._kept_until_if_full[raised] = max(self._kept_until_if_full[raised], asked)
            todo.extend(self._manifests.get(raised, ()))

    def _named_by(self, content: AnyContent) -> tuple[str, ...]:
        if isinstance(content, Inline):
            return (content.sha256,) if content.data else ()
        if isinstance(content, Chunked):
            return content.chunks
        return (content.manifest, *self._manifests.get(content.manifest, ()))


def read_manifest(data: bytes) -> ChunkManifest | None:
    """The chunk names that `data` lists, or `None` if it is no manifest."""
    try:
        names = _NAMES.validate_python(json.loads(data))
    except ValueError:
        return None
    well_formed = all(len(name) == 64 and set(name) <= set("0123456789abcdef") for name in names)
    return ChunkManifest(names=names) if well_formed else None


def bare_json(batch: Batch) -> bytes:
    """The batch's JSON with inline contents replaced by their names; their bytes are chunks now.

    It edits the text, because rebuilding all values costs ten times as much. The bytes that it
    searches for can't be part of a string, where quotes are escaped. Contents that another encoder
    wrote differently stay inline, which is longer and means the same.
    """
    text = batch.json_text
    pieces: list[bytes] = []
    start = 0
    for content in batch.contents:
        if not isinstance(content, Inline):
            continue
        inline = b'"content":{"kind":"inline","sha256":"%b","data":"' % content.sha256.encode()
        found = text.find(inline, start)
        end = found + len(inline) + (len(content.data) + 2) // 3 * 4
        if found >= 0 and text.startswith(b'"}', end):
            pieces += (text[start:found], b'"content":', content.as_chunks.to_json())
            start = end + 2
    pieces.append(text[start:])
    return b"".join(pieces)
