"""The client: the gateway's actor, through which every door reaches the cluster.

It numbers commands within a session and sends each to the leader it has heard of, again and again
under the same `(session, sequence)`, until the outcome is known; the replicated session makes
that exactly once. `Unknown` is said only when a copy may still be proposed: each copy names the
ballot it is meant for, and a ballot that was given up for good can't propose it any more
(section 3, rule 1). Reads and chunks go to the stores of the view, one after the other
(`actors.rotation`).
"""

from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import TypeAdapter

from actors.ballot import NO_BALLOT, Ballot
from actors.calls import (
    NOTHING_READ,
    AnyCall,
    CopySnapshot,
    Decided,
    Fetch,
    GiveUp,
    HoldChunks,
    KeepChunks,
    LeasesSeen,
    NodeSeen,
    Read,
    ReadDone,
    ReadLog,
    Survey,
    Surveyed,
    Unavailable,
    Unknown,
    Upload,
    Write,
)
from actors.copies import Copies
from actors.effects import Answer, Milliseconds, Record
from actors.estimator import Estimator
from actors.logbook import LogReads
from actors.messages import (
    ChunkData,
    ChunkMissing,
    ChunkRefused,
    ChunkStored,
    LeaderBeat,
    LogPage,
    NodeHeartbeat,
    ReadReply,
    ReadRequest,
    Redirect,
    Result,
    SnapshotPage,
    Submit,
)
from actors.node import Node, read_record
from actors.options import Identity, Options
from actors.peers import Key
from actors.rotation import Rotation
from actors.transfers import Transfers
from actors.values import (
    AnyOperation,
    CloseSession,
    Command,
    Frozen,
    OpenSession,
    Outcome,
    StoreMember,
    View,
)

_TICK_MS = 100
_UNRESOLVED_COMMANDS = 4_096
_BACKGROUND_MS = 2_000
_RESOLVED_KEPT = 10_000
_NAME = TypeAdapter(str)
_OUTCOME = TypeAdapter(Outcome)


@dataclass(slots=True)
class Pending:
    """A command whose outcome is not known yet."""

    command: Command
    token: int | None
    """Whom to answer; `None` for the actor's own commands and once `told_unknown`."""
    began_at: Milliseconds
    retry_aborted: bool
    retried: bool = False
    told_unknown: bool = False
    sent_at: Milliseconds = 0
    open_ballots: set[Ballot] = field(default_factory=set)
    """The ballots that a copy was sent to and that may still propose it, or have done so."""


@dataclass(slots=True)
class PendingRead:
    """A read that no store has answered yet."""

    token: int
    request: ReadRequest
    deadline: Milliseconds
    rotation: Rotation
    sent_at: Milliseconds


