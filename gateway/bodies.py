"""Bodies on their way to a gateway: what can be sent, in pieces, and what can be sent again."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import httpx

_READ_BYTES = 256 * 1024

OnBytes = Callable[[int], None]
"""Told how many more bytes went through; a negative number takes back what is sent again."""


@dataclass(frozen=True, slots=True)
class Source:
    """A body that can be read more than once, of a size that is known."""

    size: int
    open: Callable[[], BinaryIO]

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The contents of a local file."""
        return cls(path.stat().st_size, lambda: path.open("rb"))


Body = bytes | Source | BinaryIO
"""What can be put. An open file is read once, so a write of it is never sent twice."""


class Pieces(httpx.AsyncByteStream):
    """A body, read piece by piece while it is sent."""

    def __init__(self, body: Body, on_bytes: OnBytes | None) -> None:
        self._body = body
        self._on_bytes = on_bytes
        self._sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._read():
            yield piece
            self._sent += len(piece)
            if self._on_bytes is not None:
                self._on_bytes(len(piece))

    def take_back(self) -> None:
        """What was sent so far did not count."""
        if self._on_bytes is not None and self._sent:
            self._on_bytes(-self._sent)

    def _read(self) -> Iterator[bytes]:
        body = self._body
        if isinstance(body, bytes):
            yield body
        elif isinstance(body, Source):
            with body.open() as file:
                yield from iter(lambda: file.read(_READ_BYTES), b"")
        else:
            yield from iter(lambda: body.read(_READ_BYTES), b"")
