"""Moves, copies and transactions against a model: a plain dictionary of paths.

The model works the way one would explain it; the state machine must agree with it on every result
and every tree, and a refused operation must leave no trace at all.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.effects import Record
from actors.state.namespace import Namespace
from actors.state.tree import is_below
from actors.store.chunks import Chunks
from actors.values import (
    ALWAYS,
    PATH_BYTES_MAX,
    AnyOperation,
    Batch,
    Check,
    Command,
    Constants,
    CopyEntry,
    DeleteFile,
    DirectoryEntry,
    FileEntry,
    MakeDirectory,
    MoveEntry,
    OpenSession,
    Outcome,
    Precondition,
    PutFile,
    RemoveDirectory,
    Transaction,
)
from tests.worlds import put

EXISTS = Precondition(if_match=("*",))
ABSENT = Precondition(if_none_match=("*",))


def tagged(tag: str) -> Precondition:
    return Precondition(if_match=(tag,))


class Refused(Exception):
    """The model refuses; the argument is the status."""


Tree = dict[str, bytes | None]
"""Contents of files by path; `None` is a directory."""


def judged(tree: Tree, operation: Any) -> tuple[Tree, str]:
    """The tree after `operation`, and the status it ends with."""
    try:
        return model(tree, operation), "done"
    except Refused as refused:
        return tree, str(refused)


def model(tree: Tree, operation: Any) -> Tree:
    """The tree after `operation`. Raises `Refused`."""
    after = dict(tree)
    match operation:
        case Transaction(steps=steps):
            for step in steps:
                after = model(after, step)
        case Check(path=path, when=when):
            demand(after, path, when)
        case PutFile(path=path, content=content):
            if path in after and after[path] is None:
                raise Refused("conflict")
            make_parents(after, path)
            after[path] = content.data  # type: ignore[union-attr]
        case DeleteFile(path=path):
            if path in after and after[path] is None:
                raise Refused("conflict")
            if path not in after:
                raise Refused("not_found")
            del after[path]
        case MakeDirectory(path=path):
            if after.get(path) is not None:
                raise Refused("conflict")
            make_parents(after, path)
            after[path] = None
        case RemoveDirectory(path=path, recursive=recursive):
            if path not in after:
                raise Refused("not_found")
            if after[path] is not None:
                raise Refused("conflict")
            if below(after, path) and not recursive:
                raise Refused("not_empty")
            for name in [path, *below(after, path)]:
                del after[name]
        case MoveEntry() | CopyEntry():
            transfer(after, operation)
    return after


def transfer(after: Tree, operation: MoveEntry | CopyEntry) -> None:
    source, target = operation.source, operation.target
    demand(after, source, operation.when)
    if source not in after:
        raise Refused("not_found")
    demand(after, target, operation.target_when)
    if source == target or is_below(target, source):
        raise Refused("conflict")
    moved = {target + name[len(source) :]: after[name] for name in [source, *below(after, source)]}
    refuse_files_above(after, target)
    if target in after:
        if not operation.overwrite or (after[target] is None) != (after[source] is None):
            raise Refused("conflict")
        if below(after, target):
            raise Refused("not_empty")
    if isinstance(operation, MoveEntry):
        for name in [source, *below(after, source)]:
            del after[name]
    make_parents(after, target)
    after.update(moved)


def demand(tree: Tree, path: str, when: Precondition) -> None:
    if when.if_match is not None and path not in tree:
        raise Refused("precondition_failed")
    if when.if_none_match is not None and path in tree:
        raise Refused("precondition_failed")


def refuse_files_above(tree: Tree, path: str) -> None:
    while path := path.rpartition("/")[0]:
        if tree.get(path) is not None:
            raise Refused("conflict")


def make_parents(tree: Tree, path: str) -> None:
    refuse_files_above(tree, path)
    while path := path.rpartition("/")[0]:
        tree.setdefault(path, None)


def below(tree: Tree, path: str) -> list[str]:
    return [name for name in tree if is_below(name, path)]


@dataclass
class Machine:
    """The state machine with a store's counting of chunks, one command a slot."""

    state: Namespace = field(default_factory=lambda: Namespace(Constants()))
    chunks: Chunks = field(default_factory=Chunks)
    journal: dict[str, bytes] = field(default_factory=dict)
    sequence: int = 0

    def __post_init__(self) -> None:
        self.run(OpenSession())

    def run(self, operation: AnyOperation) -> Outcome:
        command = Command(
            session="s",
            sequence=self.sequence,
            acknowledged=self.sequence - 1,
            reply_to="gateway-1",
            operation=operation,
        )
        self.sequence += 1
        batch = Batch(commands=(command,))
        (outcome,) = self.state.apply(self.state.applied + 1, batch, ())
        for entry in self.state.tree.gained:
            self.chunks.use(entry.content)
        for entry in self.state.tree.dropped:
            self.chunks.release(entry.content, 0)
        self.state.tree.gained.clear()
        self.state.tree.dropped.clear()
        for key, row in self.state.take_rows():
            if row is None:
                self.journal.pop(key, None)
            else:
                self.journal[key] = row
        return outcome

    def tree(self) -> dict[str, str | None]:
        return {
            path: entry.content.sha256 if isinstance(entry, FileEntry) else None
            for path, entry in self.state.entries.items()
        }

    def in_use(self) -> dict[str, int]:
        return dict(self.chunks._users)


