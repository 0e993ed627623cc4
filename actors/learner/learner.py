"""The learner: which values are chosen, and how each slot was decided.

What it has learned is in `actors.learner.state`. Nothing depends on the arrival of a notification,
because a learner pulls what it misses (design 3.6), and copies another replica's state where the
log is truncated. While a View names this incarnation as coordinator, the learner owns a
`Coordinator`, which runs two-phase commit; `actors.learner.takeover` decides when to propose that.
"""

from typing import Any, ClassVar

from pydantic import TypeAdapter

from actors.effects import Effects, Envelope, Group, Record, TimerKey
from actors.errors import InvariantViolation
from actors.learner.audit_copy import AuditCopy
from actors.learner.audit_log import AuditLog
from actors.learner.audit_pages import page_of as audit_page_of
from actors.learner.catch_up import CatchUp
from actors.learner.coordinator import Coordinator, Decision
from actors.learner.log_pages import page_of
from actors.learner.replicas import Replicas
from actors.learner.state import LearnerState
from actors.learner.takeover import Takeover
from actors.messages import (
    Accept,
    Accepted,
    AcceptedRange,
    AuditPage,
    AuditRead,
    Chosen,
    Decided,
    Diverged,
    Fenced,
    JoinRequest,
    LeaderBeat,
    LearnerProgress,
    LogRead,
    NodeHeartbeat,
    ProposeValue,
    PullChosen,
    PullDecided,
    Result,
    SnapshotPage,
    SnapshotPull,
    SnapshotRow,
    Superseded,
    Truncate,
    TxnDecision,
    TxnProgress,
    TxnState,
    TxnVote,
)
from actors.messages.permissions import role_in
from actors.node import Handler, Handlers, Node, Timers, read_record
from actors.numbers import Milliseconds
from actors.options import Identity, Options
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.paxos.votes import learned
from actors.peers import Key
from actors.state.namespace import STATE_ROWS
from actors.state.snapshots import SnapshotInstaller, SnapshotServer
from actors.unread import UnreadBatch
from actors.values import (
    Abort,
    AcceptedValue,
    AnyValue,
    Batch,
    DecidedSlot,
    Frozen,
    Outcome,
    Refusal,
    Roster,
    View,
    weight,
)

_TICK_MS = 150
_PERSIST_SLOTS = 64
_PERSIST_BYTES = 1024 * 1024
_PERSIST_MS = 500
_TRUNCATE_SLOTS = 128
_PROPOSE_MS = 400
_DECIDED_SLOT = TypeAdapter(DecidedSlot)


