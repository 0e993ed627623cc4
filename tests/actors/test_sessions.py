"""Sessions and idempotency keys: what is kept of them, and until when by log time."""

from typing import Any

import pytest

from actors.calls import NotDone, Read, Survey, Surveyed, Unknown, Write
from actors.effects import Answer, Record
from actors.messages import ReadRequest, Result
from actors.options import Options
from actors.state.namespace import Namespace
from actors.store.reads import answer_read
from actors.values import (
    Batch,
    CloseSession,
    Command,
    Constants,
    IdempotencyKey,
    OpenSession,
    Outcome,
    Refusal,
)
from chaos.simulator.world import World
from tests.worlds import founded, hand, put

HOUR_MS = 3_600_000
KEPT = Constants(session_expiry_ms=24 * HOUR_MS, idempotency_expiry_ms=24 * HOUR_MS)


def command(sequence: int, operation: Any, **more: Any) -> Command:
    fields = {"session": "s", "acknowledged": -1, "reply_to": "gateway-1", **more}
    return Command(sequence=sequence, operation=operation, **fields)


def outcome_of(state: Namespace, at_ms: int, one: Command, *aborted: Refusal) -> Outcome:
    """The outcome of a command in the next slot, at the log time `at_ms` if that is later."""
    batch = Batch(elapsed_ms=at_ms - state.log_time_ms, commands=(one,))
    (outcome,) = state.apply(state.applied + 1, batch, aborted)
    return outcome


def asked(state: Namespace, session: str, sequence: int) -> str:
    """The state's answer for a request."""
    request = ReadRequest(number=1, what="result", session=session, sequence=sequence)
    return answer_read(state, request).status


def again(state: Namespace) -> Namespace:
    """A restarted replica's copy of `state`."""
    other = Namespace(state.constants)
    for key, value in sorted(state.take_rows()):
        assert value is None or other.restore(Record(key, value))
    other.restored()
    return other


def keyed(sequence: int, path: str, key: str, fingerprint: str = "") -> Command:
    idempotency = IdempotencyKey(key=key, fingerprint=fingerprint or path)
    return command(sequence, put(path, b"1"), idempotency=idempotency)


def test_a_key_belongs_to_one_request_and_its_first_result() -> None:
    """Given requests under one key, then one is applied, and an aborted one does not count."""
    state = Namespace(KEPT)
    outcome_of(state, 0, command(0, OpenSession()))
    aborted = outcome_of(state, 0, keyed(1, "a", "key"), Refusal(index=0, reason="late"))
    assert (aborted.status, state.sessions.keys) == ("aborted", {})

    first = outcome_of(state, 0, keyed(2, "a", "key"))
    assert (first.status, first.slot) == ("done", 3)
    assert outcome_of(state, 0, keyed(3, "a", "key")) == first
    assert outcome_of(state, 0, keyed(4, "b", "key")).status == "key_reused"
    assert outcome_of(state, 0, keyed(5, "c", "other")).status == "done"
    assert {path: entry.slot for path, entry in state.entries.items()} == {"a": 3, "c": 6}


def test_keys_expire_by_log_time_which_never_goes_back() -> None:
    """Given a day of log time, then older results and keys are forgotten, and no younger ones; and
    a leader whose clock is behind makes none younger.
    """
    state = Namespace(KEPT)
    outcome_of(state, 0, command(0, OpenSession()))
    outcome_of(state, 0, keyed(1, "a", "old"))
    outcome_of(state, HOUR_MS, keyed(2, "b", "young"))
    outcome_of(state, 0, keyed(3, "c", "late"))
    assert (state.log_time_ms, state.sessions.keys["late"].log_time_ms) == (HOUR_MS, HOUR_MS)

    outcome_of(state, 24 * HOUR_MS + 60_000, command(4, OpenSession()))
    assert list(state.sessions.keys) == ["old", "young", "late"]
    outcome_of(state, 24 * HOUR_MS + 120_000, command(5, OpenSession()))
    assert list(state.sessions.keys) == ["young", "late"]
    outcome_of(state, 0, command(6, OpenSession()))
    outcome_of(state, 25 * HOUR_MS + 60_000, command(7, OpenSession()))
    assert list(state.sessions.keys) == ["young", "late"]
    outcome_of(state, 25 * HOUR_MS + 120_000, command(8, OpenSession()))
    assert state.sessions.keys == {}
    assert outcome_of(state, 0, keyed(9, "a", "old")).slot == state.applied


