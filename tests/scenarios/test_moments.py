"""Rules that chance rarely puts to the test: each moment is set up by hand, with real actors."""

from typing import Any

import pytest

from actors.ballot import Ballot
from actors.calls import Read, ReadLog
from actors.chosen import ChosenLog
from actors.effects import Effects, Envelope, Send, TimerKey
from actors.messages import (
    Accept,
    LeaseAsk,
    LeaseGrant,
    LeaseGranted,
    LeaseHeartbeat,
    LogPage,
    Prepare,
    Progress,
    Promise,
    ProposeValue,
    ReadReply,
    ReadRequest,
    Result,
    TxnInquiry,
    TxnPrepare,
    TxnState,
)
from actors.namespace import Namespace
from actors.options import Options
from actors.proposer import Leading
from actors.reads import WaitingRead, answer_read
from actors.values import (
    NOOP,
    Abort,
    AcceptedValue,
    Batch,
    Chunked,
    CloseSession,
    Command,
    OpenSession,
    Outcome,
    PutFile,
    Refusal,
    View,
)
from chaos.simulator.machine import Machine
from chaos.simulator.world import World
from tests.worlds import put

ACCEPTORS = tuple(f"acceptor-{n}" for n in range(1, 6))


def started() -> World:
    world = World(3)
    world.start()
    world.ready()
    world.done(put("before", b"1"))
    world.settled()
    world.run(1_000)  # What is applied gets into the journals, too.
    return world


def leader_of(world: World) -> Machine:
    (leader,) = [m for m in world.up("proposer") if m.actor.holds_lease]
    return leader


def hand(world: World, receiver: str, sender: str, message: Any, late_ms: int = 0) -> Effects:
    """What `receiver` does with a message; the world does not carry its effects out."""
    machine, other = world.machines[receiver], world.machines[sender]
    envelope = Envelope(
        machine.actor.cluster, sender, other.disk.identity, other.disk.incarnation, message
    )
    effects: Effects = machine.actor.receive(envelope, machine.now_ms + late_ms)
    return effects


def types(effects: Effects) -> list[str]:
    return [send.message.type for send in effects.sends if isinstance(send, Send)]  # type: ignore[attr-defined]


def batch(stamp_ms: int) -> Batch:
    return Batch(stamp_ms=stamp_ms, commands=())


# -- Paxos ----------------------------------------------------------------------------------------


def test_a_new_leader_takes_for_each_slot_the_value_of_the_highest_ballot() -> None:
    """Given three promises with a gap, two ballots for one slot, and a slot that one tells of."""
    world = started()
    name = next(m.name for m in world.up("proposer") if m is not leader_of(world))
    proposer = world.actor(name)
    proposer._stand()
    ballot, first = proposer.phase.ballot, proposer.phase.first_slot
    low, high = Ballot(1, "proposer-1"), Ballot(1, "proposer-5")
    told = [
        (AcceptedValue(slot=first + 1, ballot=low, value=batch(1)),),
        (AcceptedValue(slot=first + 1, ballot=high, value=batch(2)),),
        (AcceptedValue(slot=first + 2, ballot=low, value=batch(3)),),
    ]
    for acceptor, accepted in zip(ACCEPTORS, told, strict=False):
        promise = Promise(
            ballot=ballot, first_slot=first, next_slot=None, accepted=accepted, truncated_below=1
        )
        hand(world, name, acceptor, promise)

    assert isinstance(proposer.phase, Leading)
    proposed = {slot: flight.value for slot, flight in proposer.phase.in_flight.items()}
    assert proposed == {first: NOOP, first + 1: batch(2), first + 2: batch(3)}
    assert proposer.phase.next_slot == first + 3
    # Any of it may be a View that is chosen: until it is known no store gets a lease.
    assert proposer.phase.recovered_through == first + 2

    # None of that was chosen: whoever stands again looks at it again.
    proposer._step_down("no quorum")
    proposer._stand()
    assert world.actor(name).phase.first_slot == first


