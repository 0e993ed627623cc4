"""The metrics of each role, derived from the messages that its node receives and sends."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from actors.effects import Group
from actors.messages import AnyMessage
from actors.options import role_of
from actors.paxos.ballot import Ballot
from actors.values import Batch
from observability.fast_metrics import FastCounter, FastCounterFamily, FastHistogramFamily

_PHASE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COMMANDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SLOTS_TIMED = 4_096
"""With more slots in progress than this, the oldest are not timed."""

Handler = Callable[[str, Any], None]
"""Receives the peer and the message."""


class RolesMetrics:
    """The metric families of all roles in one process; see `node` for those of one node."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> FastCounterFamily:
            return FastCounterFamily(f"paxos_{name}", text, ("node", *labels), registry=registry)

        def histogram(name: str, text: str, bounds: tuple[float, ...]) -> FastHistogramFamily:
            return FastHistogramFamily(
                f"paxos_{name}", text, ("node",), bounds=bounds, registry=registry
            )

        self.elections = counter(
            "proposer_elections", "Elections in which this proposer was a candidate."
        )
        self.prepare_seconds = histogram(
            "proposer_prepare_seconds",
            "Time from the first paxos.prepare of a ballot until the proposer leads.",
            _PHASE_SECONDS,
        )
        self.proposals = counter(
            "proposer_proposals",
            "Slots that this proposer has proposed, by the kind of their value.",
            "kind",
        )
        self.accept_seconds = histogram(
            "proposer_accept_seconds",
            "Time from the first paxos.accept of a slot until a learner reports it as chosen.",
            _PHASE_SECONDS,
        )
        self.batch_commands = histogram(
            "proposer_batch_commands", "Commands in one proposed slot.", _COMMANDS
        )
        self.retries = counter(
            "proposer_retries", "Slots whose paxos.accept this proposer sent again."
        )
        self.promises = counter("acceptor_promises", "Pages of promises that this acceptor sent.")
        self.accepts = counter(
            "acceptor_accepts", "Slots that this acceptor accepted, repeated replies included."
        )
        self.rejects = counter(
            "acceptor_rejects",
            "Requests that this acceptor rejected because it had promised a higher ballot.",
        )
        self.decisions = counter(
            "learner_decisions", "Slots that this learner decided as the coordinator."
        )
        self.commands = counter(
            "learner_commands",
            "Commands that this learner decided as the coordinator, by outcome.",
            "outcome",
        )
        self.decision_seconds = histogram(
            "learner_decision_seconds",
            "Time from the first txn.prepare of a slot until the coordinator decides it.",
            _PHASE_SECONDS,
        )
        self.prepares = counter(
            "store_prepares", "Requests to prepare a slot that this store received."
        )
        self.votes = counter("store_votes", "Votes that this store cast, by answer.", "answer")
        self.commits = counter(
            "store_commits",
            "Slots without an aborted command that this store received the outcome of.",
        )
        self.aborts = counter(
            "store_aborts", "Slots with an aborted command that this store received the outcome of."
        )
        self.contents = counter(
            "store_received_bytes", "Bytes of contents that this store received as chunks."
        )
        self.reads = counter("store_reads", "Reads that this store answered, by status.", "status")

    def node(self, name: str) -> "RoleMetrics":
        """The metrics of one node, for its runtime."""
        return _ROLES.get(role_of(name), RoleMetrics)(self, name)


class RoleMetrics:
    """Receives messages, as `broker.observer.Observer`. Called on the node's path."""

    def __init__(self, metrics: RolesMetrics, node: str) -> None:
        self._on_sent: dict[str, Handler] = {}
        self._on_received: dict[str, Handler] = {}

    def received(self, sender: str, message: AnyMessage) -> None:
        """The actor received a message."""
        handle = self._on_received.get(message.type)  # type: ignore[attr-defined]
        if handle is not None:
            handle(sender, message)

    def sent(self, to: str, message: AnyMessage) -> None:
        """The transport received a message to send."""
        handle = self._on_sent.get(message.type)  # type: ignore[attr-defined]
        if handle is not None:
            handle(to, message)


class _Timed(OrderedDict[int, tuple[Any, float]]):
    """The slots in progress, each with its item and its start. Bounded."""

    def begin(self, slot: int, what: Any) -> None:
        self[slot] = (what, time.perf_counter())
        if len(self) > _SLOTS_TIMED:
            self.popitem(last=False)


