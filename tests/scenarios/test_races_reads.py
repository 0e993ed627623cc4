"""Races of reads and their leases that are rare by chance, with real actors."""

from typing import Any

import pytest

from actors.calls import Read, ReadLog
from actors.effects import Effects, Send, TimerKey
from actors.messages import (
    Accept,
    LearnerProgress,
    LeaseAsk,
    LeaseGrant,
    LogPage,
    ProposeValue,
    ReadReply,
    ReadRequest,
)
from actors.store.reads import WaitingRead
from actors.values import (
    NOOP,
    View,
)
from chaos.simulator.world import World
from tests.worlds import hand, leader_of, sent, started, types


def view_without(view: View, store: str) -> View:
    kept = tuple(member for member in view.stores if member.name != store)
    return view.model_copy(update={"epoch": view.epoch + 1, "stores": kept})


def test_a_view_waits_for_the_lease_of_the_store_that_it_drops() -> None:
    """Given a store with a read lease, when a View drops it, then the View waits, the store gets
    no further lease, and the View is proposed once the lease has lapsed.
    """
    world = started()
    leader = leader_of(world)
    actor, phase = leader.actor, leader.actor.phase
    ask = LeaseAsk(number=1)
    assert types(hand(world, leader.name, "store-3", ask)) == ["lease.grant"]
    view = view_without(actor.view, "store-3")
    proposed = hand(world, leader.name, "learner-1", ProposeValue(value=view))
    assert "paxos.accept" not in types(proposed)
    assert phase.waiting_views == [view]
    assert types(hand(world, leader.name, "store-3", ask)) == []
    assert types(hand(world, leader.name, "store-2", ask)) == ["lease.grant"]
    for now, waits in ((phase.read_grants["store-3"] - 1, True), (actor.lease_until, False)):
        actor.expire(TimerKey("tick"), now)
        assert bool(phase.waiting_views) == waits


@pytest.mark.parametrize("late_ms", [0, 2_000])
def test_a_leader_grants_for_no_longer_than_its_own_lease(late_ms: int) -> None:
    world = started()
    leader = leader_of(world)
    now = leader.now_ms + late_ms
    effects = hand(world, leader.name, "store-3", LeaseAsk(number=1), late_ms=late_ms)
    granted = [
        send.message.duration_ms
        for send in effects.sends
        if isinstance(send, Send) and isinstance(send.message, LeaseGrant)
    ]
    assert granted == ([leader.actor.lease_until - now] if now < leader.actor.lease_until else [])
    assert bool(granted) == (late_ms == 0)


def test_reads_are_served_while_the_lease_runs_and_once_the_view_is_applied() -> None:
    world = started()
    store = world.actor("store-3")
    store.turn.now = world.machines["store-3"].now_ms
    request = ReadRequest(number=1, what="entry", path="before")
    read = WaitingRead("gateway-1", request, store.now + 1_000, set())
    store.reads.lease.until = store.now + 500
    store.reads.lease.added_slot = store.state.applied
    assert store.reads._obstacle(read) is None
    store.reads.lease.added_slot = store.state.applied + 1
    assert store.reads._obstacle(read) == "no read lease"
    store.reads.lease.added_slot, store.reads.lease.until = 0, store.now
    assert store.reads._obstacle(read) == "no read lease"


def test_an_accept_below_the_truncation_is_refused() -> None:
    world = started()
    leader = leader_of(world)
    acceptor = world.actor("acceptor-1")
    acceptor.truncated_below = 2
    accept = Accept(ballot=leader.actor.phase.ballot, slot=1, value=NOOP)
    assert types(hand(world, "acceptor-1", leader.name, accept)) == ["paxos.reject"]


def test_a_read_lease_counts_from_its_request() -> None:
    """Given a grant that was long in transit, then it ends when the leader meant it to end."""
    world = started()
    leader = leader_of(world)
    store = world.actor("store-3")
    asked_at = world.machines["store-3"].now_ms
    store.reads._asked = {store.reads._number: asked_at}
    store.reads.give_up_lease()

    def granted_to(disk: str) -> Any:
        grant = LeaseGrant(
            number=store.reads._number, epoch=0, disk=disk, added_slot=0, duration_ms=1_000
        )
        hand(world, "store-3", leader.name, grant, late_ms=700)
        return store.reads.lease.until

    assert granted_to("another disk") == 0
    margin_ms = world.options.lease_margin_ms
    assert granted_to(store.identity.disk) == asked_at + 1_000 - margin_ms


