"""Metrics that are read from a node's actor, connection and disk at each scrape.

Nothing here changes an actor, and the protocol never reads these values.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from actors.learner.learner import Learner
from actors.node import Node
from actors.numbers import Milliseconds
from actors.options import role_of
from actors.paxos.phases import Leading
from actors.paxos.proposer import Proposer
from actors.store.store import Store
from actors.values import FileEntry


class Health(Protocol):
    """The members of `broker.transport.TransportHealth` that are read here."""

    connected: bool
    blocked: bool
    sessions: int
    dropped: int
    quarantined: int
    newer: int
    refused: int


@dataclass(frozen=True)
class NodeProbes:
    """The sources of one node's metrics; each is called at every scrape."""

    name: str
    actor: Callable[[], Node]
    health: Callable[[], Health]
    clock: Callable[[], Milliseconds]
    inbox: Callable[[], int]
    timers: Callable[[], int]
    journal_bytes: Callable[[], int]
    records: Callable[[], tuple[int, int]]
    """Trace records made, and lost."""


class _Families:
    """The metrics of one scrape, made when first used."""

    def __init__(self) -> None:
        self._found: dict[str, Metric] = {}

    def gauge(self, name: str, text: str, labels: dict[str, str], value: float) -> None:
        family = self._found.get(name)
        if family is None:
            family = self._found[name] = GaugeMetricFamily(
                f"paxos_{name}", text, labels=list(labels)
            )
        assert isinstance(family, GaugeMetricFamily)
        family.add_metric(list(labels.values()), value)

    def counter(self, name: str, text: str, labels: dict[str, str], value: float) -> None:
        family = self._found.get(name)
        if family is None:
            family = self._found[name] = CounterMetricFamily(
                f"paxos_{name}", text, labels=list(labels)
            )
        assert isinstance(family, CounterMetricFamily)
        family.add_metric(list(labels.values()), value)

    def all(self) -> Iterable[Metric]:
        return self._found.values()


class NodeStateCollector:
    """A collector that reads every watched node at each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._nodes: list[NodeProbes] = []
        self._entries: dict[str, tuple[int, int, int]] = {}
        registry.register(self)

    def watch(self, node: NodeProbes) -> None:
        """Read this node from now on."""
        self._nodes.append(node)

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        families = _Families()
        for node in self._nodes:
            self._of_node(node, families)
            actor, labels = node.actor(), {"node": node.name}
            match actor:
                case Proposer():
                    _of_proposer(actor, labels, families)
                case Learner():
                    self._of_learner(actor, labels, families)
                case Store():
                    _of_store(actor, labels, node.clock(), families)
                case _:
                    pass
        yield from families.all()

    def _of_node(self, node: NodeProbes, families: _Families) -> None:
        labels = {"node": node.name, "role": role_of(node.name)}
        health = node.health()
        made, lost = node.records()
        gauge, counter = families.gauge, families.counter
        gauge(
            "node_broker_connected",
            "1 while the node is connected to RabbitMQ.",
            labels,
            health.connected,
        )
        gauge(
            "node_broker_blocked",
            "1 while RabbitMQ blocks this node's publishing connection.",
            labels,
            health.blocked,
        )
        counter(
            "node_broker_reconnects",
            "Sessions with RabbitMQ that the node opened after its first.",
            labels,
            max(0, health.sessions - 1),
        )
        counter(
            "node_broker_unsent",
            "Messages that the node dropped because RabbitMQ could not take them.",
            labels,
            health.dropped,
        )
        counter(
            "node_unreadable",
            "Messages that the node could not decode and put into quarantine.",
            labels,
            health.quarantined,
        )
        counter(
            "node_newer",
            "Messages of a newer wire version than the node reads, which it dropped.",
            labels,
            health.newer,
        )
        counter(
            "node_refused_senders",
            "Messages whose sender was not confirmed, which the node put into quarantine.",
            labels,
            health.refused,
        )
        gauge(
            "node_inbox_messages",
            "Messages in the inbox that no turn has processed yet.",
            labels,
            node.inbox(),
        )
        gauge("node_timers_armed", "Timers that the actor has armed.", labels, node.timers())
        gauge(
            "node_journal_bytes",
            "Size of the journal's files on disk.",
            labels,
            node.journal_bytes(),
        )
        counter("node_trace_records", "Trace records that the node has made.", labels, made)
        counter(
            "node_trace_records_lost",
            "Trace records that the node dropped for lack of room or of a connection.",
            labels,
            lost,
        )
        counters = node.actor().counters
        for reason, text in DROP_REASONS.items():
            about = {**labels, "reason": text}
            dropped = counters[reason]
            counter(
                "node_dropped",
                "Messages that the actor dropped as inapplicable or not permitted, by reason.",
                about,
                dropped,
            )
        counter(
            "node_rotten_rows",
            "Corrupt rows that the scrub found in the journal and the actor wrote again.",
            labels,
            counters["rows_rotten"],
        )
        role = labels["role"]
        for name, (metric, text) in ROLE_COUNTERS.get(role, {}).items():
            counter(f"{role}_{metric}", text, {"node": node.name}, counters[name])

    def _of_learner(self, actor: Learner, labels: dict[str, str], families: _Families) -> None:
        gauge = families.gauge
        gauge(
            "learner_scanned_slot",
            "Slot at the end of the chosen prefix of the log.",
            labels,
            actor.chosen_through,
        )
        gauge(
            "learner_decided_slot",
            "Slot at the end of the decided prefix of the log.",
            labels,
            actor.decided,
        )
        view = actor.view
        if view is not None:
            gauge("learner_view_epoch", "Epoch of the view in force.", labels, view.epoch)
            gauge("learner_view_stores", "Stores in the view in force.", labels, len(view.stores))
        coordinates = actor.coordinator is not None
        gauge(
            "learner_coordinator", "1 while this learner is the coordinator.", labels, coordinates
        )
        applied, files, directories = self._entries.get(labels["node"], (-1, 0, 0))
        if applied != actor.state.applied:
            # Counting visits all names, so an idle cluster does it only once.
            entries = actor.state.entries
            files = sum(isinstance(entry, FileEntry) for entry in entries.values())
            directories = len(entries) - files
            self._entries[labels["node"]] = (actor.state.applied, files, directories)
        gauge("learner_files", "Files in the namespace.", labels, files)
        gauge(
            "learner_directories",
            "Directories in the namespace, without the root.",
            labels,
            directories,
        )


DROP_REASONS = {
    "dropped_before_founding": "before_founding",
    "dropped_foreign_cluster": "foreign_cluster",
    "dropped_foreign_disk": "foreign_disk",
    "dropped_former_incarnation": "former_incarnation",
    "dropped_outside_view": "outside_view",
    "dropped_unknown_sender": "unknown_sender",
    "dropped_not_permitted": "not_permitted",
    "dropped_from_itself": "from_itself",
    "dropped_too_many_gateways": "too_many_gateways",
}
"""The actors' counters, with the reason for the label."""

