"""Uploads and downloads of file contents, chunk by chunk, within a bound on memory.

All uploads together hold at most `upload_memory_bytes` in memory, and so do all downloads
(`MemoryBudget`). Clients may be arbitrarily slow, so a chunk that waits for a client must not block
requests that wait only for the cluster:

- Incomplete chunks may use at most half of the memory. Beyond that they are collected on the disk
  (`SpillFile`); a completed chunk is read back into memory, in turn, while the cluster stores it.
- A chunk that its reader does not take moves to the disk as soon as other requests want the memory,
  and is sent from there in small pieces. Chunks that were prefetched for that reader are dropped.
- A client below the minimum rate is given up (`WaitAllowance`): 408, or a closed connection.
- Memory is granted first come, first served, and each request asks for one chunk at a time. A
  request that gets no turn in time, or finds no space on the disk either, fails promptly with 503.

So a slow connection costs two small pieces of memory, and at most one chunk on the disk.
"""

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from starlette.types import Receive

from actors.store.chunks import read_manifest
from actors.values import (
    CHUNK_BYTES,
    CHUNKS_IN_COMMAND,
    Chunked,
    Content,
    Indirect,
    Inline,
    StoredContent,
)
from gateway.cluster import Cluster
from gateway.http.chunk_keeping import (
    DOWNLOAD_SCHEDULE,
    KeptChunks,
    keep_chunks,
    raise_first_error,
    upload_schedule,
)
from gateway.http.chunk_relay import IncomingChunk, OutgoingChunk, Reader, Sink
from gateway.http.client_timeouts import WaitAllowance
from gateway.http.memory_budget import TURN_TIMEOUT_S, MemoryBudget, no_capacity
from gateway.http.problems import TOO_LARGE, UNAVAILABLE, Problem
from gateway.http.request_body import RequestBody
from gateway.http.small_contents import SmallContents
from gateway.http.spill import SpillFile
from gateway.settings import Settings

TEXT_BYTES_MAX = 2 * 1024 * 1024
"""The largest body that is not a file's contents."""

_IN_FLIGHT = 4
"""Chunks that one upload sends to the stores at a time."""

_PREFETCH = 2
"""Chunks that one download prefetches."""

_SPILLED_PER_MEMORY = 64
"""How much may wait on the disk, as a multiple of the memory: with the defaults 1 GiB, the chunks
of 1,024 slow clients."""

_CHUNK_SIZES_KEPT = 4096

FetchChunk = Callable[[str], Coroutine[Any, Any, bytes]]
"""Fetches the bytes of a chunk. Raises `Problem`."""


