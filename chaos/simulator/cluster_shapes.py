"""The shapes of simulated clusters: numbers of nodes, and other replicated settings.

An invariant that holds for five acceptors, two learners and three stores may hold by accident. So
a seed with the fault `shapes` draws its cluster from here: the usual shape in half of the cases.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from actors.options import Options


@dataclass(frozen=True, slots=True)
class Shape:
    """The settings in which a shape differs from the usual one."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


USUAL = Shape("usual")

OTHERS = (
    Shape("3 learners and 5 stores", {"learners": 3, "stores": 5}),
    Shape("1 store", {"stores": 1, "min_stores": 1}),
    Shape("2 stores", {"stores": 2}),
    Shape("1 store is enough", {"min_stores": 1}),
    Shape("strict", {"rowa": "strict"}),
    Shape("3 acceptors", {"acceptors": 3}),
    Shape("7 acceptors", {"acceptors": 7}),
    Shape("2 proposers", {"proposers": 2}),
    Shape("window of 1", {"window_slots": 1}),
    Shape("alpha of 1", {"window_slots": 1, "alpha": 1}),
    Shape("alpha of 3", {"window_slots": 3, "alpha": 3}),
)

SHAPES = (USUAL, *OTHERS)


def draw_shape(rng: random.Random) -> Shape:
    """The usual shape with a probability of one half, else one of the others."""
    return USUAL if rng.random() < 0.5 else rng.choice(OTHERS)


def shaped(options: Options, shape: Shape) -> Options:
    """The options of a cluster of this shape."""
    return replace(options, **shape.settings)
