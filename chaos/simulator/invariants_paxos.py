"""Invariants of Paxos and its leases (design 3), checked from the outside.

Each rule has a name and a method of its own. A message is checked when it is sent, against the
sender's disk; a node's decision is checked when the node makes it, on true time.
"""

import json
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from actors.effects import Record
from actors.messages import Accept, Accepted, LeaseGranted, Prepare, Promise
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.paxos.phases import Leading
from actors.values import Genesis
from chaos.simulator.machine import Machine
from chaos.simulator.reference_log import ReferenceLog, ballot_of
from chaos.simulator.violation import Violation

_GENESIS = TypeAdapter(Genesis)


class PaxosInvariants:
    """Checks acceptors and proposers."""

    def __init__(self, log: ReferenceLog) -> None:
        self._log = log
        self._promised_on_disk: dict[str, Ballot] = {}
        self._fences: dict[str, int] = {}
        """For each disk the fence that it holds."""
        self._promised: dict[str, Ballot] = {}
        """The highest ballot that each acceptor's disk has sent a promise for."""
        self._lease_promises: dict[str, tuple[Machine, Ballot, int]] = {}
        """For each acceptor's disk the ballot to which it granted a lease, and the end on its
        clock.
        """
        self._owners: dict[Ballot, tuple[str, str, int]] = {}
        self._proposed: dict[tuple[int, Ballot], Any] = {}
        self._leases: dict[str, tuple[Machine, Ballot, int]] = {}
        """For each proposer that believes in its lease the ballot, and the end on its clock."""

    # -- acceptors -------------------------------------------------------------------------------

    def acceptor_committed(self, machine: Machine, records: Iterable[Record]) -> None:
        """`one_value_per_slot`, `one_cluster` and, for the disk, `promises_never_go_back`."""
        for key, value in records:
            if value is None:
                continue
            if key.startswith("accepted/"):
                self._log.accepted(machine.disk.identity, int(key[9:], 16), value)
            elif key == "promised":
                number, proposer, *fence = json.loads(value)
                self._fence_committed(machine, fence[0] if fence else 0)
                ballot = Ballot(number, proposer)
                former = self._promised_on_disk.get(machine.disk.identity, NO_BALLOT)
                if ballot < former:
                    raise Violation(
                        "promises_never_go_back",
                        f"{machine.name} had promised {former} and journals {ballot}",
                    )
                self._promised_on_disk[machine.disk.identity] = ballot
            elif key == "genesis/founded":
                self._log.founded(_GENESIS.validate_json(value))

    def _fence_committed(self, machine: Machine, fence: int) -> None:
        """`fence_never_falls`: the version of the acceptors that a disk has answered to."""
        former = self._fences.get(machine.disk.identity, 0)
        if fence < former:
            raise Violation(
                "fence_never_falls",
                f"{machine.name} had answered version {former} and journals {fence}",
            )
        self._fences[machine.disk.identity] = fence

    def promises_in_order(self, machine: Machine, messages: Iterable[Any]) -> None:
        """`promises_never_go_back`, in the order in which a turn sends messages."""
        highest = self._promised.get(machine.disk.identity, NO_BALLOT)
        for message in messages:
            if message.ballot < highest:
                raise Violation(
                    "promises_never_go_back",
                    f"{machine.name} has promised {highest} and now serves {message.ballot}: "
                    f"{message.type}",
                )
            highest = message.ballot

    def promise_sent(self, machine: Machine, message: Promise | Accepted | LeaseGranted) -> None:
        """`journal_before_answer` for the promise."""
        ballot = message.ballot
        name, disk = machine.name, machine.disk.identity
        if ballot > self._promised.get(disk, NO_BALLOT):
            self._promised[disk] = ballot
        if self._promised_on_disk.get(disk, NO_BALLOT) < ballot:
            raise Violation(
                "journal_before_answer",
                f"{name} sends {message.type} for {ballot}, but its disk has promised "
                f"{self._promised_on_disk.get(disk, NO_BALLOT)}",
            )

    def accepted_sent(self, machine: Machine, message: Accepted) -> None:
        """`journal_before_answer` for the accepted value."""
        row = machine.disk.records.get(f"accepted/{message.slot:016x}")
        rounds, proposer = message.ballot
        if row is not None and row.startswith(
            b'{"slot":%d,"ballot":[%d,"%s"]' % (message.slot, rounds, proposer.encode())
        ):
            return
        if row is not None and ballot_of(row) > message.ballot:
            return
        truncated = int(machine.disk.records.get("truncated", b"1"))
        if message.slot >= truncated:
            raise Violation(
                "journal_before_answer",
                f"{machine.name} accepted slot {message.slot} under {message.ballot}, but its "
                f"disk has {row!r}",
            )

    def lease_respected(self, machine: Machine, message: Promise | Accepted | LeaseGranted) -> None:
        """`lease_promise_kept`: from the grant on, no other ballot is served for a lease's time."""
        # Measured by the acceptor's own clock, which a crash or a reboot of it does not stop.
        ran_ms = machine.ran_ms
        disk = machine.disk.identity
        _, ballot, until_ms = self._lease_promises.get(disk, (machine, NO_BALLOT, 0))
        if ran_ms < until_ms and message.ballot != ballot:
            raise Violation(
                "lease_promise_kept",
                f"{machine.name} granted {ballot} a lease for {until_ms - ran_ms} ms more, "
                f"but serves {message.ballot} with {message.type}",
            )
        if type(message) is LeaseGranted:
            end_ms = ran_ms + machine.cluster_options.lease_ms
            self._lease_promises[disk] = (machine, message.ballot, end_ms)

    def lease_in_force(self, machine: Machine) -> None:
        """`reads_under_a_lease`: while a store serves linearizable reads, a quorum is bound.

        On true time, and to one ballot. So no other leader can have been elected, which would not
        know of the store's lease and could have the store dropped from the view.
        """
        bound: dict[Ballot, set[str]] = {}
        for disk, (acceptor, ballot, until_ms) in self._lease_promises.items():
            if acceptor.ran_ms < until_ms:
                bound.setdefault(ballot, set()).add(disk)
        if not any(map(self._log.are_leased, bound.values())):
            raise Violation(
                "reads_under_a_lease",
                f"{machine.name} serves a linearizable read; acceptors bound by a lease, by "
                f"ballot: {({ballot: len(disks) for ballot, disks in bound.items()}) or 'none'}",
            )

    # -- proposers -------------------------------------------------------------------------------

    def ballot_used(self, machine: Machine, message: Prepare | Accept) -> None:
        """`ballots_used_once`, by one start on one disk of one proposer, and
        `journal_before_answer`.
        """
        ballot = message.ballot
        me = (machine.name, machine.disk.identity, machine.disk.incarnation)
        owner = self._owners.setdefault(ballot, me)
        if owner != me:
            raise Violation(
                "ballots_used_once", f"{ballot} was used by {owner} and is used by {me} again"
            )
        if int(machine.disk.records.get("round", b"0")) < ballot.round:
            raise Violation(
                "journal_before_answer", f"{machine.name} uses {ballot} and has not journalled it"
            )

    def accept_sent(self, machine: Machine, message: Accept) -> None:
        """`one_value_per_ballot` and `chosen_value_stands`."""
        value = message.value
        former = self._proposed.setdefault((message.slot, message.ballot), value)
        if former is not value and former != value:
            raise Violation(
                "one_value_per_ballot",
                f"{message.ballot} proposes for slot {message.slot} first {former!r}, then "
                f"{value!r}",
            )
        chosen = self._log.chosen_texts.get(message.slot)
        if (
            chosen is not None
            and message.ballot > self._log.ballots[message.slot]
            and value.to_json() != chosen
        ):
            raise Violation(
                "chosen_value_stands",
                f"slot {message.slot} was chosen under {self._log.ballots[message.slot]}, but "
                f"{message.ballot} proposes another value for it: {value!r}",
            )

    def proposer_stepped(self, machine: Machine) -> None:
        """`one_lease_holder`: on true time, at most one proposer believes that it holds a lease."""
        name = machine.name
        phase = machine.actor.phase
        if type(phase) is not Leading:
            self._leases.pop(name, None)
            return
        until_ms = machine.actor.lease_until
        if until_ms <= machine.now_ms:
            self._leases.pop(name, None)
            return
        self._leases[name] = (machine, phase.ballot, until_ms)
        if len(self._leases) > 1:
            for other, ballot, end_ms in self._leases.values():
                if other is not machine and end_ms > other.now_ms:
                    raise Violation(
                        "one_lease_holder",
                        f"{name} holds the lease under {phase.ballot} for "
                        f"{until_ms - machine.now_ms} ms more, and {other.name} under {ballot} "
                        f"for {end_ms - other.now_ms} ms",
                    )

    def proposer_stopped(self, machine: Machine) -> None:
        """A process that has ended holds no lease."""
        self._leases.pop(machine.name, None)
