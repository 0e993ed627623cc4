"""Recording: which messages, in what form, within what bounds; and how records become a trace."""

import asyncio
import json
import sys
from typing import Any

import httpx
import pytest

from actors.messages import (
    Accept,
    Accepted,
    NodeHeartbeat,
    Prepare,
    Result,
    SnapshotPage,
    SnapshotRow,
    Submit,
    TxnPrepare,
)
from actors.paxos.ballot import Ballot
from actors.state.policy_rows import POLICY_ROWS
from actors.values import Batch, Command, Inline, Outcome, PutFile
from broker.memory_broker import MemoryBroker
from gateway.http.app import GatewayApp
from gateway.settings import Settings
from gateway.trace_events import TraceCommand, Tracing
from observability.events import PENDING_RECORDS_MAX, Mode, Recorder, TraceSwitch, plain
from observability.traces import Span, TraceCollector
from tests.broker.samples import HASH, OF_PRINCIPALS, SAMPLES
from tests.gateway.fake import FakeCluster

BALLOT = Ballot(1, "proposer-1")
MIB = 1024 * 1024
SECRET = b"the contents of a file"


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now_us = 1_000_000_000

    def __call__(self) -> int:
        return self.now_us


def command(sequence: int) -> Command:
    content = Inline(sha256="ab" * 32, data=SECRET)
    return Command(
        session="gateway-1.x",
        sequence=sequence,
        acknowledged=0,
        reply_to="gateway-1",
        operation=PutFile(path=f"a/{sequence}", content=content),
    )


def batch(slot: int) -> Batch:
    return Batch(commands=(command(slot),))


def accept(slot: int) -> Accept:
    return Accept(ballot=BALLOT, slot=slot, value=batch(slot))


def recorder(node: str, mode: Mode = "sampled") -> tuple[Recorder, Clock]:
    clock = Clock()
    return Recorder(node, TraceSwitch(mode), clock), clock


def test_no_record_of_any_message_holds_contents() -> None:
    this, _ = recorder("store-1", "all")
    for message in [*SAMPLES, accept(1)]:
        this.received("learner-1", message)
        this.sent("learner-1", message)

    text = json.dumps(this.take())

    assert len(json.loads(text)) == 2 * (len(SAMPLES) + 1)
    assert "the contents" not in text
    assert "dGhlIGNvbnRlbnRz" not in text  # nor in base64
    assert '"bytes": 22' in text


def test_a_record_names_sender_message_and_receiver() -> None:
    this, clock = recorder("proposer-1")

    this.sent("@phase2", accept(7))

    (record,) = this.take()
    content = record.pop("content")
    assert record == {
        "time_us": clock.now_us,
        "node": "proposer-1",
        "kind": "sent",
        "type": "paxos.accept",
        "from": "proposer-1",
        "to": "@phase2",
        "slot": 7,
        "ballot": "1.proposer-1",
        "epoch": None,
        "message_id": "proposer-1/paxos.accept/7/1.proposer-1",
        "summary": "accept slot 7: put file a/7 (22 B)",
        "duration_us": None,
        "requests": ["gateway-1.x-7"],
    }
    assert content["value"]["commands"] == [
        {"request": "gateway-1.x-7", "operation": "put_file", "path": "a/7", "bytes": 22}
    ]


def test_all_nodes_record_the_same_slots_however_fast_the_log_grows() -> None:
    leader, its_clock = recorder("proposer-1")
    store, other_clock = recorder("store-1")
    kept: dict[str, list[set[int]]] = {"proposer-1": [], "store-1": []}
    for second in range(8):
        for slot in range(1 + 100 * second, 101 + 100 * second):
            leader.sent("@phase2", accept(slot))
            store.received("learner-1", TxnPrepare(epoch=0, slot=slot, batch=batch(slot)))
        its_clock.now_us += 1_000_000
        other_clock.now_us += 1_000_000
        for this in (leader, store):
            kept[this.node].append({r["slot"] for r in this.take()})

    assert kept["proposer-1"] == kept["store-1"]
    assert len(kept["proposer-1"][0]) == 100  # quiet until now, so all of them
    assert all(2 <= len(slots) <= 4 for slots in kept["proposer-1"][1:])

    # A quiet cluster's slots are all recorded again after a while.
    for _ in range(10):
        its_clock.now_us += 1_000_000
        leader.take()
    leader.sent("@phase2", accept(1_001))
    assert [record["slot"] for record in leader.take()] == [1_001]


