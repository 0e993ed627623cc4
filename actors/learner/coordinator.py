"""The coordinator of one epoch: two-phase commit over the stores of its View.

Non-blocking because the log and the stores' journals hold all that a decision rests on (in the
spirit of Gray and Lamport, Consensus on Transaction Commit, section 4): a commit needs every store
of the view to have journalled the slot; an abort is a value in the log. The coordinator journals
nothing. One object lives for one epoch and one incarnation; a new View makes a new one, which first
asks the stores what became of the slots before it (termination, design 4.5). Who belongs to the
view is watched by `actors.learner.view_change`; what it finds only ever becomes true by way of the
log.
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
    """The next slot in order is final: it commits but for the commands `aborted`."""

    slot: int
    aborted: tuple[Refusal, ...]


@dataclass(slots=True)
class Round:
    """2PC of one slot: who voted, and what waits for an abort."""

    began_at: Milliseconds
    deadline: Milliseconds
    sent_at: Milliseconds
    votes: dict[str, tuple[Refusal, ...]] = field(default_factory=dict)
    committed: bool = False
    """A store has applied the slot, so its commands commit but for counted aborts."""
    not_prepared: set[str] = field(default_factory=set)
    """Stores with a say that answered, fenced in this epoch, that they have not prepared it."""
    abort: Abort | None = None
    """Asked of the log; from then on its commands are not committed in this epoch."""


class Coordinator:
    """Drives the slots that are chosen and not decided to their end.

    What it wants of the log (an `Abort`, a `View`) and what it has decided it returns to the
    learner, who asks the log, or applies the slot and tells of it.
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
        """The stores that made a slot abort, since when, and that have not voted since."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to wait for."""
        learned = self._learned
        undecided = learned.decided < learned.chosen_through
        return undecided or self._awaiting_state() != [] or self.view_change.busy

    # -- the beginning of an epoch ---------------------------------------------------------------

    def begin(self) -> None:
        """Ask every store about every slot that is not decided, and fence it."""
        turn, learned = self._turn, self._learned
        turn.counters["epochs_coordinated"] += 1
        for slot in range(learned.decided + 1, learned.chosen_through + 1):
            if slot > self.view_slot:
                self.slot_chosen(slot)
        if self.view_slot:
            self._ask()
        turn.arm("tick", 100, 200)

    def forget_through(self, slot: int) -> None:
        """A snapshot stands for the slots up to `slot`: they are decided."""
        for former in [s for s in self.rounds if s <= slot]:
            del self.rounds[former]

    def _awaiting_state(self) -> list[StoreMember]:
        """The stores whose answer the slots before this epoch still wait for."""
        if self._learned.decided >= self.view_slot:
            return []
        return [store for store in self.view.stores if store.name not in self._states]

    def _ask(self) -> None:
        self._asked_at = self._turn.now
        for store in self._awaiting_state():
            self.view_change.expect_reply(store.name)
            self._turn.send(store.name, TxnInquiry(view=self.view, decided=self._learned.decided))

    def _on_state(self, sender: str, message: TxnState) -> None:
        """What one store, fenced in this epoch, holds of the slots before it."""
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
        """A slot joined the chosen prefix. Slots before this epoch are asked about, not sent."""
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
        """Any answer of a store. One that lost its disk is not the member that it was."""
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
        """A store has journalled the slot. Votes are tagged with the epoch they were asked in."""
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
        """It answered something; does it still owe an answer to anything else?"""
        waits = any(
            store not in round_.votes and not round_.committed and store in self._voters(slot)
            for slot, round_ in self.rounds.items()
        )
        self.view_change.replied(store, awaits_more=waits)

    def _on_progress(self, sender: str, message: TxnProgress) -> None:
        round_ = self.rounds.get(message.slot)
        if message.epoch == self.view.epoch and round_ is not None:
            self.view_change.replied(sender, awaits_more=True)
            round_.deadline = self._turn.now + 2 * self._learned.vote_time.timeout_ms

    # -- phase 2 ---------------------------------------------------------------------------------

    def next_decision(self) -> Decision | Abort | None:
        """The next slot in order, if it can be decided now; an `Abort` that the log is to be asked
        for, if that slot needs one; `None` while its outcome is open.
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
        """The aborted commands of the slot, or what the log has to say first."""
        given_up = {**self._learned.aborts.get(slot, {}), **self._short_of_stores(batch)}
        aborted = tuple(Refusal(index=i, reason=given_up[i]) for i in sorted(given_up))
        if len(aborted) == len(batch.commands):
            return aborted  # The log says so; no store is asked.
        round_ = self.rounds.get(slot)
        if round_ is None:
            return None  # Before this epoch, and no store has answered yet.
        if round_.committed:
            return aborted
        if self._awaits_abort(slot, round_):
            return None  # It may not commit them in this epoch.
        voters = self._voters(slot)
        if any(name not in round_.votes for name in voters):
            return None
        refusals = self._refusals(slot, batch, round_, voters)
        open_refusals = {i: reason for i, reason in refusals.items() if i not in given_up}
        if open_refusals:
            if not self._has_vote(voters[0], slot):
                # Nobody is left who could say that it was not told as committed, so it can't be
                # given up. Then a no is nothing that stands, either: there may be room again.
                for name in voters:
                    if any(refusal.index in open_refusals for refusal in round_.votes[name]):
                        del round_.votes[name]
                return None
            reason = next(iter(open_refusals.values()))
            return self._abort(slot, round_, tuple(sorted(open_refusals)), reason)
        return aborted

    def _short_of_stores(self, batch: Batch) -> dict[int, str]:
        """The new writes of the next slot that the log itself gives up: the View in force there
        names too few stores, so no coordinator of any epoch may have committed one (decision 21).
        """
        in_force = self._learned.namespace.view
        assert in_force is not None
        shortage = self._turn.genesis.shortage([store.name for store in in_force.stores])
        return dict.fromkeys(_new_writes(batch), shortage) if shortage else {}

    def _refusals(
        self, slot: int, batch: Batch, round_: Round, voters: list[str]
    ) -> dict[int, str]:
        """The commands that can't be committed, and why; all voters have voted.

        Below the wanted number of stores only new writes are refused, never the ending of what a
        former epoch began: its coordinator may have told the client already.
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
        """Whether `store` votes on `slot`: a View added it before, and kept it since."""
        member = self.view.member(store)
        return member is not None and member.added_slot is not None and member.added_slot < slot

    def _voters(self, slot: int) -> list[str]:
        """The stores that the slot needs the votes of: those with a say in it.

        If the disks of all of those are gone, nobody can tell what a former epoch told a client.
        But whatever was told follows from the log, where only a counted `Abort` gives anything up.
        So the slot is committed once all stores of the view hold it, and is never aborted: that
        agrees with every answer that can have been given (`ViewChange._next_view`).
        """
        names = [store.name for store in self.view.stores]
        return [name for name in names if self._has_vote(name, slot)] or names

    # -- aborts and patience ---------------------------------------------------------------------

    def tick(self) -> Iterator[Abort]:
        """Ask again, or give up what took too long: what the log is to be asked for."""
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
        """While this node was away no vote could come, so that time is nobody's delay."""
        observing_since = self._learned.failure_detector.observing_since
        return max(round_.deadline, observing_since + self._learned.vote_time.timeout_ms)

    def _awaits_abort(self, slot: int, round_: Round) -> bool:
        """Whether the log was asked for an abort and has not counted it yet."""
        counted = self._learned.aborts.get(slot, {})
        return round_.abort is not None and any(i not in counted for i in round_.abort.commands)

    def _abort_silent(self, slot: int, round_: Round, missing: list[str]) -> Abort:
        """A vote is missing past the adaptive timeout, and that counts as a sample of it."""
        batch = self._learned.log[slot].value
        assert isinstance(batch, Batch)
        waited_ms = self._turn.now - round_.began_at
        self._learned.vote_time.observe(waited_ms)
        for name in missing:
            self._abort_suspects.setdefault(name, self._turn.now)
        reason = f"{', '.join(missing)} did not vote within {waited_ms} ms"
        return self._abort(slot, round_, tuple(range(len(batch.commands))), reason)

    def _may_abort(self, slot: int, round_: Round, missing: list[str]) -> bool:
        """Design 4.3: a slot before this epoch may have been committed and told already,
        unless a store with a say in it has said, fenced, that it is not prepared.

        A later slot may always be aborted, but to wait for the View without a store that has made
        one abort already spares the others: they are prepared, and will be committed there. Unless
        too few stores would be left, for then they had better be refused than kept on too few.
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
        """What to ask the log for. A command that a fenced store refused is not prepared there."""
        round_.abort = Abort(slot=slot, commands=commands, epoch=self.view.epoch, reason=reason)
        self._turn.counters["aborts_proposed"] += 1
        return round_.abort


def _new_writes(batch: Batch) -> list[int]:
    """The commands that need as many stores as the cluster wants. A session is kept by any."""
    return [
        index
        for index, command in enumerate(batch.commands)
        if not isinstance(command.operation, OpenSession | CloseSession)
    ]
