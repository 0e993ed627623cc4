"""uvicorn, on a socket of our own, with bounds on the memory and time that a client can use.

Every buffer of a connection has a bound and every state of it a deadline. All deadlines are checked
together, twice a second, because a timer for each request would cost more.
"""

import asyncio
import ctypes
import functools
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gateway.http.connections import ConnectionLimits, Connections
from gateway.http.problems import (
    BODY_TIMEOUT,
    CROWDED,
    HEAD_TIMEOUT,
    HEAD_TOO_LARGE,
    INCOMPLETE_BODY,
    INVALID_REQUEST,
    Problem,
)
from gateway.http.tls import ServerTls
from gateway.http.tls_listener import Handshake, TlsListener
from observability.logs import Throttle

HEADER_BYTES_MAX = 32 * 1024
"""A path of 4,096 bytes takes up to three times as much, percent-encoded; metadata has 2 KiB."""

HEADERS_MAX = 512
"""A header of four bytes takes forty times as much in memory; 2 KiB of metadata fit."""

STEP_BYTES = 4 * 1024
_PADDING_MAX = 16
"""Bytes of chunk sizes and extensions for each byte of a body; a chunk of one byte has five."""

_LINGER_BYTES_MAX = 8 * 1024 * 1024
"""How much a client may still send after its last response, before it is disconnected."""

_SLOW_BODY_S = 5.0
"""When too many bodies are incomplete, one without progress for this long is refused."""

_GRACEFUL_SHUTDOWN_S = 5
_JOINED_BYTES_MAX = 16 * 1024
_MANY = 64
_TICKS = 5
"""uvicorn ticks ten times a second."""

ADMITTED = "synod.admitted"
"""The key in the scope of a request that the application admitted."""

_RETRY = {"retry-after": "1"}

# A client can cause any of uvicorn's log lines about requests, as often as it likes.
logging.getLogger("uvicorn.error").addFilter(Throttle(lines_per_s=5))

OnRejected = Callable[[str], None]
"""Receives the reason why the server itself refused a request or ended a connection."""


class _CoalescingTransport:
    """A connection that sends the head and the body of a small response as one packet.

    uvicorn writes them one after the other, and uvloop makes a system call for each. Here, small
    writes wait for the end of the event loop's round, and larger ones are sent at once.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self.is_closing = transport.is_closing  # Called several times for each request.
        self._waiting: list[bytes | memoryview] = []
        self._waiting_bytes = 0
        self.written_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes | memoryview) -> None:
        """Send `data` within this round."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _JOINED_BYTES_MAX:
            self._flush()

    def write_eof(self) -> None:
        """End the sending side after the written data. TLS can't: there, the client knows its
        response's end by the length, and the connection's by the header or by `close`.
        """
        self._flush()
        if not self.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()

    def close(self) -> None:
        """Close after the written data."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self.written_bytes += self._waiting_bytes
        self._waiting_bytes = 0
        if waiting and not self.is_closing():
            self._transport.writelines(waiting)


class _Config(uvicorn.Config):
    """uvicorn's state, and the state that the connections of one server share."""

    def __init__(
        self, app: Any, limits: ConnectionLimits, rejected: OnRejected, tls: ServerTls | None
    ) -> None:
        super().__init__(
            app,
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(limits.idle_s) + 1,  # The server's own deadline comes first.
            timeout_graceful_shutdown=_GRACEFUL_SHUTDOWN_S,
        )
        self.held = Connections(limits)
        self.rejected = rejected
        self.tls = tls


