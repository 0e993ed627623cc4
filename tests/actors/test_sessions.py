"""Sessions and idempotency keys: what is remembered of them, and until when by log time."""

from typing import Any

from actors.calls import Unknown
from actors.effects import Record
from actors.namespace import Namespace
from actors.options import Options
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
from tests.worlds import founded, put

HOUR_MS = 3_600_000
KEPT = Constants(session_expiry_ms=24 * HOUR_MS, idempotency_expiry_ms=24 * HOUR_MS)


def command(sequence: int, operation: Any, **more: Any) -> Command:
    fields = {"session": "s", "acknowledged": -1, "reply_to": "gateway-1", **more}
    return Command(sequence=sequence, operation=operation, **fields)


def told(state: Namespace, at_ms: int, one: Command, *aborted: Refusal) -> Outcome:
    """What becomes of a command in the next slot, at the log time `at_ms` if that is later."""
    batch = Batch(elapsed_ms=at_ms - state.log_time_ms, commands=(one,))
    (outcome,) = state.apply(state.applied + 1, batch, aborted)
    return outcome


def keyed(sequence: int, path: str, key: str, fingerprint: str = "") -> Command:
    idempotency = IdempotencyKey(key=key, fingerprint=fingerprint or path)
    return command(sequence, put(path, b"1"), idempotency=idempotency)


def test_a_key_stands_for_one_request_and_its_first_result() -> None:
    """Given requests under one key, then one of them happens, and an aborted one is none."""
    state = Namespace(KEPT)
    told(state, 0, command(0, OpenSession()))
    given_up = told(state, 0, keyed(1, "a", "key"), Refusal(index=0, reason="late"))
    assert (given_up.status, state.keys) == ("aborted", {})

    first = told(state, 0, keyed(2, "a", "key"))
    assert (first.status, first.slot) == ("done", 3)
    assert told(state, 0, keyed(3, "a", "key")) == first
    assert told(state, 0, keyed(4, "b", "key")).status == "key_reused"
    assert told(state, 0, keyed(5, "c", "other")).status == "done"
    assert {path: entry.slot for path, entry in state.entries.items()} == {"a": 3, "c": 6}


def test_keys_expire_by_log_time_which_never_goes_back() -> None:
    """Given a day of log time, then what is older is forgotten, and nothing that is younger; and a
    leader whose clock is behind makes nothing younger.
    """
    state = Namespace(KEPT)
    told(state, 0, command(0, OpenSession()))
    told(state, 0, keyed(1, "a", "old"))
    told(state, HOUR_MS, keyed(2, "b", "young"))
    told(state, 0, keyed(3, "c", "late"))
    assert (state.log_time_ms, state.keys["late"].log_time_ms) == (HOUR_MS, HOUR_MS)

    told(state, 24 * HOUR_MS + 60_000, command(4, OpenSession()))
    assert list(state.keys) == ["old", "young", "late"]
    told(state, 24 * HOUR_MS + 120_000, command(5, OpenSession()))
    assert list(state.keys) == ["young", "late"]
    told(state, 0, command(6, OpenSession()))
    told(state, 25 * HOUR_MS + 60_000, command(7, OpenSession()))
    assert list(state.keys) == ["young", "late"]
    told(state, 25 * HOUR_MS + 120_000, command(8, OpenSession()))
    assert state.keys == {}
    assert told(state, 0, keyed(9, "a", "old")).slot == state.applied


def test_a_long_silence_leaves_a_minute_for_what_is_under_way() -> None:
    """Given a request that was just done, when nothing happens for years, then for a minute its
    copies, in the same session and in another one, still meet its result; then it is forgotten.
    """
    state = Namespace(KEPT)
    told(state, 0, command(0, OpenSession()))
    first = told(state, 0, keyed(1, "a", "key"))
    years = 90_000 * HOUR_MS
    told(state, years, command(0, OpenSession(), session="t"))
    again = keyed(1, "a", "key").model_copy(update={"session": "t"})
    assert told(state, years + 59_999, again) == first
    assert told(state, years + 59_999, keyed(1, "a", "key")) == first

    told(state, years + 60_000, command(2, OpenSession(), session="t"))
    assert (state.keys, list(state.sessions)) == ({}, ["t"])


