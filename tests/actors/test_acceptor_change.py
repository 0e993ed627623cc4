"""A change of the acceptors, from the request to its end (decision 26, rules 10, 11, 15 and 18)."""

from typing import Any

import pytest

from actors.calls import ChangeBegun, ChangeNotBegun
from actors.messages import Action, ChangeAnswer, ChangeMember, NodeHeartbeat, Superseded
from actors.paxos.acceptor_change import (
    ChangeRefused,
    NotYet,
    check_alive,
    check_all_alive,
    check_promised,
    is_begun,
    may_settle,
    next_members,
)
from actors.paxos.ballot import Ballot
from actors.paxos.membership import Key
from actors.values import FoundingMember, Members, Settled
from chaos.simulator.disk import Disk
from chaos.simulator.invariants import Invariants
from chaos.simulator.machine import MachineObserver
from chaos.simulator.world import World
from tests.worlds import (
    FIVE_ACCEPTORS,
    asked_to,
    begun_to,
    founding_acceptors,
    leader_of,
    put,
    voter,
)

ALPHA = 3
NEW = voter(5, "new")
REPLACED = Members(
    version=1,
    acceptors=(*founding_acceptors(5)[:4], FoundingMember(name=NEW[0], disk=NEW[1])),
)
AMID = FIVE_ACCEPTORS.after(10, REPLACED, ALPHA)


def voters(*numbers: int) -> list[Key]:
    return [voter(number) for number in numbers]


def request(name: str, version: int = 0, action: Action = "replace") -> ChangeMember:
    """A gateway's, which knows that version of the acceptors."""
    return ChangeMember(number=1, action=action, name=name, version=version)


# -- what a leader asks before it begins one -------------------------------------------------------


def test_a_replacement_names_the_other_disk_of_one_acceptor() -> None:
    assert next_members(FIVE_ACCEPTORS, request(NEW[0]), NEW[1]) == REPLACED


def test_an_acceptor_is_added_and_removed_and_three_have_to_stay() -> None:
    """Given five acceptors, then a sixth is added under a free name, with the disk on which it
    runs, and one after the other is removed until three are left.
    """
    six = next_members(FIVE_ACCEPTORS, request("acceptor-6", action="add"), "six")
    sixth = FoundingMember(name="acceptor-6", disk="six")
    assert six == Members(version=1, acceptors=(*founding_acceptors(5), sixth))
    with pytest.raises(ChangeRefused, match="acceptor-1 is an acceptor already"):
        next_members(FIVE_ACCEPTORS, request("acceptor-1", action="add"), "six")
    with pytest.raises(NotYet, match="start it on an empty folder"):
        next_members(FIVE_ACCEPTORS, request("acceptor-6", action="add"), None)
    with pytest.raises(ChangeRefused, match="acceptor-6 is no acceptor"):
        next_members(FIVE_ACCEPTORS, request("acceptor-6", action="remove"), None)
    membership = FIVE_ACCEPTORS
    for version, name in enumerate(("acceptor-5", "acceptor-4")):
        fewer = next_members(membership, request(name, version, "remove"), None)
        amid = membership.after(100 * version + 10, fewer, ALPHA)
        membership = amid.after(100 * version + 50, Settled(version=version + 1), ALPHA)
    assert membership.newest.acceptors == founding_acceptors(3)
    with pytest.raises(ChangeRefused, match="3 acceptors have to stay"):
        next_members(membership, request("acceptor-3", 2, "remove"), None)


def test_none_is_added_while_another_one_is_silent() -> None:
    granted = dict.fromkeys(voters(1, 2, 3, 4, 5), 101)
    check_all_alive(FIVE_ACCEPTORS.newest, granted, since=100)
    with pytest.raises(ChangeRefused, match="acceptor-2 did not answer"):
        check_all_alive(FIVE_ACCEPTORS.newest, granted | {voter(2): 100}, since=100)


