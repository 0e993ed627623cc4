"""The tree of files and directories, by path.

A command that is refused half-way is undone as a whole, on every replica alike, because it depends
on the state and the log alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.state.budget import Budget, size_of
from actors.state.changed_rows import ChangedRows
from actors.values import Constants, DirectoryEntry, FileEntry


@dataclass(slots=True)
class _Undo:
    """The entries before a command changed them, and the lengths of the notes then."""

    dropped: int
    gained: int
    summary: int
    former: list[tuple[str, FileEntry | DirectoryEntry | None]] = field(default_factory=list)

    def changed(self, path: str, former: FileEntry | DirectoryEntry | None) -> None:
        """Note the entry at `path` before it is created, replaced or removed."""
        self.former.append((path, former))


class Used(NamedTuple):
    """How many entries lie below a directory, and the bytes of their contents."""

    entries: int
    bytes: int


class Tree:
    """All entries, and the budget of the slot being applied."""

    def __init__(self, changed_rows: ChangedRows) -> None:
        self.entries: dict[str, FileEntry | DirectoryEntry] = {}
        self.children: dict[str, set[str]] = {"": set()}
        self.bytes = 0
        """The size of all entries (`actors.state.budget.size_of`)."""
        self._used: dict[str, list[int]] = {}
        """For each directory with entries below it, their number and the bytes of their contents.
        Counted also while no quota is set: else one would have to be refused, or hold up every
        replica, where there is much to count.
        """
        self.dropped: list[FileEntry] = []
        """Versions that ceased to be current; the owner empties this list after each slot."""
        self.gained: list[FileEntry] = []
        """Versions that became current; the owner empties this list, too."""
        self.budget: Budget | None = None
        """What is left for the slot being applied; `None` between slots."""
        self._changed_rows = changed_rows
        self._undo: _Undo | None = None
        """How to undo the command being applied; `None` between commands."""

    # -- slots and commands ----------------------------------------------------------------------

    def begin_slot(self, constants: Constants) -> None:
        """Begin a slot, whose commands share one budget."""
        self.budget = Budget.of_a_slot(constants)

    def end_slot(self) -> None:
        """End the slot and its budget."""
        self.budget = None

    def begin_command(self) -> None:
        """Begin a command; `end_command` can undo its changes."""
        assert self.budget is not None
        self.budget.begin()
        self._undo = _Undo(len(self.dropped), len(self.gained), len(self._changed_rows.summary))

    def end_command(self, is_refused: bool) -> None:
        """Keep the command's changes, or undo them in reverse order. Rows noted as changed stay
        noted, which is harmless: they are made from the current entries.
        """
        undo = self._undo
        assert undo is not None
        self._undo = None
        if not is_refused:
            return
        for path, former in reversed(undo.former):
            if former is not None:
                self.keep(former)
            else:
                self.forget(path)
        del self.dropped[undo.dropped :]
        del self.gained[undo.gained :]
        del self._changed_rows.summary[undo.summary :]

    # -- reading ---------------------------------------------------------------------------------

    def list_directory(
        self, path: str, after: str, limit: int, shown: Callable[[str], bool] | None = None
    ) -> tuple[tuple[FileEntry | DirectoryEntry, ...], bool]:
        """The children of `path` after the name `after`, by name, and whether there are more. Only
        those that are `shown`, by their paths; without it, all.
        """
        names = sorted(name for name in self.children.get(path, ()) if name > after)
        if path == "":
            # Earlier versions took paths with a leading slash, which left their last name here.
            names = [name for name in names if name in self.entries]
        prefix = f"{path}/" if path else ""
        if shown is not None:
            names = [name for name in names if shown(prefix + name)]
        page = tuple(self.entries[prefix + name] for name in names[:limit])
        return page, len(names) > limit

    def lookup(self, path: str) -> FileEntry | DirectoryEntry | None:
        """The entry at `path`; the root is always a directory."""
        return DirectoryEntry(path="", slot=0, index=0) if path == "" else self.entries.get(path)

    def file_above(self, path: str) -> str | None:
        """The nearest ancestor of `path` that is a file. Raises `Refused` if `path` is too deep."""
        assert self.budget is not None
        self.budget.check_depth(path)
        parent = _parent(path)
        while parent:
            if isinstance(self.entries.get(parent), FileEntry):
                return parent
            parent = _parent(parent)
        return None

    def used(self, path: str) -> Used:
        """What lies below `path`, and not at it."""
        return Used(*self._used.get(path, (0, 0)))

    # -- changing --------------------------------------------------------------------------------

    def make_parents(self, slot: int, index: int, path: str) -> None:
        """Create the missing directories above `path`. Raises `Refused`."""
        parent = _parent(path)
        missing: list[str] = []
        while parent and parent not in self.entries:
            missing.append(parent)
            parent = _parent(parent)
        for name in reversed(missing):
            self.write(DirectoryEntry(path=name, slot=slot, index=index))

    def subtree(self, path: str) -> list[FileEntry | DirectoryEntry]:
        """The entries at and below `path`, children before their directory. Raises `Refused`."""
        assert self.budget is not None
        found: list[FileEntry | DirectoryEntry] = []
        todo = [path]
        while todo:
            here = todo.pop()
            self.budget.step()
            found.append(self.entries[here])
            todo.extend(f"{here}/{name}" for name in sorted(self.children.get(here, ())))
        return found[::-1]

    def keep(self, entry: FileEntry | DirectoryEntry) -> None:
        """Insert an entry without budget or undo, as from a row of the journal."""
        parent, _, name = entry.path.rpartition("/")
        former = self.entries.get(entry.path)
        self.bytes += size_of(entry) - (0 if former is None else size_of(former))
        if former is None:
            self._count(entry.path, 1, _content_bytes(entry))
        else:
            self._count(entry.path, 0, _content_bytes(entry) - _content_bytes(former))
        self.entries[entry.path] = entry
        self.children.setdefault(parent, set()).add(name)

    def forget(self, path: str) -> None:
        """Remove an entry without budget or undo; see `keep`. A directory must be empty."""
        parent, _, name = path.rpartition("/")
        entry = self.entries.pop(path)
        self.bytes -= size_of(entry)
        self._count(path, -1, -_content_bytes(entry))
        self.children.pop(path, None)
        self.children[parent].discard(name)

    def _count(self, path: str, entries: int, size: int) -> None:
        """Count an entry that came or went in all directories above it."""
        while path:
            path = path.rpartition("/")[0]
            used = self._used.get(path)
            if used is None:
                used = self._used[path] = [0, 0]
            used[0] += entries
            used[1] += size
            if not used[0]:
                del self._used[path]

    def write(self, entry: FileEntry | DirectoryEntry) -> None:
        """Create or replace an entry. Raises `Refused`."""
        assert self.budget is not None
        assert self._undo is not None
        self.budget.write(size_of(entry))
        former, former_bytes = self.entries.get(entry.path), self.bytes
        self._undo.changed(entry.path, former)
        if isinstance(entry, FileEntry):
            self.gained.append(entry)
        self.keep(entry)
        if former is None or self.bytes > former_bytes:
            self.budget.check_tree(len(self.entries), self.bytes)
        what = entry.content.sha256 if isinstance(entry, FileEntry) else "directory"
        self._changed_rows.note(f"entry/{entry.path}", f"{entry.slot}-{entry.index} {what}")

    def erase(self, entry: FileEntry | DirectoryEntry) -> None:
        """Remove an entry; a directory must be empty."""
        assert self._undo is not None
        self._undo.changed(entry.path, entry)
        if isinstance(entry, FileEntry):
            self.dropped.append(entry)
        self.forget(entry.path)
        self._changed_rows.note(f"entry/{entry.path}", "gone")


def is_below(path: str, ancestor: str) -> bool:
    """Whether `path` lies somewhere below the directory `ancestor`; the root is the empty path."""
    return path != "" if ancestor == "" else path.startswith(f"{ancestor}/")


def _content_bytes(entry: FileEntry | DirectoryEntry) -> int:
    return entry.content.size if isinstance(entry, FileEntry) else 0


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