def test_a_long_silence_leaves_a_minute_for_commands_in_flight() -> None:
    """Given a request that was just done, when nothing happens for years, then for a minute its
    copies, in the same session and in another one, still meet its result; then it is forgotten.
    """
    state = Namespace(KEPT)
    outcome_of(state, 0, command(0, OpenSession()))
    first = outcome_of(state, 0, keyed(1, "a", "key"))
    years = 90_000 * HOUR_MS
    outcome_of(state, years, command(0, OpenSession(), session="t"))
    again = keyed(1, "a", "key").model_copy(update={"session": "t"})
    assert outcome_of(state, years + 59_999, again) == first
    assert outcome_of(state, years + 59_999, keyed(1, "a", "key")) == first

    outcome_of(state, years + 60_000, command(2, OpenSession(), session="t"))
    assert (state.sessions.keys, list(state.sessions.by_name)) == ({}, ["t"])


def test_a_session_lives_while_it_is_used() -> None:
    """Given two sessions, of which one is used, then after a day the other one is forgotten."""
    state = Namespace(KEPT)
    outcome_of(state, 0, command(0, OpenSession()))
    outcome_of(state, 0, command(0, OpenSession(), session="idle"))
    outcome_of(state, 20 * HOUR_MS, command(1, put("a", b"1")))
    outcome_of(state, 24 * HOUR_MS + 60_000, command(2, put("a", b"2")))
    assert sorted(state.sessions.by_name) == ["idle", "s"]
    outcome_of(state, 24 * HOUR_MS + 120_000, command(3, put("a", b"3")))
    assert sorted(state.sessions.by_name) == ["s"]
    late = outcome_of(state, 0, command(1, put("a", b"late"), session="idle"))
    assert late.status == "unknown_session"
    rows = {key: value for key, value in state.take_rows() if "idle" in key}
    assert rows == {"session/idle": None}


def test_a_restarted_replica_goes_on_as_the_others_do() -> None:
    """Given a state with all that is kept, when it is restored from its journal's rows, in whatever
    order they come, then the same slots lead to the same results, expiry and hash.
    """
    state = Namespace(KEPT)
    outcome_of(state, 0, command(0, OpenSession()))
    outcome_of(state, 0, command(0, OpenSession(), session="closed"))
    outcome_of(state, HOUR_MS, keyed(1, "b", "z-first"))
    outcome_of(state, 2 * HOUR_MS, keyed(2, "a", "a-second"))
    outcome_of(state, 2 * HOUR_MS, command(3, CloseSession(target="closed"), acknowledged=2))
    outcome_of(state, 3 * HOUR_MS, command(4, put("c", b"1")), Refusal(index=0, reason="late"))
    rows = [Record(key, value) for key, value in state.take_rows()]
    again = Namespace(KEPT)
    for row in sorted(rows, key=lambda row: row.key):
        assert row.value is None or again.restore(row)
    again.restored()

    assert dict(again.rows()) == dict(state.rows())
    late = put("late", b"1")
    for at_ms, one, status, slot in (
        (0, command(4, late), "aborted", 6),
        (0, command(2, late), "forgotten", 8),
        (0, command(1, late, session="closed"), "unknown_session", 9),
        (0, keyed(5, "late", "a-second", "a"), "done", 4),
        (25 * HOUR_MS + 60_000, command(6, late), "done", 11),
        (25 * HOUR_MS + 120_000, command(7, late), "done", 12),  # One key expires.
        (26 * HOUR_MS + 60_000, command(8, late), "done", 13),
        (26 * HOUR_MS + 120_000, command(9, late), "done", 14),  # So do the other and a session.
    ):
        outcome = outcome_of(again, at_ms, one)
        assert (outcome.status, outcome.slot) == (status, slot)
        assert outcome_of(state, at_ms, one) == outcome
        assert again.state_hash == state.state_hash
        assert dict(again.rows()) == dict(state.rows())
    assert state.sessions.keys == {}
    assert list(state.sessions.by_name) == ["s"]


def test_an_expired_session_is_not_reopened_by_its_old_commands() -> None:
    """Given a gateway that slept for two days with a write in flight, when it wakes, renews its
    session and sends the write again, then both are refused, and the write is applied once.
    """
    state = Namespace(KEPT)
    write = command(1, put("a", b"mine"), acknowledged=0)
    assert outcome_of(state, 0, command(0, OpenSession())).status == "done"
    assert outcome_of(state, 0, write).status == "done"
    outcome_of(state, 47 * HOUR_MS, command(0, OpenSession(), session="u"))
    new = OpenSession(after_slot=state.applied)
    assert outcome_of(state, 48 * HOUR_MS, command(0, new, session="t")).status == "unknown_session"
    new = OpenSession(after_slot=state.applied)
    assert outcome_of(state, 48 * HOUR_MS, command(0, new, session="t")).status == "done"
    theirs = command(1, put("a", b"theirs"), session="t")
    assert outcome_of(state, 48 * HOUR_MS, theirs).status == "done"

    keep = command(2, OpenSession(after_slot=state.applied), acknowledged=0)
    assert outcome_of(state, 48 * HOUR_MS, keep).status == "unknown_session"
    assert outcome_of(state, 48 * HOUR_MS, write).status == "unknown_session"
    entry = state.tree.lookup("a")
    assert entry is not None
    assert entry.slot == 6


