"""The log as one learner knows it: which values are chosen, and the prefix that has no gap.

A value is chosen once a quorum of distinct acceptors accepted the same slot and ballot (Paxos Made
Simple, section 2.3; design 3.4), counted here or by another learner that reports it. The acceptors
of a slot are known `alpha` slots before it, so the votes on later ones wait
(docs/decisions/0026-membership.md, rule 17).
"""

from dataclasses import dataclass, field

from actors.errors import InvariantViolation
from actors.numbers import SLOTS_AHEAD_MAX
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.paxos.membership import Key, Membership
from actors.values import AnyValue, Refusal, weight


@dataclass(slots=True)
class OpenSlot:
    """A slot that is not known as chosen yet."""

    values: dict[Ballot, AnyValue] = field(default_factory=dict)
    accepted: dict[Ballot, set[Key]] = field(default_factory=dict)
    """The acceptors that voted, by name and disk."""


@dataclass(slots=True)
class ChosenSlot:
    """A chosen slot and a ballot under which it was chosen; `aborted` is set once it is decided.

    `accepted_by` names the acceptors whose votes under that ballot came here, for diagnostics.
    """

    value: AnyValue
    ballot: Ballot
    aborted: tuple[Refusal, ...] | None = None
    accepted_by: tuple[str, ...] = ()


class ChosenLog:
    """Chosen slots from `first_kept` on, also beyond a gap; the prefix ends at `chosen_through`."""

    def __init__(self) -> None:
        self.membership: Membership | None = None
        """The acceptors as of `chosen_through`. Until the owner knows the cluster and sets them
        (`begin`), nothing is chosen here.
        """
        self._alpha = 0
        self.known: dict[int, ChosenSlot] = {}
        self.first_kept = 1
        self.chosen_through = 0
        self.reported_through = 0
        """The highest slot that another node has reported as in use."""
        self.kept_bytes = 0
        """Roughly the size of `known` in messages, in bytes."""
        self._open: dict[int, OpenSlot] = {}

    def __getitem__(self, slot: int) -> ChosenSlot:
        return self.known[slot]

    def is_known(self, slot: int) -> bool:
        """Whether `slot` is known as chosen, also if it is no longer kept."""
        return slot <= self.chosen_through or slot in self.known

    def begin(self, membership: Membership, alpha: int) -> None:
        """The acceptors as of `chosen_through`: at a start, or where a snapshot took the place of
        the slots before. Votes that waited for that are counted.
        """
        self.membership, self._alpha = membership, alpha
        for slot in sorted(self._open):
            self._count(slot)

    # -- votes and values ------------------------------------------------------------------------

    def record_value(self, slot: int, ballot: Ballot, value: AnyValue) -> None:
        """Record a value that a leader proposed or an acceptor accepted."""
        if not self.is_known(slot) and self._is_near(slot):
            self._open.setdefault(slot, OpenSlot()).values[ballot] = value
            self._check(slot, ballot)

    def record_vote(self, slot: int, ballot: Ballot, acceptor: Key) -> None:
        """Record the vote of an acceptor, which counts once."""
        known = self.known.get(slot)
        if known is not None and known.ballot == ballot:
            if acceptor[0] not in known.accepted_by:
                known.accepted_by += (acceptor[0],)
        elif not self.is_known(slot) and self._is_near(slot):
            self._open.setdefault(slot, OpenSlot()).accepted.setdefault(ballot, set()).add(acceptor)
            self._check(slot, ballot)

    def record_decision(self, slot: int, ballot: Ballot) -> None:
        """Record that a slot was decided, hence chosen under `ballot` by votes sent elsewhere."""
        open_slot = self._open.get(slot)
        if open_slot is not None and ballot in open_slot.values:
            self.choose(slot, open_slot.values[ballot], ballot)

    def discard_reports(self) -> None:
        """Discard reports of slots that no node has sent; a node that has one reports it again."""
        self.reported_through = max(self.chosen_through, max(self.known, default=0))

    def _is_near(self, slot: int) -> bool:
        """Whether `slot` is near the prefix. Others come with a page of the log, or don't exist."""
        return slot <= self.chosen_through + SLOTS_AHEAD_MAX

    def _check(self, slot: int, ballot: Ballot) -> None:
        self.reported_through = max(self.reported_through, slot)
        open_slot = self._open[slot]
        votes = open_slot.accepted.get(ballot, set())
        if ballot in open_slot.values and self._are_quorum(slot, votes):
            self.choose(slot, open_slot.values[ballot], ballot)

    def _are_quorum(self, slot: int, votes: set[Key]) -> bool:
        """Whether the votes choose `slot`: by its own acceptors, once they are known."""
        if self.membership is None or slot > self.chosen_through + self._alpha:
            return False
        return self.membership.at(slot).voters.are_quorum(votes)

    def _count(self, slot: int) -> None:
        """Count the votes of a slot, whose acceptors have just become known."""
        open_slot = self._open.get(slot)
        if open_slot is not None and not self.is_known(slot):
            for ballot in sorted(open_slot.values):
                if self._are_quorum(slot, open_slot.accepted.get(ballot, set())):
                    self.choose(slot, open_slot.values[ballot], ballot)
                    return

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
        open_slot = self._open.pop(slot, None)
        votes = () if open_slot is None else tuple(open_slot.accepted.get(ballot, ()))
        names = tuple(sorted({name for name, _ in votes}))
        self._keep(slot, ChosenSlot(value, ballot, accepted_by=names))
        self.reported_through = max(self.reported_through, slot)

    def _keep(self, slot: int, known: ChosenSlot) -> None:
        self.known[slot] = known
        self.kept_bytes += weight(known.value)

    # -- the prefix ------------------------------------------------------------------------------

    def extend_prefix(self) -> int | None:
        """Extend the chosen prefix by one slot and return it; `None` at a gap."""
        if self.chosen_through + 1 not in self.known:
            return None
        self.chosen_through = slot = self.chosen_through + 1
        if self.membership is not None:
            self.membership = self.membership.after(slot, self.known[slot].value, self._alpha)
        self._count(slot + self._alpha)
        return slot

    def restore(self, slot: int, value: AnyValue, aborted: tuple[Refusal, ...]) -> None:
        """Restore a decided slot from the journal."""
        self._keep(slot, ChosenSlot(value, NO_BALLOT, aborted))

    def restored(self, applied: int) -> None:
        """Finish restoring: everything up to `applied` is decided."""
        self.chosen_through = applied
        self.first_kept = min(self.known, default=applied + 1)

    def start_after(self, applied: int) -> list[int]:
        """Let a snapshot stand for all slots up to `applied`; the slots that are forgotten."""
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
        """Forget slots below `below` until `keep_bytes` are left; the forgotten slots."""
        gone: list[int] = []
        while self.first_kept < below and self.kept_bytes > keep_bytes:
            if self.first_kept in self.known:
                self._drop(self.first_kept)
                gone.append(self.first_kept)
            self.first_kept += 1
        return gone

    def _drop(self, slot: int) -> None:
        self.kept_bytes -= weight(self.known.pop(slot).value)