def test_votes_of_two_ballots_are_no_quorum() -> None:
    log = ChosenLog(5)
    one, two = Ballot(1, "proposer-1"), Ballot(2, "proposer-2")
    log.hear_value(1, one, batch(1))
    log.hear_value(1, two, batch(2))
    for acceptor, ballot in zip(ACCEPTORS, (one, one, two, two), strict=False):
        log.hear_vote(1, ballot, acceptor)
    assert log.scan() is None
    log.hear_vote(1, two, ACCEPTORS[4])
    assert (log.scan(), log[1].value) == (1, batch(2))


def test_a_decision_chooses_what_was_proposed_under_its_own_ballot() -> None:
    """Given values of three ballots for one slot, of which the one between was decided."""
    ballots = [Ballot(number, "proposer-1") for number in (1, 2, 3)]
    log = ChosenLog(5)
    for ballot in (ballots[0], ballots[2]):
        log.hear_value(1, ballot, batch(ballot.round))
    log.hear_decided(1, ballots[1])
    assert log.scan() is None  # Its value has not come yet.
    log.hear_value(1, ballots[1], batch(2))
    log.hear_decided(1, ballots[1])
    assert (log.scan(), log[1].value) == (1, batch(2))


def test_the_chosen_prefix_ends_at_a_gap() -> None:
    log = ChosenLog(5)
    log.choose(2, batch(2), Ballot(1, "proposer-1"))
    assert (log.scan(), log.scanned) == (None, 0)
    log.choose(1, batch(1), Ballot(1, "proposer-1"))
    assert [log.scan(), log.scan(), log.scan()] == [1, 2, None]


def test_a_learner_that_hears_no_vote_asks_for_what_is_chosen() -> None:
    """Given learners that do not hear each other, then the acceptors tell what they accepted."""
    world = started()
    world.network.cut |= {("learner-1", "learner-2"), ("learner-2", "learner-1")}
    written = world.done(put("a", b"2")).outcome
    world.run(2_500)
    assert world.actor("learner-2").scanned >= written.slot


def command(sequence: int, path: str, acknowledged: int = -1) -> Command:
    return Command(
        session="s",
        sequence=sequence,
        acknowledged=acknowledged,
        reply_to="gateway-1",
        operation=put(path, b"1") if path else OpenSession(),
    )


def told(state: Namespace, slot: int, one: Command, *aborted: Refusal) -> tuple[str, int]:
    (outcome,) = state.apply(slot, Batch(stamp_ms=slot, commands=(one,)), aborted)
    return outcome.status, outcome.slot


def test_each_sequence_has_one_result_for_good_aborted_or_done() -> None:
    """Given commands that sit in two slots, then their first result is what they are told."""
    state = Namespace(Options())
    assert told(state, 1, command(0, "")) == ("done", 1)
    assert told(state, 2, command(1, "given-up"), Refusal(index=0, reason="late")) == ("aborted", 2)
    assert told(state, 3, command(2, "kept")) == ("done", 3)
    assert told(state, 4, command(1, "given-up")) == ("aborted", 2)
    assert told(state, 5, command(2, "kept")) == ("done", 3)
    assert state.lookup("given-up") is None
    assert told(state, 6, command(3, "more", acknowledged=1)) == ("done", 6)
    assert told(state, 7, command(1, "given-up"))[0] == "forgotten"
    assert told(state, 8, command(2, "kept")) == ("done", 3)


def test_a_lease_counts_from_the_sending_of_what_was_acknowledged() -> None:
    world = started()
    leader = leader_of(world)
    actor, phase = leader.actor, leader.actor.phase
    actor._on_leader_due("")
    sent_at = phase.sent_at[phase.heartbeat_number]
    granted = LeaseGranted(ballot=phase.ballot, number=phase.heartbeat_number)
    for acceptor in ACCEPTORS:
        hand(world, leader.name, acceptor, granted, late_ms=500)
    options = world.options
    assert actor.lease_until == sent_at + options.lease_ms - options.lease_margin_ms


def test_one_acknowledgement_is_no_lease() -> None:
    world = started()
    leader = leader_of(world)
    phase = leader.actor.phase
    before = leader.actor.lease_until
    phase.heartbeat_number += 1
    phase.sent_at[phase.heartbeat_number] = leader.now_ms + 400
    granted = LeaseGranted(ballot=phase.ballot, number=phase.heartbeat_number)
    for acceptor in ACCEPTORS[:2]:
        hand(world, leader.name, acceptor, granted, late_ms=401)
    assert leader.actor.lease_until == before
    hand(world, leader.name, ACCEPTORS[2], granted, late_ms=401)
    assert leader.actor.lease_until > before


