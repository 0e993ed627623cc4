"""Explicit-state search: breadth first, so a counterexample is a shortest one; and random walks.

A system names its first state and the steps from each state. A step leads to a state, or breaks an
invariant. States are hashable and already canonical: of states that differ by a symmetry only, a
system returns one. Goals are *sometimes* properties: a search that reached none of the states that
they describe has shown nothing about them.
"""

import random
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

State = TypeVar("State", bound=Hashable)
ModelStep = tuple[object, ...]
"""The name of a step and its arguments."""

_CLOCK_EVERY = 256


@dataclass(frozen=True, slots=True)
class BrokenInvariant:
    """A broken invariant, by its name, and the values that break it."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


class System(Protocol[State]):
    """A transition system."""

    @property
    def goals(self) -> Mapping[str, Callable[[State], bool]]: ...

    def first(self) -> State: ...

    def steps(self, state: State) -> Iterator[tuple[ModelStep, State | BrokenInvariant]]: ...

    def broken(self, state: State) -> BrokenInvariant | None: ...

    def tell(self, step: ModelStep) -> str: ...

    def story(self, path: list[State], last: BrokenInvariant) -> list[str]: ...


@dataclass(slots=True)
class Found(Generic[State]):
    """What a search did, and the first violation that it met, with the steps that lead to it."""

    states: int = 0
    steps: int = 0
    depth: int = 0
    exhausted: bool = False
    """Whether no state is left that the scope allows."""
    seconds: float = 0.0
    goals: dict[str, int] = field(default_factory=dict)
    """For each goal that was reached, at which depth first."""
    violation: BrokenInvariant | None = None
    story: list[str] = field(default_factory=list)


def breadth_first(
    system: System[State], depth_max: int | None = None, seconds_max: float | None = None
) -> Found[State]:
    """Search every state up to `depth_max` steps away, or until the time is up."""
    found: Found[State] = Found()
    begun = time.monotonic()
    first = system.first()
    numbers: dict[State, int] = {first: 0}
    states: list[State] = [first]
    parents: list[int] = [-1]
    open_goals = dict(system.goals)
    layer: list[State] = [first]
    _note_goals(open_goals, first, 0, found)
    out_of_time = False
    while layer and not out_of_time and (depth_max is None or found.depth < depth_max):
        found.depth += 1
        following: list[State] = []
        for index, state in enumerate(layer):
            if seconds_max is not None and index % _CLOCK_EVERY == 0:
                out_of_time = time.monotonic() - begun > seconds_max
                if out_of_time:
                    break
            number = numbers[state]
            for _, target in system.steps(state):
                found.steps += 1
                if isinstance(target, BrokenInvariant):
                    found.violation = target
                elif target not in numbers:
                    numbers[target] = len(parents)
                    states.append(target)
                    parents.append(number)
                    following.append(target)
                    if open_goals:
                        _note_goals(open_goals, target, found.depth, found)
                    found.violation = system.broken(target)
                if found.violation is not None:
                    path = [] if isinstance(target, BrokenInvariant) else [target]
                    while number >= 0:
                        path.append(states[number])
                        number = parents[number]
                    found.story = system.story(path[::-1], found.violation)
                    break
            if found.violation is not None:
                break
        if found.violation is not None:
            break
        layer = following
    if not layer and not out_of_time and found.violation is None:
        found.exhausted = True
        found.depth -= 1  # The last layer was empty.
    found.states = len(parents)
    found.seconds = time.monotonic() - begun
    return found


def walk(
    system: System[State], seed: int, walks: int, length: int, seconds_max: float
) -> Found[State]:
    """Walk at random. It proves nothing, and reaches scopes that no search exhausts."""
    found: Found[State] = Found()
    begun = time.monotonic()
    open_goals = dict(system.goals)
    for number in range(walks):
        if time.monotonic() - begun > seconds_max:
            break
        choose = random.Random(f"{seed}/{number}")
        state, story = system.first(), list[str]()
        for depth in range(1, length + 1):
            # A name first, else the steps with many arguments crowd out the others.
            named: dict[object, list[tuple[ModelStep, State | BrokenInvariant]]] = {}
            for step, following in system.steps(state):
                named.setdefault(step[0], []).append((step, following))
            if not named:
                break
            step, target = choose.choice(named[choose.choice(sorted(named, key=str))])
            found.steps += 1
            story.append(system.tell(step))
            violation = target if isinstance(target, BrokenInvariant) else system.broken(target)
            if violation is not None:
                found.violation, found.story = violation, story
                found.seconds = time.monotonic() - begun
                return found
            assert not isinstance(target, BrokenInvariant)
            state = target
            found.depth = max(found.depth, depth)
            _note_goals(open_goals, state, depth, found)
        found.states += 1
    found.seconds = time.monotonic() - begun
    return found


def _note_goals(
    goals: dict[str, Callable[[State], bool]], state: State, depth: int, found: Found[State]
) -> None:
    for name in [name for name, holds in goals.items() if holds(state)]:
        found.goals[name] = depth
        del goals[name]
