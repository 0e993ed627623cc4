"""A minimal HTTP/1.1 client: one connection, one request at a time, no more parsed than is used.

A load generator shares the machine with what it measures; a general client would use more
processor time than the gateway.
"""

import asyncio
from typing import Self
from urllib.parse import urlsplit

_HEAD_END = b"\r\n\r\n"


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
    """A connection that is kept alive, and made again after it was lost."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._name = f"{host}:{port}".encode()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._body_starts = -1
        self._reply_ends = -1
        self._bodyless = False
        self._waiting: asyncio.Future[Reply] | None = None

    @classmethod
    def to(cls, url: str) -> Self:
        """A connection, not made yet, to the server of `url`."""
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 80)

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
        connection was made, so that the request certainly took no effect.
        """
        transport = await self._connected()
        self._bodyless = method == "HEAD"
        head = (
            f"{method} {target} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"content-length: {len(body)}\r\n{headers}\r\n"
        )
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        patience = loop.call_later(timeout_s, self._give_up)
        try:
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
        if self._transport is None or self._transport.is_closing():
            self._forget()
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(5.0):
                    self._transport, _ = await loop.create_connection(
                        lambda: self, self._host, self._port
                    )
            except TimeoutError:
                raise ConnectionError("no connection within 5 s") from None
            except OSError as error:
                raise ConnectionError(f"{error}") from error
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
