"""The store: journalled votes, commits in slot order, contents by SHA-256, reads under a lease.

A vote is a promise to commit, so the slot and its contents are in the journal before it leaves
(`Effects` order). What is applied reaches the journal a little later: until then the prepared
slot stands there, and its outcome is in the log, which nobody truncates before it is durable
here. A store in doubt never decides alone. It refuses coordinators of older epochs once it has
answered a newer one (the fence, journalled). A linearizable read is served under a lease granted
by the leader, and waits for what was prepared before it arrived and touches it: every
acknowledged write was prepared here first, so none can be missed (section 4, rule 8).
"""

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import TypeAdapter

from actors.chunks import Chunks, Manifest, read_manifest
from actors.effects import BLOB_ROW, Blob, Milliseconds, Record, SendBlob
from actors.errors import InvariantViolation
from actors.messages import (
    ChunkData,
    ChunkGet,
    ChunkMissing,
    ChunkPut,
    ChunkRefused,
    ChunkStored,
    Decided,
    Fenced,
    LeaderBeat,
    LeaseGrant,
    NodeHeartbeat,
    PullDecided,
    ReadRequest,
    TxnDecision,
    TxnInquiry,
    TxnPrepare,
    TxnProgress,
    TxnState,
    TxnVote,
)
from actors.namespace import Namespace
from actors.node import Node, read_record
from actors.options import Identity, Options
from actors.reads import Reads
from actors.values import (
    AnyValue,
    Batch,
    Command,
    DecidedSlot,
    FileEntry,
    Frozen,
    PreparedSlot,
    PutFile,
    Refusal,
    stored,
)

_TICK_MS = 150
_ASK_AGAIN_MS = 150
_SWEEP_MS = 60_000
_PULL_AGAIN_MS = 1_000
_AHEAD_SLOTS = 4_096
_PERSIST_SLOTS = 64
_PERSIST_MS = 300
_FENCE = TypeAdapter(int)


class Prepared(Frozen):
    """A journalled slot: its commands without inline contents, and those this store refused."""

    slot: int
    batch: Batch
    refused: tuple[Refusal, ...]


_PREPARED = TypeAdapter(Prepared)
_MANIFEST = TypeAdapter(Manifest)


@dataclass(slots=True)
class Fetching:
    """A prepare that waits for contents from a peer."""

    coordinator: str
    message: TxnPrepare
    asked_at: Milliseconds
    denied: dict[str, set[str]] = field(default_factory=dict)
    """For each chunk, the peers that do not hold it."""


