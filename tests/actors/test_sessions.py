"""Sessions and idempotency keys: what is remembered of them, and until when by log time."""

from typing import Any

from actors.calls import Unknown
from actors.namespace import Namespace
from actors.options import Options
from actors.values import (
    Batch,
    Command,
    OpenSession,
    Outcome,
    Refusal,
)
from tests.worlds import founded, put

HOUR_MS = 3_600_000
KEPT = Options(session_expiry_ms=24 * HOUR_MS, idempotency_expiry_ms=24 * HOUR_MS)


def command(sequence: int, operation: Any, **more: Any) -> Command:
    fields = {"session": "s", "acknowledged": -1, "reply_to": "gateway-1", **more}
    return Command(sequence=sequence, operation=operation, **fields)


def told(state: Namespace, stamp_ms: int, one: Command, *aborted: Refusal) -> Outcome:
    """What becomes of a command in the next slot, which the leader stamped with `stamp_ms`."""
    batch = Batch(stamp_ms=stamp_ms, commands=(one,))
    (outcome,) = state.apply(state.applied + 1, batch, aborted)
    return outcome


def test_an_expired_session_does_not_come_back_to_do_it_all_again() -> None:
    """Given a gateway that slept for two days with a write under way, when it wakes, asks to keep
    its session and sends the write again, then neither is taken, and the write happens once.
    """
    state = Namespace(KEPT)
    write = command(1, put("a", b"mine"), acknowledged=0)
    assert told(state, 0, command(0, OpenSession())).status == "done"
    assert told(state, 0, write).status == "done"
    assert told(state, 48 * HOUR_MS, command(0, OpenSession(), session="t")).status == "done"
    theirs = command(1, put("a", b"theirs"), session="t")
    assert told(state, 48 * HOUR_MS, theirs).status == "done"

    keep = command(2, OpenSession(), acknowledged=0)
    assert told(state, 48 * HOUR_MS, keep).status == "unknown_session"
    assert told(state, 48 * HOUR_MS, write).status == "unknown_session"
    entry = state.lookup("a")
    assert entry is not None
    assert entry.slot == 4


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
