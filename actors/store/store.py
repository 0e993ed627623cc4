"""The store: journalled votes, commits in slot order, contents by SHA-256, reads under a lease.

A vote is a promise to commit, so the slot and its contents are in the journal before the vote is
sent (`Effects` order). The applied state is journalled a little later; until then the journal holds
the prepared slot, and the log, which is not truncated before, its outcome. A store in doubt never
decides alone. It refuses coordinators of older epochs once it has answered a newer one (the fence,
journalled). A linearizable read is served under a lease granted by the leader, and waits for every
slot that was prepared before it and touches its path: every acknowledged write was prepared here
first, so no read misses one (design 4.8).
Contents are in `actors.store.contents`; how a store joins the view is in `actors.store.rejoin`.
"""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import TypeAdapter

from actors.disk_events import BlobRotten, Notice
from actors.effects import BLOB_ROW, Record
from actors.errors import InvariantViolation
from actors.messages import (
    ChunkData,
    ChunkGet,
    ChunkHold,
    ChunkKeep,
    ChunkMissing,
    ChunkPut,
    Decided,
    Diverged,
    Fenced,
    LeaderBeat,
    LeaseGrant,
    NodeHeartbeat,
    PullDecided,
    ReadRequest,
    SnapshotPage,
    SnapshotPull,
    TxnDecision,
    TxnInquiry,
    TxnPrepare,
    TxnProgress,
    TxnState,
    TxnVote,
)
from actors.node import Handlers, Node, Timers, read_record
from actors.options import Identity, Options
from actors.state.namespace import STATE_ROWS
from actors.state.snapshots import CopiedState, SnapshotServer
from actors.store.chunks import ChunkManifest
from actors.store.contents import StoreContents
from actors.store.reads import Reads
from actors.store.rejoin import Asking, Rejoin
from actors.store.state import Prepared, StoreState
from actors.values import (
    AnyValue,
    Batch,
    Chunked,
    DecidedSlot,
    FileEntry,
    Frozen,
    Indirect,
    Inline,
    PreparedSlot,
    Refusal,
    Roster,
    StoreMember,
    contents_of,
    grows,
    no_room,
)

_TICK_MS = 150
_ASK_AGAIN_MS = 150
_AHEAD_SLOTS = 4_096
_PERSIST_SLOTS = 64
_PERSIST_MS = 300
_FENCE = TypeAdapter(int)


_PREPARED = TypeAdapter(Prepared)
_MANIFEST = TypeAdapter(ChunkManifest)


@dataclass(slots=True)
class WaitingPrepare:
    """A prepare that waits for contents from a peer."""

    coordinator: str
    message: TxnPrepare


