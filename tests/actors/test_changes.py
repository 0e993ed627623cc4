"""The changes that watchers receive: each once, in the order of the log, and never with a gap."""

from typing import Any

from actors.state.namespace import Namespace
from actors.store.changes import Changes
from actors.values import (
    NOOP,
    Batch,
    Command,
    Constants,
    CopyEntry,
    DeleteFile,
    IdempotencyKey,
    MakeDirectory,
    MoveEntry,
    OpenSession,
    Refusal,
    RemoveDirectory,
    Transaction,
)
from tests.worlds import put


class Watched:
    """A replica and the changes that it keeps; each call is a slot."""

    def __init__(self, kept: int = 1_000) -> None:
        self.state = Namespace(Constants())
        self.changes = Changes(kept=kept)
        self._sequence = 0
        self.run(OpenSession())

    def run(self, *operations: Any, key: str = "", aborted: tuple[Refusal, ...] = ()) -> list[str]:
        """One slot with these commands, all under `key` if there is one; their statuses."""
        commands = []
        for operation in operations:
            idempotency = IdempotencyKey(key=key, fingerprint="f") if key else None
            fields = {"session": "s", "acknowledged": -1, "reply_to": "gateway-1"}
            commands.append(
                Command(
                    sequence=self._sequence,
                    operation=operation,
                    idempotency=idempotency,
                    **fields,  # type: ignore[arg-type]
                )
            )
            self._sequence += 1
        batch = Batch(commands=tuple(commands))
        outcomes = self.state.apply(self.state.applied + 1, batch, aborted)
        self.changes.note(self.state.applied, batch, outcomes)
        return [outcome.status for outcome in outcomes]

    def changes_after(self, after: int = 0) -> list[tuple[int, int, int, str, str, str | None]]:
        """The changes that a watcher receives after the slot `after`."""
        rows, through = self.changes.since(after, 1_000)
        assert through == self.state.applied
        return [(c.slot, c.index, c.ordinal, c.kind, c.path, c.source) for c in rows]


def test_a_retry_under_its_key_is_reported_as_one_change() -> None:
    """Given the same request in another slot, and twice in one, then only the first one is a
    change.
    """
    watched = Watched()
    assert watched.run(put("a", b"1"), put("a", b"1"), key="once") == ["done", "done"]
    assert watched.run(put("a", b"1"), key="once") == ["done"]
    assert watched.run(put("b", b"1"), put("a", b"1"), key="other") == ["done", "done"]

    assert watched.changes_after() == [(2, 0, 0, "put", "a", None), (4, 0, 0, "put", "b", None)]


def test_refused_and_aborted_commands_are_no_changes() -> None:
    watched = Watched()
    late = (Refusal(index=1, reason="late"),)
    statuses = watched.run(DeleteFile(path="a"), put("a", b"1"), put("b", b"2"), aborted=late)
    assert statuses == ["not_found", "aborted", "done"]
    fails = Transaction(steps=(put("c", b"3"), DeleteFile(path="nowhere")))
    assert watched.run(fails) == ["not_found"]

    assert watched.changes_after() == [(2, 2, 0, "put", "b", None)]


def test_every_change_of_a_slot_has_an_ordinal_of_its_own() -> None:
    watched = Watched()
    watched.run(put("a", b"12"), MakeDirectory(path="d"))
    steps = (
        MoveEntry(source="a", target="d/b"),
        CopyEntry(source="d", target="e"),
        DeleteFile(path="d/b"),
    )
    watched.run(Transaction(steps=steps), RemoveDirectory(path="e", recursive=True))

    assert watched.changes_after(2) == [
        (3, 0, 0, "move", "d/b", "a"),
        (3, 0, 1, "copy", "e", "d"),
        (3, 0, 2, "delete", "d/b", None),
        (3, 1, 3, "remove_directory", "e", None),
    ]
    (change, _), _ = watched.changes.since(0, 2)
    assert (change.size, change.content_type) == (2, "application/octet-stream")


def test_changes_beyond_the_bound_are_dropped_slot_by_slot() -> None:
    """Given more changes than are kept, then `first` is the slot from which none is missing."""
    watched = Watched(kept=3)
    for number in range(3):
        watched.run(put(f"a{number}", b"1"), put(f"b{number}", b"1"))

    assert (watched.changes.first, watched.changes.last) == (4, 4)
    assert [row[0] for row in watched.changes_after(3)] == [4, 4]
    watched.run(*(put(f"c{number}", b"1") for number in range(9)))
    assert (watched.changes.first, len(watched.changes_after(4))) == (5, 9)
    rows, through = watched.changes.since(4, 2)
    assert (len(rows), through) == (9, 5), "a slot is never split"


def test_after_a_gap_no_earlier_change_is_known() -> None:
    watched = Watched()
    watched.run(put("a", b"1"))
    watched.changes.note(9, NOOP, [])

    assert (watched.changes.first, watched.changes.last) == (9, 9)
    assert watched.changes.since(8, 10) == ((), 9)
