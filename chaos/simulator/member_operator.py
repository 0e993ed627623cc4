"""An operator who adds and removes members of all roles.

It asks a gateway again and again, as the commands do. What was removed is switched off, with its
disk, only when a gateway says so: then it must never be missed. Some come back all the same.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from actors.calls import ChangeNotBegun, MemberChange, Survey, Surveyed
from actors.messages import Action
from actors.options import MEMBER_ROLES
from chaos.simulator.machine import Machine
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.schedule import US_PER_MS
from chaos.simulator.world import World

_AGAIN_MS = 700
_REFUSALS_MAX = 8
"""After so many refusals that do not say "again", the operator gives the change up."""
_GHOST_MS = 6_000
_MORE_THAN_FOUNDED = 2
_LEAST = {"proposer": 1, "acceptor": 3, "learner": 2, "store": 1}


@dataclass(slots=True)
class WantedChange:
    """A change that the operator asks for."""

    action: Action
    name: str
    token: int | None = None
    refusals: int = 0


class MemberOperator:
    """Adds and removes one member after the other."""

    def __init__(self, world: World, log: ReferenceLog) -> None:
        self._world = world
        self._log = log
        self._rng = world.stream("members")
        self._wanted: WantedChange | None = None
        self._ever: set[str] = set()
        """All names that have been members."""
        self._ghosts: set[str] = set()
        """Retired nodes whose former disk runs once more."""
        self._survey: int | None = None
        self._runs = False
        self._over = False
        self.counters: Counter[str] = Counter()

    # -- what is wanted --------------------------------------------------------------------------

    def begin(self, rng: random.Random) -> str:
        """Want some change, unless one is under way; what it is, for the trace."""
        if self._wanted is not None or self._log.genesis is None or self._over:
            return ""
        role = rng.choice(MEMBER_ROLES)
        members = self._log.names(role)
        founded = len(self._log.genesis.names(role))
        least = min(_LEAST[role], founded)
        grows = rng.random() < 0.5 if least < len(members) else True
        if len(members) >= founded + _MORE_THAN_FOUNDED:
            grows = False
        if grows:
            name = self._free_name(role, rng)
            machine = self._world.add_machine(name)
            self._world.start(machine.name)
            self._wanted = WantedChange("add", name)
        else:
            self._wanted = WantedChange("remove", rng.choice(members))
        self.counters[f"members.{self._wanted.action} asked"] += 1
        self._run()
        return f"{self._wanted.action} {self._wanted.name}"

    def _free_name(self, role: str, rng: random.Random) -> str:
        """A name that no node has: sometimes one that was removed before."""
        taken = {*self._world.machines, *self._log.names(role)}
        free = [f"{role}-{number}" for number in range(1, 20) if f"{role}-{number}" not in taken]
        former = [name for name in free if name in self._ever]
        return rng.choice(former) if former and rng.random() < 0.5 else free[0]

    # -- asking ----------------------------------------------------------------------------------

    def _run(self) -> None:
        if not self._runs:
            self._runs = True
            self._later(_AGAIN_MS, self._on_tick)

    def _later(self, delay_ms: int, act: Callable[[], None]) -> None:
        self._world.schedule.after_us(delay_ms * US_PER_MS, lambda _: act())

    def _on_tick(self) -> None:
        self._ever.update(self._log.acceptors, self._log.roster)
        self._take_answers()
        self._ask()
        self._look()
        self._runs = self._wanted is not None or bool(self._departed()) or bool(self._ghosts)
        if self._runs:
            self._later(_AGAIN_MS, self._on_tick)

    def _is_done(self, wanted: WantedChange) -> bool:
        role = wanted.name.rpartition("-")[0]
        is_member = wanted.name in self._log.names(role)
        is_settled = role != "acceptor" or not self._log.changing
        return is_settled and is_member == (wanted.action == "add")

    def _take_answers(self) -> None:
        wanted = self._wanted
        if wanted is None:
            return
        answer = self._world.answers.pop(wanted.token, None) if wanted.token is not None else None
        if answer is not None:
            wanted.token = None
        if isinstance(answer, ChangeNotBegun) and not answer.again:
            wanted.refusals += 1
        if self._is_done(wanted):
            self.counters[f"members.{wanted.action} done"] += 1
            self._wanted = None
        elif wanted.refusals >= _REFUSALS_MAX:
            self.counters["members.given_up"] += 1
            self._wanted = None

    def _ask(self) -> None:
        wanted, gateways = self._wanted, self._world.up("gateway")
        if wanted is None or wanted.token is not None or not gateways or self._log.changing:
            return
        wanted.token = self._world.call(
            lambda token: MemberChange(token=token, action=wanted.action, name=wanted.name),
            self._rng.choice(gateways).name,
        )

    # -- what is to be switched off --------------------------------------------------------------

    def _departed(self) -> list[str]:
        """The nodes that were members, are none any more, and are not switched off yet."""
        members = {*self._log.acceptors, *self._log.roster}
        added = self._wanted.name if self._wanted is not None else ""
        gone = self._ever - members - self._ghosts - {added}
        return [name for name in sorted(gone) if name in self._world.machines]

    def _look(self) -> None:
        """Switch off what a gateway says is not needed any more."""
        if self._survey is not None:
            answer = self._world.answers.pop(self._survey, None)
            if answer is None:
                return
            self._survey = None
            if isinstance(answer, Surveyed) and answer.members is not None:
                for name in self._departed():
                    report = answer.members.of(name)
                    # On another disk, which it got meanwhile, it is a newcomer again.
                    if report is not None and report.standing in ("removed", "newcomer"):
                        self._switch_off(name)
        gateways = self._world.up("gateway")
        if self._departed() and gateways:
            gateway = self._rng.choice(gateways).name
            self._survey = self._world.call(lambda token: Survey(token=token), gateway)

    def _switch_off(self, name: str) -> None:
        self._world.trace_event(f"{name} is switched off for good")
        machine = self._world.retire(name)
        self.counters["members.switched_off"] += 1
        self.counters[f"members.switched_off {machine.role}"] += 1
        if not self._over and self._rng.random() < 0.4:
            self._later(self._rng.randrange(200, 8_000), lambda: self._haunt(machine))

    def _haunt(self, former: Machine) -> None:
        """The former disk runs once more, unless its name is taken by now."""
        name = former.name
        if self._over or name in self._world.machines or self._wanted_name() == name:
            return
        self._world.trace_event(f"the former disk of {name} comes back")
        self.counters["members.ghosts"] += 1
        machine = self._world.add_machine(name)
        machine.disk = former.disk
        machine.disk.rotten_rows.clear()
        self._ghosts.add(name)
        self._world.start(name)
        self._later(_GHOST_MS, lambda: self._lay(machine))
        self._run()

    def _lay(self, machine: Machine) -> None:
        if self._world.machines.get(machine.name) is machine:
            self._world.retire(machine.name)
        self._ghosts.discard(machine.name)

    def _wanted_name(self) -> str:
        return self._wanted.name if self._wanted is not None else ""

    # -- the end ---------------------------------------------------------------------------------

    def end(self) -> None:
        """The storm is over: no more changes are wanted, and no disk comes back."""
        self._over = True
        for name in sorted(self._ghosts):
            self._lay(self._world.machines[name])
        if self._log.genesis is not None:
            self._run()

    def are_over(self) -> bool:
        """Whether no change is wanted, and all that were removed are switched off."""
        self._ever.update(self._log.acceptors, self._log.roster)
        departed = self._departed()
        if departed:
            self._run()
        return self._wanted is None and not departed and not self._log.changing
