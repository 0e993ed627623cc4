"""Operations that change several entries at once: move, copy, transactions.

A transaction changes the tree step by step, so that each step sees the ones before it. Any command
that is refused half-way is taken back whole: every replica takes back the same, because what
happens depends on the state alone.

An entry's tag names the command that wrote it. Of one command only the last state of a path can
ever be seen, so one tag for all paths of a command is strong: tags are compared for one path.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.budget import Refused
from actors.values import (
    PATH_BYTES_MAX,
    Check,
    CopyEntry,
    DirectoryEntry,
    FileEntry,
    MoveEntry,
    Outcome,
    Precondition,
    Transaction,
)

if TYPE_CHECKING:
    from actors.namespace import Namespace


@dataclass(slots=True)
class Undo:
    """What the entries were before a command changed them, and where the notes ended."""

    dropped: int
    gained: int
    summary: int
    former: list[tuple[str, FileEntry | DirectoryEntry | None]] = field(default_factory=list)

    def changed(self, path: str, former: FileEntry | DirectoryEntry | None) -> None:
        """The entry at `path` is about to be replaced, made or removed."""
        self.former.append((path, former))

    def take_back(self, state: "Namespace") -> None:
        """Bring the tree and the notes back to where they were, in reverse order.

        Rows that were marked as changed stay marked: they are made from the entries as they are.
        """
        for path, former in reversed(self.former):
            if former is not None:
                state._keep(former)
            else:
                state._forget(path)
        del state.dropped[self.dropped :]
        del state.gained[self.gained :]
        del state._summary[self.summary :]


def move_entry(state: "Namespace", slot: int, index: int, operation: MoveEntry) -> Outcome:
    """Give the entry and all below it their new paths."""
    refusal = _refusal(state, slot, index, operation)
    if refusal is not None:
        return refusal
    former = state.entries.get(operation.target)
    found = _found(state, operation)
    for entry in found:
        state._erase(entry)
    _place(state, slot, index, operation, found)
    return Outcome(status="done", slot=slot, index=index, created=former is None)


def copy_entry(state: "Namespace", slot: int, index: int, operation: CopyEntry) -> Outcome:
    """Make the entry and all below it once more."""
    refusal = _refusal(state, slot, index, operation)
    if refusal is not None:
        return refusal
    former = state.entries.get(operation.target)
    _place(state, slot, index, operation, _found(state, operation))
    return Outcome(status="done", slot=slot, index=index, created=former is None)


def check(state: "Namespace", slot: int, index: int, operation: Check) -> Outcome:
    """Whether the condition holds; nothing changes."""
    if not _holds(operation.when, state.lookup(operation.path)):
        return _precondition_failed(state, slot, index, operation.path)
    return Outcome(status="done", slot=slot, index=index)


def transact(state: "Namespace", slot: int, index: int, operation: Transaction) -> Outcome:
    """Run the steps up to one that is refused, which the outcome names."""
    assert state.budget is not None
    created = False
    for number, step in enumerate(operation.steps):
        state.budget.step()
        outcome = state.operate(slot, index, step)
        if outcome.status != "done":
            return outcome.model_copy(update={"step": number})
        created = created or outcome.created
    return Outcome(status="done", slot=slot, index=index, created=created)


def is_below(path: str, ancestor: str) -> bool:
    """Whether `path` lies somewhere below the directory `ancestor`; the root is the empty path."""
    return path != "" if ancestor == "" else path.startswith(f"{ancestor}/")


def _refusal(
    state: "Namespace", slot: int, index: int, operation: MoveEntry | CopyEntry
) -> Outcome | None:
    """Why the operation can't be done; nothing has changed yet."""
    source, target = operation.source, operation.target

    def refused(status: str, detail: str) -> Outcome:
        return Outcome.model_validate(
            {"status": status, "slot": slot, "index": index, "detail": detail}
        )

    entry = state.lookup(source)
    if source == "" or target == "":
        return refused("conflict", "the root can be neither the source nor the target")
    if not _holds(operation.when, entry):
        return _precondition_failed(state, slot, index, source)
    if entry is None:
        return refused("not_found", f"{source!r} does not exist")
    if not _holds(operation.target_when, state.lookup(target)):
        return _precondition_failed(state, slot, index, target)
    if source == target:
        return refused("conflict", "source and target are the same")
    if is_below(target, source):
        return refused("conflict", f"{target!r} lies inside of {source!r}")
    obstacle = state._file_above(target)
    if obstacle is not None:
        return refused("conflict", f"{obstacle!r} is a file")
    taken = _taken(state, operation, entry)
    if taken is not None:
        return refused(*taken)
    return None


def _found(
    state: "Namespace", operation: MoveEntry | CopyEntry
) -> list[FileEntry | DirectoryEntry]:
    """The entry and all below it, whose paths at the target are fit. Raises `Refused`."""
    assert state.budget is not None
    found = state._subtree(operation.source)
    for entry in found:
        path = operation.target + entry.path[len(operation.source) :]
        state.budget.check_depth(path)
        if len(path.encode()) > PATH_BYTES_MAX:
            raise Refused("conflict", f"a path below it would have over {PATH_BYTES_MAX} bytes")
    return found


def _taken(
    state: "Namespace", operation: MoveEntry | CopyEntry, entry: FileEntry | DirectoryEntry
) -> tuple[str, str] | None:
    """Why what is at the target can't make room, as rename(2) has it."""
    target = operation.target
    former = state.entries.get(target)
    if former is None:
        return None
    if not operation.overwrite:
        return "conflict", f"{target!r} exists already"
    if former.kind != entry.kind:
        return "conflict", f"{target!r} is a {former.kind}, {operation.source!r} a {entry.kind}"
    if state.children.get(target):
        return "not_empty", f"{target!r} is not empty"
    return None


def _place(
    state: "Namespace",
    slot: int,
    index: int,
    operation: MoveEntry | CopyEntry,
    found: list[FileEntry | DirectoryEntry],
) -> None:
    """Write what was `found` at the source to the target, directories before what they hold."""
    state._make_parents(slot, index, operation.target)
    moves = isinstance(operation, MoveEntry)
    for entry in reversed(found):
        path = operation.target + entry.path[len(operation.source) :]
        if isinstance(entry, DirectoryEntry):
            state._write(DirectoryEntry(path=path, slot=slot, index=index))
            continue
        former = state.entries.get(path)
        version = entry.version if moves else 0
        if isinstance(former, FileEntry):
            state.dropped.append(former)
            version = max(version, former.version)
        update = {"path": path, "slot": slot, "index": index, "version": version + 1}
        state._write(entry.model_copy(update=update))


def _holds(when: Precondition, entry: FileEntry | DirectoryEntry | None) -> bool:
    """RFC 9110, section 13.1. A directory exists, so `*` stands for it, too; it has no tag."""
    if when.if_match is not None and not _names(when.if_match, entry):
        return False
    return when.if_none_match is None or not _names(when.if_none_match, entry)


def _names(tags: tuple[str, ...], entry: FileEntry | DirectoryEntry | None) -> bool:
    if entry is None:
        return False
    return "*" in tags or (isinstance(entry, FileEntry) and entry.etag in tags)


def _precondition_failed(state: "Namespace", slot: int, index: int, path: str) -> Outcome:
    entry = state.lookup(path)
    current = entry.etag if isinstance(entry, FileEntry) else ""
    return Outcome(status="precondition_failed", slot=slot, index=index, detail=current, path=path)
