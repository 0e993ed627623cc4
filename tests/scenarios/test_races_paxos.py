"""Races in Paxos that are rare by chance, set up by hand with real actors."""

from typing import Any

from actors.learner.chosen_log import ChosenLog
from actors.messages import (
    LeaseGranted,
    LeaseHeartbeat,
    Prepare,
    Promise,
)
from actors.paxos.ballot import Ballot
from actors.paxos.phases import Leading
from actors.values import (
    ALPHA,
    NOOP,
    AcceptedValue,
)
from chaos.simulator.world import World
from tests.worlds import FIVE_ACCEPTORS, batch, hand, leader_of, put, started, types, voter

ACCEPTORS = tuple(f"acceptor-{n}" for n in range(1, 6))


def test_a_new_leader_takes_for_each_slot_the_value_of_the_highest_ballot() -> None:
    """Given three promises with a gap, two ballots for one slot, and a slot that one promise
    reports.
    """
    world = started()
    name = next(m.name for m in world.up("proposer") if m is not leader_of(world))
    proposer = world.actor(name)
    proposer._campaign()
    ballot, first = proposer.phase.ballot, proposer.phase.promises.first_slot
    low, high = Ballot(1, "proposer-1"), Ballot(1, "proposer-5")
    reported = [
        (AcceptedValue(slot=first + 1, ballot=low, value=batch(1)),),
        (AcceptedValue(slot=first + 1, ballot=high, value=batch(2)),),
        (AcceptedValue(slot=first + 2, ballot=low, value=batch(3)),),
    ]
    for acceptor, accepted in zip(ACCEPTORS, reported, strict=False):
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

    # None of that was chosen: the next campaign finds it again.
    proposer._step_down("no quorum")
    proposer._campaign()
    assert world.actor(name).phase.promises.first_slot == first


def five_voters() -> ChosenLog:
    log = ChosenLog()
    log.begin(FIVE_ACCEPTORS, ALPHA)
    return log


def test_votes_of_two_ballots_are_no_quorum() -> None:
    log = five_voters()
    one, two = Ballot(1, "proposer-1"), Ballot(2, "proposer-2")
    log.record_value(1, one, batch(1))
    log.record_value(1, two, batch(2))
    for number, ballot in enumerate((one, one, two, two), start=1):
        log.record_vote(1, ballot, voter(number))
    assert log.extend_prefix() is None
    log.record_vote(1, two, voter(5))
    assert (log.extend_prefix(), log[1].value) == (1, batch(2))


def test_a_decision_chooses_what_was_proposed_under_its_own_ballot() -> None:
    """Given values of three ballots for one slot, of which the middle one was decided."""
    ballots = [Ballot(number, "proposer-1") for number in (1, 2, 3)]
    log = five_voters()
    for ballot in (ballots[0], ballots[2]):
        log.record_value(1, ballot, batch(ballot.round))
    log.record_decision(1, ballots[1])
    assert log.extend_prefix() is None  # Its value has not come yet.
    log.record_value(1, ballots[1], batch(2))
    log.record_decision(1, ballots[1])
    assert (log.extend_prefix(), log[1].value) == (1, batch(2))


def test_the_chosen_prefix_ends_at_a_gap() -> None:
    log = five_voters()
    log.choose(2, batch(2), Ballot(1, "proposer-1"))
    assert (log.extend_prefix(), log.chosen_through) == (None, 0)
    log.choose(1, batch(1), Ballot(1, "proposer-1"))
    assert [log.extend_prefix(), log.extend_prefix(), log.extend_prefix()] == [1, 2, None]


def test_a_learner_that_receives_no_vote_pulls_chosen_slots() -> None:
    """Given learners that don't receive each other's messages, then the acceptors send what they
    accepted.
    """
    world = started()
    world.network.cut |= {("learner-1", "learner-2"), ("learner-2", "learner-1")}
    written = world.done(put("a", b"2")).outcome
    world.run(2_500)
    assert world.actor("learner-2").chosen_through >= written.slot


def test_a_lease_counts_from_the_sending_of_the_acknowledged_heartbeat() -> None:
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
    phase.sent_version[phase.heartbeat_number] = 0
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


def test_a_restarted_acceptor_promises_nothing_for_one_lease() -> None:
    """Given an acceptor whose former incarnation may have given a lease, then it promises nothing
    yet.
    """
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


def choose(world: World, *values: Any) -> Any:
    """`learner-2` learns that these follow the chosen prefix."""
    learner = world.actor("learner-2")
    for value in values:
        learner.log.choose(learner.chosen_through + 1, value, Ballot(1, "proposer-1"))
        learner._extend_prefix()
    return learner
