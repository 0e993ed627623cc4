"""Which chunks a store holds, and who still needs them (DESIGN section 4, rule 9).

Contents live in the journal as blobs; the store's actor knows only their names. A chunk goes away
when no version, prepared slot, upload or running read has named it for a while, and the check and
the deletion happen in one step of the actor, so nothing can begin to need it in between.
"""

import heapq
import json
from collections.abc import Iterable
from typing import TypeAlias

from pydantic import TypeAdapter

from actors.effects import Milliseconds
from actors.values import (
    Batch,
    Chunked,
    Frozen,
    Indirect,
    Inline,
)

_NAMES = TypeAdapter(tuple[str, ...])
_OUTDATED_MOST = 1_024

RELEASED_GRACE_MS = 60_000
"""How long the only chunk of a replaced version is kept for a reader who was just told of it."""

READING_GRACE_MS = 600_000
"""The same for a version of several chunks, which takes longer to read, and after each read."""

Contents: TypeAlias = Inline | Chunked | Indirect


class Manifest(Frozen):
    """A chunk that lists other chunks, as the journal keeps it beside its bytes."""

    names: tuple[str, ...]


class Chunks:
    """The names of the held chunks and how many users each has."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self._manifests: dict[str, tuple[str, ...]] = {}
        self._users: dict[str, int] = {}
        self._unused_until: dict[str, Milliseconds] = {}
        """When each chunk without a user may go."""
        self._due: list[tuple[Milliseconds, str]] = []
        """The same as a heap; an entry that does not match `_unused_until` is out of date."""

    def add(self, name: str, until: Milliseconds) -> None:
        """The chunk is held from now on, and kept until then if nobody begins to use it."""
        self.held.add(name)
        if name not in self._users:
            self._keep_until(name, until)

    def add_manifest(self, name: str, manifest: Manifest) -> None:
        """The chunk `name` lists others, which have the same users from now on."""
        if name in self._manifests:
            return
        self._manifests[name] = manifest.names
        users = self._users.get(name, 0)
        if users:
            for listed in manifest.names:
                self._users[listed] = self._users.get(listed, 0) + users
                self._unused_until.pop(listed, None)

    def has(self, name: str, as_manifest: bool) -> bool:
        """Whether the chunk is held, and known as a manifest if it is wanted as one."""
        return name in self.held and (not as_manifest or name in self._manifests)

    def lists(self, name: str) -> bool:
        """Whether the chunk is known as a manifest."""
        return name in self._manifests

    def manifest(self, name: str) -> Manifest | None:
        """What the chunk `name` lists, if it is a manifest."""
        return Manifest(names=self._manifests[name]) if name in self._manifests else None

    def is_used(self, name: str) -> bool:
        """Whether any version or prepared slot names it."""
        return name in self._users

    def touch(self, name: str, until: Milliseconds) -> None:
        """Somebody uploads or reads it."""
        if self._unused_until.get(name, until) < until:
            self._keep_until(name, until)

    def missing(self, content: Contents) -> tuple[str, ...]:
        """The chunks of `content` that are not held; a missing manifest hides those it lists."""
        wanted: Iterable[str]
        if isinstance(content, Indirect):
            if not self.has(content.manifest, as_manifest=True):
                return (content.manifest,)
            wanted = self._manifests[content.manifest]
        else:
            wanted = self._named_by(content)
        return tuple(dict.fromkeys(name for name in wanted if name not in self.held))

    def use(self, content: Contents) -> None:
        """One more version or prepared slot names this content."""
        for name in self._named_by(content):
            self._users[name] = self._users.get(name, 0) + 1
            self._unused_until.pop(name, None)

    def release(self, content: Contents, now: Milliseconds) -> list[str]:
        """One fewer does; the chunks that nobody names any more."""
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
                    self._keep_until(name, now + grace_ms)
        return unused

    def forget_users(self, now: Milliseconds) -> None:
        """Another state is about to say who uses what."""
        self._users.clear()
        for name in sorted(self.held - self._unused_until.keys()):
            self._keep_until(name, now + READING_GRACE_MS)

    def take_expired(self, now: Milliseconds, most: int) -> list[str]:
        """Up to `most` chunks that nobody has needed for their time, the oldest first."""
        expired: list[str] = []
        while self._due and self._due[0][0] <= now and len(expired) < most:
            until, name = heapq.heappop(self._due)
            if self._unused_until.get(name) == until:
                expired.append(name)
        return expired

    def remove(self, name: str) -> bool:
        """The chunk is gone; whether it was a manifest."""
        self.held.discard(name)
        self._unused_until.pop(name, None)
        return self._manifests.pop(name, None) is not None

    def lose(self, name: str) -> None:
        """Its bytes are gone or rotten, but whoever needs it still does."""
        self.held.discard(name)
        self._unused_until.pop(name, None)

    def _keep_until(self, name: str, until: Milliseconds) -> None:
        self._unused_until[name] = until
        heapq.heappush(self._due, (until, name))
        if len(self._due) > 2 * len(self._unused_until) + _OUTDATED_MOST:
            # Most contents are used as soon as they are held, an hour before their time is over.
            self._due = [(due, unused) for unused, due in self._unused_until.items()]
            heapq.heapify(self._due)

    def _named_by(self, content: Contents) -> tuple[str, ...]:
        if isinstance(content, Inline):
            return (content.sha256,) if content.data else ()
        if isinstance(content, Chunked):
            return content.chunks
        return (content.manifest, *self._manifests.get(content.manifest, ()))


def read_manifest(data: bytes) -> Manifest | None:
    """The chunk names that `data` lists, or `None` if it is no manifest."""
    try:
        names = _NAMES.validate_python(json.loads(data))
    except ValueError:
        return None
    well_formed = all(len(name) == 64 and set(name) <= set("0123456789abcdef") for name in names)
    return Manifest(names=names) if well_formed else None


def bare_json(batch: Batch) -> bytes:
    """The batch's JSON with inline contents replaced by their names; their bytes are chunks now.

    It is done to the text, because to make all the values anew costs ten times as much. The bytes
    that are looked for can't be part of a string, where quotes are escaped. What is written in some
    other way than ours stays as it is, which is longer and means the same.
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
