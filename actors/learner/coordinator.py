"""The coordinator of one epoch: two-phase commit over the stores of its View.

Commit is non-blocking, because every decision follows from the log and the stores' journals (in the
spirit of Gray and Lamport, Consensus on Transaction Commit, section 4): a commit needs every store
of the view to have journalled the slot; an abort is a value in the log. The coordinator journals
nothing. A `Coordinator` lives for one epoch of one incarnation; each new View needs a new one,
which first asks the stores for the state of the slots before it (termination, design 4.5).
`actors.learner.view_change` decides when to propose another View; only the log changes the view.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actors import timeouts
from actors.effects import Group
from actors.learner.replicas import Replicas
from actors.learner.state import LearnerState
from actors.learner.view_change import ViewChange
from actors.messages import (
    Fenced,
    TxnInquiry,
    TxnPrepare,
    TxnProgress,
    TxnState,
    TxnVote,
)
from actors.numbers import Milliseconds
from actors.turn import Turn
from actors.values import (
    Abort,
    Batch,
    CloseSession,
    OpenSession,
    Refusal,
    StoreMember,
    View,
)


class Decision(NamedTuple):
    """The outcome of the next slot in order: all its commands commit except those in `aborted`."""

    slot: int
    aborted: tuple[Refusal, ...]


@dataclass(slots=True)
class Round:
    """Two-phase commit of one slot: the votes, and the abort proposed for it, if any."""

    began_at: Milliseconds
    deadline: Milliseconds
    sent_at: Milliseconds
    votes: dict[str, tuple[Refusal, ...]] = field(default_factory=dict)
    committed: bool = False
    """A store has applied the slot, so its commands commit except those with a counted abort."""
    not_prepared: set[str] = field(default_factory=set)
    """The voters that, fenced in this epoch, reported that they have not prepared the slot."""
    abort: Abort | None = None
    """Proposed for the log; from then on its commands are not committed in this epoch."""


class Coordinator:
    """Brings the slots that are chosen and not decided to a decision.

    It returns decisions and the values to propose for the log (an `Abort`, a `View`) to the
    learner, which applies the slots and reports their results, or sends the proposals.
    """

    def __init__(
        self,
        turn: Turn,
        learned: LearnerState,
        replicas: Replicas,
        view: View,
        view_slot: int,
    ) -> None:
        self._turn = turn
        self._learned = learned
        self.view = view
        self.view_slot = view_slot
        self.rounds: dict[int, Round] = {}
        self._states: dict[str, TxnState] = {}
        self._asked_at = -timeouts.RESEND_MS
        self.view_change = ViewChange(turn, learned, replicas, view)
        self._abort_suspects: dict[str, Milliseconds] = {}
        """The stores whose missing vote made a slot abort, since when; a vote clears a store."""

    @property
    def busy(self) -> bool:
        """Whether this coordinator waits for an answer or a decision."""
        learned = self._learned
        undecided = learned.decided < learned.chosen_through
        return undecided or self._awaiting_state() != [] or self.view_change.busy

    # -- the beginning of an epoch ---------------------------------------------------------------

    def begin(self) -> None:
        """Fence every store, and ask each about every slot that is not decided."""
        turn, learned = self._turn, self._learned
        turn.counters["epochs_coordinated"] += 1
        for slot in range(learned.decided + 1, learned.chosen_through + 1):
            if slot > self.view_slot:
                self.slot_chosen(slot)
        if self.view_slot:
            self._ask()
        turn.arm("tick", 100, 200)

    def forget_through(self, slot: int) -> None:
        """Forget the slots up to `slot`, which an installed snapshot covers: they are decided."""
        for former in [s for s in self.rounds if s <= slot]:
            del self.rounds[former]

    def _awaiting_state(self) -> list[StoreMember]:
        """The stores that have not yet reported the state of the slots before this epoch."""
        if self._learned.decided >= self.view_slot:
            return []
        return [store for store in self.view.stores if store.name not in self._states]

    def _ask(self) -> None:
        self._asked_at = self._turn.now
        for store in self._awaiting_state():
            self.view_change.expect_reply(store.name)
            self._turn.send(store.name, TxnInquiry(view=self.view, decided=self._learned.decided))

    def _on_state(self, sender: str, message: TxnState) -> None:
        """A store, fenced in this epoch, reports what it holds of the slots before the epoch."""
        turn, learned = self._turn, self._learned
        if message.epoch != self.view.epoch:
            return
        first_answer = sender not in self._states
        self._states[sender] = message
        turn.counters["in_doubt_asked"] += 1
        self._note_reply(sender)
        prepared = {entry.slot: entry for entry in message.prepared}
        for slot in range(learned.decided + 1, self.view_slot):
            known = learned.log.known.get(slot)
            if known is None or not isinstance(known.value, Batch):
                continue
            round_ = self._round(slot)
            if message.applied >= slot:
                round_.committed = True
            elif slot in prepared and prepared[slot].digest in ("", known.value.digest):
                round_.votes.setdefault(sender, prepared[slot].refused)
            elif first_answer and sender in self._voters(slot):
                if self._has_vote(sender, slot):
                    round_.not_prepared.add(sender)
                self._prepare(sender, slot)

    # -- phase 1 ---------------------------------------------------------------------------------

    def slot_chosen(self, slot: int) -> None:
        """Prepare a slot that joined the chosen prefix; about earlier ones `begin` has asked."""
        if slot > self.view_slot and isinstance(self._learned.log[slot].value, Batch):
            self._round(slot)
            for store in self.view.stores:
                self.view_change.expect_reply(store.name)
            self._prepare(Group.STORES, slot)

    def _round(self, slot: int) -> Round:
        now = self._turn.now
        if slot not in self.rounds:
            self.rounds[slot] = Round(now, now + self._learned.vote_time.timeout_ms, now)
        return self.rounds[slot]

    def _prepare(self, to: str, slot: int) -> None:
        batch = self._learned.log[slot].value
        assert isinstance(batch, Batch)
        reconsider = not self._has_vote(self._voters(slot)[0], slot)
        epoch = self.view.epoch
        prepare = TxnPrepare(epoch=epoch, slot=slot, batch=batch, reconsider=reconsider)
        self._turn.send(to, prepare)

    def is_member(self, store: str) -> bool:
        """Whether the message being handled came from the disk that the view names."""
        member = self.view.member(store)
        return member is not None and member.disk == self._turn.sender_disk

    def receive(self, sender: str, message: Any) -> None:
        """Handle any answer of a store. A store that lost its disk is no longer that member."""
        if not self.is_member(sender):
            self._turn.counters["dropped_outside_view"] += 1
            return
        match message:
            case TxnVote():
                self._on_vote(sender, message)
            case TxnProgress():
                self._on_progress(sender, message)
            case TxnState():
                self._on_state(sender, message)
            case Fenced():
                self._turn.counters["fenced"] += 1

    def _on_vote(self, sender: str, message: TxnVote) -> None:
        """A store has journalled the slot. A vote counts only in the epoch of its prepare."""
        round_ = self.rounds.get(message.slot)
        if message.epoch != self.view.epoch or round_ is None:
            return
        self._abort_suspects.pop(sender, None)
        if sender not in round_.votes:
            round_.votes[sender] = message.refused
            self._note_reply(sender)
            if len(round_.votes) == len(self.view.stores):
                self._learned.vote_time.observe(self._turn.now - round_.began_at)

    def _note_reply(self, store: str) -> None:
        """Note an answer of a store, and whether further answers of it are awaited."""
        awaits_more = any(
            store not in round_.votes and not round_.committed and store in self._voters(slot)
            for slot, round_ in self.rounds.items()
        )
        self.view_change.replied(store, awaits_more=awaits_more)

    def _on_progress(self, sender: str, message: TxnProgress) -> None:
        round_ = self.rounds.get(message.slot)
        if message.epoch == self.view.epoch and round_ is not None:
            self.view_change.replied(sender, awaits_more=True)
            round_.deadline = self._turn.now + 2 * self._learned.vote_time.timeout_ms

    # -- phase 2 ---------------------------------------------------------------------------------

    def next_decision(self) -> Decision | Abort | None:
        """The decision of the next slot in order; or the `Abort` to propose, if the slot needs one;
        or `None` while the outcome is open.
        """
        learned = self._learned
        if learned.decided >= learned.chosen_through:
            return None
        slot = learned.decided + 1
        value = learned.log[slot].value
        if not isinstance(value, Batch):
            return Decision(slot, ())
        outcome = self._decidable(slot, value)
        if isinstance(outcome, tuple):
            if slot < self.view_slot:
                self._turn.counters["in_doubt_resolved"] += 1
            return Decision(slot, outcome)
        return outcome

    def _decidable(self, slot: int, batch: Batch) -> tuple[Refusal, ...] | Abort | None:
        """The aborted commands of the slot, or the abort to propose, or `None` while it is open."""
        abort_reasons = {**self._learned.aborts.get(slot, {}), **self._short_of_stores(batch)}
        aborted = tuple(Refusal(index=i, reason=abort_reasons[i]) for i in sorted(abort_reasons))
        if len(aborted) == len(batch.commands):
            return aborted  # It follows from the log alone; no vote is needed.
        round_ = self.rounds.get(slot)
        if round_ is None:
            return None  # The slot is before this epoch, and no store has answered yet.
        if round_.committed:
            return aborted
        if self._awaits_abort(slot, round_):
            return None  # This epoch may not commit commands that it proposed to abort.
        voters = self._voters(slot)
        if any(name not in round_.votes for name in voters):
            return None
        refusals = self._refusals(slot, batch, round_, voters)
        open_refusals = {i: reason for i, reason in refusals.items() if i not in abort_reasons}
        if open_refusals:
            if not self._has_vote(voters[0], slot):
                # No voter is left, so nothing can show that no client was told of a commit, and the
                # slot can't abort. So a refusal is not final: the store may have room again.
                for name in voters:
                    if any(refusal.index in open_refusals for refusal in round_.votes[name]):
                        del round_.votes[name]
                return None
            reason = next(iter(open_refusals.values()))
            return self._abort(slot, round_, tuple(sorted(open_refusals)), reason)
        return aborted

    def _short_of_stores(self, batch: Batch) -> dict[int, str]:
        """The new writes of the next slot that the log itself aborts: the View in force there names
        too few stores, so no coordinator of any epoch may have committed one (decision 21).
        """
        state, genesis = self._learned.namespace, self._turn.genesis
        assert state.view is not None
        assert state.membership is not None
        stores = [store.name for store in state.view.stores]
        shortage = genesis.shortage(stores, state.membership.stores_needed(genesis))
        return dict.fromkeys(_new_writes(batch), shortage) if shortage else {}

    def _refusals(
        self, slot: int, batch: Batch, round_: Round, voters: list[str]
    ) -> dict[int, str]:
        """The commands that can't commit, and why; all voters have voted.

        With too few stores only new writes are refused, never slots of a former epoch: its
        coordinator may have reported a result to the client already.
        """
        refusals = {
            refusal.index: refusal.reason for name in voters for refusal in round_.votes[name]
        }
        shortage = self.view_change.shortage
        if shortage and slot > self.view_slot:
            for index in _new_writes(batch):
                refusals.setdefault(index, shortage)
        return refusals

    def _has_vote(self, store: str, slot: int) -> bool:
        """Whether `store` has a vote on `slot`: a View before the slot added it, and all since
        have kept it.
        """
        member = self.view.member(store)
        return member is not None and member.added_slot is not None and member.added_slot < slot

    def _voters(self, slot: int) -> list[str]:
        """The stores whose votes the slot needs: those that have one (`_has_vote`), else all.

        If the disks of all voters are gone, no store knows which result a former epoch reported to
        a client. But every result follows from the log, where only a counted `Abort` aborts. So the
        slot commits once all stores of the view hold it, and never aborts, which agrees with every
        result that can have been reported (`ViewChange._next_view`).
        """
        names = [store.name for store in self.view.stores]
        return [name for name in names if self._has_vote(name, slot)] or names

    # -- aborts and patience ---------------------------------------------------------------------

    def tick(self) -> Iterator[Abort]:
        """Send requests again; yield the aborts to propose for slots that took too long."""
        turn = self._turn
        if self._awaiting_state() and turn.now - self._asked_at >= timeouts.RESEND_MS:
            self._ask()
        for slot in sorted(self.rounds):
            round_ = self.rounds[slot]
            missing = [name for name in self._voters(slot) if name not in round_.votes]
            overdue = missing and turn.now >= self._deadline(round_)
            if self._awaits_abort(slot, round_):
                assert round_.abort is not None
                yield round_.abort
            elif overdue and self._may_abort(slot, round_, missing):
                yield self._abort_silent(slot, round_, missing)
            elif (
                missing and turn.now - round_.sent_at >= timeouts.RESEND_MS and not round_.committed
            ):
                round_.sent_at = turn.now
                for name in missing:
                    if slot > self.view_slot or name in self._states:
                        self._prepare(name, slot)

    def _deadline(self, round_: Round) -> Milliseconds:
        """When the slot is overdue. The time while this node was away does not count, because no
        vote could arrive.
        """
        observing_since = self._learned.failure_detector.observing_since
        return max(round_.deadline, observing_since + self._learned.vote_time.timeout_ms)

    def _awaits_abort(self, slot: int, round_: Round) -> bool:
        """Whether an abort was proposed that is not counted yet."""
        counted = self._learned.aborts.get(slot, {})
        return round_.abort is not None and any(i not in counted for i in round_.abort.commands)

    def _abort_silent(self, slot: int, round_: Round, missing: list[str]) -> Abort:
        """Abort a slot whose votes are overdue. The wait is a sample for the adaptive timeout."""
        batch = self._learned.log[slot].value
        assert isinstance(batch, Batch)
        waited_ms = self._turn.now - round_.began_at
        self._learned.vote_time.observe(waited_ms)
        for name in missing:
            self._abort_suspects.setdefault(name, self._turn.now)
        reason = f"{', '.join(missing)} did not vote within {waited_ms} ms"
        return self._abort(slot, round_, tuple(range(len(batch.commands))), reason)

    def _may_abort(self, slot: int, round_: Round, missing: list[str]) -> bool:
        """Design 4.3: a slot before this epoch may have been committed, and its result reported,
        unless a voter, fenced in this epoch, has reported that it has not prepared the slot.

        A later slot may always be aborted. But while a store whose missing vote made one slot abort
        stays silent, waiting for the View without it saves the other slots, which are prepared and
        will commit there; unless too few stores would be left, which refuse new writes anyway.
        """
        if slot <= self.view_slot:
            return bool(round_.not_prepared)
        now = self._turn.now
        return any(
            now - self._abort_suspects.get(name, -timeouts.ABORT_SUSPECT_MS)
            >= timeouts.ABORT_SUSPECT_MS
            for name in missing
        ) or (not self.view_change.enough_without(missing))

    def _abort(self, slot: int, round_: Round, commands: tuple[int, ...], reason: str) -> Abort:
        """The abort to propose. A command that a fenced store refused is not prepared there."""
        round_.abort = Abort(slot=slot, commands=commands, epoch=self.view.epoch, reason=reason)
        self._turn.counters["aborts_proposed"] += 1
        return round_.abort


def _new_writes(batch: Batch) -> list[int]:
    """The commands that need the number of stores that the genesis asks for. Sessions don't."""
    return [
        index
        for index, command in enumerate(batch.commands)
        if not isinstance(command.operation, OpenSession | CloseSession)
    ]
