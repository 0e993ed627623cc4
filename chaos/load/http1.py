"""A minimal HTTP/1.1 client: one connection, one request at a time, no more parsed than is used.

A load generator shares the machine with what it measures; a general client would use more
processor time than the gateway.
"""

import asyncio
import ssl
from collections.abc import Sequence
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from synod.tls import ClientTls

CONNECT_TIMEOUT_S = 5.0

_COPIED_BYTES_MAX = 64 * 1024
"""A body up to this size leaves in one packet with its head; a larger one is not copied for that.
"""

_HEAD_END = b"\r\n\r\n"


class _Server(NamedTuple):
    """Where a server listens, and how to speak TLS with it, if so."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class Disconnected(ConnectionError):
    """The connection ended before the answer; whether the request took effect is not known."""


class Reply:
    """One answer: its status, its head as it came, its body."""

    __slots__ = ("body", "head", "status")

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head = head
        self.body = body
        self.status = int(head[9:12])

    def header(self, name: str) -> str:
        """A header's value; empty if it is missing."""
        return _header(self.head, name.encode().lower())


class Connection(asyncio.Protocol):
    """A connection that is kept alive, and made again after it was lost.

    With several servers it stays with one as long as that one takes connections.
    """

    def __init__(self, servers: Sequence[_Server]) -> None:
        self._servers = list(servers)
        """The current one first."""
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._body_starts = -1
        self._reply_ends = -1
        self._bodyless = False
        self._waiting: asyncio.Future[Reply] | None = None

    @classmethod
    def to(cls, *urls: str) -> Self:
        """A connection, not made yet, to the server of the first of `urls` that takes one.

        For https the environment names the certificates: see `synod.tls`.
        """
        parts = [urlsplit(url) for url in dict.fromkeys(urls)]
        tls = None
        if any(part.scheme == "https" for part in parts):
            tls = ClientTls.of(None, None, None).context(trust_env=True)
        return cls(
            [
                _Server(part.hostname or "127.0.0.1", part.port or 443, tls)
                if part.scheme == "https"
                else _Server(part.hostname or "127.0.0.1", part.port or 80, None)
                for part in parts
            ]
        )

    async def request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: str = "",
        *,
        timeout_s: float = 30.0,
    ) -> Reply:
        """Send a request and return its answer.

        `headers` is whole lines that end with CRLF. Raises `Disconnected`; `ConnectionError` if no
        server took a connection, so that the request certainly took no effect.
        """
        transport = await self._connected()
        self._bodyless = method == "HEAD"
        host, port, _ = self._servers[0]
        head = (
            f"{method} {target} HTTP/1.1\r\nhost: {host}:{port}\r\n"
            f"content-length: {len(body)}\r\n{headers}\r\n"
        )
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        patience = loop.call_later(timeout_s, self._give_up)
        try:
            if len(body) > _COPIED_BYTES_MAX:
                transport.write(head.encode())
                transport.write(body)
            else:
                transport.write(head.encode() + body)
            return await self._waiting
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            patience.cancel()
            self._waiting = None

    def close(self) -> None:
        """End the connection at once; the next request makes a new one."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _connected(self) -> asyncio.Transport:
        if self._transport is not None and not self._transport.is_closing():
            return self._transport
        self._forget()
        failures = []
        for server in tuple(self._servers):
            try:
                return await self._connect(server)
            except OSError as error:
                failures.append(f"{error}" or f"no connection within {CONNECT_TIMEOUT_S:g} s")
                self._servers.append(self._servers.pop(0))
        raise ConnectionError("; ".join(failures))

    async def _connect(self, server: _Server) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            self._transport, _ = await loop.create_connection(
                lambda: self, server.host, server.port, ssl=server.tls
            )
        return self._transport

    def _give_up(self) -> None:
        self.close()
        self._fail("no answer in time")

    def _fail(self, why: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Disconnected(why))

    def _forget(self) -> None:
        self._buffer.clear()
        self._body_starts = self._reply_ends = -1

    # ── asyncio's side ────────────────────────────────────────────────────────

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""
        self._transport = None
        self._fail(f"{exc}" if exc else "the server closed the connection")

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        buffer = self._buffer
        buffer += data
        if self._reply_ends < 0:
            found = buffer.find(_HEAD_END)
            if found < 0:
                return
            self._body_starts = found + len(_HEAD_END)
            length = "0" if self._bodyless else _header(bytes(buffer[:found]), b"content-length")
            self._reply_ends = self._body_starts + int(length or 0)
        if len(buffer) < self._reply_ends:
            return
        head = bytes(buffer[: self._body_starts])
        reply = Reply(head, bytes(buffer[self._body_starts : self._reply_ends]))
        self._forget()
        if _header(head, b"connection") == "close":
            self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(reply)


def _header(head: bytes, name: bytes) -> str:
    start = head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return ""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return (head[start:] if end < 0 else head[start:end]).strip().decode("latin-1")
