"""How a cluster comes to be, and who is not let in."""

import copy

import pytest

from actors.values import Batch
from chaos.simulator.disk import Disk
from chaos.simulator.network import Parcel
from chaos.simulator.world import World
from tests.worlds import founded, put


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
def test_founding_goes_on_after_everybody_was_stopped_in_the_middle(after_ms: int) -> None:
    cluster = World(3)
    cluster.start()
    cluster.run(after_ms)
    before = {cluster.actor(name).cluster for name in cluster.names} - {""}

    cluster.crash(*cluster.names)
    cluster.start()
    cluster.ready()

    assert before <= {cluster.actor("acceptor-1").cluster}


@pytest.mark.parametrize("victim", ["acceptor-1", "acceptor-4", "proposer-3"])
def test_a_voter_with_an_emptied_disk_is_refused(victim: str) -> None:
    cluster = founded(4)
    cluster.done(put("a", b"1"))
    cluster.crash(victim)
    cluster.machines[victim].disk = Disk("disk-empty")

    cluster.start(victim)
    cluster.run(5_000)

    assert "lost its disk" in cluster.halted.get(victim, "it runs")
    assert set(cluster.halted) == {victim}
    cluster.done(put("a", b"2"), retry=True)


def test_a_disk_of_another_cluster_is_refused_and_harms_nobody() -> None:
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
    """Given every message of a whole former run, when a fresh cluster gets them all, it lives."""
    former, fresh = World(8), World(9)
    leftovers: list[tuple[str, Parcel]] = []
    publish = former.network.publish

    def keep(sender: str, to: str, parcel: Parcel) -> None:
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
    values = [a.value for a in fresh.actor("acceptor-1").accepted.values()]
    assert sum(isinstance(value, Batch) for value in values) <= 3