class _RequestRejected(Exception):
    """Ends the parsing of a client's data; `HttpProtocol._problem` says why."""


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 with bounds, problem+json for invalid HTTP, and half-closed connections.

    A client may close its sending side after its request (`nc -N` does) and still gets its
    response; if it does so in the middle of a body, the response says that nothing was written.
    """

    config: _Config
    transport: Any  # A `_CoalescingTransport`.
    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # The last one of all.

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.address = ""
        self.handshake: Handshake | None = None
        """That of this connection, which holds its place until `connection_made`."""
        self._held = self.config.held
        self._limits = self._held.limits
        self._problem: Problem | None = None
        self._running: RequestResponseCycle | None = None
        """The request in progress, or the last one; later ones are in the pipeline."""
        self._in_message = False
        self._in_head = False
        self._overhead_bytes = 0
        self._body_bytes = 0
        self._body_in_feed = 0
        self._fields = 0
        self._ended = False
        """The last response has been sent, and nothing more is read."""
        self._unread_bytes = 0
        self._since_s = self.loop.time()
        """When the current wait began: for a head, for a step of a body, for the next request."""
        self._step_bytes = 0
        self._taken_bytes = 0
        self._taken_at_s = 0.0
        self._closing_at_s: float | None = None

    # -- asyncio's side --------------------------------------------------------------------------

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        """A client connected."""
        super().connection_made(transport)
        self.transport = _CoalescingTransport(transport, self.loop)
        self.address = self.client[0] if self.client else ""
        if self.handshake is not None:
            self._held.remove(self.handshake)
        if not self._held.admit(self):
            self.config.rejected("connections")
            self._refuse(
                Problem(CROWDED, "the gateway has as many connections as it may", headers=_RETRY)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is lost, and all its requests with it."""
        super().connection_lost(exc)
        running = self._running
        if running is not None and running is not self.cycle and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        self.pipeline.clear()
        self._held.remove(self)

    def data_received(self, data: bytes) -> None:
        """Bytes arrived. The parser keeps an unfinished line of any length in memory."""
        if self._ended:
            self._unread_bytes += len(data)
            if self._unread_bytes > _LINGER_BYTES_MAX:
                self.transport.close()
            return
        self._unset_keepalive_if_required()
        self._body_in_feed = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It is answered as if it had not asked, and what follows is of another protocol.
            self._end_after_answers()
        except httptools.HttpParserError:
            self._refuse(self._problem or Problem(INVALID_REQUEST, "the request is not valid HTTP"))
        else:
            if self._in_message:
                self._part_came(len(data) - self._body_in_feed)

    def eof_received(self) -> Any:
        """The client closed its sending side; `True` keeps our side open, except with TLS."""
        cycle = self.cycle
        if not self.transport.can_write_eof():
            return False
        if self._ended and (self._running is None or self._running.response_complete):
            self.transport.close()
            return False
        if cycle is None or cycle.response_complete:
            self.transport.close()  # After what may still wait to be written.
            return False
        if not cycle.more_body:
            cycle.keep_alive = False
            return True
        if cycle.response_started:
            return False
        self._refuse(Problem(INCOMPLETE_BODY, "the body was cut off; nothing was written"))
        return True

    # -- the parser's side -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request starts."""
        if len(self.pipeline) >= self._limits.pipelined:
            raise self._refused(Problem(CROWDED, "too many requests wait for an earlier one"))
        self._in_message = self._in_head = True
        self._overhead_bytes = self._body_bytes = self._fields = 0
        self._since_s = self.loop.time()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is ignored. As in uvicorn, except for the bound: this is
        called for every header of every request.
        """
        self._fields += 1
        if self._fields > HEADERS_MAX:
            detail = f"it has more than {HEADERS_MAX} headers and trailers"
            raise self._refused(Problem(HEAD_TOO_LARGE, detail))
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head of a request is complete; a body may follow."""
        self._in_head = False
        size = len(self.url)
        hosts = 0
        body = False
        for name, value in self.headers:
            size += len(name) + len(value)
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
                body = True
        if size > HEADER_BYTES_MAX:
            raise self._refused(_head_too_large())
        # RFC 9112, section 3.2: a server must refuse it, as others may take it for another host's.
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):
            raise self._refused(Problem(INVALID_REQUEST, f"it has {hosts} Host headers, not one"))
        if body and self.parser.should_upgrade():
            # The parser takes what follows for another protocol's, and the body for an empty one.
            detail = "a request with a body can't ask for an upgrade; nothing was written"
            raise self._refused(Problem(INVALID_REQUEST, detail))
        if not self.url.startswith(b"/"):
            self._take_authority()
        super().on_headers_complete()
        self._since_s = self.loop.time()

    def on_body(self, body: bytes) -> None:
        """Bytes of a body arrived."""
        self._body_bytes += len(body)
        self._body_in_feed += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._in_message = False
        if self._step_bytes:
            self._end_body()
        super().on_message_complete()

    def _take_authority(self) -> None:
        """An absolute URL names the host in place of the header (RFC 9112, section 3.2.2)."""
        url: Any = httptools.parse_url(self.url)
        if not url.host:
            raise self._refused(Problem(INVALID_REQUEST, "the target is no path and no URL"))
        host = b"[%s]" % url.host if b":" in url.host else url.host
        authority = host if url.port is None else b"%s:%d" % (host, url.port)
        self.headers[:] = [field for field in self.headers if field[0] != b"host"]
        self.headers.append((b"host", authority))
        self.url = (url.path or b"/") + (b"?" + url.query if url.query else b"")

    def _refused(self, problem: Problem) -> _RequestRejected:
        self._problem = problem
        return _RequestRejected(problem.detail)

    def _part_came(self, overhead_bytes: int) -> None:
        """A part of a request arrived, and more follows."""
        self._overhead_bytes += overhead_bytes
        if self._overhead_bytes > HEADER_BYTES_MAX + _PADDING_MAX * self._body_bytes:
            self._refuse(_head_too_large())
        cycle = self.cycle
        if self._in_head or cycle is None or cycle.response_complete or self._ended:
            return
        if not self._step_bytes:
            self._step_bytes = self._body_bytes + STEP_BYTES
            self._begin_body()
        elif self._body_bytes >= self._step_bytes:
            self._step_bytes = self._body_bytes + STEP_BYTES
            self._since_s = self.loop.time()
            self._held.bodies.move_to_end(self)

    def _end_body(self) -> None:
        self._step_bytes = 0
        self._held.bodies.pop(self, None)

    def _begin_body(self) -> None:
        bodies = self._held.bodies
        if len(bodies) >= self._limits.bodies:
            slowest = cast(HttpProtocol, next(iter(bodies)))
            if not slowest.give_up_slow_body(self.loop.time()):
                self.config.rejected("bodies")
                detail = "the gateway takes in as many bodies as it may; nothing was written"
                self._refuse(Problem(CROWDED, detail, headers=_RETRY))
                return
        bodies[self] = None

    def give_up_slow_body(self, now_s: float) -> bool:
        """End the request if its body made no progress for `_SLOW_BODY_S`; whether it ended."""
        # Where reading is paused it is this process that does not take the body.
        if now_s - self._since_s < _SLOW_BODY_S or self.flow.read_paused:
            return False
        self._body_late(now_s)
        return True

    # -- the application's side ------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        self._held.mark_serving(self)
        if cycle.scope["http_version"] == "1.0":
            app = _CloseDelimitedApp(app, cycle)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """A response is complete; the next request of the connection may begin."""
        if self.transport.is_closing():
            self._held.mark_lingering(self)
        elif not self.pipeline:
            self._since_s = self.loop.time()
            if self._step_bytes:
                self._end_body()
            known = self._running is not None and ADMITTED in self._running.scope
            self._held.mark_idle(self, known=known)
        super().on_response_complete()

    # -- ends ------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """End the connection if it has waited for the client for too long."""
        if self.transport.is_closing():
            self._closing_at_s = self._closing_at_s or now_s
            if now_s - self._closing_at_s > self._limits.linger_s:
                self.abort()  # What it does not read is kept until then.
        elif self._is_stalled(now_s):
            self.config.rejected("unread")
            self.abort()
        else:
            self._check_wait(now_s - self._since_s)

    def _check_wait(self, waited_s: float) -> None:
        limits, cycle = self._limits, self.cycle
        if self._running is not None and not self._running.response_complete:
            late = waited_s > limits.body_s and cycle is not None and cycle.more_body
            # Where reading is paused it is this process that does not take the body.
            if late and self._step_bytes and not self.flow.read_paused:
                self._body_late(self._since_s + waited_s)
        elif self._ended:
            if waited_s > limits.linger_s:
                self.transport.close()
        elif self._in_message and not self._in_head:
            if waited_s > limits.discard_s:
                self.config.rejected("rest")
                self.transport.close()
        elif self._in_head:
            if waited_s > limits.head_s:
                self.config.rejected("head")
                detail = f"the head did not arrive within {limits.head_s:g} s"
                self._refuse(Problem(HEAD_TIMEOUT, detail))
        elif waited_s > (limits.head_s if cycle is None else limits.idle_s):
            self.transport.close()

    def _body_late(self, now_s: float) -> None:
        if self.cycle is None or self.cycle.response_started:
            self.transport.close()
            return
        self.config.rejected("body")
        waited_s = now_s - self._since_s
        detail = f"less than {STEP_BYTES} bytes of the body came in {waited_s:.0f} s"
        self._refuse(Problem(BODY_TIMEOUT, f"{detail}; nothing was written"))

    def unsent_bytes(self) -> int:
        """The bytes that wait for the client to read them."""
        size: int = self.transport.get_write_buffer_size()
        return size

    def _is_stalled(self, now_s: float) -> bool:
        """Whether the client reads none of the waiting bytes."""
        unsent = self.unsent_bytes()
        taken = self.transport.written_bytes - unsent
        if not unsent or taken != self._taken_bytes:
            self._taken_bytes, self._taken_at_s = taken, now_s
        return now_s - self._taken_at_s > self._limits.unsent_s

    def unread_for_s(self, now_s: float) -> float:
        """How long the client has read nothing."""
        return now_s - self._taken_at_s

    def make_room(self) -> None:
        """See `gateway.http.connections.Held`."""
        self.config.rejected("room")
        if self._in_head:
            detail = "the gateway has as many connections as it may"
            self._refuse(Problem(CROWDED, detail, headers=_RETRY))
        else:
            self._held.mark_lingering(self)
            self.transport.close()

    def abort(self) -> None:
        """End at once; bytes that the client has not read are lost."""
        self.transport.abort()

    def shutdown(self) -> None:
        """The server ends: finish the responses in progress, and wait for nothing else."""
        if self._running is None or self._running.response_complete:
            self.transport.close()
        super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """The response to invalid HTTP."""
        self._refuse(Problem(INVALID_REQUEST, msg))

    def _refuse(self, problem: Problem) -> None:
        """Respond in place of the application, and end after the responses that are due earlier."""
        cycle, running = self.cycle, self._running
        if self._ended or self.transport.is_closing():
            return
        working = running is not None and not running.response_complete
        if working and (running is not cycle or (cycle is not None and not cycle.more_body)):
            self._end_after_answers()
            return
        if working and cycle is not None and cycle.response_started:
            self.transport.close()  # In the middle of another answer, which must not look whole.
            return
        if cycle is not None and cycle.response_complete and self._in_message and not self._in_head:
            self._linger()  # What is wrong is in a body that was answered without it.
            return
        body = problem.body()
        retry = problem.headers.get("retry-after")
        self.transport.write(
            STATUS_LINE[problem.kind.status]
            + b"content-type: application/problem+json\r\ncontent-length: %d\r\n" % len(body)
            + (b"retry-after: %s\r\n" % retry.encode() if retry else b"")
            + b"cache-control: no-store\r\nconnection: close\r\n\r\n"
            + body
        )
        if working and cycle is not None:
            # Its request goes no further, and what it still says is not for this connection.
            cycle.disconnected = True
            cycle.body = bytearray()
            cycle.message_event.set()
        self._running = None
        self._linger()

    def _end_after_answers(self) -> None:
        """Accept no more requests; the last response that is due ends the connection."""
        self._ended = True
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()  # It will not become complete.
        last = self.pipeline[0][0] if self.pipeline else self._running
        if last is None or last.response_complete:
            self._linger()
        else:
            last.keep_alive = False

    def _linger(self) -> None:
        """End when the client has read its response: a client that still sends would lose it if the
        connection were closed at once (RFC 9112, section 9.6).
        """
        self._ended = True
        self._unread_bytes = 0
        self._since_s = self.loop.time()
        self._unset_keepalive_if_required()
        self.transport.write_eof()
        self.flow.resume_reading()
        self._held.mark_lingering(self)


