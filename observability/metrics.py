"""What a process counts, in Prometheus's terms. One registry a process, handed in.

Message types and routes are the only labels besides nodes; neither grows with use.
"""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from actors.effects import Milliseconds, TimerKey
from actors.messages import AnyMessage

_HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_METHODS = frozenset(("GET", "HEAD", "PUT", "DELETE", "POST"))


def process_registry() -> CollectorRegistry:
    """A registry that knows the process's own memory, time and garbage."""
    # The times of creation are twice the lines, and nobody looks at them.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class HttpMetrics:
    """What a gateway answers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_flight = Gauge(
            "synod_http_requests_in_flight", "Requests being worked on.", registry=registry
        )
        self._requests = Counter(
            "synod_http_requests",
            "Requests by route, method and status; status 0 had no answer.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "synod_http_request_seconds",
            "Time from a request's head to the end of its answer.",
            ("route", "method"),
            buckets=_HTTP_SECONDS,
            registry=registry,
        )
        self._sent = Counter(
            "synod_http_sent_bytes", "Bytes of answers' bodies.", registry=registry
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

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
        if sent_bytes:
            self._sent.inc(sent_bytes)


_TURN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_LATE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class NodesMetrics:
    """What the runtimes of this process's nodes do; one for a process, see `node`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"synod_{name}", text, ("node", *labels), registry=registry)

        def seconds(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(
                f"synod_{name}_seconds", text, ("node",), buckets=buckets, registry=registry
            )

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"synod_{name}", text, ("node",), registry=registry)

        self.received = counter("messages_received", "Messages the actor took in.", "type")
        self.sent = counter("messages_sent", "Messages handed to the transport.", "type")
        self.turn_seconds = seconds("turn", "Time of a turn of the runtime.", _TURN_SECONDS)
        self.turn_items = counter("turn_items", "Messages and timers taken in by turns.")
        self.commit_seconds = seconds("commit", "Time of a durable commit.", _TURN_SECONDS)
        self.commit_rows = counter("commit_rows", "Rows and contents committed.")
        self.late_seconds = seconds("timer_late", "How late timers came back.", _LATE_SECONDS)
        self.timers_lost = counter("timers_lost", "Timers whose message had to be sent again.")
        self.quarantined = counter("quarantined", "Messages the actor could not digest.")
        self.rebuilds = counter("rebuilds", "Actors made anew after they failed in a turn.")
        self.halted = gauge("halted", "1 if the node refuses to go on.")
        self.connected = gauge("broker_connected", "1 while the node has its broker.")
        self.blocked = gauge("broker_blocked", "1 while the broker takes no messages.")
        self.dropped = gauge("broker_dropped", "Messages that the broker could not be given.")
        self.inbox = gauge("inbox_messages", "Messages that wait for a turn.")
        self.armed = gauge("timers_armed", "Timers that are armed.")

    def node(self, name: str) -> "NodeMetrics":
        """The part of one node, to be given to its runtime."""
        return NodeMetrics(self, name)


class NodeMetrics:
    """Takes what `broker.observer.Observer` is told, for one node. Called on the node's path."""

    def __init__(self, metrics: NodesMetrics, node: str) -> None:
        self._metrics = metrics
        self._node = node
        self._received: dict[str, Counter] = {}
        self._sent: dict[str, Counter] = {}
        self._turn_seconds = metrics.turn_seconds.labels(node)
        self._turn_items = metrics.turn_items.labels(node)
        self._commit_seconds = metrics.commit_seconds.labels(node)
        self._commit_rows = metrics.commit_rows.labels(node)
        self._late_seconds = metrics.late_seconds.labels(node)
        self._timers_lost = metrics.timers_lost.labels(node)
        self._quarantined = metrics.quarantined.labels(node)
        self._rebuilds = metrics.rebuilds.labels(node)
        self._halted = metrics.halted.labels(node)

    def watch(
        self,
        *,
        connected: Callable[[], float],
        blocked: Callable[[], float],
        dropped: Callable[[], float],
        inbox: Callable[[], float],
        armed: Callable[[], float],
    ) -> None:
        """Figures that are read when somebody asks for them."""
        node, metrics = self._node, self._metrics
        metrics.connected.labels(node).set_function(connected)
        metrics.blocked.labels(node).set_function(blocked)
        metrics.dropped.labels(node).set_function(dropped)
        metrics.inbox.labels(node).set_function(inbox)
        metrics.armed.labels(node).set_function(armed)

    def received(self, sender: str, message: AnyMessage) -> None:
        """The actor took in a message or a local call."""
        self._count(self._received, self._metrics.received, message)

    def sent(self, to: str, message: AnyMessage) -> None:
        """A message was handed to the transport."""
        self._count(self._sent, self._metrics.sent, message)

    def committed(self, rows: int, seconds: float) -> None:
        """A commit of so many records and blobs took this long."""
        self._commit_seconds.observe(seconds)
        self._commit_rows.inc(rows)

    def turned(self, messages: int, seconds: float) -> None:
        """A turn that took in so many messages and timers is over."""
        self._turn_seconds.observe(seconds)
        self._turn_items.inc(messages)

    def expired(self, timer: TimerKey, late_ms: Milliseconds) -> None:
        """A timer came back, this much later than it was set for."""
        self._late_seconds.observe(max(0, late_ms) / 1000)

    def timers_lost(self, count: int) -> None:
        """So many timers were overdue, and their messages were sent again."""
        self._timers_lost.inc(count)

    def quarantined(self, reason: str) -> None:
        """The actor could not digest a message."""
        self._quarantined.inc()

    def rebuilt(self, reason: str) -> None:
        """The actor was thrown away and made anew from its journal."""
        self._rebuilds.inc()

    def halted(self, reason: str) -> None:
        """The node refuses to go on."""
        self._halted.set(1)

    def _count(self, children: dict[str, Counter], parent: Counter, message: AnyMessage) -> None:
        kind: str = message.type  # type: ignore[attr-defined]
        child = children.get(kind)
        if child is None:
            child = children[kind] = parent.labels(self._node, kind)
        child.inc()