def test_a_late_copy_does_not_open_an_expired_session_again() -> None:
    """Given a write that was done in a session that has expired since, when late copies of the
    commands that opened the session and wrote arrive, then both are refused, also by a restarted
    replica; a new session opens.
    """
    state = Namespace(KEPT)
    opening, write = command(0, OpenSession()), command(1, put("a", b"1"))
    assert outcome_of(state, 0, opening).status == "done"
    assert outcome_of(state, 0, write).status == "done"
    for hours in (25, 50):
        outcome_of(state, hours * HOUR_MS, command(0, OpenSession(), session="t"))
    assert list(state.sessions.by_name) == ["t"]

    for replica in (state, again(state)):
        assert outcome_of(replica, 0, opening).status == "unknown_session"
        assert outcome_of(replica, 0, write).status == "unknown_session"
        assert replica.entries["a"].slot == 2
        new = command(0, OpenSession(after_slot=replica.applied), session="new")
        assert outcome_of(replica, 0, new).status == "done"


def test_a_gateway_that_starts_after_sessions_have_expired_opens_one() -> None:
    """Given a gateway that knows nothing of the log yet, then its first command is refused, and the
    next one, sent after that outcome, opens its session.
    """
    world = founded(gateways=2, options=Options(session_expiry_ms=60_000))
    world.crash("gateway-1")
    for number in range(4):
        world.run(40_000)
        world.done(put("b", b"%d" % number), gateway="gateway-2")
    sessions = world.actor("store-1").state.sessions
    assert sessions.expired_slot > 0
    world.start("gateway-1")
    world.run(5_000)
    assert world.actor("gateway-1").session in sessions.by_name
    assert world.done(put("a", b"1")).outcome.status == "done"


def test_a_gateway_whose_session_expires_again_and_again_never_uses_a_name_twice() -> None:
    """Given a gateway that sleeps longer than its sessions live, then each time it goes on."""
    world = founded(gateways=2, options=Options(session_expiry_ms=60_000))
    gateway = world.actor("gateway-1")
    names = [gateway.session]
    for round_ in range(3):
        for number in range(4):
            world.run(40_000)
            world.done(put("b", b"%d %d" % (round_, number)), gateway="gateway-2")
        refused = world.answer(world.write(put("a", b"%d" % round_)))
        assert isinstance(refused, Unknown)
        world.done(put("a", b"again %d" % round_))
        names.append(gateway.session)
    assert len(set(names)) == 4
    state = world.actor("store-1").state
    assert [name in state.sessions.by_name for name in names] == [False, False, False, True]
    assert state.entries["a"].version == 3


def test_a_session_that_was_closed_before_it_was_opened_never_opens() -> None:
    """Given a gateway that died before its session was opened, when the next incarnation has closed
    that session, then the late command to open it is refused, also by a restarted replica.
    """
    state = Namespace(KEPT)
    outcome_of(state, 0, command(0, OpenSession(), session="next"))
    closing = command(1, CloseSession(target="s"), session="next")
    assert outcome_of(state, 0, closing).status == "done"
    for replica in (state, again(state)):
        assert outcome_of(replica, 0, command(0, OpenSession())).status == "unknown_session"
        assert outcome_of(replica, 0, command(1, put("a", b"late"))).status == "unknown_session"
        assert replica.tree.lookup("a") is None


def test_an_expired_sessions_requests_are_uncertain_also_once_it_is_closed() -> None:
    """Given a write that was done in a session that has expired, when the gateway's next
    incarnation closes that session, then the write is not reported as one that never happened.
    """
    state = Namespace(KEPT)
    outcome_of(state, 0, command(0, OpenSession()))
    assert outcome_of(state, 0, command(1, put("a", b"1"))).status == "done"
    outcome_of(state, 0, command(0, OpenSession(), session="used"))
    outcome_of(state, 0, command(1, CloseSession(target="used"), session="used"))
    assert (asked(state, "s", 1), asked(state, "s", 2)) == ("found", "running")
    assert (asked(state, "used", 1), asked(state, "used", 2)) == ("found", "absent")

    for hours in (47, 48):
        outcome_of(state, hours * HOUR_MS, command(0, OpenSession(), session="next"))
    assert [asked(state, "s", n) for n in (0, 1, 2)] == ["unknown_session"] * 3

    outcome_of(state, 48 * HOUR_MS, command(1, CloseSession(target="s"), session="next"))
    for replica in (state, again(state)):
        assert [asked(replica, "s", n) for n in (0, 1, 2)] == ["unknown_session"] * 3
        assert replica.entries["a"].slot == 2


