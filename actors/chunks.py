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


class Manifest(Frozen):
    """A chunk that lists other chunks, as the journal keeps it beside its bytes."""

    names: tuple[str, ...]


class Chunks:
    """The names of the held chunks and how many users each has."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self._manifests: dict[str, tuple[str, ...]] = {}
        self._users: dict[str, int] = {}
        self._unused_since: dict[str, Milliseconds] = {}

    def add(self, name: str, now: Milliseconds) -> None:
        """The chunk is held from now on, and has its grace time before it."""
        self.held.add(name)
        if name not in self._users:
            self._unused_since[name] = now

    def add_manifest(self, name: str, manifest: Manifest) -> None:
        """The chunk `name` lists others."""
        self._manifests[name] = manifest.names

    def has(self, name: str, as_manifest: bool) -> bool:
        """Whether the chunk is held, and known as a manifest if it is wanted as one."""
        return name in self.held and (not as_manifest or name in self._manifests)

    def touch(self, name: str, now: Milliseconds) -> None:
        """Somebody uploads or reads it: its grace time starts again."""
        if name in self._unused_since:
            self._unused_since[name] = now

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
            self._unused_since.pop(name, None)

    def release(self, content: Contents, now: Milliseconds) -> None:
        """One fewer does."""
        for name in self._named_by(content):
            left = self._users.get(name, 0) - 1
            if left > 0:
                self._users[name] = left
            else:
                self._users.pop(name, None)
                if name in self.held:
                    self._unused_since[name] = now

    def expired(self, now: Milliseconds, grace_ms: Milliseconds) -> list[str]:
        """The chunks that nobody has needed for the grace time."""
        return [name for name, since in self._unused_since.items() if now - since > grace_ms]

    def remove(self, name: str) -> bool:
        """The chunk is gone; whether it was a manifest."""
        self.held.discard(name)
        self._unused_since.pop(name, None)
        return self._manifests.pop(name, None) is not None

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
