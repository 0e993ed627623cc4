"""What a store answers, what it waits for, and the lease that it asks for."""

from typing import Any

import pytest

from actors.calls import Read
from actors.effects import Effects, Send
from actors.messages import LeaseAsk, LeaseGrant, ReadReply, ReadRequest
from actors.state.namespace import Namespace
from actors.store.changes import Changes
from actors.store.reads import WaitingRead, answer_changes, answer_read, touches
from actors.values import (
    NOOP,
    AnyOperation,
    Batch,
    CloseSession,
    Command,
    Constants,
    DeleteFile,
    MakeDirectory,
    OpenSession,
    RemoveDirectory,
)
from tests.worlds import hand, put, started, types


def command(sequence: int, operation: AnyOperation, acknowledged: int = -1) -> Command:
    return Command(
        session="s",
        sequence=sequence,
        acknowledged=acknowledged,
        reply_to="gateway-1",
        operation=operation,
    )


def state_of(*commands: Command) -> Namespace:
    """The state after these commands, each in a slot of its own."""
    state = Namespace(Constants())
    for one in commands:
        state.apply(state.applied + 1, Batch(commands=(one,)), ())
    return state


def request(**more: Any) -> ReadRequest:
    return ReadRequest(**{"number": 1, "what": "entry", **more})


# -- answers --------------------------------------------------------------------------------------


def test_acknowledged_results_are_answered_as_forgotten() -> None:
    """Given acknowledged results, then they are forgotten, later ones known, and others still
    running.
    """
    commands = [command(0, OpenSession()), *(command(n, put("a", b"%d" % n)) for n in (1, 2, 3))]
    for acknowledged in (-1, 0, 2, 3):
        state = state_of(*commands, command(4, put("a", b"4"), acknowledged))
        found = [
            answer_read(state, request(what="result", session="s", sequence=n)).status
            for n in range(6)
        ]
        known = 4 - acknowledged
        assert found == ["forgotten"] * (5 - known) + ["found"] * known + ["running"]


def test_an_entry_is_answered_without_its_children_and_a_list_with_them() -> None:
    state = state_of(command(0, OpenSession()), command(1, put("d/a", b"1")))
    found = {
        (what, path): answer_read(state, request(what=what, path=path))
        for what in ("entry", "list")
        for path in ("d", "d/a", "d/b")
    }
    answers = {key: (reply.status, len(reply.children)) for key, reply in found.items()}
    assert answers == {
        ("entry", "d"): ("found", 0),
        ("entry", "d/a"): ("found", 0),
        ("entry", "d/b"): ("absent", 0),
        ("list", "d"): ("found", 1),
        ("list", "d/a"): ("found", 0),
        ("list", "d/b"): ("absent", 0),
    }
    assert {reply.applied for reply in found.values()} == {2}


def test_changes_are_answered_from_the_requested_slot_on() -> None:
    """Given changes in slots 2 and 3, then each request gets those from its slot on, or the answer
    that they are not all kept.
    """
    state, changes = Namespace(Constants()), Changes()
    for one in (command(0, OpenSession()), command(1, put("a", b"1")), command(2, put("b", b"2"))):
        batch = Batch(commands=(one,))
        changes.note(state.applied + 1, batch, state.apply(state.applied + 1, batch, ()))

    def changes_from(at_least: int) -> tuple[str, list[str], int]:
        reply = answer_changes(Namespace(), changes, request(what="changes", at_least=at_least))
        return reply.status, [change.path for change in reply.changes], reply.applied

    assert [changes_from(slot) for slot in (0, 1, 2)] == [("found", ["a", "b"], 3)] * 3
    assert changes_from(3) == ("found", ["b"], 3)
    assert changes_from(4) == ("found", [], 3)
    changes.note(9, NOOP, [])
    assert (changes_from(8), changes_from(9)) == (("forgotten", [], 9), ("found", [], 9))