def test_a_lease_of_a_former_ballot_counts_for_no_other() -> None:
    world = started()
    leader = leader_of(world)
    phase = leader.actor.phase
    before = leader.actor.lease_until
    phase.heartbeat_number += 1
    phase.sent_at[phase.heartbeat_number] = leader.now_ms + 400
    former = Ballot(phase.ballot.round - 1, leader.name)
    granted = LeaseGranted(ballot=former, number=phase.heartbeat_number)
    for acceptor in ACCEPTORS:
        hand(world, leader.name, acceptor, granted, late_ms=401)
    assert leader.actor.lease_until == before


def test_a_lease_binds_also_against_a_higher_ballot_of_its_holder() -> None:
    world = started()
    leader = leader_of(world)
    ballot = leader.actor.phase.ballot
    heartbeat = LeaseHeartbeat(ballot=ballot, number=1)
    assert types(hand(world, "acceptor-2", leader.name, heartbeat)) == ["lease.granted"]
    higher = Prepare(ballot=Ballot(ballot.round + 1, ballot.proposer), first_slot=1)
    assert types(hand(world, "acceptor-2", leader.name, higher)) == ["paxos.reject"]
    later_ms = world.options.lease_ms
    after = hand(world, "acceptor-2", leader.name, higher, late_ms=later_ms)
    assert types(after) == ["paxos.promise"]


def test_a_restarted_acceptor_is_silent_for_one_lease() -> None:
    """Given an acceptor whose former start may have given a lease, then it promises nothing yet."""
    world = started()
    world.crash("acceptor-2")
    world.start("acceptor-2")
    machine = world.machines["acceptor-2"]
    prepare = Prepare(ballot=Ballot(99, "proposer-4"), first_slot=1)
    started_ms, lease_ms = machine.now_ms, world.options.lease_ms
    assert types(hand(world, "acceptor-2", "proposer-4", prepare)) == ["paxos.reject"]
    late = hand(world, "acceptor-2", "proposer-4", prepare, late_ms=lease_ms - 1)
    assert types(late) == ["paxos.reject"]
    assert machine.now_ms == started_ms
    over = hand(world, "acceptor-2", "proposer-4", prepare, late_ms=lease_ms)
    assert types(over) == ["paxos.promise"]


def test_nothing_of_a_closed_session_happens_any_more() -> None:
    """Given a command of it that comes late, then it is refused, and whoever asks is told so."""
    state = Namespace(Options())
    closing = command(1, "").model_copy(
        update={"session": "t", "operation": CloseSession(target="s")}
    )
    opening = closing.model_copy(update={"sequence": 0, "operation": OpenSession()})
    assert told(state, 1, command(0, "")) == ("done", 1)
    assert told(state, 2, opening) == ("done", 2)
    asked = ReadRequest(number=1, what="result", path="", session="s", sequence=7)
    assert answer_read(state, asked).status == "running"
    assert told(state, 3, closing) == ("done", 3)
    assert answer_read(state, asked).status == "absent"
    assert told(state, 4, command(7, "late"))[0] == "unknown_session"
    assert state.lookup("late") is None


def test_a_former_session_is_closed_however_often_that_is_aborted() -> None:
    """Given a gateway that started again, then it gives up only when the log has closed it."""
    world = started()
    client = world.actor("gateway-1")
    client._former_sessions = ["gateway-1.former"]
    client._session_opened()
    for status in ("aborted", "aborted", "aborted", "done"):
        closing = [
            pending
            for pending in client._pending.values()
            if isinstance(pending.command.operation, CloseSession)
        ]
        assert [pending.command.operation.target for pending in closing] == ["gateway-1.former"]
        del client._pending[closing[0].command.sequence]
        client._conclude(closing[0], Outcome(status=status, slot=1, index=0))
    assert client._pending == {}
    assert client._former_sessions == []