class Store(Node):
    """A replica of the data: metadata and contents."""

    def __init__(self, identity: Identity, options: Options) -> None:
        super().__init__(identity, options)
        self.held = StoreState(self.turn)
        self.state = self.held.namespace
        self.prepared = self.held.prepared
        self.contents = StoreContents(self.turn, self.held)
        self.chunks = self.contents.chunks
        self._outlived: list[int] = []
        """Applied slots whose prepared record is still in the journal."""
        self.rejoin = Rejoin(self.turn, self.held, self.contents)
        self.reads = Reads(self.turn, self.held, self.rejoin)
        self._announced: tuple[bool, bool, StoreMember | None] | None = None
        """The standing last announced by a heartbeat: whether whole, also by the journal alone, and
        the place in the view.
        """
        self._decisions: dict[int, TxnDecision | DecidedSlot] = {}
        self._waiting_prepares: dict[int, WaitingPrepare] = {}
        self._snapshots = SnapshotServer(self.turn)
        self._sync_asked_at = -_ASK_AGAIN_MS

    @property
    def durable(self) -> int:
        """The applied slots that the journal holds."""
        return self.held.durable

    @property
    def fence(self) -> int:
        """The highest epoch that this store has answered."""
        return self.held.fence

    # -- restart ---------------------------------------------------------------------------------

    def _restore(self, records: list[Record]) -> None:
        for record in records:
            if record.key == "fence":
                self.held.fence = read_record(_FENCE, record)
            elif record.key.startswith("prepared/"):
                prepared = read_record(_PREPARED, record)
                self.prepared[prepared.slot] = prepared
            elif record.key.startswith(BLOB_ROW):
                self.contents.restore(record.key.removeprefix(BLOB_ROW))
            elif record.key.startswith("manifest/"):
                manifest = read_record(_MANIFEST, record)
                self.chunks.add_manifest(record.key.removeprefix("manifest/"), manifest)
            elif not self.rejoin.restore(record):
                self.state.restore(record)
        self.state.restored()
        self.held.durable = self.state.applied
        self._count_users()
        self.held.changes.restart(self.state.applied)

    def _count_users(self) -> None:
        """Count the contents that the state and the prepared slots name as used."""
        for entry in self.state.entries.values():
            if isinstance(entry, FileEntry):
                self.chunks.use(entry.content)
        for prepared in self.prepared.values():
            for content in prepared.batch.contents:
                self.chunks.use(content)

    def _copy_missing(self) -> None:
        """Copy the contents that the state names and this store does not hold."""
        for entry in self.state.entries.values():
            if isinstance(entry, FileEntry):
                self.contents.copy(entry.content)
        self.contents.pump()

    def _start(self) -> None:
        self.state.begin(self.genesis)
        self.turn.note_roster(self.state.membership)
        self._copy_missing()
        self._pull_decided()
        self._watch()
        self._arm("tick", _TICK_MS, _TICK_MS * 2)
        self._set_timer("sync", 0, self.options.sync_ms)
        self.contents.sweep()

    def _remake_row(self, key: str) -> Frozen | bytes | None:
        """Persist everything first: a crash must not leave rows of two different states."""
        if self.state.applied > self.durable:
            self._persist()
        if key == "fence":
            return _FENCE.dump_json(self.fence)
        kind, _, rest = key.partition("/")
        if kind == "prepared":
            return self.prepared.get(int(rest, 16))
        if kind == "manifest":
            return self.chunks.manifest(rest)
        return self.rejoin.row(key) or self.state.row(key)

    def _may_be_gone(self, key: str) -> bool:
        return key.partition("/")[0] in ("prepared", "manifest", *STATE_ROWS)

    def _on_notice(self, notice: Notice) -> None:
        if isinstance(notice, BlobRotten):
            self.contents.on_rotten(notice.sha256)
        else:
            super()._on_notice(notice)

    def heartbeat(self) -> NodeHeartbeat:
        self.rejoin.note_report()
        return NodeHeartbeat(
            role="store",
            journal_commits=self._commits,
            applied=self.state.applied,
            durable=self.durable,
            state_hash=self.state.state_hash,
            pending=len(self.reads),
            in_doubt=len(self.prepared),
            view=self.state.view,
            installing=self.rejoin.is_installing,
            rows_left=self.rejoin.rows_left,
            chunks_missing=self.contents.missing,
        )

    def _removal(self) -> str:
        """See `Node._removal`. A store stays while the view names it, so that no write waits."""
        membership = self.state.membership
        is_held = self._is_held(membership, self.durable) and self.state.view_slot <= self.durable
        if self.held.membership is not None or not is_held:
            return ""
        return self._removed_by(membership)

    # -- phase 1: prepare and vote ---------------------------------------------------------------

    def _on_prepare(self, sender: str, message: TxnPrepare) -> None:
        if not self._passes_fence(sender, message.epoch):
            return
        if message.slot <= self.state.applied:
            self._send_state(sender, message.epoch)  # The coordinator does not know the outcome.
            return
        known = self.prepared.get(message.slot)
        if known is not None:
            self._check_same_batch(known, message)
            if not _must_reconsider(known, message):
                self._vote(sender, message.epoch, known)
                return
        refused = self._no_room(message.batch)
        self.contents.keep_inline(_contents_but(refused, message.batch))
        if self._missing_contents(message.batch, refused):
            self._fetch(sender, message)
            return
        self._record_prepared(sender, message, refused)

    def _check_same_batch(self, known: Prepared, message: TxnPrepare) -> None:
        """Check that the slot's batch is the same under every ballot and epoch."""
        if known.batch.digest != message.batch.digest:
            raise InvariantViolation(
                f"{self.name} has prepared the batch {known.batch.digest} for slot {known.slot}, "
                f"and is asked in epoch {message.epoch} to prepare {message.batch.digest} for it: "
                "two values were taken as chosen for one slot"
            )

    def _no_room(self, batch: Batch) -> tuple[Refusal, ...]:
        """Refuse every command that needs room while the disk is full; deletions make room again.

        A retry of a command that was applied needs none: its answer is the earlier result.
        """
        if not self.disk_full:
            return ()
        reason = no_room(self.name)
        return tuple(
            Refusal(index=index, reason=reason)
            for index, command in enumerate(batch.commands)
            if grows(command.operation) and not self.state.has_result(command)
        )

    def _record_prepared(
        self, coordinator: str, message: TxnPrepare, refused: tuple[Refusal, ...]
    ) -> None:
        known = self.prepared.get(message.slot)
        if known is None:
            for content in message.batch.contents:
                self.chunks.use(content)
        else:
            former = {refusal.index for refusal in known.refused}
            refused = tuple(refusal for refusal in refused if refusal.index in former)
        prepared = Prepared(slot=message.slot, batch=message.batch, refused=refused)
        if known != prepared:
            self.prepared[message.slot] = prepared
            self._journal(_prepared_key(message.slot), prepared)
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
            self.held.fence = epoch
            self._journal("fence", _FENCE.dump_json(epoch))
            # A prepare that waits for contents is dropped: the new epoch learns that the slot is
            # not prepared, while a later vote could make the old epoch's coordinator commit it. The
            # new coordinator sends it again.
            self._waiting_prepares.clear()
        return True

    # -- contents that a prepare lacks -----------------------------------------------------------

    def _missing_contents(
        self, batch: Batch, refused: tuple[Refusal, ...]
    ) -> dict[int, tuple[str, ...]]:
        """The chunks that this store lacks, by command; a refused command needs none."""
        missing: dict[int, tuple[str, ...]] = {}
        if not any(map(self.chunks.missing, batch.contents)):
            return missing
        without = {refusal.index for refusal in refused}
        for index, command in enumerate(batch.commands):
            if index in without:
                continue
            contents = contents_of(command.operation)
            names = tuple(name for content in contents for name in self.chunks.missing(content))
            if names:
                missing[index] = names
        return missing

    def _fetch(self, coordinator: str, message: TxnPrepare) -> None:
        """Get what is missing from the peers; `TxnProgress` puts off the coordinator's deadline."""
        self._waiting_prepares[message.slot] = WaitingPrepare(coordinator, message)
        self._send(coordinator, TxnProgress(epoch=message.epoch, slot=message.slot))
        for names in self._missing_contents(message.batch, self._no_room(message.batch)).values():
            self.contents.want(names, message.batch)
        self.contents.pump()

    def _try_fetched(self) -> None:
        """Vote on the prepares whose contents are here now, or can't be got."""
        needed: set[str] = set()
        for slot in sorted(self._waiting_prepares):
            fetching = self._waiting_prepares[slot]
            batch = fetching.message.batch
            no_room = self._no_room(batch)
            self.contents.keep_inline(_contents_but(no_room, batch))
            missing = self._missing_contents(batch, no_room)
            hopeless = [
                Refusal(index=index, reason=f"{self.name}: contents are on no store that answers")
                for index, names in missing.items()
                if any(self.contents.is_nowhere(name) for name in names)
            ]
            known = self.prepared.get(slot)
            voted = known is not None and not _must_reconsider(known, fetching.message)
            if slot <= self.state.applied or voted:
                del self._waiting_prepares[slot]
            elif len(hopeless) == len(missing):
                del self._waiting_prepares[slot]
                refused = tuple(sorted((*no_room, *hopeless), key=lambda one: one.index))
                self._record_prepared(fetching.coordinator, fetching.message, refused)
            else:
                for names in missing.values():
                    self.contents.want(names, batch)
                    needed.update(names)
        self.contents.end_wait(needed)

    # -- phase 2: decisions in slot order --------------------------------------------------------

    def _on_decision(self, sender: str, message: TxnDecision) -> None:
        """A coordinator's decision: final, whatever its epoch, but applied only in slot order."""
        self._note_reported(message.slot)
        if self.state.applied < message.slot <= self.state.applied + _AHEAD_SLOTS:
            self._decisions.setdefault(message.slot, message)
            self._apply_decided()

    def _on_decided(self, sender: str, message: Decided) -> None:
        former = self.state.applied
        for entry in message.entries:
            if entry.slot > self.state.applied:
                self._decisions[entry.slot] = entry
        if message.first_kept > self.state.applied + 1:
            # The decided log begins too late for this store, which copies a snapshot instead.
            self.counters["behind_truncation"] += 1
            self.rejoin.install()
        self._apply_decided()
        if former < self.state.applied < self.held.reported_through:
            # Pull the next page at once; a page that brought nothing new needs no other.
            self._sync_asked_at = self.now - _ASK_AGAIN_MS
            self._pull_decided()

    def _apply_decided(self) -> None:
        while self.state.applied + 1 in self._decisions:
            slot = self.state.applied + 1
            decision = self._decisions[slot]
            value: AnyValue | None = decision.value
            prepared = self.prepared.get(slot)
            if value is None and prepared is None:
                break  # This store does not know the commands: pull the slot with its value.
            if prepared is not None:
                value = prepared.batch
            assert value is not None
            self._apply(slot, value, decision.aborted, prepared)
            del self._decisions[slot]
        self.reads.wake()
        self._watch()
        if self._decisions:
            self._pull_decided()

    def _apply(
        self,
        slot: int,
        value: AnyValue,
        aborted: tuple[Refusal, ...],
        prepared: Prepared | None,
    ) -> None:
        if prepared is None and isinstance(value, Batch):
            self.contents.keep_inline(value.contents)
        elif prepared is not None:
            refused = {refusal.index for refusal in prepared.refused}
            if not refused <= {refusal.index for refusal in aborted}:
                # A later View, which this store has not applied yet, took its vote away. The store
                # copies what it lacks before it is a member again.
                self.counters["overruled"] += 1
            self._outlived.append(slot)
        outcomes = self.state.apply(slot, value, aborted)
        if isinstance(value, Roster):
            self.turn.note_roster(self.state.membership)
        self.held.changes.note(slot, value, outcomes)
        for entry in self.state.tree.gained:
            self.chunks.use(entry.content)
            if prepared is None or prepared.refused:
                # The slot was decided without this store's consent: it may lack contents.
                self.contents.copy(entry.content)
        if self.contents.missing:
            self.contents.pump()
        for entry in self.state.tree.dropped:
            self.contents.release(entry.content)
        self.state.tree.gained.clear()
        self.state.tree.dropped.clear()
        if prepared is not None:
            del self.prepared[slot]
            for content in prepared.batch.contents:
                self.contents.release(content)
        self.counters["applied"] += 1

    def _settle(self) -> None:
        """Journal the applied state, a little later."""
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
            self._journal(_prepared_key(slot), None)
        self._outlived.clear()
        for key, row in self.state.take_rows():
            self._journal(key, row)
        self.held.durable = self.state.applied
        if self._announced is not None and not self._announced[1]:
            self._watch()

    # -- termination and sync --------------------------------------------------------------------

    def _on_inquiry(self, sender: str, message: TxnInquiry) -> None:
        """A new epoch begins: raise the fence, and report what is prepared and applied."""
        if self._passes_fence(sender, message.view.epoch):
            self._send_state(sender, message.view.epoch)

    def _send_state(self, to: str, epoch: int) -> None:
        self._send(
            to,
            TxnState(
                epoch=epoch,
                applied=self.state.applied,
                whole=self.rejoin.is_whole,
                prepared=tuple(
                    PreparedSlot(
                        slot=slot,
                        refused=self.prepared[slot].refused,
                        digest=self.prepared[slot].batch.digest,
                    )
                    for slot in sorted(self.prepared)
                ),
            ),
        )

    def _note_reported(self, slot: int) -> None:
        self.held.reported_through = max(self.held.reported_through, slot)
        if self.held.reported_through > self.state.applied:
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _on_heartbeat(self, sender: str, message: NodeHeartbeat) -> None:
        if message.role == "learner" and message.applied > self.state.applied:
            self._note_reported(message.applied)

    def _pull_decided(self) -> None:
        """Pull decided slots from the learners, which send only what is final."""
        if self.now - self._sync_asked_at >= _ASK_AGAIN_MS:
            self._sync_asked_at = self.now
            for name in self.turn.names("learner"):
                self._send(name, PullDecided(applied=self.state.applied))

    def _on_sync_due(self, subject: str) -> None:
        self._pull_decided()
        self._set_timer("sync", self.options.sync_ms, self.options.sync_ms + 1_000)

    def _on_tick(self, subject: str) -> None:
        behind = self.held.reported_through > self.state.applied
        if behind:
            self._pull_decided()
        if self._waiting_prepares:
            for fetching in self._waiting_prepares.values():
                self._send(
                    fetching.coordinator,
                    TxnProgress(epoch=fetching.message.epoch, slot=fetching.message.slot),
                )
            self._try_fetched()
        self.contents.pump()
        self._snapshots.tick()
        self.reads.wake()
        self._watch()
        if behind or self._waiting_prepares or self.reads or self.contents.busy or self.rejoin.busy:
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    # -- reads, see `actors.store.reads` ---------------------------------------------------------

    def _on_leader_beat(self, sender: str, message: LeaderBeat) -> None:
        self.reads.follow(message.ballot)

    def _on_read(self, sender: str, message: ReadRequest) -> None:
        self.reads.begin(sender, message)

    def _on_lease_grant(self, sender: str, message: LeaseGrant) -> None:
        self.reads.on_lease_grant(message)

    # -- snapshots -------------------------------------------------------------------------------

    def _on_snapshot_pull(self, sender: str, message: SnapshotPull) -> None:
        if not (self.rejoin.is_installing or self.rejoin.has_diverged):
            self._snapshots.on_pull(sender, message, self.state)

    def _on_snapshot_page(self, sender: str, message: SnapshotPage) -> None:
        copied = self.rejoin.on_page(sender, message)
        if copied is not None:
            self._install(copied)
            self._watch()

    def _on_diverged(self, sender: str, message: Diverged) -> None:
        if self.rejoin.on_diverged(message):
            self.reads.give_up_lease()

    def _watch(self) -> None:
        """Take the next step towards membership, and announce a change of standing."""
        standing = self.rejoin.step()
        member = standing.member
        added_slot = member.added_slot if member is not None else None
        is_added = added_slot is not None and self.durable < added_slot <= self.state.applied
        if standing.is_whole and is_added:
            # It counts as whole once its journal has come so far, and writes may wait for that.
            self._persist()
        is_held = standing.is_whole and added_slot is not None and self.durable >= added_slot
        announced = (standing.is_whole, is_held, member)
        if announced != self._announced:
            self._announced = announced
            self._send_heartbeat()
        if isinstance(standing, Asking):
            self.rejoin.ask()

    def _install(self, copied: CopiedState) -> None:
        """Replace this store's state by another replica's.

        The slots up to the copied one are decided, so records of them as prepared are void.
        """
        slot, rows = copied
        for key, value in self.state.replace(Record(row.key, row.value.encode()) for row in rows):
            self._journal(key, value)
        for former in sorted({s for s in self.prepared if s <= slot} | set(self._outlived)):
            self._journal(_prepared_key(former), None)
            self.prepared.pop(former, None)
        self._outlived.clear()
        self.turn.note_roster(self.state.membership)
        for decided in [s for s in self._decisions if s <= slot]:
            del self._decisions[decided]
        self.held.durable = slot
        self.held.changes.restart(slot)
        self.chunks.forget_users(self.now)
        self._count_users()
        self.contents.forget_copies()
        self._copy_missing()
        self._try_fetched()
        self._apply_decided()
        self._pull_decided()

    # -- contents, see `actors.store.contents` ---------------------------------------------------

    def _on_chunk_put(self, sender: str, message: ChunkPut) -> None:
        self.contents.on_put(sender, message)
        self._try_fetched()

    def _on_chunk_data(self, sender: str, message: ChunkData) -> None:
        self.contents.note_answer(sender)
        if self.contents.on_data(message):
            self._try_fetched()
            self._watch()

    def _on_chunk_get(self, sender: str, message: ChunkGet) -> None:
        self.contents.on_get(sender, message)

    def _on_chunk_missing(self, sender: str, message: ChunkMissing) -> None:
        self.contents.note_answer(sender)
        self.contents.on_missing(sender, message)
        self._try_fetched()

    def _on_chunk_hold(self, sender: str, message: ChunkHold) -> None:
        self.contents.on_hold(message)

    def _on_chunk_keep(self, sender: str, message: ChunkKeep) -> None:
        self.contents.on_keep(message)

    def _on_sweep(self, subject: str) -> None:
        self.contents.sweep()

    # -- dispatch --------------------------------------------------------------------------------

    handlers: ClassVar[Handlers] = {
        TxnPrepare: _on_prepare,
        TxnDecision: _on_decision,
        TxnInquiry: _on_inquiry,
        Decided: _on_decided,
        LeaderBeat: _on_leader_beat,
        LeaseGrant: _on_lease_grant,
        ReadRequest: _on_read,
        ChunkPut: _on_chunk_put,
        ChunkData: _on_chunk_data,
        ChunkGet: _on_chunk_get,
        ChunkMissing: _on_chunk_missing,
        ChunkHold: _on_chunk_hold,
        ChunkKeep: _on_chunk_keep,
        SnapshotPull: _on_snapshot_pull,
        SnapshotPage: _on_snapshot_page,
        Diverged: _on_diverged,
    }
    timers: ClassVar[Timers] = {
        "tick": _on_tick,
        "sync": _on_sync_due,
        "sweep": _on_sweep,
        "persist": _on_persist_due,
    }


def _contents_but(refused: tuple[Refusal, ...], batch: Batch) -> list[Inline | Chunked | Indirect]:
    """The contents of the commands that are not refused; a full disk keeps no others."""
    without = {refusal.index for refusal in refused}
    return [
        content
        for index, command in enumerate(batch.commands)
        if index not in without
        for content in contents_of(command.operation)
    ]


def _must_reconsider(known: Prepared, message: TxnPrepare) -> bool:
    """Whether the store votes again. It may take a refusal back, but never a yes."""
    return message.reconsider and known.refused != ()


def _prepared_key(slot: int) -> str:
    return f"prepared/{slot:016x}"
