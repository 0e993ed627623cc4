"""Invariants of Paxos and its leases (design 3), checked from the outside.

Each rule has a name and stands in one method of its own. What a node says is checked when it
leaves, against the node's disk; what it decides is checked when it decides it, on true time.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from actors.effects import Record
from actors.messages import Accept, Accepted, LeaseGranted, Prepare, Promise
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.paxos.proposer import Leading
from actors.values import Genesis
from chaos.simulator.machine import Machine
from chaos.simulator.truth import ACCEPTED, Truth
from chaos.simulator.violation import Violation

_BALLOT = TypeAdapter(Ballot)
_GENESIS = TypeAdapter(Genesis)


class PaxosInvariants:
    """Looks at acceptors and proposers."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._promised_on_disk: dict[str, Ballot] = {}
        self._told: dict[str, Ballot] = {}
        self._lease_promises: dict[str, tuple[Ballot, int]] = {}
        """For each acceptor the ballot it gave a lease to, and its end as its clock runs."""
        self._owners: dict[Ballot, tuple[str, int]] = {}
        self._proposed: dict[tuple[int, Ballot], Any] = {}
        self._leases: dict[str, tuple[Machine, Ballot, int]] = {}
        """For each proposer that believes in its lease the ballot, and the end on its clock."""

    # -- acceptors -------------------------------------------------------------------------------

    def acceptor_committed(self, machine: Machine, records: Iterable[Record]) -> None:
        """`one_value_per_slot`, `one_cluster`, and that the promise on disk never falls."""
        for key, value in records:
            if value is None:
                continue
            if key.startswith("accepted/"):
                self._truth.accepted(machine.name, int(key[9:], 16), value)
            elif key == "promised":
                ballot = _BALLOT.validate_json(value)
                former = self._promised_on_disk.get(machine.name, NO_BALLOT)
                if ballot < former:
                    raise Violation(
                        "promises_never_go_back",
                        f"{machine.name} had promised {former} and journals {ballot}",
                    )
                self._promised_on_disk[machine.name] = ballot
            elif key == "genesis/founded":
                self._truth.founded(_GENESIS.validate_json(value))

    def promises_in_order(self, machine: Machine, messages: Iterable[Any]) -> None:
        """`promises_never_go_back`: in the order in which one turn says things."""
        highest = self._told.get(machine.name, NO_BALLOT)
        for message in messages:
            if message.ballot < highest:
                raise Violation(
                    "promises_never_go_back",
                    f"{machine.name} had told of {highest} and now serves {message.ballot}: "
                    f"{message.type}",
                )
            highest = message.ballot

    def promise_told(self, machine: Machine, message: Promise | Accepted | LeaseGranted) -> None:
        """`journal_before_answer` for the promise."""
        ballot = message.ballot
        name = machine.name
        if ballot > self._told.get(name, NO_BALLOT):
            self._told[name] = ballot
        if self._promised_on_disk.get(name, NO_BALLOT) < ballot:
            raise Violation(
                "journal_before_answer",
                f"{name} says {message.type} for {ballot}, but its disk has promised "
                f"{self._promised_on_disk.get(name, NO_BALLOT)}",
            )

    def accepted_told(self, machine: Machine, message: Accepted) -> None:
        """`journal_before_answer` for the accepted value."""
        row = machine.disk.records.get(f"accepted/{message.slot:016x}")
        rounds, proposer = message.ballot
        if row is not None and row.startswith(
            b'{"slot":%d,"ballot":[%d,"%s"]' % (message.slot, rounds, proposer.encode())
        ):
            return
        if row is not None and ACCEPTED.validate_json(row).ballot > message.ballot:
            return
        truncated = int(machine.disk.records.get("truncated", b"1"))
        if message.slot >= truncated:
            raise Violation(
                "journal_before_answer",
                f"{machine.name} accepted slot {message.slot} under {message.ballot}, but its "
                f"disk has {row!r}",
            )

    def lease_respected(self, machine: Machine, message: Promise | Accepted | LeaseGranted) -> None:
        """`lease_promise_kept`: no other ballot is served for one lease from its grant."""
        # Measured by the acceptor's own clock, which a crash or a reboot of it does not stop.
        ran_ms = machine.clock.ran_ms(machine.world.now_us)
        ballot, until_ms = self._lease_promises.get(machine.name, (NO_BALLOT, 0))
        if ran_ms < until_ms and message.ballot != ballot:
            raise Violation(
                "lease_promise_kept",
                f"{machine.name} gave {ballot} a lease that runs {until_ms - ran_ms} ms longer, "
                f"but serves {message.ballot} with {message.type}",
            )
        if type(message) is LeaseGranted:
            end_ms = ran_ms + machine.world.options.lease_ms
            self._lease_promises[machine.name] = (message.ballot, end_ms)

    def lease_in_force(self, machine: Machine) -> None:
        """`reads_under_a_lease`: while a store serves linearizable reads, a quorum is bound.

        On true time, and to one ballot: so nobody else can have been elected, who would not know
        of the store's lease and could have it dropped from the view.
        """
        world = machine.world
        bound = Counter(
            ballot
            for name, (ballot, until_ms) in self._lease_promises.items()
            if world.machines[name].clock.ran_ms(world.now_us) < until_ms
        )
        if max(bound.values(), default=0) <= world.options.acceptors // 2:
            raise Violation(
                "reads_under_a_lease",
                f"{machine.name} serves a linearizable read; the acceptors that are bound by a "
                f"lease: {dict(bound) or 'none'}",
            )

    # -- proposers -------------------------------------------------------------------------------

    def ballot_used(self, machine: Machine, message: Prepare | Accept) -> None:
        """`ballots_used_once`: by one start of one proposer, which journalled the round first."""
        ballot = message.ballot
        me = (machine.name, machine.disk.incarnation)
        owner = self._owners.setdefault(ballot, me)
        if owner != me:
            raise Violation(
                "ballots_used_once", f"{ballot} was used by {owner} and is used by {me} again"
            )
        if int(machine.disk.records.get("round", b"0")) < ballot.round:
            raise Violation(
                "journal_before_answer", f"{machine.name} uses {ballot} and has not journalled it"
            )

    def value_proposed(self, machine: Machine, message: Accept) -> None:
        """`one_value_per_ballot` and `chosen_value_stands`."""
        value = message.value
        former = self._proposed.setdefault((message.slot, message.ballot), value)
        if former is not value and former != value:
            raise Violation(
                "one_value_per_ballot",
                f"{message.ballot} proposes for slot {message.slot} first {former!r}, then "
                f"{value!r}",
            )
        chosen = self._truth.chosen.get(message.slot)
        if (
            chosen is not None
            and message.ballot > self._truth.ballots[message.slot]
            and value.to_json() != chosen
        ):
            raise Violation(
                "chosen_value_stands",
                f"slot {message.slot} was chosen under {self._truth.ballots[message.slot]}, but "
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
        """A dead process believes in nothing."""
        self._leases.pop(machine.name, None)
