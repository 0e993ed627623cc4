"""Views and the durable mark: what is truncated survives on every whole store of the view.

The model of membership takes for granted that slots up to the durable mark are never forgotten,
for a version may be named, and an old disk switched off, once its slot is durable. This sub-model
shows what that rests on. Two stores come and go by Views; a learner coordinates; any of them may
restart and forget what it has not persisted. A learner's disk, and those of all stores but one
whole one, may be lost at any time, so every whole store alone must hold what is truncated.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple, TypeVar

from chaos.model.search import BrokenInvariant, ModelStep

_T = TypeVar("_T")

BROKEN_RULES = {
    "whole_by_applied": "a store is whole once it has applied the slot that added it",
    "mark_of_some": "the mark is what the coordinator and any one store of the view hold",
    "mark_alone": "the mark is what the coordinator holds",
    "drops_the_whole": "a View may drop the last whole store",
}
"""The broken rules of this sub-model."""


class Replica(NamedTuple):
    """A store or the learner: slots applied, and those that its journal holds."""

    applied: int
    durable: int


class ViewState(NamedTuple):
    """A state: the log is a tuple of views, one for each slot; a command repeats the last."""

    views: tuple[tuple[int, ...], ...]
    """For each slot, for each store, the slot that added it to the view in force, or -1."""
    stores: tuple[Replica, ...]
    learner: Replica
    mark: int


class ViewSystem:
    """The system, with the rules of `mutants` broken."""

    def __init__(self, slots: int, mutants: frozenset[str] = frozenset()) -> None:
        self._slots = slots
        self._mutants = mutants

    def first(self) -> ViewState:
        return ViewState(((0, -1),), (Replica(0, 0),) * 2, Replica(0, 0), 0)

    def steps(self, state: ViewState) -> Iterator[tuple[ModelStep, ViewState | BrokenInvariant]]:
        end = len(state.views) - 1
        view = state.views[-1]
        if end < self._slots:
            yield ("command", end + 1), state._replace(views=(*state.views, view))
            for store in range(2):
                changed = _set(view, store, end + 1 if view[store] < 0 else -1)
                if self._may_follow(state, changed):
                    step: ModelStep = ("adds" if view[store] < 0 else "drops", store, end + 1)
                    yield step, state._replace(views=(*state.views, changed))
        replicas = (*state.stores, state.learner)
        for at, replica in enumerate(replicas):
            for own_step, after in self._own_steps(state, at, replica, end):
                changed_one = _set(replicas, at, after)
                yield own_step, state._replace(stores=changed_one[:2], learner=changed_one[2])
        held = [state.stores[i].durable for i, added in enumerate(view) if added >= 0]
        if "mark_of_some" in self._mutants:
            held = [max(held)]
        if "mark_alone" in self._mutants:
            held = []
        mark = min([state.learner.durable, *held])
        if mark > state.mark:
            yield ("truncates", mark), state._replace(mark=mark)

    def _own_steps(
        self, state: ViewState, at: int, replica: Replica, end: int
    ) -> Iterator[tuple[ModelStep, Replica]]:
        following = replica.applied + 1
        peers = [r for i, r in enumerate((*state.stores, state.learner)) if i != at]
        if following <= end and (
            following > state.mark or any(peer.applied >= following for peer in peers)
        ):
            yield ("applies", at, following), replica._replace(applied=following)
        if replica.durable < replica.applied:
            yield ("persists", at, replica.applied), Replica(replica.applied, replica.applied)
            yield ("restarts", at, replica.durable), Replica(replica.durable, replica.durable)
        is_member = at < 2 and state.views[-1][at] >= 0
        if replica.durable and not is_member:
            yield ("loses its disk", at, 0), Replica(0, 0)

    def _is_whole(self, state: ViewState, store: int, view: tuple[int, ...]) -> bool:
        replica = state.stores[store]
        reached = replica.applied if "whole_by_applied" in self._mutants else replica.durable
        return view[store] >= 0 and reached >= view[store]

    def _may_follow(self, state: ViewState, view: tuple[int, ...]) -> bool:
        """A View keeps a whole store (design 4.5)."""
        if "drops_the_whole" in self._mutants:
            return any(added >= 0 for added in view)
        return any(
            self._is_whole(state, store, state.views[-1]) and view[store] == state.views[-1][store]
            for store in range(2)
        )

    def broken(self, state: ViewState) -> BrokenInvariant | None:
        """Every whole store alone, after a restart, holds what is truncated."""
        view = state.views[-1]
        whole = [store for store in range(2) if self._is_whole(state, store, view)]
        for store in whole or [store for store in range(2) if view[store] >= 0]:
            if state.stores[store].durable < state.mark:
                return BrokenInvariant(
                    "DURABLE",
                    f"slots up to {state.mark} are truncated, and store {store + 1}, which alone "
                    f"may be left, holds {state.stores[store].durable}",
                )
        return None

    @property
    def goals(self) -> Mapping[str, Callable[[ViewState], bool]]:
        return {
            "another store is the only one left": lambda s: s.views[-1][0] < 0 <= s.views[-1][1],
            "a store that was dropped is back": lambda s: (
                s.views[-1][0] > 0 and any(view[0] < 0 for view in s.views)
            ),
            "the learner is behind the mark": lambda s: s.learner.durable < s.mark,
            "a joining store is behind the mark": lambda s: any(
                added >= 0 and store.durable < s.mark
                for added, store in zip(s.views[-1], s.stores, strict=True)
            ),
        }

    def tell(self, step: ModelStep) -> str:
        """The step as a line of a story."""
        who = ("store 1", "store 2", "the learner")
        match step:
            case ("command", slot):
                return f"slot {slot} holds a command"
            case ("adds" | "drops" as what, int(store), slot):
                return f"slot {slot} holds a View that {what} {who[store]}"
            case ("truncates", mark):
                return f"slots up to {mark} are truncated"
            case (what, int(at), slot):
                return f"{who[at]} {what}, slot {slot}"
        return str(step)

    def story(self, path: list[ViewState], last: BrokenInvariant) -> list[str]:
        """The steps along `path`."""
        told = []
        for state, target in pairwise(path):
            told += [self.tell(step) for step, after in self.steps(state) if after == target][:1]
        return told


def _set(values: tuple[_T, ...], at: int, value: _T) -> tuple[_T, ...]:
    return (*values[:at], value, *values[at + 1 :])
