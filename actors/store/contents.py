"""The contents a store holds: uploads, reads, and chunks that it has to get from its peers.

Chunks are named by their SHA-256, so whatever comes under a name can be checked, and the same
chunk from anywhere will do. A prepare that lacks chunks has precedence over the copying of a whole
store, which is throttled, and which goes on where it stopped because every chunk that came is in
the journal (design 4.7 and 4.9).
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
"""After a sweep that is late by so many, what asked to be kept meanwhile may not have been heard
yet. A shorter delay is within what `RENEWALS` allows for."""

_READ_STEPS = 8
"""In how many steps the time of what is read rises while it is kept: many readers of one long list
then put off what it lists a few times, not each of them every time."""


@dataclass(slots=True)
class Wanted:
    """A chunk that is not here; `denied` are the peers that don't hold it either."""

    rotation: Rotation
    manifest: bool = False
    denied: set[str] = field(default_factory=set)


class StoreContents:
    """The chunks of one store, and those it is waiting for."""

    def __init__(self, turn: Turn, held: StoreState) -> None:
        self._turn = turn
        self._held = held
        self.chunks = Chunks()
        self._peers = [name for name in turn.options.names("store") if name != turn.name]
        self._urgent: dict[str, Wanted] = {}
        """Chunks that a prepare waits for."""
        self._copies: dict[str, Wanted] = {}
        """Chunks that the applied state names."""
        self._wanted_ever = 0
        self._silent: set[str] = set()
        """The peers that have not answered the last time that one was waited for."""
        self._copied_bytes = 0
        self._window_until = 0
        self._held_until = 0
        """Before this no chunk is deleted: somebody copies the state and all that it names."""
        self._swept_at: Milliseconds | None = None

    @property
    def missing(self) -> int:
        """How many chunks the applied state names and this store does not hold."""
        return len(self._copies)

    @property
    def busy(self) -> bool:
        """Whether any chunk is waited for."""
        return bool(self._urgent or self._copies)

    # -- who needs what --------------------------------------------------------------------------

    def copy(self, content: Chunked | Indirect) -> None:
        """The applied state names `content`: get what is not here."""
        manifest = isinstance(content, Indirect)
        for name in self.chunks.missing(content):
            wanted = self._want(self._copies, name)
            wanted.manifest |= manifest and name == getattr(content, "manifest", "")

    def release(self, content: Inline | Chunked | Indirect) -> None:
        """A version or a prepared slot is gone. What only it named is not copied any more: soon
        nobody holds it, and a store that waited for it would never be whole.
        """
        for name in self.chunks.release(content, self._turn.now):
            self._copies.pop(name, None)

    def forget_copies(self) -> None:
        """Another state says what is to be copied."""
        self._copies.clear()

    def want(self, names: tuple[str, ...], batch: Batch) -> None:
        """A prepare needs these chunks."""
        manifests = {c.manifest for c in batch.contents if isinstance(c, Indirect)}
        for name in names:
            self._want(self._urgent, name).manifest |= name in manifests

    def _want(self, table: dict[str, Wanted], name: str) -> Wanted:
        """The entry of a chunk; each new one begins with another peer."""
        if name not in table:
            self._wanted_ever += 1
            table[name] = Wanted(Rotation(self._wanted_ever, pause_most_ms=_PAUSE_MOST_MS))
        return table[name]

    def is_nowhere(self, name: str) -> bool:
        """Whether every peer has said that it does not hold the chunk, or is silent.

        Who is away for days would else hold up every write after one whose contents are gone.
        """
        wanted = self._urgent.get(name)
        return wanted is not None and all(
            peer in wanted.denied or wanted.rotation.unanswered[peer] >= _UNANSWERED_MOST
            for peer in self._peers
        )

    def end_wait(self, needed: set[str]) -> None:
        """Prepares wait for the chunks `needed` only."""
        for name in [name for name in self._urgent if name not in needed]:
            del self._urgent[name]

    # -- asking the peers ------------------------------------------------------------------------

    def pump(self) -> None:
        """Ask for what may be asked for now; what was asked long ago is asked of another peer."""
        now = self._turn.now
        if now >= self._window_until:
            self._window_until, self._copied_bytes = now + _COPY_WINDOW_MS, 0
        budget = self._turn.options.copy_bytes_per_s * _COPY_WINDOW_MS // 1_000
        self._ask(self._urgent, _URGENT_UNDER_WAY)
        # A newcomer that filled its disk would fall silent; so it waits outside the view for room.
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
            peer = rotation.next(self._peers, now, _ASK_AGAIN_MS, self._silent)
            if peer is not None:
                self._turn.send(peer, ChunkGet(sha256=name))
            # One that pauses, as no peer could send it, keeps no other from being asked for.
            under_way += rotation.awaits(now)

    def on_missing(self, sender: str, message: ChunkMissing) -> None:
        """That peer does not hold it: ask the next one."""
        for table in (self._urgent, self._copies):
            wanted = table.get(message.sha256)
            if wanted is not None:
                wanted.denied.add(sender)
                wanted.rotation.refused(sender, self._turn.now, "it lacks the chunk")
        self.pump()

    def note_answer(self, sender: str) -> None:
        """A peer has answered, whatever it says."""
        self._silent.discard(sender)

    def on_data(self, message: ChunkData) -> bool:
        """A peer's copy of a chunk; whether it was one that was waited for."""
        name = message.sha256
        wanted = [table[name] for table in (self._urgent, self._copies) if name in table]
        if not wanted:
            return False
        self._copied_bytes += len(message.data)
        if hashlib.sha256(message.data).hexdigest() != name:
            self._turn.counters["corrupt_chunks"] += 1
            return False  # Asked again, of another peer, when patience ends.
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
        # On a full disk its command would be refused, and it takes the room of others meanwhile.
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
        """The contents that travelled inside commands become chunks.

        They are kept for no time: the command brings them again for as long as it waits.
        """
        for content in contents:
            if not isinstance(content, Inline) or content.sha256 in self.chunks.held:
                continue
            # A wrong name leaves the chunk missing, so that the command ends up refused.
            if content.data and hashlib.sha256(content.data).hexdigest() == content.sha256:
                self.keep(content.sha256, None, content.data, 0)

    def on_put(self, sender: str, message: ChunkPut) -> None:
        """Journal the chunk, then give the credit back; the same chunk again is no work."""
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
            turn.send(sender, ChunkRefused(sha256=name, reason="its SHA-256 is another"))
        elif message.manifest and manifest is None:
            turn.send(sender, ChunkRefused(sha256=name, reason="it is not a manifest"))
        else:
            self._urgent.pop(name, None)
            self._copies.pop(name, None)
            self.keep(name, manifest, message.data, grace_ms)
            turn.send(sender, ChunkStored(sha256=name))

    def on_get(self, sender: str, message: ChunkGet) -> None:
        """Whoever reads a chunk finds it for a while yet, also if its version goes away."""
        turn, name = self._turn, message.sha256
        if name in self.chunks.held:
            self.chunks.keep(name, self._reading_until(READING_GRACE_MS))
            turn.out.sends.append(SendBlob(sender, name))
        else:
            turn.send(sender, ChunkMissing(sha256=name))

    def on_rotten(self, name: str) -> None:
        """The journal's bytes are not what the name says any more: get them from a peer."""
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

    # -- letting go ------------------------------------------------------------------------------

    @property
    def _kept_ms_max(self) -> Milliseconds:
        """The longest that a message asks for. After a restart every chunk is kept for so long,
        because until when it was kept is not journalled.
        """
        return max(self._turn.constants.chunk_grace_ms, READING_GRACE_MS, HOLD_MS_MAX)

    def restore(self, name: str) -> None:
        """The journal holds the chunk, and does not say which uploads or reads needed it."""
        now = self._turn.now
        self.chunks.add(name, now + self._kept_ms_max, now + READING_GRACE_MS)

    def on_keep(self, message: ChunkKeep) -> None:
        """An upload or a download needs these chunks for a while yet."""
        until = self._reading_until(min(message.for_ms, self._kept_ms_max))
        for name in message.names:
            self.chunks.keep(name, until)

    def _reading_until(self, for_ms: Milliseconds) -> Milliseconds:
        step_ms = for_ms // _READ_STEPS + 1
        return (self._turn.now + for_ms) // step_ms * step_ms + step_ms

    def on_hold(self, message: ChunkHold) -> None:
        """Delete nothing for a while, also of what is replaced meanwhile."""
        until = self._turn.now + min(message.for_ms, HOLD_MS_MAX)
        self._held_until = max(self._held_until, until)

    def sweep(self) -> None:
        """Delete what nobody has needed for its time: check and deletion are one step."""
        turn = self._turn
        if self._swept_at is not None and turn.now - self._swept_at > _SWEEPS_MISSED * _SWEEP_MS:
            # This node or its broker stood still: each request renews what it needs first.
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
