"""Two days so bad that chance alone seldom draws them: each puts one rule to the test."""

import random
from collections.abc import Callable

from chaos.simulator.machine import Machine
from chaos.simulator.world import US, World

_LOOK_US = 300
_LOOKS = 10_000


def usurp(
    world: World, leader: Machine, duration_ms: int, restart: Callable[[Machine, int], None]
) -> None:
    """The proposers do not hear the leader, which leads on, and acceptors start again meanwhile.

    Somebody stands for election while leases run that restarted acceptors do not remember
    (design 3.6).
    """
    network = world.network
    pairs = {(leader.name, name) for name in world.options.names("proposer")}
    network.cut |= pairs
    world.after_us(duration_ms * US, lambda _: network.cut.difference_update(pairs))
    for number, name in enumerate(world.options.names("acceptor")):
        after_ms = duration_ms * (number + 1) // (world.options.acceptors + 1)

        def strike(_: object, machine: Machine = world.machines[name]) -> None:
            if machine.is_up and pairs <= network.cut:
                machine.crash()
                restart(machine, 30)

        world.after_us(after_ms * US, strike)


def half_tell(
    world: World,
    coordinator: Machine,
    duration_ms: int,
    dice: random.Random,
    restart: Callable[[Machine, int], None],
) -> None:
    """The coordinator decides, tells the clients, but no replica, and dies; a store falls silent.

    Whoever takes over may not abort what was told (design 4.3). A store without time
    is soon dropped from the view. One that is deaf is heard, so it stays for as long as nobody is
    sure that it does not answer, and its vote is missing all the while.
    """
    network = world.network
    replicas = (*world.options.names("store"), *world.options.names("learner"))
    pairs = {(coordinator.name, name) for name in replicas if name != coordinator.name}
    silent = world.machines[dice.choice(world.options.names("store"))]
    to_silent = {(name, silent.name) for name in world.names if name != silent.name}
    deaf = dice.random() < 0.5
    looks = _LOOKS

    def look(_: object) -> None:
        nonlocal looks
        looks -= 1
        part = coordinator.actor.coordinator if coordinator.is_up else None
        if part is None or not looks:
            return
        if not part.rounds:
            world.after_us(_LOOK_US, look)
            return
        network.cut |= pairs
        world.after_us(duration_ms * US, lambda _: network.cut.difference_update(pairs))
        world.after_us(dice.randrange(2, 40) * US, fall_silent)

        world.after_us(200 * US, die)

    def die(_: object) -> None:
        if coordinator.is_up and pairs <= network.cut:
            coordinator.crash()
            restart(coordinator, duration_ms)

    def fall_silent(_: object) -> None:
        if not silent.is_up or not pairs <= network.cut:
            return
        if not deaf:
            silent.pause(duration_ms * US)
            return
        network.cut |= to_silent
        world.after_us(duration_ms * US, lambda _: network.cut.difference_update(to_silent))

    look(None)
