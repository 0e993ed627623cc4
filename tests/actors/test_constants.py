"""The constants of a cluster are in its genesis, and no node's settings change them."""

from dataclasses import replace
from typing import Any

import pytest

from actors.effects import Envelope
from actors.founding import FOUNDED, HELD
from actors.messages import Founded, Present
from actors.options import Options
from actors.paxos.quorum import Voters
from actors.values import Constants, FileEntry, Genesis
from chaos.simulator.disk import Disk
from chaos.simulator.world import World
from tests.worlds import founded, intercepted, put

OTHERWISE: dict[str, Any] = {
    "proposers": 3,
    "acceptors": 3,
    "learners": 3,
    "stores": 2,
    "lease_ms": 2_400,
    "lease_margin_ms": 60,
    "session_expiry_ms": 60_000,
    "idempotency_expiry_ms": 60_000,
    "min_stores": 1,
    "rowa": "strict",
    "chunk_grace_ms": 60_000,
    "slot_steps": 5_000,
    "slot_bytes": 1024,
    "path_depth": 8,
    "tree_entries": 10_000,
    "tree_bytes": 10_000_000,
    "audit": False,
    "alpha": 32,
}
"""Another value for every setting that a cluster is founded with."""


def test_every_constant_has_a_test() -> None:
    assert OTHERWISE.keys() - {"proposers", "acceptors", "learners", "stores"} == set(
        Constants.model_fields
    )
    assert all(getattr(Options(), name) != value for name, value in OTHERWISE.items())


@pytest.mark.parametrize("setting", OTHERWISE)
def test_a_node_whose_settings_differ_from_the_genesis_refuses_to_start(setting: str) -> None:
    """Given an acknowledged write, when all nodes restart with another value of one setting, then
    each of them names the setting, its value and the cluster's; set back, the write is there.
    """
    world = founded()
    acknowledged = world.done(put("a", b"1")).outcome.etag
    ours = world.options
    world.crash(*world.names)

    world.options = replace(ours, **{setting: OTHERWISE[setting]})
    members = [n for n in world.names if n in world.options.members or n.startswith("gateway-")]
    world.start(*[name for name in members if name in world.machines])
    world.run(5_000)

    expected = f"{setting} is {OTHERWISE[setting]!r} here and {getattr(ours, setting)!r} in the"
    started = {name for name in members if name in world.machines}
    assert {name for name, why in world.halted.items() if expected in why} == started
    world.crash(*[name for name in world.names if world.machines[name].is_up])
    world.halted.clear()
    world.options = ours
    world.start()
    world.ready()
    entry = world.read("a").reply.entry
    assert isinstance(entry, FileEntry)
    assert entry.etag == acknowledged


def test_a_newcomer_with_an_empty_disk_is_refused_too() -> None:
    """Given a store that lost its disk, when its settings differ too, then it joins nothing."""
    world = founded()
    ours = world.options
    world.crash("store-3")
    world.machines["store-3"].disk = Disk("disk-empty")

    world.options = replace(ours, idempotency_expiry_ms=60_000)
    world.start("store-3")
    world.options = ours
    world.run(10_000)

    assert "idempotency_expiry_ms is 60000 here and 86400000 in" in world.halted["store-3"]


def test_a_half_founded_cluster_is_founded_with_its_founders_genesis() -> None:
    """Given a genesis of five acceptors that only its founder holds, when the founder restarts with
    three acceptors in its settings, then it refuses: three would vote where five should.
    """
    world = World(2)
    with intercepted(world, lambda sender, to, message: message.type != "genesis.propose"):
        world.start()
        world.run(2_000)
    assert HELD in world.machines["acceptor-1"].disk.records
    world.crash("acceptor-1")
    ours = world.options

    world.options = replace(ours, acceptors=3)
    world.start("acceptor-1")
    world.options = ours
    world.run(2_000)

    assert "acceptors is 3 here and 5 in the cluster" in world.halted.get("acceptor-1", "it runs")
    world.halted.clear()
    world.start("acceptor-1")
    world.ready()