_INSTALLED = ("snapshots_installed", "Snapshots that the node copied from a peer and installed.")

ROLE_COUNTERS: dict[str, dict[str, tuple[str, str]]] = {
    "proposer": {
        "stepped_down": ("stepped_down", "Times that this proposer stepped down as the leader."),
        "gaps_filled": (
            "gaps_filled",
            "Gaps in the log that this proposer filled with a no-op as a new leader.",
        ),
    },
    "acceptor": {
        "silent_disk_full": (
            "disk_full",
            "Requests that this acceptor left unanswered because its disk is full.",
        ),
    },
    "learner": {
        "views": ("views", "Views that took effect at this learner."),
        "stores_dropped": (
            "stores_dropped",
            "Stores whose removal from the view this learner proposed.",
        ),
        "stores_added": (
            "stores_added",
            "Stores whose admission to the view this learner proposed.",
        ),
        "takeovers_proposed": (
            "takeovers_proposed",
            "Times that this learner proposed to take over as the coordinator.",
        ),
        "aborts_proposed": ("aborts_proposed", "Slots whose abort this learner proposed."),
        "unreadable": (
            "unreadable_values",
            "Proposals and votes that this learner received for what is no batch; such a slot is "
            "a no-op.",
        ),
        "snapshots_installed": _INSTALLED,
    },
    "store": {
        "fenced": (
            "fenced",
            "Requests of coordinators with an older epoch that this store refused.",
        ),
        "join_requests": ("join_requests", "Times that this store asked to join the view."),
        "diverged": (
            "diverged",
            "Times that this store's state differed from that of the other replicas.",
        ),
        "chunks_copied": ("chunks_copied", "Chunks that this store copied from a peer."),
        "chunks_rotten": (
            "rotten_chunks",
            "Corrupt chunks that this store found and copies again from a peer.",
        ),
        "snapshots_installed": _INSTALLED,
    },
    "gateway": {
        "retried_aborts": ("retries", "Aborted writes that the gateway retried."),
        "unknown": ("unknown", "Requests that the gateway answered with an unknown outcome."),
        "sessions_lost": ("sessions_lost", "Sessions of this gateway that the cluster expired."),
    },
}
"""The actors' counters that are exported unchanged, by role: the metric's name and its meaning."""


def _of_proposer(actor: Proposer, labels: dict[str, str], families: _Families) -> None:
    phase = actor.phase
    leads = isinstance(phase, Leading)
    waiting = len(phase.queue) if isinstance(phase, Leading) else 0
    in_flight = len(phase.in_flight) if isinstance(phase, Leading) else 0
    gauge = families.gauge
    gauge("proposer_leader", "1 while this proposer leads.", labels, leads)
    gauge(
        "proposer_round",
        "Round of the highest ballot that this proposer has used.",
        labels,
        actor.round,
    )
    gauge(
        "proposer_waiting_commands",
        "Commands that wait for a slot at this proposer.",
        labels,
        waiting,
    )
    gauge(
        "proposer_in_flight_slots",
        "Slots that this proposer has proposed and no learner has reported as chosen.",
        labels,
        in_flight,
    )


def _of_store(
    actor: Store, labels: dict[str, str], now_ms: Milliseconds, families: _Families
) -> None:
    gauge = families.gauge
    holds = actor.reads.lease.until > now_ms
    gauge(
        "store_applied_slot",
        "Slot at the end of the prefix that this store has applied.",
        labels,
        actor.state.applied,
    )
    gauge(
        "store_durable_slot",
        "Slot at the end of the applied prefix that the store's journal holds.",
        labels,
        actor.durable,
    )
    gauge(
        "store_in_doubt_slots",
        "Slots that this store has prepared and whose outcome it does not know.",
        labels,
        len(actor.prepared),
    )
    gauge("store_pending_reads", "Reads that wait at this store.", labels, len(actor.reads))
    gauge(
        "store_read_lease",
        "1 while this store holds a read lease and may serve linearizable reads.",
        labels,
        holds,
    )
    gauge(
        "store_chunks", "Chunks of contents that this store holds.", labels, len(actor.chunks.held)
    )
