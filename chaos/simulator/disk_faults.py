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
            and m.actor.held.membership is not None
            and m.actor.rejoin.is_whole
            and not m.disk.rotten_blobs
            and not m.disk.rotten_rows
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

    # -- rot ---------------------------------------------------------------------------------------

    def rot_blob(self, machine: Machine, dice: random.Random) -> bool:
        """Flip a bit of contents that at least two other stores have; false if there are none."""
        others = [self._world.machines[n].disk for n in self.holders() if n != machine.name]
        sound = [
            name
            for name in sorted(machine.disk.blobs)
            if sum(name in disk.blobs for disk in others) >= _HOLDERS_LEAST
        ]
        if not sound:
            return False
        name = dice.choice(sound)
        machine.disk.rotten_blobs.add(name)
        machine.disk.ever_rotten.add(name)
        self.counters["disk.rotten_blobs"] += 1
        self._scrub_soon(dice)
        return True

    def rot_row(self, machine: Machine, dice: random.Random) -> bool:
        """Flip a bit of a row; false where too many of the role are rotten already."""
        others = [m for m in self._world.machines.values() if m.role == machine.role]
        least = 1 if machine.role == "acceptor" else 2
        if sum(bool(m.disk.rotten_rows) for m in others) >= least or not machine.disk.records:
            return False
        machine.disk.rotten_rows.add(dice.choice(sorted(machine.disk.records)))
        self.counters["disk.rotten_rows"] += 1
        self._scrub_soon(dice)
        return True

    def _scrub_soon(self, dice: random.Random) -> None:
        """Until all is sound again: an actor is told, and may die before it has mended it."""

        def scrub(_: object) -> None:
            rotten = [
                m
                for m in self._world.machines.values()
                if m.disk.rotten_blobs or m.disk.rotten_rows
            ]
            for machine in rotten:
                if machine.is_up:
                    machine.scrub()
            if rotten:
                self._world.after_us(3_000 * US, scrub)

        self._world.after_us(dice.randrange(3_000 * US), scrub)

    def refused(self, machine: Machine) -> bool:
        """Whether the node may start on an empty disk, as its rotten one was refused."""
        self.counters["disk.refused"] += 1
        return self.may_lose_disk(machine)

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
    return bool(actor.rejoin.is_installing if machine.role == "store" else actor.is_installing)
