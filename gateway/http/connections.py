"""Which connections a server holds, and which one it closes when there are too many.

A connection without a request in progress costs its client nothing to make again, so the server
closes such a one first: one without any admitted request so far before one that had some. A
connection whose request is in progress is never closed for another.
"""

import resource
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Protocol

_DESCRIPTORS_KEPT = 256
"""Descriptors for journals, the broker and everything else; the connections get the rest."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The bounds of a process's connections. Times are seconds."""

    connections: int = 1_000
    """All connections. Each may hold `HEADER_BYTES_MAX` of a head."""
    from_one_address: int = 750
    """From one address: less than all, so that one client leaves space for the others."""
    bodies: int = 192
    """Requests with an incomplete body. Each may hold 320 KiB in uvicorn until its endpoint reads
    that; the memory of endpoints has a bound of its own (`gateway.http.contents`).
    """
    lingering: int = 128
    """Connections that received their last response and wait for the client to close."""
    pipelined: int = 16
    """Requests that wait for an earlier one of their connection."""
    unsent_bytes: int = 64 * 1024 * 1024
    """Bytes of responses that clients have not read."""
    head_s: float = 10.0
    """From a request's first byte, or the connection's beginning, to the end of the head."""
    body_s: float = 60.0
    """The time within which a body must bring `STEP_BYTES` or its end."""
    idle_s: float = 75.0
    """Between a response and the next request; longer than the usual 60 s of proxies."""
    unsent_s: float = 60.0
    """The time within which a client must read some of a waiting response."""
    discard_s: float = 30.0
    """For the rest of a body after an early response: most clients read only once all is sent."""
    linger_s: float = 5.0
    """For a client to read its last response."""

    def __post_init__(self) -> None:
        assert 0 < self.from_one_address <= self.connections, self

    @classmethod
    def of_process(cls, *, body_s: float) -> "ConnectionLimits":
        """The limits that this process's file descriptors allow."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limits = cls(body_s=body_s)
        most = limits.connections
        if descriptors != resource.RLIM_INFINITY:
            # Lingering connections have descriptors, too.
            kept = min(descriptors // 2, _DESCRIPTORS_KEPT + limits.lingering)
            most = min(most, descriptors - kept)
        return replace(limits, connections=most, from_one_address=most * 3 // 4)


class ManagedConnection(Protocol):
    """A connection as `Connections` manages it."""

    address: str

    def make_room(self) -> None:
        """End, because another connection needs the place."""

    def abort(self) -> None:
        """End at once."""


class Connections:
    """The connections of one server, by state: serving, idle, or lingering."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._all: set[ManagedConnection] = set()
        self._of_address: dict[str, int] = {}
        # In the order in which they became idle.
        self._unadmitted: OrderedDict[ManagedConnection, None] = OrderedDict()
        self._idle: OrderedDict[ManagedConnection, None] = OrderedDict()
        self._lingering: OrderedDict[ManagedConnection, None] = OrderedDict()
        self.bodies: OrderedDict[ManagedConnection, None] = OrderedDict()
        """Those with an incomplete body; the one without progress for longest comes first."""

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, connection: ManagedConnection) -> bool:
        """Admit a new connection, if necessary in place of another; returns whether it could."""
        address = connection.address
        here = self._of_address.get(address, 0)
        if here >= self.limits.from_one_address:
            victim = self._first_waiting(address)
        elif len(self._all) >= self.limits.connections:
            victim = self._first_waiting(None)
        else:
            victim = connection
        if victim is None:
            return False
        if victim is not connection:
            self._forget(victim)
            victim.make_room()
        self._all.add(connection)
        self._of_address[address] = self._of_address.get(address, 0) + 1
        self._unadmitted[connection] = None
        return True

    def mark_serving(self, connection: ManagedConnection) -> None:
        """A request of the connection is in progress."""
        if connection in self._idle:
            del self._idle[connection]
        else:
            self._unadmitted.pop(connection, None)

    def mark_idle(self, connection: ManagedConnection, *, known: bool) -> None:
        """Its request was answered; `known`: the request was admitted."""
        if connection in self._all:
            (self._idle if known else self._unadmitted)[connection] = None

    def mark_lingering(self, connection: ManagedConnection) -> None:
        """It received its last response."""
        self._forget(connection)
        self._lingering[connection] = None
        if len(self._lingering) > self.limits.lingering:
            self._lingering.popitem(last=False)[0].abort()

    def remove(self, connection: ManagedConnection) -> None:
        """The connection has ended."""
        self._forget(connection)
        self._lingering.pop(connection, None)

    def _first_waiting(self, address: str | None) -> ManagedConnection | None:
        for waiting in (self._unadmitted, self._idle):
            for connection in waiting:
                if address is None or connection.address == address:
                    return connection
        return None

    def _forget(self, connection: ManagedConnection) -> None:
        self._unadmitted.pop(connection, None)
        self._idle.pop(connection, None)
        self.bodies.pop(connection, None)
        if connection not in self._all:
            return
        self._all.remove(connection)
        left = self._of_address[connection.address] - 1
        if left:
            self._of_address[connection.address] = left
        else:
            del self._of_address[connection.address]