def test_the_submit_of_a_recorded_slot_is_recorded_though_it_names_no_slot() -> None:
    this, clock = recorder("proposer-1")
    for slot in range(1, 101):
        this.sent("@phase2", accept(slot))
    clock.now_us += 1_000_000
    this.take()  # From now on few slots are recorded, multiples of 32.

    for slot in (127, 128):
        this.received("gateway-1", Submit(ballot=BALLOT, command=command(slot)))
        this.sent("@phase2", accept(slot))

    assert [(r["type"], r["requests"]) for r in this.take()] == [
        ("client.submit", ["gateway-1.x-128"]),
        ("paxos.accept", ["gateway-1.x-128"]),
    ]


def test_elections_are_recorded_always_and_heartbeats_only_on_demand() -> None:
    switch, clock = TraceSwitch("sampled"), Clock()
    this = Recorder("proposer-1", switch, clock)
    beat = NodeHeartbeat(role="proposer", journal_commits=1)

    def kinds() -> list[str]:
        this.sent("@acceptors", Prepare(ballot=BALLOT, first_slot=1))
        this.sent("@heartbeats", beat)
        return [record["type"] for record in this.take()]

    assert kinds() == ["paxos.prepare"]
    switch.all_until_us = clock.now_us + 1_000
    this.take()
    assert kinds() == ["paxos.prepare", "node.heartbeat"]
    clock.now_us += 2_000
    this.take()
    assert kinds() == ["paxos.prepare"]
    switch.mode = "off"
    this.take()
    assert kinds() == []


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    this, _ = recorder("proposer-1")
    for slot in range(1, PENDING_RECORDS_MAX + 11):
        this.sent("@phase2", accept(slot))

    assert len(this.take()) == PENDING_RECORDS_MAX
    assert (this.recorded, this.dropped) == (PENDING_RECORDS_MAX, 10)


def test_a_commit_names_the_slots_that_its_turn_took_in() -> None:
    this, _ = recorder("acceptor-1")
    this.received("proposer-1", accept(4))
    this.committed(1, 0.003)
    this.turn_finished()
    this.committed(1, 0.004)  # A turn without a slot is not recorded.
    this.turn_finished()

    commits = [record for record in this.take() if record["kind"] == "committed"]

    assert [(r["slot"], r["duration_us"]) for r in commits] == [(4, 3_000)]


# -- the collector --------------------------------------------------------------------------------


def records_of_one_write() -> list[dict[str, Any]]:
    """Slot 7 through three of five acceptors; each step one millisecond after the last."""
    clock = Clock()
    nodes = {
        name: Recorder(name, TraceSwitch(), clock)
        for name in ("gateway-1", "proposer-1", "acceptor-1", "acceptor-2", "acceptor-3", "learner")
    }

    def step(node: str, to: str, message: Any) -> None:
        clock.now_us += 1_000
        nodes[node].sent(to, message)

    step("gateway-1", "proposer-1", Submit(ballot=BALLOT, command=command(7)))
    step("proposer-1", "@phase2", accept(7))
    for number in (1, 2, 3):
        step(f"acceptor-{number}", "learner", Accepted(ballot=BALLOT, slot=7))
    step("learner", "@stores", TxnPrepare(epoch=0, slot=7, batch=batch(7)))
    outcome = Outcome(status="done", slot=7, index=0)
    step("learner", "gateway-1", Result(session="gateway-1.x", sequence=7, outcome=outcome))
    clock.now_us += 1_000
    nodes["gateway-1"].received(
        "learner", Result(session="gateway-1.x", sequence=7, outcome=outcome)
    )
    return [record for node in nodes.values() for record in node.take()]


def test_the_stages_of_a_write_add_up_to_its_time() -> None:
    collector = TraceCollector(quorum=3)
    collector.add(records_of_one_write())
    began_us = Clock().now_us

    found = collector.trace("gateway-1.x-7", Span(began_us, began_us + 9_000))

    assert found is not None
    lasted = {s["name"]: s["end_us"] - s["start_us"] for s in found["stages"]}
    # The quorum's third vote leaves 3 ms after the accept; the two learn of it a step later.
    assert lasted == {
        "queue": 2_000,
        "journal": 3_000,
        "quorum": 1_000,
        "vote": 1_000,
        "answer": 2_000,
    }
    assert (found["complete"], found["traced"], found["slot"]) == (True, True, 7)
    assert sum(lasted.values()) == found["duration_us"] == 9_000
    times = [event["time_us"] for event in found["events"]]
    assert times == sorted(times)
    assert len(times) == 8
    assert not any("requests" in event for event in found["events"])


