"""Races of views and two-phase commit that are rare by chance, with real actors."""

from typing import Any

import pytest

from actors.effects import Envelope
from actors.errors import InvariantViolation
from actors.messages import (
    Decided,
    TxnInquiry,
    TxnPrepare,
    TxnState,
)
from actors.paxos.ballot import Ballot
from actors.values import (
    Abort,
    Batch,
    Chunked,
    Command,
    DecidedSlot,
    PreparedSlot,
    PutFile,
    Refusal,
    Transaction,
    View,
)
from chaos.simulator.world import World
from tests.worlds import batch, hand, put, started, types


def view_without(view: View, store: str) -> View:
    kept = tuple(member for member in view.stores if member.name != store)
    return view.model_copy(update={"epoch": view.epoch + 1, "stores": kept})


def choose(world: World, *values: Any) -> Any:
    """`learner-2` learns that these follow the chosen prefix."""
    learner = world.actor("learner-2")
    for value in values:
        learner.log.choose(learner.chosen_through + 1, value, Ballot(1, "proposer-1"))
        learner._extend_prefix()
    return learner


def test_of_two_views_of_one_epoch_the_first_takes_effect() -> None:
    world = started()
    view = world.actor("learner-2").view
    learner = choose(world, view_without(view, "store-1"), view_without(view, "store-2"))
    assert [member.name for member in learner.view.stores] == ["store-2", "store-3"]
    assert learner.view.epoch == view.epoch + 1
    assert learner.learned.view_slot == learner.chosen_through - 1


def test_slots_decided_by_another_coordinator_are_not_voted_on_again() -> None:
    """Given a learner that was away, when it learns together the View that makes it the
    coordinator, and a later slot that another coordinator has decided, then it does not ask the
    stores about that.
    """
    world = started()
    learner = world.actor("learner-2")
    me = learner.identity
    own = {
        "epoch": learner.view.epoch + 1,
        "coordinator": me.name,
        "coordinator_disk": me.disk,
        "coordinator_incarnation": me.incarnation,
    }
    slot = learner.decided + 1
    decided = (
        DecidedSlot(slot=slot, value=learner.view.model_copy(update=own), aborted=()),
        DecidedSlot(slot=slot + 1, value=batch(1), aborted=()),
    )
    hand(world, "learner-2", "learner-1", Decided(entries=decided, first_kept=1))
    assert learner.decided == slot + 1
    assert learner.coordinator.rounds == {}


def test_an_abort_counts_only_in_its_epoch() -> None:
    world = started()
    learner = world.actor("learner-2")
    view, slot = learner.view, learner.chosen_through + 1
    stale = Abort(slot=slot, commands=(0,), epoch=view.epoch, reason="late")
    choose(world, batch(1), view_without(view, "store-1"), stale)
    assert learner.learned.aborts == {}
    choose(world, stale.model_copy(update={"epoch": view.epoch + 1}))
    assert learner.learned.aborts == {slot: {0: "late"}}


def coordinating(world: World) -> tuple[Any, int, Any]:
    """The coordinator with one slot that all stores but `store-3` have voted on."""
    world.network.cut |= {("learner-1", "store-3")}
    coordinator = world.actor("learner-1").coordinator
    slot = world.actor("learner-1").chosen_through + 1
    world.write(put("open", b"1"))
    world.run_until(lambda: slot in coordinator.rounds, 5_000, 1)
    round_ = coordinator.rounds[slot]
    world.run_until(lambda: len(round_.votes) == 2, 5_000, 1)
    return coordinator, slot, round_


def test_no_command_commits_while_its_abort_is_proposed() -> None:
    world = started()
    coordinator, slot, round_ = coordinating(world)
    value = world.actor("learner-1").log[slot].value
    assert coordinator._decidable(slot, value) is None
    round_.votes["store-3"] = ()
    assert coordinator._decidable(slot, value) == ()
    round_.abort = Abort(slot=slot, commands=(0,), epoch=0, reason="asked for")
    assert coordinator._decidable(slot, value) is None


def test_a_refusal_is_not_final_before_its_abort_is_chosen() -> None:
    world = started()
    coordinator, slot, round_ = coordinating(world)
    round_.votes["store-3"] = (Refusal(index=0, reason="no"),)
    abort = coordinator._decidable(slot, world.actor("learner-1").log[slot].value)
    assert abort == round_.abort
    assert (abort.slot, abort.commands) == (slot, (0,))


def test_newcomers_alone_refuse_no_write_whose_result_may_have_been_reported() -> None:
    """Given that the disks of all voters of a slot are gone, then no other store makes it abort."""
    world = started()
    coordinator, slot, round_ = coordinating(world)
    coordinator.view_slot = slot + 1
    newcomers = tuple(
        member.model_copy(update={"added_slot": slot + 1}) for member in coordinator.view.stores
    )
    coordinator.view = coordinator.view.model_copy(update={"stores": newcomers})
    round_.votes["store-3"] = (Refusal(index=0, reason="no room"),)
    assert coordinator._decidable(slot, world.actor("learner-1").log[slot].value) is None
    assert round_.abort is None


def test_silence_about_a_slot_of_a_former_epoch_aborts_nothing() -> None:
    world = started()
    coordinator, slot, round_ = coordinating(world)
    coordinator.view_slot = slot + 1
    assert not coordinator._may_abort(slot, round_, ["store-3"])
    round_.not_prepared.add("store-3")
    assert coordinator._may_abort(slot, round_, ["store-3"])


def test_a_restarted_store_knows_its_votes_and_decides_nothing_alone() -> None:
    world = started()
    _, slot, _ = coordinating(world)
    world.crash("store-2")
    world.network.cut |= {(f"learner-{n}", "store-2") for n in (1, 2)}
    world.start("store-2")
    store = world.actor("store-2")
    world.run(100)
    assert slot in store.prepared
    assert store.state.applied == slot - 1