@pytest.mark.parametrize(
    ("membership", "name", "disk", "says"),
    [
        (AMID, "acceptor-1", "new", "version 1 of the acceptors is under way"),
        (FIVE_ACCEPTORS, "acceptor-6", "new", "acceptor-6 is no acceptor; these are: acceptor-1"),
        (FIVE_ACCEPTORS, "acceptor-1", None, "start it on an empty folder"),
        (FIVE_ACCEPTORS, "acceptor-1", "disk-1", "start it on an empty folder"),
    ],
)
def test_what_can_not_be_replaced_is_refused_with_the_reason(
    membership: Any, name: str, disk: str | None, says: str
) -> None:
    with pytest.raises(ChangeRefused, match=says):
        next_members(membership, request(name), disk)


@pytest.mark.parametrize(
    ("promised", "missing"),
    [
        ([*voters(1, 2), NEW], ""),
        ([*voters(1, 2, 3, 4)], "acceptor-5"),  # The new one itself.
        ([*voters(1, 5), NEW], "acceptor-2, acceptor-3, acceptor-4"),  # No majority.
    ],
)
def test_a_majority_of_the_new_acceptors_has_promised_before(
    promised: list[Key], missing: str
) -> None:
    if not missing:
        check_promised(REPLACED, FIVE_ACCEPTORS.newest, promised)
        return
    with pytest.raises(ChangeRefused, match=f"no promise yet of {missing}"):
        check_promised(REPLACED, FIVE_ACCEPTORS.newest, promised)


def test_a_majority_of_the_new_acceptors_lives() -> None:
    granted = dict.fromkeys([*voters(1, 2), NEW], 101)
    former = FIVE_ACCEPTORS.newest
    check_alive(REPLACED, former, granted, since=100)
    with pytest.raises(ChangeRefused, match="alive: acceptor-2, acceptor-3, acceptor-4"):
        check_alive(REPLACED, former, granted | {voter(2): 100}, since=100)


def test_the_new_acceptor_itself_lives() -> None:
    granted = dict.fromkeys(voters(1, 2, 3, 4), 101)
    with pytest.raises(ChangeRefused, match="acceptor-5 did not answer"):
        check_alive(REPLACED, FIVE_ACCEPTORS.newest, granted | {NEW: 100}, since=100)


def test_who_asks_again_amid_a_change_is_told_of_the_same_one() -> None:
    assert is_begun(AMID, "replace", "acceptor-5")
    for name in ("acceptor-1", "acceptor-9"):
        assert not is_begun(AMID, "replace", name)
    for action in ("add", "remove"):
        assert not is_begun(AMID, action, "acceptor-5")
    six = next_members(FIVE_ACCEPTORS, request("acceptor-6", action="add"), "six")
    four = next_members(FIVE_ACCEPTORS, request("acceptor-5", action="remove"), None)
    assert is_begun(FIVE_ACCEPTORS.after(10, six, ALPHA), "add", "acceptor-6")
    assert is_begun(FIVE_ACCEPTORS.after(10, four, ALPHA), "remove", "acceptor-5")
    assert not is_begun(FIVE_ACCEPTORS.after(10, four, ALPHA), "replace", "acceptor-5")


# -- when it may end -------------------------------------------------------------------------------


def test_a_change_ends_only_behind_the_fence_the_mark_and_the_read_leases() -> None:
    fenced = dict.fromkeys(voters(1, 2, 5), 1)
    first = AMID.newest.first_slot
    assert may_settle(AMID, fenced, first - 1, 500, 500)
    assert not may_settle(AMID, fenced | {voter(5): 0}, first - 1, 500, 500)
    assert not may_settle(AMID, dict.fromkeys([*voters(1, 2), NEW], 1), first - 1, 500, 500)
    assert not may_settle(AMID, fenced, first - 2, 500, 500)
    assert not may_settle(AMID, fenced, first - 1, 499, 500)


# -- the whole -------------------------------------------------------------------------------------


def asked(world: World, name: str) -> Any:
    return asked_to(world, "replace", name)


def begun(world: World, name: str) -> ChangeBegun:
    """Ask until the leader begins, as the command does."""
    return begun_to(world, "replace", name)