def test_a_result_of_a_former_session_answers_nobody() -> None:
    """Given a gateway that started again, then what its former start is told late is not taken."""
    world = started()
    client = world.actor("gateway-1")
    before = set(client._pending)
    world.write(put("a", b"1"))
    world.run_until(lambda: client._pending.keys() > before, 1_000, 1)
    (sequence,) = set(client._pending) - before
    outcome = Outcome(status="not_found", slot=1, index=0)
    late = Result(session="gateway-1.former", sequence=sequence, outcome=outcome)
    hand(world, "gateway-1", "learner-1", late)
    assert sequence in client._pending


# -- views and decisions --------------------------------------------------------------------------


def view_without(view: View, store: str) -> View:
    kept = tuple(member for member in view.stores if member.name != store)
    return view.model_copy(update={"epoch": view.epoch + 1, "stores": kept})


def choose(world: World, *values: Any) -> Any:
    """`learner-2` learns that these follow the chosen prefix."""
    learner = world.actor("learner-2")
    for value in values:
        learner.log.choose(learner.scanned + 1, value, Ballot(1, "proposer-1"))
        learner._scan_on()
    return learner


def test_of_two_views_of_one_epoch_the_first_takes_effect() -> None:
    world = started()
    view = world.actor("learner-2").view
    learner = choose(world, view_without(view, "store-1"), view_without(view, "store-2"))
    assert [member.name for member in learner.view.stores] == ["store-2", "store-3"]
    assert learner.view.epoch == view.epoch + 1
    assert learner.view_slot == learner.scanned - 1


def test_an_abort_counts_only_in_its_epoch() -> None:
    world = started()
    learner = world.actor("learner-2")
    view, slot = learner.view, learner.scanned + 1
    stale = Abort(slot=slot, commands=(0,), epoch=view.epoch, reason="late")
    choose(world, batch(1), view_without(view, "store-1"), stale)
    assert learner.aborts == {}
    choose(world, stale.model_copy(update={"epoch": view.epoch + 1}))
    assert learner.aborts == {slot: {0: "late"}}


def coordinating(world: World) -> tuple[Any, int, Any]:
    """The coordinator with one slot that all stores but `store-3` have voted on."""
    world.network.cut |= {("learner-1", "store-3")}
    coordinator = world.actor("learner-1").coordinator
    slot = world.actor("learner-1").scanned + 1
    world.write(put("open", b"1"))
    world.run_until(lambda: slot in coordinator.rounds, 5_000, 1)
    round_ = coordinator.rounds[slot]
    world.run_until(lambda: len(round_.votes) == 2, 5_000, 1)
    return coordinator, slot, round_


def test_nothing_is_committed_while_its_abort_is_asked_for() -> None:
    world = started()
    coordinator, slot, round_ = coordinating(world)
    value = world.actor("learner-1").log[slot].value
    assert coordinator._decidable(slot, value) is None
    round_.votes["store-3"] = ()
    assert coordinator._decidable(slot, value) == ()
    round_.abort = Abort(slot=slot, commands=(0,), epoch=0, reason="asked for")
    assert coordinator._decidable(slot, value) is None


def test_a_no_is_never_final_before_the_log_says_so() -> None:
    world = started()
    coordinator, slot, round_ = coordinating(world)
    round_.votes["store-3"] = (Refusal(index=0, reason="no"),)
    assert coordinator._decidable(slot, world.actor("learner-1").log[slot].value) is None
    assert round_.abort is not None


def test_newcomers_alone_refuse_nothing_that_may_have_been_told() -> None:
    """Given that all disks with a say in a slot are gone, then nobody else makes it abort."""
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


def test_a_store_added_later_has_no_say_in_what_came_before() -> None:
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


def test_what_a_store_said_in_a_former_epoch_is_no_answer() -> None:
    """Given its word from before it prepared the slot, then nothing is aborted for it."""
    world = started()
    coordinator, slot, round_ = coordinating(world)
    coordinator.view_slot = slot + 1
    state = TxnState(epoch=coordinator.view.epoch - 1, applied=slot - 1, whole=True, prepared=())
    coordinator._on_state("store-3", state)
    assert round_.not_prepared == set()
    coordinator._on_state("store-3", state.model_copy(update={"epoch": coordinator.view.epoch}))
    assert round_.not_prepared == {"store-3"}