PATHS = ("a", "b", "a/a", "a/b", "b/a", "b/a/a", "a/b/c")
"""Few paths, so that operations meet."""

paths = st.sampled_from(PATHS)
conditions = st.sampled_from([ALWAYS, ALWAYS, ALWAYS, ALWAYS, EXISTS, ABSENT])
ends = {
    "source": paths,
    "target": paths,
    "overwrite": st.sampled_from([True, True, False]),
    "when": conditions,
    "target_when": conditions,
}
puts = st.builds(put, paths, st.sampled_from([b"1", b"2", b"3"]))
moves = st.builds(MoveEntry, **ends)
copies = st.builds(CopyEntry, **ends)
others = st.one_of(
    st.builds(DeleteFile, path=paths),
    st.builds(MakeDirectory, path=paths),
    st.builds(RemoveDirectory, path=paths, recursive=st.booleans()),
)
checks = st.builds(Check, path=paths, when=conditions)


def transactions(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Transaction]:
    return st.builds(Transaction, steps=st.lists(st.one_of(*kinds), max_size=5).map(tuple))


# Each line is as likely as any other.
operations = st.sampled_from(
    [
        puts,
        moves,
        copies,
        others,
        transactions(puts, moves, copies, others, checks),
        transactions(puts, puts, checks),
    ]
).flatmap(lambda kind: kind)


@settings(max_examples=250)
@given(st.lists(operations, min_size=5, max_size=30))
def test_any_sequence_of_operations_does_what_the_model_does(sequence: list[AnyOperation]) -> None:
    machine, tree = Machine(), Tree()
    tags: dict[str, set[str]] = {}
    for operation in sequence:
        seen = machine.state.entries.copy()
        outcome = machine.run(operation)

        tree, status = judged(tree, operation)
        assert outcome.status == status, operation
        if status != "done":
            assert machine.state.entries == seen

        assert machine.tree() == {
            path: None if data is None else hashlib.sha256(data).hexdigest()
            for path, data in tree.items()
        }
        for path, entry in machine.state.entries.items():
            if isinstance(entry, FileEntry) and entry is not seen.get(path):
                assert entry == seen.get(path) or entry.etag not in tags.setdefault(path, set())
                tags.setdefault(path, set()).add(entry.etag)
                former = seen.get(path)
                if isinstance(former, FileEntry) and not isinstance(operation, Transaction):
                    assert entry.version > former.version
        used = [e.content.sha256 for e in machine.state.entries.values() if e.kind == "file"]
        assert machine.in_use() == {name: used.count(name) for name in used}
        for path in ["", *(p for p, data in tree.items() if data is None)]:
            page, _ = machine.state.tree.list_directory(path, "", 100)
            assert [e.path for e in page] == sorted(
                name for name in tree if name.rpartition("/")[0] == path
            )

    again = Namespace(Constants())
    for key, row in machine.journal.items():
        again.restore(Record(key, row))
    assert again.entries == machine.state.entries


