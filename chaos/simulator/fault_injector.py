"""Injects the faults of a `FaultScript` into a world, and ends them all."""

import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from actors.paxos.phases import Leading
from actors.unread import HEAD, UnreadBatch
from chaos.simulator.clock import PPM
from chaos.simulator.directed_faults import hide_decisions, hide_leader
from chaos.simulator.disk_faults import DiskFaults
from chaos.simulator.faults import FaultScript, Incident, draw_crash_point, draw_rate_ppm
from chaos.simulator.machine import Machine
from chaos.simulator.member_operator import MemberOperator
from chaos.simulator.network import Conditions, ResourceAlarm
from chaos.simulator.parcels import SPURIOUS, DueTimer
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.replacements import Replacements
from chaos.simulator.schedule import US_PER_MS
from chaos.simulator.setting_faults import ROLLOUTS, draw_change, restart_with
from chaos.simulator.world import World

_DOWN_MS = (100, 4_000)
_DRIFT_MS = 2_000
_CALM_DISK_US = (50, 600)


class FaultInjector:
    """Injects the faults of one script. `keep` names the incidents that happen; `None`: all."""

    def __init__(
        self,
        world: World,
        script: FaultScript,
        log: ReferenceLog,
        keep: frozenset[str] | None = None,
    ) -> None:
        self._world = world
        self._schedule = world.schedule
        self.disk_faults = DiskFaults(world, log)
        self.replacements = Replacements(world, log)
        self.operator = MemberOperator(world, log)
        self._log = log
        self._script = script
        self._keep = keep
        self._over = False
        self._rng = world.stream("weather")
        self._drift_rng = world.stream("drifts")
        self.happened: list[str] = []
        """The names of the incidents that have happened."""
        self._inject: dict[str, Callable[[Incident, random.Random], None]] = {
            "crash": self._crash,
            "turn": self._crash_in_turn,
            "pause": self._pause,
            "partition": self._disconnect,
            "one-way": self._cut_one_way,
            "partial": self._cut_pairs,
            "broker": self._restart_broker,
            "timers": self._fire_stale_timers,
            "slow-disk": self._slow_disk,
            "disk-loss": self._lose_disk,
            "full-disk": self._fill_disk,
            "bit-rot": self._rot,
            "usurper": self._hide_leader,
            "half-told": self._hide_decisions,
            "blocked": self._raise_alarm,
            "settings": self._change_setting,
            "replace": self._replace_acceptor,
            "members": self._change_members,
            "garbage": self._propose_garbage,
        }

    # -- beginning and end -----------------------------------------------------------------------

    def begin(self) -> None:
        """Impose the conditions, and schedule the incidents."""
        world = self._world
        self.begin_conditions()
        world.on_death = self._restart_later
        world.on_refusal = self._on_disk_refused
        for incident in self._script.incidents:
            if self._keep is None or incident.name in self._keep:
                self._schedule.after_us(incident.at_ms * US_PER_MS, self._on_incident, incident)

    def begin_conditions(self) -> None:
        """Impose the conditions of the network, the clocks and the disks."""
        world = self._world
        world.network.conditions = self._script.conditions
        if self._script.clocks_off:
            self._drift(1.0)
        for name, machine in world.machines.items():
            latency_us = self._script.disk_us.get(name, _CALM_DISK_US)
            machine.disk_least_us, machine.disk_most_us = latency_us

    def _drift(self, share: float) -> None:
        """Change the rates of some clocks, without a jump; and again a little later."""
        rng = self._drift_rng
        for machine in self._world.machines.values():
            if rng.random() < share:
                rate_ppm = draw_rate_ppm(rng, self._script.clocks_off)
                machine.clock.set_rate(rate_ppm, self._schedule.now_us)
        self._later(_DRIFT_MS, lambda: self._drift(0.3))

    def end(self) -> None:
        """End all faults, and start every process that is down."""
        world = self._world
        self._over = True
        world.trace_event("the storm is over")
        self.operator.end()
        world.network.conditions = Conditions()
        world.network.cut.clear()
        for alarm in list(world.network.alarms):
            world.network.clear_alarm(alarm)
        if not world.network.up:
            world.network.start()
        for name in sorted(world.network.disconnected):
            world.network.reconnect(name)
        for machine in world.machines.values():
            machine.dies_at = ""
            machine.clock.set_rate(PPM, world.now_us)
            machine.disk_least_us, machine.disk_most_us = _CALM_DISK_US
            if machine.is_paused:
                machine.resume()
            if machine.changed_setting is not None:
                machine.changed_setting = None
                if machine.is_up:
                    machine.crash()
            if not machine.is_up:
                machine.disk.rotten_rows.clear()  # Its operator has restored a sound copy.
            self.disk_faults.free_space(machine)
        world.start()

    # -- incidents -------------------------------------------------------------------------------

    def _on_incident(self, incident: Incident) -> None:
        if not self._over:
            self.happened.append(incident.name)
            self._inject[incident.fault](incident, random.Random(incident.seed))

    def _trace(self, incident: Incident, what: str, names: Iterable[str] = ()) -> None:
        targets = ", ".join(names)
        text = f"{incident.name}: {what}"
        self._world.trace_event(f"{text}: {targets}" if targets else text)

    def _crash(self, incident: Incident, rng: random.Random) -> None:
        machines = self._targets(incident.target, rng)
        self._trace(incident, f"{incident.duration_ms} ms down", (m.name for m in machines))
        for machine in machines:
            machine.crash()
            self._restart(machine, incident.duration_ms, rng)

    def _crash_in_turn(self, incident: Incident, rng: random.Random) -> None:
        point = draw_crash_point(rng)
        machines = self._targets(incident.target, rng)
        self._trace(incident, f"a coming turn dies at {point}", (m.name for m in machines))
        for machine in machines:
            machine.dies_at = point

    def _pause(self, incident: Incident, rng: random.Random) -> None:
        machines = self._targets(incident.target, rng)
        self._trace(incident, f"{incident.duration_ms} ms without time", (m.name for m in machines))
        for machine in machines:
            machine.pause(incident.duration_ms * US_PER_MS)

    def _disconnect(self, incident: Incident, rng: random.Random) -> None:
        network = self._world.network
        names = [m.name for m in self._targets(incident.target, rng)]
        self._trace(incident, f"{incident.duration_ms} ms without the broker", names)
        network.disconnected.update(names)

        def reconnect() -> None:
            for name in names:
                network.reconnect(name)

        self._later(incident.duration_ms, reconnect)

    def _cut_one_way(self, incident: Incident, rng: random.Random) -> None:
        names = [m.name for m in self._targets(incident.target, rng)]
        outbound = rng.random() < 0.5
        others = self._world.names
        pairs = {(n, o) if outbound else (o, n) for n in names for o in others if n != o}
        self._trace(incident, "nobody hears" if outbound else "do not hear anybody", names)
        self._cut(incident, pairs)

    def _cut_pairs(self, incident: Incident, rng: random.Random) -> None:
        names = self._world.names
        share = rng.choice((0.1, 0.3, 0.6))
        both = rng.random() < 0.5
        pairs: set[tuple[str, str]] = set()
        for index, first in enumerate(names):
            for second in names[index + 1 :]:
                if rng.random() < share:
                    pairs |= {(first, second), (second, first)} if both else {(first, second)}
        self._trace(incident, f"{len(pairs)} ways between two nodes are cut")
        self._cut(incident, pairs)

    def _cut(self, incident: Incident, pairs: set[tuple[str, str]]) -> None:
        network = self._world.network
        network.cut |= pairs
        self._later(incident.duration_ms, lambda: network.cut.difference_update(pairs))

    def _restart_broker(self, incident: Incident, rng: random.Random) -> None:
        network = self._world.network
        if network.up:
            self._trace(incident, f"the broker restarts, {incident.duration_ms} ms, and forgets")
            network.stop()
            self._later(incident.duration_ms, lambda: None if network.up else network.start())

    def _raise_alarm(self, incident: Incident, rng: random.Random) -> None:
        """The broker accepts nothing from some nodes or from all, but delivers from its queues."""
        network = self._world.network
        of_all = rng.random() < 0.5
        names = [m.name for m in self._targets(incident.target, rng)]
        senders = self._world.names if of_all else names
        alarm = ResourceAlarm(frozenset(senders), holds=rng.random() < 0.5)
        fate = "waits" if alarm.holds else "is dropped"
        what = f"{incident.duration_ms} ms in which the broker takes nothing, and it {fate}"
        self._trace(incident, what, ["all nodes"] if of_all else names)
        network.alarms.append(alarm)
        self._later(incident.duration_ms, lambda: network.clear_alarm(alarm))

    def _change_setting(self, incident: Incident, rng: random.Random) -> None:
        """Restart nodes with another value of one setting, and later with the cluster's again."""
        world = self._world
        if self._log.genesis is None or any(m.changed_setting for m in world.machines.values()):
            return  # Before the founding the cluster has no settings.
        changed = draw_change(world.options, rng)
        rollout = rng.choice(ROLLOUTS)
        machines = list(world.machines.values())
        if rollout in ("one node", "a role"):
            targets = self._targets(incident.target, rng)[:1] or machines[:1]
            role = targets[0].role
            machines = [m for m in machines if m.role == role] if rollout == "a role" else targets
        spacing_ms = 0 if rollout == "all at once" else rng.randint(100, 1_000)
        what = f"{changed.name} is {changed.value!r}, not {changed.cluster_value!r}"
        self._trace(incident, what, (m.name for m in machines))
        restart_with(world, machines, changed, spacing_ms, self._later)
        self._later(
            incident.duration_ms,
            lambda: restart_with(world, machines, None, spacing_ms, self._later),
        )

    def _fire_stale_timers(self, incident: Incident, rng: random.Random) -> None:
        """Fire timers that were once set: early, again, or after they were cancelled."""
        for machine in self._targets(incident.target, rng):
            known = sorted(machine.known_timers)
            for key in rng.sample(known, min(len(known), 3)):
                delay_us = rng.randrange(incident.duration_ms * US_PER_MS)
                message = DueTimer(machine.serial, key, SPURIOUS)
                self._trace(incident, f"stale timer {key.name}", (machine.name,))
                self._schedule.after_us(delay_us, machine.arrive, message)

    def _slow_disk(self, incident: Incident, rng: random.Random) -> None:
        machines = self._targets(incident.target, rng)
        most_us = rng.choice((50, 300, 1_500)) * US_PER_MS
        self._trace(
            incident, f"a commit takes up to {most_us // US_PER_MS} ms", (m.name for m in machines)
        )
        before = {m.name: (m.disk_least_us, m.disk_most_us) for m in machines}
        for machine in machines:
            machine.disk_least_us, machine.disk_most_us = most_us // 4, most_us

        def restore() -> None:
            for machine in machines:
                machine.disk_least_us, machine.disk_most_us = before[machine.name]

        self._later(incident.duration_ms, restore)

    def _lose_disk(self, incident: Incident, rng: random.Random) -> None:
        for machine in self._targets(incident.target, rng):
            if self.disk_faults.may_lose_disk(machine):
                self._trace(incident, "the disk is lost", (machine.name,))
                self.disk_faults.lose_disk(machine, rng)
                self._restart(machine, incident.duration_ms, rng)
                if rng.random() < 0.5:
                    self._disturb_copying(machine, rng)

    def _replace_acceptor(self, incident: Incident, rng: random.Random) -> None:
        for machine in self._targets(incident.target, rng):
            if self.replacements.may_lose_disk(machine):
                self._trace(incident, "the disk is lost for good", (machine.name,))
                self.disk_faults.lose_disk(machine, rng)
                self.replacements.begin(machine)
                self._restart(machine, incident.duration_ms, rng)

    def _change_members(self, incident: Incident, rng: random.Random) -> None:
        """Add or remove a member of any role, or let a proposer lose its disk."""
        proposers = self._world.up("proposer")
        if proposers and rng.random() < 0.2:
            machine = rng.choice(proposers)
            if self.disk_faults.may_lose_disk(machine):
                self._trace(incident, "the disk is lost", (machine.name,))
                self.disk_faults.lose_disk(machine, rng)
                self.operator.counters["members.proposers_replaced"] += 1
                self._restart(machine, incident.duration_ms, rng)
        elif what := self.operator.begin(rng):
            self._trace(incident, what)

    def _propose_garbage(self, incident: Incident, rng: random.Random) -> None:
        """Make the leader propose what looks like a batch to acceptors, and is none."""
        for machine in self._targets(incident.target, rng):
            if isinstance(machine.actor.phase, Leading):
                text = HEAD + b'"elapsed_ms":1,"garbage":%d}' % rng.getrandbits(32)
                self._trace(incident, "garbage is proposed", (machine.name,))
                waiting: deque[Any] = machine.actor.phase.waiting_values
                waiting.append(UnreadBatch(text=text))

    def _fill_disk(self, incident: Incident, rng: random.Random) -> None:
        """Leave less space than the reserve, none at all, or first the one and then the other."""
        machines = self._targets(incident.target, rng)
        kind = rng.choice(("low", "full", "low, then full"))
        self._trace(incident, f"the disk is {kind}", (m.name for m in machines))
        for machine in machines:
            if kind == "full":
                self.disk_faults.fill(machine)
            else:
                self.disk_faults.take_reserve(machine)
            if kind == "low, then full":
                after_ms = rng.randint(0, incident.duration_ms)
                self._later(
                    after_ms,
                    lambda machine=machine: self.disk_faults.fill(machine),  # type: ignore[misc]
                )
            self._later(
                incident.duration_ms + 1,
                lambda machine=machine: self.disk_faults.free_space(machine),  # type: ignore[misc]
            )

    def _rot(self, incident: Incident, rng: random.Random) -> None:
        for machine in self._targets(incident.target, rng):
            row = rng.random() < 0.5 or machine.role != "store"
            if machine.role == "gateway":
                continue
            rot = self.disk_faults.rot_row if row else self.disk_faults.rot_blob
            if rot(machine, rng):
                self._trace(incident, f"a {'row' if row else 'blob'} has rotted", (machine.name,))
                if row and rng.random() < 0.4:
                    machine.crash()  # The next start detects it.
                    self._restart(machine, incident.duration_ms, rng)

    def _on_disk_refused(self, machine: Machine) -> None:
        """Replace the disk if the node can copy everything; else it stays down until the calm, in
        which its operator restores a sound copy.
        """
        if self._over:
            machine.disk.rotten_rows.clear()
            down_us = _DOWN_MS[0] * US_PER_MS
            self._schedule.after_us(down_us, lambda _: self._world.restart(machine))
        elif self.disk_faults.count_refusal(machine):
            self.disk_faults.lose_disk(machine, self._rng)
            self._restart_later(machine)

    def _hide_leader(self, incident: Incident, rng: random.Random) -> None:
        for leader in self._targets("leader", rng)[:1]:
            self._trace(incident, "no proposer hears the leader", (leader.name,))
            hide_leader(
                self._world,
                leader,
                incident.duration_ms,
                lambda machine, down_ms: self._restart(machine, down_ms, rng),
                self._later_us,
            )

    def _hide_decisions(self, incident: Incident, rng: random.Random) -> None:
        for coordinator in self._targets("coordinator", rng)[:1]:
            self._trace(incident, "no replica hears the coordinator", (coordinator.name,))
            hide_decisions(
                self._world,
                coordinator,
                incident.duration_ms,
                rng,
                lambda machine, down_ms: self._restart(machine, down_ms, rng),
                self._later_us,
            )

    def _disturb_copying(self, machine: Machine, rng: random.Random) -> None:
        """Crash the copying node, or one that it may copy from, in the middle of the copy."""

        def disturb(_: object) -> None:
            others = self._world.up("store", "learner")
            victim = machine if rng.random() < 0.5 or not others else rng.choice(others)
            if not self._over and victim.is_up:
                self._world.trace_event(
                    f"{victim.name} dies while {machine.name} copies a snapshot"
                )
                victim.crash()
                self._restart(victim, rng.randint(*_DOWN_MS), rng)

        self.disk_faults.when_copying(machine, rng, disturb)

    # -- targets and delays ----------------------------------------------------------------------

    def _later(self, delay_ms: int, action: Callable[[], object]) -> None:
        self._later_us(delay_ms * US_PER_MS, action)

    def _later_us(self, delay_us: int, action: Callable[[], object]) -> None:
        def act(_: object) -> None:
            if not self._over:
                action()

        self._schedule.after_us(delay_us, act)

    def _restart(self, machine: Machine, down_ms: int, rng: random.Random) -> None:
        reboots = rng.random() < 0.25
        first_ms = rng.randrange(5_000)

        def start() -> None:
            if not machine.is_up:
                if reboots:
                    machine.clock.reboot(self._schedule.now_us, first_ms)
                self._world.restart(machine)

        self._later(down_ms, start)

    def _restart_later(self, machine: Machine) -> None:
        self._restart(machine, self._rng.randint(*_DOWN_MS), self._rng)

    def _targets(self, target: str, rng: random.Random) -> list[Machine]:
        """The running nodes that a target means at this moment."""
        world = self._world
        match target:
            case "leader":
                leading = [
                    m for m in world.up("proposer") if type(m.actor.phase).__name__ == "Leading"
                ]
                return leading or world.up("proposer")[:1]
            case "coordinator":
                return [m for m in world.up("learner") if m.actor.coordinator is not None]
            case "acceptors-2" | "acceptors-3" | "stores-2":
                role, _, count = target.rpartition("-")
                up = world.up(role.removesuffix("s"))
                return rng.sample(up, min(len(up), int(count)))
            case "all":
                up = [machine for machine in world.machines.values() if machine.is_up]
                return rng.sample(up, min(len(up), rng.choice((2, 5, len(up)))))
            case role:
                up = world.up(role)
                return [rng.choice(up)] if up else []
