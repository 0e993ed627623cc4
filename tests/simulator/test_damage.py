"""Disks that are harmed: what the cluster bears, and what the simulator must not ask of it."""

import random

from chaos.simulator.run import Plan, Simulation

CALM = Plan(seed=5, faults=("snapshots",), storm_ms=20_000, acknowledged=60)


def test_a_store_that_lost_its_disk_is_a_newcomer_and_whole_in_the_end() -> None:
    """Given a store whose disk is lost, then its new disk is in the view in the end."""
    simulation = Simulation(CALM)
    world, damage = simulation.world, simulation.weather.damage

    def lose(_: object) -> None:
        machine = world.machines["store-2"]
        assert damage.may_lose_disk(machine)
        damage.lose_disk(machine, random.Random(1))
        world.after_us(1_000_000, lambda _: world.start("store-2"))
        assert not damage.may_lose_disk(world.machines["store-1"]), "only store-3 is left"

    world.at_us(15_000_000, lose)
    report = simulation.run()
    assert report.passed, f"{report.invariant}: {report.detail}"
    assert (report.counters["disk.lost"], report.counters["disk.newcomers_joined"]) == (1, 1)
    assert damage.is_whole()


def test_only_stores_and_learners_may_lose_a_disk() -> None:
    """Given a whole cluster, then acceptors and proposers keep their disks: they promised."""
    simulation = Simulation(CALM)
    world, damage = simulation.world, simulation.weather.damage
    assert not damage.may_lose_disk(world.machines["store-1"]), "nobody has founded anything"
    world.start()
    world.ready()
    may = {name for name, machine in world.machines.items() if damage.may_lose_disk(machine)}
    assert {name.rpartition("-")[0] for name in may} == {"store", "learner"}
