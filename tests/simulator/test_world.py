"""The world's parts: clocks, disks, turns and the broker, before anything goes wrong."""

from typing import Any

import pytest

from actors.effects import BLOB_ROW, Blob, Record
from chaos.simulator.clock import PPM, Clock
from chaos.simulator.disk import Disk
from chaos.simulator.faults import BEYOND_MARGIN, WITHIN_MARGIN
from chaos.simulator.invariants import Invariants
from chaos.simulator.machine import CRASH_POINTS
from chaos.simulator.violation import Violation
from chaos.simulator.world import NODE_DIED, World
from tests.worlds import put


def started(seed: int = 1, gateways: int = 1) -> World:
    world = World(seed, gateways=gateways, observer=Invariants())
    world.start()
    world.ready()
    return world


def test_a_fast_clock_is_ahead() -> None:
    """Given a clock that is 5% fast, then it gains 50 ms in a second."""
    clock = Clock(1_000, since_us=0, rate_ppm=PPM + PPM // 20)
    assert clock.read_ms(1_000_000) == 2_050


def test_a_clock_keeps_its_time_when_its_rate_changes_and_begins_again_after_a_reboot() -> None:
    clock = Clock(500, since_us=0)
    clock.set_rate(PPM // 2, 1_000_000)
    assert [clock.read_ms(us) for us in (1_000_000, 3_000_000)] == [1_500, 2_500]
    clock.reboot(4_000_000, first_ms=7)
    assert (clock.read_ms(4_000_000), clock.ran_ms(4_000_000)) == (7, 2_500)


def test_a_disk_restores_blobs_first_and_rows_in_order() -> None:
    """Given commits, when a process starts, then it restores what it would from the journal."""
    disk = Disk("d")
    disk.begin_incarnation()
    disk.commit([Record("b", b"1"), Record("a", b"2"), Record("b", b"3")], [Blob("ff", b"data")])
    disk.commit([Record("a", None)], [])
    assert disk.rows() == [Record(BLOB_ROW + "ff", b""), Record("b", b"3")]
    assert (disk.incarnation, disk.commits) == (1, 3)


def test_a_write_is_read_and_all_replicas_are_equal() -> None:
    """Given no faults, when a file is written, then it can be read and all replicas have it."""
    world = started()
    written = world.done(put("a/b", b"hello"))
    found = world.read("a/b")
    assert found.reply.entry is not None
    assert found.reply.entry.slot == written.outcome.slot
    world.settled()
    assert {m.actor.state.applied for m in world.up("store")} >= {written.outcome.slot}


@pytest.mark.parametrize("point", CRASH_POINTS)
@pytest.mark.parametrize("name", ["acceptor-1", "learner-1", "store-2", "proposer-1"])
def test_a_node_may_die_at_every_point_of_a_turn(point: str, name: str) -> None:
    """Given a node that dies at one point of a turn, when it is back, then nothing is lost."""
    world = started()
    dead: list[str] = []
    world.on_death = lambda machine: dead.append(machine.name)
    machine = world.machines[name]
    incarnation = machine.disk.incarnation
    machine.dies_at = point
    tokens = [world.write(put(f"f{n}", b"%d" % n), retry=True) for n in range(3)]
    world.run(3_000)
    if dead:
        world.start(*dead)
    answers = [world.answer(token) for token in tokens]
    machine.dies_at = ""
    assert all(type(answer).__name__ in ("WriteDecided", "Unknown") for answer in answers)
    world.settled()
    assert machine.disk.incarnation > incarnation or not dead


def test_what_was_not_acknowledged_is_delivered_again() -> None:
    """Given a store that dies after its sends, when it is back, then it gets the message again."""
    world = started()
    store = world.machines["store-1"]
    world.on_death = lambda machine: None
    store.dies_at = "before_ack"
    token = world.write(put("x", b"1"))
    world.run_until(lambda: not store.is_up, 5_000)
    assert store.inbox, "what the turn had received is in the queue"
    world.start("store-1")
    assert type(world.answer(token)).__name__ == "WriteDecided"
    world.settled()


def test_the_broker_forgets_and_the_nodes_go_on() -> None:
    """Given a broker that restarts, when it is back, then timers run again and writes go on."""
    world = started()
    token = world.write(put("x", b"1"))
    world.network.stop()
    assert all(not machine.inbox for machine in world.machines.values())
    world.run(2_000)
    world.network.start()
    world.answer(token)
    world.done(put("y", b"2"), retry=True)
    world.settled()


def test_a_paused_leader_is_replaced_and_its_clock_runs_on() -> None:
    """Given a leader without processor time, when its lease is over, then another one leads."""
    world = started()
    (leader,) = [m for m in world.up("proposer") if type(m.actor.phase).__name__ == "Leading"]
    leader.pause(6_000_000)
    world.run(5_000)
    others = [m for m in world.up("proposer") if type(m.actor.phase).__name__ == "Leading"]
    assert len(others) == 2, "the paused one still believes in its ballot, not in its lease"
    assert not leader.actor.holds_lease or leader.now_ms > leader.actor.lease_until
    world.run(3_000)
    assert type(leader.actor.phase).__name__ == "Following"


def test_a_call_of_a_dead_gateway_is_lost() -> None:
    """Given a gateway that dies with a call, then its caller gets an unknown outcome."""
    world = started()
    token = world.write(put("x", b"1"))
    world.crash("gateway-1")
    assert world.answer(token) is NODE_DIED
    late: Any = world.answer(world.write(put("y", b"1")))
    assert late is NODE_DIED


@pytest.mark.parametrize(("off", "holders"), [(WITHIN_MARGIN, 1), (BEYOND_MARGIN, 2)])
def test_the_margin_covers_clocks_that_differ_a_little(off: float, holders: int) -> None:
    """Given a slow leader among fast clocks, when it is cut off, then the margin keeps a second one
    from holding a lease at the same time; clocks beyond the margin do not.
    """
    world = started()
    (leader,) = [m for m in world.up("proposer") if type(m.actor.phase).__name__ == "Leading"]
    for machine in world.machines.values():
        rate = 1 - off if machine is leader else 1 + off
        machine.clock.set_rate(int(PPM * rate), world.now_us)
    world.run(3_000)
    world.network.disconnected.add(leader.name)
    if holders == 1:
        world.run(5_000)
        assert sum(m.actor.counters["led"] for m in world.up("proposer")) == 2
    else:
        with pytest.raises(Violation, match="one_lease_holder"):
            world.run(5_000)
