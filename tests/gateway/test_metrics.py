"""Every metric is in the table, every line of the table is a metric, and each of them moves."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from actors.effects import Group, TimerKey
from actors.messages import (
    Accept,
    Accepted,
    ChunkPut,
    Decided,
    Inquiry,
    LearnerProgress,
    LeaseHeartbeat,
    Prepare,
    Promise,
    ReadReply,
    Reject,
    TxnDecision,
    TxnPrepare,
    TxnVote,
)
from actors.node import Node
from actors.options import Identity, Options
from actors.paxos.ballot import Ballot
from actors.roles import build_actor
from actors.values import NOOP, Batch, Command, DecidedSlot, DeleteFile, Refusal, StoreMember, View
from observability.metrics import HttpMetrics, NodesMetrics
from observability.node_state import DROP_REASONS, ROLE_COUNTERS, NodeProbes, NodeStateCollector
from observability.role_metrics import RolesMetrics

TABLE = Path(__file__).parents[2] / "docs" / "metrics.md"
NODES = ("proposer-1", "acceptor-1", "learner-1", "store-1", "gateway-1")
BALLOT = Ballot(1, "proposer-1")
VIEW = View(
    epoch=2,
    coordinator="learner-1",
    coordinator_disk="d",
    coordinator_incarnation=1,
    stores=(StoreMember(name="store-1", disk="d", added_slot=0),),
)


class Process:
    """The registry of a process with one node of each role, and all that feeds it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        nodes, roles = NodesMetrics(self.registry), RolesMetrics(self.registry)
        state = NodeStateCollector(self.registry)
        self.http = HttpMetrics(self.registry)
        self.runtime = {name: nodes.node(name) for name in NODES}
        self.role = {name: roles.node(name) for name in NODES}
        self.actor: dict[str, Any] = {name: _actor(name) for name in NODES}
        self.health = SimpleNamespace(
            connected=False, blocked=False, sessions=1, dropped=0, quarantined=0, newer=0, refused=0
        )
        self.figures = {"inbox": 0, "timers": 0, "bytes": 0, "made": 0, "lost": 0}
        for name in NODES:
            self._watch(state, name)

    def _watch(self, state: NodeStateCollector, name: str) -> None:
        figures = self.figures
        state.watch(
            NodeProbes(
                name,
                actor=lambda: self.actor[name],
                health=lambda: self.health,
                clock=lambda: 1_000,
                inbox=lambda: figures["inbox"],
                timers=lambda: figures["timers"],
                journal_bytes=lambda: figures["bytes"],
                records=lambda: (figures["made"], figures["lost"]),
            )
        )

    def values(self) -> dict[str, float]:
        """Every family with the sum of its samples."""
        return {
            family.name: sum(abs(sample.value) for sample in family.samples)
            for family in self.registry.collect()
        }


def _actor(name: str) -> Node:
    identity = Identity(
        name=name,
        disk="d",
        incarnation=1,
        journal_commits=0,
        fresh_id="ab" * 16,
    )
    actor = build_actor(identity, Options())
    assert isinstance(actor, Node)
    return actor


def batch(commands: int) -> Batch:
    return Batch(
        elapsed_ms=1,
        commands=tuple(
            Command(
                session="s",
                sequence=number,
                acknowledged=0,
                reply_to="gateway-1",
                operation=DeleteFile(path="a"),
            )
            for number in range(commands)
        ),
    )


def let_it_all_happen(process: Process) -> None:
    """Whatever a metric counts, once at least."""
    for runtime in process.runtime.values():
        runtime.received("store-1", Inquiry(cluster=""))
        runtime.sent("@acceptors", Inquiry(cluster=""))
        runtime.committed(3, 0.002)
        runtime.turn_finished(5, 0.004)
        runtime.collected(0.001)
        runtime.timer_expired(TimerKey("tick"), 30)
        runtime.timer_expired(TimerKey("tick"), -1)
        runtime.timers_lost(2)
        runtime.quarantined("why")
        runtime.rebuilt("why")
        runtime.halted("why")
    process.http.in_flight += 1
    process.http.answered("files", "PUT", 201, 0.01, 100)
    process.http.rejected("token")
    process.figures.update(inbox=5, timers=6, bytes=7, made=8, lost=9)
    vars(process.health).update(
        connected=True, blocked=True, sessions=3, dropped=4, quarantined=2, newer=2, refused=1
    )
    _let_them_talk(process)
    _let_the_actors_be(process)


