"""The contents that the recovered state needs, from whichever folder has them sound."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.recovery.judgement import Judgement
from actors.store.chunks import read_manifest
from actors.values import FileEntry, Indirect
from broker.journal_folder import JournalCorrupt
from gateway.backup.folder import Contained, Moved
from gateway.recovery.folders import OpenedNode


class ContentsLost(Exception):
    """No given folder has sound contents of that name."""


@dataclass(slots=True)
class OldContents:
    """All contents of the given folders, by their SHA-256. Small ones are also in the log, in
    learners' and acceptors' journals.
    """

    nodes: Sequence[OpenedNode]
    """In the order in which they are asked."""
    used: Counter[str] = field(default_factory=Counter)
    """How many contents came from each folder, by its path."""
    rotten: dict[str, set[str]] = field(default_factory=dict)
    """The names of the contents that were found damaged, by the folder's path."""
    _inline: dict[str, tuple[str, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self._inline = {
            content.sha256: (str(opened.folder.path), content.data)
            for opened in self.nodes
            for content in opened.node.inline_contents()
            if hashlib.sha256(content.data).hexdigest() == content.sha256
        }

    def read(self, name: str) -> bytes:
        """The sound contents of that name. Raises `ContentsLost`."""
        return self._read(name)[1]

    def check(self, name: str) -> bytes:
        """As `read`, and count where they come from."""
        place, data = self._read(name)
        self.used[place] += 1
        return data

    def _read(self, name: str) -> tuple[str, bytes]:
        for opened in self.nodes:
            place = str(opened.folder.path)
            if name not in opened.node.blobs or name in self.rotten.get(place, ()):
                continue
            try:
                data = opened.journal.read_blob(name)
            except JournalCorrupt:
                self.rotten.setdefault(place, set()).add(name)
                continue
            if data is not None:
                return place, data
        if name in self._inline:
            return self._inline[name]
        raise ContentsLost(name)


def collect(judged: Judgement, contents: OldContents, moved: Moved | None = None) -> "Collected":
    """Read all contents that the recovered state needs, once each, and see which are lost."""
    contained = Contained()
    contained.state = judged.state
    lost: set[str] = set()
    for content in contained.contents():
        if isinstance(content, Indirect) and content.manifest not in contained.listings:
            try:
                listing = read_manifest(contents.read(content.manifest))
            except ContentsLost:
                listing = None
            if listing is None:
                lost.add(content.manifest)
            else:
                contained.listings[content.manifest] = listing.names
    for name in contained.chunk_names():
        try:
            data = contents.check(name)
        except ContentsLost:
            lost.add(name)
        else:
            if moved is not None:
                moved(len(data))
    files = [
        entry for entry in contained.files if not lost.isdisjoint(contained.names_of(entry.content))
    ]
    return Collected(contained, tuple(files))


@dataclass(frozen=True, slots=True)
class Collected:
    """The recovered state with the contents that it needs; `lost` are the files without theirs."""

    contained: Contained
    lost: tuple[FileEntry, ...]

    def leave_out_lost(self) -> None:
        """Take the files whose contents are lost out of the state."""
        for entry in self.lost:
            self.contained.state.tree.forget(entry.path)
