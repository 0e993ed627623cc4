"""The gateway's actor, through which every request of users reaches the cluster.

Writes go to the leader in a session (`actors.gateway.write_session`), reads and chunks to the
stores of the view, one after the other (`actors.gateway.read_requests`,
`actors.gateway.chunk_transfers`). All parts share the last known state of the cluster
(`actors.gateway.cluster_state`); this actor passes each call and message to its part.
"""

from typing import ClassVar

from pydantic import TypeAdapter

from actors.calls import (
    AnyCall,
    CopySnapshot,
    Fetch,
    GiveUp,
    HoldChunks,
    KeepChunks,
    MemberChange,
    NotDone,
    Read,
    ReadAudit,
    ReadDone,
    ReadLog,
    Survey,
    Surveyed,
    Upload,
    Write,
)
from actors.effects import Record
from actors.gateway.audit_reads import AuditReads
from actors.gateway.chunk_transfers import Transfers
from actors.gateway.cluster_state import ClusterState
from actors.gateway.log_reads import LogReads
from actors.gateway.member_changes import MemberRequests
from actors.gateway.member_reports import members_report
from actors.gateway.read_requests import ReadRequests
from actors.gateway.state_copies import Copies
from actors.gateway.write_session import TICK_MS, WriteSession
from actors.messages import (
    AuditPage,
    ChangeAnswer,
    ChunkData,
    ChunkMissing,
    ChunkRefused,
    ChunkStored,
    LeaderBeat,
    LogPage,
    NodeHeartbeat,
    ReadReply,
    Redirect,
    Result,
    SnapshotPage,
)
from actors.node import Handlers, Node, Timers, read_record
from actors.options import Identity, Options
from actors.peers import Key
from actors.values import Frozen, Outcome

_NAME = TypeAdapter(str)
_OUTCOME = TypeAdapter(Outcome)


