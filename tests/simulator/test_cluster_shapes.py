"""Clusters of other shapes: each tolerates faults, and each is drawn."""

import random
from collections import Counter

import pytest

from actors.options import Options
from chaos.simulator.cluster_shapes import OTHERS, SHAPES, USUAL, Shape, shaped
from chaos.simulator.faults import ALL, draw_options, shape_of_seed
from chaos.simulator.run import Plan, Simulation


@pytest.mark.parametrize("shape", OTHERS, ids=lambda shape: shape.name)
def test_a_cluster_of_another_shape_tolerates_faults(shape: Shape) -> None:
    """Given a cluster of another shape, when nodes die and messages get lost, then it goes on."""
    plan = Plan(seed=5, faults=("crash", "loss", "pause"), storm_ms=15_000, acknowledged=60)
    simulation = Simulation(plan, options=shaped(Options(), shape))
    report = simulation.run()
    assert report.passed, f"{report.invariant}: {report.detail}"
    assert set(simulation.options.members) <= set(simulation.world.names)


def test_every_shape_is_drawn_and_the_usual_one_most_often() -> None:
    """Given many seeds, then half of the clusters are as usual, and the others share the rest."""
    drawn: Counter[str] = Counter()
    for seed in range(600):
        shape = shape_of_seed(
            ("shapes",),
            lambda name, seed=seed: random.Random(f"{seed}/{name}"),  # type: ignore[misc]
        )
        drawn[shape.name] += 1
    assert set(drawn) == {shape.name for shape in SHAPES}
    assert 250 < drawn[USUAL.name] < 350
    assert min(drawn.values()) > 10


def test_a_seed_has_the_same_shape_with_other_faults() -> None:
    """Given the mixture of a seed as `all` and by its names, then the shape is the same."""

    def of(seed: int, faults: tuple[str, ...]) -> Options:
        return draw_options(faults, lambda name: random.Random(f"{seed}/{name}"))

    seed = next(n for n in range(99) if of(n, ("shapes",)).stores == 5)
    assert of(seed, tuple(name for name in ALL if name != "crash")).stores == 5
    assert of(seed, ("crash",)) == Options()
