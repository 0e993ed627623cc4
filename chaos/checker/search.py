"""The search for a linearization: Wing and Gong's, with Lowe's cache.

An operation **requires** values, **differs** from values (a refused compare-and-set) and **writes**
values, each at a path of one component; all at once. A linearization puts every *known* operation,
and any of the *unknown* ones, in an order that respects real time (an operation that ended before
another began comes first), such that each finds what it requires.

The search (Wing & Gong, "Testing and verifying concurrent objects", 1993) takes, again and again,
one operation that no other remaining one precedes, and backtracks when none fits. Remaining
operations are a doubly linked list of their begins and ends, from which one is lifted and put
back in constant time. The cache (Lowe, "Testing for linearizability", 2017) remembers which
operations were taken and which state that left: the rest of the search depends on nothing else.

Five rules prune the search without changing its verdict:

1. *A known operation that writes nothing is taken as soon as it fits.* In any completion it can
   be moved to here: nothing precedes it, it fits, and no later operation depends on it.
2. *A value that a known operation still requires, and that no other operation will write again, is
   not overwritten*, and is not written while an operation that contradicts it must come before the
   last one that requires it. Else that one can never fit.
3. *A value of an unknown operation is observed before it is overwritten.* Take a linearization
   with the fewest unknown operations. If one of them wrote a single path, and no operation
   required that value, nor differed from another one, before the path was written again, then
   leaving it out changes nothing that is observed: a linearization with fewer, a contradiction.
   Rule 1 only moves operations, so the number stays the least. As nothing at its path stands
   between the two, and as it has no end, it may be taken right before the operation that observes
   it, when that one has begun, unless it requires a value at another path.
4. *Of unknown operations with the same effect, the one that began first is taken first.* Wherever
   a later one stands, an earlier one may stand. And a situation with the same known operations
   taken, more unknown ones taken and the same state is no better than one that was searched before.
5. *The next move is connected with the move X that ends first.* Before X only moves can be taken
   that have begun already. Group those by the paths that they share. A move that stands before X
   and is not of X's group can be moved behind X: it commutes with the group, and has not ended
   before any move of the group began. The order of the moves on each path stays the same, so the
   rules above still apply.
"""

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, NamedTuple

Verdict = Literal["linearizable", "not linearizable", "undecided"]

ANY = -1
"""An unknown value of a path: it fits any requirement, and is the required value from then on."""

NEVER = -2
"""The requirement of an operation that contradicts itself: no value fits it."""

_CHECK_CLOCK_EVERY = 256
STATES_MAX = 3_000_000
"""About 1 GiB of cache; a search that needs more is undecided."""


class PathValue(NamedTuple):
    """A value at a path, both as small numbers."""

    path: int
    value: int


