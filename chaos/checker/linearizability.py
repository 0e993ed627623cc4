"""Whether a history of reads, writes, compare-and-sets, deletes and transactions is linearizable.

Linearizable means: all operations that ended, and some of those whose outcome is unknown, can be
put in one order such that each observes the state that the ones before it left, and an operation
that ended before another began comes before it (Herlihy & Wing, 1990). At first every path is
absent.

**Split by path.** A history is linearizable if and only if its part on each path is (locality,
or P-compositionality: Horn & Kroening, "Faster linearizability checking via P-compositionality",
2015). A transaction is one operation on several paths, so those paths, and all others that
further transactions connect to them, are one object and are checked together.

**Unknown operations that no other operation can have observed are dropped** first. Let U be one,
such that no other remaining operation requires a value that U writes at the same path, and no
refused compare-and-set at such a path may come after U expecting another value. A linearization
without U is one of the history with U, as an unknown operation may never have happened.
Conversely, take a linearization with U and leave U out. The state differs only between U's place
and the next write of each path, and only at the paths that U writes, where it was U's value. An
operation that requires a value there would require U's, and there is none; one that differs from
a value there differs from U's own. What is left is a linearization, so both histories have the
same verdict. (Refused compare-and-sets are an exception: `write 1`, then `cas [1, 2]` refused, is
possible only because of some unknown write between.) Dropping one operation may leave another one
unobserved, so this is repeated until nothing changes. Unknown reads require and write nothing, and
are dropped at once. An unknown operation that requires a value which no operation writes never
happened, and is dropped, too.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from chaos.checker.history import Json, RecordedOperation
from chaos.checker.search import NEVER, Move, PathValue, Search, Verdict

TIME_LIMIT_S = 60.0
"""For a whole history, unless the caller says otherwise."""

_FIRST_ROUND_PART = 0.3
"""All components share this part of the time limit, so that a hard one can't hide a violation."""


@dataclass(frozen=True, slots=True)
class Component:
    """Paths that transactions connect, usually one, and all operations on them."""

    paths: tuple[str, ...]
    operations: tuple[RecordedOperation, ...]
    moves: tuple[Move, ...]
    """One for each operation, in the same order."""

    def search(self) -> Search:
        """A search over all of it, from the beginning of the history."""
        return Search(self.moves, [ABSENT] * len(self.paths))


@dataclass(frozen=True, slots=True)
class ComponentResult:
    """The result for one component."""

    component: Component
    verdict: Verdict
    order: tuple[RecordedOperation, ...]
    """The longest linearization that was found; complete if it is linearizable."""
    states: int


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The verdict on a history."""

    verdict: Verdict
    operations: int
    unknown: int
    """How many of them have no known outcome."""
    dropped: int
    """How many operations were left out, as they can't affect the verdict."""
    components: tuple[ComponentResult, ...]
    seconds: float

    def of(self, verdict: Verdict) -> list[ComponentResult]:
        """The components with this verdict, those of the fewest operations first."""
        found = [result for result in self.components if result.verdict == verdict]
        return sorted(found, key=lambda result: len(result.component.operations))