class _CloseDelimitedApp:
    """An application whose responses of unknown length end with the connection, for HTTP/1.0.

    RFC 9112, section 6.1: a server must not send chunks to it.
    """

    def __init__(self, app: Any, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        cycle = self._cycle

        until_closed = False

        async def whole(message: Any) -> None:
            nonlocal until_closed
            if message["type"] == "http.response.start":
                names = [name.lower() for name, _ in message.get("headers", ())]
                if b"content-length" not in names:
                    until_closed = True
                    cycle.chunked_encoding = False
            elif until_closed:
                # uvicorn counts down to the end of a length; here each piece is its own.
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, whole)


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its caller; `ended` is set by them, too.

    With TLS a listener of our own accepts the connections: see `gateway.http.tls_listener`.
    """

    config: _Config

    def __init__(self, config: _Config) -> None:
        super().__init__(config)
        self.ended = asyncio.Event()
        self._connections_peak = 0
        self._tls_sockets: list[socket.socket] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept, unless `main_loop` does so."""
        if self.config.tls is not None:
            self._tls_sockets, sockets = sockets or [], []
        await super().startup(sockets)

    async def main_loop(self) -> None:
        """Work until `should_exit` is set."""
        tls, config = self.config.tls, self.config
        if tls is None:
            await super().main_loop()
            return

        def make_protocol(handshake: Handshake) -> asyncio.Protocol:
            protocol = HttpProtocol(config, self.server_state, self.lifespan.state)
            protocol.handshake = handshake
            return protocol

        accepting = TlsListener(tls, config.held, make_protocol, config.rejected)
        async with asyncio.TaskGroup() as group:
            listeners = [group.create_task(accepting.run(each)) for each in self._tls_sockets]
            await super().main_loop()
            for listener in listeners:
                listener.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: signals end the process's one TaskGroup, not the server alone."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Do uvicorn's work ten times a second, and check the deadlines twice a second."""
        if counter % _TICKS == 0:
            self._check_connections()
        return await super().on_tick(counter)

    def _give_memory_back(self, connections: int) -> None:
        """Return memory after many connections: their freed blocks are scattered, and glibc would
        keep them.
        """
        self._connections_peak = max(self._connections_peak, connections)
        if self._connections_peak >= _MANY and connections * 4 < self._connections_peak:
            # Again on the next ticks: their requests may not have come to an end yet.
            self._connections_peak //= 2
            _trim()(0)

    def _check_connections(self) -> None:
        now_s = asyncio.get_running_loop().time()
        connections = cast(set[HttpProtocol], self.server_state.connections)
        unsent_bytes = 0
        for connection in list(connections):
            connection.tick(now_s)
            unsent_bytes += connection.unsent_bytes()
        self._give_memory_back(len(connections))
        most = self.config.held.limits.unsent_bytes
        if unsent_bytes <= most:
            return
        # Those go first that have read nothing for longest.
        for connection in sorted(
            connections, key=lambda one: one.unread_for_s(now_s), reverse=True
        ):
            size = connection.unsent_bytes()
            if unsent_bytes <= most:
                break
            if size:
                self.config.rejected("unread")
                connection.abort()
                unsent_bytes -= size


@functools.cache
def _trim() -> Callable[[int], int]:
    """glibc's `malloc_trim`; does nothing with another C library."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return int
    return trim


def _head_too_large() -> Problem:
    return Problem(HEAD_TOO_LARGE, f"it has more than {HEADER_BYTES_MAX} bytes")


def _not_counted(reason: str) -> None:
    """The `rejected` of a server whose refusals are not counted."""


def make_server(
    app: Any,
    limits: ConnectionLimits | None = None,
    rejected: OnRejected = _not_counted,
    tls: ServerTls | None = None,
) -> Server:
    """The server for `app`; `serve(sockets=[…])` runs it until `should_exit` is set."""
    return Server(_Config(app, limits or ConnectionLimits(), rejected, tls))
