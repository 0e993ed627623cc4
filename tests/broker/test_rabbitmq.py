"""The runtime on a real RabbitMQ: messages, failures that it survives, errors that it reports."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
from yarl import URL

from actors.calls import Survey
from actors.effects import Answer, Envelope, Group, TimerKey
from actors.messages import ChunkData, ChunkPut
from broker.codec import BODY_BYTES_MAX, WIRE_VERSION
from broker.delay_levels import delay_level_ms
from broker.event_subscription import subscribe_to_events
from broker.observer import Observer
from broker.rabbitmq import RabbitOptions, RabbitTransport
from broker.runtime import HostOptions
from broker.topology import CONTROL_TRACE, Topology
from broker.transport import TransportRefused
from chaos.cluster.processes import Daemon
from chaos.cluster.rabbitmq import BrokerFailedError, PrivateBroker
from tests.broker.actors import Puppet, fail, note
from tests.broker.hosting import House, puppet, until
from tests.broker.samples import HASH, SAMPLES

pytestmark = pytest.mark.rabbitmq


def survey(token: int) -> Survey:
    return Survey(token=token)


def answered(behaviour: Callable[[Puppet], None]) -> Any:
    """A call that does `behaviour`."""

    def on_call(this: Puppet, envelope: Envelope) -> None:
        behaviour(this)
        this.out.answers.append(Answer(envelope.message.token, None))  # type: ignore[attr-defined]

    return on_call


def rabbit_house(
    folder: Path, url: str, topology: Topology, options: RabbitOptions | None = None
) -> House:
    return House(folder, lambda name: RabbitTransport(url, topology, name, options))


@pytest.fixture
def topology() -> Topology:
    return Topology(f"test-{uuid4().hex[:12]}")


@pytest.fixture
def house(tmp_path: Path, amqp_url: str, topology: Topology) -> House:
    return rabbit_house(tmp_path, amqp_url, topology)


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A RabbitMQ that these tests may kill, stop and fill, as long as it runs again after them."""
    broker = PrivateBroker(tmp_path_factory.mktemp("own-rabbitmq"))
    try:
        broker.start()
        yield broker
    except BrokerFailedError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        broker.kill()


