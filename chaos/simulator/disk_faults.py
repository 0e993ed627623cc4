"""Faults of disks, within what the cluster must tolerate.

A store or a learner may lose its disk while two other stores hold everything, a proposer at any
time; an acceptor may not, because it would lose its promises (`chaos.simulator.replacements`).
"""

import random
from collections import Counter
from collections.abc import Callable

from chaos.simulator.disk import Disk
from chaos.simulator.machine import Machine
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.schedule import US_PER_MS
from chaos.simulator.world import World

_HOLDERS_LEAST = 2
_POLL_MS = 2
_POLLS_MAX = 2_000


class DiskFaults:
    """Injects faults into disks, and knows which disks the cluster can do without."""

    def __init__(self, world: World, log: ReferenceLog) -> None:
        self._world = world
        self._log = log
        self.counters: Counter[str] = Counter()

    def holders(self) -> list[str]:
        """The stores that run, are in the view of the log, and hold all that it refers to."""
        view = self._log.view
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
        """Whether every store that is a member is in the view and holds everything."""
        return sorted(self.holders()) == sorted(self._log.names("store"))

    def may_lose_disk(self, machine: Machine) -> bool:
        """Whether other stores hold everything that this disk holds."""
        others = [name for name in self.holders() if name != machine.name]
        if machine.role == "proposer":
            return self._log.genesis is not None  # Its ballots name its disk.
        return machine.role in ("store", "learner") and len(others) >= _HOLDERS_LEAST

    def newcomers(self) -> int:
        """How many stores of the view are on other disks than those of the founding."""
        if self._log.view is None or self._log.genesis is None:
            return 0
        founding = {store.disk for store in self._log.genesis.view.stores}
        return sum(store.disk not in founding for store in self._log.view.stores)

    # -- full disks ------------------------------------------------------------------------------

    def take_reserve(self, machine: Machine) -> None:
        """Leave less space than the reserve: the actor is notified, and can still commit."""
        if not machine.is_low_on_space:
            machine.is_low_on_space = True
            self.counters["disk.low"] += 1
            if machine.is_up:
                machine.report_space()

    def fill(self, machine: Machine) -> None:
        """Let every commit fail for lack of space."""
        machine.is_full = True

    def free_space(self, machine: Machine) -> None:
        """Free space on the disk, and start a process that has waited for it."""
        machine.is_full = False
        if machine.waits_for_space and not machine.is_up:
            self.counters["disk.waited_for_room"] += 1
            self._world.restart(machine)
        if machine.is_low_on_space:
            machine.is_low_on_space = False
            if machine.is_up:
                machine.report_space()

    # -- bit rot ---------------------------------------------------------------------------------

    def rot_blob(self, machine: Machine, rng: random.Random) -> bool:
        """Flip a bit of a blob that at least two other stores have; false if there is none."""
        others = [self._world.machines[n].disk for n in self.holders() if n != machine.name]
        sound = [
            name
            for name in sorted(machine.disk.blobs)
            if sum(name in disk.blobs for disk in others) >= _HOLDERS_LEAST
        ]
        if not sound:
            return False
        name = rng.choice(sound)
        machine.disk.rotten_blobs.add(name)
        machine.disk.ever_rotten.add(name)
        self.counters["disk.rotten_blobs"] += 1
        self._scrub_soon(rng)
        return True

    def rot_row(self, machine: Machine, rng: random.Random) -> bool:
        """Flip a bit of a row; false if too many nodes of the role have rotten rows already."""
        others = [m for m in self._world.machines.values() if m.role == machine.role]
        least = 1 if machine.role == "acceptor" else 2
        if sum(bool(m.disk.rotten_rows) for m in others) >= least or not machine.disk.records:
            return False
        machine.disk.rotten_rows.add(rng.choice(sorted(machine.disk.records)))
        self.counters["disk.rotten_rows"] += 1
        self._scrub_soon(rng)
        return True

    def _scrub_soon(self, rng: random.Random) -> None:
        """Scrub again and again until every disk is sound.

        One scrub is not enough: a process may die before it has repaired what was found.
        """

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
                self._world.schedule.after_us(3_000 * US_PER_MS, scrub)

        self._world.schedule.after_us(rng.randrange(3_000 * US_PER_MS), scrub)

    def count_refusal(self, machine: Machine) -> bool:
        """Count a start that was refused; whether the node may start on an empty disk instead."""
        self.counters["disk.refused"] += 1
        return self.may_lose_disk(machine)

    # -- disk loss -------------------------------------------------------------------------------

    def lose_disk(self, machine: Machine, rng: random.Random) -> None:
        """End the process, and replace its disk by an empty one."""
        if machine.is_up:
            machine.crash()
        machine.disk = Disk(f"disk-{rng.getrandbits(64):016x}")
        self.counters["disk.lost"] += 1

    def when_copying(
        self, machine: Machine, rng: random.Random, act: Callable[[object], None]
    ) -> None:
        """Act once, a moment after the node has begun to copy a snapshot."""
        disk = machine.disk
        polls_left = _POLLS_MAX

        def poll(_: object) -> None:
            nonlocal polls_left
            polls_left -= 1
            if machine.disk is not disk or not polls_left:
                return
            if machine.is_up and _is_copying(machine):
                self.counters["disk.copies_disturbed"] += 1
                self._world.schedule.after_us(rng.randrange(1, 20 * US_PER_MS), act)
            else:
                self._world.schedule.after_us(_POLL_MS * US_PER_MS, poll)

        self._world.schedule.after_us(_POLL_MS * US_PER_MS, poll)


def _is_copying(machine: Machine) -> bool:
    actor = machine.actor
    return bool(actor.rejoin.is_installing if machine.role == "store" else actor.is_installing)