def test_a_write_without_a_quorum_has_the_stages_that_it_reached() -> None:
    collector = TraceCollector(quorum=4)
    collector.add(records_of_one_write())

    found = collector.trace("gateway-1.x-7", None)

    assert found is not None
    assert [stage["name"] for stage in found["stages"]] == ["queue"]
    assert (found["complete"], found["duration_us"]) == (False, None)
    assert collector.trace("nobody-1", None) is None


def test_votes_under_two_ballots_are_no_quorum() -> None:
    collector = TraceCollector(quorum=3, stores=("store-1", "store-2"))
    records = records_of_one_write()
    for record in records:
        if record["type"] == "paxos.accepted" and record["node"] == "acceptor-3":
            record["ballot"] = "2.proposer-2"
    collector.add(records)

    found = collector.trace("gateway-1.x-7", None)

    assert found is not None
    assert [stage["name"] for stage in found["stages"]] == ["queue"]
    assert found["complete"] is False
    assert (found["quorum"], found["stores"]) == (3, ["store-1", "store-2"])


def test_the_book_keeps_the_newest() -> None:
    collector = TraceCollector(quorum=3)
    this, clock = recorder("proposer-1", "all")
    for slot in range(1, 3_001):
        this.sent("@phase2", accept(slot))
        if slot % 500 == 0:
            clock.now_us += 1_000
            collector.add(this.take())

    oldest, newest = (
        collector.trace("gateway-1.x-1", None),
        collector.trace("gateway-1.x-3000", None),
    )

    assert oldest is not None
    assert newest is not None
    assert (oldest["traced"], newest["traced"]) == (False, True)


def test_the_book_takes_no_more_memory_than_it_says() -> None:
    written = records_of_one_write()
    collector = TraceCollector(quorum=3)
    for slot in range(1, 1_001):
        name = f"gateway-1.x-{slot}"
        long = {"requests": [name], "summary": "s" * 5_000}
        collector.add(record | long | {"slot": record["slot"] and slot} for record in written)

    assert 15 * MIB < collector.size_bytes <= 16 * MIB
    pages = [*collector._slots._groups.values(), *collector._unslotted._groups.values()]
    lines = [line for page in pages for line in page.lines]
    assert sum(map(sys.getsizeof, lines)) <= collector.size_bytes
    newest = collector.trace("gateway-1.x-1000", None)
    assert newest is not None
    assert len(newest["events"]) == len(written)


# -- over the broker ------------------------------------------------------------------------------


async def test_records_cross_the_broker_and_orders_come_back() -> None:
    broker = MemoryBroker()
    store, gateway = broker.transport("store-1"), broker.transport("gateway-1")
    there, here = Tracing("sampled"), Tracing("sampled", TraceCollector(quorum=3))
    broker.listen(here.on_event)
    observer = there.observer("store-1", store)
    here.observer("gateway-1", gateway)

    observer.sent("learner-1", accept(1))
    there.flush()  # Not connected: lost, not kept.
    assert there.dropped == 1

    async with asyncio.TaskGroup() as group:
        connected = asyncio.Event()
        tasks = [
            group.create_task(transport.run(lambda _: None, connected.set, lambda: None))
            for transport in (store, gateway)
        ]
        await connected.wait()
        await asyncio.sleep(0)
        observer.sent("learner-1", accept(2))
        there.flush()
        assert here.command(TraceCommand(mode="off"), gateway)
        for task in tasks:
            task.cancel()

    assert here.collector is not None
    assert here.collector.trace("gateway-1.x-1", None) is None
    assert here.collector.trace("gateway-1.x-2", None) is not None
    assert (there.switch.mode, here.switch.mode) == ("off", "off")


