"""Phase 1: what a candidate concludes from promises in pages, and what acceptors put into them."""

from dataclasses import replace
from typing import Any

import pytest

from actors.effects import Envelope
from actors.messages import (
    Accept,
    LearnerProgress,
    NodeHeartbeat,
    Prepare,
    Promise,
    PullChosen,
    Reject,
    Truncate,
)
from actors.options import Options
from actors.paxos.acceptor import TRUNCATED
from actors.paxos.ballot import Ballot
from actors.paxos.phases import Electing, Leading
from actors.values import NOOP, AcceptedValue, Batch, weight
from chaos.simulator.world import World
from tests.worlds import founded, hand, sent

OLD, NEW = Ballot(1, "proposer-1"), Ballot(50, "proposer-5")


def answers(world: World, receiver: str, sender: str, message: Any) -> list[Any]:
    """The answer of `receiver` to a message, once no lease binds it."""
    return sent(hand(world, receiver, sender, message, 10 * world.options.lease_ms))


def accepted(slot: int, ballot: Ballot = OLD) -> AcceptedValue:
    return AcceptedValue(slot=slot, ballot=ballot, value=Batch(elapsed_ms=slot, commands=()))


@pytest.fixture
def world() -> World:
    """A cluster without a leader, in which messages are delivered by hand."""
    cluster = founded(options=Options(page_bytes=100))
    cluster.crash(*cluster.options.names("proposer"))
    cluster.run(3_000)
    cluster.start("proposer-5")
    return cluster


def test_a_pull_returns_all_accepted_values_of_the_range_page_by_page(world: World) -> None:
    """Given values in some slots, when a learner pulls a range page after page, then it gets each
    value in the range once, in order, and no other.
    """
    slots = (300, 301, 302, 304, 305, 400)
    for slot in slots:
        value = accepted(slot, NEW)
        accept = Accept(ballot=NEW, slot=slot, value=value.value)
        assert answers(world, "acceptor-1", "proposer-5", accept)

    def pulled(first: int, last: int) -> list[AcceptedValue]:
        (page,) = answers(
            world, "acceptor-1", "learner-1", PullChosen(first_slot=first, last_slot=last)
        )
        return list(page.entries)

    acceptor = world.actor("acceptor-1")
    acceptor.options = replace(acceptor.options, page_bytes=2 * weight(accepted(300).value))
    found = pulled(300, 304)
    assert [entry.slot for entry in found] == [300, 301, 302]
    while rest := pulled(found[-1].slot + 1, 304):
        found += rest
    assert found == [accepted(slot, NEW) for slot in slots[:4]]
    assert pulled(303, 303) == []
    assert [entry.slot for entry in pulled(400, 10_000)] == [400]


def test_truncated_slots_stay_truncated(world: World) -> None:
    """Given an acceptor that has truncated slots, when it is asked to truncate fewer, or the same
    ones again, then nothing changes, and a later incarnation reports the same.
    """
    for slot in range(300, 306):
        accept = Accept(ballot=NEW, slot=slot, value=accepted(slot).value)
        assert answers(world, "acceptor-1", "proposer-5", accept)
    acceptor = world.actor("acceptor-1")
    for below, kept in ((303, 3), (302, 3), (303, 3), (304, 2), (1, 2), (900, 0)):
        before = acceptor.truncated_below
        effects = hand(world, "acceptor-1", "learner-1", Truncate(below=below))
        rises = below > before
        assert acceptor.truncated_below == max(below, before)
        assert len(acceptor.accepted) == kept
        assert [r.value for r in effects.records if r.key == TRUNCATED] == [b"%d" % below] * rises