def test_a_member_of_a_cluster_never_reports_an_empty_disk() -> None:
    """Given a learner that has learned its cluster and not restarted since, when an emptied
    acceptor-1 asks for empty disks, then the learner names its cluster, and no second one is
    founded.
    """
    world = founded()
    ours = world.actor("learner-1").cluster
    asked: list[tuple[str, str]] = []

    def passes(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, Present):
            asked.append((sender, message.cluster))
        return True

    world.crash("acceptor-1")
    world.machines["acceptor-1"].disk = Disk("disk-empty")
    with intercepted(world, passes):
        world.start("acceptor-1")
        world.run(2_000)

    assert set(asked) == {(n, ours) for n in world.options.members if n != "acceptor-1"}


def test_a_node_joins_a_cluster_that_a_quorum_of_its_acceptors_names() -> None:
    """Given a gateway with three acceptors in its settings, when two acceptors of a cluster of five
    name that cluster, then it does not believe them; nor three nodes that are no acceptors.
    """
    world = founded()
    genesis = world.actor("acceptor-1").genesis
    world.crash("gateway-1")
    world.machines["gateway-1"].disk = Disk("disk-empty")
    with intercepted(world, lambda sender, to, message: message.type != "genesis.founded"):
        world.start("gateway-1")
        gateway = world.actor("gateway-1")
        me = gateway.identity
        answer = Founded(genesis=genesis, asker_disk=me.disk, asker_incarnation=me.incarnation)
        for sender, believed in (
            ("acceptor-1", False),
            ("acceptor-2", False),
            ("acceptor-2", False),
            ("acceptor-5", True),
        ):
            disk = world.machines[sender].disk.identity
            gateway.receive(Envelope("", sender, disk, 1, answer), 1)
            assert (gateway.cluster == genesis.cluster) is believed, sender


def test_a_node_joins_no_cluster_that_one_acceptor_names() -> None:
    """Given a fresh gateway, when one acceptor names a cluster of which it is the only voter, then
    the gateway waits for as many acceptors as its settings ask for.
    """
    world = founded()
    genesis = world.actor("acceptor-1").genesis
    alone = tuple(m for m in genesis.members if m.name in ("acceptor-1", "learner-1", "store-1"))
    theirs = Genesis(
        cluster="another", constants=genesis.constants, members=alone, view=genesis.view
    )
    world.crash("gateway-1")
    world.machines["gateway-1"].disk = Disk("disk-empty")
    with intercepted(world, lambda sender, to, message: message.type != "genesis.founded"):
        world.start("gateway-1")
        gateway = world.actor("gateway-1")
        me = gateway.identity
        answer = Founded(genesis=theirs, asker_disk=me.disk, asker_incarnation=me.incarnation)
        disk = world.machines["acceptor-1"].disk.identity
        effects = gateway.receive(Envelope("", "acceptor-1", disk, 1, answer), 1)

    assert (gateway.cluster, effects.halt) == ("", None)


def test_a_genesis_of_an_earlier_version_gets_that_versions_constants() -> None:
    """Given a journal whose genesis names the lease alone, then the cluster goes on with it."""
    world = founded()
    world.done(put("a", b"1"))
    world.crash(*world.names)
    for machine in world.machines.values():
        for key in (HELD, FOUNDED):
            row = machine.disk.records.get(key)
            if row is not None:
                former = Genesis.model_validate_json(row).model_dump_json(exclude={"constants"})
                machine.disk.records[key] = f'{{"lease_ms":1200,{former[1:]}'.encode()

    world.start()
    world.ready()

    assert {world.actor(name).genesis.constants for name in world.names} == {Constants()}
    assert world.read("a").reply.status == "found"


def test_only_voters_make_a_quorum_and_each_counts_once() -> None:
    voters = Voters(["a", "b", "c", "d", "e", "e"])

    assert voters.are_quorum(["a", "b", "c"])
    assert not voters.are_quorum(["a", "b", "b", "x", "y"])
    assert voters.can_do_without(["a", "b", "x", "y"])
    assert not voters.can_do_without(["a", "b", "c"])
    assert voters.reached_by_quorum({"a": 7, "b": 5, "c": 3, "d": 1, "x": 9}) == 3
    assert voters.reached_by_quorum({"a": 7, "b": 5, "x": 9}) is None
    assert not Voters(()).are_quorum([])