@asynccontextmanager
async def channel_to(url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A plain client beside the nodes."""
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        yield channel


async def take(queue: aio_pika.abc.AbstractQueue) -> aio_pika.abc.AbstractIncomingMessage:
    """Wait for a message in the queue."""
    async with asyncio.timeout(10):
        while True:
            if (message := await queue.get(fail=False)) is not None:
                return message
            await asyncio.sleep(0.01)


# -- crossing -------------------------------------------------------------------------------------


async def test_every_message_crosses_as_it_was(house: House) -> None:
    # A message of more than one frame among them, and the lanes' orders apart.
    large = ChunkPut(sha256=HASH, manifest=False, data=os.urandom(1024 * 1024))
    sent = [*SAMPLES, large]

    def tell(this: Puppet) -> None:
        for message in sent:
            this.send("store-1", message)

    one = house.host("gateway-1", {"call.survey": answered(tell)})
    two = house.host("store-1")
    async with house.running(one, two):
        await one.call(survey)
        await until(lambda: len(puppet(two).envelopes) == len(sent))
        envelopes = puppet(two).envelopes
        bulk = [m for m in sent if isinstance(m, ChunkPut | ChunkData)]
        control = [m for m in sent if m not in bulk]
        received = [envelope.message for envelope in envelopes]
        assert [m for m in received if isinstance(m, ChunkPut | ChunkData)] == bulk
        assert [m for m in received if m not in bulk] == control
        assert {e[:4] for e in envelopes} == {
            ("cluster-id", "gateway-1", one.identity.disk, one.identity.incarnation)
        }


async def test_what_a_turn_sends_to_one_node_is_one_message(
    house: House, amqp_url: str, topology: Topology
) -> None:
    def tell(this: Puppet) -> None:
        for number in range(20):
            this.send("store-1", f"{number}")
            this.send("learner-1", f"{number}")

    host = house.host("gateway-1", {"call.survey": answered(tell)})
    async with house.running(host), channel_to(amqp_url) as channel:
        spy = await channel.declare_queue(exclusive=True)
        await spy.bind(topology.nodes, "store-1")
        await spy.bind(topology.nodes, "learner-1")
        await host.call(survey)
        first = await take(spy)
        second = await take(spy)
        assert {first.routing_key, second.routing_key} == {"store-1", "learner-1"}
        for message in (first, second):
            assert message.type == "chunk.refused"
            assert message.app_id == "gateway-1"
            assert message.message_id
            assert message.timestamp
            assert message.headers["cluster"] == "cluster-id"
            texts = [each["reason"] for each in json.loads(message.body)]
            assert texts == [str(number) for number in range(20)]
        await host.call(survey)


async def test_groups_reach_their_members_but_not_the_sender(house: House) -> None:
    def tell(this: Puppet) -> None:
        for group in Group.ALL:
            this.send(group, group)

    names = ("store-1", "store-2", "learner-1", "acceptor-1", "proposer-1", "gateway-1")
    hosts = {name: house.host(name, {"call.survey": answered(tell)}) for name in names}
    heard = {
        "store-1": ["call.survey"],
        "store-2": [Group.HEARTBEATS, Group.STORES],
        "learner-1": [Group.HEARTBEATS, Group.LEARNERS, Group.PHASE_2],
        "acceptor-1": [Group.ACCEPTORS, Group.PHASE_2],
        "proposer-1": [Group.HEARTBEATS],
        "gateway-1": [Group.HEARTBEATS],
    }
    async with house.running(*hosts.values()):
        await hosts["store-1"].call(survey)
        await until(
            lambda: {name: sorted(puppet(host).seen) for name, host in hosts.items()} == heard
        )


async def test_a_timer_expires_within_its_delay_level(house: House) -> None:
    delays_ms = (10, 45, 130, 400, 900)
    came: dict[str, float] = {}
    late: dict[str, int] = {}

    class Watcher(Observer):
        def timer_expired(self, timer: TimerKey, late_ms: int) -> None:
            came[timer.name] = time.monotonic()
            late[timer.name] = late_ms

    def arm(this: Puppet) -> None:
        for delay_ms in delays_ms:
            this.set_timer(str(delay_ms), delay_ms)

    host = house.host("gateway-1", {"call.survey": answered(arm)}, observer=Watcher())
    async with house.running(host):
        armed_s = time.monotonic()
        await host.call(survey)
        await until(lambda: len(came) == len(delays_ms))
        for delay_ms in delays_ms:
            took_ms = (came[str(delay_ms)] - armed_s) * 1000
            # The next delay level, and a moment for a busy machine.
            assert delay_ms - 3 <= took_ms <= delay_level_ms(delay_ms) * 1.15 + 150, late
        assert host.timers_armed == 0


async def test_a_restarted_node_is_not_woken_by_its_former_timers(house: House) -> None:
    def arm(this: Puppet) -> None:
        this.set_timer("old", 200)

    first = house.host("gateway-1", {"call.survey": answered(arm)})
    async with house.running(first):
        await first.call(survey)
        await until(lambda: not first._timers.held)
    second = house.host("gateway-1", {"restore": lambda this, _: this.set_timer("new", 600)})
    async with house.running(second):
        await until(lambda: puppet(second).timer_expired)
        assert puppet(second).timer_expired == [TimerKey("new")]


async def test_what_is_not_acknowledged_comes_again(house: House) -> None:
    # Given a node that took a message and died in its turn
    def die(this: Puppet, envelope: Envelope) -> None:
        raise KeyboardInterrupt

    host = house.host("store-1", {"die": die})
    sender = house.host("gateway-1", {"call.survey": answered(lambda p: p.send("store-1", "die"))})
    async with house.running(sender):
        running = asyncio.create_task(host.run())
        await host.ready()
        host._actor.receive = _cancel(running)  # type: ignore[method-assign]
        await sender.call(survey)
        with pytest.raises(asyncio.CancelledError):
            await running
        host._journal.close()
        again = house.host("store-1")
        async with house.running(again):
            await until(lambda: puppet(again).seen == ["die"])


def _cancel(task: "asyncio.Task[None]") -> Callable[..., Any]:
    def receive(*_: object) -> Any:
        task.cancel()
        raise asyncio.CancelledError

    return receive


# -- poison ---------------------------------------------------------------------------------------


async def test_an_undecodable_message_goes_to_quarantine_and_the_node_continues(
    house: House, amqp_url: str, topology: Topology
) -> None:
    host = house.host("store-1", {"poison": fail})
    good_headers = {"wire": WIRE_VERSION, "cluster": "c", "disk": "d", "incarnation": 1}
    async with house.running(host), channel_to(amqp_url) as channel:
        nodes = await channel.get_exchange(topology.nodes)

        async def put(body: bytes, key: str = "store-1", **properties: Any) -> None:
            await nodes.publish(aio_pika.Message(body, **properties), key)

        def text(reason: str) -> bytes:
            return b"[" + note(reason).model_dump_json().encode() + b"]"

        await put(b"\x00garbage\xff")
        await put(b"[]", headers=good_headers)
        await put(
            b'[{"type": "paxos.surprise"}]',
            type="paxos.surprise",
            app_id="store-9",
            headers=good_headers,
        )
        await put(
            b" " * (BODY_BYTES_MAX + 1), type="paxos.accept", app_id="store-9", headers=good_headers
        )
        await put(b"no hash", "store-1.bulk", type="chunk.put", app_id="x", headers=good_headers)
        await put(text("poison"), type="chunk.refused", app_id="store-9", headers=good_headers)
        await put(text("good"), type="chunk.refused", app_id="store-9", headers=good_headers)
        await until(lambda: puppet(host).seen[-1:] == ["good"])

        quarantine = await channel.get_queue(topology.quarantine_queue)
        found = [await take(quarantine) for _ in range(6)]
        reasons = {message.headers["reason"]: message for message in found}
        for expected in (
            "wire (a version",
            "app_id",
            "paxos.surprise",
            "bytes are more than",
            "sha256",
            "the actor's own mistake",
        ):
            assert any(expected in str(reason) for reason in reasons), reasons.keys()
        assert {message.headers["routing_key"] for message in found} == {
            "store-1",
            "store-1.bulk",
        }
        garbage = next(m for r, m in reasons.items() if "wire (a version" in str(r))
        assert garbage.body == b"\x00garbage\xff"
        # All of it was acknowledged: the queue is empty after the node is gone.
        await until(lambda: host.inbox_messages == 0)
    async with channel_to(amqp_url) as channel:
        queue = await channel.get_queue(topology.node_queue("store-1"))
        assert queue.declaration_result.message_count == 0


async def test_a_message_that_is_too_large_costs_neither_the_session_nor_what_follows(
    house: House, amqp_url: str, topology: Topology
) -> None:
    """Given a broker that would close the channel over it, then the message goes to quarantine."""

    def tell(this: Puppet) -> None:
        this.send("store-1", "x" * (BODY_BYTES_MAX + 1))
        this.send("store-1", "after")

    one, two = house.host("gateway-1", {"call.survey": answered(tell)}), house.host("store-1")
    async with house.running(one, two), channel_to(amqp_url) as channel:
        await one.call(survey)
        await until(lambda: puppet(two).seen == ["after"])
        message = await take(await channel.get_queue(topology.quarantine_queue))

        assert "bytes are more than" in str(message.headers["reason"])
        assert (message.headers["sender"], message.type) == ("gateway-1", "chunk.refused")
        health = one.transport.health
        assert (health.sessions, health.dropped, health.quarantined) == (1, 1, 1)


async def test_messages_of_a_newer_version_are_dropped_and_reported_once(
    house: House,
    amqp_url: str,
    topology: Topology,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Given a cluster that has gone over to a later version, when a node of this one hears nothing
    else, then it neither acts, fails, nor fills the quarantine, and its log says what to do.
    """
    host = house.host("store-1")
    headers: dict[str, Any] = {
        "wire": WIRE_VERSION + 1,
        "cluster": "c",
        "disk": "d",
        "incarnation": 1,
    }
    async with house.running(host), channel_to(amqp_url) as channel:
        nodes = await channel.get_exchange(topology.nodes)
        for number in range(50):
            message = aio_pika.Message(
                b'[{"type": "paxos.later", "number": %d}]' % number,
                type="paxos.later",
                app_id="proposer-1",
                headers=headers,
            )
            await nodes.publish(message, "store-1")
        await until(lambda: host.transport.health.newer == 50)
        assert (puppet(host).seen, host.halted, host.transport.health.quarantined) == ([], "", 0)
    said = [record.message for record in caplog.records if "wire version" in record.message]
    assert said == [
        "store-1 can't take part: proposer-1 sends messages of wire version 2, and this Synod "
        "reads 1 at most: upgrade it"
    ]


async def test_a_local_call_from_the_network_is_refused(
    house: House, amqp_url: str, topology: Topology
) -> None:
    host = house.host("gateway-1")
    async with house.running(host), channel_to(amqp_url) as channel:
        nodes = await channel.get_exchange(topology.nodes)
        await nodes.publish(
            aio_pika.Message(
                b'[{"type": "call.survey", "token": 1}]',
                type="call.survey",
                app_id="gateway-1",
                headers={
                    "wire": WIRE_VERSION,
                    "cluster": "",
                    "disk": host.identity.disk,
                    "incarnation": 1,
                },
            ),
            "gateway-1",
        )
        await until(lambda: host.transport.health.quarantined)
        assert puppet(host).seen == []


# -- losing the broker ----------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_killed_broker_comes_back_and_the_nodes_go_on(
    tmp_path: Path, own_broker: PrivateBroker, topology: Topology
) -> None:
    # Given two nodes that talk, with a timer under way
    house = rabbit_house(tmp_path, own_broker.url, topology)

    def tell(this: Puppet) -> None:
        this.send("store-1", "hello")

    one = house.host(
        "gateway-1",
        {"call.survey": answered(tell), "restore": lambda this, _: this.set_timer("long", 3000)},
    )
    two = house.host("store-1")
    async with house.running(one, two):
        await one.call(survey)
        await until(lambda: puppet(two).seen == ["hello"])
        await until(lambda: not one._timers.held)
        # When the broker is killed
        await asyncio.to_thread(own_broker.kill)
        await until(lambda: not one.transport.health.connected)
        # Then turns continue at once, and the messages that they send are lost and counted
        async with asyncio.timeout(1):
            await one.call(survey)
        assert one.transport.health.dropped > 0
        await asyncio.to_thread(own_broker.start)
        back_s = time.monotonic()
        # And both continue within ten seconds, in the same process
        await until(lambda: one.transport.health.connected and two.transport.health.connected)

        async def talk() -> None:
            while len(puppet(two).seen) < 2:
                await one.call(survey)
                await asyncio.sleep(0.05)

        await asyncio.wait_for(talk(), 10)
        await until(lambda: puppet(one).timer_expired == [TimerKey("long")])
        assert time.monotonic() - back_s < 10
        assert one.identity.incarnation == two.identity.incarnation == 1
        assert one.transport.health.sessions == 2