class Client(Node):
    """The cluster, seen from a gateway."""

    handlers: ClassVar = {
        "leader.beat": "_on_leader_beat",
        "client.redirect": "_on_redirect",
        "client.result": "_on_result",
        "read.reply": "_on_read_reply",
        "log.page": "_on_log_page",
        "chunk.stored": "_on_chunk_stored",
        "chunk.refused": "_on_chunk_refused",
        "chunk.data": "_on_chunk_data",
        "chunk.missing": "_on_chunk_missing",
        "snapshot.page": "_on_snapshot_page",
    }
    timers: ClassVar = {"tick": "_on_tick", "session": "_on_session_due"}

    def __init__(self, identity: Identity, options: Options) -> None:
        super().__init__(identity, options)
        self.session = f"{identity.name}.{identity.fresh_id[:16]}"
        self.session_open = False
        self.leader: Ballot = NO_BALLOT
        self.view: View | None = None
        self.nodes: dict[str, tuple[Milliseconds, int, NodeHeartbeat]] = {}
        self._former_sessions: list[str] = []
        self._sessions_lost = 0
        """How many sessions of this start have expired; a name is never used for another one."""
        self._leader_heard_at = -10 * options.constants.lease_ms
        self._leader_ready = False
        self._leader_beat: LeaderBeat | None = None
        self._next_sequence = 1
        self._pending: dict[int, Pending] = {}
        self._waiting: dict[int, tuple[Write, Milliseconds]] = {}
        """By token, writes that came before the session was open, and how long each waits."""
        self._floor = 0
        self.resolved: dict[str, Outcome] = {}
        """What became of requests whose callers had been told `Unknown`; the newest ones."""
        self._reads: dict[int, PendingRead] = {}
        self._next_number = identity.first_number
        self._next_store = 0
        self._write_time = Estimator(least_ms=300, most_ms=2_000)
        self._read_time = Estimator(least_ms=200, most_ms=1_500)
        self.transfers = Transfers(self)
        self.log_reads = LogReads(self)
        self.copies = Copies(self)

    # -- restart and session ---------------------------------------------------------------------

    def _restore(self, records: list[Record]) -> None:
        for record in records:
            if record.key.startswith("session/"):
                self._former_sessions.append(read_record(_NAME, record))
            elif record.key.startswith("resolved/"):
                name = record.key.removeprefix("resolved/")
                self.resolved[name] = read_record(_OUTCOME, record)

    def _remake_row(self, key: str) -> Frozen | bytes | None:
        kind, _, name = key.partition("/")
        if kind == "resolved":
            return self.resolved.get(name)
        known = name == self.session or name in self._former_sessions
        return _NAME.dump_json(name) if kind == "session" and known else None

    def _start(self) -> None:
        """A new start is a new session; a former one is closed, so that its end is final."""
        self._journal(f"session/{self.session}", _NAME.dump_json(self.session))
        self._open_session()

    def _open_session(self) -> None:
        self._submit(OpenSession(), token=None, retry_aborted=False, sequence=0)
        self._set_timer("session", 3_600_000, 3_700_000)

    def _on_session_due(self, subject: str) -> None:
        """An idle session would expire with log time; any command keeps it."""
        if self.session_open:
            self._submit(OpenSession(), token=None, retry_aborted=False)
        self._set_timer("session", 3_600_000, 3_700_000)

    def _session_opened(self) -> None:
        self.session_open = True
        for session in self._former_sessions:
            self._submit(CloseSession(target=session), token=None, retry_aborted=False)
        waiting, self._waiting = self._waiting, {}
        for call, _ in waiting.values():
            self._on_write(call)

    def _session_lost(self) -> None:
        """The session expired, so what it left open was refused, never applied: start afresh."""
        self.counters["sessions_lost"] += 1
        lost = [self._pending[sequence] for sequence in sorted(self._pending)]
        self._pending.clear()
        self._sessions_lost += 1
        self.session = f"{self.session.partition('+')[0]}+{self._sessions_lost}"
        self._next_sequence = 1
        self._floor = 0
        self.session_open = False
        self._journal(f"session/{self.session}", _NAME.dump_json(self.session))
        self._open_session()
        for pending in lost:
            if pending.token is not None:
                # Another copy may have been applied before the session expired.
                self.out.answers.append(Answer(pending.token, Unknown(pending.command.request)))

    # -- calls -----------------------------------------------------------------------------------

    def _on_call(self, call: AnyCall) -> None:
        if not self._started and not isinstance(call, Survey):
            self._refuse(call.token, "the cluster is not founded yet", "nothing was sent")
            return
        match call:
            case Write():
                self._on_write(call)
            case GiveUp():
                self._on_give_up(call)
            case Read():
                self._on_read(call)
            case Survey():
                self.out.answers.append(Answer(call.token, self._survey()))
            case Upload():
                self.transfers.upload(call)
            case Fetch():
                self.transfers.fetch(call)
            case ReadLog():
                self.log_reads.begin(call)
            case HoldChunks():
                self.copies.hold(call)
            case KeepChunks():
                self.transfers.keep(call)
            case CopySnapshot():
                self.copies.copy(call)
        self._arm("tick", _TICK_MS, _TICK_MS)

    def _refuse(self, token: int, reason: str, fact: str) -> None:
        self.out.answers.append(Answer(token, Unavailable(reason, fact)))

    # -- writes ----------------------------------------------------------------------------------

    def _on_write(self, call: Write) -> None:
        if not self.session_open:
            until = self.now + self.options.request_deadline_ms // 2
            self._waiting[call.token] = (call, until)
        elif self._next_sequence - self._floor > _UNRESOLVED_COMMANDS:
            self._refuse(
                call.token,
                "too many commands of this gateway wait for their outcome",
                "nothing was sent",
            )
        else:
            self._submit(call.operation, call.token, call.retry_aborted, call=call)

    def _submit(
        self,
        operation: AnyOperation,
        token: int | None,
        retry_aborted: bool,
        sequence: int | None = None,
        call: Write | None = None,
        retried: bool = False,
    ) -> None:
        if sequence is None:
            sequence = self._next_sequence
            self._next_sequence += 1
        command = Command(
            session=self.session,
            sequence=sequence,
            acknowledged=self._floor if sequence else -1,
            reply_to=self.name,
            operation=operation,
            idempotency=call.idempotency if call else None,
        )
        pending = Pending(
            command=command,
            token=token,
            began_at=self.now,
            retry_aborted=retry_aborted,
            retried=retried,
        )
        self._pending[sequence] = pending
        self._send_command(pending)
        self._arm("tick", _TICK_MS, _TICK_MS)

    def _send_command(self, pending: Pending) -> None:
        if not self._leader_known():
            return
        pending.sent_at = self.now
        pending.open_ballots.add(self.leader)
        self._send(self.leader.proposer, Submit(ballot=self.leader, command=pending.command))

    def _leader_known(self) -> bool:
        """Somebody said not long ago that it leads, holds its lease and takes commands."""
        silence = self.now - self._leader_heard_at
        return self._leader_ready and silence < 2 * self.constants.lease_ms

    def _on_leader_beat(self, sender: str, message: LeaderBeat) -> None:
        if message.ballot < self.leader:
            return
        former = (self.leader, self._leader_known())
        self.leader = message.ballot
        self._leader_heard_at = self.now
        self._leader_ready = message.ready
        self._leader_beat = message
        if self._leader_known() and former != (self.leader, True):
            self.counters["leaders_seen"] += 1
            for sequence in sorted(self._pending):
                self._send_command(self._pending[sequence])

    def _on_redirect(self, sender: str, message: Redirect) -> None:
        """The ballot leads no more. The copy is dead only if it was never proposed under it."""
        pending = self._pending.get(message.sequence)
        if pending is None or message.session != self.session:
            return
        if message.never_proposed:
            pending.open_ballots.discard(message.ballot)
        if message.ballot == self.leader:
            self._leader_ready = False
        elif self.leader not in pending.open_ballots:
            self._send_command(pending)

    def _on_result(self, sender: str, message: Result) -> None:
        if message.session != self.session:
            return
        pending = self._pending.pop(message.sequence, None)
        if pending is None:
            return
        self._write_time.observe(self.now - pending.began_at)
        self._raise_floor()
        self._conclude(pending, message.outcome)

    def _conclude(self, pending: Pending, outcome: Outcome) -> None:
        command = pending.command
        match command.operation:
            case OpenSession() if command.sequence == 0:
                if outcome.status == "done":
                    self._session_opened()
                else:
                    self._open_session()
                return
            case CloseSession(target=target) if outcome.status == "done":
                self._journal(f"session/{target}", None)
                if target in self._former_sessions:
                    self._former_sessions.remove(target)
            case CloseSession() if outcome.status != "unknown_session":
                # Until it is closed nobody can tell what became of its requests.
                self._submit(command.operation, token=None, retry_aborted=False)
        if outcome.status in ("unknown_session", "forgotten"):
            if pending.token is not None:
                # Not an answer of the log about this command: an earlier copy may have been.
                request = Unknown(command.request)
                self.out.answers.append(Answer(pending.token, request))
            if outcome.status == "unknown_session" and self.session_open:
                self._session_lost()
        elif pending.told_unknown:
            # Whoever asks about this request learns just this; so there is no retry either.
            self._keep_resolved(command.request, outcome)
        elif outcome.status in ("aborted", "busy") and pending.retry_aborted:
            # The ended sequence is final; trying again is a new one.
            self.counters["retried_aborts"] += 1
            self._retry(pending)
        elif pending.token is not None:
            self.out.answers.append(
                Answer(pending.token, Decided(command.request, outcome, pending.retried))
            )

    def _keep_resolved(self, request: str, outcome: Outcome) -> None:
        """The cluster forgets the result soon, but its caller has not heard it yet."""
        self.resolved[request] = outcome
        self._journal(f"resolved/{request}", outcome)
        if len(self.resolved) > _RESOLVED_KEPT:
            oldest = next(iter(self.resolved))
            del self.resolved[oldest]
            self._journal(f"resolved/{oldest}", None)

    def _retry(self, pending: Pending) -> None:
        former = pending.command
        sequence = self._next_sequence
        self._next_sequence += 1
        update = {"sequence": sequence, "acknowledged": self._floor}
        again = Pending(
            command=former.model_copy(update=update),
            token=pending.token,
            began_at=self.now,
            retry_aborted=False,
            retried=True,
        )
        self._pending[sequence] = again
        self._send_command(again)

    def _raise_floor(self) -> None:
        """Everything up to the floor has its outcome; the cluster may forget it."""
        lowest = min(self._pending, default=self._next_sequence)
        self._floor = max(self._floor, lowest - 1)

    # -- reads -----------------------------------------------------------------------------------

    def _on_read(self, call: Read) -> None:
        resolved = self.resolved.get(f"{call.request.session}-{call.request.sequence}")
        if call.request.what == "result" and resolved is not None:
            reply = ReadReply(number=0, status="found", applied=resolved.slot, outcome=resolved)
            self.out.answers.append(Answer(call.token, ReadDone(self.name, reply)))
            return
        number = self._next_number
        self._next_number += 1
        request = call.request.model_copy(update={"number": number})
        deadline = self.now + self.options.request_deadline_ms // 2
        read = PendingRead(call.token, request, deadline, self.rotation(deadline), self.now)
        self._reads[number] = read
        self._ask_store(read)

    def _ask_store(self, read: PendingRead) -> None:
        """Send the read to the store whose turn it is, if it is time to ask one."""
        store = self.next_store(read.rotation, self._read_time.timeout_ms + 1_000)
        if store is not None:
            read.sent_at = self.now
            self._send(store, read.request)

    def rotation(self, deadline: Milliseconds) -> Rotation:
        """The course of a question to the stores; each question begins with another store."""
        self._next_store += 1
        return Rotation(self._next_store, deadline)

    def next_store(self, rotation: Rotation, patience_ms: Milliseconds) -> str | None:
        """The store of the view to ask now, if it is time to ask one."""
        return rotation.next(self.stores, self.now, patience_ms, self.silent(self.stores))

    def silent(self, names: tuple[str, ...]) -> set[str]:
        """Those of `names` whose heartbeats have stayed away; they are asked last."""
        patience_ms = 3 * self.options.heartbeat_ms
        return {name for name in names if self.now - self.heard_at(name) >= patience_ms}

    def heard_at(self, name: str) -> Milliseconds:
        """When the last heartbeat of a node came; long ago if none has."""
        seen = self.nodes.get(name)
        return seen[0] if seen is not None else -10 * self.options.heartbeat_ms

    @property
    def stores(self) -> tuple[str, ...]:
        """The names of the `members`."""
        return tuple(store.name for store in self.members)

    @property
    def members(self) -> tuple[StoreMember, ...]:
        """The stores of the view as last heard; stale knowledge costs time, not safety."""
        return (self.view or self.genesis.view).stores

    def member(self, name: str) -> StoreMember | None:
        """The place in the view of the disk that the message being handled came from."""
        member = next((store for store in self.members if store.name == name), None)
        return member if member is not None and member.disk == self.sender_disk else None

    def _on_read_reply(self, sender: str, message: ReadReply) -> None:
        read = self._reads.get(message.number)
        if read is None:
            return
        if message.status == "not_served":
            read.rotation.refused(sender, self.now, message.detail.removeprefix(f"{sender}: "))
            self._ask_store(read)
            return
        del self._reads[message.number]
        if read.request.what != "changes":  # Those are meant to wait.
            self._read_time.observe(self.now - read.sent_at)
        self.out.answers.append(Answer(read.token, ReadDone(sender, message)))

    # -- chunks ----------------------------------------------------------------------------------

    def _on_chunk_stored(self, sender: str, message: ChunkStored) -> None:
        self.transfers.on_stored(sender, message)

    def _on_chunk_refused(self, sender: str, message: ChunkRefused) -> None:
        self.transfers.on_refused(sender, message)

    def _on_chunk_data(self, sender: str, message: ChunkData) -> None:
        self.transfers.on_data(sender, message)

    def _on_chunk_missing(self, sender: str, message: ChunkMissing) -> None:
        self.transfers.on_missing(sender, message)

    def _on_log_page(self, sender: str, message: LogPage) -> None:
        self.log_reads.on_page(sender, message)

    def _on_snapshot_page(self, sender: str, message: SnapshotPage) -> None:
        self.copies.on_page(sender, message)

    # -- patience --------------------------------------------------------------------------------

    def _on_tick(self, subject: str) -> None:
        for sequence in sorted(self._pending):
            self._mind(self._pending[sequence])
        for token in [t for t, (_, until) in self._waiting.items() if self.now >= until]:
            del self._waiting[token]
            reason = "no leader has been heard of" if not self._leader_known() else "no session yet"
            self._refuse(token, reason, "the command was never sent to a proposer")
        for number in sorted(self._reads):
            read = self._reads[number]
            if self.now >= read.deadline:
                del self._reads[number]
                reason = f"no store could serve the read ({read.rotation.account})"
                self._refuse(read.token, reason, NOTHING_READ)
            else:
                if read.rotation.is_overdue(self.now):
                    self._read_time.observe(self.now - read.sent_at)
                self._ask_store(read)
        self.transfers.tick()
        self.log_reads.tick()
        self.copies.tick()
        reading = self._reads or self.log_reads.busy or self.copies.busy
        if self._pending or self._waiting or reading or self.transfers.busy:
            self._arm("tick", _TICK_MS, _TICK_MS)

    def _mind(self, pending: Pending) -> None:
        """Send again, or tell the caller that the wait is over."""
        lost = self.now - pending.sent_at >= self._write_time.timeout_ms
        if pending.token is None and pending.command.sequence:
            lost = self.now - pending.sent_at >= _BACKGROUND_MS
        if lost:
            self._send_command(pending)
        unsent = not pending.open_ballots
        patience = self.options.request_deadline_ms // (2 if unsent else 1)
        if pending.token is not None and self.now >= pending.began_at + patience:
            self._end_wait(pending, pending.token)

    def _on_give_up(self, call: GiveUp) -> None:
        if self._waiting.pop(call.write, None) is not None:
            self._refuse(call.token, "no session yet", "the command was never sent")
            return
        for pending in self._pending.values():
            if pending.token == call.write:
                self._end_wait(pending, call.token)
                return
        self.out.answers.append(Answer(call.token, Unknown("")))

    def _end_wait(self, pending: Pending, token: int) -> None:
        """Tell the caller what is certain: that it never happens, or nothing."""
        pending.token = None
        if not pending.open_ballots:
            # Its sequence is not used again, and no ballot that got a copy can propose it.
            del self._pending[pending.command.sequence]
            self._raise_floor()
            self._refuse(
                token,
                "no leader has a quorum of acceptors",
                "no copy of the command is with a ballot that can still propose it",
            )
        else:
            self.counters["unknown"] += 1
            pending.told_unknown = True
            self.out.answers.append(Answer(token, Unknown(pending.command.request)))

    # -- what it knows ---------------------------------------------------------------------------

    def _on_heartbeat(self, sender: str, message: NodeHeartbeat) -> None:
        self.nodes[sender] = (self.now, self.sender_incarnation, message)
        if message.view and (self.view is None or message.view.epoch > self.view.epoch):
            self.view = message.view
            self.transfers.follow_view()

    def _forget_peer(self, key: Key) -> None:
        if key[0] not in self.founding.disks:
            self.nodes.pop(key[0], None)

    def _survey(self) -> Surveyed:
        ready = self._started and self.session_open and self._leader_known()
        return Surveyed(
            cluster=self.cluster,
            leader=self.leader.proposer if self._leader_known() else None,
            ready=ready,
            view=(self.view or self.genesis.view) if self._started else None,
            session=self.session if self.session_open else None,
            nodes={
                name: NodeSeen(self.now - at, incarnation, heartbeat)
                for name, (at, incarnation, heartbeat) in self.nodes.items()
            },
            expected={
                role: self.options.names(role)
                for role in ("proposer", "acceptor", "learner", "store")
            },
            leases=self._leases_seen(),
        )

    def _leases_seen(self) -> LeasesSeen | None:
        beat = self._leader_beat
        if beat is None:
            return None
        age = self.now - self._leader_heard_at
        return LeasesSeen(age, beat.ballot, beat.lease_left_ms, beat.read_leases_ms)
