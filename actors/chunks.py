"""Which chunks a store holds, and who still needs them (DESIGN section 4, rule 9).

Contents live in the journal as blobs; the store's actor knows only their names. A chunk goes away
when no version, prepared slot or recent upload names it, and the check and the deletion happen in
one step of the actor, so nothing can begin to need it in between.
"""

import json
from collections.abc import Iterable
from typing import TypeAlias

from pydantic import TypeAdapter

from actors.effects import Milliseconds
from actors.values import Chunked, Frozen, Indirect, Inline

_NAMES = TypeAdapter(tuple[str, ...])

Contents: TypeAlias = Inline | Chunked | Indirect


class ChunkRow(Frozen):
    """A chunk in the journal; `names` are the chunks that it lists if it is a manifest."""

    names: tuple[str, ...] | None = None


class Chunks:
    """The names of the held chunks and how many users each has."""

    def __init__(self) -> None:
        self.rows: dict[str, ChunkRow] = {}
        self._users: dict[str, int] = {}
        self._unused_since: dict[str, Milliseconds] = {}

    def add(self, name: str, row: ChunkRow, now: Milliseconds) -> None:
        """The chunk is held from now on, and has its grace time before it."""
        self.rows[name] = row
        if name not in self._users:
            self._unused_since[name] = now

    def touch(self, name: str, now: Milliseconds) -> None:
        """Somebody uploads or reads it: its grace time starts again."""
        if name in self._unused_since:
            self._unused_since[name] = now

    def missing(self, content: Contents) -> tuple[str, ...]:
        """The chunks of `content` that are not held; a missing manifest hides those it lists."""
        wanted: Iterable[str]
        if isinstance(content, Indirect):
            row = self.rows.get(content.manifest)
            if row is None:
                return (content.manifest,)
            wanted = row.names or ()
        else:
            wanted = content.chunks if isinstance(content, Chunked) else ()
        return tuple(dict.fromkeys(name for name in wanted if name not in self.rows))

    def use(self, content: Contents) -> None:
        """One more version or prepared slot names this content."""
        for name in self._named_by(content):
            self._users[name] = self._users.get(name, 0) + 1
            self._unused_since.pop(name, None)

    def release(self, content: Contents, now: Milliseconds) -> None:
        """One fewer does."""
        for name in self._named_by(content):
            left = self._users.get(name, 0) - 1
            if left > 0:
                self._users[name] = left
            else:
                self._users.pop(name, None)
                if name in self.rows:
                    self._unused_since[name] = now

    def expired(self, now: Milliseconds, grace_ms: Milliseconds) -> list[str]:
        """The chunks that nobody has needed for the grace time."""
        return [name for name, since in self._unused_since.items() if now - since > grace_ms]

    def remove(self, name: str) -> None:
        """The chunk is gone."""
        self.rows.pop(name, None)
        self._unused_since.pop(name, None)

    def _named_by(self, content: Contents) -> tuple[str, ...]:
        if isinstance(content, Inline):
            return (content.sha256,) if content.data else ()
        if isinstance(content, Chunked):
            return content.chunks
        row = self.rows.get(content.manifest)
        return (content.manifest, *(row.names or () if row else ()))


def read_manifest(data: bytes) -> tuple[str, ...] | None:
    """The chunk names that a manifest lists, or `None` if it is not one."""
    try:
        names = _NAMES.validate_python(json.loads(data))
    except ValueError:
        return None
    well_formed = all(len(name) == 64 and set(name) <= set("0123456789abcdef") for name in names)
    return names if well_formed else None