@dataclass(frozen=True, slots=True)
class Move:
    """An operation as the search sees it. Times are indices of events."""

    requires: tuple[PathValue, ...]
    differs: tuple[PathValue, ...]
    writes: tuple[PathValue, ...]
    begun: int
    ended: int | None
    """`None`: unknown; it may be taken at any time after it began, or never."""

    @property
    def conflicts(self) -> tuple[int, ...]:
        """The paths that it writes."""
        return tuple(at.path for at in self.writes)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The verdict of a search."""

    verdict: Verdict
    order: tuple[int, ...]
    """The longest order of moves (their indices) that was found; all known ones if linearizable."""
    states: int
    """How many different situations were searched."""


_Situation = tuple[int, int, int, tuple[int, ...]]
"""The known moves that were taken, in two parts, the unobserved paths, and the state."""


@dataclass(slots=True)
class _Frame:
    """One taken move, the forced moves after it, the former state, and the candidates to try."""

    move: int
    forced: list[int]
    state: tuple[int, ...]
    unobserved: int
    candidates: Iterator[int] = field(default_factory=lambda: iter(()))


class Search:
    """Searches a linearization of `moves` from `initial`, the value of each path, or `ANY`.

    With `explains` the rules that backtrack early (2 to 5) are off, so that the order is really
    the longest one. That is feasible for a few moves only.
    """

    def __init__(
        self, moves: Sequence[Move], initial: Sequence[int], *, explains: bool = False
    ) -> None:
        self._moves = moves
        self._explains = explains
        self._state = tuple(initial)
        self._unobserved = 0
        """A bit for each path whose value an unknown move wrote and no move has observed yet."""
        self._taken = 0
        """A bit for each known move that was taken, in the order of their begins."""
        self._taken_unknown = 0
        self._known = [i for i, move in enumerate(moves) if move.ended is not None]
        self._known.sort(key=lambda i: moves[i].begun)
        self._left = len(self._known)
        self._bit = {i: 1 << place for place, i in enumerate(self._known)}
        self._link()
        self._count()
        self._index_paths()
        self._classes = self._same_unknown()
        self._taken_of_class = [0] * len(self._classes)
        self._class_of = {i: at for at, members in enumerate(self._classes) for i in members}

    def _link(self) -> None:
        """Make the doubly linked list: 0 is before the first begin or end, the last one after."""
        events = [(self._moves[i].begun, i, True) for i in self._known]
        events += [(self._moves[i].ended or 0, i, False) for i in self._known]
        events.sort()
        self._next = list(range(1, len(events) + 3))
        self._previous = list(range(-1, len(events) + 1))
        self._tail = len(events) + 1
        self._move_at = [-1, *(i for _, i, _ in events), -1]
        self._is_begin = [False, *(begin for _, _, begin in events), False]
        self._event_at = [-1, *(event for event, _, _ in events), 1 << 62]
        self._begin_entry: dict[int, int] = {}
        self._end_entry: dict[int, int] = {}
        for entry, (_, i, begin) in enumerate(events, start=1):
            (self._begin_entry if begin else self._end_entry)[i] = entry

    def _count(self) -> None:
        """How many remaining known moves require each value, and how many moves write it."""
        self._requiring: defaultdict[PathValue, int] = defaultdict(int)
        self._writing: defaultdict[PathValue, int] = defaultdict(int)
        self._requiring_moves: defaultdict[PathValue, list[int]] = defaultdict(list)
        for i in self._known:
            for at in self._moves[i].requires:
                self._requiring[at] += 1
                self._requiring_moves[at].append(i)
        for moves in self._requiring_moves.values():
            moves.reverse()
        for move in self._moves:
            for at in move.writes:
                self._writing[at] += 1

    def _index_paths(self) -> None:
        """The paths that each move touches, and by path the known moves that matter to a value."""
        self._masks = [
            sum({1 << at.path for at in (*move.requires, *move.differs, *move.writes)})
            for move in self._moves
        ]
        self._touching: list[tuple[list[int], list[int]]] = [([], []) for _ in self._state]
        for end, i in sorted((self._end_entry[i], i) for i in self._known):
            move = self._moves[i]
            for path in {at.path for at in (*move.requires, *move.writes)}:
                ends, moves = self._touching[path]
                ends.append(end)
                moves.append(i)

    def _same_unknown(self) -> list[list[int]]:
        classes: defaultdict[tuple[tuple[PathValue, ...], ...], list[int]] = defaultdict(list)
        for i, move in enumerate(self._moves):
            if move.ended is None:
                classes[(move.requires, move.writes)].append(i)
        for members in classes.values():
            members.sort(key=lambda i: self._moves[i].begun)
        return list(classes.values())

    # -- the search ------------------------------------------------------------------------------

    def run(self, deadline_s: float) -> SearchResult:
        """Search until `deadline_s` on the monotonic clock."""
        if not self._explains and self._is_unsatisfiable():
            return SearchResult("not linearizable", (), 0)
        seen: dict[_Situation, list[int]] = {}
        states = 0
        best: tuple[int, ...] = ()
        most = (-1, 0)
        root = _Frame(-1, [], self._state, self._unobserved)
        root.forced, root.candidates = self._take_forced()
        stack = [root]
        for turn in count():
            if not self._left:
                break
            if turn % _CHECK_CLOCK_EVERY == 0 and (
                time.monotonic() > deadline_s or states > STATES_MAX
            ):
                return SearchResult("undecided", best or _order(stack), states)
            frame = self._advance(stack[-1].candidates)
            if frame is not None:
                before = seen.setdefault(self._situation(), [])
                if not self._seen_better(before):
                    before.append(self._taken_unknown)
                    states += 1
                    stack.append(frame)
                else:
                    self._undo(frame)
                continue
            done = len(self._known) - self._left, self._taken_unknown.bit_count()
            if done > most:
                most, best = done, _order(stack)
            frame = stack.pop()
            if not stack:
                return SearchResult("not linearizable", best, states)
            self._undo(frame)
        return SearchResult("linearizable", _order(stack), states)

    def _seen_better(self, before: list[int]) -> bool:
        """Whether the situation was searched with a subset of these unknown moves (rule 4)."""
        if self._explains:
            return self._taken_unknown in before
        return not all(unknown & ~self._taken_unknown for unknown in before)

    def _is_unsatisfiable(self) -> bool:
        """Whether a known move requires a value that is neither there at first nor ever written."""
        return any(
            at.value == NEVER
            or (not self._writing[at] and self._state[at.path] not in (at.value, ANY))
            for at in list(self._requiring)
        )

    def _situation(self) -> "_Situation":
        taken = self._taken
        # The lowest bits are all set, so their number is enough, and shorter.
        base = (~taken & (taken + 1)).bit_length() - 1
        return taken >> base, base, self._unobserved, self._state

    def _advance(self, candidates: Iterator[int]) -> _Frame | None:
        """Take the first of the `candidates` that is possible, and the moves that it forces."""
        for i in candidates:
            frame = _Frame(i, [], self._state, self._unobserved)
            self._lift(i)
            if self._apply(i):
                frame.forced, frame.candidates = self._take_forced()
                return frame
            self._put_back(i)
            self._state, self._unobserved = frame.state, frame.unobserved
        return None

    def _undo(self, frame: _Frame) -> None:
        for i in reversed(frame.forced):
            self._put_back(i)
        self._put_back(frame.move)
        self._state, self._unobserved = frame.state, frame.unobserved

    def _take_forced(self) -> tuple[list[int], Iterator[int]]:
        """Take all moves that fit and write nothing (rule 1), and find the next candidates."""
        forced: list[int] = []
        begun: list[int] = []
        entry = self._next[0]
        while self._is_begin[entry]:
            i = self._move_at[entry]
            entry = self._next[entry]
            move = self._moves[i]
            if not move.writes and self._fit(move):
                # The end of the taken one may be the next entry.
                if entry == self._end_entry[i]:
                    entry = self._next[entry]
                self._lift(i)
                self._observe(move)
                forced.append(i)
            else:
                begun.append(i)
        if not begun:
            return forced, iter(())
        first_end = self._event_at[entry]
        for members, taken in zip(self._classes, self._taken_of_class, strict=True):
            if taken < len(members) and self._moves[members[taken]].begun < first_end:
                begun.append(members[taken])
        if len(self._state) > 1 and not self._explains:
            begun = self._group(self._move_at[entry], begun)
        wanted = {at for i in begun for at in self._moves[i].requires}
        differing = {at.path for i in begun for at in self._moves[i].differs}
        return forced, iter([i for i in begun if self._may_follow(i, wanted, differing)])

    def _may_follow(self, i: int, wanted: set[PathValue], differing: set[int]) -> bool:
        move = self._moves[i]
        if move.ended is None and len(move.writes) == 1 and not self._explains:
            [wrote] = move.writes
            alone = self._masks[i] == 1 << wrote.path
            if alone and wrote not in wanted and wrote.path not in differing:
                return False  # No move could observe it next (rule 3).
        return self._fit(move) is not None

    def _group(self, first: int, begun: list[int]) -> list[int]:
        """Those of the `begun` moves that are connected with the `first` one (rule 5)."""
        masks = self._masks
        group = masks[first]
        others = [i for i in begun if not masks[i] & group]
        while others:
            united = group
            for i in begun:
                if masks[i] & united:
                    united |= masks[i]
            if united == group:
                break
            group = united
            others = [i for i in others if not masks[i] & group]
        return [i for i in begun if masks[i] & group]

    def _fit(self, move: Move) -> bool | None:
        """Whether a move fits the state: `None` if not, `False` if only because of an `ANY`."""
        known = True
        state = self._state
        for path, value in move.requires:
            if state[path] != value:
                if state[path] != ANY:
                    return None
                known = False
        for path, value in move.differs:
            if state[path] == value:
                return None
        return known

    def _observe(self, move: Move) -> None:
        if self._unobserved:
            for path, _ in (*move.requires, *move.differs):
                self._unobserved &= ~(1 << path)

    def _apply(self, i: int) -> bool:
        """Change the state by a lifted move; `False` if rule 2 or 3 excludes that."""
        move = self._moves[i]
        self._observe(move)
        state = list(self._state)
        for at in move.requires:
            state[at.path] = at.value
        for at in move.writes:
            if self._unobserved >> at.path & 1:
                return False
            left = PathValue(at.path, state[at.path])
            state[at.path] = at.value
            if left == at or self._explains:
                continue
            if self._requiring[left] and not self._writing[left]:
                return False
            if self._requiring[at] and not self._writing[at] and not self._lasts(at):
                return False
        if move.ended is None and len(move.writes) == 1 and not self._explains:
            self._unobserved |= 1 << move.writes[0].path
        self._state = tuple(state)
        return True

    def _lasts(self, at: PathValue) -> bool:
        """Whether a value that is written now, and never again, can stay until it is required."""
        taken, bit = self._taken, self._bit
        last = next(self._begin_entry[i] for i in self._requiring_moves[at] if not taken & bit[i])
        ends, moves = self._touching[at.path]
        # All moves that ended before the first remaining entry are taken.
        for place in range(bisect_right(ends, self._next[0]), len(ends)):
            if ends[place] > last:
                return True
            i = moves[place]
            if not taken & bit[i]:
                move = self._moves[i]
                if any(wrote.path == at.path for wrote in move.writes) or at not in move.requires:
                    return False
        return True

    # -- the list --------------------------------------------------------------------------------

    def _lift(self, i: int) -> None:
        move = self._moves[i]
        for at in move.writes:
            self._writing[at] -= 1
        if move.ended is None:
            self._taken_unknown |= 1 << i
            self._taken_of_class[self._class_of[i]] += 1
            return
        following, preceding = self._next, self._previous
        for entry in (self._begin_entry[i], self._end_entry[i]):
            before, after = preceding[entry], following[entry]
            following[before], preceding[after] = after, before
        for at in move.requires:
            self._requiring[at] -= 1
        self._taken |= self._bit[i]
        self._left -= 1

    def _put_back(self, i: int) -> None:
        move = self._moves[i]
        for at in move.writes:
            self._writing[at] += 1
        if move.ended is None:
            self._taken_unknown &= ~(1 << i)
            self._taken_of_class[self._class_of[i]] -= 1
            return
        following, preceding = self._next, self._previous
        for entry in (self._end_entry[i], self._begin_entry[i]):
            before, after = preceding[entry], following[entry]
            following[before] = preceding[after] = entry
        for at in move.requires:
            self._requiring[at] += 1
        self._taken &= ~self._bit[i]
        self._left += 1


def _order(stack: Sequence[_Frame]) -> tuple[int, ...]:
    """The moves that were taken so far, in order."""
    order: list[int] = []
    for frame in stack:
        if frame.move >= 0:
            order.append(frame.move)
        order += frame.forced
    return tuple(order)
