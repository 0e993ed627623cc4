"""HTTP byte by byte, for requests that no client library sends."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """One answer; its status is 0 if none came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> str:
        """The last part of the problem's type; empty if it is none."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        told: dict[str, Any] = json.loads(self.body)
        assert told["status"] == self.status
        return str(told["type"]).removeprefix("urn:synod:problem:")


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        """Send bytes, whether the server takes them or not."""
        self._writer.write(data)

    async def flood(self, piece: bytes, most_bytes: int) -> int:
        """Send `piece` again and again until the server takes no more; how many bytes it took."""
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < most_bytes and not self._reader.at_eof():
                self._writer.write(piece)
                sent += len(piece)
                await self._writer.drain()
        return sent

    async def answer(self, *, bodyless: bool = False) -> Answer:
        """The next answer."""
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            length = 0 if bodyless else int(headers.get("content-length", 0))
            body = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return Answer(0, {}, b"")
        return Answer(int(lines[0].split()[1]), headers, body)

    async def ask(self, method: str, target: str, *headers: str, body: bytes = b"") -> Answer:
        """Send a request and wait for its answer."""
        self.send(head(method, target, *headers) + body)
        return await self.answer(bodyless=method == "HEAD")

    async def rest(self) -> bytes:
        """The bytes until the server closes the connection."""
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""

    async def some(self) -> bytes:
        """The next bytes."""
        return await self._reader.read(65_536)

    def end(self) -> None:
        """Close the sending side."""
        self._writer.write_eof()

    def abort(self) -> None:
        """Go away at once."""
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(port: int, address: str = "127.0.0.1") -> AsyncIterator[Client]:
    """A connection from `address`, another one of this machine if need be."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


def head(method: str, target: str, *headers: str, version: str = "1.1") -> bytes:
    """The head of a request. `headers` may name another host than localhost."""
    if not any(header.lower().startswith("host:") for header in headers):
        headers = ("host: localhost", *headers)
    return "\r\n".join([f"{method} {target} HTTP/{version}", *headers, "", ""]).encode()
