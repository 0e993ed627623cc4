"""Learners count votes by disk, by the acceptors of the slot (decision 26, rules 15 and 17)."""

from actors.learner.learner import Learner
from actors.messages import Accept, Accepted, SnapshotRow
from actors.paxos.ballot import Ballot
from actors.values import NOOP, FoundingMember, Members
from chaos.simulator.world import World
from tests.worlds import started

BALLOT = Ballot(9, "proposer-1")


def vote(learner: Learner, slot: int, *voters: tuple[str, str]) -> bool:
    """Whether the votes of acceptors on these disks choose a `NoOp` for the slot."""
    learner._on_accept("proposer-1", Accept(ballot=BALLOT, slot=slot, value=NOOP))
    for name, disk in voters:
        learner.turn.sender_disk = disk
        learner._on_accepted(name, Accepted(ballot=BALLOT, slot=slot))
    return learner.log.is_known(slot)


def acceptors(world: World) -> list[tuple[str, str]]:
    return [(name, world.machines[name].disk.identity) for name in world.options.names("acceptor")]


def test_a_learner_counts_the_disk_that_voted() -> None:
    """Given votes of five names, of which three are on new disks, then nothing is chosen."""
    world = started()
    learner, voters = world.actor("learner-1"), acceptors(world)
    replaced = [(name, "new") for name, _ in voters[2:]]
    assert not vote(learner, learner.chosen_through + 1, *voters[:2], *replaced)
    assert vote(learner, learner.chosen_through + 1, voters[2])


def test_a_learner_that_installs_a_snapshot_counts_by_its_acceptors() -> None:
    """Given a state of another replica in which acceptor-1 is replaced, then the learner that
    copies it counts the votes of the new disk, and of the old one no more.
    """
    world = started()
    learner, (first, second, third, *others) = world.actor("learner-1"), acceptors(world)
    constants = learner.constants.model_copy(update={"alpha": 1})
    world.actor("learner-2").state.constants = learner.genesis.__dict__["constants"] = constants
    other = world.actor("learner-2").state
    new = (first[0], "new")
    named = [FoundingMember(name=n, disk=d) for n, d in (new, second, third, *others)]
    members = Members(version=1, acceptors=tuple(named))
    slot = other.applied + 1
    other.apply(slot, members, ())

    rows = [SnapshotRow(key=key, value=row.to_json().decode()) for key, row in other.rows()]
    learner._install(slot, rows)

    assert learner.log.membership == other.membership
    assert not vote(learner, slot + 1, first, second, third)
    assert vote(learner, slot + 1, new)
