"""Makes a `Storm` happen to a world, and ends it."""

import random
from collections.abc import Callable, Iterable

from chaos.simulator.changed_setting import WAYS, draw_change
from chaos.simulator.clock import PPM
from chaos.simulator.directed_faults import half_tell, usurp
from chaos.simulator.disk_faults import Damage
from chaos.simulator.faults import Incident, Storm, crash_point, draw_rate_ppm
from chaos.simulator.machine import Machine
from chaos.simulator.network import Blockade, Conditions, Wakeup
from chaos.simulator.setting_faults import restart_with
from chaos.simulator.truth import Truth
from chaos.simulator.world import US, World

_DOWN_MS = (100, 4_000)
_DRIFT_MS = 2_000


class Weather:
    """Carries out the incidents of one storm. `keep` names those that happen; `None`: all."""

    def __init__(
        self, world: World, storm: Storm, truth: Truth, keep: frozenset[str] | None = None
    ) -> None:
        self._world = world
        self.damage = Damage(world, truth)
        self._truth = truth
        self._storm = storm
        self._keep = keep
        self._over = False
        self._chance = world.stream("weather")
        self._drifts = world.stream("drifts")
        self.happened: list[str] = []
        """The names of the incidents that came to pass."""
        self._acts: dict[str, Callable[[Incident, random.Random], None]] = {
            "crash": self._crash,
            "turn": self._turn,
            "pause": self._pause,
            "partition": self._partition,
            "one-way": self._one_way,
            "partial": self._partial,
            "broker": self._broker,
            "timers": self._timers,
            "slow-disk": self._slow_disk,
            "disk-loss": self._disk_loss,
            "full-disk": self._full_disk,
            "bit-rot": self._bit_rot,
            "usurper": self._usurper,
            "half-told": self._half_told,
            "blocked": self._blocked,
            "settings": self._settings,
        }

    # -- beginning and end -----------------------------------------------------------------------

    def begin(self) -> None:
        """From now on the conditions hold and the incidents come."""
        world = self._world
        self.begin_conditions()
        world.on_death = self._restart_later
        world.on_refusal = self._refused
        for incident in self._storm.incidents:
            if self._keep is None or incident.name in self._keep:
                world.after_us(incident.at_ms * US, self._happen, incident)

    def begin_conditions(self) -> None:
        """The clocks and disks are what they are; the network is unkind."""
        world = self._world
        world.network.conditions = self._storm.conditions
        if self._storm.clocks_off:
            self._drift(1.0)
        for name, machine in world.machines.items():
            machine.disk_least_us, machine.disk_most_us = self._storm.disk_us.get(name, (50, 600))

    def _drift(self, share: float) -> None:
        """Some clocks change their rates, without a jump; and again a little later."""
        world, chance = self._world, self._drifts
        for machine in world.machines.values():
            if chance.random() < share:
                rate_ppm = draw_rate_ppm(chance, self._storm.clocks_off)
                machine.clock.set_rate(rate_ppm, world.now_us)
        self._later(_DRIFT_MS, lambda: self._drift(0.3))

    def end(self) -> None:
        """Calm: nothing goes wrong any more, and every process runs."""
        world = self._world
        self._over = True
        world.tell("the storm is over")
        world.network.conditions = Conditions()
        world.network.cut.clear()
        for blockade in list(world.network.blockades):
            world.network.unblock(blockade)
        if not world.network.up:
            world.network.start()
        for name in sorted(world.network.parted):
            world.network.rejoin(name)
        for machine in world.machines.values():
            machine.dies_at = ""
            machine.clock.set_rate(PPM, world.now_us)
            machine.disk_least_us, machine.disk_most_us = 50, 600
            if machine.is_paused:
                machine.resume()
            if machine.changed is not None:
                machine.changed = None
                if machine.is_up:
                    machine.crash()
            if not machine.is_up:
                machine.disk.rotten_rows.clear()  # Its operator put a sound copy of it back.
            self.damage.make_room(machine)
        world.start()

    # -- incidents -------------------------------------------------------------------------------

    def _happen(self, incident: Incident) -> None:
        if not self._over:
            self.happened.append(incident.name)
            self._acts[incident.fault](incident, random.Random(incident.dice))

    def _tell(self, incident: Incident, what: str, names: Iterable[str] = ()) -> None:
        who = ", ".join(names)
        text = f"{incident.name}: {what}"
        self._world.tell(f"{text}: {who}" if who else text)

    def _crash(self, incident: Incident, dice: random.Random) -> None:
        machines = self._cast(incident.target, dice)
        self._tell(incident, f"{incident.duration_ms} ms down", (m.name for m in machines))
        for machine in machines:
            machine.crash()
            self._restart(machine, incident.duration_ms, dice)

    def _turn(self, incident: Incident, dice: random.Random) -> None:
        point = crash_point(dice)
        machines = self._cast(incident.target, dice)
        self._tell(incident, f"a coming turn dies at {point}", (m.name for m in machines))
        for machine in machines:
            machine.dies_at = point

    def _pause(self, incident: Incident, dice: random.Random) -> None:
        machines = self._cast(incident.target, dice)
        self._tell(incident, f"{incident.duration_ms} ms without time", (m.name for m in machines))
        for machine in machines:
            machine.pause(incident.duration_ms * US)

    def _partition(self, incident: Incident, dice: random.Random) -> None:
        network = self._world.network
        names = [m.name for m in self._cast(incident.target, dice)]
        self._tell(incident, f"{incident.duration_ms} ms without the broker", names)
        network.parted.update(names)

        def rejoin() -> None:
            for name in names:
                network.rejoin(name)

        self._later(incident.duration_ms, rejoin)

    def _one_way(self, incident: Incident, dice: random.Random) -> None:
        names = [m.name for m in self._cast(incident.target, dice)]
        mute = dice.random() < 0.5
        others = self._world.names
        pairs = {(n, o) if mute else (o, n) for n in names for o in others if n != o}
        self._tell(incident, "nobody hears" if mute else "do not hear anybody", names)
        self._cut(incident, pairs)

    def _partial(self, incident: Incident, dice: random.Random) -> None:
        names = self._world.names
        share = dice.choice((0.1, 0.3, 0.6))
        both = dice.random() < 0.5
        pairs: set[tuple[str, str]] = set()
        for index, first in enumerate(names):
            for second in names[index + 1 :]:
                if dice.random() < share:
                    pairs |= {(first, second), (second, first)} if both else {(first, second)}
        self._tell(incident, f"{len(pairs)} ways between two nodes are cut")
        self._cut(incident, pairs)

    def _cut(self, incident: Incident, pairs: set[tuple[str, str]]) -> None:
        network = self._world.network
        network.cut |= pairs
        self._later(incident.duration_ms, lambda: network.cut.difference_update(pairs))

    def _broker(self, incident: Incident, dice: random.Random) -> None:
        network = self._world.network
        if network.up:
            self._tell(incident, f"the broker restarts, {incident.duration_ms} ms, and forgets")
            network.stop()
            self._later(incident.duration_ms, lambda: None if network.up else network.start())

    def _blocked(self, incident: Incident, dice: random.Random) -> None:
        """The broker's alarm is on: it delivers, and takes nothing from those who publish."""
        network = self._world.network
        of_everybody = dice.random() < 0.5
        names = [m.name for m in self._cast(incident.target, dice)]
        senders = self._world.names if of_everybody else names
        blockade = Blockade(frozenset(senders), holds=dice.random() < 0.5)
        fate = "waits" if blockade.holds else "is dropped"
        what = f"{incident.duration_ms} ms in which the broker takes nothing, and it {fate}"
        self._tell(incident, what, ["all nodes"] if of_everybody else names)
        network.blockades.append(blockade)
        self._later(incident.duration_ms, lambda: network.unblock(blockade))

    def _settings(self, incident: Incident, dice: random.Random) -> None:
        """Nodes start with another value of one setting, and later with the cluster's own again."""
        world = self._world
        if self._truth.genesis is None or any(m.changed for m in world.machines.values()):
            return  # Until it is founded no setting is the cluster's own.
        changed = draw_change(world.options, dice)
        way = dice.choice(WAYS)
        machines = list(world.machines.values())
        if way in ("one node", "a role"):
            cast = self._cast(incident.target, dice)[:1] or machines[:1]
            machines = [m for m in machines if m.role == cast[0].role] if way == "a role" else cast
        spacing_ms = 0 if way == "all at once" else dice.randint(100, 1_000)
        what = f"{changed.name} is {changed.value!r}, not {changed.ours!r}"
        self._tell(incident, what, (m.name for m in machines))
        restart_with(world, machines, changed, spacing_ms, self._later)
        self._later(
            incident.duration_ms,
            lambda: restart_with(world, machines, None, spacing_ms, self._later),
        )

    def _timers(self, incident: Incident, dice: random.Random) -> None:
        """Timers that were set once expire: early, again, or after they were cancelled."""
        world = self._world
        for machine in self._cast(incident.target, dice):
            known = sorted(machine.known_timers)
            for key in dice.sample(known, min(len(known), 3)):
                delay_us = dice.randrange(incident.duration_ms * US)
                wakeup = Wakeup(machine.serial, key, -1)
                self._tell(incident, f"stale timer {key.name}", (machine.name,))
                world.after_us(delay_us, machine.arrive, wakeup)

    def _slow_disk(self, incident: Incident, dice: random.Random) -> None:
        machines = self._cast(incident.target, dice)
        most_us = dice.choice((50, 300, 1_500)) * US
        self._tell(incident, f"a commit takes up to {most_us // US} ms", (m.name for m in machines))
        former = {m.name: (m.disk_least_us, m.disk_most_us) for m in machines}
        for machine in machines:
            machine.disk_least_us, machine.disk_most_us = most_us // 4, most_us

        def mend() -> None:
            for machine in machines:
                machine.disk_least_us, machine.disk_most_us = former[machine.name]

        self._later(incident.duration_ms, mend)

    def _disk_loss(self, incident: Incident, dice: random.Random) -> None:
        for machine in self._cast(incident.target, dice):
            if self.damage.may_lose_disk(machine):
                self._tell(incident, "the disk is lost", (machine.name,))
                self.damage.lose_disk(machine, dice)
                self._restart(machine, incident.duration_ms, dice)
                if dice.random() < 0.5:
                    self._disturb_copying(machine, dice)

    def _full_disk(self, incident: Incident, dice: random.Random) -> None:
        """Less room than the reserve, none at all, or first the one and then the other."""
        machines = self._cast(incident.target, dice)
        kind = dice.choice(("low", "full", "low, then full"))
        self._tell(incident, f"the disk is {kind}", (m.name for m in machines))
        for machine in machines:
            if kind == "full":
                self.damage.fill(machine)
            else:
                self.damage.take_reserve(machine)
            if kind == "low, then full":
                after_ms = dice.randint(0, incident.duration_ms)
                self._later(after_ms, lambda machine=machine: self.damage.fill(machine))  # type: ignore[misc]
            self._later(
                incident.duration_ms + 1,
                lambda machine=machine: self.damage.make_room(machine),  # type: ignore[misc]
            )

    def _bit_rot(self, incident: Incident, dice: random.Random) -> None:
        for machine in self._cast(incident.target, dice):
            row = dice.random() < 0.5 or machine.role != "store"
            if machine.role == "gateway":
                continue
            rot = self.damage.rot_row if row else self.damage.rot_blob
            if rot(machine, dice):
                self._tell(incident, f"a {'row' if row else 'blob'} has rotted", (machine.name,))
                if row and dice.random() < 0.4:
                    machine.crash()  # Before anybody has noticed: its next start will.
                    self._restart(machine, incident.duration_ms, dice)

    def _refused(self, machine: Machine) -> None:
        """Acceptors and proposers wait for their sound disks; so does who could not copy them."""
        if not self._over and self.damage.refused(machine):
            self.damage.lose_disk(machine, self._chance)
            self._restart_later(machine)

    def _usurper(self, incident: Incident, dice: random.Random) -> None:
        for leader in self._cast("leader", dice)[:1]:
            self._tell(incident, "no proposer hears the leader", (leader.name,))
            usurp(
                self._world,
                leader,
                incident.duration_ms,
                lambda machine, down_ms: self._restart(machine, down_ms, dice),
            )

    def _half_told(self, incident: Incident, dice: random.Random) -> None:
        for coordinator in self._cast("coordinator", dice)[:1]:
            self._tell(incident, "no replica hears the coordinator", (coordinator.name,))
            half_tell(
                self._world,
                coordinator,
                incident.duration_ms,
                dice,
                lambda machine, down_ms: self._restart(machine, down_ms, dice),
            )

    def _disturb_copying(self, machine: Machine, dice: random.Random) -> None:
        """The newcomer, or somebody that it copies from, dies in the middle."""

        def disturb(_: object) -> None:
            others = self._world.up("store", "learner")
            victim = machine if dice.random() < 0.5 or not others else dice.choice(others)
            if not self._over and victim.is_up:
                self._world.tell(f"{victim.name} dies while {machine.name} copies a snapshot")
                victim.crash()
                self._restart(victim, dice.randint(*_DOWN_MS), dice)

        self.damage.when_copying(machine, dice, disturb)

    # -- tools -----------------------------------------------------------------------------------

    def _later(self, delay_ms: int, action: Callable[[], object]) -> None:
        def act(_: object) -> None:
            if not self._over:
                action()

        self._world.after_us(delay_ms * US, act)

    def _restart(self, machine: Machine, down_ms: int, dice: random.Random) -> None:
        reboots = dice.random() < 0.25
        first_ms = dice.randrange(5_000)

        def start() -> None:
            if not machine.is_up:
                if reboots:
                    machine.clock.reboot(self._world.now_us, first_ms)
                self._world.start(machine.name)

        self._later(down_ms, start)

    def _restart_later(self, machine: Machine) -> None:
        self._restart(machine, self._chance.randint(*_DOWN_MS), self._chance)

    def _cast(self, target: str, dice: random.Random) -> list[Machine]:
        """Who plays the role of the target now; only processes that run."""
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
                return dice.sample(up, min(len(up), int(count)))
            case "all":
                up = [machine for machine in world.machines.values() if machine.is_up]
                return dice.sample(up, min(len(up), dice.choice((2, 5, len(up)))))
            case role:
                up = world.up(role)
                return [dice.choice(up)] if up else []
