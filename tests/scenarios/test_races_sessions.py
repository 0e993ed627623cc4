"""Races in the life of a session that are rare by chance, with real actors."""

from actors.messages import (
    ReadRequest,
    Result,
)
from actors.state.namespace import Namespace
from actors.store.reads import answer_read
from actors.values import (
    Batch,
    CloseSession,
    Command,
    Constants,
    OpenSession,
    Outcome,
    Refusal,
)
from tests.worlds import hand, put, started


def command(sequence: int, path: str, acknowledged: int = -1) -> Command:
    return Command(
        session="s",
        sequence=sequence,
        acknowledged=acknowledged,
        reply_to="gateway-1",
        operation=put(path, b"1") if path else OpenSession(),
    )


def outcome_of(state: Namespace, slot: int, one: Command, *aborted: Refusal) -> tuple[str, int]:
    (outcome,) = state.apply(slot, Batch(elapsed_ms=slot, commands=(one,)), aborted)
    return outcome.status, outcome.slot


def test_each_sequence_has_one_result_for_good_aborted_or_done() -> None:
    """Given commands that are in two slots, then both copies get the first result."""
    state = Namespace(Constants())
    assert outcome_of(state, 1, command(0, "")) == ("done", 1)
    assert outcome_of(state, 2, command(1, "given-up"), Refusal(index=0, reason="late")) == (
        "aborted",
        2,
    )
    assert outcome_of(state, 3, command(2, "kept")) == ("done", 3)
    assert outcome_of(state, 4, command(1, "given-up")) == ("aborted", 2)
    assert outcome_of(state, 5, command(2, "kept")) == ("done", 3)
    assert state.tree.lookup("given-up") is None
    assert outcome_of(state, 6, command(3, "more", acknowledged=1)) == ("done", 6)
    assert outcome_of(state, 7, command(1, "given-up"))[0] == "forgotten"
    assert outcome_of(state, 8, command(2, "kept")) == ("done", 3)


def test_no_command_of_a_closed_session_is_applied() -> None:
    """Given a late command of the session, then it is refused, and queries for it say so."""
    state = Namespace(Constants())
    closing = command(1, "").model_copy(
        update={"session": "t", "operation": CloseSession(target="s")}
    )
    opening = closing.model_copy(update={"sequence": 0, "operation": OpenSession()})
    assert outcome_of(state, 1, command(0, "")) == ("done", 1)
    assert outcome_of(state, 2, opening) == ("done", 2)
    asked = ReadRequest(number=1, what="result", path="", session="s", sequence=7)
    assert answer_read(state, asked).status == "running"
    assert outcome_of(state, 3, closing) == ("done", 3)
    assert answer_read(state, asked).status == "absent"
    assert outcome_of(state, 4, command(7, "late"))[0] == "unknown_session"
    assert state.tree.lookup("late") is None


def test_a_former_session_is_closed_however_often_that_is_aborted() -> None:
    """Given a gateway that restarted, then it stops closing the session only when the log has
    closed it.
    """
    world = started()
    client = world.actor("gateway-1")
    client.writes._former = ["gateway-1.former"]
    client.writes._opened()
    for status in ("aborted", "aborted", "aborted", "done"):
        closing = [
            pending
            for pending in client.writes._pending.values()
            if isinstance(pending.command.operation, CloseSession)
        ]
        assert [pending.command.operation.target for pending in closing] == ["gateway-1.former"]
        del client.writes._pending[closing[0].command.sequence]
        client.writes._conclude(closing[0], Outcome(status=status, slot=1, index=0))
    assert client.writes._pending == {}
    assert client.writes._former == []


def test_a_result_of_a_former_session_answers_no_call() -> None:
    """Given a gateway that restarted, then late results for its former incarnation are ignored."""
    world = started()
    client = world.actor("gateway-1")
    before = set(client.writes._pending)
    world.write(put("a", b"1"))
    world.run_until(lambda: client.writes._pending.keys() > before, 1_000, 1)
    (sequence,) = set(client.writes._pending) - before
    outcome = Outcome(status="not_found", slot=1, index=0)
    late = Result(session="gateway-1.former", sequence=sequence, outcome=outcome)
    hand(world, "gateway-1", "learner-1", late)
    assert sequence in client.writes._pending
