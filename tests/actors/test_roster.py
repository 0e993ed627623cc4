"""The roster: proposers, learners and stores come and go (decision 26, rules 19 to 23)."""

from typing import Any

import pytest
from pydantic import ValidationError

from actors.calls import ChangeNotBegun, MemberReport, Survey
from actors.gateway.member_reports import members_report
from actors.messages import Action, ChangeMember
from actors.paxos.acceptor_change import ChangeRefused, NotYet
from actors.paxos.membership import CountedRoster, Membership
from actors.paxos.roster_change import (
    Heard,
    Surroundings,
    check_replacement,
    next_roster,
    version_reached,
)
from actors.values import Constants, FoundingMember, Genesis, Roster, StoreMember, View
from chaos.simulator.disk import Disk
from chaos.simulator.machine import MachineObserver
from chaos.simulator.world import World
from tests.worlds import FIVE_ACCEPTORS, asked_to, begun_to, founded, leader_of, put

NAMES = ("proposer-1", "proposer-2", "learner-1", "learner-2", "store-1", "store-2", "store-3")
ALPHA = 3
STORES = tuple(
    StoreMember(name=f"store-{number}", disk=f"disk-store-{number}", added_slot=0)
    for number in (1, 2, 3)
)
VIEW = View(
    epoch=0,
    coordinator="learner-1",
    coordinator_disk="disk-learner-1",
    coordinator_incarnation=1,
    stores=STORES,
)
GENESIS = Genesis(
    cluster="c",
    constants=Constants(),
    members=(
        *(FoundingMember(name=name, disk=f"disk-{name}") for name in NAMES),
        *FIVE_ACCEPTORS.newest.acceptors,
    ),
    view=VIEW,
)
ALL_HEARD = {name: Heard(at=100, disk=f"disk-{name}", durable=9) for name in NAMES}


def request(action: Action, name: str, version: int = 0) -> ChangeMember:
    return ChangeMember(number=1, action=action, name=name, version=version)


def around(
    membership: Membership = FIVE_ACCEPTORS, silent: tuple[str, ...] = (), **heard: Heard
) -> Surroundings:
    """All members live, but for the silent ones; `heard` adds to them (store_4: store-4)."""
    added = {name.replace("_", "-"): one for name, one in heard.items()}
    known = {name: one for name, one in (ALL_HEARD | added).items() if name not in silent}
    return Surroundings(membership, GENESIS, VIEW, known, alive_since=50)


def after(*values: tuple[int, Any]) -> Membership:
    membership = FIVE_ACCEPTORS
    for slot, value in values:
        membership = membership.after(slot, value, ALPHA)
    return membership


ADDED = next_roster(request("add", "store-4"), around(store_4=Heard(100, "new")))
REMOVED = next_roster(request("remove", "store-3"), around())


# -- what counts -----------------------------------------------------------------------------------


def test_a_roster_takes_effect_in_its_slot_if_its_version_is_the_next() -> None:
    """Given rosters of several versions, then one that is not the next changes nothing, and a disk
    that was removed is remembered until its name is a member again.
    """
    assert FIVE_ACCEPTORS.names("store", GENESIS) == ("store-1", "store-2", "store-3")
    assert after((9, ADDED)).names("store", GENESIS) == (*[s.name for s in STORES], "store-4")
    later = ADDED.model_copy(update={"version": 2})
    assert after((9, later)) == FIVE_ACCEPTORS
    assert after((9, ADDED), (10, ADDED)) == after((9, ADDED))
    gone = after((9, REMOVED))
    assert gone.roster is not None
    assert (gone.roster.slot, gone.names("store", GENESIS)) == (9, ("store-1", "store-2"))
    again = Roster(version=2, members=(*NAMES[:-1], "store-3"))
    other = Roster(
        version=2,
        members=NAMES[:-1],
        removed=(FoundingMember(name="proposer-9", disk="nine"),),
    )
    assert after((9, REMOVED), (10, again)).roster == CountedRoster(
        version=2, slot=10, members=again.members
    )
    kept = after((9, REMOVED), (10, other)).roster
    assert kept is not None
    assert [one.name for one in kept.removed] == ["proposer-9", "store-3"]


def test_a_disk_is_removed_and_no_later_one_of_its_name() -> None:
    gone = after((9, REMOVED))
    assert gone.is_removed("store-3", "disk-store-3", GENESIS)
    assert not gone.is_removed("store-3", "new", GENESIS)
    assert not gone.is_removed("store-2", "disk-store-2", GENESIS)
    assert not FIVE_ACCEPTORS.is_removed("store-3", "disk-store-3", GENESIS)


