"""The Prometheus metrics of a process, in one registry that the caller provides.

Names are `paxos_<role>_<what>_<unit>`; `docs/metrics.md` lists all of them. Message types, routes
and reasons are the only labels besides nodes; none of them grows with use. This module has the
metrics of every node and of the gateway's HTTP; `observability.role_metrics` those of each role.
"""

import time

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from actors.effects import TimerKey
from actors.messages import AnyMessage
from actors.numbers import Milliseconds
from actors.options import role_of
from observability.fast_metrics import (
    FastCounter,
    FastCounterFamily,
    FastHistogram,
    FastHistogramFamily,
)

_HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_METHODS = frozenset(("GET", "HEAD", "PUT", "PATCH", "DELETE", "POST"))


def process_registry() -> CollectorRegistry:
    """A registry with the process's own memory, processor time and garbage collection."""
    # Creation times would double the lines, and nothing uses them.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class HttpMetrics:
    """The metrics of a gateway's HTTP API."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_flight = 0
        """Requests in progress."""
        Gauge(
            "paxos_gateway_requests_in_flight",
            "Requests that the gateway is serving.",
            registry=registry,
        ).set_function(lambda: self.in_flight)
        self._requests = FastCounterFamily(
            "paxos_gateway_requests",
            "Requests by route, method and status; status 0 had no response.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._seconds = FastHistogramFamily(
            "paxos_gateway_request_seconds",
            "Time from the head of a request to the end of its response.",
            ("route", "method"),
            bounds=_HTTP_SECONDS,
            registry=registry,
        )
        self._sent = FastCounterFamily(
            "paxos_gateway_sent_bytes", "Bytes of the bodies of responses.", registry=registry
        ).labels()
        self._rejected = FastCounterFamily(
            "paxos_gateway_turned_away",
            "Requests and connections that the gateway refused or ended early, by reason.",
            ("reason",),
            registry=registry,
        )
        self._children: dict[tuple[str, str, int], tuple[FastCounter, FastHistogram]] = {}

    def answered(
        self, route: str, method: str, status: int, seconds: float, sent_bytes: int
    ) -> None:
        """A request ended."""
        if method not in _METHODS:
            method = "other"
        key = (route, method, status)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = (
                self._requests.labels(route, method, str(status)),
                self._seconds.labels(route, method),
            )
        children[0].inc()
        children[1].observe(seconds)
        self._sent.inc(sent_bytes)

    def rejected(self, reason: str) -> None:
        """A request was not admitted, or its connection was ended."""
        self._rejected.labels(reason).inc()


_TURN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_TURN_MESSAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_LATE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_NODE = ("node", "role")


class NodesMetrics:
    """The metrics of the runtimes of this process's nodes; see `node` for those of one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> FastCounterFamily:
            return FastCounterFamily(
                f"paxos_node_{name}", text, (*_NODE, *labels), registry=registry
            )

        def histogram(name: str, text: str, bounds: tuple[float, ...]) -> FastHistogramFamily:
            return FastHistogramFamily(
                f"paxos_node_{name}", text, _NODE, bounds=bounds, registry=registry
            )

        self.received = counter(
            "messages_received", "Messages that the actor received, by type.", "type"
        )
        self.sent = counter("messages_sent", "Messages that the actor sent, by type.", "type")
        self.turn_seconds = histogram(
            "turn_seconds",
            "Time that one turn of the actor took, its commit included.",
            _TURN_SECONDS,
        )
        self.turn_messages = histogram(
            "turn_messages", "Messages and timers that one turn processed.", _TURN_MESSAGES
        )
        self.commit_seconds = histogram(
            "journal_commit_seconds",
            "Time that one durable commit of the journal took.",
            _TURN_SECONDS,
        )
        self.commit_rows = counter(
            "journal_rows", "Rows and contents that the journal has committed."
        )
        self.collection_seconds = histogram(
            "collection_seconds",
            "Time that one garbage collection took, in which the node's process did nothing else.",
            _TURN_SECONDS,
        )
        self.late_seconds = histogram(
            "timer_late_seconds",
            "Time between a timer's deadline and its expiry message.",
            _LATE_SECONDS,
        )
        self.timers_lost = counter(
            "timers_lost", "Overdue timers whose expiry message the node published again."
        )
        self.quarantined = counter(
            "quarantined",
            "Messages that the actor failed to process and the runtime put into quarantine.",
        )
        self.rebuilds = counter(
            "rebuilds",
            "Times that the runtime rebuilt the actor from its journal after it failed in a turn.",
        )
        self.halted = Gauge(
            "paxos_node_halted",
            "1 if the node has halted and takes no part any more.",
            _NODE,
            registry=registry,
        )

    def node(self, name: str) -> "NodeMetrics":
        """The metrics of one node, for its runtime."""
        return NodeMetrics(self, name)