def _let_them_talk(process: Process) -> None:
    proposer, acceptor = process.role["proposer-1"], process.role["acceptor-1"]
    learner, store = process.role["learner-1"], process.role["store-1"]
    for first_slot in (1, 100):  # Two pages of one election.
        proposer.sent(Group.ACCEPTORS, Prepare(ballot=BALLOT, first_slot=first_slot))
    for number in (1, 2):
        proposer.sent(Group.ACCEPTORS, LeaseHeartbeat(ballot=BALLOT, number=number))
    for _ in range(2):
        proposer.sent(Group.PHASE_2, Accept(ballot=BALLOT, slot=1, value=batch(3)))
    proposer.sent(Group.PHASE_2, Accept(ballot=BALLOT, slot=2, value=NOOP))
    proposer.received("learner-1", LearnerProgress(chosen_through=1, decided=1, view=VIEW))
    acceptor.sent(
        "proposer-1",
        Promise(ballot=BALLOT, first_slot=1, next_slot=None, accepted=(), truncated_below=1),
    )
    acceptor.sent("learner-1", Accepted(ballot=BALLOT, slot=1))
    acceptor.sent(
        "proposer-1", Reject(ballot=BALLOT, promised=BALLOT, lease_left_ms=0, truncated_below=1)
    )
    prepare = TxnPrepare(epoch=0, slot=1, batch=batch(3))
    aborted = (Refusal(index=2, reason="late"),)
    decision = TxnDecision(epoch=0, slot=1, ballot=BALLOT, aborted=aborted)
    for to in (Group.STORES, "store-1"):
        learner.sent(to, prepare)
    for to in (Group.STORES, Group.LEARNERS):
        learner.sent(to, decision)
    store.received("learner-1", prepare)
    refused = (Refusal(index=0, reason="no room"),)
    store.sent("learner-1", TxnVote(epoch=0, slot=1, refused=refused, durable=0))
    store.sent("learner-1", TxnVote(epoch=0, slot=2, refused=(), durable=0))
    for _ in range(2):
        store.received("learner-1", decision)
    entries = tuple(DecidedSlot(slot=slot, value=NOOP, aborted=()) for slot in (1, 2))
    store.received("learner-1", Decided(entries=entries, first_kept=1))
    store.received("gateway-1", ChunkPut(sha256="ab" * 32, manifest=False, data=b"12345"))
    store.sent("gateway-1", ReadReply(number=1, status="found", applied=1))


def _let_the_actors_be(process: Process) -> None:
    for actor in process.actor.values():
        actor.counters.update(dropped_foreign_disk=2, rows_rotten=1)
        actor.counters.update({name: 1 for names in ROLE_COUNTERS.values() for name in names})
    proposer, learner, store = (
        process.actor[name] for name in ("proposer-1", "learner-1", "store-1")
    )
    proposer.round = 4
    queue, in_flight = [1], {1: None}
    leading = _leading()
    leading.queue.extend(queue)
    leading.in_flight.update(in_flight)
    proposer.phase = leading
    learner.log.chosen_through, learner.learned.view, learner.coordinator = 9, VIEW, object()
    learner.state.applied = store.state.applied = 8
    learner.state.tree.entries = {"d": object(), "d/f": _file()}
    store.held.durable = 7
    store.prepared[9] = object()
    store.reads.lease.until = 2_000
    store.reads._waiting.append(object())
    store.chunks.held.add("ab")


def _leading() -> Any:
    from actors.paxos.phase_one import Promises
    from actors.paxos.phases import Leading

    promises = Promises(1)
    return Leading(ballot=BALLOT, elected_at=0, promises=promises, next_slot=1, recovered_through=0)