def check(
    operations: Sequence[RecordedOperation], time_limit_s: float = TIME_LIMIT_S
) -> CheckResult:
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
    return CheckResult(
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
"""Stands for every value that no operation observes."""


class _Numbering:
    """Small numbers for values. Equal as JSON, equal in number: 1 is neither 1.0 nor true."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"null": ABSENT}

    def of(self, value: Json) -> int:
        text = json.dumps(value, sort_keys=True)
        return self._numbers.setdefault(text, len(self._numbers))


@dataclass(frozen=True, slots=True)
class _Effect:
    """What an operation requires, differs from and writes, by path."""

    operation: RecordedOperation
    requires: dict[str, int]
    differs: dict[str, int]
    writes: dict[str, int]

    @property
    def paths(self) -> Iterable[str]:
        return dict.fromkeys((*self.requires, *self.differs, *self.writes))


def split(operations: Iterable[RecordedOperation]) -> list[Component]:
    """The components of a history, without operations that can't affect the verdict."""
    numbering = _Numbering()
    effects = [_effect(operation, numbering) for operation in operations]
    kept = _drop_unobserved([one for one in effects if any(True for _ in one.paths)])
    return [_component(members) for members in _connected(_merge_unobserved_values(kept))]


def _effect(operation: RecordedOperation, numbering: _Numbering) -> _Effect:
    requires: dict[str, int] = {}
    differs: dict[str, int] = {}
    now: dict[str, int] = {}
    written: dict[str, int] = {}
    effect = _Effect(operation, requires, differs, written)
    if operation.outcome == "failed":
        return effect
    for step in operation.steps:
        path = step.path
        if operation.outcome == "refused":
            differs[path] = numbering.of(step.expected)
            continue
        observes = step.action == "cas" or (step.action == "read" and operation.outcome == "ok")
        if observes:
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
    return effect


def _drop_unobserved(effects: Sequence[_Effect]) -> list[_Effect]:
    """Drop unknown operations that no other can have observed, and those that never happened."""
    requiring: Counter[tuple[str, int]] = Counter()
    writing: Counter[tuple[str, int]] = Counter()
    refused: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in effects:
        requiring.update(one.requires.items())
        writing.update(one.writes.items())
        for path, value in one.differs.items():
            refused[path].append((one.operation.ended or 0, value))

    def is_observed(one: _Effect) -> bool:
        return any(
            requiring[(path, value)] > (one.requires.get(path) == value)
            or any(
                ended > one.operation.invoked and expected != value
                for ended, expected in refused[path]
            )
            for path, value in one.writes.items()
        )

    def is_possible(one: _Effect) -> bool:
        return all(
            value == ABSENT or writing[(path, value)] > (one.writes.get(path) == value)
            for path, value in one.requires.items()
        )

    kept = list(effects)
    while True:
        dropped = [
            one
            for one in kept
            if one.operation.outcome == "unknown" and not (is_observed(one) and is_possible(one))
        ]
        if not dropped:
            return kept
        # The proof applies to one operation at a time, with the ones before it already dropped.
        gone: set[int] = set()
        for one in dropped:
            if is_observed(one) and is_possible(one):
                continue
            gone.add(one.operation.op)
            requiring.subtract(one.requires.items())
            writing.subtract(one.writes.items())
        kept = [one for one in kept if one.operation.op not in gone]


def _merge_unobserved_values(effects: Sequence[_Effect]) -> list[_Effect]:
    """Give one number to all values at a path that no operation observes there.

    No operation can tell them apart: one that requires a value, or differs from one, names another.
    So more operations have the same effect, and the search meets fewer different situations.
    """
    named = {item for one in effects for item in (*one.requires.items(), *one.differs.items())}
    return [
        replace(
            one,
            writes={
                path: value if (path, value) in named or value == ABSENT else SOME_OTHER
                for path, value in one.writes.items()
            },
        )
        for one in effects
    ]


def _connected(effects: Sequence[_Effect]) -> list[list[_Effect]]:
    """Group operations by the paths that transactions connect (union-find)."""
    parents: dict[str, str] = {}

    def root(path: str) -> str:
        parents.setdefault(path, path)
        while parents[path] != path:
            parents[path] = parents[parents[path]]
            path = parents[path]
        return path

    for one in effects:
        first, *others = one.paths
        for path in others:
            parents[root(path)] = root(first)
    groups: defaultdict[str, list[_Effect]] = defaultdict(list)
    for one in effects:
        groups[root(next(iter(one.paths)))].append(one)
    return list(groups.values())


def _component(members: Sequence[_Effect]) -> Component:
    paths = {path: None for one in members for path in one.paths}
    place = {path: number for number, path in enumerate(sorted(paths))}

    def at(values: dict[str, int]) -> tuple[PathValue, ...]:
        return tuple(PathValue(place[path], value) for path, value in values.items())

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
