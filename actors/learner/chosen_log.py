"""The log as one learner knows it: which values are chosen, and the prefix that has no gap.

A value is chosen once a quorum of distinct acceptors accepted the same slot and ballot (Paxos Made
Simple, section 2.3; design 3.4), or once somebody who knew that says so.
"""

from dataclasses import dataclass, field

from actors.errors import InvariantViolation
from actors.numbers import SLOTS_AHEAD_MAX
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.paxos.quorum import Voters
from actors.values import AnyValue, Refusal, weight


@dataclass(slots=True)
class OpenSlot:
    """A slot that is not known as chosen yet."""

    values: dict[Ballot, AnyValue] = field(default_factory=dict)
    accepted: dict[Ballot, set[str]] = field(default_factory=dict)


@dataclass(slots=True)
class ChosenSlot:
    """A chosen slot and a ballot under which it was; `aborted` is set once it is decided.

    `accepted_by` names the acceptors whose votes under that ballot came here: for onlookers.
    """

    value: AnyValue
    ballot: Ballot
    aborted: tuple[Refusal, ...] | None = None
    accepted_by: tuple[str, ...] = ()


class ChosenLog:
    """Chosen slots from `first_kept` on, also beyond a gap; the prefix ends at `chosen_through`."""

    def __init__(self) -> None:
        self.voters = Voters(())
        """Set by the owner once the cluster is known; until then nothing is chosen here."""
        self.known: dict[int, ChosenSlot] = {}
        self.first_kept = 1
        self.chosen_through = 0
        self.reported_through = 0
        """The highest slot that anybody was heard to have in use."""
        self.kept_bytes = 0
        """Roughly what `known` weighs."""
        self._open: dict[int, OpenSlot] = {}

    def __getitem__(self, slot: int) -> ChosenSlot:
        return self.known[slot]

    def is_known(self, slot: int) -> bool:
        """Whether `slot` is known as chosen; what came before `first_kept` was."""
        return slot <= self.chosen_through or slot in self.known

    # -- what is heard ---------------------------------------------------------------------------

    def record_value(self, slot: int, ballot: Ballot, value: AnyValue) -> None:
        """A leader proposed `value`, or an acceptor holds it."""
        if not self.is_known(slot) and self._is_near(slot):
            self._open.setdefault(slot, OpenSlot()).values[ballot] = value
            self._check(slot, ballot)

    def record_vote(self, slot: int, ballot: Ballot, acceptor: str) -> None:
        """One acceptor accepted it. The same acceptor counts once."""
        known = self.known.get(slot)
        if known is not None and known.ballot == ballot and acceptor not in known.accepted_by:
            known.accepted_by += (acceptor,)
        elif not self.is_known(slot) and self._is_near(slot):
            self._open.setdefault(slot, OpenSlot()).accepted.setdefault(ballot, set()).add(acceptor)
            self._check(slot, ballot)

    def record_decision(self, slot: int, ballot: Ballot) -> None:
        """A decided slot is chosen, under `ballot`; the votes may have gone to others."""
        seen = self._open.get(slot)
        if seen is not None and ballot in seen.values:
            self.choose(slot, seen.values[ballot], ballot)

    def discard_reports(self) -> None:
        """Nothing came of what others were heard to have; whoever has it says so again."""
        self.reported_through = max(self.chosen_through, max(self.known, default=0))

    def _is_near(self, slot: int) -> bool:
        """What is not near comes with a page of the log, or is no slot of it."""
        return slot <= self.chosen_through + SLOTS_AHEAD_MAX

    def _check(self, slot: int, ballot: Ballot) -> None:
        self.reported_through = max(self.reported_through, slot)
        seen = self._open[slot]
        votes = seen.accepted.get(ballot, set())
        if self.voters.are_quorum(votes) and ballot in seen.values:
            self.choose(slot, seen.values[ballot], ballot)

    def choose(self, slot: int, value: AnyValue, ballot: Ballot) -> None:
        """`value` is chosen for `slot`. Raises `InvariantViolation` if another one is."""
        known = self.known.get(slot)
        if known is not None:
            if known.value != value:
                raise InvariantViolation(
                    f"two values chosen for slot {slot}: {known.value!r} and {value!r}"
                )
            return
        if slot <= self.chosen_through:
            return
        seen = self._open.pop(slot, None)
        votes = () if seen is None else tuple(seen.accepted.get(ballot, ()))
        self._keep(slot, ChosenSlot(value, ballot, accepted_by=tuple(sorted(votes))))
        self.reported_through = max(self.reported_through, slot)

    def _keep(self, slot: int, known: ChosenSlot) -> None:
        self.known[slot] = known
        self.kept_bytes += weight(known.value)

    # -- the prefix ------------------------------------------------------------------------------

    def extend_prefix(self) -> int | None:
        """Lengthen the chosen prefix by one slot, and name it; `None` at a gap."""
        if self.chosen_through + 1 not in self.known:
            return None
        self.chosen_through += 1
        return self.chosen_through

    def restore(self, slot: int, value: AnyValue, aborted: tuple[Refusal, ...]) -> None:
        """A decided slot from the journal."""
        self._keep(slot, ChosenSlot(value, NO_BALLOT, aborted))

    def restored(self, applied: int) -> None:
        """The journal has been read: everything up to `applied` is decided."""
        self.chosen_through = applied
        self.first_kept = min(self.known, default=applied + 1)

    def start_after(self, applied: int) -> list[int]:
        """A snapshot stands for all slots up to `applied`; the slots that are forgotten."""
        gone = [slot for slot in self.known if slot <= applied]
        for slot in gone:
            self._drop(slot)
        for slot in [slot for slot in self._open if slot <= applied]:
            del self._open[slot]
        self.first_kept = applied + 1
        self.chosen_through = max(self.chosen_through, applied)
        self.reported_through = max(self.reported_through, applied)
        return gone

    def forget(self, below: int, keep_bytes: int) -> list[int]:
        """Drop slots below `below` until the log weighs at most `keep_bytes`; which ones."""
        gone: list[int] = []
        while self.first_kept < below and self.kept_bytes > keep_bytes:
            if self.first_kept in self.known:
                self._drop(self.first_kept)
                gone.append(self.first_kept)
            self.first_kept += 1
        return gone

    def _drop(self, slot: int) -> None:
        self.kept_bytes -= weight(self.known.pop(slot).value)