class ProposerMetrics(RoleMetrics):
    """Elections and proposals."""

    def __init__(self, metrics: RolesMetrics, node: str) -> None:
        super().__init__(metrics, node)
        self._on_sent = {
            "paxos.prepare": self._prepare,
            "lease.heartbeat": self._leads,
            "paxos.accept": self._accept,
        }
        self._on_received = {"learn.progress": self._progress}
        self._proposals = metrics.proposals
        self._node = node
        self._elections = metrics.elections.labels(node)
        self._prepare_seconds = metrics.prepare_seconds.labels(node)
        self._accept_seconds = metrics.accept_seconds.labels(node)
        self._batch_commands = metrics.batch_commands.labels(node)
        self._retries = metrics.retries.labels(node)
        self._stood_with: Ballot | None = None
        self._stands_since_s = 0.0
        self._under_way = _Timed()
        for kind in ("batch", "view", "abort", "noop", "members", "settled", "roster"):
            metrics.proposals.labels(node, kind)

    def _prepare(self, to: str, message: Any) -> None:
        if message.ballot != self._stood_with:
            # Later pages of the same ballot are one election.
            self._stood_with = message.ballot
            self._stands_since_s = time.perf_counter()
            self._elections.inc()

    def _leads(self, to: str, message: Any) -> None:
        if self._stands_since_s and message.ballot == self._stood_with:
            self._prepare_seconds.observe(time.perf_counter() - self._stands_since_s)
            self._stands_since_s = 0.0

    def _accept(self, to: str, message: Any) -> None:
        known = self._under_way.get(message.slot)
        if known is not None and known[0] == message.ballot:
            self._retries.inc()
            return
        self._under_way.begin(message.slot, message.ballot)
        self._proposals.labels(self._node, message.value.kind).inc()
        if isinstance(message.value, Batch):
            self._batch_commands.observe(len(message.value.commands))

    def _progress(self, sender: str, message: Any) -> None:
        now_s = time.perf_counter()
        while self._under_way:
            slot = next(iter(self._under_way))
            if slot > message.chosen_through:
                return
            self._accept_seconds.observe(now_s - self._under_way.pop(slot)[1])


class AcceptorMetrics(RoleMetrics):
    """Promises, accepts, rejects."""

    def __init__(self, metrics: RolesMetrics, node: str) -> None:
        super().__init__(metrics, node)
        counters = {
            "paxos.promise": metrics.promises.labels(node),
            "paxos.accepted": metrics.accepts.labels(node),
            "paxos.reject": metrics.rejects.labels(node),
        }
        self._on_sent = {kind: _counting(counter) for kind, counter in counters.items()}


class LearnerMetrics(RoleMetrics):
    """The coordinator's decisions; the other learner decides nothing."""

    def __init__(self, metrics: RolesMetrics, node: str) -> None:
        super().__init__(metrics, node)
        self._on_sent = {"txn.prepare": self._prepare, "txn.decision": self._decision}
        self._decisions = metrics.decisions.labels(node)
        self._committed = metrics.commands.labels(node, "committed")
        self._aborted = metrics.commands.labels(node, "aborted")
        self._decision_seconds = metrics.decision_seconds.labels(node)
        self._under_way = _Timed()

    def _prepare(self, to: str, message: Any) -> None:
        if message.slot not in self._under_way:
            self._under_way.begin(message.slot, len(message.batch.commands))

    def _decision(self, to: str, message: Any) -> None:
        if to != Group.STORES:
            return
        self._decisions.inc()
        known = self._under_way.pop(message.slot, None)
        self._aborted.inc(len(message.aborted))
        if known is not None:
            commands, began_s = known
            self._committed.inc(max(0, commands - len(message.aborted)))
            self._decision_seconds.observe(time.perf_counter() - began_s)


class StoreMetrics(RoleMetrics):
    """Votes, outcomes, contents, reads."""

    def __init__(self, metrics: RolesMetrics, node: str) -> None:
        super().__init__(metrics, node)
        self._on_received = {
            "txn.prepare": _counting(metrics.prepares.labels(node)),
            "txn.decision": lambda _, message: self._decided(message),
            "sync.decided": self._synchronized,
            "chunk.put": self._chunk,
            "chunk.data": self._chunk,
        }
        self._on_sent = {"txn.vote": self._vote, "read.reply": self._reply}
        self._yes = metrics.votes.labels(node, "yes")
        self._no = metrics.votes.labels(node, "no")
        self._commits = metrics.commits.labels(node)
        self._aborts = metrics.aborts.labels(node)
        self._contents = metrics.contents.labels(node)
        self._reads = {
            status: metrics.reads.labels(node, status)
            for status in ("found", "absent", "not_served", "running", "forgotten")
        }
        self._other_reads = metrics.reads.labels(node, "other")
        self._decided_through = 0

    def _vote(self, to: str, message: Any) -> None:
        (self._no if message.refused else self._yes).inc()

    def _reply(self, to: str, message: Any) -> None:
        self._reads.get(message.status, self._other_reads).inc()

    def _decided(self, message: Any) -> None:
        # A decision may arrive twice, and again by the periodic sync.
        if message.slot > self._decided_through:
            self._decided_through = message.slot
            (self._aborts if message.aborted else self._commits).inc()

    def _synchronized(self, sender: str, message: Any) -> None:
        for entry in message.entries:
            self._decided(entry)

    def _chunk(self, sender: str, message: Any) -> None:
        self._contents.inc(len(message.data))


def _counting(counter: FastCounter) -> Handler:
    def handle(peer: str, message: Any) -> None:
        counter.inc()

    return handle


_ROLES: dict[str, type[RoleMetrics]] = {
    "proposer": ProposerMetrics,
    "acceptor": AcceptorMetrics,
    "learner": LearnerMetrics,
    "store": StoreMetrics,
}
