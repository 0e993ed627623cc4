"""The contents of a store: uploads, reads, and chunks that it has to get from its peers.

Chunks are named by their SHA-256, so a store can check them, and accepts them from any peer. A
prepare that lacks chunks has precedence over the copying of a whole store, which is throttled, and
which resumes where it stopped because every chunk received is in the journal (design 4.7 and 4.9).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from actors.effects import Blob, SendBlob
from actors.messages import (
    HOLD_MS_MAX,
    ChunkData,
    ChunkGet,
    ChunkHold,
    ChunkKeep,
    ChunkMissing,
    ChunkPut,
    ChunkRefused,
    ChunkStored,
)
from actors.numbers import Milliseconds
from actors.rotation import Rotation
from actors.store.chunks import (
    READING_GRACE_MS,
    RELEASED_GRACE_MS,
    RENEWALS,
    ChunkManifest,
    Chunks,
    read_manifest,
)
from actors.store.state import StoreState
from actors.turn import Turn
from actors.values import Batch, Chunked, Indirect, Inline, no_room

_ASK_AGAIN_MS = 1_000
_PAUSE_MOST_MS = 5_000
_UNANSWERED_MOST = 4
_URGENT_UNDER_WAY = 8
_COPIES_UNDER_WAY = 4
_COPY_WINDOW_MS = 250
_SWEEP_MS = 30_000
_SWEEP_CHUNKS = 1_000
_SWEEP_ON_MS = 100

_SWEEPS_MISSED = 4
"""After a sweep that is late by so many, requests to keep chunks may still wait in the queue.
`RENEWALS` allows for a shorter delay."""

_READ_STEPS = 8
"""Reads raise the time of a chunk in steps of this fraction of it, so that many readers of one long
manifest put off the chunks that it lists a few times, not with each read."""


@dataclass(slots=True)
class Wanted:
    """A chunk that this store lacks; `denied` are the peers that reported lacking it, too."""

    rotation: Rotation
    manifest: bool = False
    denied: set[str] = field(default_factory=set)


class StoreContents:
    """The chunks of one store, and those that it waits for."""

    def __init__(self, turn: Turn, held: StoreState) -> None:
        self._turn = turn
        self._held = held
        self.chunks = Chunks()
        self._urgent: dict[str, Wanted] = {}
        """Chunks that a prepare waits for."""
        self._copies: dict[str, Wanted] = {}
        """Chunks that the applied state names."""
        self._wanted_ever = 0
        self._silent: set[str] = set()
        """The peers whose last answer did not come in time."""
        self._copied_bytes = 0
        self._window_until = 0
        self._held_until = 0
        """Until then no chunk is deleted, because a client is copying the state (`ChunkHold`)."""
        self._swept_at: Milliseconds | None = None

    def _peers(self) -> list[str]:
        """The other stores that may have a chunk: of the roster, and of the view, which may still
        name one that was removed.
        """
        view = self._held.namespace.view
        named = () if view is None else (member.name for member in view.stores)
        names = dict.fromkeys((*self._turn.names("store"), *named))
        return [name for name in names if name != self._turn.name]

    @property
    def missing(self) -> int:
        """The number of chunks that the applied state names and this store lacks."""
        return len(self._copies)

    @property
    def busy(self) -> bool:
        """Whether this store waits for any chunk."""
        return bool(self._urgent or self._copies)

    # -- wanted chunks ---------------------------------------------------------------------------

    def copy(self, content: Chunked | Indirect) -> None:
        """Get the chunks of `content`, which the applied state names, that this store lacks."""
        manifest = isinstance(content, Indirect)
        for name in self.chunks.missing(content):
            wanted = self._want(self._copies, name)
            wanted.manifest |= manifest and name == getattr(content, "manifest", "")

    def release(self, content: Inline | Chunked | Indirect) -> None:
        """A version or a prepared slot is gone. Chunks that only it named are no longer copied:
        soon no store holds them, and one that waited for them would never be whole.
        """
        for name in self.chunks.release(content, self._turn.now):
            self._copies.pop(name, None)

    def forget_copies(self) -> None:
        """Forget what is to be copied; the caller adds what another state names."""
        self._copies.clear()

    def want(self, names: tuple[str, ...], batch: Batch) -> None:
        """Get these chunks first: a prepare needs them."""
        manifests = {c.manifest for c in batch.contents if isinstance(c, Indirect)}
        for name in names:
            self._want(self._urgent, name).manifest |= name in manifests

    def _want(self, table: dict[str, Wanted], name: str) -> Wanted:
        """The entry of a chunk; each new entry begins with another peer."""
        if name not in table:
            self._wanted_ever += 1
            table[name] = Wanted(Rotation(self._wanted_ever, pause_most_ms=_PAUSE_MOST_MS))
        return table[name]

    def is_nowhere(self, name: str) -> bool:
        """Whether every peer has reported that it lacks the chunk, or is silent.

        Else a peer away for days would hold up all writes after one whose contents are gone.
        """
        wanted = self._urgent.get(name)
        return wanted is not None and all(
            peer in wanted.denied or wanted.rotation.unanswered[peer] >= _UNANSWERED_MOST
            for peer in self._peers()
        )

    def end_wait(self, needed: set[str]) -> None:
        """Stop waiting for urgent chunks other than `needed`."""
        for name in [name for name in self._urgent if name not in needed]:
            del self._urgent[name]

    # -- requests to peers -----------------------------------------------------------------------

    def pump(self) -> None:
        """Request chunks from peers within the limits; overdue ones from another peer."""
        now = self._turn.now
        if now >= self._window_until:
            self._window_until, self._copied_bytes = now + _COPY_WINDOW_MS, 0
        budget = self._turn.options.copy_bytes_per_s * _COPY_WINDOW_MS // 1_000
        self._ask(self._urgent, _URGENT_UNDER_WAY)
        # A newcomer with a full disk waits for room outside the view, where it holds up no write.
        outside = self._held.membership is None
        if self._copied_bytes < budget and not (outside and self._turn.disk_full):
            self._ask(self._copies, _COPIES_UNDER_WAY)
        if self.busy:
            self._turn.arm("tick", 100, 200)

    def _ask(self, table: dict[str, Wanted], most: int) -> None:
        now = self._turn.now
        under_way = 0
        for name, wanted in table.items():
            if under_way >= most:
                return
            rotation = wanted.rotation
            if rotation.is_overdue(now):
                self._silent.add(rotation.asked)
            peer = rotation.next(self._peers(), now, _ASK_AGAIN_MS, self._silent)
            if peer is not None:
                self._turn.send(peer, ChunkGet(sha256=name))
            # A chunk that pauses, because no peer could send it, does not count.
            under_way += rotation.awaits(now)

    def on_missing(self, sender: str, message: ChunkMissing) -> None:
        """The peer lacks the chunk: ask the next one."""
        for table in (self._urgent, self._copies):
            wanted = table.get(message.sha256)
            if wanted is not None:
                wanted.denied.add(sender)
                wanted.rotation.refused(sender, self._turn.now, "it lacks the chunk")
        self.pump()

    def note_answer(self, sender: str) -> None:
        """Note that a peer has answered, whatever the answer."""
        self._silent.discard(sender)

    def on_data(self, message: ChunkData) -> bool:
        """A peer's copy of a chunk; whether this store waited for it."""
        name = message.sha256
        wanted = [table[name] for table in (self._urgent, self._copies) if name in table]
        if not wanted:
            return False
        self._copied_bytes += len(message.data)
        if hashlib.sha256(message.data).hexdigest() != name:
            self._turn.counters["corrupt_chunks"] += 1
            return False  # After the timeout another peer is asked.
        manifest = read_manifest(message.data) if any(w.manifest for w in wanted) else None
        if name in self._copies:
            self._turn.counters["chunks_copied"] += 1
        self._urgent.pop(name, None)
        self._copies.pop(name, None)
        self.keep(name, manifest, message.data, READING_GRACE_MS)
        self.pump()
        return True

    # -- keeping ---------------------------------------------------------------------------------

    def keep(
        self, name: str, manifest: ChunkManifest | None, data: bytes, grace_ms: Milliseconds
    ) -> None:
        """Journal the chunk in this turn."""
        turn = self._turn
        turn.out.blobs.append(Blob(name, data))
        # On a full disk the chunk's command would be refused anyway, and others need the room.
        until_if_full = turn.now + min(grace_ms, RELEASED_GRACE_MS)
        self.chunks.add(name, turn.now + grace_ms, until_if_full)
        if manifest is not None:
            turn.journal(f"manifest/{name}", manifest)
            self.chunks.add_manifest(name, manifest)
            if self.chunks.is_used(name):
                for listed in manifest.names:
                    if listed not in self.chunks.held:
                        self._want(self._copies, listed)

    def keep_inline(self, contents: Iterable[Inline | Chunked | Indirect]) -> None:
        """Make chunks of the contents that travelled inside commands.

        They get no time to be kept: while the command is undecided, its prepare brings them again.
        """
        for content in contents:
            if not isinstance(content, Inline) or content.sha256 in self.chunks.held:
                continue
            # With a wrong name the chunk stays missing, so the command is refused in the end.
            if content.data and hashlib.sha256(content.data).hexdigest() == content.sha256:
                self.keep(content.sha256, None, content.data, 0)

    def on_put(self, sender: str, message: ChunkPut) -> None:
        """Journal the chunk, then return the sender's credit; a held chunk needs no write."""
        turn, name = self._turn, message.sha256
        grace_ms = turn.constants.chunk_grace_ms
        if self.chunks.has(name, message.manifest):
            until_if_full = turn.now + min(grace_ms, READING_GRACE_MS)
            self.chunks.keep(name, turn.now + grace_ms, until_if_full)
            turn.send(sender, ChunkStored(sha256=name))
            return
        manifest = read_manifest(message.data) if message.manifest else None
        if turn.disk_full:
            turn.send(sender, ChunkRefused(sha256=name, reason=no_room(turn.name)))
        elif hashlib.sha256(message.data).hexdigest() != name:
            turn.send(
                sender, ChunkRefused(sha256=name, reason="its bytes do not match its SHA-256")
            )
        elif message.manifest and manifest is None:
            turn.send(sender, ChunkRefused(sha256=name, reason="it is not a manifest"))
        else:
            self._urgent.pop(name, None)
            self._copies.pop(name, None)
            self.keep(name, manifest, message.data, grace_ms)
            turn.send(sender, ChunkStored(sha256=name))

    def on_get(self, sender: str, message: ChunkGet) -> None:
        """Send a chunk, and keep it for the reader for a while, also if its version goes away."""
        turn, name = self._turn, message.sha256
        if name in self.chunks.held:
            self.chunks.keep(name, self._reading_until(READING_GRACE_MS))
            turn.out.sends.append(SendBlob(sender, name))
        else:
            turn.send(sender, ChunkMissing(sha256=name))

    def on_rotten(self, name: str) -> None:
        """The journal's bytes no longer match the chunk's name: get them from a peer."""
        turn = self._turn
        if name not in self.chunks.held:
            return
        turn.counters["chunks_rotten"] += 1
        turn.out.blobs.append(Blob(name, None))
        if self.chunks.is_used(name):
            self.chunks.lose(name)
            self._want(self._copies, name).manifest |= self.chunks.lists(name)
            self.pump()
        elif self.chunks.remove(name):
            turn.journal(f"manifest/{name}", None)

    # -- deletion --------------------------------------------------------------------------------

    @property
    def _kept_ms_max(self) -> Milliseconds:
        """The longest time that a message asks for. After a restart every chunk is kept so long,
        because the times are not journalled.
        """
        return max(self._turn.constants.chunk_grace_ms, READING_GRACE_MS, HOLD_MS_MAX)

    def restore(self, name: str) -> None:
        """The journal holds the chunk; which uploads or reads needed it is not journalled."""
        now = self._turn.now
        self.chunks.add(name, now + self._kept_ms_max, now + READING_GRACE_MS)

    def on_keep(self, message: ChunkKeep) -> None:
        """Keep these chunks for an upload or a download that goes on."""
        until = self._reading_until(min(message.for_ms, self._kept_ms_max))
        for name in message.names:
            self.chunks.keep(name, until)

    def _reading_until(self, for_ms: Milliseconds) -> Milliseconds:
        step_ms = for_ms // _READ_STEPS + 1
        return (self._turn.now + for_ms) // step_ms * step_ms + step_ms

    def on_hold(self, message: ChunkHold) -> None:
        """Delete no chunk for a while, also if its version is replaced meanwhile."""
        until = self._turn.now + min(message.for_ms, HOLD_MS_MAX)
        self._held_until = max(self._held_until, until)

    def sweep(self) -> None:
        """Delete the chunks that nothing uses and whose time is over, in the step that checks."""
        turn = self._turn
        if self._swept_at is not None and turn.now - self._swept_at > _SWEEPS_MISSED * _SWEEP_MS:
            # This node or its broker was paused: uploads and downloads get time to renew first.
            until = turn.now + self._kept_ms_max // RENEWALS
            self._held_until = max(self._held_until, until)
        self._swept_at = turn.now
        held = turn.now < self._held_until
        expired = [] if held else self.chunks.take_expired(turn.now, _SWEEP_CHUNKS)
        if turn.disk_full and not held:
            expired += self.chunks.take_unused_if_full(turn.now, _SWEEP_CHUNKS - len(expired))
        for name in expired:
            if self.chunks.remove(name):
                turn.journal(f"manifest/{name}", None)
            turn.out.blobs.append(Blob(name, None))
            turn.counters["chunks_deleted"] += 1
        wait_ms = _SWEEP_ON_MS if not held and self.chunks.is_due(turn.now) else _SWEEP_MS
        turn.set_timer("sweep", wait_ms, wait_ms * 2)
