"""Contents on their way in and out: in pieces, with a bound on what is in memory at once."""

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.types import Receive

from actors.chunks import read_manifest
from actors.values import CHUNKS_IN_COMMAND, Chunked, Content, Indirect, Inline, StoredContent
from gateway.cluster import Cluster
from gateway.keeping import DOWNLOADS, Kept, first_of, keeping, uploads
from gateway.problems import (
    BODY_TIMEOUT,
    INCOMPLETE_BODY,
    INVALID_HEADER,
    TOO_LARGE,
    UNAVAILABLE,
    Problem,
)
from gateway.settings import Settings

_IN_FLIGHT = 4
"""Chunks that one upload has under way."""

_PREFETCH = 2
"""Chunks that one download asks for ahead."""

_PIECE_BYTES = 128 * 1024
"""What is handed to a connection at once, so that a slow reader holds no more than that."""

_CHUNK_SIZES_KEPT = 4096

Sink = Callable[[memoryview], Awaitable[None]]
"""Takes a piece of a download; returns when there is room for the next one."""


class Contents:
    """Cuts bodies into chunks and puts chunks together again; one for a gateway.

    Every chunk in memory takes a permit, so that many large files at once wait for each other
    instead of filling the memory.
    """

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        permits = max(_IN_FLIGHT, settings.upload_memory_bytes // settings.chunk_bytes)
        self._cluster = cluster
        self._chunk_bytes = settings.chunk_bytes
        self._inline_bytes = settings.inline_bytes
        self._greatest_bytes = settings.greatest_file_bytes
        self._timeout_s = settings.body_timeout_ms / 1000
        self._uploads = asyncio.Semaphore(permits)
        self._downloads = asyncio.Semaphore(permits)
        self._chunk_sizes: dict[str, int] = {}
        self._uploading = uploads(settings.chunk_grace_ms)

    def uploading(self) -> AbstractAsyncContextManager[Kept]:
        """What is taken in within the block stays on the stores until its end, where the command
        that names it is decided.
        """
        return keeping(self._cluster, self._uploading)

    def downloading(self) -> AbstractAsyncContextManager[Kept]:
        """What is named within the block can be read until its end, also if it is replaced."""
        return keeping(self._cluster, DOWNLOADS)

    async def take_in(self, fields: dict[str, str], receive: Receive, kept: Kept) -> Content:
        """Read the body of a request. Larger contents are durable on return, and on the stores for
        as long as `kept` lasts. Raises `Problem`.
        """
        expected = self._expected_bytes(fields)
        body = _Body(receive, expected, self._greatest_bytes, self._timeout_s)
        head = bytearray()
        while not body.complete and len(head) <= self._inline_bytes:
            head += await body.piece()
        if len(head) <= self._inline_bytes:
            data = bytes(head)
            return Inline(sha256=hashlib.sha256(data).hexdigest(), data=data)
        try:
            return await self._upload(head, body, kept)
        except ExceptionGroup as group:
            # Chunks fail together when the cluster is away; one reason is enough for the client.
            raise first_of(group) from group

    async def keep(self, data: bytes, kept: Kept) -> Content:
        """Contents that are in memory already, as `take_in`. Raises `Problem`."""

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": data, "more_body": False}

        return await self.take_in({}, receive, kept)

    async def chunk_names(self, content: StoredContent, kept: Kept) -> tuple[str, ...]:
        """The chunks of a file, in order, to be read while `kept` lasts. Raises `Problem`."""
        if isinstance(content, Chunked):
            if content.size > self._inline_bytes:  # A smaller one is read at once.
                kept.add(content.chunks)
            return content.chunks
        kept.add((content.manifest,))
        listing = read_manifest(await self._fetch(content.manifest))
        if listing is None:
            raise _not_whole(f"the chunk {content.manifest} is no list of chunks")
        return listing.names

    async def give_out(self, names: tuple[str, ...], start: int, length: int, sink: Sink) -> None:
        """Hand `length` bytes of the chunks `names`, from the byte `start` on, to `sink`.

        Fetches a little ahead. `sink` is awaited for one piece after the other. Raises `Problem`.
        """
        if len(names) == 1 and length <= self._inline_bytes:
            only = await self._fetch(names[0])
            if len(only) < start + length:
                raise _not_whole(f"its chunk has {len(only)} bytes")
            await sink(memoryview(only)[start : start + length])
            return
        ahead: deque[asyncio.Task[bytes]] = deque()
        position = 0
        try:
            async with asyncio.TaskGroup() as group:
                while position < len(names) or ahead:
                    # Who holds a chunk goes on with it rather than wait for a permit: else all
                    # could wait for each other.
                    while (
                        position < len(names)
                        and len(ahead) <= _PREFETCH
                        and not (ahead and self._downloads.locked())
                    ):
                        await self._downloads.acquire()
                        ahead.append(group.create_task(self._fetch(names[position])))
                        position += 1
                    data = memoryview(await ahead[0])[start : start + length]
                    if len(ahead) == 1 and position == len(names) and len(data) < length:
                        raise _not_whole(f"the last one lacks {length - len(data)} bytes")
                    start = 0
                    length -= len(data)
                    for offset in range(0, len(data), _PIECE_BYTES):
                        async with asyncio.timeout(self._timeout_s):
                            await sink(data[offset : offset + _PIECE_BYTES])
                    del data
                    ahead.popleft()
                    self._downloads.release()
        except ExceptionGroup as problems:
            raise first_of(problems) from problems
        finally:
            for _ in ahead:
                self._downloads.release()

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
            if len(self._chunk_sizes) >= _CHUNK_SIZES_KEPT:
                self._chunk_sizes.clear()
            each = self._chunk_sizes[names[0]] = len(await self._fetch(names[0]))
        if not each:
            raise _not_whole(f"the chunk {names[0]} is empty")
        first = start // each
        return names[first : (stop - 1) // each + 1], start - first * each

    def _expected_bytes(self, fields: dict[str, str]) -> int | None:
        length = fields.get("content-length")
        if length is None:
            return None
        if not (length.isascii() and length.isdecimal()):
            raise Problem(INVALID_HEADER, f"Content-Length is {length[:40]!r}")
        if len(length) > 18 or int(length) > self._greatest_bytes:
            raise _too_large(self._greatest_bytes)
        return int(length)

    async def _upload(self, head: bytearray, body: "_Body", kept: Kept) -> Content:
        whole = hashlib.sha256()
        size = 0
        names: list[str] = []
        in_flight = asyncio.Semaphore(_IN_FLIGHT)

        def sent(_: object) -> None:
            self._uploads.release()
            in_flight.release()

        async with asyncio.TaskGroup() as group:
            while head or not body.complete:
                await in_flight.acquire()
                await self._uploads.acquire()
                try:
                    while len(head) < self._chunk_bytes and not body.complete:
                        head += await body.piece()
                except BaseException:
                    self._uploads.release()
                    raise
                if not head:  # The last piece was the end of the body and nothing else.
                    self._uploads.release()
                    break
                data = bytes(memoryview(head)[: self._chunk_bytes])
                head = head[self._chunk_bytes :]
                whole.update(data)
                size += len(data)
                name = hashlib.sha256(data).hexdigest()
                names.append(name)
                kept.add((name,))
                task = group.create_task(self._cluster.upload(name, data, manifest=False))
                # Not in the task itself: one that is cancelled before it starts runs no code.
                task.add_done_callback(sent)
                del data, task
        digest = whole.hexdigest()
        if len(names) <= CHUNKS_IN_COMMAND:
            return Chunked(size=size, sha256=digest, chunks=tuple(names))
        listing = json.dumps(names, separators=(",", ":")).encode()
        manifest = hashlib.sha256(listing).hexdigest()
        await self._cluster.upload(manifest, listing, manifest=True)
        kept.list_in(manifest, names)
        return Indirect(size=size, sha256=digest, manifest=manifest)

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


class _Body:
    """The request's body as it arrives; complete only when the client said that it is."""

    def __init__(
        self, receive: Receive, expected: int | None, greatest_bytes: int, timeout_s: float
    ) -> None:
        self.complete = False
        self._receive = receive
        self._expected = expected
        self._greatest_bytes = greatest_bytes
        self._timeout_s = timeout_s
        self._received = 0

    async def piece(self) -> bytes:
        """The next bytes, perhaps none. Raises `Problem`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                message: Any = await self._receive()
        except TimeoutError:
            raise Problem(
                BODY_TIMEOUT,
                f"no byte of the body came for {self._timeout_s:g} s; nothing was written",
                headers={"connection": "close"},
            ) from None
        if message["type"] == "http.disconnect":
            raise self._cut_off()
        piece: bytes = message.get("body", b"")
        self._received += len(piece)
        if self._received > self._greatest_bytes:
            raise _too_large(self._greatest_bytes)
        self.complete = not message.get("more_body", False)
        if self.complete and self._expected not in (None, self._received):
            raise self._cut_off()
        return piece

    def _cut_off(self) -> Problem:
        of = "" if self._expected is None else f" of {self._expected}"
        return Problem(
            INCOMPLETE_BODY,
            f"the body ended after {self._received}{of} bytes; nothing was written",
            headers={"connection": "close"},
        )


def _not_whole(why: str) -> Problem:
    """No gateway wrote it so. Said before the head of the answer is sent, if that can be."""
    return Problem(
        UNAVAILABLE,
        f"The file can't be read, as its chunks are not what its size says: {why}.",
        headers={"retry-after": "1"},
    )


def _too_large(greatest_bytes: int) -> Problem:
    return Problem(
        TOO_LARGE,
        f"a file may have at most {greatest_bytes} bytes (the setting max_file_bytes)",
        fields={"greatest_file_bytes": greatest_bytes},
    )