class Learner(Node):
    """A node that learns what was chosen and decided; one of the learners coordinates."""

    def __init__(self, identity: Identity, options: Options) -> None:
        super().__init__(identity, options)
        self.learned = LearnerState(self.turn)
        self.state = self.learned.namespace
        self.log = self.learned.log
        self.failure_detector = self.learned.failure_detector
        self.replicas = Replicas(self.turn)
        self.coordinator: Coordinator | None = None
        self._leader_heard_at: Milliseconds = 0
        self._takeover = Takeover(self.turn, self.learned)
        self._catch_up = CatchUp(self.turn, self.learned)
        self._snapshots = SnapshotServer(self.turn)
        self._installer = SnapshotInstaller(self.turn, self._sources)
        self.audit = AuditLog(self.turn, self.state.audit)
        self.audit_copy = AuditCopy(self.turn, self.audit, self.learned.other_learners)
        self._received_decisions: dict[int, tuple[Refusal, ...]] = {}
        """Decisions of other coordinators for slots that are not applied yet."""
        self._progress_due = False
        self._reported_progress = (0, 0)
        self._proposed_at: dict[tuple[Ballot, View | Abort], Milliseconds] = {}
        self._unpersisted_bytes = 0
        self._truncated_below = 1
        self._mark = 0

    @property
    def chosen_through(self) -> int:
        """The end of the chosen prefix."""
        return self.log.chosen_through

    @property
    def decided(self) -> int:
        """The end of the decided prefix."""
        return self.state.applied

    @property
    def durable(self) -> int:
        """The end of the part of the decided prefix that the journal holds."""
        return self.learned.durable

    @property
    def is_installing(self) -> bool:
        """Whether this learner is copying another replica's state because its own is too old."""
        return self._installer.busy

    @property
    def view(self) -> View | None:
        """The view in force at `chosen_through`."""
        return self.learned.view

    # -- restart ---------------------------------------------------------------------------------

    def _restore(self, records: list[Record]) -> None:
        for record in records:
            if record.key.startswith("log/"):
                slot = read_record(_DECIDED_SLOT, record)
                self.log.restore(slot.slot, slot.value, slot.aborted)
            elif not self.audit.restore(record):
                self.state.restore(record)
        self.state.restored()
        self.audit.restored(self.state.audit)
        self.learned.durable = self.state.applied
        self.log.restored(self.state.applied)

    def _start(self) -> None:
        self.state.begin(self.genesis)
        self._adopt_membership()
        self._adopt_view()
        # A store may ask to join with the state of this slot, which was decided before the restart.
        self.replicas.note_own_hash(self.state.applied, self.state.state_hash)
        self._truncated_below = self.log.first_kept
        self._set_timer("sync", self.options.sync_ms // 2, self.options.sync_ms)
        self._catch_up.begin()
        self.audit_copy.begin()
        self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _remake_row(self, key: str) -> Frozen | bytes | None:
        """Persist everything first: a crash must not leave rows of two different states."""
        if self.decided > self.durable:
            self._persist()
        kind, _, slot = key.partition("/")
        if kind == "log":
            known = self.log.known.get(int(slot, 16))
            if known is None or known.aborted is None:
                return None
            return DecidedSlot(slot=int(slot, 16), value=known.value, aborted=known.aborted)
        return self.audit.row(key) if kind == "audit" else self.state.row(key)

    def _may_be_gone(self, key: str) -> bool:
        return key.partition("/")[0] in ("log", "audit", *STATE_ROWS)

    def _adopt_membership(self) -> None:
        """Go on from the acceptors at `decided`, which is the end of the chosen prefix, too."""
        assert self.state.membership is not None
        self.log.begin(self.state.membership, self.constants.alpha)
        self.turn.note_roster(self.state.membership)

    def _adopt_view(self) -> None:
        """Go on from the view in force at `decided`."""
        view, slot = self.state.view, self.state.view_slot
        assert view is not None
        self.learned.view, self.learned.view_slot = view, slot
        self._follow_view(view, slot)

    def heartbeat(self) -> NodeHeartbeat:
        return NodeHeartbeat(
            role="learner",
            journal_commits=self._commits,
            applied=self.decided,
            durable=self.durable,
            chosen_through=self.chosen_through,
            state_hash=self.state.state_hash,
            view=self.view,
            in_doubt=self.chosen_through - self.decided,
            installing=self._installer.busy,
            rows_left=self._installer.rows_left,
            chunks_missing=int(self.audit_copy.busy),
            **self._acceptors_known(),
        )

    def _removal(self) -> str:
        """See `Node._removal`. A coordinator goes on until the next View, so there is no gap."""
        membership = self.state.membership
        if self.coordinator is not None or not self._is_held(membership, self.durable):
            return ""
        return self._removed_by(membership)

    def _acceptors_known(self) -> dict[str, Any]:
        """What proposers learn of the acceptors, once they have changed."""
        membership = self.log.membership
        if membership is None or membership.is_founding:
            return {}
        return {"membership": membership, "durable_mark": self._durable_mark()}

    def _durable_mark(self) -> int:
        """A slot through which this learner and all stores of the view hold everything durably: no
        slot up to it is ever forgotten. The view is that of `chosen_through`, which is no earlier.
        """
        if self.view is not None:
            held = min(self.durable, self.replicas.durable_through(self.view.stores))
            self._mark = max(self._mark, held)
        return self._mark

    # -- signs of life ---------------------------------------------------------------------------

    def receive(self, envelope: Envelope, now: Milliseconds) -> Effects:
        """See `Actor.receive`."""
        self.failure_detector.message_received(now)
        return super().receive(envelope, now)

    def expire(self, timer: TimerKey, now: Milliseconds) -> Effects:
        """See `Actor.expire`."""
        self.failure_detector.timer_expired(now)
        return super().expire(timer, now)

    def _admit(self, envelope: Envelope) -> Handler | None:
        """See `Node._admit`. Any message that is admitted is a sign of life of its sender."""
        handler = super()._admit(envelope)
        if handler is not None:
            self.failure_detector.sign_of_life((envelope.sender, envelope.disk), self.now)
        return handler

    def _forget_peer(self, key: Key) -> None:
        self.failure_detector.forget(key)
        self.replicas.forget(key)

    def _on_heartbeat(self, sender: str, message: NodeHeartbeat) -> None:
        self.failure_detector.heartbeat((sender, self.turn.sender_disk), self.now)
        if message.role in ("learner", "store"):
            self._note_reported(max(message.chosen_through, message.applied))
            self.replicas.report(sender, message, compares=self.coordinator is not None)
        if message.role == "acceptor":
            self._note_acceptor(sender)
        if message.role == "learner" and message.applied > self.decided:
            self._arm("tick", _TICK_MS, _TICK_MS * 2)
        self._watch_view()
        if self.coordinator is not None:
            self._truncate_if_due(1)

    def _note_acceptor(self, sender: str) -> None:
        """Let a founding disk know that another one has its name, once that can't be forgotten any
        more. A later disk may be one that waits to be named: which were retired is not kept.
        """
        membership, disk = self.log.membership, self.turn.sender_disk
        if (
            membership is not None
            and self.founding.disks.get(sender) == disk
            and membership.is_settled
            and not membership.is_founding
            and membership.settled_slot <= self._durable_mark()
            and not membership.has_active((sender, disk))
        ):
            self._send(sender, Superseded(disk=disk, version=membership.newest.version))

    # -- what is chosen --------------------------------------------------------------------------

    def _on_accept(self, sender: str, message: Accept) -> None:
        """A leader's proposal for a slot under a ballot; the votes come from the acceptors."""
        self._follow_leader(message.ballot)
        if self.log.is_known(message.slot):
            self._progress_due = True  # The leader proposes it again, so it needs a report.
            return
        self._record_value(message)
        self._extend_prefix()

    def _record_value(self, voted: Accept | AcceptedValue) -> None:
        """Read what may be chosen. What can't be read means nothing, to every learner."""
        value = learned(voted.value)
        if isinstance(voted.value, UnreadBatch) and not isinstance(value, Batch):
            self.counters["unreadable"] += 1
        self.log.record_value(voted.slot, voted.ballot, value)

    def _on_accepted(self, sender: str, message: Accepted) -> None:
        """One acceptor's vote (design 3.4)."""
        self.log.record_vote(message.slot, message.ballot, (sender, self.turn.sender_disk))
        self._extend_prefix()

    def _on_accepted_range(self, sender: str, message: AcceptedRange) -> None:
        """An acceptor's answer to a pull: values and votes at once."""
        acceptor = (sender, self.turn.sender_disk)
        for entry in message.entries:
            self._record_value(entry)
            self.log.record_vote(entry.slot, entry.ballot, acceptor)
        self._extend_prefix()
        self._note_reported(message.truncated_below - 1)
        self._catch_up.acceptors_keep_from(message.truncated_below)

    def _on_chosen(self, sender: str, message: Chosen) -> None:
        """Another learner's answer to a pull."""
        for entry in message.entries:
            self.log.choose(entry.slot, entry.value, NO_BALLOT)
        self._extend_prefix()

    def _extend_prefix(self) -> None:
        while (slot := self.log.extend_prefix()) is not None:
            self._take_view_or_abort(slot, self.log[slot].value)

    def _take_view_or_abort(self, slot: int, value: AnyValue) -> None:
        """Views and Aborts take effect once the chosen prefix reaches them, before anything is
        decided: a View in the next epoch, an Abort only in the epoch that it names (design 4.3).
        The order of slots tells which are void, so all learners agree.
        """
        assert self.view is not None
        if isinstance(value, View) and value.epoch == self.view.epoch + 1:
            view = value.in_force_at(slot)
            self.learned.view, self.learned.view_slot = view, slot
            self.counters["views"] += 1
            self._follow_view(view, slot)
            if slot >= self.log.reported_through:
                self._send_heartbeat()
        elif isinstance(value, Abort) and value.epoch == self.view.epoch:
            if value.slot > self.decided:
                reasons = self.learned.aborts.setdefault(value.slot, {})
                for index in value.commands:
                    reasons.setdefault(index, value.reason)
        elif isinstance(value, View | Abort):
            self.counters["void_by_epoch"] += 1
        elif isinstance(value, Roster):
            self.turn.note_roster(self.log.membership)
            self._arm("tick", _TICK_MS, _TICK_MS * 2)  # The view may have to change.
        if self.coordinator is not None:
            self.coordinator.slot_chosen(slot)

    # -- catching up -----------------------------------------------------------------------------

    def _on_leader_beat(self, sender: str, message: LeaderBeat) -> None:
        self._progress_due |= self._follow_leader(message.ballot)
        self._note_reported(message.chosen_through)

    def _follow_leader(self, ballot: Ballot) -> bool:
        """Take the highest ballot for the leader's, unless nothing came under it for two leases:
        a wrong one would else be followed for ever. Whether the leader changed.
        """
        learned = self.learned
        silent = self.now - self._leader_heard_at >= 2 * self.constants.lease_ms
        if ballot < learned.leader and not silent:
            return False
        former, learned.leader, self._leader_heard_at = learned.leader, ballot, self.now
        return ballot != former

    def _note_reported(self, slot: int) -> None:
        self.log.reported_through = max(self.log.reported_through, slot)
        if slot > self.chosen_through:
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _on_pull(self, sender: str, message: PullChosen) -> None:
        self._catch_up.send_chosen(sender, message)

    def _on_pull_decided(self, sender: str, message: PullDecided) -> None:
        self._catch_up.send_decided(sender, message)

    def _sources(self) -> list[str]:
        """The replicas to copy a state from."""
        return [*self.learned.peers, *self.turn.names("store")]

    def copy_state(self) -> None:
        """The next slots are truncated: begin to copy another replica's state."""
        self._installer.begin()
        self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _on_log_read(self, sender: str, message: LogRead) -> None:
        """A diagnostics client asks for log entries."""
        self._send(sender, page_of(self.learned, message, self.options.page_bytes))

    def _on_audit_read(self, sender: str, message: AuditRead) -> None:
        """A gateway or a learner asks for records. Only durable ones are sent, so that no record
        that anybody has seen is lost with this process.
        """
        if self.decided > self.durable:
            self._persist()
        for_copy = role_in(sender) == "learner"
        page_bytes = self.options.page_bytes
        page = audit_page_of(self.audit, self.state, message, page_bytes, for_copy=for_copy)
        self._send(sender, page)

    def _on_audit_page(self, sender: str, message: AuditPage) -> None:
        self.audit_copy.on_page(sender, message)

    def _on_tick(self, subject: str) -> None:
        if self._catch_up.tick_chosen():
            self.copy_state()
        self._catch_up.tick_decided(coordinates=self.coordinator is not None)
        self._report_progress()
        self._snapshots.tick()
        self._installer.tick()
        self.audit_copy.tick()
        self._watch_view()
        if self.coordinator is not None:
            for abort in self.coordinator.tick():
                self.propose(abort)
        waits = self._takeover.busy if self.coordinator is None else self.coordinator.busy
        if self._catch_up.undecided or waits or self.audit_copy.asks:
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    # -- views -----------------------------------------------------------------------------------

    def _follow_view(self, view: View, slot: int) -> None:
        """Coordinate an epoch only if its View names this incarnation and disk."""
        me = self.identity
        named = (view.coordinator, view.coordinator_disk, view.coordinator_incarnation)
        if named == (me.name, me.disk, me.incarnation):
            self.coordinator = Coordinator(self.turn, self.learned, self.replicas, view, slot)
            self.coordinator.begin()
        else:
            self.coordinator = None
        self._takeover.follow(view)
        self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _watch_view(self) -> None:
        """Propose the next View if one is due: as coordinator, with other stores; else, with
        itself as coordinator.
        """
        if self.coordinator is None:
            takeover = self._takeover.due(self._installer.busy)
            if takeover is not None:
                self.propose(takeover)
            return
        view = self.coordinator.view_change.due()
        if view is not None:
            self.propose(view)
            self._arm("tick", 100, 200)

    def propose(self, value: View | Abort) -> None:
        """Ask the leader to put `value` into the log; the callers repeat it until it is chosen.

        Repeats are rate-limited: each takes a slot, and the value may already be in the log.
        """
        request = (self.learned.leader, value)
        recent = {r: at for r, at in self._proposed_at.items() if self.now - at < _PROPOSE_MS}
        if self.learned.leader == NO_BALLOT or request in recent:
            return
        self._proposed_at = {**recent, request: self.now}
        self._send(self.learned.leader.node, ProposeValue(value=value))

    def _on_coordination(self, sender: str, message: Any) -> None:
        self.replicas.note_durable(sender, message)
        if self.coordinator is not None:
            self.coordinator.receive(sender, message)

    def _on_join(self, sender: str, message: JoinRequest) -> None:
        """A store outside the view has copied what it lacked, and asks to join."""
        coordinator = self.coordinator
        if coordinator is None or coordinator.is_member(sender):
            return  # A store that is a member already learns it from the log.
        if coordinator.view_change.knows_less_than(message):
            self.copy_state()
        elif coordinator.view_change.on_join(sender, self.turn.sender_disk, message):
            self._watch_view()

    # -- what is decided -------------------------------------------------------------------------

    def decide(self, slot: int, aborted: tuple[Refusal, ...]) -> list[Outcome]:
        """Apply the next slot in order, which is final."""
        known = self.log[slot]
        known.aborted = aborted
        outcomes = self.state.apply(slot, known.value, aborted)
        self.state.tree.dropped.clear()
        self.replicas.note_own_hash(slot, self.state.state_hash)
        self.state.tree.gained.clear()
        self.learned.aborts.pop(slot, None)
        if self.coordinator is not None:
            # Another coordinator may have decided the slot, and reported it with a later View.
            self.coordinator.rounds.pop(slot, None)
        self._unpersisted_bytes += weight(known.value)
        self.counters["decided"] += 1
        self.counters["aborted"] += len(aborted)
        return outcomes

    def _decide_all(self, coordinator: Coordinator) -> None:
        """Decide, in slot order, all slots that can be decided now."""
        step = coordinator.next_decision()
        while isinstance(step, Decision):
            slot, aborted = step
            outcomes = self.decide(slot, aborted)
            known = self.log[slot]
            decision = TxnDecision(
                epoch=coordinator.view.epoch,
                slot=slot,
                ballot=known.ballot,
                aborted=aborted,
                value=None if isinstance(known.value, Batch) else known.value,
            )
            # The client's result goes first, because only the client waits.
            self.send_results(slot, outcomes)
            self._send(Group.STORES, decision)
            for peer in self.learned.peers:  # The group would include this learner.
                self._send(peer, decision)
            step = coordinator.next_decision()
        if step is not None:
            self.propose(step)

    def send_results(self, slot: int, outcomes: list[Outcome]) -> None:
        """Send the results of a decided slot to the gateways that its commands name. `reply_to` is
        checked again, because not every value in the log has passed a proposer's checks.
        """
        value = self.log[slot].value
        if isinstance(value, Batch):
            for command, outcome in zip(value.commands, outcomes, strict=True):
                if role_in(command.reply_to) != "gateway":
                    self.counters["results_for_nobody"] += 1
                    continue
                self._send(
                    command.reply_to,
                    Result(session=command.session, sequence=command.sequence, outcome=outcome),
                )

    def _on_decision(self, sender: str, message: TxnDecision) -> None:
        """Another learner's decision, which is sent only once it is final, whatever its epoch."""
        if self.coordinator is None and message.slot > self.decided:
            self._received_decisions[message.slot] = message.aborted
            self.log.record_decision(message.slot, message.ballot)
            self._note_reported(message.slot)
            self._extend_prefix()
            self._apply_received()

    def _apply_received(self) -> None:
        while self.decided < self.chosen_through and self.decided + 1 in self._received_decisions:
            self.decide(self.decided + 1, self._received_decisions.pop(self.decided + 1))

    def _on_sync_due(self, subject: str) -> None:
        """Periodic sync: losing every decision message only costs time (design 4.10)."""
        if self.coordinator is None:
            self._catch_up.ask_decided()
        self.audit_copy.begin(again=True)
        if self.audit_copy.asks:
            self._arm("tick", _TICK_MS, _TICK_MS * 2)
        self._set_timer("sync", self.options.sync_ms, self.options.sync_ms + 1000)

    def _on_decided(self, sender: str, message: Decided) -> None:
        if message.first_kept > self.decided + 1:
            # The decided log begins too late for this learner, which copies a snapshot instead.
            self.counters["behind_truncation"] += 1
            self.copy_state()
        if self.coordinator is not None:
            return
        former = self.decided
        for entry in message.entries:
            if entry.slot > self.decided:
                self.log.choose(entry.slot, entry.value, NO_BALLOT)
                self._received_decisions[entry.slot] = entry.aborted
        self._extend_prefix()
        self._apply_received()
        if former < self.decided and self._catch_up.undecided:
            # Pull the next page; a page that brought nothing new needs no other.
            self._catch_up.ask_decided()

    # -- snapshots -------------------------------------------------------------------------------

    def _on_snapshot_pull(self, sender: str, message: SnapshotPull) -> None:
        self._snapshots.on_pull(sender, message, self.state)
        self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _on_snapshot_page(self, sender: str, message: SnapshotPage) -> None:
        copied = self._installer.on_page(sender, message, self.decided)
        if copied is not None:
            self._install(copied.slot, copied.rows)

    def _on_diverged(self, sender: str, message: Diverged) -> None:
        """The coordinator's state at that slot is another; a learner that has diverged halts."""
        if self.replicas.own_hash(message.slot) == message.reported != message.state_hash:
            raise InvariantViolation(
                f"the state of {self.name} at slot {message.slot} has the hash "
                f"{message.reported}, but that of {sender} is {message.state_hash}: start "
                f"{self.name} on an empty folder"
            )

    def _install(self, slot: int, rows: list[SnapshotRow]) -> None:
        """Install a snapshot in place of all slots up to `slot`; later chosen slots stay."""
        self.audit.take(self.state.audit)
        for key, value in self.state.replace(Record(row.key, row.value.encode()) for row in rows):
            self._journal(key, value)
        if slot >= self.chosen_through:
            forgotten = self.log.start_after(slot)
            self._adopt_membership()
        else:
            forgotten = self.log.start_after(slot)  # The prefix beyond it tells the acceptors.
        for gone in forgotten:
            if gone <= self.durable:
                self._journal(_log_key(gone), None)
        self.audit.skip_to(self.state.audit)
        self.audit_copy.begin()
        self.learned.durable = slot
        self._unpersisted_bytes = 0
        self.replicas.note_own_hash(slot, self.state.state_hash)
        for table in (self._received_decisions, self.learned.aborts):
            for former in [s for s in table if s <= slot]:
                table.pop(former)
        assert self.view is not None
        assert self.state.view is not None
        if self.state.view.epoch > self.view.epoch:
            self.learned.aborts.clear()
            self._adopt_view()
        elif self.coordinator is not None:
            self.coordinator.forget_through(slot)
        self._extend_prefix()
        self._catch_up.ask_decided()

    # -- durability and truncation ---------------------------------------------------------------

    def _settle(self) -> None:
        if self.coordinator is not None:
            self._decide_all(self.coordinator)
        else:
            self._apply_received()
        if self._progress_due or (
            self.coordinator is not None and self.decided > self._reported_progress[1]
        ):
            self._report_progress()
        behind = self.decided - self.durable
        if behind >= _PERSIST_SLOTS or self._unpersisted_bytes >= _PERSIST_BYTES:
            self._persist()
        elif behind:
            self._arm("persist", _PERSIST_MS, _PERSIST_MS * 2)
        if self._catch_up.undecided or (self.coordinator and self.coordinator.busy):
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _report_progress(self) -> None:
        """Report to the leader: the coordinator after each decision, others less often."""
        progress = (self.chosen_through, self.decided)
        if self.learned.leader == NO_BALLOT or self.view is None:
            return
        if self._progress_due or progress != self._reported_progress:
            self._progress_due = False
            self._reported_progress = progress
            self._send(
                self.learned.leader.node,
                LearnerProgress(
                    chosen_through=self.chosen_through,
                    decided=self.decided,
                    view=self.view,
                    **self._acceptors_known(),
                ),
            )

    def _on_persist_due(self, subject: str) -> None:
        self._report_progress()
        if self.decided > self.durable:
            self._persist()

    def _persist(self) -> None:
        """Journal the decided state, lazily: the acceptors keep the log until it is durable."""
        for slot in range(self.durable + 1, self.decided + 1):
            known = self.log[slot]
            assert known.aborted is not None
            entry = DecidedSlot(slot=slot, value=known.value, aborted=known.aborted)
            self._journal(_log_key(slot), entry)
        for key, row in self.state.take_rows():
            self._journal(key, row)
        self.audit.take(self.state.audit)
        self.learned.durable = self.decided
        self._unpersisted_bytes = 0
        if self.coordinator is not None:
            self._truncate_if_due(_TRUNCATE_SLOTS)
        else:
            self._forget(self._truncated_below)  # The Truncate may have come before this commit.

    def _truncate_if_due(self, least_slots: int) -> None:
        """Truncate the slots that the coordinator and all stores of the view hold durably (design
        4.11). A node that is away copies a snapshot when it comes back.
        """
        assert self.view is not None
        below = 1 + min(self.durable, self.replicas.durable_through(self.view.stores))
        if below - self._truncated_below >= least_slots:
            self._truncated_below = below
            self._send(Group.ACCEPTORS, Truncate(below=below))
            self._send(Group.LEARNERS, Truncate(below=below))
            self._forget(below)

    def _on_truncate(self, sender: str, message: Truncate) -> None:
        self._truncated_below = max(self._truncated_below, message.below)
        self._forget(self._truncated_below)

    def _forget(self, below: int) -> None:
        """Forget truncated slots, except the last `log_bytes` for nodes that were away shortly."""
        for slot in self.log.forget(min(below, self.durable + 1), self.options.log_bytes):
            self._journal(_log_key(slot), None)

    # -- dispatch --------------------------------------------------------------------------------

    handlers: ClassVar[Handlers] = {
        Accept: _on_accept,
        Accepted: _on_accepted,
        LeaderBeat: _on_leader_beat,
        PullChosen: _on_pull,
        Chosen: _on_chosen,
        AcceptedRange: _on_accepted_range,
        Truncate: _on_truncate,
        PullDecided: _on_pull_decided,
        LogRead: _on_log_read,
        AuditRead: _on_audit_read,
        AuditPage: _on_audit_page,
        Decided: _on_decided,
        TxnDecision: _on_decision,
        TxnVote: _on_coordination,
        TxnProgress: _on_coordination,
        TxnState: _on_coordination,
        Fenced: _on_coordination,
        JoinRequest: _on_join,
        SnapshotPull: _on_snapshot_pull,
        SnapshotPage: _on_snapshot_page,
        Diverged: _on_diverged,
    }
    timers: ClassVar[Timers] = {
        "tick": _on_tick,
        "persist": _on_persist_due,
        "sync": _on_sync_due,
    }


def _log_key(slot: int) -> str:
    return f"log/{slot:016x}"
