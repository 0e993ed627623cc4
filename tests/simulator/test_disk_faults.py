"""Faults of disks: what the cluster tolerates, and what the simulator must not ask of it."""

import random
from typing import Any

from actors.options import Options
from actors.values import MakeDirectory
from chaos.simulator.invariants import Invariants
from chaos.simulator.run import Plan, Simulation
from chaos.simulator.world import World


class LastingRow(random.Random):
    """Picks a row that is never written again: others may be replaced before a scrub."""

    def choice(self, seq: Any) -> Any:
        return next(key for key in seq if key == "genesis/founded")


CALM = Plan(seed=5, faults=("snapshots",), storm_ms=20_000, acknowledged=60)


def test_a_store_that_lost_its_disk_is_a_newcomer_and_whole_in_the_end() -> None:
    """Given a store whose disk is lost, then its new disk is in the view in the end."""
    simulation = Simulation(CALM)
    world, disk_faults = simulation.world, simulation.fault_injector.disk_faults

    def lose(_: object) -> None:
        machine = world.machines["store-2"]
        assert disk_faults.may_lose_disk(machine)
        disk_faults.lose_disk(machine, random.Random(1))
        world.schedule.after_us(1_000_000, lambda _: world.start("store-2"))
        assert not disk_faults.may_lose_disk(world.machines["store-1"]), "only store-3 is left"

    world.schedule.at_us(15_000_000, lose)
    report = simulation.run()
    assert report.passed, f"{report.invariant}: {report.detail}"
    assert (report.counters["disk.lost"], report.counters["disk.newcomers_joined"]) == (1, 1)
    assert disk_faults.is_whole()


def test_all_but_acceptors_may_lose_a_disk() -> None:
    """Given a whole cluster, then acceptors keep their disks, with their promises."""
    simulation = Simulation(CALM)
    world, disk_faults = simulation.world, simulation.fault_injector.disk_faults
    assert not disk_faults.may_lose_disk(world.machines["store-1"]), "no cluster is founded"
    world.start()
    world.ready()
    may = {name for name, machine in world.machines.items() if disk_faults.may_lose_disk(machine)}
    assert {name.rpartition("-")[0] for name in may} == {"proposer", "store", "learner"}


def test_a_full_disk_discards_the_turn_and_the_node_goes_on_when_there_is_room() -> None:
    """Given a store without room, then it is silent, keeps nothing of the turn, and comes back."""
    simulation = Simulation(CALM)
    world, disk_faults = simulation.world, simulation.fault_injector.disk_faults
    store = world.machines["store-2"]
    seen: list[tuple[int, bool]] = []

    def fill(_: object) -> None:
        disk_faults.fill(store)
        seen.append((store.disk.commits, store.is_up))

    def make_space(_: object) -> None:
        seen.append((store.disk.commits, store.is_up))
        disk_faults.free_space(store)
        assert store.is_up

    world.schedule.at_us(10_000_000, fill)
    world.schedule.at_us(13_000_000, make_space)
    report = simulation.run()
    assert report.passed, f"{report.invariant}: {report.detail}"
    assert seen == [(seen[0][0], True), (seen[0][0], False)], "nothing was committed without room"
    assert report.counters["disk.waited_for_room"] == 1


def test_little_room_makes_a_store_refuse_what_grows_until_there_is_room_again() -> None:
    """Given a disk below its reserve, then writes are refused for lack of room, and no longer."""
    simulation = Simulation(CALM)
    world, disk_faults = simulation.world, simulation.fault_injector.disk_faults
    store = world.machines["store-2"]
    world.schedule.at_us(10_000_000, lambda _: disk_faults.take_reserve(store))
    world.schedule.at_us(14_000_000, lambda _: disk_faults.free_space(store))
    report = simulation.run()
    assert report.passed, f"{report.invariant}: {report.detail}"
    assert report.counters["learner.aborted"] > 0
    assert store.is_up
    assert not store.actor.disk_full


def test_a_store_that_refused_and_was_dropped_comes_back_though_it_was_overruled() -> None:
    """Given a vote of no that a View made void, then its store applies what the others have."""
    options = Options()
    world = World(3, options, observer=Invariants())
    world.start()
    world.ready()
    store = world.machines["store-3"]
    store.is_low_on_space = True
    store.report_space()
    world.network.cut = {("store-3", name) for name in options.names("learner")}
    tokens = [world.write(MakeDirectory(path=f"d{number}"), retry=True) for number in range(3)]
    for token in tokens:
        assert world.answer(token).outcome.status == "done"
    world.network.cut.clear()
    store.is_low_on_space = False
    store.report_space()
    world.settled()
    assert store.actor.counters["overruled"] > 0
    world.run_until(lambda: store.actor.held.membership is not None, 60_000)


def test_a_rotten_blob_is_fetched_anew_and_a_rotten_row_is_written_anew() -> None:
    """Given rot on a running store, when it is scrubbed, then its disk is sound again."""
    simulation = Simulation(CALM)
    world, disk_faults = simulation.world, simulation.fault_injector.disk_faults
    store, dice = world.machines["store-2"], random.Random(1)

    def rot(_: object) -> None:
        assert disk_faults.rot_blob(store, dice)
        assert disk_faults.rot_row(store, LastingRow(1))
        assert "store-2" not in disk_faults.holders()

    world.schedule.at_us(15_000_000, rot)
    report = simulation.run()
    assert report.passed, f"{report.invariant}: {report.detail}"
    assert report.counters["store.chunks_rotten"] >= 1
    assert report.counters["store.rows_rotten"] >= 1
    assert disk_faults.is_whole()
    assert (report.counters["disk.refused"], report.counters["disk.lost"]) == (0, 0)


def test_a_start_on_a_rotten_row_is_refused() -> None:
    """Given rows that rotted unseen, then a store starts empty, and an acceptor waits for help."""
    simulation = Simulation(CALM)
    world, disk_faults = simulation.world, simulation.fault_injector.disk_faults
    down: list[bool] = []

    def rot(_: object) -> None:
        for name in ("store-2", "acceptor-3"):
            machine = world.machines[name]
            machine.disk.rotten_rows.add(sorted(machine.disk.records)[0])
            machine.crash()
            world.start(name)
            down.append(machine.is_up)

    world.schedule.at_us(10_000_000, rot)
    world.schedule.at_us(19_000_000, lambda _: down.append(world.machines["acceptor-3"].is_up))
    report = simulation.run()
    assert report.passed, f"{report.invariant}: {report.detail}"
    assert down == [False, False, False]
    assert (report.counters["disk.refused"], report.counters["disk.lost"]) == (2, 1)
    assert world.machines["acceptor-3"].is_up
    assert disk_faults.is_whole()
