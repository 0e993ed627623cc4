"""Transfers of chunks between a gateway and the stores: a few at a time for each store.

A store returns a credit (`chunk.stored`) once the chunk is in its journal, so neither its queue nor
the gateway's memory grows with the file (design 4.9). Credits are not counted: a store may owe
`_CREDITS` answers, and each upload records the stores that owe one. If a store goes on sending
heartbeats for a while without an answer, the chunk or its answer is taken for lost.
"""

import hashlib
from dataclasses import dataclass, field

from actors.calls import (
    NOTHING_READ,
    Absent,
    Fetch,
    FetchedChunk,
    Holding,
    KeepChunks,
    NotDone,
    Upload,
    Uploaded,
)
from actors.gateway.cluster_state import ClusterState
from actors.messages import (
    ChunkData,
    ChunkGet,
    ChunkKeep,
    ChunkMissing,
    ChunkPut,
    ChunkRefused,
    ChunkStored,
)
from actors.numbers import Milliseconds
from actors.peers import Key
from actors.rotation import Rotation
from actors.turn import Turn
from actors.values import NO_ROOM, StoreMember

_CREDITS = 4
_LOST_MS = 3_000
_UPLOAD_MS = 20_000
_FETCH_AGAIN_MS = 2_000
_FETCH_MS = 15_000


@dataclass(slots=True)
class ChunkUpload:
    """A chunk, its callers, and which stores have it."""

    put: ChunkPut | None = None
    """`None` once every caller has its answer: then only `sent_at` counts."""
    deadlines: dict[int, Milliseconds] = field(default_factory=dict)
    """When each caller's wait ends, by token."""
    stored: set[Key] = field(default_factory=set)
    """The stores that have the chunk in the journal of that disk."""
    sent_at: dict[str, Milliseconds] = field(default_factory=dict)
    """The stores that owe an answer, and when the chunk was sent to each."""


@dataclass(slots=True)
class ChunkFetch:
    """A chunk that is requested from one store after the other."""

    rotation: Rotation
    deadlines: dict[int, Milliseconds]
    """When each caller's wait ends, by token."""
    missing: set[StoreMember] = field(default_factory=set)
    """The members of the view that lacked the chunk."""


