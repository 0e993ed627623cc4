"""How a cluster is founded, and which nodes are refused."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from actors.effects import NOTHING, Envelope, TimerKey
from actors.founding import HELD
from actors.messages import (
    Founded,
    HoldsGenesis,
    Prepare,
    Present,
    ProposeGenesis,
    StaleDisk,
    Submit,
)
from actors.options import Identity, Options
from actors.paxos.ballot import Ballot
from actors.paxos.votes import learned
from actors.roles import build_actor
from actors.values import Batch, Command, Genesis, OpenSession
from chaos.simulator.disk import Disk
from chaos.simulator.parcels import Envelopes
from chaos.simulator.world import World
from tests.worlds import founded, hand, intercepted, leader_of, put


def said(cluster: World, sender: str, message: Any, disk: str = "") -> Envelope:
    """A message of `sender` that names no cluster yet."""
    known = cluster.machines[sender].disk
    return Envelope("", sender, disk or known.identity, known.incarnation, message)


def test_all_members_hold_one_genesis_with_their_own_disks() -> None:
    cluster = founded()

    geneses = {cluster.actor(name).genesis for name in cluster.names}

    assert len(geneses) == 1
    (genesis,) = geneses
    assert {m.name: m.disk for m in genesis.members} == {
        name: cluster.machines[name].disk.identity for name in cluster.options.members
    }


def test_nothing_is_founded_while_a_member_is_away() -> None:
    cluster = World(2)
    cluster.start(*(name for name in cluster.names if name != "store-3"))

    cluster.run(10_000)

    running = [machine for machine in cluster.machines.values() if machine.is_up]
    assert {machine.actor.cluster for machine in running} == {""}
    cluster.start("store-3")
    cluster.ready()


@pytest.mark.parametrize("after_ms", range(0, 60, 4))
def test_founding_goes_on_after_all_nodes_were_stopped_in_the_middle(after_ms: int) -> None:
    cluster = World(3)
    cluster.start()
    cluster.run(after_ms)
    before = {cluster.actor(name).cluster for name in cluster.names} - {""}

    cluster.crash(*cluster.names)
    cluster.start()
    cluster.ready()

    assert before <= {cluster.actor("acceptor-1").cluster}


def test_a_proposer_with_an_emptied_disk_leads_under_ballots_of_its_own() -> None:
    """Given a proposer that led under round 1 and lost its disk, then the ballots that it uses name
    the new disk: no two disks share one.
    """
    cluster = founded(4)
    cluster.done(put("a", b"1"))
    former = leader_of(cluster).actor.phase.ballot
    name = former.proposer
    cluster.crash(*cluster.options.names("proposer"))
    cluster.machines[name].disk = Disk("disk-empty")

    cluster.start(name)
    cluster.done(put("a", b"2"), retry=True)

    ballot = cluster.actor(name).phase.ballot
    assert (ballot.node, ballot.proposer) == (name, f"{name}/disk-empty")
    assert not cluster.halted
    assert cluster.actor("store-1").reads.leader == ballot
    command = Command(
        session="gateway-1.s",
        sequence=1,
        acknowledged=0,
        reply_to="gateway-1",
        operation=OpenSession(),
    )
    late = hand(cluster, name, "gateway-1", Submit(ballot=former, command=command))
    assert not late.sends, "only the former disk knows what it proposed"


def test_a_node_that_the_cluster_does_not_name_waits_to_be_added() -> None:
    """Given nodes of all roles beyond the founding, and one whose number no member can have, then
    only that one halts; the others know the cluster and count for nothing.
    """
    cluster = founded(4)
    for name in ("proposer-9", "acceptor-9", "learner-9", "store-9"):
        cluster.add_machine(name)
        cluster.start(name)
    cluster.run(10_000)

    assert not cluster.halted
    for name in ("proposer-9", "acceptor-9", "learner-9", "store-9"):
        assert cluster.actor(name).cluster == cluster.actor("acceptor-1").cluster
    added = [m.actor.counters["stores_added"] for m in cluster.up("learner")]
    assert not any(added), "a store waits to be added by an operator"
    assert cluster.actor("proposer-9").counters["elections"] == 0
    cluster.done(put("a", b"1"), retry=True)
    with pytest.raises(ValueError, match="a number up to 64"):
        build_actor(replace(cluster.actor("store-9").identity, name="store-65"), Options())


def test_a_newcomer_believes_later_acceptors_once_they_have_changed() -> None:
    """Given a store on an empty disk, when two acceptors answer, then it believes them, also if
    the genesis does not name them, only if they say that the acceptors have changed, and nobody
    contradicts.
    """
    cluster, other = founded(7), founded(8)
    for version, dissent, expected in ((0, False, False), (1, True, False), (1, False, True)):
        cluster.crash("store-3")
        cluster.machines["store-3"].disk = Disk(f"disk-{version}-{dissent}")
        with intercepted(cluster, lambda sender, to, message: message.type != "genesis.founded"):
            cluster.start("store-3")
            cluster.run(1_000)
        store = cluster.actor("store-3")
        me, now = store.identity, cluster.machines["store-3"].now_ms
        numbers = (8, 9) if version else (1, 2)
        answers = [(f"acceptor-{number}", cluster) for number in numbers]
        for name, of in [("acceptor-7", other), *answers] if dissent else answers:
            answer = Founded(
                asker_disk=me.disk,
                asker_incarnation=me.incarnation,
                genesis=of.actor("acceptor-1").genesis,
                version=version,
            )
            store.receive(Envelope("", name, "disk-x", 1, answer), now)
        assert bool(store.cluster) == expected


@pytest.mark.parametrize("victim", ["acceptor-1", "acceptor-4"])
def test_an_acceptor_with_an_emptied_disk_joins_and_does_not_vote(victim: str) -> None:
    """Given an acceptor on an empty disk, and with it a quorum of all that run, then it knows the
    cluster and what it accepts counts for nothing; the former disk is the member that it was.
    """
    cluster = founded(4)
    cluster.done(put("a", b"1"))
    others = [name for name in cluster.options.names("acceptor") if name != victim]
    former = cluster.machines[victim].disk
    cluster.crash(victim)
    cluster.machines[victim].disk = Disk("disk-empty")

    cluster.start(victim)
    cluster.run(5_000)
    cluster.crash(others[0], others[1])
    cluster.run(5_000)

    assert cluster.actor(victim).cluster == cluster.actor(others[2]).cluster
    assert not cluster.halted
    chosen = cluster.actor("learner-1").chosen_through
    cluster.write(put("a", b"2"))
    cluster.run(10_000)
    assert cluster.actor("learner-1").chosen_through == chosen
    cluster.crash(victim)
    cluster.machines[victim].disk = former
    cluster.start(victim)
    cluster.done(put("a", b"2"), retry=True)


def test_a_disk_of_another_cluster_is_refused_and_does_no_harm() -> None:
    cluster, other = founded(5), founded(6)
    cluster.crash("acceptor-3", "store-1")
    cluster.machines["acceptor-3"].disk = other.machines["acceptor-3"].disk
    here, there = cluster.actor("acceptor-1").cluster, other.actor("acceptor-1").cluster

    cluster.start("acceptor-3")
    cluster.start("store-1")
    cluster.run_until(lambda: "acceptor-3" in cluster.halted, 5_000)

    assert here in cluster.halted["acceptor-3"]
    assert there in cluster.halted["acceptor-3"]
    assert set(cluster.halted) == {"acceptor-3"}
    cluster.done(put("a", b"1"), retry=True)


def test_an_older_copy_of_a_disk_is_noticed_before_it_votes() -> None:
    cluster = founded(7)
    cluster.run(5_000)
    cluster.crash("acceptor-2")
    older = copy.deepcopy(cluster.machines["acceptor-2"].disk)
    cluster.start("acceptor-2")
    cluster.run(5_000)
    for number in range(30):
        cluster.done(put("a", b"%d" % number))
    cluster.run(5_000)
    cluster.crash("acceptor-2")
    cluster.machines["acceptor-2"].disk = older

    cluster.start("acceptor-2")
    cluster.run(10_000)

    assert "older than what it once reported" in cluster.halted.get("acceptor-2", "it runs")


def test_leftover_messages_of_a_former_cluster_change_nothing() -> None:
    """Given every message of a whole former run, when a fresh cluster receives them all, it goes
    on.
    """
    former, fresh = World(8), World(9)
    leftovers: list[tuple[str, Envelopes]] = []
    publish = former.network.publish

    def keep(sender: str, to: str, parcel: Envelopes) -> None:
        leftovers.extend((name, parcel) for name in former.network.receivers.get(to, ()))
        publish(sender, to, parcel)

    former.network.publish = keep  # type: ignore[method-assign]
    former.start()
    former.ready()
    for number in range(20):
        former.done(put("a", b"%d" % number))

    fresh.start()
    for name, parcel in leftovers:
        fresh.machines[name].arrive(parcel)
    fresh.ready()
    fresh.done(put("b", b"new"))
    for name, parcel in leftovers:
        fresh.machines[name].arrive(parcel)
    fresh.settled()

    assert not fresh.halted
    assert set(fresh.actor("store-1").state.entries) == {"b"}
    dropped = fresh.actor("acceptor-1").counters
    assert dropped["dropped_foreign_cluster"] + dropped["dropped_before_founding"] > 0
    values = [learned(a.value) for a in fresh.actor("acceptor-1").accepted.values()]
    assert sum(isinstance(value, Batch) for value in values) <= 3


def test_an_older_copy_that_started_less_often_is_noticed_too() -> None:
    """Given a copy that is several starts old, so that its messages have a former incarnation."""
    cluster = founded(7)
    cluster.run(5_000)
    cluster.crash("acceptor-2")
    older = copy.deepcopy(cluster.machines["acceptor-2"].disk)
    for _ in range(3):
        cluster.start("acceptor-2")
        cluster.run(5_000)
        cluster.crash("acceptor-2")
    cluster.machines["acceptor-2"].disk = older

    cluster.start("acceptor-2")
    cluster.run(10_000)

    assert "older than what it once reported" in cluster.halted.get("acceptor-2", "it runs")


@pytest.mark.parametrize(
    ("starts", "commits", "halts"),
    [(1, -5, True), (0, 1, True), (1, 1, True), (0, 0, False), (0, -1, False), (-1, -5, False)],
)
def test_a_disk_that_lacks_a_start_or_a_commit_is_refused(
    starts: int, commits: int, halts: bool
) -> None:
    """Given a report that knows this disk with that many more starts or commits, then the node
    halts; the report does not depend on earlier signs of the disk.
    """
    cluster = founded(7)
    cluster.crash("store-1")
    cluster.start("store-1")
    cluster.run(5_000)
    store = cluster.actor("store-1")
    me = store.identity
    report = StaleDisk(
        disk=me.disk,
        incarnation=me.incarnation + starts,
        journal_commits=store._commits + commits,
    )

    effects = hand(cluster, "store-1", "learner-1", report)

    assert (effects.halt is not None) == halts


def test_a_notice_about_another_disk_halts_no_node() -> None:
    """Given a store on a new disk, when a report on its former disk comes, then it goes on."""
    cluster = founded(7)
    store = cluster.actor("store-1")
    report = StaleDisk(disk="disk-former", incarnation=99, journal_commits=10_000)

    effects = hand(cluster, "store-1", "learner-1", report)

    assert effects.halt is None
    ours = report.model_copy(update={"disk": store.identity.disk})
    assert hand(cluster, "store-1", "learner-1", ours).halt is not None


def test_no_acceptor_votes_before_all_hold_the_genesis() -> None:
    """Given one acceptor that does not receive the genesis, then the others wait, and go on with
    it.
    """
    cluster = World(2)

    def is_delivered(sender: str, to: str, message: Any) -> bool:
        return (to, message.type) != ("acceptor-4", "genesis.propose")

    with intercepted(cluster, is_delivered):
        cluster.start()
        cluster.run(5_000)
        disks = [cluster.machines[name].disk for name in cluster.options.names("acceptor")]
        assert [HELD in disk.records for disk in disks] == [True, True, True, False, True]
        assert {cluster.actor(name).cluster for name in cluster.names} == {""}
    cluster.ready()


def test_a_founder_counts_only_answers_to_its_own_question() -> None:
    """Given answers of members to a former incarnation of the founder, or to another disk, then it
    founds nothing; and a member that holds a cluster prevents it, whatever the others answer.
    """
    cluster = World(2)
    cluster.start("acceptor-1")
    founder = cluster.actor("acceptor-1")
    me, others = founder.identity, [n for n in cluster.options.members if n != "acceptor-1"]

    def present(name: str, disk: str, incarnation: int, holds: str = "") -> None:
        answer = Present(asker_disk=disk, asker_incarnation=incarnation, cluster=holds)
        founder.receive(said(cluster, name, answer), cluster.machines["acceptor-1"].now_ms)

    for disk, incarnation in (("disk-former", me.incarnation), (me.disk, me.incarnation - 1)):
        for name in others:
            present(name, disk, incarnation)
        assert founder.founding.row(HELD) is None
    for name in others[:-1]:
        present(name, me.disk, me.incarnation)
    present(others[-1], me.disk, me.incarnation, holds="a cluster")
    assert founder.founding.row(HELD) is None
    present(others[-1], me.disk, me.incarnation)
    assert founder.founding.row(HELD) is not None


def test_a_newcomer_believes_a_majority_of_the_acceptors_and_no_single_one() -> None:
    """Given a store on an empty disk, when acceptors name two clusters, then it joins the one that
    three of five name, and no sooner; and answers to a former incarnation don't count.
    """
    cluster, other = founded(7), founded(8)
    cluster.crash("store-3")
    cluster.machines["store-3"].disk = Disk("disk-empty")
    with intercepted(cluster, lambda sender, to, message: message.type != "genesis.founded"):
        cluster.start("store-3")
        cluster.run(1_000)
    store = cluster.actor("store-3")
    me, now = store.identity, cluster.machines["store-3"].now_ms

    def cluster_after_answers(acceptor: int, of: World, incarnation: int = 0) -> str:
        answer = Founded(
            asker_disk=me.disk,
            asker_incarnation=me.incarnation - incarnation,
            genesis=of.actor("acceptor-1").genesis,
        )
        store.receive(said(cluster, f"acceptor-{acceptor}", answer), now)
        return str(store.cluster)

    for acceptor, of, incarnation in (
        (1, cluster, 0),
        (2, other, 0),
        (3, other, 0),
        (1, cluster, 0),
        (4, cluster, 0),
        (5, cluster, 1),
    ):
        assert cluster_after_answers(acceptor, of, incarnation) == ""
    assert cluster_after_answers(5, cluster) == cluster.actor("acceptor-1").cluster


def test_an_acceptor_holds_one_genesis_on_its_disk_for_good() -> None:
    """Given a genesis, when another one comes that names the same disk, or its own once more, then
    an acceptor confirms only the one on its disk; and a founder counts only its own.
    """
    cluster = World(2)
    with intercepted(cluster, lambda sender, to, message: message.type != "genesis.held"):
        cluster.start()
        cluster.run(2_000)
    founder, acceptor = cluster.actor("acceptor-1"), cluster.actor("acceptor-2")
    now, ours = cluster.machines["acceptor-2"].now_ms, founder.founding.row(HELD)
    held = cluster.machines["acceptor-2"].disk.records[HELD]
    theirs = ours.model_copy(update={"cluster": "another"})

    for genesis, answers in ((theirs, 0), (ours, 1), (theirs, 0)):
        proposal = said(cluster, "acceptor-1", ProposeGenesis(genesis=genesis))
        effects = acceptor.receive(proposal, now)
        assert (len(effects.sends), effects.records) == (answers, ())
    assert acceptor.founding.row(HELD) == Genesis.model_validate_json(held) == ours

    for name in cluster.options.names("acceptor")[1:]:
        for cluster_id, disk in ((ours.cluster, "disk-another"), ("another", "")):
            answer = said(cluster, name, HoldsGenesis(cluster=cluster_id), disk)
            founder.receive(answer, cluster.machines["acceptor-1"].now_ms)
    assert founder.cluster == ""
    for name in cluster.options.names("acceptor")[1:]:
        answer = said(cluster, name, HoldsGenesis(cluster=ours.cluster))
        founder.receive(answer, cluster.machines["acceptor-1"].now_ms)
    assert founder.cluster == ours.cluster


def test_a_node_that_halts_handles_no_further_message() -> None:
    """Given an acceptor that learns that its disk is an older copy, when it is asked for a promise
    in the same turn, then it gives none: the runtime sends all messages of a turn before the node
    ends.
    """
    world = founded()
    actor = world.actor("acceptor-1")
    disk, ballot = actor.identity.disk, Ballot(99, "proposer-1")
    old = StaleDisk(disk=disk, incarnation=1, journal_commits=10**6)
    assert hand(world, "acceptor-1", "proposer-1", old).halt

    later = 10 * world.options.lease_ms
    prepare = Prepare(ballot=ballot, first_slot=1)
    assert hand(world, "acceptor-1", "proposer-1", prepare, later) == NOTHING
    assert actor.expire(TimerKey("heartbeat", ""), later) == NOTHING
    assert actor.settle(later) == NOTHING


def test_a_newcomer_that_halts_for_its_settings_does_not_start_after_all() -> None:
    """Given a learner on an empty disk with another lease, when it receives its cluster's genesis
    twice in one turn, then it halts at the first, and the second one does not start it.
    """
    world = founded()
    genesis = world.actor("acceptor-1").genesis
    identity = Identity("learner-2", "an-empty-disk", 1, 0, "f" * 32)
    learner = build_actor(identity, replace(world.options, lease_ms=3_000))
    learner.restore((), 1)
    founded_message = Founded(genesis=genesis, asker_disk="an-empty-disk", asker_incarnation=1)
    effects = [
        learner.receive(said(world, f"acceptor-{number}", founded_message), 2)
        for number in (1, 2, 3, 4, 5)
    ]

    halted = [one for one in effects if one.halt]
    assert [effects.index(one) for one in halted] == [2]
    assert effects[3:] == [NOTHING, NOTHING]