def until_settled(world: World, learner: Any, version: int) -> None:
    def is_settled() -> bool:
        membership = learner.log.membership
        return bool(membership.is_settled and membership.newest.version == version)

    for _ in range(60):
        if is_settled():
            break
        world.run(1_000)
    assert is_settled(), f"the change is left open: {learner.log.membership}"


@pytest.fixture
def world() -> World:
    invariants = Invariants()
    world = World(5, observer=invariants)
    world.start()
    world.ready()
    world.done(put("before", b"1"))
    world.run(3_000)
    return world


def with_an_empty_disk(world: World, name: str) -> Disk:
    """The node restarts on an empty disk; its former one."""
    machine = world.machines[name]
    former = machine.disk
    world.crash(name)
    machine.disk = Disk(f"another after {former.identity}")
    world.start(name)
    world.run(3_000)
    return former


def test_an_acceptor_that_lost_its_disk_is_replaced(world: World) -> None:
    """Given an acceptor on an empty disk, then its votes count for nothing until it is put in the
    place of the former one; then the change ends by itself, and another one may begin.
    """
    refused = asked(world, "acceptor-3")
    assert isinstance(refused, ChangeNotBegun)
    assert "start it on an empty folder" in refused.reason
    learner = world.actor("learner-1")
    for version, name in enumerate(("acceptor-3", "acceptor-1", "acceptor-3"), start=1):
        with_an_empty_disk(world, name)
        assert begun(world, name).version == version
        until_settled(world, learner, version)
        assert world.done(put(f"after-{version}", b"2")).outcome.status == "done"
    named = {a.name: a.disk for a in learner.log.membership.newest.acceptors}
    disks = {name: world.machines[name].disk.identity for name in named}
    assert named == disks
    kinds = [type(known.value) for known in learner.log.known.values()]
    assert (kinds.count(Members), kinds.count(Settled)) == (3, 3)


def test_acceptors_are_added_and_removed_while_the_cluster_runs(world: World) -> None:
    """Given five acceptors, then a sixth is added and two of the founding are removed, one of which
    halts and says why when it is heard; the others choose what follows.
    """
    world.observer = MachineObserver()  # A node halts, and no other test's may.
    learner = world.actor("learner-1")
    refused = asked_to(world, "add", "acceptor-6")
    assert isinstance(refused, ChangeNotBegun)
    world.add_machine("acceptor-6")
    world.start("acceptor-6")
    world.run(3_000)
    steps: tuple[tuple[Action, str], ...] = (
        ("add", "acceptor-6"),
        ("remove", "acceptor-1"),
        ("remove", "acceptor-2"),
    )
    for version, (action, name) in enumerate(steps, start=1):
        assert begun_to(world, action, name).version == version
        until_settled(world, learner, version)
    names = [acceptor.name for acceptor in learner.log.membership.newest.acceptors]
    assert names == [f"acceptor-{number}" for number in (3, 4, 5, 6)]
    world.run(10_000)
    assert set(world.halted) == {"acceptor-1", "acceptor-2"}
    assert "is no acceptor any more" in world.halted["acceptor-1"]
    world.crash("acceptor-3")
    assert world.done(put("after", b"2"), retry=True).outcome.status == "done"
    again = asked_to(world, "add", "acceptor-7")
    assert isinstance(again, ChangeNotBegun)


def test_a_newcomer_counts_for_nothing_before_it_is_named(world: World) -> None:
    """Given three of five acceptors on empty disks, then nothing is chosen, and no change begins:
    the majority of the former disks is gone.
    """
    learner = world.actor("learner-1")
    for name in ("acceptor-1", "acceptor-2", "acceptor-3"):
        with_an_empty_disk(world, name)
    before = learner.chosen_through
    world.write(put("lost", b"1"))
    world.run(20_000)
    assert learner.chosen_through == before
    assert isinstance(asked(world, "acceptor-1"), ChangeNotBegun)