class Store(Node):
    """One of those who hold the data."""

    handlers: ClassVar = {
        "txn.prepare": "_on_prepare",
        "txn.decision": "_on_decision",
        "txn.inquiry": "_on_inquiry",
        "sync.decided": "_on_decided",
        "leader.beat": "_on_leader_beat",
        "lease.grant": "_on_lease_grant",
        "read.request": "_on_read",
        "chunk.put": "_on_chunk_put",
        "chunk.data": "_on_chunk_data",
        "chunk.get": "_on_chunk_get",
        "chunk.missing": "_on_chunk_missing",
    }
    timers: ClassVar = {
        "tick": "_on_tick",
        "sync": "_on_sync_due",
        "sweep": "_on_sweep",
        "persist": "_on_persist_due",
    }

    def __init__(self, identity: Identity, options: Options) -> None:
        super().__init__(identity, options)
        self.state = Namespace(options)
        self.chunks = Chunks()
        self.fence = 0
        """The highest epoch that this store has answered; older ones are refused."""
        self.prepared: dict[int, Prepared] = {}
        self.durable = 0
        """The applied slots that the journal holds; those up to `state.applied` follow."""
        self._outlived: list[int] = []
        """Applied slots whose prepared record is still in the journal."""
        self.reads = Reads(self)
        self._decisions: dict[int, TxnDecision | DecidedSlot] = {}
        self._fetching: dict[int, Fetching] = {}
        self._heard_through = 0
        self._sync_asked_at = -_PULL_AGAIN_MS
        self._peers = [name for name in options.names("store") if name != self.name]

    # -- restart ---------------------------------------------------------------------------------

    def _restore(self, records: list[Record]) -> None:
        for record in records:
            if record.key == "fence":
                self.fence = read_record(_FENCE, record)
            elif record.key.startswith("prepared/"):
                prepared = read_record(_PREPARED, record)
                self.prepared[prepared.slot] = prepared
            elif record.key.startswith(BLOB_ROW):
                self.chunks.add(record.key.removeprefix(BLOB_ROW), self.now)
            elif record.key.startswith("manifest/"):
                manifest = read_record(_MANIFEST, record)
                self.chunks.add_manifest(record.key.removeprefix("manifest/"), manifest)
            else:
                self.state.restore(record)
        self.state.restored()
        self.durable = self.state.applied
        for entry in self.state.entries.values():
            if isinstance(entry, FileEntry):
                self.chunks.use(entry.content)
        for prepared in self.prepared.values():
            for command in prepared.batch.commands:
                if isinstance(command.operation, PutFile):
                    self.chunks.use(command.operation.content)

    def _start(self) -> None:
        self._set_timer("sync", 0, self.options.sync_ms)
        self._set_timer("sweep", _SWEEP_MS, _SWEEP_MS * 2)
        if self.prepared:
            self._pull_decided()

    def _vitals(self) -> NodeHeartbeat:
        return NodeHeartbeat(
            role="store",
            journal_commits=self._commits,
            applied=self.state.applied,
            durable=self.durable,
            state_hash=self.state.state_hash,
            pending=len(self.reads),
            in_doubt=len(self.prepared),
        )

    # -- phase 1: prepare and vote ---------------------------------------------------------------

    def _on_prepare(self, sender: str, message: TxnPrepare) -> None:
        if not self._passes_fence(sender, message.epoch):
            return
        if message.slot <= self.state.applied:
            self._send_state(sender, message.epoch)  # Its coordinator missed the outcome.
            return
        known = self.prepared.get(message.slot)
        if known is not None:
            self._vote(sender, message.epoch, known)
            return
        self._store_inline(message.batch)
        if self._missing_contents(message.batch):
            self._fetch(sender, message)
            return
        self._record_prepared(sender, message, ())

    def _record_prepared(
        self, coordinator: str, message: TxnPrepare, refused: tuple[Refusal, ...]
    ) -> None:
        prepared = Prepared(slot=message.slot, batch=_stripped(message.batch), refused=refused)
        self.prepared[message.slot] = prepared
        for command in prepared.batch.commands:
            if isinstance(command.operation, PutFile):
                self.chunks.use(command.operation.content)
        self._journal(f"prepared/{message.slot:016x}", prepared)
        self._vote(coordinator, message.epoch, prepared)

    def _vote(self, coordinator: str, epoch: int, prepared: Prepared) -> None:
        self.counters["votes"] += 1
        self._send(
            coordinator,
            TxnVote(
                epoch=epoch,
                slot=prepared.slot,
                refused=prepared.refused,
                durable=self.durable,
            ),
        )

    def _passes_fence(self, sender: str, epoch: int) -> bool:
        """Refuse older epochs; a newer one is journalled before it is answered."""
        if epoch < self.fence:
            self.counters["fenced"] += 1
            self._send(sender, Fenced(epoch=self.fence))
            return False
        if epoch > self.fence:
            self.fence = epoch
            self._journal("fence", _FENCE.dump_json(epoch))
        return True

    # -- contents that a prepare lacks -----------------------------------------------------------

    def _store_inline(self, batch: Batch) -> None:
        for command in batch.commands:
            content = getattr(command.operation, "content", None)
            data = getattr(content, "data", b"")
            if not data or content is None or content.sha256 in self.chunks.held:
                continue
            # A wrong name leaves the chunk missing, so that the command ends up refused.
            if hashlib.sha256(data).hexdigest() == content.sha256:
                self._keep_chunk(content.sha256, None, data)

    def _missing_contents(self, batch: Batch) -> dict[int, tuple[str, ...]]:
        """For each command that lacks chunks here, which."""
        missing = {}
        for index, command in enumerate(batch.commands):
            if isinstance(command.operation, PutFile):
                names = self.chunks.missing(command.operation.content)
                if names:
                    missing[index] = names
        return missing

    def _fetch(self, coordinator: str, message: TxnPrepare) -> None:
        """Pull what is missing from the peers, and ask the coordinator for patience."""
        fetching = self._fetching.get(message.slot)
        if fetching is None:
            fetching = Fetching(coordinator, message, -_PULL_AGAIN_MS)
            self._fetching[message.slot] = fetching
        fetching.coordinator = coordinator
        fetching.message = message
        self._send(coordinator, TxnProgress(epoch=message.epoch, slot=message.slot))
        self._ask_peers(fetching)
        self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _ask_peers(self, fetching: Fetching) -> None:
        if self.now - fetching.asked_at < _PULL_AGAIN_MS:
            return
        fetching.asked_at = self.now
        missing = self._missing_contents(fetching.message.batch)
        for name in sorted({name for names in missing.values() for name in names})[:4]:
            denied = fetching.denied.get(name, set())
            for peer in [p for p in self._peers if p not in denied][:1]:
                self._send(peer, ChunkGet(sha256=name))

    def _on_chunk_missing(self, sender: str, message: ChunkMissing) -> None:
        for fetching in self._fetching.values():
            fetching.denied.setdefault(message.sha256, set()).add(sender)
            fetching.asked_at = -_PULL_AGAIN_MS
        self._try_fetched()

    def _try_fetched(self) -> None:
        """Vote on the prepares that have their contents now, or that can't get them."""
        for slot in sorted(self._fetching):
            fetching = self._fetching[slot]
            missing = self._missing_contents(fetching.message.batch)
            hopeless = [
                Refusal(index=index, reason="contents are not on any store")
                for index, names in missing.items()
                if any(len(fetching.denied.get(n, ())) >= len(self._peers) for n in names)
            ]
            if slot <= self.state.applied or slot in self.prepared:
                del self._fetching[slot]
            elif len(hopeless) == len(missing):
                del self._fetching[slot]
                self._record_prepared(fetching.coordinator, fetching.message, tuple(hopeless))
            else:
                self._ask_peers(fetching)

    # -- phase 2: decisions in slot order --------------------------------------------------------

    def _on_decision(self, sender: str, message: TxnDecision) -> None:
        """A decision is final whatever its epoch, but it is applied only in slot order."""
        self._hear(message.slot)
        if self.state.applied < message.slot <= self.state.applied + _AHEAD_SLOTS:
            self._decisions.setdefault(message.slot, message)
            self._apply_decided()

    def _on_decided(self, sender: str, message: Decided) -> None:
        for entry in message.entries:
            if entry.slot > self.state.applied:
                self._decisions[entry.slot] = entry
        if message.first_kept > self.state.applied + 1:
            self.counters["behind_truncation"] += 1
        self._apply_decided()
        if message.entries and self.state.applied < self._heard_through:
            self._pull_decided()

    def _apply_decided(self) -> None:
        while self.state.applied + 1 in self._decisions:
            slot = self.state.applied + 1
            decision = self._decisions[slot]
            value: AnyValue | None = decision.value
            prepared = self.prepared.get(slot)
            if value is None and prepared is None:
                break  # Its commands are not known here: pull the slot with its value.
            if prepared is not None:
                value = prepared.batch
            assert value is not None
            self._apply(slot, value, decision.aborted, prepared)
            del self._decisions[slot]
        self.reads.wake()
        if self._decisions:
            self._pull_decided()

    def _apply(
        self,
        slot: int,
        value: AnyValue,
        aborted: tuple[int, ...],
        prepared: Prepared | None,
    ) -> None:
        if prepared is None and isinstance(value, Batch):
            self._store_inline(value)
        elif prepared is not None:
            refused = {refusal.index for refusal in prepared.refused}
            if not refused <= set(aborted):
                raise InvariantViolation(
                    f"slot {slot} commits commands that {self.name} refused: {refused} are not "
                    f"among the aborted {aborted}"
                )
            self._outlived.append(slot)
        outcomes = self.state.apply(slot, value, aborted)
        if isinstance(value, Batch):
            for index, (command, outcome) in enumerate(zip(value.commands, outcomes, strict=True)):
                wrote = (outcome.slot, outcome.index) == (slot, index)
                if isinstance(command.operation, PutFile) and wrote and outcome.status == "done":
                    self.chunks.use(command.operation.content)
        for entry in self.state.dropped:
            self.chunks.release(entry.content, self.now)
        self.state.dropped.clear()
        if prepared is not None:
            del self.prepared[slot]
            for command in prepared.batch.commands:
                if isinstance(command.operation, PutFile):
                    self.chunks.release(command.operation.content, self.now)
        self.counters["applied"] += 1

    def _settle(self) -> None:
        """Journal what was applied, a little later."""
        behind = self.state.applied - self.durable
        if behind >= _PERSIST_SLOTS:
            self._persist()
        elif behind:
            self._arm("persist", _PERSIST_MS, _PERSIST_MS * 2)

    def _on_persist_due(self, subject: str) -> None:
        if self.state.applied > self.durable:
            self._persist()

    def _persist(self) -> None:
        for slot in self._outlived:
            self._journal(f"prepared/{slot:016x}", None)
        self._outlived.clear()
        for key, row in self.state.take_rows():
            self._journal(key, row)
        self.durable = self.state.applied

    # -- termination and sync --------------------------------------------------------------------

    def _on_inquiry(self, sender: str, message: TxnInquiry) -> None:
        """A new epoch begins: fence, and say what is prepared and what is applied."""
        if self._passes_fence(sender, message.view.epoch):
            self._send_state(sender, message.view.epoch)

    def _send_state(self, to: str, epoch: int) -> None:
        self._send(
            to,
            TxnState(
                epoch=epoch,
                applied=self.state.applied,
                prepared=tuple(
                    PreparedSlot(slot=slot, refused=self.prepared[slot].refused)
                    for slot in sorted(self.prepared)
                ),
            ),
        )

    def _hear(self, slot: int) -> None:
        self._heard_through = max(self._heard_through, slot)
        if self._heard_through > self.state.applied:
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _on_heartbeat(self, sender: str, message: NodeHeartbeat) -> None:
        if message.role == "learner" and message.applied > self.state.applied:
            self._hear(message.applied)

    def _pull_decided(self) -> None:
        """Ask the learners for what was decided; they tell only what is final."""
        if self.now - self._sync_asked_at >= _ASK_AGAIN_MS:
            self._sync_asked_at = self.now
            for name in self.options.names("learner"):
                self._send(name, PullDecided(applied=self.state.applied))

    def _on_sync_due(self, subject: str) -> None:
        self._pull_decided()
        self._set_timer("sync", self.options.sync_ms, self.options.sync_ms + 1_000)

    def _on_tick(self, subject: str) -> None:
        behind = self._heard_through > self.state.applied
        if behind:
            self._pull_decided()
        if self._fetching:
            for fetching in self._fetching.values():
                self._send(
                    fetching.coordinator,
                    TxnProgress(epoch=fetching.message.epoch, slot=fetching.message.slot),
                )
            self._try_fetched()
        self.reads.wake()
        if behind or self._fetching or self.reads:
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    # -- reads, see `actors.reads` ----------------------------------------------------------------

    def _on_leader_beat(self, sender: str, message: LeaderBeat) -> None:
        self.reads.leader = max(self.reads.leader, message.ballot)

    def _on_read(self, sender: str, message: ReadRequest) -> None:
        self.reads.begin(sender, message)

    def _on_lease_grant(self, sender: str, message: LeaseGrant) -> None:
        self.reads.on_lease_grant(message)

    # -- contents --------------------------------------------------------------------------------

    def _on_chunk_put(self, sender: str, message: ChunkPut) -> None:
        """Journal the chunk, then give the credit back; the same chunk again is no work."""
        name = message.sha256
        if self.chunks.has(name, message.manifest):
            self.chunks.touch(name, self.now)
            self._send(sender, ChunkStored(sha256=name))
            return
        manifest = read_manifest(message.data) if message.manifest else None
        if hashlib.sha256(message.data).hexdigest() != name:
            self._send(sender, ChunkRefused(sha256=name, reason="its SHA-256 is another"))
        elif message.manifest and manifest is None:
            self._send(sender, ChunkRefused(sha256=name, reason="it is not a manifest"))
        else:
            self._keep_chunk(name, manifest, message.data)
            self._send(sender, ChunkStored(sha256=name))
            self._try_fetched()

    def _on_chunk_data(self, sender: str, message: ChunkData) -> None:
        """A peer's copy of a chunk that a prepare here lacks."""
        name = message.sha256
        manifests = {
            content.manifest
            for fetching in self._fetching.values()
            for command in fetching.message.batch.commands
            if (content := getattr(command.operation, "content", None)) is not None
            and content.kind == "indirect"
        }
        wanted = name in manifests
        if self.chunks.has(name, wanted) or hashlib.sha256(message.data).hexdigest() != name:
            return
        manifest = read_manifest(message.data) if wanted else None
        self._keep_chunk(name, manifest, message.data)
        for fetching in self._fetching.values():
            fetching.asked_at = -_PULL_AGAIN_MS
        self._try_fetched()

    def _keep_chunk(self, name: str, manifest: Manifest | None, data: bytes) -> None:
        self.out.blobs.append(Blob(name, data))
        self.chunks.add(name, self.now)
        if manifest is not None:
            self._journal(f"manifest/{name}", manifest)
            self.chunks.add_manifest(name, manifest)

    def _on_chunk_get(self, sender: str, message: ChunkGet) -> None:
        if message.sha256 in self.chunks.held:
            self.chunks.touch(message.sha256, self.now)
            self.out.sends.append(SendBlob(sender, message.sha256))
        else:
            self._send(sender, ChunkMissing(sha256=message.sha256))

    def _on_sweep(self, subject: str) -> None:
        """Delete what nobody has needed for the grace time: check and deletion are one step."""
        for name in self.chunks.expired(self.now, self.options.chunk_grace_ms):
            if self.chunks.remove(name):
                self._journal(f"manifest/{name}", None)
            self.out.blobs.append(Blob(name, None))
            self.counters["chunks_deleted"] += 1
        self._set_timer("sweep", _SWEEP_MS, _SWEEP_MS * 2)


def _stripped(batch: Batch) -> Batch:
    """The batch with inline contents replaced by their names; their bytes are chunks now."""
    return Batch(stamp_ms=batch.stamp_ms, commands=tuple(_strip(c) for c in batch.commands))


def _strip(command: Command) -> Command:
    operation = command.operation
    if not isinstance(operation, PutFile) or operation.content.kind != "inline":
        return command
    bare = PutFile(
        path=operation.path,
        content=stored(operation.content),
        content_type=operation.content_type,
        modified_ms=operation.modified_ms,
        executable=operation.executable,
        meta=operation.meta,
        when=operation.when,
    )
    return Command(
        session=command.session,
        sequence=command.sequence,
        acknowledged=command.acknowledged,
        reply_to=command.reply_to,
        operation=bare,
        idempotency=command.idempotency,
    )
