"""The operations: functions of the tree, the command's place in the log and its parameters.

A transaction changes the tree step by step, so that each step sees the ones before it. The caller
undoes what a refused operation has changed (`Tree.end_command`).

An entry's tag names the command that wrote it. Readers only ever see a path as a whole command left
it, and tags are compared for one path, so one tag for all paths of a command is a strong one.
"""

from actors.state.budget import Refused
from actors.state.tree import Tree, is_below
from actors.values import (
    PATH_BYTES_MAX,
    AnyStep,
    Check,
    CopyEntry,
    DeleteFile,
    DirectoryEntry,
    FileEntry,
    MakeDirectory,
    MoveEntry,
    Outcome,
    Precondition,
    PutFile,
    RemoveDirectory,
    Status,
    Transaction,
    stored,
)


def operate(tree: Tree, slot: int, index: int, operation: AnyStep | Transaction) -> Outcome:
    """Execute the operation on the tree; its outcome."""
    try:
        return _operate(tree, slot, index, operation)
    except Refused as refused:
        return _outcome(refused.status, slot, index, refused.detail)


def _operate(tree: Tree, slot: int, index: int, operation: AnyStep | Transaction) -> Outcome:
    match operation:
        case PutFile():
            return _put_file(tree, slot, index, operation)
        case DeleteFile():
            return _delete_file(tree, slot, index, operation)
        case MakeDirectory():
            return _make_directory(tree, slot, index, operation)
        case RemoveDirectory():
            return _remove_directory(tree, slot, index, operation)
        case MoveEntry():
            return _move(tree, slot, index, operation)
        case CopyEntry():
            return _copy(tree, slot, index, operation)
        case Check():
            return _check(tree, slot, index, operation)
        case Transaction():
            return _transact(tree, slot, index, operation)


# -- one entry -----------------------------------------------------------------------------------


def _put_file(tree: Tree, slot: int, index: int, operation: PutFile) -> Outcome:
    former = tree.entries.get(operation.path)
    if operation.path == "" or isinstance(former, DirectoryEntry):
        return _outcome("conflict", slot, index, f"{operation.path!r} is a directory")
    obstacle = tree.file_above(operation.path)
    if obstacle is not None:
        return _outcome("conflict", slot, index, f"{obstacle!r} is a file")
    if not _holds(operation.when, former):
        return _changed_meanwhile(slot, index, former)
    tree.make_parents(slot, index, operation.path)
    if former is not None:
        tree.dropped.append(former)
    entry = FileEntry(
        path=operation.path,
        slot=slot,
        index=index,
        version=former.version + 1 if former else 1,
        content=stored(operation.content),
        content_type=operation.content_type,
        modified_ms=operation.modified_ms,
        executable=operation.executable,
        meta=operation.meta,
    )
    tree.write(entry)
    return _outcome("done", slot, index, created=former is None)


def _delete_file(tree: Tree, slot: int, index: int, operation: DeleteFile) -> Outcome:
    former = tree.entries.get(operation.path)
    if isinstance(former, DirectoryEntry) or operation.path == "":
        return _outcome("conflict", slot, index, f"{operation.path!r} is a directory")
    if not _holds(operation.when, former):
        return _changed_meanwhile(slot, index, former)
    if former is None:
        return _outcome("not_found", slot, index, f"{operation.path!r} does not exist")
    tree.erase(former)
    return _outcome("done", slot, index)


def _make_directory(tree: Tree, slot: int, index: int, operation: MakeDirectory) -> Outcome:
    former = tree.entries.get(operation.path)
    if operation.path == "" or isinstance(former, DirectoryEntry):
        return _outcome("done", slot, index)
    if former is not None:
        return _outcome("conflict", slot, index, f"{operation.path!r} is a file")
    obstacle = tree.file_above(operation.path)
    if obstacle is not None:
        return _outcome("conflict", slot, index, f"{obstacle!r} is a file")
    tree.make_parents(slot, index, operation.path)
    tree.write(DirectoryEntry(path=operation.path, slot=slot, index=index))
    return _outcome("done", slot, index, created=True)


def _remove_directory(tree: Tree, slot: int, index: int, operation: RemoveDirectory) -> Outcome:
    former = tree.entries.get(operation.path)
    if operation.path == "":
        return _outcome("conflict", slot, index, "the root can't be removed")
    if former is None:
        return _outcome("not_found", slot, index, f"{operation.path!r} does not exist")
    if isinstance(former, FileEntry):
        return _outcome("conflict", slot, index, f"{operation.path!r} is a file")
    if tree.children.get(operation.path) and not operation.recursive:
        return _outcome("not_empty", slot, index, f"{operation.path!r} is not empty")
    for entry in tree.subtree(operation.path):
        tree.erase(entry)
    return _outcome("done", slot, index)


# -- several entries -----------------------------------------------------------------------------


def _move(tree: Tree, slot: int, index: int, operation: MoveEntry) -> Outcome:
    """Move the entry and all below it to their new paths."""
    refusal = _refusal(tree, slot, index, operation)
    if refusal is not None:
        return refusal
    former = tree.entries.get(operation.target)
    found = _found(tree, operation)
    for entry in found:
        tree.erase(entry)
    _place(tree, slot, index, operation, found)
    return Outcome(status="done", slot=slot, index=index, created=former is None)


def _copy(tree: Tree, slot: int, index: int, operation: CopyEntry) -> Outcome:
    """Copy the entry and all below it to the target."""
    refusal = _refusal(tree, slot, index, operation)
    if refusal is not None:
        return refusal
    former = tree.entries.get(operation.target)
    _place(tree, slot, index, operation, _found(tree, operation))
    return Outcome(status="done", slot=slot, index=index, created=former is None)


