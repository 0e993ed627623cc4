"""An operator who replaces acceptors that have lost their disks (`synod replace`).

It asks a gateway again and again, as the command does, until the cluster has named the new disk;
and it counts a disk as dispensable only when the cluster says so (decision 26, rule 18).
"""

from collections import Counter

from actors.calls import MemberChange
from chaos.simulator.machine import Machine
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.schedule import US_PER_MS
from chaos.simulator.world import World

_AGAIN_MS = 700


class Replacements:
    """Replaces one acceptor after the other."""

    def __init__(self, world: World, log: ReferenceLog) -> None:
        self._world = world
        self._log = log
        self._rng = world.stream("replacements")
        self._asks = False
        self.counters: Counter[str] = Counter()

    def _lost(self) -> list[str]:
        """The acceptors that run on a disk that the log does not name."""
        return [
            name
            for name, disk in sorted(self._log.acceptors.items())
            if name in self._world.machines and self._world.machines[name].disk.identity != disk
        ]

    def _is_forgettable(self) -> bool:
        """Whether the cluster says that former disks are no longer needed."""
        if not self._log.version:
            return True
        for machine in self._world.up("learner"):
            beat = machine.actor.heartbeat() if machine.actor.is_started else None
            if beat is None or beat.membership is None:
                continue
            known = beat.membership
            is_newest = known.newest.version == self._log.version
            if is_newest and known.is_settled and known.settled_slot <= beat.durable_mark:
                return True
        return False

    def may_lose_disk(self, machine: Machine) -> bool:
        """Whether the cluster can do without this disk: no other one is missing."""
        return (
            machine.role == "acceptor"
            and self._log.genesis is not None
            and machine.actor is not None
            and machine.actor.is_started
            and not self._log.changing
            and not self._lost()
            and self._is_forgettable()
        )

    def begin(self, machine: Machine) -> None:
        """The disk is lost; ask until it is replaced."""
        self.counters["acceptors.disks_lost"] += 1
        if not self._asks:
            self._asks = True
            self._world.schedule.after_us(_AGAIN_MS * US_PER_MS, self._ask)

    def are_over(self) -> bool:
        """Whether every acceptor's disk is named, and no change is under way or could be undone."""
        return not self._log.changing and not self._lost() and self._is_forgettable()

    def _ask(self, _: object) -> None:
        lost = self._lost()
        if not lost and not self._log.changing:
            self._asks = False
            self.counters["acceptors.replaced"] += 1
            return
        gateways = self._world.up("gateway")
        if lost and gateways and not self._log.changing:
            name, gateway = lost[0], self._rng.choice(gateways).name
            self.counters["acceptors.asked"] += 1
            self._world.call(
                lambda token: MemberChange(token=token, action="replace", name=name), gateway
            )
        self._world.schedule.after_us(_AGAIN_MS * US_PER_MS, self._ask)