class ContentTransfer:
    """Cuts bodies into chunks and puts chunks together again; one for a gateway."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._chunk_bytes = settings.chunk_bytes
        self._inline_bytes = settings.inline_bytes
        self._greatest_bytes = settings.greatest_file_bytes
        self._timeout_s = settings.body_timeout_ms / 1000
        self.incoming = MemoryBudget(settings.upload_memory_bytes)
        self.outgoing = MemoryBudget(settings.upload_memory_bytes)
        self.spill = SpillFile(
            settings.data,
            max(CHUNK_BYTES, TEXT_BYTES_MAX),
            _SPILLED_PER_MEMORY * settings.upload_memory_bytes // CHUNK_BYTES,
            settings.disk_reserve_bytes,
        )
        self._small = SmallContents()
        self._chunk_sizes: dict[str, int] = {}
        self._uploading = upload_schedule(settings.chunk_grace_ms)

    def uploading(self) -> AbstractAsyncContextManager[KeptChunks]:
        """The stores keep the chunks uploaded within the block until its end, when the command that
        names them has been decided.
        """
        return keep_chunks(self._cluster, self._uploading)

    def downloading(self) -> AbstractAsyncContextManager[KeptChunks]:
        """Files opened within the block stay readable until its end, even if they are replaced."""
        return keep_chunks(self._cluster, DOWNLOAD_SCHEDULE)

    async def store_body(
        self, fields: dict[str, str], receive: Receive, kept: KeptChunks
    ) -> Content:
        """Read the body of a request. Larger contents are durable on return, and on the stores for
        as long as `kept` lasts. Raises `Problem`.
        """
        body = RequestBody(fields, receive, self._greatest_bytes, self._timeout_s, self._too_large)
        if (body.expected or 0) > self._inline_bytes and not self._has_room():
            raise no_capacity("too many slow bodies")  # Before the client sends it.
        head = bytearray()
        while not body.complete and len(head) <= self._inline_bytes:
            head += await body.piece()
        if len(head) <= self._inline_bytes:
            data = bytes(head)
            return Inline(sha256=hashlib.sha256(data).hexdigest(), data=data)
        try:
            return await self._upload(bytes(head), body, kept)
        except ExceptionGroup as group:
            # Chunks fail together when the cluster can't be reached; the client needs one reason.
            raise_first_error(group)

    async def text(
        self,
        fields: dict[str, str],
        receive: Receive,
        bytes_max: int,
        too_large: Callable[[], Problem],
    ) -> bytes:
        """Read a body that is not a file's contents. Raises `Problem`."""
        assert bytes_max <= TEXT_BYTES_MAX, bytes_max
        body = RequestBody(fields, receive, bytes_max, self._timeout_s, too_large)
        chunk = self._incoming_chunk()
        try:
            while not body.complete:
                await chunk.add(await body.piece())
            data = await chunk.complete()
        finally:
            chunk.drop()
        # From here on the request waits only for the cluster, no longer for the client.
        self.incoming.release(len(data))
        return data

    async def keep(self, data: bytes, kept: KeptChunks) -> Content:
        """As `store_body`, for contents that are in memory already. Raises `Problem`."""

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": data, "more_body": False}

        return await self.store_body({}, receive, kept)

    async def small(self, content: StoredContent) -> bytes | None:
        """The whole contents, if they are as small as those inside a command; else `None`.

        They are read at once, so no store has to keep them for longer. Raises `Problem`.
        """
        if not isinstance(content, Chunked) or content.size > self._inline_bytes:
            return None
        if not content.size:
            return b""
        if len(content.chunks) != 1:
            return None
        name = content.chunks[0]
        data = self._small.get(name)
        if data is None:
            data = await self._fetch(name)
            if len(data) <= self._inline_bytes:  # What the entry says of it may be wrong.
                self._small.keep(name, data)
        if len(data) < content.size:
            raise _not_whole(f"its chunk has {len(data)} bytes")
        return data

    async def chunk_names(self, content: StoredContent, kept: KeptChunks) -> tuple[str, ...]:
        """The chunks of a file, in order, to be read while `kept` lasts. Raises `Problem`."""
        if isinstance(content, Chunked):
            kept.add(content.chunks)
            return content.chunks
        kept.add((content.manifest,))
        listing = read_manifest(await self._fetch_in_turn(content.manifest, CHUNK_BYTES))
        self.outgoing.release(CHUNK_BYTES)
        if listing is None:
            raise _not_whole(f"the chunk {content.manifest} is no list of chunks")
        return listing.names

    async def send_chunks(
        self, names: tuple[str, ...], size: int, start: int, length: int, sink: Sink
    ) -> None:
        """Pass `length` bytes of the chunks `names`, from the byte `start` on, to `sink`.

        They belong to a file of `size` bytes. Prefetches a little. `sink` is awaited for one piece
        after the other. Raises `Problem`, `ClientTooSlow`.
        """
        allowance = WaitAllowance(self._timeout_s)
        ahead = _Prefetcher(
            names, min(size, CHUNK_BYTES), self._fetch, self.outgoing, self._timeout_s
        )
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    reader: Reader = "unknown"
                    while length and (data := await ahead.next(group)) is not None:
                        if ahead.is_empty and len(data) < start + length:
                            self.outgoing.release(len(data))
                            raise _not_whole(f"the last one has only {len(data)} bytes")
                        stop = max(start, min(len(data), start + length))
                        chunk = self._outgoing_chunk(data, len(data), ahead.drop)
                        data = None  # Else it stays in memory for as long as this waits.
                        reader = await chunk.send(start, stop, sink, allowance, reader)
                        ahead.eager = reader == "fast"
                        length -= stop - start
                        start = 0
                finally:
                    ahead.drop()
        except ExceptionGroup as problems:
            raise_first_error(problems)

    async def send_bytes(self, data: bytes, taken: int, sink: Sink) -> None:
        """Pass `data` to `sink`, and release the `taken` bytes of `outgoing` that hold it.

        Raises `Problem`, `ClientTooSlow`.
        """
        chunk, size = self._outgoing_chunk(data, taken, _nothing), len(data)
        del data  # Else it stays in memory for as long as this waits.
        try:
            await chunk.send(0, size, sink, WaitAllowance(self._timeout_s), "unknown")
        except ExceptionGroup as problems:
            raise_first_error(problems)

    async def chunks_of_range(
        self, names: tuple[str, ...], start: int, stop: int
    ) -> tuple[tuple[str, ...], int]:
        """The chunks that hold the bytes from `start` to `stop`, and how many bytes to skip.

        All chunks but the last have one size, which was a setting when the file was written.
        """
        if len(names) <= 1:
            return names, start
        each = self._chunk_sizes.get(names[0])
        if each is None:
            each = len(await self._fetch_in_turn(names[0], CHUNK_BYTES))
            self.outgoing.release(CHUNK_BYTES)
            if len(self._chunk_sizes) >= _CHUNK_SIZES_KEPT:
                self._chunk_sizes.clear()
            self._chunk_sizes[names[0]] = each
        if not each:
            raise _not_whole(f"the chunk {names[0]} is empty")
        first = start // each
        return names[first : (stop - 1) // each + 1], start - first * each

    def _incoming_chunk(self) -> IncomingChunk:
        # A body that has arrived is worth a longer wait than a response that has not begun.
        return IncomingChunk(self.incoming, self.spill, self._timeout_s)

    def _outgoing_chunk(
        self, data: bytes, taken: int, on_slow: Callable[[], None]
    ) -> OutgoingChunk:
        return OutgoingChunk(data, taken, self.outgoing, self.spill, on_slow)

    def _too_large(self) -> Problem:
        return Problem(
            TOO_LARGE,
            f"a file may have at most {self._greatest_bytes} bytes (the setting max_file_bytes)",
            fields={"greatest_file_bytes": self._greatest_bytes},
        )

    def _has_room(self) -> bool:
        return self.incoming.allows_partial(self._inline_bytes) or not self.spill.full

    async def _upload(self, rest: bytes, body: RequestBody, kept: KeptChunks) -> Content:
        whole = hashlib.sha256()
        size = 0
        names: list[str] = []
        in_flight = asyncio.Semaphore(_IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            while rest or not body.complete:
                await in_flight.acquire()
                chunk = self._incoming_chunk()
                try:
                    rest = await self._fill_chunk(chunk, rest, body)
                    data = await chunk.complete()
                finally:
                    chunk.drop()
                if not data:  # The last piece was empty: the end of the body.
                    break
                whole.update(data)
                size += len(data)
                name = hashlib.sha256(data).hexdigest()
                names.append(name)
                kept.add((name,))
                task = group.create_task(self._cluster.upload(name, data, manifest=False))
                # Not in the task itself: one that is cancelled before it starts runs no code.
                task.add_done_callback(partial(self._on_stored, in_flight, len(data)))
                del data, task
        digest = whole.hexdigest()
        if len(names) <= CHUNKS_IN_COMMAND:
            return Chunked(size=size, sha256=digest, chunks=tuple(names))
        listing = json.dumps(names, separators=(",", ":")).encode()
        manifest = hashlib.sha256(listing).hexdigest()
        await self.incoming.acquire(len(listing), self._timeout_s)
        try:
            await self._cluster.upload(manifest, listing, manifest=True)
        finally:
            self.incoming.release(len(listing))
        kept.replace_by_manifest(manifest, names)
        return Indirect(size=size, sha256=digest, manifest=manifest)

    async def _fill_chunk(self, chunk: IncomingChunk, rest: bytes, body: RequestBody) -> bytes:
        """Fill one chunk, first from `rest`; returns the bytes after it. Raises `Problem`."""
        while True:
            room = self._chunk_bytes - chunk.size
            if rest:
                await chunk.add(rest[:room])
                rest = rest[room:]
            if rest or body.complete or chunk.size == self._chunk_bytes:
                return rest
            rest = await body.piece()

    def _on_stored(self, in_flight: asyncio.Semaphore, size: int, _: object) -> None:
        self.incoming.release(size)
        in_flight.release()

    async def _fetch(self, name: str) -> bytes:
        data = await self._cluster.fetch(name)
        if data is None:
            raise Problem(
                UNAVAILABLE,
                f"No store of the view holds the chunk {name} of this file.",
                headers={"retry-after": "1"},
                fields={"chunk": name},
            )
        return data

    async def _fetch_in_turn(self, name: str, taken: int) -> bytes:
        """As `_fetch`, into `taken` bytes of the memory, which the caller then owns."""
        await self.outgoing.acquire(taken, TURN_TIMEOUT_S)
        try:
            return await self._fetch(name)
        except BaseException:
            self.outgoing.release(taken)
            raise


class _Prefetcher:
    """The chunks that one download fetches ahead, of at most `each` bytes.

    Each takes memory before it is requested: the next one waits for its turn, those behind it are
    requested only if there is memory without a wait.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        each: int,
        fetch: FetchChunk,
        memory: MemoryBudget,
        timeout_s: float,
    ) -> None:
        self.eager = False
        """Whether the reader is known to be fast: only for such a reader chunks are prefetched."""
        self._names = names
        self._each = each
        self._fetch = fetch
        self._memory = memory
        self._timeout_s = timeout_s
        self._position = 0
        self._asked: deque[asyncio.Task[bytes]] = deque()

    async def next(self, group: asyncio.TaskGroup) -> bytes | None:
        """The next chunk, if there is one; from now on the caller owns its memory.

        Raises `Problem`.
        """
        if not self._asked:
            if self._position == len(self._names):
                return None
            await self._memory.acquire(
                self._each, self._timeout_s if self._position else TURN_TIMEOUT_S
            )
            self._prefetch_next(group)
        while (
            self.eager
            and self._position < len(self._names)
            and len(self._asked) <= _PREFETCH
            and self._memory.try_acquire(self._each)
        ):
            self._prefetch_next(group)
        data = await self._asked[0]
        self._asked.popleft()
        self._memory.release(self._each - len(data))
        return data

    @property
    def is_empty(self) -> bool:
        """Whether the latest chunk is the last one."""
        return not self._asked and self._position == len(self._names)

    def drop(self) -> None:
        """Drop the prefetched chunks: they are requested again in their turn."""
        self._position -= len(self._asked)
        for task in self._asked:
            task.cancel()
            self._memory.release(self._each)
        self._asked.clear()

    def _prefetch_next(self, group: asyncio.TaskGroup) -> None:
        self._asked.append(group.create_task(self._fetch(self._names[self._position])))
        self._position += 1


def _not_whole(why: str) -> Problem:
    """A file is damaged: no gateway wrote it so. Raised before the response's head if possible."""
    return Problem(
        UNAVAILABLE,
        f"The file can't be read, as its chunks are not what its size says: {why}.",
        headers={"retry-after": "1"},
    )


def _nothing() -> None:
    pass
