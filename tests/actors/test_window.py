"""What a leader may propose: slots within alpha of the prefix that it knows, whose own acceptors
have promised (decision 26, rules 4 and 7).
"""

import pytest

from actors.messages import LearnerProgress, Promise, ProposeValue
from actors.options import Options
from actors.paxos.ballot import Ballot
from actors.paxos.membership import Membership
from actors.paxos.phase_one import Promises
from actors.paxos.phases import Leading
from actors.paxos.proposer import Proposer
from actors.values import Abort, AcceptedValue, FoundingMember, Members
from chaos.simulator.world import World
from tests.worlds import FIVE_ACCEPTORS, batch, founded, founding_acceptors, voter

ALPHA = 4
FORMER = Ballot(1, "proposer-1")
REPLACED = Members(
    version=1,
    acceptors=(FoundingMember(name="acceptor-1", disk="new"), *founding_acceptors(5)[1:]),
)
AMID = FIVE_ACCEPTORS.after(5, REPLACED, ALPHA)
"""acceptor-1 on its new disk chooses the slots from 9 on."""


def reported(*slots: int) -> tuple[AcceptedValue, ...]:
    return tuple(AcceptedValue(slot=slot, ballot=FORMER, value=batch(slot)) for slot in slots)


def promise(ballot: Ballot, *slots: int, truncated_below: int = 1) -> Promise:
    return Promise(
        ballot=ballot,
        first_slot=1,
        next_slot=None,
        accepted=reported(*slots),
        truncated_below=truncated_below,
    )


def leading(world: World, membership: Membership, chosen_through: int) -> Proposer:
    """`proposer-5` with that knowledge, elected by promises that report nothing."""
    proposer = world.actor("proposer-5")
    assert isinstance(proposer, Proposer)
    proposer.chosen_through = chosen_through
    proposer._founded = membership
    proposer._low_water = 1
    proposer._campaign()
    return proposer


@pytest.fixture
def world() -> World:
    return founded(options=Options(window_slots=2, alpha=ALPHA))


def receives(proposer: Proposer, voters: list[tuple[str, str]], *slots: int) -> None:
    ballot = proposer.phase.ballot  # type: ignore[union-attr]
    for name, disk in voters:
        proposer.turn.sender_disk = disk
        proposer._on_promise(name, promise(ballot, *slots))


def knows(world: World, proposer: Proposer, through: int) -> bool:
    view = world.actor("learner-1").view
    return proposer._learn(LearnerProgress(chosen_through=through, decided=through, view=view))


def proposed(proposer: Proposer) -> list[int]:
    assert isinstance(proposer.phase, Leading)
    return sorted(proposer.phase.in_flight)


def test_a_leader_proposes_nothing_beyond_its_window(world: World) -> None:
    """Given a new leader that knows slots up to 3 and finds some up to 12, then it proposes them as
    far as slot 7, and more as the prefix grows; and Aborts wait, too.
    """
    proposer = leading(world, FIVE_ACCEPTORS, 3)
    receives(proposer, [voter(1)], *range(1, 13))
    receives(proposer, [voter(number) for number in (2, 3)])
    assert proposed(proposer) == list(range(1, 8))

    assert knows(world, proposer, 8)
    proposer._advance(proposer.phase)  # type: ignore[arg-type]
    assert proposed(proposer) == list(range(1, 13))
    aborts = [Abort(slot=1, commands=(), epoch=number, reason="late") for number in (1, 2)]
    for abort in aborts:
        proposer._on_propose_value("learner-1", ProposeValue(value=abort))
        proposer._on_propose_value("learner-1", ProposeValue(value=abort))
    assert proposed(proposer) == list(range(1, 13))
    assert knows(world, proposer, 9)
    proposer._advance(proposer.phase)  # type: ignore[arg-type]
    assert proposed(proposer) == list(range(1, 14))
    assert knows(world, proposer, 20)
    proposer._advance(proposer.phase)  # type: ignore[arg-type]
    assert proposed(proposer) == list(range(1, 15)), "each is proposed once"
    proposer._take()


def test_a_slot_waits_for_the_promises_of_its_own_acceptors(world: World) -> None:
    """Given a change under way and a leader without a majority of the new acceptors, then it
    proposes the slots of the old ones alone.
    """
    proposer = leading(world, FIVE_ACCEPTORS, 3)
    receives(proposer, [voter(1)], *range(1, 13))
    receives(proposer, [voter(2), voter(3)])
    proposer._changed_membership, proposer.chosen_through = AMID, 12
    proposer._advance(proposer.phase)  # type: ignore[arg-type]
    assert proposed(proposer) == list(range(1, 9))
    proposer._take()


def test_a_slot_is_judged_by_the_promises_of_its_own_acceptors() -> None:
    """Given votes of two disks under the name acceptor-1, then each counts in its own slots."""
    promises = Promises(1)
    for key in (voter(1), voter(1, "new"), voter(2)):
        promises.take(key, promise(FORMER, 8, 9))
    promises.take(voter(3), promise(FORMER))
    for slot in (8, 9):
        found = promises.found(slot, AMID.at(slot))
        assert found is not None
        assert not found.is_chosen, "two members of each, and one that is none"
    promises.take(voter(4), promise(FORMER, 8, 9, truncated_below=7))
    for slot in (8, 9):
        found = promises.found(slot, AMID.at(slot))
        assert found is not None
        assert found.is_chosen
    promises.take(voter(5, "other"), promise(FORMER, 10, truncated_below=11))
    assert promises.found(10, AMID.at(10)) is None
    assert promises.truncated_below(AMID.at(8)) == 7
