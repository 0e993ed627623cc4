"""A replica's state survives its journal and its copies as a whole."""

from typing import Any

import pytest

from actors.effects import Record
from actors.errors import InvariantViolation, JournalUnreadable
from actors.state.namespace import Namespace
from actors.values import (
    NOOP,
    AnyOperation,
    Batch,
    CloseSession,
    Command,
    Constants,
    DeleteFile,
    IdempotencyKey,
    OpenSession,
    View,
)
from tests.worlds import put

HOUR_MS = 3_600_000


class Life:
    """A state that applies some slots, and the journal that it would have."""

    def __init__(self) -> None:
        self.state = Namespace(Constants(idempotency_expiry_ms=HOUR_MS))
        self.journal: dict[str, bytes] = {}
        self.now_ms = HOUR_MS

    def run(self, sequence: int, operation: AnyOperation, **more: Any) -> str:
        """One command in a slot of its own; its status."""
        fields = {"session": "s", "acknowledged": -1, "reply_to": "gateway-1", **more}
        command = Command(sequence=sequence, operation=operation, **fields)
        elapsed_ms = self.now_ms - self.state.log_time_ms
        batch = Batch(elapsed_ms=elapsed_ms, commands=(command,))
        (outcome,) = self.state.apply(self.state.applied + 1, batch, ())
        return outcome.status

    def persist(self) -> None:
        """The rows that changed reach the journal."""
        for key, value in self.state.take_rows():
            if value is None:
                self.journal.pop(key, None)
            else:
                self.journal[key] = value

    def restarted(self) -> Namespace:
        """The state of a new incarnation, which reads the rows in the order of their keys."""
        state = Namespace(self.state.constants)
        for key in sorted(self.journal):
            assert state.restore(Record(key, self.journal[key]))
        state.restored()
        return state

    def copied(self) -> Namespace:
        """Another replica's state after it has installed the snapshot."""
        state = Namespace(self.state.constants)
        state.replace([Record(key, row.to_json()) for key, row in self.state.rows()])
        return state


def everything(state: Namespace) -> dict[str, bytes]:
    return {key: row.to_json() for key, row in state.rows()}


@pytest.fixture
def life() -> Life:
    """Two sessions of which one is closed, files, results and keys."""
    life = Life()
    life.run(0, OpenSession())
    life.run(0, OpenSession(), session="other")
    life.run(1, put("d/a", b"1"), idempotency=IdempotencyKey(key="z", fingerprint="1"))
    life.run(2, put("d/b", b"2"), idempotency=IdempotencyKey(key="a", fingerprint="2"))
    life.run(3, CloseSession(target="other"))
    life.persist()
    return life


@pytest.mark.parametrize("how", ["restarted", "copied"])
def test_a_restart_and_a_copy_bring_all_of_the_state(life: Life, how: str) -> None:
    state = getattr(life, how)()

    assert everything(state) == everything(life.state)
    assert state.sessions.by_name["other"].closed
    assert sorted(state.sessions.by_name["s"].results) == [0, 1, 2, 3]
    assert state.sessions.keys == life.state.sessions.keys
    assert state.tree.children == life.state.tree.children


@pytest.mark.parametrize("how", ["restarted", "copied"])
def test_a_restarted_replica_and_a_copy_apply_later_slots_alike(life: Life, how: str) -> None:
    """Given earlier keys and results, then the retry of each gets the same answer."""
    life.now_ms += HOUR_MS // 2
    life.run(4, put("c", b"3"), idempotency=IdempotencyKey(key="m", fingerprint="3"))
    life.persist()
    other = Life()
    other.state, other.now_ms = getattr(life, how)(), life.now_ms

    def goes_on(one: Life) -> list[str]:
        outcomes = [
            one.run(2, DeleteFile(path="d/b")),
            one.run(5, put("d/a", b"x"), idempotency=IdempotencyKey(key="z", fingerprint="1")),
            one.run(1, put("e", b"x"), session="other"),
        ]
        one.now_ms += HOUR_MS * 3 // 4  # The earlier keys expire, the last one does not.
        outcomes.append(one.run(6, put("f", b"x")))
        one.now_ms += 60_000
        return [*outcomes, one.run(7, put("f", b"y")), *one.state.sessions.keys]

    expected = ["done", "done", "unknown_session", "done", "done", "m"]
    assert goes_on(life) == goes_on(other) == expected
    assert other.state.state_hash == life.state.state_hash