class Candidate:
    """`proposer-5`, which campaigns under a new ballot."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.actor = world.actor("proposer-5")
        self.actor._campaign()
        self.actor._take()
        self.ballot = self.actor.phase.ballot
        self.first = self.actor.phase.promises.first_slot

    def receives(
        self,
        acceptor: int,
        first: int,
        following: int | None,
        *slots: AcceptedValue,
        truncated: int = 1,
        ballot: Ballot | None = None,
    ) -> list[int]:
        """Delivers a page of a promise; the first slots of the pages requested next."""
        page = Promise(
            ballot=ballot or self.ballot,
            first_slot=first,
            next_slot=following,
            accepted=slots,
            truncated_below=truncated,
        )
        said = answers(self._world, "proposer-5", f"acceptor-{acceptor}", page)
        return [message.first_slot for message in said if isinstance(message, Prepare)]

    @property
    def proposed(self) -> dict[int, Any]:
        """Once elected: the values that it has proposed, by slot."""
        assert isinstance(self.actor.phase, Leading)
        return {slot: flight.value for slot, flight in self.actor.phase.in_flight.items()}


def test_a_slot_is_empty_only_if_a_page_of_this_ballot_covers_it(world: World) -> None:
    """Given promises in pages, when pages come twice, out of order or for a former ballot, then no
    leader is elected before three acceptors have covered all slots, and no value is lost.
    """
    candidate = Candidate(world)
    former = Ballot(candidate.ballot.round - 1, candidate.ballot.proposer)
    for acceptor in (1, 2):
        assert candidate.receives(acceptor, 1, 3, accepted(1), accepted(2)) == [3]
        assert candidate.receives(acceptor, 9, None) == []  # The page between is missing.
    assert candidate.receives(1, 3, None, accepted(4)) == []
    assert candidate.receives(4, 3, None) == []  # Its first page never came.
    for acceptor in (3, 4, 5):
        assert candidate.receives(acceptor, 1, None, ballot=former) == []
    assert candidate.receives(3, 1, 2) == [2]
    assert candidate.receives(3, 2, None) == []
    assert isinstance(candidate.actor.phase, Electing)

    assert candidate.receives(2, 3, None, accepted(4)) == []
    values = {slot: accepted(slot).value for slot in (1, 2, 4)}
    assert candidate.proposed == {**values, 3: NOOP}


def test_slots_truncated_between_two_pages_are_not_empty(world: World) -> None:
    """Given an acceptor that truncates slots between two pages, then it is asked from the first
    again.
    """
    candidate = Candidate(world)
    assert candidate.receives(1, 1, 3, accepted(1), accepted(2)) == [3]
    assert candidate.receives(1, 3, None, accepted(9), truncated=6) == [1]
    for acceptor in (2, 3):
        assert candidate.receives(acceptor, 1, None) == []
    assert isinstance(candidate.actor.phase, Electing)
    assert candidate.receives(1, 1, None, accepted(7), accepted(9), truncated=6) == []
    assert candidate.proposed == {6: NOOP, 7: accepted(7).value, 8: NOOP, 9: accepted(9).value}


def test_a_new_leader_proposes_nothing_in_slots_that_its_quorum_truncated(world: World) -> None:
    """Given acceptors that have truncated different slots, then the highest mark counts: those
    slots were decided, whatever the others report.
    """
    candidate = Candidate(world)
    candidate.receives(1, 1, None, accepted(2), accepted(6))
    candidate.receives(2, 1, None, truncated=5)
    candidate.receives(3, 1, None, accepted(4), truncated=3)
    assert candidate.proposed == {5: NOOP, 6: accepted(6).value}
    assert candidate.actor.phase.next_slot == 7


def test_values_that_phase_1_found_are_proposed_until_restarted_learners_know_them(
    world: World,
) -> None:
    """Given a slot that a learner reports as chosen under a former ballot, when that learner
    restarts and no longer knows it, then the leader, whose own ballot may have too few votes for it
    while too few are left for the former one, proposes it again.
    """
    candidate = Candidate(world)
    for acceptor in (1, 2, 3):
        candidate.receives(acceptor, 1, None, *([accepted(2)] if acceptor == 2 else []))
    assert candidate.proposed == {1: NOOP, 2: accepted(2).value}

    def proposed_again_after(chosen_through: int) -> list[tuple[int, Any]]:
        heartbeat = NodeHeartbeat(
            role="learner", journal_commits=10**6, chosen_through=chosen_through
        )
        said = answers(world, "proposer-5", "learner-1", heartbeat)
        return [(m.slot, m.value) for m in said if isinstance(m, Accept)]

    assert proposed_again_after(0) == []  # Both are in flight.
    view = world.actor("learner-1").view
    answers(
        world, "proposer-5", "learner-1", LearnerProgress(chosen_through=2, decided=1, view=view)
    )
    assert candidate.proposed == {}
    assert proposed_again_after(2) == []
    assert proposed_again_after(1) == [(2, accepted(2).value)]
    assert proposed_again_after(0) == [(1, NOOP), (2, accepted(2).value)]


def test_a_promise_reports_every_slot_also_after_a_restart(world: World) -> None:
    """Given values with a gap, more than fit into a page, when the pages are requested one after
    the other, then no slot is missing, the last one included; and a new incarnation sends the same.
    """
    slots = [*range(10, 16), *range(18, 24)]
    acceptor = world.machines["acceptor-2"]
    kept = sorted(acceptor.actor.accepted)

    def slots_promised() -> list[int]:
        found: list[int] = []
        first: int | None = 1
        pages = 0
        while first is not None:
            (promise,) = answers(
                world, "acceptor-2", "proposer-5", Prepare(ballot=NEW, first_slot=first)
            )
            assert isinstance(promise, Promise)
            assert promise.first_slot == first
            found += [entry.slot for entry in promise.accepted]
            first = promise.next_slot
            pages += 1
        assert pages > 1
        return found

    for slot in slots:
        accept = Accept(ballot=NEW, slot=slot, value=accepted(slot).value)
        acceptor.arrive((_from(world, accept),))
    world.run(100)
    assert slots_promised() == kept + slots
    world.crash("acceptor-2")
    world.start("acceptor-2")
    assert slots_promised() == kept + slots


def _from(world: World, message: Any, name: str = "proposer-5") -> Envelope:
    sender = world.machines[name].disk
    cluster = world.machines["acceptor-1"].actor.cluster
    return Envelope(cluster, name, sender.identity, sender.incarnation, message)


def test_a_restarted_acceptor_does_not_take_truncated_slots_for_empty(world: World) -> None:
    """Given an acceptor that has truncated slots, then also its next incarnation reports it and
    accepts nothing for them.
    """
    world.machines["acceptor-2"].arrive((_from(world, Truncate(below=40), "learner-1"),))
    world.run(100)
    world.crash("acceptor-2")
    world.start("acceptor-2")
    (promise,) = answers(world, "acceptor-2", "proposer-5", Prepare(ballot=NEW, first_slot=1))
    assert (promise.accepted, promise.truncated_below) == ((), 40)
    late = Accept(ballot=NEW, slot=39, value=NOOP)
    (refusal,) = answers(world, "acceptor-2", "proposer-5", late)
    assert isinstance(refusal, Reject)
    assert world.actor("acceptor-2").accepted == {}
