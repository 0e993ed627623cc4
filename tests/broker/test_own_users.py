"""Each node as a user of its own on the broker: everything works as with a shared one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from actors.effects import Group, TimerKey
from actors.messages import ChunkData
from broker import firehose
from broker.delay_levels import DELAYS_MS
from broker.event_subscription import subscribe_to_events
from broker.probe import probe
from broker.rabbitmq import RabbitTransport
from broker.tls import BrokerTls
from broker.topology import CONTROL_TRACE, QueueKind, Topology, trace_topic
from broker.transport import TransportRefused
from tests.broker.actors import Puppet
from tests.broker.hosting import puppet, until
from tests.broker.samples import HASH
from tests.broker.test_queue_kinds import KINDS
from tests.broker.test_rabbitmq import answered, survey
from tests.broker.users import PreparedBroker

pytestmark = pytest.mark.rabbitmq


@pytest.mark.parametrize("kind", KINDS)
async def test_messages_contents_groups_and_timers_pass(
    tmp_path: Path, prepared: PreparedBroker, kind: QueueKind, caplog: pytest.LogCaptureFixture
) -> None:
    delays = [delay for delay in DELAYS_MS if delay <= 700]

    def tell(this: Puppet) -> None:
        this.send("store-1", "hello")
        this.send("store-1", ChunkData(sha256=HASH, data=b"x" * 1000))
        this.send(Group.STORES, "group")
        for delay in delays:
            this.set_timer(str(delay), delay)

    await prepared.forget_messages()
    house = prepared.house(tmp_path, kind)
    one = house.host("learner-1", {"call.survey": answered(tell)})
    two = house.host("store-1")
    async with house.running(one, two):
        await one.call(survey)
        await until(lambda: sorted(puppet(two).seen) == ["chunk.data", "group", "hello"])
        await until(lambda: len(puppet(one).timer_expired) == len(delays), within_s=20)
        for host in (one, two):
            health = host.transport.health
            assert (health.refused, health.quarantined) == (0, 0)
    assert "REFUSED" not in caplog.text


async def test_a_node_of_a_lost_session_goes_on(tmp_path: Path, prepared: PreparedBroker) -> None:
    """Given a connection that breaks, then the timers that were under way expire all the same."""
    house = prepared.house(tmp_path, "named")
    arm = answered(lambda this: this.set_timer("t", 700))
    host = house.host("store-2", {"call.survey": arm})
    async with house.running(host):
        await host.call(survey)
        host.transport._session._consuming._writer.transport.abort()  # type: ignore[attr-defined]
        await until(lambda: host.transport.health.sessions >= 2)
        await until(lambda: puppet(host).timer_expired == [TimerKey("t")], within_s=20)


async def test_a_gateway_hears_traces_and_commands_the_others(prepared: PreparedBroker) -> None:
    topology = prepared.topology
    heard: list[tuple[str, str, bytes]] = []
    ordered: list[tuple[str, bytes]] = []
    gateway, store = prepared.transport("gateway-1"), prepared.transport("store-1")
    store.on_control(lambda kind, body: ordered.append((kind, body)))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                subscribe_to_events(
                    prepared.url("gateway-1"), topology, "gateway-1", lambda *e: heard.append(e)
                )
            ),
            *(
                group.create_task(each.run(lambda delivery: None, lambda: None, lambda: None))
                for each in (gateway, store)
            ),
        ]

        def both() -> bool:
            # What is emitted before the subscription is lost to it.
            gateway.emit(CONTROL_TRACE, "trace.command", b"{}")
            store.emit(trace_topic("store-1"), "trace.records", b"[]")
            return bool(heard and ordered)

        await until(both, within_s=20)
        for task in tasks:
            task.cancel()
    assert heard[0] == (trace_topic("store-1"), "trace.records", b"[]")
    assert ordered[0] == ("trace.command", b"{}")
    assert gateway.health.refused == store.health.refused == 0


async def test_a_node_says_what_is_wrong_with_its_user(prepared: PreparedBroker) -> None:
    for url, wrong in (
        (prepared.url("store-2"), "logs on as .*store-1.* names .*store-2"),
        (prepared.broker.url, "logs on as .*store-1.* names 'synod'"),
    ):
        transport = RabbitTransport(url, prepared.topology, "store-1")
        with pytest.raises(TransportRefused, match=wrong):
            await transport.run(lambda delivery: None, lambda: None, lambda: None)


async def test_a_broker_without_preparation_is_named(prepared: PreparedBroker) -> None:
    """Given a node of another cluster, whose user exists and whose exchanges do not."""
    topology = replace(prepared.topology, cluster=f"{prepared.topology.cluster}-other")
    user, password = topology.user("store-1"), "x" * 20
    with prepared.management() as api:
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        api.import_definitions(
            {
                "users": [{"name": user, "password": password, "tags": ""}],
                "permissions": [{"user": user, "vhost": "/", **everything}],
            }
        )
    host = prepared.broker.url.rpartition("@")[2]
    transport = RabbitTransport(f"amqp://{user}:{password}@{host}", topology, "store-1")
    with pytest.raises(TransportRefused, match=r"not prepared for this node.*synod broker init"):
        await transport.run(lambda delivery: None, lambda: None, lambda: None)


async def test_the_doctor_tries_what_the_node_may_do(prepared: PreparedBroker) -> None:
    """Given the password of a node, then the probe needs no other right than that node's."""
    found = await probe(prepared.url("store-1"), prepared.topology, BrokerTls())
    assert (found.failed_step, found.blocked) == (None, False)
    assert found.late_ms is not None
    wrong = await probe(prepared.url("operator"), prepared.topology, BrokerTls())
    assert wrong.failed_step is not None
    assert "ACCESS_REFUSED" in wrong.failed_step.reason


@pytest.mark.parametrize(
    ("exchange", "key", "to"),
    [
        ("to.store", "store-1", "store-1"),
        ("to.store", "store-1.bulk", "store-1.bulk"),
        ("inbox.store-1", "store-1", "store-1"),
        ("inbox.store-1", "synod.c.delay.store-1.0123456789ab.500", "store-1 in 500 ms"),
        ("heartbeats", "", "@heartbeats"),
        ("quarantined", "", "quarantined"),
    ],
)
def test_the_firehose_knows_for_whom_a_message_is(exchange: str, key: str, to: str) -> None:
    topology = Topology("c", users="own")
    assert firehose._receiver(f"{topology.prefix}{exchange}", key, topology) == to
