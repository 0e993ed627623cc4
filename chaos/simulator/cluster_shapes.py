"""The shapes that a cluster of the simulator can have: how many nodes, and what is replicated.

A rule that holds for five acceptors, two learners and three stores may hold by accident. So a
seed with the fault `shapes` draws its cluster from here, the usual shape as often as all others.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from actors.options import Options


@dataclass(frozen=True, slots=True)
class Shape:
    """The settings that a shape has in place of the usual ones."""

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
)

SHAPES = (USUAL, *OTHERS)


def draw_shape(chance: random.Random) -> Shape:
    """The usual shape half of the time, or one of the others."""
    return USUAL if chance.random() < 0.5 else chance.choice(OTHERS)


def shaped(options: Options, shape: Shape) -> Options:
    """The options of a cluster of this shape."""
    return replace(options, **shape.settings)
