"""Request bodies: which kinds there are, how they are read in pieces, and which can be resent."""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import httpx

from synod.errors import SourceChanged

READ_BYTES = 256 * 1024
REPLAYED_BYTES_MAX = 4 * 1024 * 1024
"""How much of a stream is kept to be sent again. A longer stream is sent only once."""

OnBytes = Callable[[int], None]
"""Receives how many more bytes were sent; a negative number takes back bytes to be sent again."""


@dataclass(frozen=True, slots=True)
class Source:
    """A body of known size that can be read more than once.

    `changed` returns what changed about it since its size was determined, or an empty text. It is
    called before the last piece is sent: a gateway that lacks the end of a body writes nothing.
    """

    size: int
    open: Callable[[], BinaryIO]
    changed: Callable[[], str] = str

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The contents of a local file as it is now."""
        before = os.stat(path)

        def changed() -> str:
            return difference(before, os.stat(path))

        return cls(before.st_size, lambda: path.open("rb"), changed)


def difference(before: os.stat_result, now: os.stat_result) -> str:
    """How a file changed between two calls of stat; empty if it is the same, unchanged file.

    Unlike the modification time, the time of the last status change (ctime) can't be set back.
    """
    if (before.st_dev, before.st_ino) != (now.st_dev, now.st_ino):
        return "another file took its place while it was read"
    if before.st_size != now.st_size:
        change = "grew" if now.st_size > before.st_size else "shrank"
        return f"it {change} from {before.st_size} to {now.st_size} bytes while it was read"
    if (before.st_mtime_ns, before.st_ctime_ns) != (now.st_mtime_ns, now.st_ctime_ns):
        return "it was changed while it was read"
    return ""


class Stream:
    """A body that can be read only once, such as a pipe. Its beginning is kept for a retry."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._ended = False
        self.whole = True
        """Whether everything that was read is kept, so that it can be sent again."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._kept:
            yield piece
        while not self._ended:
            piece = await _read(self._file)
            self._ended = not piece
            if piece:
                self._keep(piece)
                yield piece

    def _keep(self, piece: bytes) -> None:
        self._kept_bytes += len(piece)
        if self._kept_bytes > REPLAYED_BYTES_MAX:
            self.whole = False
            self._kept.clear()
        else:
            self._kept.append(piece)


Body = bytes | Source | BinaryIO
"""What `put` accepts. The beginning of an open file is kept, see `REPLAYED_BYTES_MAX`."""


class Pieces(httpx.AsyncByteStream):
    """One attempt's reading of a body, piece by piece while it is sent."""

    def __init__(self, body: bytes | Source | Stream, on_bytes: OnBytes | None) -> None:
        self._body = body
        self._on_bytes = on_bytes
        self._sent = 0
        self.complete = False
        """Whether the end of the body was sent. Until then no gateway has written anything."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._read():
            yield piece
            self._sent += len(piece)
            if self._on_bytes is not None:
                self._on_bytes(len(piece))
        self.complete = True

    def take_back(self) -> None:
        """Report the bytes of this attempt as not sent, because the attempt failed."""
        if self._on_bytes is not None and self._sent:
            self._on_bytes(-self._sent)

    async def _read(self) -> AsyncIterator[bytes]:
        body = self._body
        if isinstance(body, bytes):
            self.complete = True
            yield body
        elif isinstance(body, Stream):
            async for piece in body:
                yield piece
        else:
            with body.open() as file:
                left = body.size
                while left:
                    piece = file.read(min(READ_BYTES, left))
                    if not piece:
                        raise _changed(f"it has only {body.size - left} of {body.size} bytes now")
                    left -= len(piece)
                    if not left:
                        self._check_end(body, file)
                    yield piece
                if not body.size:
                    self._check_end(body, file)

    def _check_end(self, source: Source, file: BinaryIO) -> None:
        reason = source.changed()
        if not reason and file.read(1):
            reason = f"it has more than {source.size} bytes now"
        if reason:
            raise _changed(reason)
        self.complete = True


def _changed(reason: str) -> SourceChanged:
    return SourceChanged(f"{reason}; nothing was written, and what was there before stays")


async def _read(file: BinaryIO) -> bytes:
    """The next bytes. Reads of an unbuffered file are awaited, so that reading a pipe that may
    never deliver anything can be cancelled.
    """
    if not isinstance(file, io.RawIOBase):
        return file.read(READ_BYTES)
    while True:
        await _readable(file.fileno())
        piece = file.read(READ_BYTES)
        if piece is not None:
            return bytes(piece)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except OSError:
        return  # Regular files and some devices are always readable.
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