@pytest.mark.parametrize("body", [b"no json", b"{}", b'[{"slot": 1}]', b"[1]"])
def test_a_record_that_can_not_be_read_is_dropped(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    tracing = Tracing("sampled", TraceCollector(quorum=3))
    tracing.on_event("trace.x", "trace.records", body)
    tracing.on_event("trace.x", "another", body)
    assert tracing.collector is not None
    assert tracing.collector.recent() == {"requests": [], "events": []}
    assert caplog.text.count("can't be read") == (0 if body == b"{}" else 1)


# -- over HTTP ------------------------------------------------------------------------------------


async def test_what_is_asked_for_over_http(cluster: FakeCluster, settings: Settings) -> None:
    tracing = Tracing("sampled", TraceCollector(quorum=3))
    orders: list[TraceCommand] = []

    def take(order: TraceCommand) -> bool:
        orders.append(order)
        return len(orders) < 3

    app = GatewayApp(cluster, settings, tracing=tracing, command=take)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/v1/traces/who-1")).status_code == 404
        written = await client.put("/v1/files/a", content=b"x")
        request = written.headers["synod-request-id"]
        found = (await client.get(f"/v1/traces/{request}")).json()
        listed = (await client.get("/v1/requests")).json()["requests"]
        recent = (await client.get("/v1/traces")).json()

        client.headers["content-type"] = "application/json"
        for body in (b"", b"{", b'{"seconds": 601}', b'{"seconds": 1, "x": 2}'):
            assert (await client.post("/v1/traces", content=body)).status_code == 400
        for body in (b'{"seconds": 5}', b'{"mode": "all"}'):
            answer = await client.post("/v1/traces", content=body)
            assert (answer.status_code, answer.json()) == (202, json.loads(body))
        assert (await client.post("/v1/traces", content=b'{"seconds": 5}')).status_code == 503

    assert (found["traced"], found["complete"], found["events"]) == (False, False, [])
    (seen,) = listed
    assert seen["duration_us"] > 0
    assert (seen["request"], seen["method"], seen["route"], seen["status"]) == (
        request,
        "PUT",
        "files",
        201,
    )
    assert (recent["mode"], recent["requests"]) == ("sampled", [])
    assert [order.seconds for order in orders] == [5, None, 5]


async def test_a_request_in_flight_is_listed(cluster: FakeCluster, settings: Settings) -> None:
    app = GatewayApp(cluster, settings)
    cluster.hold = asyncio.Event()
    transport = httpx.ASGITransport(app)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        asyncio.TaskGroup() as group,
    ):
        writing = group.create_task(client.put("/v1/files/slow", content=b"x"))
        await cluster.called.wait()
        (running,) = (await client.get("/v1/requests")).json()["requests"]
        cluster.hold.set()
        await writing

    assert (running["path"], running["status"], running["request"]) == (
        "/v1/files/slow",
        None,
        None,
    )


async def test_commands_to_all_nodes_are_limited_to_some_a_second(
    cluster: FakeCluster, settings: Settings
) -> None:
    orders: list[TraceCommand] = []

    def take(order: TraceCommand) -> bool:
        orders.append(order)
        return True

    app = GatewayApp(cluster, settings, tracing=Tracing("sampled"), command=take)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        said = [await client.post("/v1/traces", json={"seconds": 1}) for _ in range(50)]
        large = await client.post("/v1/traces", json={"mode": "x" * 5_000})

    assert [answer.status_code for answer in said[:5]] == [202] * 5
    assert {answer.status_code for answer in said} == {202, 429}
    assert said[-1].headers["retry-after"] == "1"
    assert len(orders) <= 10
    assert large.status_code == 413


def test_no_hash_of_a_password_or_of_a_secret_is_in_a_trace() -> None:
    """Given every message about users, tokens and sessions, and copies of their rows, then a trace
    tells what they are about, and no hash: passwords can be guessed from theirs.
    """
    rows = tuple(
        SnapshotRow(key=f"{kind}/a", value=f'{{"password":"$argon2id$","sha256":"{HASH}"}}')
        for kind in POLICY_ROWS
    )
    page = SnapshotPage(slot=9, page=0, rows=rows, rows_left=0, digest="")
    shown = json.dumps([plain(message) for message in (*OF_PRINCIPALS, page)])
    assert "$argon2id$" not in shown
    assert HASH not in shown
    assert all(text in shown for text in ("create_user", "user/a", '"has_password": true', "@u"))
