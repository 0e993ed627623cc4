"""Whether a history of reads, writes, compare-and-sets, deletes and transactions is linearizable.

Linearizable means: all operations that ended, and some of those whose outcome is unknown, can be
put in one order such that each saw exactly what the ones before it left, and an operation that
ended before another began comes before it (Herlihy & Wing, 1990). At first every path is absent.

**Split by path.** A history is linearizable if and only if its part on each path is (locality,
or P-compositionality: Horn & Kroening, "Faster linearizability checking via P-compositionality",
2015). A transaction is one operation on several paths, so those paths, and whatever further ones
other transactions tie to them, are one object and are checked together.

**Unknown operations that nobody can have noticed are dropped** first. Say that U is one, that
nobody else who remains requires a value that U writes at the same path, and that no refused
compare-and-set at such a path may come after U expecting another value. A linearization without
U is one of the history with U, as an unknown operation may never have happened. And take a
linearization with U; leave U out. A state differs from before only between U's place and the
next write of each path, and only at paths that U writes, where it held U's value. Whoever
requires a value there required U's, of which there is none; whoever differs from a value there
does so from U's own. What is left is a linearization. So both histories have the same verdict.
(A refused compare-and-set must be excepted: `write 1`, then `cas [1, 2]` refused, is only
possible because of some unknown write between.) Dropping one may leave another one unnoticed; it
is repeated until nothing more goes. Unknown reads require nothing, write nothing, and go at
once. An unknown operation that requires what nobody ever wrote never happened, and goes, too.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from chaos.checker.history import Json, Operation
from chaos.checker.search import NEVER, At, Move, Search, Verdict

TIME_LIMIT_S = 60.0
"""For a whole history, unless the caller says otherwise."""

_FIRST_ROUND_PART = 0.3
"""Of the time limit is spread over all components, lest a hard one hides an easy violation."""


@dataclass(frozen=True, slots=True)
class Component:
    """Paths that transactions tie together, usually one, and all that was done to them."""

    paths: tuple[str, ...]
    operations: tuple[Operation, ...]
    moves: tuple[Move, ...]
    """One for each operation, in the same order."""

    def search(self) -> Search:
        """A search over all of it, from the beginning of the history."""
        return Search(self.moves, [ABSENT] * len(self.paths))


@dataclass(frozen=True, slots=True)
class ComponentResult:
    """What was found of one component."""

    component: Component
    verdict: Verdict
    order: tuple[Operation, ...]
    """The longest linearization that was found; complete if it is linearizable."""
    states: int


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict on a history."""

    verdict: Verdict
    operations: int
    unknown: int
    """How many of them have no known outcome."""
    dropped: int
    """How many operations were left out, as they can't matter."""
    components: tuple[ComponentResult, ...]
    seconds: float

    def of(self, verdict: Verdict) -> list[ComponentResult]:
        """The components with this verdict, those of the fewest operations first."""
        found = [result for result in self.components if result.verdict == verdict]
        return sorted(found, key=lambda result: len(result.component.operations))


def check(operations: Sequence[Operation], time_limit_s: float = TIME_LIMIT_S) -> Result:
    """Decide whether `operations` (see `chaos.checker.history.operations_of`) are linearizable.

    Undecided after `time_limit_s`, or where a search would take too much memory. One component
    that is not linearizable decides, whatever the others are.
    """
    began = time.monotonic()
    components = split(operations)
    results: dict[int, ComponentResult] = {}
    order = sorted(range(len(components)), key=lambda i: len(components[i].operations))
    slice_s = time_limit_s * _FIRST_ROUND_PART / max(1, len(components))
    for last_round in (False, True):
        for i in order:
            if i in results and results[i].verdict != "undecided":
                continue
            deadline_s = began + time_limit_s
            if not last_round:
                deadline_s = min(deadline_s, time.monotonic() + max(0.01, slice_s))
            results[i] = _check_component(components[i], deadline_s)
    verdicts = {result.verdict for result in results.values()}
    ranked: tuple[Verdict, ...] = ("not linearizable", "undecided", "linearizable")
    return Result(
        verdict=next((verdict for verdict in ranked if verdict in verdicts), "linearizable"),
        operations=len(operations),
        unknown=sum(operation.outcome == "unknown" for operation in operations),
        dropped=len(operations) - sum(len(one.operations) for one in components),
        components=tuple(results[i] for i in range(len(components))),
        seconds=time.monotonic() - began,
    )


def _check_component(component: Component, deadline_s: float) -> ComponentResult:
    found = component.search().run(deadline_s)
    order = tuple(component.operations[i] for i in found.order)
    return ComponentResult(component, found.verdict, order, found.states)


# -- from operations to moves --------------------------------------------------------------------

ABSENT = 0
"""The number that stands for the value `null`."""

SOME_OTHER = -3
"""Stands for every value that nobody looks for."""