class NodeMetrics:
    """Receives one node's events, as `broker.observer.Observer`. Called on the node's path."""

    def __init__(self, metrics: NodesMetrics, node: str) -> None:
        self._metrics = metrics
        self._labels = (node, role_of(node))
        self._received: dict[str, FastCounter] = {}
        self._sent: dict[str, FastCounter] = {}
        self._turn_seconds = metrics.turn_seconds.labels(*self._labels)
        self._turn_messages = metrics.turn_messages.labels(*self._labels)
        self._commit_seconds = metrics.commit_seconds.labels(*self._labels)
        self._commit_rows = metrics.commit_rows.labels(*self._labels)
        self._collection_seconds = metrics.collection_seconds.labels(*self._labels)
        self._late_seconds = metrics.late_seconds.labels(*self._labels)
        self._timers_lost = metrics.timers_lost.labels(*self._labels)
        self._quarantined = metrics.quarantined.labels(*self._labels)
        self._rebuilds = metrics.rebuilds.labels(*self._labels)
        self._halted = metrics.halted.labels(*self._labels)
        self.last_turn_s = time.monotonic()
        """When the last turn ended, which distinguishes a live node from one that hangs."""

    def received(self, sender: str, message: AnyMessage) -> None:
        """The actor received a message or a local call."""
        self._count(self._received, self._metrics.received, message)

    def sent(self, to: str, message: AnyMessage) -> None:
        """The transport received a message to send."""
        self._count(self._sent, self._metrics.sent, message)

    def committed(self, rows: int, seconds: float) -> None:
        """A commit of this many records and blobs took this long."""
        self._commit_seconds.observe(seconds)
        self._commit_rows.inc(rows)

    @property
    def commits(self) -> int:
        """How many commits there were."""
        return sum(self._commit_seconds.counts)

    def turn_finished(self, messages: int, seconds: float) -> None:
        """A turn that received this many messages and timers ended."""
        self.last_turn_s = time.monotonic()
        self._turn_seconds.observe(seconds)
        self._turn_messages.observe(messages)

    def collected(self, seconds: float) -> None:
        """A garbage collection of the process took this long."""
        self._collection_seconds.observe(seconds)

    def timer_expired(self, timer: TimerKey, late_ms: Milliseconds) -> None:
        """A timer expired, this much later than it was due."""
        self._late_seconds.observe(max(0, late_ms) / 1000)

    def timers_lost(self, count: int) -> None:
        """This many timers were overdue, and their messages were sent again."""
        self._timers_lost.inc(count)

    def quarantined(self, reason: str) -> None:
        """The actor failed on a message."""
        self._quarantined.inc()

    def rebuilt(self, reason: str) -> None:
        """The actor was rebuilt from its journal."""
        self._rebuilds.inc()

    def halted(self, reason: str) -> None:
        """The node halted."""
        self._halted.set(1)

    def _count(
        self, children: dict[str, FastCounter], parent: FastCounterFamily, message: AnyMessage
    ) -> None:
        kind: str = message.type  # type: ignore[attr-defined]
        child = children.get(kind)
        if child is None:
            child = children[kind] = parent.labels(*self._labels, kind)
        child.inc()
