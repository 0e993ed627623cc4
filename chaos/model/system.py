"""A scope of the protocol as a system that `chaos.model.search` can search."""

from collections.abc import Callable, Iterator, Mapping

from chaos.model.goals import goals_of
from chaos.model.healing import Healing
from chaos.model.protocol import Protocol, Reached
from chaos.model.search import BrokenInvariant, ModelStep
from chaos.model.stories import tell
from chaos.model.world import ModelState, Scope


class MembershipSystem:
    """The protocol within `scope`, with the rules of `mutants` broken."""

    def __init__(self, scope: Scope, mutants: frozenset[str] = frozenset()) -> None:
        self._protocol = Protocol(scope, mutants)
        self._told = Protocol(scope, mutants, symmetric=False)
        self._healing = Healing(self._protocol) if scope.heals else None
        self._goals = goals_of(self._protocol)

    @property
    def goals(self) -> Mapping[str, Callable[[ModelState], bool]]:
        return self._goals

    def first(self) -> ModelState:
        return self._protocol.first()

    def steps(self, state: ModelState) -> Iterator[tuple[ModelStep, Reached]]:
        return self._protocol.steps(state)

    def broken(self, state: ModelState) -> BrokenInvariant | None:
        """The first invariant that is broken in `state`."""
        found = self._protocol.broken(state)
        if found is None and self._healing is not None:
            found = self._healing.broken(state)
        return found

    def tell(self, step: ModelStep) -> str:
        return tell(self._protocol.names, step)

    def story(self, path: list[ModelState], last: BrokenInvariant) -> list[str]:
        """The steps along `path`, then to `last`, with each disk under one name throughout."""
        world, told = path[0], list[str]()
        for target in path[1:]:
            for step, after in self._told.steps(world):
                if isinstance(after, ModelState) and self._in_order(after) == target:
                    told.append(self.tell(step))
                    world = after
                    break
        for step, after in self._told.steps(world):
            if isinstance(after, BrokenInvariant) and after.invariant == last.invariant:
                told.append(self.tell(step))
                break
        return told

    def _in_order(self, world: ModelState) -> ModelState:
        return world._replace(acceptors=self._protocol.in_order(world.acceptors))