def test_no_lease_for_a_store_that_a_known_view_drops() -> None:
    """Given an old report that comes late, then the leader does not go back to the View in it."""
    world = started()
    leader = leader_of(world)
    actor = leader.actor
    chosen_through, former = actor.chosen_through, actor.view
    ask = LeaseAsk(number=1)
    later = LearnerProgress(
        chosen_through=chosen_through + 1,
        decided=chosen_through + 1,
        view=view_without(former, "store-3"),
    )
    hand(world, leader.name, "learner-1", later)
    assert types(hand(world, leader.name, "store-3", ask)) == []
    hand(
        world,
        leader.name,
        "learner-2",
        LearnerProgress(chosen_through=chosen_through, decided=chosen_through, view=former),
    )
    assert types(hand(world, leader.name, "store-3", ask)) == []
    assert types(hand(world, leader.name, "store-2", ask)) == ["lease.grant"]


def test_no_lease_before_the_view_in_force_is_known() -> None:
    """Given a new leader that does not know all that may be chosen: a View may be among it."""
    world = started()
    leader = leader_of(world)
    actor, phase = leader.actor, leader.actor.phase
    phase.recovered_through = actor.chosen_through + 1
    assert types(hand(world, leader.name, "store-3", LeaseAsk(number=1))) == []
    phase.recovered_through = actor.chosen_through
    assert types(hand(world, leader.name, "store-3", LeaseAsk(number=1))) == ["lease.grant"]


def asked(effects: Effects) -> int:
    """The number of the one request among the messages sent."""
    (number,) = {message.number for message in sent(effects)}
    assert isinstance(number, int)
    return number


def restart(world: World, name: str) -> None:
    world.crash(name)
    world.start(name)
    world.run(1_000)


def test_a_lease_granted_to_a_former_incarnation_does_not_count() -> None:
    """Given a store that asked for a lease, died and asked again, when the grant to its former
    incarnation comes from its queue, then it does not count from the later request.
    """
    world = started()
    leader = leader_of(world)
    request = ReadRequest(number=1, what="entry", path="before")
    numbers = []
    for _ in range(2):
        restart(world, "store-3")
        world.actor("store-3").reads._asked.clear()
        world.actor("store-3").reads.give_up_lease()
        numbers.append(asked(hand(world, "store-3", "gateway-1", request)))
    store = world.actor("store-3")

    def granted(number: int) -> Any:
        disk = store.identity.disk
        grant = LeaseGrant(number=number, epoch=0, disk=disk, added_slot=0, duration_ms=1_000)
        hand(world, "store-3", leader.name, grant)
        return store.reads.lease.until

    assert granted(numbers[0]) == 0
    assert granted(numbers[1]) > 0


def test_an_answer_to_a_former_incarnation_answers_no_read() -> None:
    """Given a gateway that died while it read one file, when it reads another one and the earlier
    answer comes from its queue, then no caller gets the wrong file.
    """
    world = started()
    numbers = []
    for path in ("before", "other"):
        restart(world, "gateway-1")
        world.ready()
        read = Read(token=7, request=ReadRequest(number=0, what="entry", path=path))
        numbers.append(asked(hand(world, "gateway-1", "gateway-1", read)))

    def answers_to(number: int) -> int:
        reply = ReadReply(number=number, status="absent", applied=1)
        return len(hand(world, "gateway-1", "store-1", reply).answers)

    assert answers_to(numbers[0]) == 0
    assert answers_to(numbers[1]) == 1


def test_a_log_page_for_a_former_incarnation_answers_no_call() -> None:
    """The same for reads of the log."""
    world = started()
    numbers = []
    for _ in range(2):
        restart(world, "gateway-1")
        world.ready()
        look = ReadLog(token=7, before=0, limit=10)
        numbers.append(asked(hand(world, "gateway-1", "gateway-1", look)))

    def answers_to(number: int) -> int:
        page = LogPage(number=number, entries=(), decided=1, first_kept=1)
        return len(hand(world, "gateway-1", "learner-1", page).answers)

    assert answers_to(numbers[0]) == 0
    assert answers_to(numbers[1]) == 1
