"""Invariants of the members of all roles (decision 26), checked from the outside."""

from collections import Counter

from actors.messages import Prepare, ProposeValue
from actors.paxos.ballot import Ballot
from actors.paxos.phases import Leading
from actors.values import View
from chaos.simulator.machine import Machine
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.violation import Violation

_REMOVED = ("it was removed", "is no acceptor any more")


class MemberInvariants:
    """Checks who acts as a member, and who halts because it is none any more."""

    def __init__(self, log: ReferenceLog) -> None:
        self._log = log
        self._chosen_through: dict[str, tuple[int, int]] = {}
        """For each node the end of the prefix that it knew, before and after its last turn."""
        self._views: set[View] = set()
        self._promised: dict[Ballot, frozenset[str]] = {}
        """For each ballot that led the disks that had promised it."""
        self._stood: set[Ballot] = set()
        """The ballots for which a proposer has stood."""
        self.counters: Counter[str] = Counter()

    def stepped(self, machine: Machine) -> None:
        """Note how much of the log a learner or a proposer knows now; `elections_meet`."""
        known = machine.actor.chosen_through
        former = self._chosen_through.get(machine.name, (known, known))[1]
        self._chosen_through[machine.name] = (min(former, known), known)
        if machine.role == "proposer" and isinstance(machine.actor.phase, Leading):
            self._note_leader(machine, machine.actor.phase)

    def started(self, machine: Machine) -> None:
        """A restarted node begins with what it has on its disk."""
        self._chosen_through.pop(machine.name, None)

    def _note_leader(self, machine: Machine, phase: Leading) -> None:
        """`elections_meet`: whoever is elected has the promise of a disk that promised the last
        leader before it, so that it finds what was chosen.
        """
        disks = frozenset(disk for _, disk in phase.promises.complete)
        is_new = phase.ballot not in self._promised
        self._promised[phase.ballot] = disks
        if not is_new:
            return
        ballots = sorted(self._promised)
        place = ballots.index(phase.ballot)
        for other in ballots[max(0, place - 1) : place + 2]:
            if not self._promised[other] & disks:
                raise Violation(
                    "elections_meet",
                    f"{machine.name} leads under {phase.ballot} by {sorted(disks)}, none of which "
                    f"promised {other}: {sorted(self._promised[other])}",
                )

    def _rosters_known(self, machine: Machine) -> set[str]:
        """All who were members at an end of the prefix that this node has just known."""
        ends = self._chosen_through.get(machine.name, (0, 0))
        return {name for end in ends for name in self._log.roster_at(end)}

    def prepare_sent(self, machine: Machine, message: Prepare) -> None:
        """`members_act`: only a proposer that the roster names, as far as it knows, stands.

        One that leads already may ask for the next page of a promise until it steps down.
        """
        if message.ballot in self._stood:
            return
        self._stood.add(message.ballot)
        if self._log.genesis is not None and machine.name not in self._rosters_known(machine):
            raise Violation("members_act", f"{machine.name} stands for election, and is no member")

    def value_asked_for(self, machine: Machine, message: ProposeValue) -> None:
        """`members_act`: a View names its sender, a learner of the roster that it knows, as the
        coordinator, and adds only stores of that roster. Later repeats of it are the same View.
        """
        view = message.value
        if not isinstance(view, View) or view in self._views:
            return
        self._views.add(view)
        members = self._rosters_known(machine)
        added = [store.name for store in view.stores if store.added_slot is None]
        for name in (view.coordinator, *added):
            if name not in members:
                raise Violation(
                    "members_act",
                    f"{machine.name} asks for a view of epoch {view.epoch} with {name}, which is "
                    f"no member through slot {self._chosen_through.get(machine.name)}",
                )

    def may_halt(self, machine: Machine, reason: str) -> bool:
        """`removed_ones_are_dispensable`: whether a node halts because it was removed, and that it
        was; no disk halts that the log still counts on.
        """
        if not any(text in reason for text in _REMOVED):
            return False
        log, name, disk = self._log, machine.name, machine.disk.identity
        self.counters[f"members.halted {machine.role}"] += 1
        view = log.view
        counts = log.acceptors.get(name) == disk or (name in log.roster)
        if machine.role == "acceptor":
            counts |= log.changing and log.version == 1
        elif machine.role == "store" and view is not None:
            member = view.member(name)
            counts |= member is not None and member.disk == disk
        elif machine.role == "learner" and view is not None:
            # After a restart it coordinates no more: a View names one start of one process.
            named = (view.coordinator, view.coordinator_disk, view.coordinator_incarnation)
            counts |= named == (name, disk, machine.disk.incarnation)
        if counts:
            raise Violation("removed_ones_are_dispensable", f"{name} halts: {reason}")
        return True
