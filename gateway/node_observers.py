"""The observers of a process's own nodes: metrics, traces, and whether the nodes are healthy."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from actors.node import Node
from broker.commit_log import LOG_NAME
from broker.journal_folder import JOURNAL_NAME
from broker.observer import Observer, Observers
from broker.runtime import NodeHost, now_ms
from broker.transport import Transport
from gateway.settings import Settings
from gateway.trace_events import Tracing
from observability.log_messages import MessageLogger
from observability.metrics import NodeMetrics, NodesMetrics, process_registry
from observability.node_state import NodeProbes, NodeStateCollector
from observability.role_metrics import RoleMetrics, RolesMetrics
from observability.traces import TraceCollector

HEARTBEATS_WITHOUT_TURN = 3
"""A heartbeat takes a turn, so a node without a turn for so many heartbeats is unhealthy."""

GRACE_S = 1.0


class _RuntimeObserver(NodeMetrics, Observer):
    """Adapts a node's runtime metrics to the `Observer` interface."""


class _RoleObserver(Observer):
    """Adapts a role's metrics to the `Observer` interface."""

    def __init__(self, metrics: RoleMetrics) -> None:
        # Bound directly, because these two are called for every message.
        self.received = metrics.received  # type: ignore[method-assign]
        self.sent = metrics.sent  # type: ignore[method-assign]


class _LoggingObserver(Observer):
    """Adapts a `MessageLogger` to the `Observer` interface."""

    def __init__(self, narrator: MessageLogger) -> None:
        self.received = narrator.received  # type: ignore[method-assign]
        self.sent = narrator.sent  # type: ignore[method-assign]


class NodeObservers:
    """The observers of all nodes of one process, and the health of these nodes."""

    def __init__(self, settings: Settings, *, collects: bool) -> None:
        self.registry = process_registry()
        stores = settings.options().names("store")
        collector = TraceCollector(settings.acceptors // 2 + 1, stores) if collects else None
        self.tracing = Tracing(settings.trace, collector)
        self._nodes = NodesMetrics(self.registry)
        self._roles = RolesMetrics(self.registry)
        self._state = NodeStateCollector(self.registry)
        self._settings = settings
        self._observers: dict[str, NodeMetrics] = {}
        self._hosts: dict[str, NodeHost] = {}

    def observer(self, name: str, transport: Transport) -> Observer:
        """The observer for the runtime of the node `name`."""
        runtime = _RuntimeObserver(self._nodes, name)
        self._observers[name] = runtime
        return Observers(
            runtime,
            _RoleObserver(self._roles.node(name)),
            self.tracing.observer(name, transport),
            _LoggingObserver(MessageLogger(name)),
        )

    def watch(self, host: NodeHost) -> None:
        """The node is about to take its first turn."""
        name, transport = host.name, host.transport
        folder = self._settings.data / name
        recorder = self.tracing.recorder(name)
        self._hosts[name] = host
        self._state.watch(
            NodeProbes(
                name,
                # Every role is a `Node`, although a runtime accepts more.
                actor=lambda: cast(Node, host.actor),
                health=lambda: transport.health,
                clock=now_ms,
                inbox=lambda: host.inbox_messages,
                timers=lambda: host.timers_armed,
                journal_bytes=lambda: _size_bytes(folder),
                records=lambda: (recorder.recorded, recorder.dropped),
            )
        )

    def commits(self) -> int:
        """How many commits the journals of all nodes of this process have made."""
        return sum(observer.commits for observer in self._observers.values())

    def collected(self, seconds: float) -> None:
        """A garbage collection took so long, in which all nodes of this process stood still."""
        # A copy, because a thread that commits may collect while a node is added.
        for observer in tuple(self._observers.values()):
            observer.collected(seconds)

    def unhealthy_reason(self, clock: Callable[[], float] = time.monotonic) -> str:
        """Why a node of this process is unhealthy; empty if all are healthy."""
        allowed_s = HEARTBEATS_WITHOUT_TURN * self._settings.heartbeat_ms / 1000 + GRACE_S
        for name, host in self._hosts.items():
            health = host.transport.health
            silent_s = clock() - self._observers[name].last_turn_s
            if host.halted:
                return f"{name} halted: {host.halted}"
            if not health.connected:
                return f"{name} has no connection to the broker: {health.last_error}"
            if health.blocked:
                return f"{name}: the broker takes no messages at present (its memory or disk alarm)"
            if silent_s > allowed_s:
                return f"{name} took no turn for {silent_s:.0f} s"
        return "" if self._hosts else "no node of this process has started yet"


def _size_bytes(folder: Path) -> int:
    """The size of the log and the database, with the database's write-ahead log and its index."""
    files = (*folder.glob(f"{JOURNAL_NAME}*"), folder / LOG_NAME)
    return sum(path.stat().st_size for path in files if path.is_file())
