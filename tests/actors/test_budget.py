"""No command costs a replica more than the genesis allows, and a refused one changes nothing."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.calls import WriteDecided
from actors.effects import Record
from actors.options import Options
from actors.state.budget import size_of
from actors.state.namespace import Namespace
from actors.values import (
    AnyOperation,
    Batch,
    Chunked,
    Command,
    Constants,
    CopyEntry,
    DeleteFile,
    MakeDirectory,
    MoveEntry,
    OpenSession,
    Outcome,
    PutFile,
    RemoveDirectory,
    Transaction,
)
from tests.worlds import founded, put

SMALL = Constants(
    slot_steps=200, slot_bytes=40_000, path_depth=6, tree_entries=60, tree_bytes=25_000
)


class Replica:
    """A state machine that applies one batch a slot."""

    def __init__(self, constants: Constants) -> None:
        self.state = Namespace(constants)
        self.sequence = 0
        self.run(OpenSession())

    def run(self, *operations: AnyOperation) -> list[Outcome]:
        commands = []
        for operation in operations:
            commands.append(
                Command(
                    session="s",
                    sequence=self.sequence,
                    acknowledged=self.sequence - 1,
                    reply_to="gateway-1",
                    operation=operation,
                )
            )
            self.sequence += 1
        return self.state.apply(self.state.applied + 1, Batch(commands=tuple(commands)), ())

    def statuses(self, *operations: AnyOperation) -> list[str]:
        return [outcome.status for outcome in self.run(*operations)]

    def tree(self) -> dict[str, Any]:
        state = self.state
        children = {path: set(names) for path, names in state.tree.children.items() if names}
        return {
            "entries": dict(state.entries),
            "children": children,
            "bytes": state.tree.bytes,
            "notes": (list(state.tree.dropped), list(state.tree.gained)),
        }


def files(count: int, above: str = "d") -> list[PutFile]:
    return [put(f"{above}/file-{number}", b"1") for number in range(count)]


def doubling(times: int) -> Transaction:
    """Each step copies the whole tree into a new directory beside it."""
    steps: list[Any] = []
    for number in range(times):
        steps.append(CopyEntry(source="all", target=f"next-{number}/one"))
        steps.append(MoveEntry(source="all", target=f"next-{number}/two"))
        steps.append(MoveEntry(source=f"next-{number}", target="all"))
    return Transaction(steps=tuple(steps))


def test_a_small_request_that_doubles_the_tree_again_and_again_changes_nothing() -> None:
    """Given a small transaction that would make 2^20 entries, then it is refused and undone after
    no more steps than a slot may take; and later commands in the log are applied.
    """
    replica = Replica(Constants())
    replica.run(*files(3, above="all"))
    before = replica.tree()
    hostile = doubling(20)
    assert len(hostile.to_json()) < 11_000

    (outcome,) = replica.run(hostile)

    assert (outcome.status, outcome.step is not None) == ("too_large", True)
    assert "10000 entries" in outcome.detail
    assert replica.tree() == before
    assert replica.statuses(put("after", b"1")) == ["done"]


@pytest.mark.parametrize(
    "hostile",
    [
        MakeDirectory(path="/".join("d" * 2_000)),
        put("/".join("d" * 2_000), b"1"),
        CopyEntry(source="all", target="/".join("d" * 2_000)),
        MoveEntry(source="deep", target="/".join("d" * 100)),
        Transaction(
            steps=tuple(MakeDirectory(path=f"{n}/" + "/".join("d" * 100)) for n in range(200))
        ),
        Transaction(steps=tuple(put("all/file-0", b"%d" % n) for n in range(10_001))),
    ],
    ids=["mkdir", "put", "copy", "move", "many-mkdirs", "many-steps"],
)
def test_commands_that_are_too_deep_or_too_large_are_refused_whole(hostile: AnyOperation) -> None:
    replica = Replica(Constants())
    replica.run(*files(3, above="all"))
    replica.run(put("deep/" + "/".join("d" * 60), b"1"))
    before = replica.tree()

    (outcome,) = replica.run(hostile)

    assert outcome.status == "too_large"
    assert replica.tree() == before


def test_plain_copies_grow_the_tree_up_to_the_quota_and_no_further() -> None:
    """Given copies of a directory until the tree is full, then the next one is refused as a whole,
    commands that only shrink or replace go on, and after a deletion there is room again.
    """
    replica = Replica(SMALL)
    replica.run(*files(9))
    copies = [CopyEntry(source="d", target=f"copy-{number}") for number in range(9)]
    statuses = [replica.statuses(copy)[0] for copy in copies]
    before = replica.tree()

    (outcome,) = replica.run(CopyEntry(source="d", target="one-more"))

    assert statuses == ["done"] * 5 + ["over_quota"] * 4
    assert outcome.status == "over_quota"
    assert "60 files and directories" in outcome.detail
    assert replica.tree() == before
    assert replica.statuses(put("d/file-0", b"2")) == ["done"]
    assert replica.statuses(RemoveDirectory(path="copy-0", recursive=True)) == ["done"]
    assert replica.statuses(CopyEntry(source="d", target="one-more")) == ["done"]


def test_a_tree_over_the_quota_accepts_commands_that_do_not_grow_it() -> None:
    """Given a state that was restored into a cluster with a smaller quota, then files can be
    replaced and removed, and none added.
    """
    replica = Replica(SMALL)
    replica.run(*files(20))
    replica.state.constants = replace_constants(SMALL, tree_entries=10)

    assert replica.statuses(put("d/file-0", b"2")) == ["done"]
    assert replica.statuses(put("new", b"1")) == ["over_quota"]
    assert replica.statuses(DeleteFile(path="d/file-0")) == ["done"]


def test_a_removal_is_bounded_too() -> None:
    """Given a directory with more files than a slot has steps, then it can't be removed at once."""
    replica = Replica(replace_constants(SMALL, tree_entries=10_000, tree_bytes=10**9))
    for above in ("d/one", "d/two"):
        for _ in range(2):
            replica.run(*files(99, above=above))

    assert replica.statuses(RemoveDirectory(path="d", recursive=True)) == ["too_large"]
    assert replica.statuses(RemoveDirectory(path="d/one", recursive=True)) == ["done"]
    assert replica.statuses(RemoveDirectory(path="d", recursive=True)) == ["done"]