def test_a_session_lives_for_as_long_as_it_is_used() -> None:
    """Given two sessions, of which one is used, then after a day the other one is forgotten."""
    state = Namespace(KEPT)
    told(state, 0, command(0, OpenSession()))
    told(state, 0, command(0, OpenSession(), session="idle"))
    told(state, 20 * HOUR_MS, command(1, put("a", b"1")))
    told(state, 24 * HOUR_MS + 60_000, command(2, put("a", b"2")))
    assert sorted(state.sessions) == ["idle", "s"]
    told(state, 24 * HOUR_MS + 120_000, command(3, put("a", b"3")))
    assert sorted(state.sessions) == ["s"]
    late = told(state, 0, command(1, put("a", b"late"), session="idle"))
    assert late.status == "unknown_session"
    rows = {key: value for key, value in state.take_rows() if "idle" in key}
    assert rows == {"session/idle": None}


def test_a_replica_that_starts_again_goes_on_as_the_others_do() -> None:
    """Given a state with all that is remembered, when it is read back from its journal's rows, in
    whatever order they come, then the same slots make the same of it: results, expiry and hash.
    """
    state = Namespace(KEPT)
    told(state, 0, command(0, OpenSession()))
    told(state, 0, command(0, OpenSession(), session="closed"))
    told(state, HOUR_MS, keyed(1, "b", "z-first"))
    told(state, 2 * HOUR_MS, keyed(2, "a", "a-second"))
    told(state, 2 * HOUR_MS, command(3, CloseSession(target="closed"), acknowledged=2))
    told(state, 3 * HOUR_MS, command(4, put("c", b"1")), Refusal(index=0, reason="late"))
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
        outcome = told(again, at_ms, one)
        assert (outcome.status, outcome.slot) == (status, slot)
        assert told(state, at_ms, one) == outcome
        assert again.state_hash == state.state_hash
        assert dict(again.rows()) == dict(state.rows())
    assert state.keys == {}
    assert list(state.sessions) == ["s"]


def test_an_expired_session_does_not_come_back_to_do_it_all_again() -> None:
    """Given a gateway that slept for two days with a write under way, when it wakes, asks to keep
    its session and sends the write again, then neither is taken, and the write happens once.
    """
    state = Namespace(KEPT)
    write = command(1, put("a", b"mine"), acknowledged=0)
    assert told(state, 0, command(0, OpenSession())).status == "done"
    assert told(state, 0, write).status == "done"
    told(state, 47 * HOUR_MS, command(0, OpenSession(), session="u"))
    assert told(state, 48 * HOUR_MS, command(0, OpenSession(), session="t")).status == "done"
    theirs = command(1, put("a", b"theirs"), session="t")
    assert told(state, 48 * HOUR_MS, theirs).status == "done"

    keep = command(2, OpenSession(), acknowledged=0)
    assert told(state, 48 * HOUR_MS, keep).status == "unknown_session"
    assert told(state, 48 * HOUR_MS, write).status == "unknown_session"
    entry = state.lookup("a")
    assert entry is not None
    assert entry.slot == 5


def test_a_gateway_whose_session_expires_again_and_again_never_uses_a_name_twice() -> None:
    """Given a gateway that sleeps longer than its sessions live, then each time it goes on."""
    world = founded(gateways=2, options=Options(session_expiry_ms=60_000))
    client = world.actor("gateway-1")
    names = [client.session]
    for round_ in range(3):
        for number in range(4):
            world.run(40_000)
            world.done(put("b", b"%d %d" % (round_, number)), gateway="gateway-2")
        refused = world.answer(world.write(put("a", b"%d" % round_)))
        assert isinstance(refused, Unknown)
        world.done(put("a", b"again %d" % round_))
        names.append(client.session)
    assert len(set(names)) == 4
    state = world.actor("store-1").state
    assert [name in state.sessions for name in names] == [False, False, False, True]
    assert state.entries["a"].version == 3