async def test_a_broker_that_falls_silent_is_given_up(
    tmp_path: Path, own_broker: PrivateBroker, topology: Topology
) -> None:
    options = replace(
        RabbitOptions.of(own_broker.url, silence_ms=500, ping_timeout_ms=500),
        connect_timeout_s=0.5,
    )
    host = rabbit_house(tmp_path, own_broker.url, topology, options).host("store-1")
    house = rabbit_house(tmp_path, own_broker.url, topology, options)
    async with house.running(host):
        sessions = host.transport.health.sessions
        # A living broker passes the self-test again and again.
        pings = host.transport._pings  # type: ignore[attr-defined]
        await until(lambda: pings._number > 2)
        assert host.transport.health.sessions == sessions
        process_id = own_broker.process_id
        assert process_id is not None
        os.kill(process_id, signal.SIGSTOP)
        try:
            await until(lambda: not host.transport.health.connected)
        finally:
            os.kill(process_id, signal.SIGCONT)
        await until(lambda: host.transport.health.sessions > sessions)


async def test_the_settings_say_how_soon_a_silent_broker_is_given_up(
    tmp_path: Path, own_broker: PrivateBroker
) -> None:
    """Given a process with short limits, when its broker freezes, then it is given up long before
    the default limits, which are ten seconds together.
    """
    settings = {"broker": own_broker.url, "data": str(tmp_path / "data"), "cluster": "silence"}
    limits = {"broker_silence_ms": "200", "broker_ping_timeout_ms": "300"}
    node = Daemon(
        "acceptor-1",
        [sys.executable, "-m", "gateway.cli.main", "node", "acceptor-1"],
        {f"SYNOD_{name.upper()}": value for name, value in (settings | limits).items()},
        folder=Path.cwd(),
        log=tmp_path / "log",
        record=tmp_path / "record",
    )
    node.start()
    try:
        await until(lambda: "acceptor-1 runs" in node.last_words())
        with own_broker.frozen():
            began_s = time.monotonic()
            await until(lambda: "own queue delivers nothing" in node.last_words())
            assert time.monotonic() - began_s < 6
    finally:
        node.kill()