def test_metadata_is_bounded_in_bytes_too() -> None:
    replica = Replica(SMALL)
    large = Chunked(size=1, sha256="0" * 64, chunks=tuple(f"{n:064}" for n in range(128)))

    statuses = [replica.statuses(PutFile(path=f"{n}", content=large))[0] for n in range(4)]

    assert statuses == ["done", "done", "over_quota", "over_quota"]
    assert replica.statuses(DeleteFile(path="0")) == ["done"]
    assert replica.statuses(PutFile(path="9", content=large)) == ["done"]


def test_the_commands_of_a_slot_share_its_budget() -> None:
    """Given two copies in one slot, each of which is within the bounds alone, then the second one
    is busy; alone it is done, and one over the bounds is too large.
    """
    replica = Replica(replace_constants(SMALL, tree_entries=10_000, tree_bytes=10**9))
    replica.run(*files(70))
    copies = [CopyEntry(source="d", target=target) for target in ("one", "two")]

    assert replica.statuses(*copies) == ["done", "busy"]
    assert replica.statuses(copies[1]) == ["done"]
    replica.run(*files(70, above="d/more"))
    assert replica.statuses(CopyEntry(source="d", target="three")) == ["too_large"]


def replace_constants(constants: Constants, **changes: int) -> Constants:
    return constants.model_copy(update=changes)


def test_a_gateway_retries_a_busy_command_once() -> None:
    """Given two large copies that a gateway sends at once, then both are done in the end."""
    world = founded(options=replace(Options(), slot_steps=200))
    for number in range(70):
        world.done(put(f"d/file-{number}", b"1"))

    tokens = [world.write(CopyEntry(source="d", target=target)) for target in ("one", "two")]
    answers = [world.answer(token, 20_000) for token in tokens]

    assert all(isinstance(answer, WriteDecided) for answer in answers)
    assert [answer.outcome.status for answer in answers] == ["done", "done"]


names = st.sampled_from(["a", "b", "a/b", "a/b/c", "b/c", "a/b/c/d/e/f", "a/b/c/d/e/f/g"])
puts = st.builds(put, names, st.binary(max_size=2))
moves = st.builds(MoveEntry, source=names, target=names, overwrite=st.booleans())
copies = st.builds(CopyEntry, source=names, target=names, overwrite=st.booleans())
makes = st.builds(MakeDirectory, path=names)
removals = st.builds(RemoveDirectory, path=names, recursive=st.booleans())
deletions = st.builds(DeleteFile, path=names)
steps = st.one_of(puts, moves, copies, makes, removals, deletions)
transactions = st.builds(
    lambda chosen: Transaction(steps=tuple(chosen)), st.lists(steps, min_size=1, max_size=60)
)
batches = st.lists(st.lists(st.one_of(steps, transactions), min_size=1, max_size=4), max_size=8)


@settings(max_examples=200, deadline=None)
@given(batches, st.integers(0, 8))
def test_replicas_agree_on_every_refusal_also_after_a_restart(
    operations: list[list[AnyOperation]], restart_after: int
) -> None:
    """Given hostile batches, then a refused command leaves the tree as it was, the bounds hold, and
    a replica restored from its rows in between applies later slots alike.
    """
    tight = replace_constants(SMALL, slot_steps=40, slot_bytes=8_000, tree_entries=12)
    one, other = Replica(tight), Replica(tight)
    for number, some in enumerate(operations):
        if number == restart_after:
            again = Namespace(tight)
            for key, row in other.state.rows():
                again.restore(Record(key, row.to_json()))
            again.restored()
            other.state = again
        before = one.tree()
        outcomes = one.run(*some)
        assert other.run(*some) == outcomes
        assert other.state.state_hash == one.state.state_hash
        assert dict(other.state.rows()) == dict(one.state.rows())
        if all(outcome.status != "done" for outcome in outcomes):
            assert one.tree() == before
        state = one.state
        assert (
            state.tree.bytes == other.state.tree.bytes == sum(map(size_of, state.entries.values()))
        )
        assert len(state.entries) <= tight.tree_entries
        assert max((path.count("/") for path in state.entries), default=0) < tight.path_depth
        assert set(state.entries) == {
            f"{above}/{name}" if above else name
            for above, below in state.tree.children.items()
            for name in below
        }
