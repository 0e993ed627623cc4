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


def test_a_full_disk_throws_the_turn_away_and_the_node_goes_on_when_there_is_room() -> None:
    """Given a store without room, then it is silent, keeps nothing of the turn, and comes back."""
    simulation = Simulation(CALM)
    world, damage = simulation.world, simulation.weather.damage
    store = world.machines["store-2"]
    seen: list[tuple[int, bool]] = []

    def fill(_: object) -> None:
        damage.fill(store)
        seen.append((store.disk.commits, store.is_up))

    def make_room(_: object) -> None:
        seen.append((store.disk.commits, store.is_up))
        damage.make_room(store)
        assert store.is_up

    world.at_us(10_000_000, fill)
    world.at_us(13_000_000, make_room)
    report = simulation.run()
    assert report.passed, f"{report.invariant}: {report.detail}"
    assert seen == [(seen[0][0], True), (seen[0][0], False)], "nothing was committed without room"
    assert report.counters["disk.waited_for_room"] == 1


def test_little_room_makes_a_store_refuse_what_grows_until_there_is_room_again() -> None:
    """Given a disk below its reserve, then writes are refused for lack of room, and no longer."""
    simulation = Simulation(CALM)
    world, damage = simulation.world, simulation.weather.damage
    store = world.machines["store-2"]
    world.at_us(10_000_000, lambda _: damage.take_reserve(store))
    world.at_us(14_000_000, lambda _: damage.make_room(store))
    report = simulation.run()
    assert report.passed, f"{report.invariant}: {report.detail}"
    assert report.counters["learner.aborted"] > 0
    assert store.is_up
    assert not store.actor.disk_full


def test_a_store_that_refused_and_was_dropped_comes_back_though_it_was_overruled() -> None:
    """Given a no that a View took from the vote, then its store applies what the others have."""
    plan = Plan(seed=1, faults=("full-disk", "crash"), storm_ms=40_000, acknowledged=100)
    report = Simulation(plan).run()
    assert report.passed, f"{report.invariant}: {report.detail}"
    assert report.counters["store.overruled"] > 0