@pytest.mark.parametrize(
    "members",
    [
        NAMES[2:],
        (*NAMES[:3], *NAMES[4:]),
        NAMES[:4],
        (*NAMES, "store-3"),
        (*NAMES, "acceptor-1"),
        (*NAMES, "store-04"),
        (*NAMES, "@stores"),
    ],
)
def test_a_roster_that_no_cluster_can_live_by_is_no_value(members: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        Roster(version=1, members=members)


def test_no_write_needs_more_stores_than_there_are() -> None:
    strict = GENESIS.model_copy(update={"constants": Constants(rowa="strict")})
    for changes, needed in (((), 3), (((9, ADDED),), 3), (((9, REMOVED),), 2)):
        membership = after(*changes)
        assert membership.stores_needed(strict) == needed
        assert membership.stores_needed(GENESIS) == 2


# -- what a leader refuses -------------------------------------------------------------------------


def test_a_member_is_added_and_removed_by_name() -> None:
    assert ADDED.members == (*NAMES, "store-4")
    assert (ADDED.version, ADDED.removed) == (1, ())
    assert REMOVED.members == NAMES[:-1]
    assert REMOVED.removed == (FoundingMember(name="store-3", disk="disk-store-3"),)
    joining = next_roster(request("remove", "store-3"), around(store_3=Heard(100, "a new one")))
    assert [one.disk for one in joining.removed] == ["a new one", "disk-store-3"]
    gone = after((9, joining))
    for disk in ("a new one", "disk-store-3"):
        assert gone.is_removed("store-3", disk, GENESIS)


@pytest.mark.parametrize(
    ("asked", "known", "says"),
    [
        (request("add", "store-3"), around(), "store-3 is a member already"),
        (request("add", "store-65"), around(), "numbers go up to 64"),
        (request("add", "store-4"), around(), "store-4 has not been heard"),
        (request("add", "store-4"), around(store_4=Heard(50, "new")), "has not been heard"),
        (request("add", "store-4", 1), around(store_4=Heard(100, "new")), "is of version 0"),
        (
            request("add", "store-3", 1),
            around(after((9, REMOVED))),
            "runs on the disk that was removed",
        ),
        (request("remove", "store-4"), around(), "store-4 is no member; of its role are: store-1"),
        (request("remove", "learner-1"), around(), "2 learners have to stay"),
        (request("remove", "store-3"), around(silent=("store-1",)), "would have 1 whole stores"),
        (
            request("remove", "store-3"),
            around(store_1=Heard(100, "disk-store-1", is_sound=False)),
            "would have 1 whole stores (store-2), and writes need 2",
        ),
        (request("remove", "store-3"), around(store_1=Heard(100, "other")), "1 whole stores"),
        (request("remove", "proposer-1"), around(silent=("proposer-2",)), "none of the others"),
    ],
)
def test_what_would_leave_too_few_is_refused_with_the_reason(
    asked: ChangeMember, known: Surroundings, says: str
) -> None:
    with pytest.raises(ChangeRefused, match=says.replace("(", "[(]").replace(")", "[)]")):
        next_roster(asked, known)


def test_a_store_that_is_to_go_counts_for_nothing_when_the_next_one_goes() -> None:
    """Given a view that still names a removed store, then no second one may go."""
    with pytest.raises(ChangeRefused, match="1 whole stores"):
        next_roster(request("remove", "store-2", 1), around(after((9, REMOVED))))


def test_no_learner_goes_while_the_others_copy_what_it_has() -> None:
    three = Roster(version=1, members=(*NAMES[:4], "learner-3", *NAMES[4:]))
    sound = Heard(100, "new", durable=9)
    known = around(after((9, three)), ("learner-2",), learner_3=sound)
    assert next_roster(request("remove", "learner-1", 1), known).version == 2
    for copying in (sound._replace(is_sound=False), sound._replace(durable=0)):
        known = around(after((9, three)), ("learner-2",), learner_3=copying)
        with pytest.raises(NotYet, match="still copy states or the audit"):
            next_roster(request("remove", "learner-1", 1), known)


def test_the_last_proposer_stays() -> None:
    one = Roster(version=1, members=NAMES[1:])
    with pytest.raises(ChangeRefused, match="proposer-2 is the only proposer"):
        next_roster(request("remove", "proposer-2", 1), around(after((9, one))))


def test_a_replacement_of_these_roles_changes_nothing_in_the_log() -> None:
    """Given a member, then its replacement is seen once it runs on another disk than its first."""
    with pytest.raises(NotYet, match="start it on an empty folder"):
        check_replacement(request("replace", "store-1"), around())
    with pytest.raises(NotYet, match="start it on an empty folder"):
        check_replacement(request("replace", "store-1"), around(silent=("store-1",)))
    with pytest.raises(ChangeRefused, match="store-9 is no member"):
        check_replacement(request("replace", "store-9"), around())
    check_replacement(request("replace", "store-1"), around(store_1=Heard(100, "new")))


def test_a_request_that_comes_twice_is_answered_with_what_came_of_it() -> None:
    assert version_reached(request("add", "store-4"), after((9, ADDED)), GENESIS) == 1
    assert version_reached(request("remove", "store-3"), after((9, REMOVED)), GENESIS) == 1
    assert version_reached(request("add", "store-3"), after((9, REMOVED)), GENESIS) is None
    assert version_reached(request("add", "store-4"), FIVE_ACCEPTORS, GENESIS) is None
    assert version_reached(request("remove", "store-3", 1), after((9, REMOVED)), GENESIS) is None


# -- the whole -------------------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    cluster = founded(5)
    cluster.observer = MachineObserver()
    cluster.done(put("before", b"1"))
    cluster.run(3_000)
    return cluster


def until(world: World, name: str, standing: str, within_ms: int = 30_000) -> MemberReport:
    """Wait until the gateway reports that standing of a node."""
    report: MemberReport | None = None
    for _ in range(within_ms // 250):
        survey = world.answer(world.call(lambda token: Survey(token=token)))
        report = survey.members.of(name)
        if report is not None and report.standing == standing:
            return report
        world.run(250)
    raise AssertionError(f"{name} is not {standing}, but {report}")


def with_one_more(world: World, name: str) -> None:
    world.add_machine(name)
    world.start(name)
    until(world, name, "newcomer")
    begun_to(world, "add", name)


def test_stores_are_added_and_removed(world: World) -> None:
    """Given three stores, then a fourth is added and becomes whole, and a founding one is removed:
    it stays until the view drops it, and then halts and says why; on an empty folder it waits.
    """
    with_one_more(world, "store-4")
    until(world, "store-4", "member")
    assert world.actor("learner-1").view.member("store-4") is not None
    begun_to(world, "remove", "store-1")
    until(world, "store-1", "removed")
    world.run(5_000)
    assert set(world.halted) == {"store-1"}
    assert "it was removed (version 2 of the roster)" in world.halted["store-1"]
    assert world.actor("learner-1").view.member("store-1") is None
    assert world.done(put("after", b"2")).outcome.status == "done"
    world.start("store-1")
    assert "it was removed" in world.halted["store-1"]
    world.machines["store-1"].disk = Disk("another")
    world.start("store-1")
    until(world, "store-1", "newcomer")
    begun_to(world, "add", "store-1")
    until(world, "store-1", "member")
    assert not {"store-1"} & set(world.halted)


def test_a_learner_that_coordinates_is_removed(world: World) -> None:
    """Given a coordinator that is removed, then another learner takes over at once, and only then
    it halts; the one that was added never coordinated before it was a member.
    """
    coordinator = world.actor("store-1").state.view.coordinator
    world.add_machine("learner-3")
    world.start("learner-3")
    until(world, "learner-3", "newcomer")
    refused = asked_to(world, "remove", coordinator)
    assert isinstance(refused, ChangeNotBegun)
    assert "2 learners have to stay" in refused.reason
    begun_to(world, "add", "learner-3")
    until(world, "learner-3", "member")
    begun_to(world, "remove", coordinator)
    until(world, coordinator, "removed")
    world.run(5_000)
    assert set(world.halted) == {coordinator}
    view = world.actor("store-1").state.view
    assert view.coordinator != coordinator
    assert world.done(put("after", b"2")).outcome.status == "done"


def test_the_leader_is_removed(world: World) -> None:
    """Given a leader that is removed, then it steps down and halts, and another one leads; one that
    was added does not stand for election before.
    """
    world.add_machine("proposer-6")
    world.start("proposer-6")
    world.run(10_000)
    assert world.actor("proposer-6").counters["elections"] == 0
    begun_to(world, "add", "proposer-6")
    until(world, "proposer-6", "member")
    leader = leader_of(world).name
    begun_to(world, "remove", leader)
    until(world, leader, "removed")
    world.run(5_000)
    assert set(world.halted) == {leader}
    world.crash(*(name for name in world.options.names("proposer") if name != leader))
    assert world.done(put("after", b"2"), retry=True).outcome.status == "done"
    assert leader_of(world).actor.phase.ballot.node == "proposer-6"


def test_a_store_that_lost_its_disk_joins_by_itself_and_the_report_shows_it(world: World) -> None:
    refused = asked_to(world, "replace", "store-2")
    assert isinstance(refused, ChangeNotBegun)
    world.crash("store-2")
    world.machines["store-2"].disk = Disk("another")
    world.start("store-2")
    assert begun_to(world, "replace", "store-2").version == 0
    report = until(world, "store-2", "member")
    assert (report.disk, report.runs_on) == ("another", "another")
    for name in ("stranger", "gateway-1", "store-01", "store-" + "9" * 5_000):
        answer = asked_to(world, "add", name)
        assert isinstance(answer, ChangeNotBegun)
        assert "no name of a member" in answer.reason


# -- who acts, and who halts -----------------------------------------------------------------------


def without(world: World, name: str, slot: int) -> Membership:
    """The membership after a roster in `slot` that removes a founding member."""
    genesis = world.actor("store-1").genesis
    roles = ("proposer", "learner", "store")
    members = tuple(one for role in roles for one in genesis.names(role) if one != name)
    spare = (*members, "learner-9") if name.startswith("learner") else members
    roster = Roster(version=1, members=spare)
    membership: Membership = world.actor("learner-1").log.membership
    return membership.after(slot, roster, ALPHA)


def test_a_learner_that_waits_to_be_added_takes_over_from_nobody(world: World) -> None:
    """Given a newcomer and no other learner, then it does not stand for coordinator."""
    world.add_machine("learner-9")
    world.start("learner-9")
    world.run(5_000)
    world.crash(*world.options.names("learner"))
    world.run(15_000)
    newcomer = world.actor("learner-9")
    assert newcomer.decided > 0
    assert newcomer.counters["takeovers_proposed"] == 0
    assert newcomer.coordinator is None


def test_a_removed_store_halts_once_that_is_durable_and_no_view_names_it(world: World) -> None:
    store = world.actor("store-2")
    slot, view = store.durable, store.state.view
    store.state._changed_membership = without(world, "store-2", slot)
    assert store._removal() == ""  # The view names it.
    others = tuple(member for member in view.stores if member.name != "store-2")
    store.state.view = view.model_copy(update={"stores": others})
    assert "store-2: it was removed" in store._removal()
    store.state._changed_membership = without(world, "store-2", slot + 1)
    assert store._removal() == ""
    store.state._changed_membership = without(world, "store-3", slot)
    assert store._removal() == ""


def test_a_removed_learner_halts_once_that_is_durable_and_it_does_not_coordinate(
    world: World,
) -> None:
    name = world.actor("store-1").state.view.coordinator
    learner = world.actor(name)
    learner.state._changed_membership = without(world, name, learner.durable)
    assert learner._removal() == ""  # It coordinates.
    learner.coordinator = None
    assert f"{name}: it was removed" in learner._removal()
    learner.state._changed_membership = without(world, name, learner.durable + 1)
    assert learner._removal() == ""


def test_a_removed_leader_steps_down_at_once_and_halts_once_that_is_durable(world: World) -> None:
    leader = leader_of(world).actor
    leader._changed_membership = without(world, leader.name, leader.chosen_through)
    leader.durable_mark = leader.chosen_through - 1
    assert leader._removal() == ""
    leader._on_leader_due("")
    assert not hasattr(leader.phase, "ballot")
    leader.durable_mark = leader.chosen_through
    assert f"{leader.name}: it was removed" in leader._removal()
    assert not leader.is_member


def test_a_proposer_that_waits_to_be_added_does_not_stand_for_election(world: World) -> None:
    """Given proposers that have heard of no leader for long, then only the member stands."""
    world.add_machine("proposer-9")
    world.start("proposer-9")
    world.run(5_000)
    for name, stands in (("proposer-9", 0), ("proposer-5", 1)):
        proposer = world.actor(name)
        before = proposer.counters["elections"]
        proposer.phase.heard_at = proposer.turn.resumed_at = -60_000
        proposer._on_election_due("")
        assert proposer.counters["elections"] - before == stands


def test_a_gateway_says_that_a_store_may_go_once_nothing_depends_on_it(world: World) -> None:
    """Given a removed store, then it may be switched off once its removal and the view without it
    are durable; not while the view names it, nor while either can be forgotten.
    """
    gateway = world.actor("gateway-1")
    state, genesis = gateway.cluster_state, gateway.genesis
    view = state.view or genesis.view
    others = tuple(member for member in view.stores if member.name != "store-2")
    dropped = view.model_copy(update={"stores": others})
    state._membership = without(world, "store-2", 50)

    def standing(mark: int, now: View, through: int = 51) -> str:
        state._durable_mark, state.view, state._view_through = mark, now, through
        report = members_report(state, genesis).of("store-2")
        assert report is not None
        return report.standing

    assert standing(49, dropped) == "leaving"
    assert standing(49, dropped, through=40) == "leaving"
    assert standing(60, view) == "leaving"
    assert standing(50, dropped) == "leaving"
    assert standing(51, dropped) == "removed"
    coordinator = view.coordinator
    state._membership = without(world, coordinator, 50)
    report = members_report(state, genesis).of(coordinator)
    assert report is not None
    assert report.standing == "leaving"