async def test_a_cut_connection_and_a_deleted_queue_are_made_anew(
    house: House, amqp_url: str, topology: Topology
) -> None:
    host = house.host("store-1", {"call.survey": answered(lambda p: p.send("store-1", "self"))})
    async with house.running(host):
        for deed in ("cut", "delete"):
            sessions = host.transport.health.sessions
            if deed == "cut":
                session = host.transport._session  # type: ignore[attr-defined]
                session._consuming._writer.transport.abort()
            else:
                async with channel_to(amqp_url) as channel:
                    await channel.queue_delete(topology.node_queue("store-1"))
            await until(lambda: host.transport.health.sessions > sessions)  # noqa: B023
            await until(lambda: host.transport.health.connected)
            seen = len(puppet(host).seen)
            await host.call(survey)
            await until(lambda: puppet(host).seen[seen:] == ["call.survey", "self"])  # noqa: B023


async def test_a_blocked_broker_is_reported_and_nothing_waits_for_it(
    tmp_path: Path, own_broker: PrivateBroker, topology: Topology
) -> None:
    house = rabbit_house(tmp_path, own_broker.url, topology)
    host = house.host("store-1", {"call.survey": answered(lambda p: p.send("store-2", "x"))})
    async with house.running(host):
        await asyncio.to_thread(own_broker.control, "set_vm_memory_high_watermark", "0.0001")
        await host.call(survey)
        await until(lambda: host.transport.health.blocked)
        dropped = host.transport.health.dropped
        async with asyncio.timeout(1):
            for _ in range(50):
                await host.call(survey)
        assert host.transport.health.dropped >= dropped + 50
        await asyncio.to_thread(own_broker.control, "set_vm_memory_high_watermark", "0.4")
        await until(lambda: not host.transport.health.blocked)
        assert host.transport.health.sessions == 1


