"""uvicorn, on a socket of ours, with a few manners that Synod's clients count on."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gateway.problems import HEAD_TOO_LARGE, INCOMPLETE_BODY, INVALID_REQUEST, Problem

HEADER_BYTES_MAX = 64 * 1024
_KEEP_ALIVE_S = 75
_GRACEFUL_SHUTDOWN_S = 5
_JOINED_BYTES_MAX = 16 * 1024


class _Joining:
    """A connection on which the head and the body of a small answer leave as one packet.

    uvicorn writes them one after the other, and uvloop makes a system call of each. What is written
    waits for the end of the event loop's round; more than a little leaves at once.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes | memoryview] = []
        self._waiting_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes | memoryview) -> None:
        """Hand `data` over, in this round."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _JOINED_BYTES_MAX:
            self._flush()

    def close(self) -> None:
        """Close after what was written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if waiting and not self._transport.is_closing():
            self._transport.writelines(waiting)


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with bounded headers, problem+json for what is no HTTP, and half-closed clients.

    A client may close its sending side after its request (`nc -N` does) and still gets its
    answer; one that does so in the middle of a body is told that nothing was written.
    """

    _reading_head = True
    _head_bytes = 0

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        """A client is there."""
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, _Joining(transport, self.loop))

    def on_message_begin(self) -> None:
        """A request starts."""
        self._reading_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head of a request is complete; a body may follow."""
        self._reading_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes came. The parser keeps an unfinished head in memory, of whatever length."""
        super().data_received(data)
        if self._reading_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEADER_BYTES_MAX and not self.transport.is_closing():
                self._refuse(Problem(HEAD_TOO_LARGE, f"it has more than {HEADER_BYTES_MAX} bytes"))

    def eof_received(self) -> Any:
        """The client sends no more; `True` keeps our side open."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            self.transport.close()  # After what may still wait to be written.
            return False
        if not cycle.more_body:
            cycle.keep_alive = False
            return True
        if not cycle.response_started:
            self._refuse(Problem(INCOMPLETE_BODY, "the body was cut off; nothing was written"))
        return False

    def send_400_response(self, msg: str) -> None:
        """The answer to what is no HTTP."""
        self._refuse(Problem(INVALID_REQUEST, msg))

    def _refuse(self, problem: Problem) -> None:
        body = problem.body()
        self.transport.write(
            STATUS_LINE[problem.kind.status]
            + b"content-type: application/problem+json\r\ncontent-length: %d\r\n" % len(body)
            + b"connection: close\r\n\r\n"
            + body
        )
        self.transport.close()


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to whoever runs it; `ended` is set by them, too."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the process's one TaskGroup, not the server alone."""
        yield


def server(app: Any) -> Server:
    """The server for `app`; `serve(sockets=[…])` runs it until `should_exit` is set."""
    return Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACEFUL_SHUTDOWN_S,
        )
    )
