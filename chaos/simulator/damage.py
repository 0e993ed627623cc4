"""What befalls the disks themselves, within what the cluster is meant to bear.

A store or a learner may lose its disk while two other stores hold everything; an acceptor or a
proposer may not, because it would forget what it promised (`actors.founding`).
"""

import random
from collections import Counter
from collections.abc import Callable

from chaos.simulator.disk import Disk
from chaos.simulator.machine import Machine
from chaos.simulator.truth import Truth
from chaos.simulator.world import US, World

_HOLDERS_LEAST = 2
_LOOK_MS = 2
_LOOKS = 2_000


class Damage:
    """Harms disks, and knows which of them may be harmed now."""

    def __init__(self, world: World, truth: Truth) -> None:
        self._world = world
        self._truth = truth
        self.counters: Counter[str] = Counter()

    def holders(self) -> list[str]:
        """The stores that run, are in the view of the log, and hold all that it says."""
        view = self._truth.view
        named = {(store.name, store.disk) for store in view.stores} if view else set()
        return [
            m.name
            for m in self._world.up("store")
            if (m.name, m.disk.identity) in named
            and m.actor.joining.membership is not None
            and m.actor.joining.is_whole
        ]

    def is_whole(self) -> bool:
        """Whether every store holds all again."""
        return len(self.holders()) == self._world.options.stores

    def may_lose_disk(self, machine: Machine) -> bool:
        """Whether nothing is lost for ever with this disk."""
        others = [name for name in self.holders() if name != machine.name]
        return machine.role in ("store", "learner") and len(others) >= _HOLDERS_LEAST

    def newcomers(self) -> int:
        """How many stores of the view are not on the disks that founded the cluster."""
        if self._truth.view is None or self._truth.genesis is None:
            return 0
        founding = {store.disk for store in self._truth.genesis.view.stores}
        return sum(store.disk not in founding for store in self._truth.view.stores)

    # -- full disks ------------------------------------------------------------------------------

    def take_reserve(self, machine: Machine) -> None:
        """The actor is told that there is little room, and can still commit."""
        if not machine.is_low:
            machine.is_low = True
            self.counters["disk.low"] += 1
            if machine.is_up:
                machine.tell_room()

    def fill(self, machine: Machine) -> None:
        """From now on no commit finds room."""
        machine.is_full = True

    def make_room(self, machine: Machine) -> None:
        """There is room again, and whoever waited for it begins anew."""
        machine.is_full = False
        if machine.waits_for_room and not machine.is_up:
            self.counters["disk.waited_for_room"] += 1
            self._world.start(machine.name)
        if machine.is_low:
            machine.is_low = False
            if machine.is_up:
                machine.tell_room()

    # -- disk loss -------------------------------------------------------------------------------

    def lose_disk(self, machine: Machine, dice: random.Random) -> None:
        """The process dies, and its disk is empty when it starts again."""
        if machine.is_up:
            machine.crash()
        machine.disk = Disk(f"disk-{dice.getrandbits(64):016x}")
        self.counters["disk.lost"] += 1

    def when_copying(
        self, machine: Machine, dice: random.Random, act: Callable[[object], None]
    ) -> None:
        """Act once, a moment after the node began to copy a snapshot."""
        disk = machine.disk
        looks = _LOOKS

        def look(_: object) -> None:
            nonlocal looks
            looks -= 1
            if machine.disk is not disk or not looks:
                return
            if machine.is_up and _is_copying(machine):
                self.counters["disk.copies_disturbed"] += 1
                self._world.after_us(dice.randrange(1, 20 * US), act)
            else:
                self._world.after_us(_LOOK_MS * US, look)

        self._world.after_us(_LOOK_MS * US, look)


def _is_copying(machine: Machine) -> bool:
    actor = machine.actor
    return bool(actor.joining.is_installing if machine.role == "store" else actor.is_installing)