def test_unwritten_changes_of_a_replaced_state_do_not_come_back(life: Life) -> None:
    """Given rows that were just removed and are still on disk, when another state replaces this
    one, then they are removed with all the others that it does not have.
    """
    other = Life()
    other.run(0, OpenSession(), session="theirs")
    other.run(1, put("theirs", b"1"), session="theirs")
    life.run(4, DeleteFile(path="d/a"), acknowledged=2)
    life.run(5, put("new", b"1"))
    for _ in range(3):  # The second one expires what was already too old at the first.
        life.now_ms += 2 * HOUR_MS
        life.run(6, OpenSession())
    gone = {"entry/d/a", "result/s/0000000000000001", "key/z"}
    assert gone <= life.journal.keys()
    assert not gone & everything(life.state).keys()

    for key, value in life.state.replace(
        [Record(key, row.to_json()) for key, row in other.state.rows()]
    ):
        life.journal.pop(key, None)
        if value is not None:
            life.journal[key] = value
    life.persist()

    assert life.journal == everything(other.state)
    assert everything(life.restarted()) == everything(life.state) == everything(other.state)


def test_a_snapshot_that_can_not_be_read_changes_nothing(life: Life) -> None:
    before = everything(life.state)
    theirs = Record("entry/theirs", b'{"kind":"directory","path":"theirs","slot":1,"index":0}')
    for row in (Record("prepared/1", b"{}"), Record("entry/a", b"nonsense")):
        with pytest.raises(JournalUnreadable):
            life.state.replace([theirs, row])
        assert everything(life.state) == before


def test_the_journal_forgets_the_results_that_the_client_has_acknowledged(life: Life) -> None:
    """Given a client that goes on, then neither the journal nor the memory grows with it."""
    for sequence in range(4, 200):
        life.run(sequence, put("a", b"1"), acknowledged=sequence - 1)
        if sequence % 3 == 0:
            life.persist()

    life.persist()

    results = [key for key in life.journal if key.startswith("result/s/")]
    assert len(results) == 1
    assert everything(life.restarted()) == everything(life.state)


def test_a_restarted_replica_forgets_acknowledged_results_on_disk_too(life: Life) -> None:
    """Given results that the journal held at a start, when they are acknowledged, then no later
    incarnation finds them.
    """
    life.state = life.restarted()
    life.run(4, put("a", b"1"), acknowledged=3)
    life.persist()

    assert sorted(key for key in life.journal if key.startswith("result/s/")) == [
        "result/s/0000000000000004"
    ]
    assert everything(life.restarted()) == everything(life.state)


def test_a_session_that_expired_is_gone_from_the_disk(life: Life) -> None:
    """Given sessions and keys on disk, when they expire, then no restart brings them back."""
    for sequence in range(2):
        life.now_ms += 48 * HOUR_MS
        life.run(sequence, OpenSession(), session="new")
    life.persist()

    assert sorted(life.journal) == [
        "entry/d",
        "entry/d/a",
        "entry/d/b",
        "result/new/0000000000000000",
        "result/new/0000000000000001",
        "session/new",
        "state",
    ]
    assert everything(life.restarted()) == everything(life.state)


def test_rows_that_were_written_are_not_written_again(life: Life) -> None:
    assert [key for key, _ in life.state.take_rows()] == ["state"]
    life.run(4, DeleteFile(path="d/a"))
    written = ["result/s/0000000000000004", "session/s", "state"]
    assert sorted(key for key, _ in life.state.take_rows()) == ["entry/d/a", *written]
    assert [key for key, _ in life.state.take_rows()] == ["state"]


def test_slots_are_applied_one_after_the_other(life: Life) -> None:
    applied, before = life.state.applied, everything(life.state)
    for slot in (applied, applied + 2):
        with pytest.raises(InvariantViolation, match=f"slot {slot} applied on top of"):
            life.state.apply(slot, NOOP, ())
    assert everything(life.state) == before


def test_of_two_views_of_one_epoch_the_first_is_applied() -> None:
    """Given two coordinators that proposed the next epoch, then the state names the first."""
    state = Namespace(Constants())
    names = ("learner-1", "learner-2", "learner-1")
    views = [
        View(
            epoch=epoch,
            coordinator=name,
            coordinator_disk="d",
            coordinator_incarnation=1,
            stores=(),
        )
        for epoch, name in enumerate(names)
    ]
    state.view = views[0]
    state.apply(1, views[1], ())
    state.apply(2, views[1].model_copy(update={"coordinator": "learner-2"}), ())
    assert (state.view, state.view_slot) == (views[1], 1)
    state.apply(3, views[2], ())
    assert (state.view, state.view_slot) == (views[2], 3)


def test_log_time_never_goes_back(life: Life) -> None:
    """Given a new leader whose clock is behind, then nothing lives longer or shorter for it."""
    before = life.state.log_time_ms
    life.now_ms -= HOUR_MS // 2

    life.run(4, put("c", b"3"), idempotency=IdempotencyKey(key="m", fingerprint="3"))

    assert life.state.log_time_ms == before
    assert life.state.sessions.keys["m"].log_time_ms == before