class Gateway(Node):
    """A client of the cluster, on behalf of a gateway's users."""

    def __init__(self, identity: Identity, options: Options) -> None:
        super().__init__(identity, options)
        self.cluster_state = ClusterState(self.turn)
        self.writes = WriteSession(self.turn, self.cluster_state)
        self.reads = ReadRequests(self.turn, self.cluster_state)
        self.transfers = Transfers(self.turn, self.cluster_state)
        self.log_reads = LogReads(self.turn, self.cluster_state)
        self.audit_reads = AuditReads(self.turn, self.cluster_state)
        self.copies = Copies(self.turn, self.cluster_state)
        self.member_changes = MemberRequests(self.turn, self.cluster_state)

    @property
    def session(self) -> str:
        """The name of this incarnation's session."""
        return self.writes.name

    # -- restart ---------------------------------------------------------------------------------

    def _restore(self, records: list[Record]) -> None:
        for record in records:
            if record.key.startswith("session/"):
                self.writes.restore_former(read_record(_NAME, record))
            elif record.key.startswith("resolved/"):
                name = record.key.removeprefix("resolved/")
                self.writes.resolved[name] = read_record(_OUTCOME, record)

    def _remake_row(self, key: str) -> Frozen | bytes | None:
        kind, _, name = key.partition("/")
        if kind == "resolved":
            return self.writes.resolved.get(name)
        return self.writes.row(name) if kind == "session" else None

    def _start(self) -> None:
        self.writes.start()

    def _on_session_due(self, subject: str) -> None:
        self.writes.refresh()

    # -- calls -----------------------------------------------------------------------------------

    def _on_call(self, call: AnyCall) -> None:
        turn = self.turn
        if not self._started and not isinstance(call, Survey):
            turn.answer(call.token, NotDone("the cluster is not founded yet", "nothing was sent"))
            return
        match call:
            case Write():
                self.writes.write(call)
            case GiveUp():
                self.writes.give_up(call)
            case Read():
                self._on_read(call)
            case Survey():
                turn.answer(call.token, self._survey())
            case Upload():
                self.transfers.upload(call)
            case Fetch():
                self.transfers.fetch(call)
            case ReadLog():
                self.log_reads.begin(call)
            case ReadAudit():
                self.audit_reads.begin(call)
            case HoldChunks():
                self.copies.hold(call)
            case KeepChunks():
                self.transfers.keep(call)
            case CopySnapshot():
                self.copies.copy(call)
            case MemberChange():
                self.member_changes.begin(call)
        turn.arm("tick", TICK_MS, TICK_MS)

    def _on_read(self, call: Read) -> None:
        """Answer from `resolved` if it has the result, which the cluster may have forgotten. A
        principal gets its own results only.
        """
        resolved = self.writes.resolved.get(f"{call.request.session}-{call.request.sequence}")
        principal = call.request.principal
        if resolved is not None and principal is not None and principal.token != resolved.token:
            resolved = None
        if call.request.what == "result" and resolved is not None:
            reply = ReadReply(number=0, status="found", applied=resolved.slot, outcome=resolved)
            self.turn.answer(call.token, ReadDone(self.name, reply))
        else:
            self.reads.begin(call)

    # -- heartbeats ------------------------------------------------------------------------------

    def _on_leader_beat(self, sender: str, message: LeaderBeat) -> None:
        if self.cluster_state.on_leader_beat(message):
            self.counters["leaders_seen"] += 1
            self.writes.resend()

    def _on_heartbeat(self, sender: str, message: NodeHeartbeat) -> None:
        if self.cluster_state.on_heartbeat(sender, message):
            self.transfers.follow_view()

    def _forget_peer(self, key: Key) -> None:
        if key[0] not in self.founding.disks:
            self.cluster_state.nodes.pop(key[0], None)

    def _survey(self) -> Surveyed:
        state, writes = self.cluster_state, self.writes
        has_leader = self._started and state.has_leader
        return Surveyed(
            cluster=self.cluster,
            leader=state.leader.node if has_leader else None,
            ready=writes.is_open and has_leader,
            view=(state.view or self.genesis.view) if self._started else None,
            session=writes.name if writes.is_open else None,
            nodes=state.node_reports(),
            expected={
                role: state.names(role) for role in ("proposer", "acceptor", "learner", "store")
            },
            leases=state.lease_report(),
            view_heard=state.view is not None,
            acceptors=state.acceptors_report() if self._started else None,
            members=members_report(state, self.genesis) if self._started else None,
            stores_needed=state.stores_needed if self._started else 0,
            heard_ms=state.heard_ms,
            listening_ms=state.listening_ms,
            silent_ms=state.silent_ms,
        )

    # -- answers ---------------------------------------------------------------------------------

    def _on_redirect(self, sender: str, message: Redirect) -> None:
        self.writes.on_redirect(message)

    def _on_result(self, sender: str, message: Result) -> None:
        self.writes.on_result(message)

    def _on_read_reply(self, sender: str, message: ReadReply) -> None:
        self.reads.on_reply(sender, message)

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

    def _on_audit_page(self, sender: str, message: AuditPage) -> None:
        self.audit_reads.on_page(sender, message)

    def _on_snapshot_page(self, sender: str, message: SnapshotPage) -> None:
        self.copies.on_page(sender, message)

    def _on_change_answer(self, sender: str, message: ChangeAnswer) -> None:
        self.member_changes.on_answer(message)

    def _on_tick(self, subject: str) -> None:
        parts = (
            self.writes,
            self.reads,
            self.transfers,
            self.log_reads,
            self.audit_reads,
            self.copies,
            self.member_changes,
        )
        for part in parts:
            part.tick()
        if any(part.busy for part in parts):
            self.turn.arm("tick", TICK_MS, TICK_MS)

    # -- dispatch --------------------------------------------------------------------------------

    handlers: ClassVar[Handlers] = {
        LeaderBeat: _on_leader_beat,
        Redirect: _on_redirect,
        Result: _on_result,
        ReadReply: _on_read_reply,
        LogPage: _on_log_page,
        AuditPage: _on_audit_page,
        ChunkStored: _on_chunk_stored,
        ChunkRefused: _on_chunk_refused,
        ChunkData: _on_chunk_data,
        ChunkMissing: _on_chunk_missing,
        SnapshotPage: _on_snapshot_page,
        ChangeAnswer: _on_change_answer,
    }
    timers: ClassVar[Timers] = {"tick": _on_tick, "session": _on_session_due}