class Transfers:
    """The uploads and fetches of one gateway."""

    def __init__(self, turn: Turn, cluster: ClusterState) -> None:
        self._turn = turn
        self._cluster = cluster
        self._uploads: dict[str, ChunkUpload] = {}
        """In the order in which they are sent to a store that has a credit."""
        self._fetches: dict[str, ChunkFetch] = {}

    @property
    def busy(self) -> bool:
        """Whether any caller waits."""
        return bool(self._fetches) or any(up.put is not None for up in self._uploads.values())

    # -- uploads ---------------------------------------------------------------------------------

    def upload(self, call: Upload) -> None:
        """Send the chunk to every store of the view; callers with equal chunks share one upload."""
        upload = self._uploads.setdefault(call.sha256, ChunkUpload())
        if upload.put is None:
            upload.put = ChunkPut.model_construct(
                sha256=call.sha256, manifest=call.manifest, data=call.data
            )
        upload.deadlines[call.token] = self._turn.now + _UPLOAD_MS
        self._pump()

    def _pump(self) -> None:
        """Send what the stores have credits for, also to those that have joined the view since."""
        for member in self._cluster.members:
            owed = sum(member.name in up.sent_at for up in self._uploads.values())
            for upload in self._uploads.values():
                if owed >= _CREDITS:
                    break
                lacks = upload.put is not None and _key(member) not in upload.stored
                if lacks and member.name not in upload.sent_at:
                    self._send(member.name, upload)
                    owed += 1

    def _send(self, store: str, upload: ChunkUpload) -> None:
        assert upload.put is not None, f"a chunk for {store} that no caller waits for"
        upload.sent_at[store] = self._turn.now
        self._turn.send(store, upload.put)

    def on_stored(self, sender: str, message: ChunkStored) -> None:
        """The chunk is durable on that disk; the callers are answered once the whole view has it.

        The answer of a disk that the view does not name returns no credit while a caller waits:
        else the same chunk would be sent there at once, again and again.
        """
        upload = self._uploads.get(message.sha256)
        if upload is None:
            return
        upload.stored.add((sender, self._turn.sender_disk))
        if upload.put is None or self._cluster.sending_member(sender) is not None:
            upload.sent_at.pop(sender, None)
        self._conclude(message.sha256, upload)
        self._pump()

    def on_refused(self, sender: str, message: ChunkRefused) -> None:
        """A store refuses the chunk, which ends the upload if the view names that disk."""
        upload = self._uploads.get(message.sha256)
        if upload is None:
            return
        is_member = self._cluster.sending_member(sender) is not None
        if upload.put is None or is_member:
            upload.sent_at.pop(sender, None)
        if upload.put is not None and is_member:
            reason = f"{sender} refused a chunk: {message.reason}"
            no_room = message.reason.startswith(NO_ROOM)
            refusal = NotDone(reason, "no command was sent", no_room=no_room)
            self._end_upload(message.sha256, upload, refusal)
        self._forget_ended(message.sha256, upload)
        self._pump()

    def _conclude(self, name: str, upload: ChunkUpload) -> None:
        """Answer the callers if every store of the view has the chunk on the disk that it names."""
        if upload.put is not None and upload.stored >= {_key(m) for m in self._cluster.members}:
            self._end_upload(name, upload, Uploaded())
        self._forget_ended(name, upload)

    def _end_upload(self, name: str, upload: ChunkUpload, answer: Uploaded | NotDone) -> None:
        """Answer all callers. The answers that stores owe still count, so that no queue grows."""
        for token in upload.deadlines:
            self._turn.answer(token, answer)
        upload.deadlines.clear()
        upload.stored.clear()
        upload.put = None

    def _forget_ended(self, name: str, upload: ChunkUpload) -> None:
        if upload.put is None and not upload.sent_at:
            del self._uploads[name]

    def follow_view(self) -> None:
        """The view changed: stores that left owe nothing, and those that joined need the chunks."""
        for name in sorted(self._uploads):
            upload = self._uploads[name]
            for store in sorted(upload.sent_at.keys() - set(self._cluster.stores)):
                del upload.sent_at[store]
            self._conclude(name, upload)
        self._pump()

    def _tick_upload(self, name: str, upload: ChunkUpload) -> None:
        """Send again what was lost; end the waits that are over."""
        now = self._turn.now
        for token in [t for t, deadline in upload.deadlines.items() if now >= deadline]:
            del upload.deadlines[token]
            refusal = NotDone(self._account(upload), "no command was sent")
            self._turn.answer(token, refusal)
        if not upload.deadlines:
            upload.stored.clear()
            upload.put = None
        for store in sorted(upload.sent_at):
            if self._cluster.heard_at(store) - upload.sent_at[store] < _LOST_MS:
                continue
            if upload.put is not None:
                self._send(store, upload)
            else:
                del upload.sent_at[store]
        self._forget_ended(name, upload)

    def _account(self, upload: ChunkUpload) -> str:
        """Which stores an upload waits for, and why."""
        missing = [m.name for m in self._cluster.members if _key(m) not in upload.stored]
        silent = ", ".join(name for name in missing if name in upload.sent_at)
        behind = ", ".join(name for name in missing if name not in upload.sent_at)
        causes = [f"{silent} did not confirm a chunk"] if silent else []
        causes += [f"{behind} still owed answers for earlier chunks"] if behind else []
        return f"{' and '.join(causes)} in {_UPLOAD_MS // 1000} s"

    # -- fetches ---------------------------------------------------------------------------------

    def fetch(self, call: Fetch) -> None:
        """Ask one store of the view after the other; callers of equal chunks share one fetch."""
        deadline = self._turn.now + _FETCH_MS
        fetch = self._fetches.get(call.sha256)
        if fetch is None:
            fetch = self._fetches[call.sha256] = ChunkFetch(self._cluster.rotation(deadline), {})
        fetch.deadlines[call.token] = deadline
        self._ask(call.sha256, fetch)

    def _ask(self, name: str, fetch: ChunkFetch) -> None:
        """Ask the store whose turn it is, if it is time to ask one."""
        store = self._cluster.next_store(fetch.rotation, _FETCH_AGAIN_MS)
        if store is not None:
            self._turn.send(store, ChunkGet(sha256=name))

    def on_data(self, sender: str, message: ChunkData) -> None:
        """A store's copy of the chunk, which is passed on only if its bytes match its name."""
        fetch = self._fetches.get(message.sha256)
        if fetch is None:
            return
        if hashlib.sha256(message.data).hexdigest() != message.sha256:
            self._turn.counters["corrupt_chunks"] += 1
            fetch.rotation.refused(sender, self._turn.now, "it sent damaged bytes")
            self._ask(message.sha256, fetch)
        else:
            self._end_fetch(message.sha256, FetchedChunk(message.data))

    def on_missing(self, sender: str, message: ChunkMissing) -> None:
        """Ask the next store; the chunk is absent only if every member of the view lacks it.

        A member that is added again, or has another disk, is another `StoreMember`.
        """
        fetch = self._fetches.get(message.sha256)
        if fetch is None:
            return
        member = self._cluster.sending_member(sender)
        if member is not None:
            fetch.missing.add(member)
        if fetch.missing.issuperset(self._cluster.members):
            self._end_fetch(message.sha256, Absent())
            return
        fetch.rotation.refused(sender, self._turn.now, "it lacks the chunk")
        self._ask(message.sha256, fetch)

    def _end_fetch(self, name: str, answer: FetchedChunk | Absent) -> None:
        for token in self._fetches.pop(name).deadlines:
            self._turn.answer(token, answer)

    def _tick_fetch(self, name: str, fetch: ChunkFetch) -> None:
        for token in [t for t, until in fetch.deadlines.items() if self._turn.now >= until]:
            del fetch.deadlines[token]
            reason = f"no store sent a chunk ({fetch.rotation.account})"
            self._turn.answer(token, NotDone(reason, NOTHING_READ))
        if fetch.deadlines:
            self._ask(name, fetch)
        else:
            del self._fetches[name]

    # -- keeping ---------------------------------------------------------------------------------

    def keep(self, call: KeepChunks) -> None:
        """Ask all stores to keep the chunks: one outside the view may join before they are read."""
        for store in self._turn.names("store"):
            self._turn.send(store, ChunkKeep(names=call.names, for_ms=call.for_ms))
        self._turn.answer(call.token, Holding())

    # -- patience --------------------------------------------------------------------------------

    def tick(self) -> None:
        """Send again what was lost, ask the next store, end the waits that are over."""
        for name in sorted(self._uploads):
            self._tick_upload(name, self._uploads[name])
        for name in sorted(self._fetches):
            self._tick_fetch(name, self._fetches[name])
        self._pump()


def _key(member: StoreMember) -> Key:
    return member.name, member.disk