# -- what a read waits for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        put("d/f", b"1"),
        DeleteFile(path="d/f"),
        MakeDirectory(path="d/f"),
        RemoveDirectory(path="d/f", recursive=True),
    ],
    ids=lambda operation: operation.kind,
)
def test_a_command_touches_its_path_its_ancestors_and_its_subtree(
    operation: AnyOperation,
) -> None:
    paths = ("", "d", "d/f", "d/f/x", "d/g", "d/fx", "e")
    one = command(1, operation)
    touched = [path for path in paths if touches(one, request(path=path))]
    assert touched == ["", "d", "d/f", "d/f/x"]


def test_sessions_touch_no_path_and_a_result_is_touched_by_its_own_command() -> None:
    for operation in (OpenSession(), CloseSession(target="t")):
        assert not touches(command(1, operation), request(path=""))
    one = command(4, put("a", b"1"))
    asked = [("s", 4), ("s", 3), ("t", 4)]
    found = [touches(one, request(what="result", session=s, sequence=n)) for s, n in asked]
    assert found == [True, False, False]


# -- leases ---------------------------------------------------------------------------------------


def test_each_lease_request_has_a_number_of_its_own_and_old_ones_are_forgotten() -> None:
    """Given a store that asks and gets no answer, then its numbers rise, its memory of them is
    bounded, and a grant for a forgotten one gives no lease.
    """
    store = started().actor("store-1")
    store.reads.give_up_lease()
    first = store.reads._number
    asked = []
    for _ in range(40):
        store.turn.now += 1_000
        for _ in range(2):  # The second one comes too soon after the first.
            store.reads._ask_lease()
        asked += [s.message for s in store._take().sends if isinstance(s, Send)]
    numbers = [message.number for message in asked if isinstance(message, LeaseAsk)]
    assert numbers == list(range(first + 1, first + 41))
    assert sorted(store.reads._asked) == numbers[-16:]

    disk = store.identity.disk
    for number, holds in ((numbers[-17], False), (numbers[-1], True)):
        grant = LeaseGrant(number=number, epoch=0, disk=disk, added_slot=0, duration_ms=100_000)
        store.reads.on_lease_grant(grant)
        assert (store.reads.lease.until > store.now) == holds


def test_a_store_starts_without_a_lease_and_serves_its_applied_state() -> None:
    store = started().actor("store-1")
    applied = store.state.applied

    def obstacle(**more: Any) -> str | None:
        read = WaitingRead("gateway-1", request(path="a", **more), store.now + 1_000, set())
        found: str | None = store.reads._obstacle(read)
        return found

    assert obstacle(consistency="stale", at_least=applied) is None
    later = f"slot {applied + 1} is not applied here yet"
    assert obstacle(consistency="stale", at_least=applied + 1) == later
    store.reads.give_up_lease()
    assert obstacle() == "no read lease"
    store.reads.lease.until = store.now
    assert obstacle() == "no read lease"
    store.reads.lease.until = store.now + 1
    assert obstacle() is None


# -- the client -----------------------------------------------------------------------------------


def test_a_refusal_sends_a_read_to_another_store_unless_it_is_late() -> None:
    """Given a read that its store refuses, then another store is asked; a refusal of a store that
    was asked before changes nothing, and an answer counts, whichever store sends it.
    """
    world = started()
    gateway = world.actor("gateway-1")
    token = world.call(lambda token: Read(token=token, request=request(path="before")))
    world.run_until(lambda: bool(gateway.reads._pending), 1_000, 1)
    ((number, read),) = gateway.reads._pending.items()
    first = read.rotation.asked

    def replied(sender: str, status: Any) -> Effects:
        refusal = ReadReply(number=number, status=status, applied=1, detail="why")
        return hand(world, "gateway-1", sender, refusal)

    effects = replied(first, "not_served")
    assert [send.to for send in effects.sends if isinstance(send, Send)] == [read.rotation.asked]
    assert types(effects) == ["read.request"]
    assert read.rotation.asked != first
    assert f"{first}: why" in read.rotation.account
    second = read.rotation.asked
    assert replied(first, "not_served").sends == ()
    assert read.rotation.asked == second
    (answer,) = replied(first, "found").answers
    assert (answer.token, answer.value.store) == (token, first)
    assert replied(second, "found").answers == ()