async def test_contents_do_not_pile_up_before_a_broker_that_takes_none(
    tmp_path: Path, own_broker: PrivateBroker, topology: Topology
) -> None:
    """Given a node that sends the same contents again and again, its memory has a bound."""
    mib = 1024 * 1024
    chunk = ChunkPut(sha256=HASH, manifest=False, data=bytes(mib))

    def send_chunks(this: Puppet) -> None:
        for _ in range(12):
            this.send("store-2", chunk)

    options = RabbitOptions(flush_timeout_s=0.05)
    house = rabbit_house(tmp_path, own_broker.url, topology, options)
    host = house.host("gateway-1", {"call.survey": answered(send_chunks)})
    process_id = own_broker.process_id
    assert process_id is not None
    async with house.running(host):
        os.kill(process_id, signal.SIGSTOP)
        try:
            for _ in range(5):
                await host.call(survey)
            # One batch may begin just below the limit.
            batch_bytes = HostOptions().blob_bytes_staged_max + mib
            assert host.transport.unsent_bytes <= options.bulk_unsent_bytes_max + batch_bytes
            assert host.transport.health.dropped > 30
        finally:
            os.kill(process_id, signal.SIGCONT)
        await until(lambda: not host.transport.unsent_bytes)
        dropped = host.transport.health.dropped
        await host.call(survey)
        assert host.transport.health.dropped == dropped