def _check(tree: Tree, slot: int, index: int, operation: Check) -> Outcome:
    """Whether the condition holds; nothing changes."""
    if not _holds(operation.when, tree.lookup(operation.path)):
        return _precondition_failed(tree, slot, index, operation.path)
    return Outcome(status="done", slot=slot, index=index)


def _transact(tree: Tree, slot: int, index: int, operation: Transaction) -> Outcome:
    """Run the steps up to one that is refused, which the outcome names."""
    assert tree.budget is not None
    created = False
    for number, step in enumerate(operation.steps):
        tree.budget.step()
        outcome = operate(tree, slot, index, step)
        if outcome.status != "done":
            return outcome.model_copy(update={"step": number})
        created = created or outcome.created
    return Outcome(status="done", slot=slot, index=index, created=created)


def _refusal(tree: Tree, slot: int, index: int, operation: MoveEntry | CopyEntry) -> Outcome | None:
    """Why the operation can't be executed, if it can't; nothing has changed yet."""
    source, target = operation.source, operation.target

    def refused(status: str, detail: str) -> Outcome:
        return Outcome.model_validate(
            {"status": status, "slot": slot, "index": index, "detail": detail}
        )

    entry = tree.lookup(source)
    if source == "" or target == "":
        return refused("conflict", "the root can be neither the source nor the target")
    if not _holds(operation.when, entry):
        return _precondition_failed(tree, slot, index, source)
    if entry is None:
        return refused("not_found", f"{source!r} does not exist")
    if not _holds(operation.target_when, tree.lookup(target)):
        return _precondition_failed(tree, slot, index, target)
    if source == target:
        return refused("conflict", "source and target are the same")
    if is_below(target, source):
        return refused("conflict", f"{target!r} lies inside of {source!r}")
    obstacle = tree.file_above(target)
    if obstacle is not None:
        return refused("conflict", f"{obstacle!r} is a file")
    taken = _taken(tree, operation, entry)
    if taken is not None:
        return refused(*taken)
    return None


def _found(tree: Tree, operation: MoveEntry | CopyEntry) -> list[FileEntry | DirectoryEntry]:
    """The entry and all below it, whose new paths are within the limits. Raises `Refused`."""
    assert tree.budget is not None
    found = tree.subtree(operation.source)
    for entry in found:
        path = operation.target + entry.path[len(operation.source) :]
        tree.budget.check_depth(path)
        if len(path.encode()) > PATH_BYTES_MAX:
            raise Refused("conflict", f"a path below it would have over {PATH_BYTES_MAX} bytes")
    return found


def _taken(
    tree: Tree, operation: MoveEntry | CopyEntry, entry: FileEntry | DirectoryEntry
) -> tuple[str, str] | None:
    """Why the entry at the target can't be replaced, by the rules of rename(2)."""
    target = operation.target
    former = tree.entries.get(target)
    if former is None:
        return None
    if not operation.overwrite:
        return "conflict", f"{target!r} exists already"
    if former.kind != entry.kind:
        return "conflict", f"{target!r} is a {former.kind}, {operation.source!r} a {entry.kind}"
    if tree.children.get(target):
        return "not_empty", f"{target!r} is not empty"
    return None


def _place(
    tree: Tree,
    slot: int,
    index: int,
    operation: MoveEntry | CopyEntry,
    found: list[FileEntry | DirectoryEntry],
) -> None:
    """Write the entries `found` at the source to the target, directories before their children."""
    tree.make_parents(slot, index, operation.target)
    moves = isinstance(operation, MoveEntry)
    for entry in reversed(found):
        path = operation.target + entry.path[len(operation.source) :]
        if isinstance(entry, DirectoryEntry):
            tree.write(DirectoryEntry(path=path, slot=slot, index=index))
            continue
        former = tree.entries.get(path)
        version = entry.version if moves else 0
        if isinstance(former, FileEntry):
            tree.dropped.append(former)
            version = max(version, former.version)
        update = {"path": path, "slot": slot, "index": index, "version": version + 1}
        tree.write(entry.model_copy(update=update))


def _holds(when: Precondition, entry: FileEntry | DirectoryEntry | None) -> bool:
    """Whether the precondition holds (RFC 9110, section 13.1). A directory matches `*`, and has no
    tag.
    """
    if when.if_match is not None and not _names(when.if_match, entry):
        return False
    return when.if_none_match is None or not _names(when.if_none_match, entry)


def _names(tags: tuple[str, ...], entry: FileEntry | DirectoryEntry | None) -> bool:
    if entry is None:
        return False
    return "*" in tags or (isinstance(entry, FileEntry) and entry.etag in tags)


def _precondition_failed(tree: Tree, slot: int, index: int, path: str) -> Outcome:
    entry = tree.lookup(path)
    current = entry.etag if isinstance(entry, FileEntry) else ""
    return Outcome(status="precondition_failed", slot=slot, index=index, detail=current, path=path)


def _changed_meanwhile(slot: int, index: int, former: FileEntry | None) -> Outcome:
    """The outcome of a failed precondition of an operation on one path: its detail is the path's
    current tag.
    """
    return _outcome("precondition_failed", slot, index, former.etag if former else "")


def _outcome(
    status: Status, slot: int, index: int, detail: str = "", created: bool = False
) -> Outcome:
    return Outcome(status=status, slot=slot, index=index, detail=detail, created=created)
