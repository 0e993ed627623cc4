"""A cluster of one namespace in memory, to test how HTTP presents its answers.

It runs the real state machine, without Paxos, stores or a broker. Faults are put in by setting
`answers` (the next calls get these instead) and `missing` (chunks that no store holds).
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any

from argon2 import PasswordHasher

from actors.calls import (
    Absent,
    AcceptorsReport,
    Call,
    ChangeBegun,
    CopySnapshot,
    Fetch,
    FetchedChunk,
    HoldChunks,
    Holding,
    KeepChunks,
    MemberChange,
    MembersReport,
    NodeReport,
    NotDone,
    Read,
    ReadAudit,
    ReadDone,
    ReadLog,
    Survey,
    Surveyed,
    Upload,
    Uploaded,
    Write,
    WriteDecided,
)
from actors.learner.audit_log import AuditLog, AuditPart
from actors.learner.audit_pages import page_of
from actors.messages import AuditPage, LogPage, LogRead, ReadReply, ReadRequest, SnapshotPull
from actors.options import Identity, Options
from actors.state.namespace import Namespace
from actors.store.changes import Changes
from actors.store.reads import answer_changes, answer_read
from actors.turn import Turn
from actors.values import (
    AnyOperation,
    Batch,
    Command,
    Frozen,
    Inline,
    OpenSession,
    Principal,
    StoreMember,
    View,
    contents_of,
)

SESSION = "fake-session"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Hashes passwords at hardly any cost."""