# -- refusals -------------------------------------------------------------------------------------


async def test_wrong_credentials_end_the_node_with_a_clear_message(
    tmp_path: Path, amqp_url: str, topology: Topology
) -> None:
    url = str(URL(amqp_url).with_password("wrong"))
    host = rabbit_house(tmp_path, url, topology).host("store-1")
    with pytest.raises(TransportRefused, match="refused the user name or password") as refusal:
        await asyncio.wait_for(host.run(), 10)
    assert "wrong" not in str(refusal.value).replace("refused", "")
    host._journal.close()


async def test_a_virtual_host_that_is_not_there_ends_the_node(
    tmp_path: Path, amqp_url: str, topology: Topology
) -> None:
    url = str(URL(amqp_url).with_path("/nowhere"))
    host = rabbit_house(tmp_path, url, topology).host("store-1")
    with pytest.raises(TransportRefused, match=r"refused the virtual host.*nowhere"):
        await asyncio.wait_for(host.run(), 10)
    host._journal.close()


async def test_a_queue_with_other_settings_is_named(
    tmp_path: Path, amqp_url: str, topology: Topology
) -> None:
    async with channel_to(amqp_url) as channel:
        await channel.declare_queue(topology.node_queue("store-1"), durable=True)
        host = rabbit_house(tmp_path, amqp_url, topology).host("store-1")
        with pytest.raises(TransportRefused, match=topology.node_queue("store-1")):
            await asyncio.wait_for(host.run(), 10)
        host._journal.close()


async def test_an_unreachable_broker_is_waited_for_or_not(
    tmp_path: Path, topology: Topology, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"amqp://guest:secret@127.0.0.1:{unused.getsockname()[1]}/"
        house = rabbit_house(tmp_path, url, topology, RabbitOptions(wait=False))
        host = house.host("store-1")
        with pytest.raises(TransportRefused, match=r"amqp://127\.0\.0\.1.*can't be reached"):
            await asyncio.wait_for(host.run(), 10)
        host._journal.close()

        patient = rabbit_house(tmp_path, url, topology).host("store-2")
        running = asyncio.create_task(patient.run())
        await until(lambda: patient.transport.health.failures >= 2)
        assert not running.done()
        assert "no connection to amqp://127.0.0.1" in caplog.text
        assert "secret" not in caplog.text
        running.cancel()
        await asyncio.wait([running])
        patient._journal.close()


async def test_a_socket_that_says_nothing_does_not_hold_the_node(
    tmp_path: Path, topology: Topology
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}/"
        options = RabbitOptions(connect_timeout_s=0.2)
        host = rabbit_house(tmp_path, url, topology, options).host("store-1")
        running = asyncio.create_task(host.run())
        await until(lambda: host.transport.health.failures >= 2)
        assert host.transport.health.last_error == "no reply in time"
        running.cancel()
        await asyncio.wait([running])
        host._journal.close()


# -- events ---------------------------------------------------------------------------------------


async def test_events_are_received_and_orders_reach_the_nodes(
    house: House, amqp_url: str, topology: Topology
) -> None:
    heard: list[tuple[str, str, bytes]] = []
    orders: list[tuple[str, bytes]] = []
    one, two = house.host("gateway-1"), house.host("store-1")
    two.transport.on_control(lambda kind, body: orders.append((kind, body)))
    assert not one.transport.emit("trace.gateway-1", "trace.records", b"[]")
    async with house.running(one, two), asyncio.TaskGroup() as group:
        listening = group.create_task(
            subscribe_to_events(amqp_url, topology, "gateway-1", lambda *event: heard.append(event))
        )
        # Events that are published before anybody listens are lost.
        await until(lambda: one.transport.emit("trace.gateway-1", "kind", b"[1]") and heard)
        assert one.transport.emit(CONTROL_TRACE, "order", b"{}")
        await until(lambda: orders)
        listening.cancel()

    assert heard[0] == ("trace.gateway-1", "kind", b"[1]")
    assert orders == [("order", b"{}")]
    assert not two.inbox_messages
