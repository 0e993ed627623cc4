"""Chunks on their way between a gateway and the stores: a few at a time for each store.

A store gives a credit back (`chunk.stored`) once the chunk is in its journal, so neither its
queue nor anybody's memory grows with the file (DESIGN section 4, rule 9).
"""

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.calls import Absent, Fetch, Fetched, Unavailable, Upload, Uploaded
from actors.effects import Answer, Milliseconds
from actors.messages import (
    ChunkData,
    ChunkGet,
    ChunkMissing,
    ChunkPut,
    ChunkRefused,
    ChunkStored,
)
from actors.values import NO_ROOM

if TYPE_CHECKING:
    from actors.client import Client

_CREDITS = 4
_AGAIN_MS = 3_000
_UPLOAD_MS = 20_000
_FETCH_AGAIN_MS = 2_000
_FETCH_MS = 15_000


@dataclass(slots=True)
class Uploading:
    """A chunk and the stores that have not journalled it yet."""

    tokens: list[int]
    put: ChunkPut
    waiting: set[str]
    deadline: Milliseconds
    sent_at: dict[str, Milliseconds] = field(default_factory=dict)


@dataclass(slots=True)
class Fetching:
    """A chunk asked of one store after the other."""

    tokens: list[int]
    deadline: Milliseconds
    store: str
    sent_at: Milliseconds
    missing: set[str] = field(default_factory=set)


class Transfers:
    """The uploads and fetches of one client."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._uploads: dict[str, Uploading] = {}
        self._fetches: dict[str, Fetching] = {}
        self._queues: dict[str, deque[str]] = {}
        self._under_way: dict[str, set[str]] = {}

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._uploads or self._fetches)

    # -- up --------------------------------------------------------------------------------------

    def upload(self, call: Upload) -> None:
        """Send the chunk to every store of the view; equal chunks share one journey."""
        known = self._uploads.get(call.sha256)
        if known is not None:
            known.tokens.append(call.token)
            return
        stores = self._client.stores
        self._uploads[call.sha256] = Uploading(
            tokens=[call.token],
            put=ChunkPut.model_construct(
                sha256=call.sha256, manifest=call.manifest, data=call.data
            ),
            waiting=set(stores),
            deadline=self._client.now + _UPLOAD_MS,
        )
        for store in stores:
            self._queues.setdefault(store, deque()).append(call.sha256)
            self._pump(store)

    def _pump(self, store: str) -> None:
        """Use the credits that `store` has given."""
        queue = self._queues.setdefault(store, deque())
        under_way = self._under_way.setdefault(store, set())
        while queue and len(under_way) < _CREDITS:
            upload = self._uploads.get(queue[0])
            name = queue.popleft()
            if upload is not None and store in upload.waiting:
                under_way.add(name)
                upload.sent_at[store] = self._client.now
                self._client._send(store, upload.put)

    def on_stored(self, sender: str, message: ChunkStored) -> None:
        """One credit back; the caller is told once every store has the chunk."""
        self._release(sender, message.sha256)
        upload = self._uploads.get(message.sha256)
        if upload is not None:
            upload.waiting.discard(sender)
            if not upload.waiting:
                self._end_upload(message.sha256, Uploaded())
        self._pump(sender)

    def on_refused(self, sender: str, message: ChunkRefused) -> None:
        """A store won't have it."""
        self._release(sender, message.sha256)
        if message.sha256 in self._uploads:
            reason = f"{sender} refused a chunk: {message.reason}"
            no_room = message.reason.startswith(NO_ROOM)
            self._end_upload(
                message.sha256, Unavailable(reason, "no command was sent", no_room=no_room)
            )
        self._pump(sender)

    def _release(self, store: str, name: str) -> None:
        self._under_way.setdefault(store, set()).discard(name)

    def _end_upload(self, name: str, answer: Uploaded | Unavailable) -> None:
        for token in self._uploads.pop(name).tokens:
            self._client.out.answers.append(Answer(token, answer))

    def follow_view(self) -> None:
        """Nobody waits for a store that is not in the view any more.

        One that has joined since gets what it lacks from the others when it prepares.
        """
        stores = self._client.stores
        for name in sorted(self._uploads):
            upload = self._uploads[name]
            for store in sorted(upload.waiting - set(stores)):
                upload.waiting.discard(store)
                self._release(store, name)
            if not upload.waiting:
                self._end_upload(name, Uploaded())

    # -- down ------------------------------------------------------------------------------------

    def fetch(self, call: Fetch) -> None:
        """Ask one store of the view."""
        known = self._fetches.get(call.sha256)
        if known is not None:
            known.tokens.append(call.token)
            return
        store = self._client.next_store()
        now = self._client.now
        self._fetches[call.sha256] = Fetching([call.token], now + _FETCH_MS, store, now)
        self._client._send(store, ChunkGet(sha256=call.sha256))

    def on_data(self, sender: str, message: ChunkData) -> None:
        """The chunk came; bytes that are not what the name says are never passed on."""
        fetch = self._fetches.get(message.sha256)
        if fetch is None:
            return
        if hashlib.sha256(message.data).hexdigest() != message.sha256:
            self._client.counters["corrupt_chunks"] += 1
            self._elsewhere(message.sha256, fetch)
            return
        del self._fetches[message.sha256]
        for token in fetch.tokens:
            self._client.out.answers.append(Answer(token, Fetched(message.data)))

    def on_missing(self, sender: str, message: ChunkMissing) -> None:
        """Try the next store; absent only if all of the view say so."""
        fetch = self._fetches.get(message.sha256)
        if fetch is None:
            return
        fetch.missing.add(sender)
        if fetch.missing >= set(self._client.stores):
            del self._fetches[message.sha256]
            for token in fetch.tokens:
                self._client.out.answers.append(Answer(token, Absent()))
        elif sender == fetch.store:
            self._elsewhere(message.sha256, fetch)

    def _elsewhere(self, name: str, fetch: Fetching) -> None:
        fetch.store = self._client.next_store(after=fetch.store)
        fetch.sent_at = self._client.now
        self._client._send(fetch.store, ChunkGet(sha256=name))

    # -- patience --------------------------------------------------------------------------------

    def tick(self) -> None:
        """Send again what got lost; give up what took too long."""
        now = self._client.now
        for name in sorted(self._uploads):
            upload = self._uploads[name]
            if now >= upload.deadline:
                missing = ", ".join(sorted(upload.waiting))
                for store in sorted(upload.waiting):
                    self._release(store, name)
                reason = f"{missing} did not store a chunk in {_UPLOAD_MS // 1000} s"
                self._end_upload(name, Unavailable(reason, "no command was sent"))
                continue
            for store in sorted(upload.waiting):
                sent_at = upload.sent_at.get(store)
                if sent_at is not None and now - sent_at >= _AGAIN_MS:
                    upload.sent_at[store] = now
                    self._client._send(store, upload.put)
        for name in sorted(self._fetches):
            fetch = self._fetches[name]
            if now >= fetch.deadline:
                del self._fetches[name]
                gone = Unavailable(f"{fetch.store} did not send a chunk", "a read")
                for token in fetch.tokens:
                    self._client.out.answers.append(Answer(token, gone))
            elif now - fetch.sent_at >= _FETCH_AGAIN_MS:
                self._elsewhere(name, fetch)
        for store in sorted(self._queues):
            self._pump(store)