def test_a_refused_transaction_leaves_no_trace_in_the_state_hash() -> None:
    """Given two replicas of which one undid more work, then their hashes agree."""
    one, two = Machine(), Machine()
    fails = Check(path="nowhere", when=EXISTS)

    first = one.run(Transaction(steps=(put("a", b"1"), MakeDirectory(path="b/c"), fails)))
    second = two.run(Transaction(steps=(fails,)))

    assert (first.status, first.step) == ("precondition_failed", 2)
    assert (second.status, second.step) == ("precondition_failed", 0)
    assert one.state.entries == {}
    assert one.state.state_hash == two.state.state_hash


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        (EXISTS, True),
        (ABSENT, False),
        (tagged("1-0"), False),
        (tagged(""), False),
        (Precondition(if_match=()), False),
        (Precondition(if_none_match=("1-0",)), True),
        (Precondition(if_match=("*",), if_none_match=("*",)), False),
    ],
)
def test_a_condition_on_a_directory_is_kept(when: Precondition, holds: bool) -> None:
    """Given a directory, which exists and has no tag, then a condition on it is evaluated alike
    wherever it stands: in a check, at the source and at the target; if it fails, nothing changes.
    """
    status = "done" if holds else "precondition_failed"
    for step in (
        Check(path="d", when=when),
        Check(path="", when=when),
        MoveEntry(source="d", target="new", when=when),
        CopyEntry(source="d", target="new", when=when),
        MoveEntry(source="e", target="d", overwrite=True, target_when=when),
        CopyEntry(source="e", target="d", overwrite=True, target_when=when),
    ):
        machine = Machine()
        for name in ("d", "e"):
            assert machine.run(MakeDirectory(path=name)).status == "done"
        before = machine.state.entries.copy()

        outcome = machine.run(Transaction(steps=(step,)))

        assert outcome.status == status, step
        if not holds:
            path = step.path if isinstance(step, Check) else "d"
            assert (outcome.step, outcome.path, outcome.detail) == (0, path, "")
            assert machine.state.entries == before


@pytest.mark.parametrize("operation", [put("d", b"1"), DeleteFile(path="d")])
@pytest.mark.parametrize("when", [ALWAYS, EXISTS, ABSENT, tagged("1-0")])
def test_a_directory_is_neither_written_nor_deleted_as_a_file_on_any_condition(
    operation: PutFile | DeleteFile, when: Precondition
) -> None:
    machine = Machine()
    machine.run(MakeDirectory(path="d"))

    assert machine.run(operation.model_copy(update={"when": when})).status == "conflict"
    assert machine.tree() == {"d": None}


@pytest.mark.parametrize(
    ("when", "there", "absent"),
    [
        (EXISTS, True, False),
        (ABSENT, False, True),
        (tagged("2-0"), True, False),
        (tagged("1-0"), False, False),
        (Precondition(if_match=("1-0", "2-0")), True, False),
        (Precondition(if_match=()), False, False),
        (Precondition(if_none_match=("2-0",)), False, True),
        (Precondition(if_none_match=("1-0",)), True, True),
        (Precondition(if_none_match=("1-0", "2-0")), False, True),
        (Precondition(if_match=("2-0",), if_none_match=("2-0",)), False, False),
        (Precondition(if_match=("2-0",), if_none_match=("1-0",)), True, False),
    ],
)
def test_a_condition_on_a_file_holds_for_every_operation(
    when: Precondition, there: bool, absent: bool
) -> None:
    """Given a file written in slot 2, then a put, a delete and a check agree on every condition."""
    for step in (
        PutFile(path="f", content=put("f", b"2").content, when=when),
        DeleteFile(path="f", when=when),
        Check(path="f", when=when),
    ):
        for exists, holds in ((True, there), (False, absent)):
            machine = Machine()
            machine.run(put("f" if exists else "other", b"1"))
            before = machine.state.entries.copy()

            outcome = machine.run(Transaction(steps=(step,)))

            missing = holds and not exists and isinstance(step, DeleteFile)
            expected = "not_found" if missing else "done" if holds else "precondition_failed"
            assert outcome.status == expected, (step, exists)
            if not holds:
                assert outcome.detail == ("2-0" if exists else "")
                assert machine.state.entries == before