class _Numbering:
    """Small numbers for values. Equal as JSON, equal in number: 1 is neither 1.0 nor true."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"null": ABSENT}

    def of(self, value: Json) -> int:
        text = json.dumps(value, sort_keys=True)
        return self._numbers.setdefault(text, len(self._numbers))


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What an operation requires, differs from and writes, by path."""

    operation: Operation
    requires: dict[str, int]
    differs: dict[str, int]
    writes: dict[str, int]

    @property
    def paths(self) -> Iterable[str]:
        return dict.fromkeys((*self.requires, *self.differs, *self.writes))


def split(operations: Iterable[Operation]) -> list[Component]:
    """The components of a history, without operations that can't matter."""
    numbering = _Numbering()
    meanings = [_meaning(operation, numbering) for operation in operations]
    kept = _without_unnoticed([one for one in meanings if any(True for _ in one.paths)])
    return [_component(members) for members in _tied(_without_names(kept))]


def _meaning(operation: Operation, numbering: _Numbering) -> _Meaning:
    requires: dict[str, int] = {}
    differs: dict[str, int] = {}
    now: dict[str, int] = {}
    written: dict[str, int] = {}
    meaning = _Meaning(operation, requires, differs, written)
    if operation.outcome == "failed":
        return meaning
    for step in operation.steps:
        path = step.path
        if operation.outcome == "refused":
            differs[path] = numbering.of(step.expected)
            continue
        looked = step.action == "cas" or (step.action == "read" and operation.outcome == "ok")
        if looked:
            value = numbering.of(step.expected if step.action == "cas" else step.value)
            if now.setdefault(path, value) != value:
                requires[path] = NEVER
            elif path not in written:
                requires.setdefault(path, value)
        if step.action != "read":
            now[path] = written[path] = numbering.of(step.value)
    for path in [path for path in written if requires.get(path) == written[path]]:
        del written[path]
    if operation.outcome == "unknown" and not written:
        requires.clear()
    return meaning


def _without_unnoticed(meanings: Sequence[_Meaning]) -> list[_Meaning]:
    """Drop the unknown operations that nobody can have noticed, and those that never happened."""
    requiring: Counter[tuple[str, int]] = Counter()
    writing: Counter[tuple[str, int]] = Counter()
    refused: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in meanings:
        requiring.update(one.requires.items())
        writing.update(one.writes.items())
        for path, value in one.differs.items():
            refused[path].append((one.operation.ended or 0, value))

    def noticed(one: _Meaning) -> bool:
        return any(
            requiring[(path, value)] > (one.requires.get(path) == value)
            or any(
                ended > one.operation.invoked and expected != value
                for ended, expected in refused[path]
            )
            for path, value in one.writes.items()
        )

    def possible(one: _Meaning) -> bool:
        return all(
            value == ABSENT or writing[(path, value)] > (one.writes.get(path) == value)
            for path, value in one.requires.items()
        )

    kept = list(meanings)
    while True:
        going = [
            one
            for one in kept
            if one.operation.outcome == "unknown" and not (noticed(one) and possible(one))
        ]
        if not going:
            return kept
        # Each goes by its own proof, on a history from which the ones before it are gone.
        gone: set[int] = set()
        for one in going:
            if noticed(one) and possible(one):
                continue
            gone.add(one.operation.op)
            requiring.subtract(one.requires.items())
            writing.subtract(one.writes.items())
        kept = [one for one in kept if one.operation.op not in gone]


def _without_names(meanings: Sequence[_Meaning]) -> list[_Meaning]:
    """Give one number to all values at a path that nobody looks for there.

    Nobody can tell them apart: whoever requires a value, or differs from one, names another one. So
    more operations do the same, and more situations of the search are alike.
    """
    named = {item for one in meanings for item in (*one.requires.items(), *one.differs.items())}
    return [
        replace(
            one,
            writes={
                path: value if (path, value) in named or value == ABSENT else SOME_OTHER
                for path, value in one.writes.items()
            },
        )
        for one in meanings
    ]


def _tied(meanings: Sequence[_Meaning]) -> list[list[_Meaning]]:
    """Group operations by the paths that transactions tie together (union-find)."""
    parents: dict[str, str] = {}

    def root(path: str) -> str:
        parents.setdefault(path, path)
        while parents[path] != path:
            parents[path] = parents[parents[path]]
            path = parents[path]
        return path

    for one in meanings:
        first, *others = one.paths
        for path in others:
            parents[root(path)] = root(first)
    groups: defaultdict[str, list[_Meaning]] = defaultdict(list)
    for one in meanings:
        groups[root(next(iter(one.paths)))].append(one)
    return list(groups.values())


def _component(members: Sequence[_Meaning]) -> Component:
    paths = {path: None for one in members for path in one.paths}
    place = {path: number for number, path in enumerate(sorted(paths))}

    def at(values: dict[str, int]) -> tuple[At, ...]:
        return tuple(At(place[path], value) for path, value in values.items())

    return Component(
        paths=tuple(sorted(paths)),
        operations=tuple(one.operation for one in members),
        moves=tuple(
            Move(
                at(one.requires),
                at(one.differs),
                at(one.writes),
                one.operation.invoked,
                one.operation.ended,
            )
            for one in members
        ),
    )
