"""Why a history is not linearizable: the smallest window of it that cannot be ordered.

A window assumes nothing about the rest of the history: the values at its start may be anything,
an operation that was under way at its start may have happened before, in it, or not at all, and
one that is under way at its end likewise. If even so there is no order, there is none in the whole
history. A larger window has more constraints, so the smallest one is found by bisection: first the
earliest end, then the latest start. Last, single operations are left out as long as there is still
no order: those that write nothing, and those whose values no remaining operation observes (see
`chaos.checker.linearizability` for the proof that this is sound).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from chaos.checker.history import RecordedOperation
from chaos.checker.linearizability import ABSENT, Component
from chaos.checker.search import ANY, Move, Search, SearchResult

WINDOW_TIME_LIMIT_S = 10.0
"""For the search of the smallest window; after that the smallest one so far is shown."""

_LATER_STARTS_MAX = 400


@dataclass(frozen=True, slots=True)
class Window:
    """A small part of a history that has no order."""

    paths: tuple[str, ...]
    operations: tuple[RecordedOperation, ...]
    """The smallest set that was found, in the order of their beginnings."""
    around: tuple[RecordedOperation, ...]
    """All operations on these paths that were under way in that time, `operations` among them."""
    order: tuple[RecordedOperation, ...]
    """The longest possible order of `operations`."""
    from_start: bool
    """Whether all paths are absent at first; else they may have any values."""
    unplaced: tuple[RecordedOperation, ...]
    """Operations that certainly happened within the window and don't fit after that order."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Some operations of a component, each with its move as seen from within a window."""

    members: tuple[tuple[RecordedOperation, Move], ...]
    from_start: bool
    paths: int

    def search(self, deadline_s: float, *, explains: bool = False) -> SearchResult:
        initial = [ABSENT if self.from_start else ANY] * self.paths
        moves = [move for _, move in self.members]
        return Search(moves, initial, explains=explains).run(deadline_s)


def smallest_window(component: Component, time_limit_s: float = WINDOW_TIME_LIMIT_S) -> Window:
    """The smallest window without an order of a component that is not linearizable."""
    deadline_s = time.monotonic() + time_limit_s

    def fails(part: _Part) -> bool:
        return part.search(deadline_s).verdict == "not linearizable"

    ends = sorted(move.ended for move in component.moves if move.ended is not None)
    last = ends[_first(len(ends), lambda i: fails(_cut(component, None, ends[i])))]
    starts = sorted({at for move in component.moves for at in (move.begun, move.ended or 0)})
    starts = [at for at in starts if at <= last]
    latest = _first(
        len(starts) + 1,
        lambda i: i == len(starts) or not fails(_cut(component, starts[i], last)),
    )
    start = starts[latest - 1] if latest else None
    # An operation that spans the start loses its end, so a later start may do where one failed.
    for later in islice(reversed(starts[latest:]), _LATER_STARTS_MAX):
        if fails(_cut(component, later, last)):
            start = later
            break
    part = _cut(component, start, last)
    small = _minimized(part, fails)
    order = small.search(time.monotonic() + 1, explains=True).order
    shown = {operation.op for operation, _ in small.members}
    since = min(operation.invoked for operation, _ in small.members)
    return Window(
        paths=component.paths,
        operations=tuple(operation for operation, _ in small.members),
        around=tuple(
            operation
            for operation, _ in part.members
            if operation.op in shown or operation.ended is None or operation.ended > since
        ),
        order=tuple(small.members[i][0] for i in order),
        from_start=small.from_start,
        unplaced=tuple(
            operation
            for i, (operation, move) in enumerate(small.members)
            if move.ended is not None and i not in order
        ),
    )


def _first(count: int, holds: Callable[[int], bool]) -> int:
    """The least index below `count` for which the monotonic `holds` is true; else the last."""
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _cut(component: Component, start: int | None, last: int) -> _Part:
    """The part between two events, both included; `start=None` is the beginning of the history."""
    members: list[tuple[RecordedOperation, Move]] = []
    for operation, move in zip(component.operations, component.moves, strict=True):
        if move.begun > last:
            continue
        if move.ended is not None:
            if start is not None and move.ended < start:
                continue
            if move.ended > last or (start is not None and move.begun < start):
                move = replace(move, ended=None)
        if move.writes or move.ended is not None:
            members.append((operation, move))
    return _Part(tuple(members), start is None, len(component.paths))


def _minimized(part: _Part, fails: Callable[[_Part], bool]) -> _Part:
    """Leave out single operations as long as the rest has no order."""
    members = list(part.members)
    for candidate in reversed(part.members):
        rest = [member for member in members if member is not candidate]
        if not _is_observed(candidate[1], [move for _, move in rest]):
            smaller = replace(part, members=tuple(rest))
            if fails(smaller):
                members = rest
    return replace(part, members=tuple(members))


def _is_observed(move: Move, others: Sequence[Move]) -> bool:
    """Whether another move observes a value that a move wrote."""
    written = set(move.writes)
    paths = {at.path for at in move.writes}
    return any(
        not written.isdisjoint(other.requires) or any(at.path in paths for at in other.differs)
        for other in others
    )
