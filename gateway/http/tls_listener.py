"""Accepts connections and does their TLS handshakes, within the limits of all connections.

uvicorn and asyncio know a connection only once its handshake is done, so a client that begins none
would cost a descriptor that nothing counts. Here it counts from the beginning, has the time of a
head, and goes first when another connection needs the place.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

from gateway.http.connections import Connections
from gateway.http.problems import INVALID_REQUEST, Problem
from gateway.http.tls import ServerTls
from observability.logs import Throttle

_log = logging.getLogger("synod.gateway.tls")
_log.addFilter(Throttle(lines_per_s=1))

_HANDSHAKE = b"\x16"
"""The first byte of a TLS record that holds a ClientHello (RFC 8446, section 5.1)."""

_PAUSE_S = 0.2
"""After a failure to accept, such as of a lack of file descriptors."""

_PLAIN_BYTES_MAX = 64 * 1024
_PLAIN_LINGER_S = 1.0
"""How much, and how long, a client may still send that spoke plain HTTP: see `HttpProtocol`."""

_PLAIN = Problem(
    INVALID_REQUEST,
    "this port speaks TLS: write https:// in place of http://. The request came in clear text and "
    "was not read",
).body()


class Handshake:
    """A connection without TLS yet; a `gateway.http.connections.ManagedConnection`."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.connection = connection
        self.address = address
        self.task: asyncio.Task[None] | None = None

    def make_room(self) -> None:
        """End, because another connection needs the place."""
        self.abort()

    def abort(self) -> None:
        """End at once."""
        if self.task is not None:
            self.task.cancel()


class TlsListener:
    """Accepts for one server. `make_protocol` makes what takes a connection after its handshake,
    and removes the handshake from `held` when it does so.
    """

    def __init__(
        self,
        tls: ServerTls,
        held: Connections,
        make_protocol: Callable[[Handshake], asyncio.Protocol],
        rejected: Callable[[str], None],
    ) -> None:
        self._tls = tls
        self._held = held
        self._make_protocol = make_protocol
        self._rejected = rejected

    async def run(self, listener: socket.socket) -> None:
        """Accept until cancelled; handshakes that are not done by then end, too."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    connection, peer = await loop.sock_accept(listener)
                except OSError as error:
                    _log.warning("no connection can be accepted: %s", error.strerror)
                    await asyncio.sleep(_PAUSE_S)
                    continue
                handshake = Handshake(connection, str(peer[0]))
                if not self._held.admit(handshake):
                    self._rejected("connections")
                    connection.close()
                    continue
                handshake.task = group.create_task(self._begin(handshake))

    async def _begin(self, handshake: Handshake) -> None:
        limit_s = self._held.limits.head_s
        connection, given = handshake.connection, False
        try:
            async with asyncio.timeout(limit_s):
                first = await _first_byte(connection)
                if first == _HANDSHAKE:
                    given = True
                    await self._shake_hands(handshake, limit_s)
                elif first:
                    self._rejected("handshake")
                    await _answer_plain(connection)
        except (OSError, TimeoutError) as error:
            self._rejected("handshake")
            reason = error.reason if isinstance(error, ssl.SSLError) else type(error).__name__
            _log.info("a TLS handshake failed: %s", reason)
        finally:
            self._held.remove(handshake)
            if not given:
                connection.close()

    async def _shake_hands(self, handshake: Handshake, limit_s: float) -> None:
        # On success the protocol has the connection, and on failure the loop has closed it.
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self._make_protocol(handshake),
            handshake.connection,
            ssl=self._tls.context,
            ssl_handshake_timeout=limit_s,
            ssl_shutdown_timeout=self._held.limits.linger_s,
        )


async def _first_byte(connection: socket.socket) -> bytes:
    """The first byte that the client sends, which stays unread; empty if it sends none."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection.fileno())
    return connection.recv(1, socket.MSG_PEEK)


async def _answer_plain(connection: socket.socket) -> None:
    """Say to a client that spoke plain HTTP what to do, and let it read that."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(
        connection,
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"
        b"content-length: %d\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        % len(_PLAIN)
        + _PLAIN,
    )
    connection.shutdown(socket.SHUT_WR)
    left = _PLAIN_BYTES_MAX
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PLAIN_LINGER_S):
            while left > 0 and (data := await loop.sock_recv(connection, 4_096)):
                left -= len(data)