class FakeCluster:
    """Answers calls as a healthy cluster would."""

    def __init__(self) -> None:
        self.options = Options()
        self.state = Namespace(self.options.constants)
        self.chunks: dict[str, bytes] = {}
        self.calls: list[Frozen] = []
        self.answers: deque[Any] = deque()
        self.missing: set[str] = set()
        self.ready = True
        self.hold: asyncio.Event | None = None
        self.called = asyncio.Event()
        self.uploads_under_way = 0
        self.uploads_under_way_max = 0
        self.fetches_under_way = 0
        self.fetches_under_way_max = 0
        identity = Identity("learner-1", "d", 1, 0, "ab" * 16)
        self.audit = AuditLog(Turn(identity, self.options), self.state.audit)
        self.shown_by: dict[str, AuditPart] = {}
        """What a learner keeps of the audit, where that differs from what all others keep."""
        self._sequence = 0
        self.stages: deque[tuple[AcceptorsReport, MembersReport]] = deque()
        """What learners report of the members; once a change is asked for, one stage a survey."""
        self.nodes: dict[str, NodeReport] = {}
        self.added_slot = 0
        """The slot that added the store to the view."""
        self.changed = ""
        """The member that is to be changed."""
        self.changes = Changes()
        self.applied = asyncio.Event()
        self._apply(OpenSession())

    async def call(self, make: Callable[[int], Call], timeout_s: float | None = None) -> Any:
        async with asyncio.timeout(timeout_s):
            return await self._answer(make(1))

    async def _answer(self, call: Call) -> Any:
        self.calls.append(call)
        self.called.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.answers and not isinstance(call, Survey):
            answer = self.answers.popleft()
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                return answer
        match call:
            case Write():
                return self._write(call)
            case Read(request=request) if request.what == "changes":
                return ReadDone("store-1", await self._changes(request))
            case Read():
                return ReadDone("store-1", answer_read(self.state, call.request))
            case Upload():
                return await self._upload(call)
            case Fetch():
                self.fetches_under_way += 1
                self.fetches_under_way_max = max(self.fetches_under_way_max, self.fetches_under_way)
                await asyncio.sleep(0)
                self.fetches_under_way -= 1
                data = None if call.sha256 in self.missing else self.chunks.get(call.sha256)
                return Absent() if data is None else FetchedChunk(data)
            case KeepChunks() | HoldChunks():
                return Holding()
            case ReadLog(before=before, limit=limit, commands_max=commands_max):
                asked = LogRead(number=1, before=before, limit=limit, commands_max=commands_max)
                return LogPage(number=asked.number, entries=(), decided=0, first_kept=1)
            case ReadAudit():
                return self._read_audit(call)
            case CopySnapshot(slot=slot, page=page):
                SnapshotPull(slot=slot, page=page)
                return NotDone("no replica was asked", "a read changes nothing")
            case MemberChange():
                self.changed = call.name
                return ChangeBegun(1)
            case Survey():
                return self._survey()
            case _:
                raise AssertionError(call)

    def _read_audit(self, call: ReadAudit) -> AuditPage:
        if call.learner not in ("", "learner-1", "learner-2"):
            raise AssertionError(call)
        self.audit.take(self.state.audit)
        if call.learner in self.shown_by:
            kept, self.audit.parts = self.audit.parts, [self.shown_by[call.learner]]
            page = page_of(self.audit, self.state, call.request, 1024 * 1024)
            self.audit.parts = kept
            return page
        return page_of(self.audit, self.state, call.request, 1024 * 1024)

    def submitted(self) -> list[Write]:
        """All writes that were submitted."""
        return [call for call in self.calls if isinstance(call, Write)]

    def store(
        self, operation: AnyOperation, idempotency: Any = None, principal: Principal | None = None
    ) -> WriteDecided:
        """Apply an operation that no gateway checked."""
        for content in contents_of(operation):
            if isinstance(content, Inline):
                assert hashlib.sha256(content.data).hexdigest() == content.sha256
                self.chunks[content.sha256] = content.data
        return self._apply(operation, idempotency, principal)

    def _write(self, call: Write) -> WriteDecided:
        return self.store(call.operation, call.idempotency, call.principal)

    def _apply(
        self, operation: Any, idempotency: Any = None, principal: Principal | None = None
    ) -> WriteDecided:
        command = Command(
            session=SESSION,
            sequence=self._sequence,
            acknowledged=0 if self._sequence else -1,
            reply_to="gateway-1",
            operation=operation,
            idempotency=idempotency,
            principal=principal,
        )
        self._sequence += 1
        batch = Batch(commands=(command,))
        (outcome,) = self.state.apply(self.state.applied + 1, batch, ())
        self.changes.note(self.state.applied, batch, (outcome,))
        self.applied.set()
        self.applied = asyncio.Event()
        self.state.tree.dropped.clear()
        self.state.tree.gained.clear()
        self.state.take_rows()
        return WriteDecided(command.request, outcome)

    async def _changes(self, request: ReadRequest) -> ReadReply:
        """As a store does: wait for the first of them, but not for ever."""
        while self.state.applied < request.at_least:
            try:
                async with asyncio.timeout(0.2):
                    await self.applied.wait()
            except TimeoutError:
                break
        return answer_changes(self.state, self.changes, request)

    async def _upload(self, call: Upload) -> Uploaded:
        assert hashlib.sha256(call.data).hexdigest() == call.sha256
        self.uploads_under_way += 1
        self.uploads_under_way_max = max(self.uploads_under_way_max, self.uploads_under_way)
        await asyncio.sleep(0.001)
        self.uploads_under_way -= 1
        self.chunks[call.sha256] = call.data
        return Uploaded()

    def _survey(self) -> Surveyed:
        view = View(
            epoch=3,
            coordinator="learner-1",
            coordinator_disk="d",
            coordinator_incarnation=1,
            stores=(StoreMember(name="store-1", disk="d", added_slot=self.added_slot),),
        )
        roles = ("proposer", "acceptor", "learner", "store")
        if self.changed and len(self.stages) > 1:
            self.stages.popleft()
        acceptors, members = self.stages[0] if self.stages else (None, None)
        return Surveyed(
            cluster="c1",
            leader="proposer-2" if self.ready else None,
            ready=self.ready,
            view=view,
            session=SESSION,
            expected={role: self.options.names(role) for role in roles},
            nodes=self.nodes,
            acceptors=acceptors,
            members=members,
        )
