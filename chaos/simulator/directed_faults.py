"""Sequences of faults that random draws rarely produce: each is directed at one invariant.

`later` does something after a time in µs, unless the storm is over by then: what is cut or down at
its end is healed once, so nothing may be cut or crashed afterwards.
"""

import random
from collections.abc import Callable

from chaos.simulator.machine import Machine
from chaos.simulator.schedule import US_PER_MS
from chaos.simulator.world import World

Later = Callable[[int, Callable[[], object]], None]

_POLL_US = 300
_POLLS_MAX = 10_000


def hide_leader(
    world: World,
    leader: Machine,
    duration_ms: int,
    restart: Callable[[Machine, int], None],
    later: Later,
) -> None:
    """Cut the leader off from the other proposers, and restart the acceptors one after another.

    Another proposer then stands for election while leases run that the restarted acceptors do not
    remember (design 3.6).
    """
    network = world.network
    pairs = {(leader.name, name) for name in world.named("proposer")}
    network.cut |= pairs
    later(duration_ms * US_PER_MS, lambda: network.cut.difference_update(pairs))
    acceptors = world.named("acceptor")
    for number, name in enumerate(acceptors):
        after_ms = duration_ms * (number + 1) // (len(acceptors) + 1)

        def crash(machine: Machine = world.machines[name]) -> None:
            if machine.is_up and pairs <= network.cut:
                machine.crash()
                restart(machine, 30)

        later(after_ms * US_PER_MS, crash)


def hide_decisions(
    world: World,
    coordinator: Machine,
    duration_ms: int,
    rng: random.Random,
    restart: Callable[[Machine, int], None],
    later: Later,
) -> None:
    """Deliver the coordinator's decisions to clients only, make a store unresponsive, and crash it.

    The next coordinator must not abort what clients know to be committed (design 4.3). The store
    is either paused, and soon dropped from the view; or it receives nothing while its heartbeats
    arrive, so that it stays in the view for longer, and its vote is missing all that time.
    """
    network = world.network
    duration_us = duration_ms * US_PER_MS
    replicas = (*world.named("store"), *world.named("learner"))
    pairs = {(coordinator.name, name) for name in replicas if name != coordinator.name}
    unresponsive = world.machines[rng.choice(world.named("store"))]
    inbound = {(name, unresponsive.name) for name in world.names if name != unresponsive.name}
    keeps_sending = rng.random() < 0.5
    polls_left = _POLLS_MAX

    def poll() -> None:
        """Wait for a slot that is being committed."""
        nonlocal polls_left
        polls_left -= 1
        part = coordinator.actor.coordinator if coordinator.is_up else None
        if part is None or not polls_left:
            return
        if not part.rounds:
            later(_POLL_US, poll)
            return
        network.cut |= pairs
        later(duration_us, lambda: network.cut.difference_update(pairs))
        later(rng.randrange(2, 40) * US_PER_MS, stop_responding)
        later(200 * US_PER_MS, crash)

    def crash() -> None:
        if coordinator.is_up and pairs <= network.cut:
            coordinator.crash()
            restart(coordinator, duration_ms)

    def stop_responding() -> None:
        if not unresponsive.is_up or not pairs <= network.cut:
            return
        if not keeps_sending:
            unresponsive.pause(duration_us)
            return
        network.cut |= inbound
        later(duration_us, lambda: network.cut.difference_update(inbound))

    poll()
