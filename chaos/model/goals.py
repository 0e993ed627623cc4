"""*Sometimes* properties: what a search must have met, or its silence shows nothing."""

from collections.abc import Callable, Mapping

from chaos.model.membership import settled
from chaos.model.protocol import Protocol
from chaos.model.world import ModelState

Goal = Callable[[ModelState], bool]


def goals_of(protocol: Protocol) -> Mapping[str, Goal]:
    """The goals that make sense in the protocol's scope."""
    scope = protocol.scope
    versions = range(1, len(protocol.masks))
    ballots = range(1, scope.ballots + 1)

    def led(world: ModelState) -> list[int]:
        return [b for b in ballots if world.proposers[b - 1].phase == 2]

    def newest(world: ModelState) -> int:
        return protocol.membership(world.chosen, protocol.prefix(world.chosen)).newest

    def knows(world: ModelState, ballot: int) -> int:
        through = world.proposers[ballot - 1].through
        return protocol.membership(world.chosen, through).newest

    def both_chose(world: ModelState) -> bool:
        known = protocol.membership(world.chosen, protocol.prefix(world.chosen))
        return any(known.at(slot) > 0 and value for slot, value in enumerate(world.chosen, 1))

    def met_the_fence(world: ModelState) -> bool:
        return any(
            a.fence > protocol.version(world, b) and a.promised <= b
            for b in ballots
            if world.proposers[b - 1].phase in (1, 2)
            for a in world.acceptors
        )

    def took_over(world: ModelState) -> bool:
        known = protocol.membership(world.chosen, protocol.prefix(world.chosen))
        return known.oldest != known.newest and len(led(world)) > 1

    def reads_of(kinds: set[int]) -> Goal:
        return lambda world: any(
            a.reads >> bit & 1 and bit % 5 in kinds
            for a in world.acceptors
            for bit in range(a.reads.bit_length())
        )

    goals: dict[str, Goal] = {
        "two ballots lead": lambda world: len(led(world)) > 1,
        "a slot is chosen by a new configuration": both_chose,
        "a leader knows less than was chosen": lambda world: any(
            knows(world, b) < newest(world) for b in led(world)
        ),
        "the change has ended": lambda world: any(settled(v) in world.chosen for v in versions),
    }
    if scope.ballots > 1:
        if not scope.late:
            goals["a leader changes amid a change"] = took_over
        goals["a candidate meets the fence"] = met_the_fence
    if scope.lazy_marks:
        goals["Members is chosen and not durable"] = lambda world: (
            newest(world) > protocol.membership(world.chosen, world.mark).newest
        )
        goals["Settled is chosen and not durable"] = lambda world: any(
            settled(v) in world.chosen and world.mark <= world.chosen.index(settled(v))
            for v in versions
        )
    if scope.reads:
        goals["reads under one configuration"] = reads_of({0})
        goals["reads under two configurations"] = reads_of({1, 3})
        goals["reads under the new one alone"] = reads_of({2, 4})
    if scope.truncates:
        goals["a promise covers no truncated slot"] = lambda world: any(
            promise > 1 for a in world.acceptors for promise in a.promises
        )
    if len(protocol.masks) > 2 and scope.slots > 3:
        goals["two changes have ended"] = lambda world: settled(2) in world.chosen
    return goals