def test_a_moved_file_keeps_its_metadata_and_gets_a_tag_of_its_own() -> None:
    machine = Machine()
    wrote = machine.run(
        put("a", b"1", content_type="text/plain", executable=True, meta=(("k", "v"),))
    )

    moved = machine.run(MoveEntry(source="a", target="x/b", when=tagged(wrote.etag)))

    entry = machine.state.entries["x/b"]
    assert isinstance(entry, FileEntry)
    assert (entry.etag, entry.version, moved.created) == (moved.etag, 2, True)
    assert (entry.content_type, entry.executable, entry.meta) == ("text/plain", True, (("k", "v"),))
    assert machine.run(DeleteFile(path="a")).status == "not_found"


def test_a_copy_is_a_first_version_or_one_above_what_it_replaces() -> None:
    machine = Machine()
    machine.run(put("a", b"1"))
    versions = []
    for _ in range(3):
        copied = machine.run(CopyEntry(source="a", target="b", overwrite=True))
        entry = machine.state.entries["b"]
        assert isinstance(entry, FileEntry)
        versions.append((entry.version, copied.created, entry.etag == copied.etag))
    assert versions == [(1, True, True), (2, False, True), (3, False, True)]
    again = machine.run(MoveEntry(source="b", target="a", overwrite=True))
    entry = machine.state.entries["a"]
    assert isinstance(entry, FileEntry)
    assert (entry.version, again.created) == (4, False)


def test_a_transaction_has_created_something_if_one_of_its_steps_has() -> None:
    machine = Machine()
    machine.run(put("a", b"1"))
    for steps, created in (
        ((put("a", b"2"),), False),
        ((put("b", b"1"), put("a", b"3")), True),
        ((put("a", b"4"), put("c", b"1")), True),
        ((DeleteFile(path="c"),), False),
    ):
        outcome = machine.run(Transaction(steps=steps))
        assert (outcome.status, outcome.created) == ("done", created)


@pytest.mark.parametrize("over", [0, 1])
def test_a_tree_fits_below_a_path_that_leaves_it_as_long_as_paths_may_be(over: int) -> None:
    machine = Machine()
    deep = "a/" + "/".join(["n" * 250] * 15)
    machine.run(put(deep, b"1"))
    target = "m" * (PATH_BYTES_MAX - len(deep) + 1 + over)
    assert len(target + deep[1:]) == PATH_BYTES_MAX + over

    outcome = machine.run(MoveEntry(source="a", target=target))

    assert outcome.status == ("conflict" if over else "done")


def test_the_root_is_neither_moved_nor_copied_nor_replaced() -> None:
    machine = Machine()
    machine.run(put("a/b", b"1"))
    before = machine.state.entries.copy()
    for kind in (MoveEntry, CopyEntry):
        for source, target in (("", "c"), ("a", ""), ("", "")):
            assert machine.run(kind(source=source, target=target)).status == "conflict"
    assert machine.state.entries == before


def test_the_precondition_that_fails_names_the_path_and_the_tag_there() -> None:
    machine = Machine()
    machine.run(put("a", b"1"))
    there = machine.run(put("b", b"2"))

    outcome = machine.run(
        MoveEntry(source="a", target="b", overwrite=True, target_when=tagged("0-0"))
    )

    assert (outcome.status, outcome.path, outcome.detail) == (
        "precondition_failed",
        "b",
        there.etag,
    )


def test_a_tree_does_not_fit_below_a_path_that_makes_its_paths_too_long() -> None:
    machine = Machine()
    deep = "/".join(["n" * 250] * 15)
    machine.run(put(f"a/{deep}", b"1"))
    long = "/".join(["m" * 200] * 3)
    assert len(f"{long}/{deep}") > PATH_BYTES_MAX

    outcome = machine.run(MoveEntry(source="a", target=long))

    assert (outcome.status, machine.tree()[f"a/{deep}"] is None) == ("conflict", False)
    assert isinstance(machine.state.entries["a"], DirectoryEntry)