def _file() -> Any:
    from actors.values import Chunked, FileEntry

    return FileEntry(
        path="d/f",
        slot=1,
        index=0,
        version=1,
        content=Chunked(size=0, sha256="", chunks=()),
        content_type="",
        modified_ms=0,
        executable=False,
        meta=(),
    )


def documented() -> dict[str, tuple[str, str, str]]:
    """Name to type, labels and meaning, as the table says."""
    rows = re.findall(
        r"^\| `(paxos_\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", TABLE.read_text(), re.MULTILINE
    )
    assert len(rows) == len({row[0] for row in rows}), "a metric stands in the table twice"
    return {name: (kind, labels.strip(), meaning) for name, kind, labels, meaning in rows}


def found(registry: CollectorRegistry) -> dict[str, tuple[str, str, str]]:
    """The same of the code, under the names that Prometheus shows."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            _labels(family),
            family.documentation,
        )
        for family in registry.collect()
    }


def _labels(family: Metric) -> str:
    names: dict[str, None] = {}
    for sample in family.samples:
        names.update(dict.fromkeys(name for name in sample.labels if name != "le"))
    return ", ".join(f"`{name}`" for name in names)


def test_the_table_and_the_code_agree() -> None:
    process = Process()
    let_it_all_happen(process)

    assert found(process.registry) == documented()


def test_the_names_follow_the_scheme() -> None:
    roles = "node|proposer|acceptor|learner|store|gateway"
    units = "seconds|bytes|messages|slots?|commands|rows|records|reads|files|directories|chunks"
    for name, (kind, _, _) in documented().items():
        assert re.fullmatch(rf"paxos_({roles})_[a-z_]+", name), name
        assert (kind == "counter") == name.endswith("_total"), name
        if kind == "histogram":
            assert re.search(rf"_({units})$", name), name


def test_every_counter_that_is_shown_is_one_that_an_actor_counts() -> None:
    code = {path: path.read_text() for path in (TABLE.parents[1] / "actors").rglob("*.py")}
    counted = set(re.findall(r'counters\["(\w+)"\] \+=', "\n".join(code.values())))

    shown = {name for names in ROLE_COUNTERS.values() for name in names} | set(DROP_REASONS)

    assert shown - counted == set()


def test_none_is_dead() -> None:
    process = Process()
    before = process.values()

    let_it_all_happen(process)

    after = process.values()
    dead = {name for name, value in after.items() if value == before.get(name, 0)}
    assert dead == set()


def test_what_is_counted_is_what_happened() -> None:
    process = Process()
    let_it_all_happen(process)

    def value(name: str, **labels: str) -> float | None:
        return process.registry.get_sample_value(f"paxos_{name}", labels)

    proposer, learner, store = ({"node": f"{role}-1"} for role in ("proposer", "learner", "store"))
    everywhere = {"node": "store-1", "role": "store"}
    assert value("proposer_elections_total", **proposer) == 1
    assert value("proposer_prepare_seconds_count", **proposer) == 1
    assert value("proposer_proposals_total", kind="batch", **proposer) == 1
    assert value("proposer_proposals_total", kind="noop", **proposer) == 1
    assert value("proposer_batch_commands_sum", **proposer) == 3
    assert value("proposer_retries_total", **proposer) == 1
    assert value("proposer_accept_seconds_count", **proposer) == 1
    assert value("proposer_leader", **proposer) == 1
    assert value("learner_decisions_total", **learner) == 1
    assert value("learner_commands_total", outcome="committed", **learner) == 2
    assert value("learner_commands_total", outcome="aborted", **learner) == 1
    assert value("learner_files", **learner) == value("learner_directories", **learner) == 1
    assert value("store_votes_total", answer="no", **store) == 1
    assert value("store_aborts_total", **store) == value("store_commits_total", **store) == 1
    assert value("store_received_bytes_total", **store) == 5
    assert value("store_read_lease", **store) == 1
    assert value("node_turn_messages_sum", **everywhere) == 5
    assert value("node_timer_late_seconds_sum", **everywhere) == pytest.approx(0.03)
    assert value("node_broker_reconnects_total", **everywhere) == 2
    assert value("node_dropped_total", reason="foreign_disk", **everywhere) == 2
