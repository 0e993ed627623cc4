"""The learner: which values are chosen, and what has become of them.

It keeps two marks on the log (DESIGN, section 4): `scanned`, the end of the chosen prefix, where
Views and Aborts are read ahead of time; and `decided`, the end of the prefix whose every slot is
committed or aborted, which is what its namespace has applied. What it knows as chosen rests on
distinct acceptors' answers at one ballot (section 3, rule 4); nothing depends on a notification
arriving, because it pulls what it misses (rule 6). Two-phase commit is driven by
`actors.coordinator`, which this actor owns while a View names its running incarnation.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import TypeAdapter

from actors.acceptor import weight
from actors.ballot import NO_BALLOT, Ballot
from actors.coordinator import Coordinator
from actors.effects import Group, Record
from actors.errors import InvariantViolation
from actors.messages import (
    Accept,
    Accepted,
    AcceptedRange,
    Chosen,
    Decided,
    LeaderBeat,
    NodeHeartbeat,
    Progress,
    ProposeValue,
    PullChosen,
    PullDecided,
    Result,
    Truncate,
    TxnDecision,
)
from actors.namespace import Namespace
from actors.node import Node, read_record
from actors.options import Identity, Options
from actors.quorum import has_quorum
from actors.values import Abort, AnyValue, Batch, DecidedSlot, Outcome, SlotValue, View

_TICK_MS = 150
_PAGE_SLOTS = 256
_PAGE_BYTES = 1024 * 1024
_PERSIST_SLOTS = 64
_PERSIST_BYTES = 1024 * 1024
_PERSIST_MS = 500
_TRUNCATE_SLOTS = 128
_VIEW = TypeAdapter(View)
_DECIDED_SLOT = TypeAdapter(DecidedSlot)


@dataclass(slots=True)
class Open:
    """A slot that is not known as chosen yet."""

    values: dict[Ballot, AnyValue] = field(default_factory=dict)
    accepted: dict[Ballot, set[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Known:
    """A chosen slot and a ballot under which it was; `aborted` is set once it is decided."""

    value: AnyValue
    ballot: Ballot
    aborted: tuple[int, ...] | None = None


class Learner(Node):
    """One of those who know what was chosen; one of them coordinates."""

    handlers: ClassVar = {
        "paxos.accept": "_on_accept",
        "paxos.accepted": "_on_accepted",
        "leader.beat": "_on_leader_beat",
        "learn.pull": "_on_pull",
        "learn.chosen": "_on_chosen",
        "learn.accepted": "_on_accepted_range",
        "log.truncate": "_on_truncate",
        "sync.pull": "_on_pull_decided",
        "sync.decided": "_on_decided",
        "txn.decision": "_on_decision",
        "txn.vote": "_on_coordination",
        "txn.progress": "_on_coordination",
        "txn.state": "_on_coordination",
        "txn.fenced": "_on_coordination",
    }
    timers: ClassVar = {"tick": "_on_tick", "persist": "_on_persist_due", "sync": "_on_sync_due"}

    def __init__(self, identity: Identity, options: Options) -> None:
        super().__init__(identity, options)
        self.state = Namespace(options)
        self.log: dict[int, Known] = {}
        """Chosen slots from `first_kept` on, also beyond a gap."""
        self.first_kept = 1
        self.scanned = 0
        self.durable = 0
        self.aborts: dict[int, dict[int, str]] = {}
        """Counted aborts of undecided slots: index of the command to the reason."""
        self.view: View | None = None
        """The view in force at `scanned`, with every `added_slot` filled in."""
        self.view_slot = 0
        """The slot of the View that began the epoch."""
        self.leader: Ballot = NO_BALLOT
        self.coordinator: Coordinator | None = None
        self._decided_view: View | None = None
        self._open: dict[int, Open] = {}
        self._told: dict[int, tuple[int, ...]] = {}
        """Decisions of other coordinators for slots that are not applied yet."""
        self._heard_through = 0
        self._scanned_at_tick = 0
        self._asked = False
        self._told_progress = (0, 0)
        self._unpersisted_bytes = 0
        self._durable_marks: dict[str, int] = {}
        self._truncated_below = 1
        self._pull_turn = 0
        self.peers = [name for name in options.names("learner") if name != self.name]
        """The other learners."""

    @property
    def decided(self) -> int:
        """The end of the decided prefix."""
        return self.state.applied

    # -- restart ---------------------------------------------------------------------------------

    def _restore(self, records: list[Record]) -> None:
        for record in records:
            if record.key.startswith("log/"):
                slot = read_record(_DECIDED_SLOT, record)
                self.log[slot.slot] = Known(slot.value, NO_BALLOT, slot.aborted)
            elif record.key == "view":
                self._decided_view = read_record(_VIEW, record)
            else:
                self.state.restore(record)
        self.state.restored()
        self.scanned = self.durable = self.state.applied
        self.first_kept = min(self.log, default=self.scanned + 1)

    def _start(self) -> None:
        if self._decided_view is None:
            self._decided_view = self.genesis.view
        self.view = self._decided_view
        self._truncated_below = self.first_kept
        self._follow_view(self.view, self.view_slot)
        self._set_timer("sync", self.options.sync_ms // 2, self.options.sync_ms)
        self._pull_missing(self.scanned + 1)
        self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _vitals(self) -> NodeHeartbeat:
        return NodeHeartbeat(
            role="learner",
            journal_commits=self._commits,
            applied=self.decided,
            durable=self.durable,
            scanned=self.scanned,
            state_hash=self.state.state_hash,
            view=self.view,
            in_doubt=self.scanned - self.decided,
        )

    # -- what is chosen --------------------------------------------------------------------------

    def _on_accept(self, sender: str, message: Accept) -> None:
        """The value of a slot under a ballot; the votes come from the acceptors."""
        self.leader = max(self.leader, message.ballot)
        if self._is_known(message.slot):
            self._asked = True  # The leader sends again: tell it.
            return
        slot = self._open.setdefault(message.slot, Open())
        slot.values[message.ballot] = message.value
        self._check_chosen(message.slot, message.ballot)

    def _on_accepted(self, sender: str, message: Accepted) -> None:
        """One acceptor's vote. The same acceptor counts once (section 3, rule 4)."""
        if self._is_known(message.slot) or not sender.startswith("acceptor-"):
            return
        slot = self._open.setdefault(message.slot, Open())
        slot.accepted.setdefault(message.ballot, set()).add(sender)
        self._check_chosen(message.slot, message.ballot)

    def _on_accepted_range(self, sender: str, message: AcceptedRange) -> None:
        """An acceptor's answer to a pull: values and votes at once."""
        for entry in message.entries:
            if not self._is_known(entry.slot):
                self._open.setdefault(entry.slot, Open()).values[entry.ballot] = entry.value
                self._on_accepted(sender, Accepted(ballot=entry.ballot, slot=entry.slot))
        if message.truncated_below > self.scanned + 1:
            self.counters["behind_truncation"] += 1

    def _on_chosen(self, sender: str, message: Chosen) -> None:
        """Another learner's answer to a pull."""
        for entry in message.entries:
            self._choose(entry.slot, entry.value, NO_BALLOT)

    def _is_known(self, slot: int) -> bool:
        return slot <= self.scanned or slot in self.log

    def _check_chosen(self, slot: int, ballot: Ballot) -> None:
        self._heard_through = max(self._heard_through, slot)
        seen = self._open[slot]
        votes = seen.accepted.get(ballot, set())
        if not has_quorum(votes, self.options.acceptors):
            return
        if ballot in seen.values:
            self._choose(slot, seen.values[ballot], ballot)

    def _choose(self, slot: int, value: AnyValue, ballot: Ballot) -> None:
        known = self.log.get(slot)
        if known is not None:
            if known.value != value:
                raise InvariantViolation(
                    f"two values chosen for slot {slot}: {known.value!r} and {value!r}"
                )
            return
        if slot <= self.scanned:
            return
        self.log[slot] = Known(value, ballot)
        self._open.pop(slot, None)
        self._heard_through = max(self._heard_through, slot)
        while self.scanned + 1 in self.log:
            self.scanned += 1
            self._scan(self.scanned, self.log[self.scanned].value)

    def _scan(self, slot: int, value: AnyValue) -> None:
        """Read Views and Aborts ahead of time, in slot order, so that all learners agree."""
        assert self.view is not None
        if isinstance(value, View) and value.epoch == self.view.epoch + 1:
            self.view = value.model_copy(
                update={
                    "stores": tuple(
                        m if m.added_slot is not None else m.model_copy(update={"added_slot": slot})
                        for m in value.stores
                    )
                }
            )
            self.view_slot = slot
            self.counters["views"] += 1
            self._follow_view(self.view, slot)
        elif isinstance(value, Abort) and value.epoch == self.view.epoch:
            if value.slot > self.decided:
                reasons = self.aborts.setdefault(value.slot, {})
                for index in value.commands:
                    reasons.setdefault(index, value.reason)
        elif isinstance(value, View | Abort):
            self.counters["void_by_epoch"] += 1
        if self.coordinator is not None:
            self.coordinator.slot_scanned(slot)

    # -- catching up -----------------------------------------------------------------------------

    def _on_leader_beat(self, sender: str, message: LeaderBeat) -> None:
        if message.ballot > self.leader:
            self.leader = message.ballot
            self._asked = True
        self._hear(message.chosen_through)

    def _on_heartbeat(self, sender: str, message: NodeHeartbeat) -> None:
        if message.role == "learner":
            self._hear(message.scanned)
        if message.role in ("learner", "store"):
            self._durable_marks[sender] = message.durable
        if message.role == "learner" and message.applied > self.decided:
            self._arm("tick", _TICK_MS, _TICK_MS * 2)
        if self.coordinator is not None:
            self._truncate_if_due(1)

    def _hear(self, slot: int) -> None:
        if slot > self._heard_through:
            self._heard_through = slot
        if slot > self.scanned:
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _pull_missing(self, first: int) -> None:
        """Ask the other learners, and every other time the acceptors too."""
        pull = PullChosen(first_slot=first, last_slot=first + _PAGE_SLOTS - 1)
        self.counters["pulls"] += 1
        for peer in self.peers:
            self._send(peer, pull)
        if self._pull_turn % 2:
            self._send(Group.ACCEPTORS, pull)
        self._pull_turn += 1

    def _on_pull(self, sender: str, message: PullChosen) -> None:
        entries: list[SlotValue] = []
        size = 0
        for slot in range(message.first_slot, message.last_slot + 1):
            known = self.log.get(slot)
            if known is None or size > _PAGE_BYTES:
                break
            entries.append(SlotValue(slot=slot, value=known.value))
            size += weight(known.value)
        if entries:
            self._send(sender, Chosen(entries=tuple(entries)))

    def _on_tick(self, subject: str) -> None:
        behind = self.scanned < self._heard_through
        if behind and self.scanned == self._scanned_at_tick:
            self._pull_missing(self.scanned + 1)
        self._scanned_at_tick = self.scanned
        self._tell_progress()
        undecided = self.decided < self.scanned
        if undecided and self.coordinator is None:
            self._pull_decided()
        if self.coordinator is not None:
            self.coordinator.tick()
        elif self._owes_view():
            self._propose_own_view()
        if behind or undecided or self._owes_view() or self._busy():
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _busy(self) -> bool:
        return self.coordinator is not None and self.coordinator.busy

    # -- who coordinates -------------------------------------------------------------------------

    def _follow_view(self, view: View, slot: int) -> None:
        """Coordinate an epoch only if its View names this running incarnation."""
        mine = (self.name, self.identity.incarnation)
        if (view.coordinator, view.coordinator_incarnation) == mine:
            self.coordinator = Coordinator(self, view, slot)
            self.coordinator.begin()
        else:
            self.coordinator = None
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _owes_view(self) -> bool:
        """This learner is named, but by a former start: it never goes on in that epoch."""
        return (
            self.view is not None
            and self.coordinator is None
            and self.view.coordinator == self.name
            and self.scanned + _PAGE_SLOTS >= self._heard_through
        )

    def _propose_own_view(self) -> None:
        assert self.view is not None
        self.propose(
            self.view.model_copy(
                update={
                    "epoch": self.view.epoch + 1,
                    "coordinator_incarnation": self.identity.incarnation,
                }
            )
        )

    def propose(self, value: View | Abort) -> None:
        """Ask whoever leads to put `value` into the log; asked again until it is scanned."""
        if self.leader != NO_BALLOT:
            self._send(self.leader.proposer, ProposeValue(value=value))

    def _on_coordination(self, sender: str, message: Any) -> None:
        if sender.startswith("store-") and hasattr(message, "durable"):
            self._durable_marks[sender] = max(message.durable, self._durable_marks.get(sender, 0))
        if self.coordinator is not None:
            self.coordinator.receive(sender, message)

    # -- what is decided -------------------------------------------------------------------------

    def decide(self, slot: int, aborted: tuple[int, ...]) -> list[Outcome]:
        """The next slot in order is final: apply it."""
        known = self.log[slot]
        known.aborted = aborted
        outcomes = self.state.apply(slot, known.value, aborted)
        self.state.dropped.clear()
        self.aborts.pop(slot, None)
        if isinstance(known.value, View):
            self._note_decided_view(slot, known.value)
        self._unpersisted_bytes += weight(known.value)
        self.counters["decided"] += 1
        self.counters["aborted"] += len(aborted)
        return outcomes

    def _note_decided_view(self, slot: int, value: View) -> None:
        """Keep the view in force at `decided` beside the state, for the next start."""
        assert self._decided_view is not None
        if value.epoch == self._decided_view.epoch + 1:
            stores = tuple(
                m if m.added_slot is not None else m.model_copy(update={"added_slot": slot})
                for m in value.stores
            )
            self._decided_view = value.model_copy(update={"stores": stores})

    def tell_results(self, slot: int, outcomes: list[Outcome]) -> None:
        """Answer those who wait for the commands of a decided slot."""
        value = self.log[slot].value
        if isinstance(value, Batch):
            for command, outcome in zip(value.commands, outcomes, strict=True):
                self._send(
                    command.reply_to,
                    Result(session=command.session, sequence=command.sequence, outcome=outcome),
                )

    def _on_decision(self, sender: str, message: TxnDecision) -> None:
        """A decision is told only once it is final, so its epoch does not matter here."""
        if self.coordinator is None and message.slot > self.decided:
            self._told[message.slot] = message.aborted
            seen = self._open.get(message.slot)
            if seen is not None and message.ballot in seen.values:
                # A decided slot is chosen; the votes may have gone to the coordinator only.
                self._choose(message.slot, seen.values[message.ballot], message.ballot)
            self._hear(message.slot)
            self._apply_told()

    def _apply_told(self) -> None:
        while self.decided < self.scanned and self.decided + 1 in self._told:
            self.decide(self.decided + 1, self._told.pop(self.decided + 1))

    def _on_sync_due(self, subject: str) -> None:
        """Periodic sync: losing every decision message only costs time (section 4, rule 10)."""
        if self.coordinator is None:
            self._pull_decided()
        self._set_timer("sync", self.options.sync_ms, self.options.sync_ms + 1000)

    def _pull_decided(self) -> None:
        for peer in self.peers:
            self._send(peer, PullDecided(applied=self.decided))

    def _on_pull_decided(self, sender: str, message: PullDecided) -> None:
        entries: list[DecidedSlot] = []
        size = 0
        for slot in range(message.applied + 1, self.decided + 1):
            known = self.log.get(slot)
            if known is None or known.aborted is None or size > _PAGE_BYTES:
                break
            entries.append(DecidedSlot(slot=slot, value=known.value, aborted=known.aborted))
            size += weight(known.value)
        if entries or message.applied + 1 < self.first_kept:
            self._send(sender, Decided(entries=tuple(entries), first_kept=self.first_kept))

    def _on_decided(self, sender: str, message: Decided) -> None:
        if self.coordinator is not None:
            return
        for entry in message.entries:
            if entry.slot > self.decided:
                self._choose(entry.slot, entry.value, NO_BALLOT)
                self._told[entry.slot] = entry.aborted
        self._apply_told()
        if message.first_kept > self.decided + 1:
            self.counters["behind_truncation"] += 1

    # -- durability and truncation ---------------------------------------------------------------

    def _settle(self) -> None:
        if self.coordinator is not None:
            self.coordinator.settle()
        else:
            self._apply_told()
        if self._asked or (self.coordinator is not None and self.decided > self._told_progress[1]):
            self._tell_progress()
        behind = self.decided - self.durable
        if behind >= _PERSIST_SLOTS or self._unpersisted_bytes >= _PERSIST_BYTES:
            self._persist()
        elif behind:
            self._arm("persist", _PERSIST_MS, _PERSIST_MS * 2)
        if self.scanned < self._heard_through or self.decided < self.scanned or self._busy():
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _tell_progress(self) -> None:
        """Tell the leader: the coordinator with each decision, others when asked or in time."""
        progress = (self.scanned, self.decided)
        if self.leader == NO_BALLOT or self.view is None:
            return
        if self._asked or progress != self._told_progress:
            self._asked = False
            self._told_progress = progress
            self._send(
                self.leader.proposer,
                Progress(scanned=self.scanned, decided=self.decided, view=self.view),
            )

    def _on_persist_due(self, subject: str) -> None:
        self._tell_progress()
        if self.decided > self.durable:
            self._persist()

    def _persist(self) -> None:
        """Write the decided state, lazily: the acceptors hold the log until it is durable here."""
        for slot in range(self.durable + 1, self.decided + 1):
            known = self.log[slot]
            assert known.aborted is not None
            entry = DecidedSlot(slot=slot, value=known.value, aborted=known.aborted)
            self._journal(f"log/{slot:016x}", entry)
        for key, row in self.state.take_rows():
            self._journal(key, row)
        self._journal("view", self._decided_view)
        self.durable = self.decided
        self._unpersisted_bytes = 0
        if self.coordinator is not None:
            self._truncate_if_due(_TRUNCATE_SLOTS)

    def _truncate_if_due(self, least_slots: int) -> None:
        """Let everybody forget what all learners and stores hold durably (section 4, rule 11)."""
        assert self.view is not None
        holders = [*self.peers, *(store.name for store in self.view.stores)]
        below = 1 + min(self.durable, *(self._durable_marks.get(name, 0) for name in holders))
        if below - self._truncated_below >= least_slots:
            self._truncated_below = below
            self._send(Group.ACCEPTORS, Truncate(below=below))
            self._send(Group.LEARNERS, Truncate(below=below))
            self._forget(below)

    def _on_truncate(self, sender: str, message: Truncate) -> None:
        self._forget(min(message.below, self.durable + 1))

    def _forget(self, below: int) -> None:
        for slot in range(self.first_kept, below):
            self.log.pop(slot, None)
            self._journal(f"log/{slot:016x}", None)
        self.first_kept = max(self.first_kept, below)