def test_a_store_added_later_has_no_vote_on_earlier_slots() -> None:
    """Given a newcomer that has not prepared a slot of a former epoch, then nothing is aborted."""
    world = started()
    coordinator, slot, round_ = coordinating(world)
    coordinator.view_slot = slot + 1
    newcomer = coordinator.view.member("store-2").model_copy(update={"added_slot": slot + 1})
    others = [member for member in coordinator.view.stores if member.name != "store-2"]
    coordinator.view = coordinator.view.model_copy(update={"stores": (*others, newcomer)})
    state = TxnState(epoch=coordinator.view.epoch, applied=slot - 1, whole=True, prepared=())
    coordinator._on_state("store-2", state)
    assert round_.not_prepared == set()
    assert not coordinator._may_abort(slot, round_, ["store-3"])


def test_a_stores_answer_to_a_former_epoch_does_not_count() -> None:
    """Given a store's answer from before it prepared the slot, then that aborts nothing."""
    world = started()
    coordinator, slot, round_ = coordinating(world)
    coordinator.view_slot = slot + 1
    former = coordinator.view.epoch
    coordinator.view = coordinator.view.model_copy(update={"epoch": former + 1})
    state = TxnState(epoch=former, applied=slot - 1, whole=True, prepared=())
    coordinator._on_state("store-3", state)
    assert round_.not_prepared == set()
    coordinator._on_state("store-3", state.model_copy(update={"epoch": coordinator.view.epoch}))
    assert round_.not_prepared == {"store-3"}


def test_a_prepare_of_a_former_epoch_gets_no_vote_once_its_contents_come() -> None:
    """Given a store that waits for contents when a new epoch begins, then it stops waiting."""
    world = started()
    store = world.actor("store-3")
    missing = Chunked(size=1, sha256="0" * 64, chunks=("0" * 64,))
    one = Command(
        session="s",
        sequence=1,
        acknowledged=0,
        reply_to="gateway-1",
        operation=PutFile(path="a", content=missing),
    )
    slot, view = store.state.applied + 1, store.state.view
    prepare = TxnPrepare(epoch=view.epoch, slot=slot, batch=Batch(commands=(one,)))
    assert "txn.progress" in types(hand(world, "store-3", "learner-1", prepare))
    successor = world.actor("learner-2").identity
    next_view = view.model_copy(
        update={
            "epoch": view.epoch + 1,
            "coordinator": successor.name,
            "coordinator_disk": successor.disk,
            "coordinator_incarnation": successor.incarnation,
        }
    )
    inquiry = TxnInquiry(view=next_view, decided=slot - 1)
    assert "txn.state" in types(hand(world, "store-3", "learner-2", inquiry))
    store.contents.is_nowhere = lambda name: True
    store.out.sends.clear()
    store._try_fetched()
    assert store.prepared == {}
    assert not store.out.sends


def test_a_store_votes_only_on_the_batch_that_it_holds() -> None:
    """Given a prepared slot with contents, when a later epoch asks for it again, before and after a
    restart, then the store votes; when it asks for another batch in its place, the store halts.
    """
    world = started()
    store = world.actor("store-3")
    slot, view = store.state.applied + 1, store.state.view

    def prepare(epoch: int, data: bytes) -> TxnPrepare:
        one = Command(
            session="s",
            sequence=1,
            acknowledged=0,
            reply_to="gateway-1",
            operation=Transaction(steps=(put("a", data), put("b", b"same"))),
        )
        return TxnPrepare(epoch=epoch, slot=slot, batch=Batch(commands=(one,)))

    machine = world.machines["store-3"]
    first = Envelope(
        store.cluster,
        "learner-1",
        world.machines["learner-1"].disk.identity,
        world.machines["learner-1"].disk.incarnation,
        prepare(view.epoch, b"1"),
    )
    machine.arrive((first,))
    world.run(5)
    assert slot in world.actor("store-3").prepared
    assert types(hand(world, "store-3", "learner-1", prepare(view.epoch, b"1"))) == ["txn.vote"]

    world.crash("store-3")
    world.start("store-3")
    again = hand(world, "store-3", "learner-2", prepare(view.epoch + 1, b"1"))
    assert types(again) == ["txn.vote"]
    with pytest.raises(InvariantViolation, match=f"for slot {slot}, and is asked in epoch"):
        hand(world, "store-3", "learner-2", prepare(view.epoch + 2, b"2"))


def test_another_batch_is_no_vote_for_the_one_in_the_log() -> None:
    """Given a new coordinator, when a store reports that it has prepared another batch for a slot
    than the log has, then that is no vote; the batch of the log is one.
    """
    world = started()
    coordinator = next(m.actor for m in world.up("learner") if m.actor.coordinator)
    slot = coordinator.chosen_through + 1
    ours, theirs = Batch(elapsed_ms=1, commands=()), Batch(elapsed_ms=2, commands=())
    coordinator.log.choose(slot, ours, coordinator.learned.leader)
    view = coordinator.view.model_copy(update={"epoch": coordinator.view.epoch + 1})
    coordinator.log.choose(slot + 1, view, coordinator.learned.leader)
    coordinator._extend_prefix()
    epoch = coordinator.coordinator

    for digest, votes in ((theirs.digest, []), (ours.digest, ["store-1"])):
        epoch._states.clear()
        held = PreparedSlot(slot=slot, refused=(), digest=digest)
        state = TxnState(epoch=view.epoch, applied=slot - 1, whole=True, prepared=(held,))
        epoch._on_state("store-1", state)
        assert list(epoch.rounds[slot].votes) == votes
