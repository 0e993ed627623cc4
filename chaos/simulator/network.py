"""The broker between the nodes: every parcel and every timer goes through it.

A parcel is what one turn sends to one destination, as the runtime coalesces it: it arrives or is
lost as a whole. Each node has one queue, which outlives the node's crash but not the broker's.
Between the same two nodes the order is kept, unless the storm reorders.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.effects import Group, TimerKey
from actors.numbers import Milliseconds
from broker.timers import OVERDUE_MS
from broker.topology import delay_level_ms
from chaos.simulator.interfaces import Parcel, Receiver, Surroundings

_GROUPS = {
    Group.ACCEPTORS: ("acceptor",),
    Group.LEARNERS: ("learner",),
    Group.STORES: ("store",),
    Group.HEARTBEATS: ("proposer", "learner", "store", "gateway"),
    Group.PHASE_2: ("acceptor", "learner"),
}


@dataclass(slots=True)
class Conditions:
    """How unkind the network is, as probabilities and microseconds."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """How often a parcel may overtake those before it, by up to `reorder_us_max`."""
    reorder_us_max: int = 50_000
    lag: float = 0.0
    """How often a parcel is held up for long, by up to `lag_us_max`."""
    lag_us_max: int = 1_000_000
    least_us: int = 200
    most_us: int = 2_000


class Wakeup(NamedTuple):
    """The message of a timer; `generation` -1 is a forgery that the actor has to bear."""

    serial: int
    key: TimerKey
    generation: int


@dataclass(slots=True)
class Blockade:
    """The broker takes nothing from `senders`: it is dropped, or `holds` it until the end."""

    senders: frozenset[str]
    holds: bool
    held: list[Callable[[], None]] = field(default_factory=list)
    """What to publish at the end, in order."""

    def takes(self, publish: Callable[[], None]) -> None:
        """Something was published in vain."""
        if self.holds:
            self.held.append(publish)


class Network:
    """Carries parcels and timers, or does not."""

    def __init__(self, world: Surroundings, names: tuple[str, ...]) -> None:
        self._world = world
        self.conditions = Conditions()
        self.up = True
        self.cut: set[tuple[str, str]] = set()
        """Pairs of sender and receiver between which nothing passes."""
        self.parted: set[str] = set()
        """Nodes that the broker does not hear and that do not hear the broker."""
        self.blockades: list[Blockade] = []
        self.blocked_publications = 0
        self.deliveries = 0
        self._restarts = 0
        self._last_us: dict[tuple[str, str], int] = {}
        self._random = world.stream("network")
        self.receivers: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
        for group, roles in _GROUPS.items():
            self.receivers[group] = tuple(n for n in names if n.rpartition("-")[0] in roles)

    # -- parcels ---------------------------------------------------------------------------------

    def publish(self, sender: str, to: str, parcel: Parcel) -> None:
        """Put a copy into the queue of each receiver, sooner or later or never."""
        world = self._world
        if self.blockades and self._is_blocked(sender, lambda: self.publish(sender, to, parcel)):
            return
        conditions = self.conditions
        draw = self._random.random
        trace = world.trace
        for receiver in self.receivers.get(to, ()):
            if (
                not self.up
                or (self.cut and (sender, receiver) in self.cut)
                or (self.parted and (sender in self.parted or receiver in self.parted))
                or (conditions.loss and draw() < conditions.loss)
            ):
                if trace is not None:
                    trace.parcel(world.now_us, None, sender, receiver, parcel, duplicate=False)
                continue
            at_us = self._arrival_us(sender, receiver)
            machine = world.machines[receiver]
            world.at_us(at_us, self._arrive, (machine, parcel, self._restarts))
            if trace is not None:
                trace.parcel(world.now_us, at_us, sender, receiver, parcel, duplicate=False)
            if conditions.duplication and draw() < conditions.duplication:
                at_us += int(draw() * 100_000)
                world.at_us(at_us, self._arrive, (machine, parcel, self._restarts))
                if trace is not None:
                    trace.parcel(world.now_us, at_us, sender, receiver, parcel, duplicate=True)

    def _arrival_us(self, sender: str, receiver: str) -> int:
        conditions = self.conditions
        draw = self._random.random
        least = conditions.least_us
        at_us = self._world.now_us + least + int(draw() * (conditions.most_us - least))
        if conditions.lag and draw() < conditions.lag:
            at_us += int(draw() * conditions.lag_us_max)
        if conditions.reordering and draw() < conditions.reordering:
            return at_us + int(draw() * conditions.reorder_us_max)
        link = (sender, receiver)
        at_us = max(at_us, self._last_us.get(link, 0))
        self._last_us[link] = at_us
        return at_us

    def _arrive(self, arrival: tuple[Receiver, Parcel, int]) -> None:
        machine, parcel, restarts = arrival
        if restarts == self._restarts:
            self.deliveries += len(parcel)
            machine.arrive(parcel)

    # -- timers ----------------------------------------------------------------------------------

    def delay(
        self, machine: Receiver, key: TimerKey, generation: int, delay_ms: Milliseconds
    ) -> None:
        """Send a timer's message through the delay queue of its rung.

        The rung is measured by the broker's clock, which is the true one here.
        """
        if not self.up or machine.name in self.parted:
            return  # The node sends it again when it is connected again.
        world = self._world
        rung = delay_level_ms(max(1, delay_ms))
        serial = machine.serial
        conditions = self.conditions

        def publish() -> None:
            if serial == machine.serial:
                self.delay(machine, key, generation, delay_ms)

        blocked = bool(self.blockades) and self._is_blocked(machine.name, publish)
        if blocked or (conditions.loss and self._random.random() < conditions.loss):
            late_ms = rung + max(OVERDUE_MS, delay_ms // 2)
            world.after_us(late_ms * 1000, machine.resend_timer, (serial, key, generation))
            return
        late_us = conditions.least_us
        if conditions.lag and self._random.random() < conditions.lag:
            late_us += int(self._random.random() * conditions.lag_us_max)
        world.after_us(
            rung * 1000 + late_us,
            self._wake,
            (machine, Wakeup(serial, key, generation), self._restarts),
        )

    def _wake(self, arrival: tuple[Receiver, Wakeup, int]) -> None:
        machine, wakeup, restarts = arrival
        if restarts != self._restarts:
            return
        if machine.name in self.parted:
            # Its queue keeps the message until the node is back.
            machine.inbox.append(wakeup)
        else:
            machine.arrive(wakeup)

    def _is_blocked(self, sender: str, publish: Callable[[], None]) -> bool:
        for blockade in self.blockades:
            if sender in blockade.senders:
                self.blocked_publications += 1
                blockade.takes(publish)
                return True
        return False

    # -- trouble ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """The broker goes down, and with it all that was under way or waited in a queue."""
        self.up = False
        for blockade in self.blockades:
            blockade.held.clear()
        self._restarts += 1
        self._last_us.clear()
        for machine in self._world.machines.values():
            machine.forget_queue()

    def start(self) -> None:
        """The broker is back: every node connects again and sends its timers again."""
        self.up = True
        for machine in self._world.machines.values():
            machine.rearm()

    def rejoin(self, name: str) -> None:
        """A node that was parted from the broker connects again."""
        self.parted.discard(name)
        if self.up:
            self._world.machines[name].rearm()

    def unblock(self, blockade: Blockade) -> None:
        """The broker takes again what it is sent, and first what it was sent meanwhile."""
        if blockade in self.blockades:
            self.blockades.remove(blockade)
            for publish in blockade.held:
                publish()