def test_a_former_disk_that_comes_back_halts_and_says_why(world: World) -> None:
    """Given a replaced acceptor whose former disk is started, then it halts, and its votes did not
    count; before the end of the change can be forgotten no disk is let know.
    """
    former = with_an_empty_disk(world, "acceptor-4")
    begun(world, "acceptor-4")
    learner = world.actor("learner-1")
    world.run_until(lambda: learner.log.membership.settled_slot > 0, 60_000)
    world.run(8_000)
    mark, learner._mark = learner._durable_mark(), 0
    durable, learner.learned.durable = learner.learned.durable, 0
    learner.turn.sender_disk = former.identity
    learner._note_acceptor("acceptor-4")
    assert not learner._take().sends
    learner._mark, learner.learned.durable = mark, durable
    learner.turn.sender_disk = world.machines["acceptor-4"].disk.identity
    learner._note_acceptor("acceptor-4")
    assert not [s for s in learner._take().sends if isinstance(s.message, Superseded)]
    machine = world.machines["acceptor-4"]
    world.observer = MachineObserver()
    world.crash("acceptor-4")
    machine.disk = former
    world.start("acceptor-4")
    world.run(8_000)
    assert "is no acceptor any more" in world.halted.get("acceptor-4", "")


def refused(leader: Any, message: ChangeMember) -> str:
    """Why the leader refuses; empty: it does not."""
    leader._on_change_member("gateway-1", message)
    sent = [send.message for send in leader._take().sends]
    (answer,) = [one for one in sent if isinstance(one, ChangeAnswer)]
    return answer.refused


def test_a_late_request_or_a_former_disk_takes_nothing_back(world: World) -> None:
    """Given a replaced acceptor whose former disk is heard again, then neither a request that comes
    twice nor a new one puts the former disk back.
    """
    former = with_an_empty_disk(world, "acceptor-4")
    begun(world, "acceptor-4")
    until_settled(world, world.actor("learner-1"), 1)
    world.run(3_000)
    leader = leader_of(world).actor
    leader.turn.sender_disk = former.identity
    leader._on_heartbeat("acceptor-4", NodeHeartbeat(role="acceptor", journal_commits=9))

    assert "version 0 was to be changed" in refused(leader, request("acceptor-4", version=0))
    assert "start it on an empty folder" in refused(leader, request("acceptor-4", version=1))
    # A later disk of that name was not of the founding: only the version refuses what comes late.
    leader.changes.newcomers["acceptor-4"] = "a later one"
    assert "version 0 was to be changed" in refused(leader, request("acceptor-4", version=0))


def test_a_leader_asks_for_what_is_missing_and_names_it(world: World) -> None:
    """Given a newcomer that has promised nothing yet, then the first request is refused with its
    name, and a later one begins.
    """
    with_an_empty_disk(world, "acceptor-2")
    leader = leader_of(world)
    newcomers = leader.actor.changes.newcomers
    assert newcomers["acceptor-2"] == world.machines["acceptor-2"].disk.identity
    first = asked(world, "acceptor-2")
    assert isinstance(first, ChangeNotBegun)
    assert "no promise yet of" in first.reason
    assert "acceptor-2" in first.reason
    assert begun(world, "acceptor-2").version == 1
    second = asked(world, "acceptor-1")
    assert isinstance(second, ChangeNotBegun)


def test_a_newcomer_that_has_promised_a_higher_ballot_gets_in_by_an_election(world: World) -> None:
    """Given a newcomer that promised a candidate that never led, then the leader's ballot can't get
    its promise, and another one, above both, begins the change.
    """
    with_an_empty_disk(world, "acceptor-2")
    leader = leader_of(world)
    ballot = leader.actor.phase.ballot
    higher = Ballot(ballot.round + 3, "proposer-5")
    newcomer = world.actor("acceptor-2")
    newcomer.promised = higher
    begun(world, "acceptor-2")
    until_settled(world, world.actor("learner-1"), 1)
    assert leader_of(world).actor.phase.ballot > higher
    assert newcomer.promised > higher