def writing_two() -> tuple[World, list[int]]:
    """A gateway with two writes in flight of unknown outcome, and their sequences."""
    world = founded()
    gateway = world.actor("gateway-1")
    world.network.cut |= {("gateway-1", name) for name in world.options.names("proposer")}
    known = set(gateway.writes._pending)
    tokens = [world.write(put(path, b"1")) for path in ("a", "b")]
    world.run_until(lambda: len(gateway.writes._pending) == len(known) + 2, 1_000, 1)
    sequences = sorted(set(gateway.writes._pending) - known)
    assert [gateway.writes._pending[sequence].token for sequence in sequences] == tokens
    return world, sequences


@pytest.mark.parametrize(("status", "lost"), [("unknown_session", 2), ("forgotten", 1)])
def test_open_commands_of_an_expired_session_are_unknown(status: Any, lost: int) -> None:
    """Given two writes in flight, when the cluster does not know their session any more, then
    neither is reported as one that did not happen: another copy may have been applied before. A
    forgotten result says nothing about the other write.
    """
    world, sequences = writing_two()
    gateway = world.actor("gateway-1")
    gateway.writes._submit(CloseSession(target="former"), token=None, retry_aborted=False)
    session = gateway.session
    tokens = [gateway.writes._pending[sequence].token for sequence in sequences]
    outcome = Outcome(status=status, slot=9, index=0)
    result = Result(session=session, sequence=sequences[0], outcome=outcome)

    effects = hand(world, "gateway-1", "learner-1", result)

    expected = [
        Answer(token, Unknown(f"{session}-{sequence}"))
        for token, sequence in zip(tokens, sequences, strict=True)
    ]
    assert list(effects.answers) == expected[:lost]
    assert (gateway.session == session) == (status == "forgotten")


def test_a_request_of_a_lost_session_has_no_result_of_the_gateways_own() -> None:
    """Given a caller that was answered *unknown*, when the session expires, then queries for the
    request are answered by the stores, and not as refused.
    """
    world, sequences = writing_two()
    gateway = world.actor("gateway-1")
    pending = gateway.writes._pending[sequences[0]]
    gateway.writes._end_wait(pending, pending.token)
    assert pending.answered_unknown
    outcome = Outcome(status="unknown_session", slot=9, index=0)
    result = Result(session=gateway.session, sequence=sequences[0], outcome=outcome)

    hand(world, "gateway-1", "learner-1", result)

    assert gateway.writes.resolved == {}
    assert not any(key.startswith("resolved/") for key in world.machines["gateway-1"].disk.records)


def test_the_next_incarnation_closes_the_former_ones_session() -> None:
    """Given a gateway that was killed, when it restarts, then it closes its former session, and
    once that is certain no later incarnation closes it again.
    """
    world = founded()
    former = world.actor("gateway-1").session
    world.crash("gateway-1")
    world.start("gateway-1")
    world.ready()
    gateway = world.actor("gateway-1")
    world.run_until(lambda: not gateway.writes._former, 5_000)
    world.settled()
    sessions = world.actor("store-1").state.sessions.by_name
    assert (sessions[former].closed, sessions[gateway.session].closed) == (True, False)
    rows = [key for key in world.machines["gateway-1"].disk.records if key.startswith("session/")]
    assert rows == [f"session/{gateway.session}"]


def test_a_gateway_with_too_many_open_commands_refuses_at_once() -> None:
    """Given a cluster that is not founded, then all but the survey is refused; and given as many
    open commands as a gateway may have, then the next one is refused without being sent.
    """
    world = World(1, Options(), 1)
    world.start("gateway-1")
    for call in (
        lambda token: Write(token=token, operation=put("a", b"1")),
        lambda token: Read(token=token, request=ReadRequest(number=0, what="entry")),
    ):
        assert isinstance(world.answer(world.call(call)), NotDone)
    assert isinstance(world.answer(world.call(lambda token: Survey(token=token))), Surveyed)

    world, sequences = writing_two()
    gateway = world.actor("gateway-1")
    gateway.writes._next_sequence += 5_000
    gateway.writes._acknowledged_through = gateway.writes._next_sequence - 4_096
    taken = world.write(put("c", b"1"))
    refused = world.answer(world.write(put("d", b"1")))
    assert isinstance(refused, NotDone)
    assert refused.fact == "nothing was sent"
    assert [p.token for p in gateway.writes._pending.values()].count(taken) == 1
    assert len(gateway.writes._pending) == len(sequences) + 1