def test_a_prepare_of_a_former_epoch_is_not_voted_on_once_its_contents_are_here() -> None:
    """Given a store that waits for contents when a new epoch begins, then it waits no longer."""
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
    prepare = TxnPrepare(epoch=view.epoch, slot=slot, batch=Batch(stamp_ms=1, commands=(one,)))
    assert "txn.progress" in types(hand(world, "store-3", "learner-1", prepare))
    next_view = view.model_copy(update={"epoch": view.epoch + 1})
    inquiry = TxnInquiry(view=next_view, decided=slot - 1)
    assert "txn.state" in types(hand(world, "store-3", "learner-2", inquiry))
    store.contents.is_nowhere = lambda name: True
    store.out.sends.clear()
    store._try_fetched()
    assert store.prepared == {}
    assert not store.out.sends


# -- reads ----------------------------------------------------------------------------------------


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
    store.now = world.machines["store-3"].now_ms
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


def test_a_read_lease_counts_from_the_asking() -> None:
    """Given a grant that was long under way, then it ends when the leader meant it to end."""
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


def test_no_lease_for_who_was_dropped_by_a_view_that_is_known() -> None:
    """Given an old report that comes late, then the leader does not go back to the View in it."""
    world = started()
    leader = leader_of(world)
    actor = leader.actor
    scanned, former = actor.chosen_through, actor.view
    ask = LeaseAsk(number=1)
    later = Progress(scanned=scanned + 1, decided=scanned + 1, view=view_without(former, "store-3"))
    hand(world, leader.name, "learner-1", later)
    assert types(hand(world, leader.name, "store-3", ask)) == []
    hand(world, leader.name, "learner-2", Progress(scanned=scanned, decided=scanned, view=former))
    assert types(hand(world, leader.name, "store-3", ask)) == []
    assert types(hand(world, leader.name, "store-2", ask)) == ["lease.grant"]


def test_no_lease_before_the_view_in_force_is_known() -> None:
    """Given a new leader that has not heard of all that may be chosen: a View may be among it."""
    world = started()
    leader = leader_of(world)
    actor, phase = leader.actor, leader.actor.phase
    phase.recovered_through = actor.chosen_through + 1
    assert types(hand(world, leader.name, "store-3", LeaseAsk(number=1))) == []
    phase.recovered_through = actor.chosen_through
    assert types(hand(world, leader.name, "store-3", LeaseAsk(number=1))) == ["lease.grant"]


# -- answers to a former start --------------------------------------------------------------------


def asked(effects: Effects) -> int:
    """The number of the one question among what is sent."""
    (number,) = {send.message.number for send in effects.sends}  # type: ignore[union-attr]
    assert isinstance(number, int)
    return number


def restart(world: World, name: str) -> None:
    world.crash(name)
    world.start(name)
    world.run(1_000)


def test_a_lease_that_was_granted_to_a_former_start_is_none() -> None:
    """Given a store that asked for a lease, died and asked again, when the grant to its former
    start comes from its queue, then it does not count from the later asking.
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


def test_an_answer_to_a_former_start_answers_no_read() -> None:
    """Given a gateway that died while it read one file, when it reads another one and the answer
    of before comes from its queue, then nobody is told of the wrong file.
    """
    world = started()
    numbers = []
    for path in ("before", "other"):
        restart(world, "gateway-1")
        world.ready()
        read = Read(token=7, request=ReadRequest(number=0, what="entry", path=path))
        numbers.append(asked(hand(world, "gateway-1", "gateway-1", read)))

    def told(number: int) -> int:
        reply = ReadReply(number=number, status="absent", applied=1)
        return len(hand(world, "gateway-1", "store-1", reply).answers)

    assert told(numbers[0]) == 0
    assert told(numbers[1]) == 1


def test_a_page_of_the_log_for_a_former_start_answers_nobody() -> None:
    """The same for who looks at the log."""
    world = started()
    numbers = []
    for _ in range(2):
        restart(world, "gateway-1")
        world.ready()
        look = ReadLog(token=7, before=0, limit=10)
        numbers.append(asked(hand(world, "gateway-1", "gateway-1", look)))

    def told(number: int) -> int:
        page = LogPage(number=number, entries=(), decided=1, first_kept=1)
        return len(hand(world, "gateway-1", "learner-1", page).answers)

    assert told(numbers[0]) == 0
    assert told(numbers[1]) == 1
