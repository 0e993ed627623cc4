"""Queues that are deleted, unbound, purged or bounded under running nodes work again in seconds."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
from aiormq.abc import AbstractChannel

from actors.effects import Group, TimerKey
from actors.messages import ChunkData, ChunkMissing
from broker.delay_levels import DELAY_RATIO, DELAYS_MS, delay_level_ms
from broker.event_subscription import subscribe_to_events
from broker.observer import Observer
from broker.rabbitmq import RabbitOptions, RabbitTransport
from broker.runtime import NodeHost
from broker.topology import Topology
from chaos.cluster.rabbitmq import BrokerFailedError, PrivateBroker
from tests.broker.actors import Puppet
from tests.broker.hosting import House, puppet, until
from tests.broker.samples import HASH
from tests.broker.test_rabbitmq import answered, channel_to, survey, take
from tests.replication.cluster import eventually

pytestmark = pytest.mark.rabbitmq

_SOON_S = 4.0
"""By then everything works again: the topology of a session is declared again more often."""


@pytest.fixture
def topology() -> Topology:
    return Topology(f"test-{uuid4().hex[:12]}")


@pytest.fixture
def house(tmp_path: Path, amqp_url: str, topology: Topology) -> House:
    return House(tmp_path, lambda name: RabbitTransport(amqp_url, topology, name))


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A RabbitMQ that these tests may set policies on."""
    broker = PrivateBroker(tmp_path_factory.mktemp("own-rabbitmq"))
    try:
        broker.start()
        yield broker
    except BrokerFailedError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        broker.kill()


class Ticks(Observer):
    """When each timer of a node expired, on the loop's clock."""

    def __init__(self) -> None:
        self.at_s: list[float] = []

    def timer_expired(self, timer: TimerKey, late_ms: int) -> None:
        self.at_s.append(asyncio.get_running_loop().time())


def ticking(house: House, every_ms: int, ticks: Ticks) -> NodeHost:
    """A node whose timer sets itself again and again."""

    def tick(this: Puppet, _: Any) -> None:
        this.set_timer("tick", every_ms)

    return house.host("gateway-1", {"restore": tick, "expire": tick}, observer=ticks)


@asynccontextmanager
async def operator(url: str) -> AsyncIterator[AbstractChannel]:
    """Somebody who tidies up on the broker."""
    async with channel_to(url) as channel:
        yield await channel.get_underlay_channel()


# -- timers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["queue", "exchange", "binding"])
async def test_a_deleted_delay_queue_is_declared_again(
    house: House, amqp_url: str, topology: Topology, what: str
) -> None:
    """Given a timer of 300 ms, when the delay queues that hold it vanish, then it still expires."""
    ticks = Ticks()
    host = ticking(house, 300, ticks)
    async with house.running(host), operator(amqp_url) as channel:
        await until(lambda: len(ticks.at_s) >= 2)
        for name in map(topology.delay, DELAYS_MS):
            match what:
                case "queue":
                    await channel.queue_delete(name)
                case "exchange":
                    await channel.exchange_delete(name)
                case "binding":
                    await channel.queue_unbind(name, name)
        before = len(ticks.at_s)
        await until(lambda: len(ticks.at_s) >= before + 5, within_s=_SOON_S)
        if what != "exchange":
            assert host.transport.health.sessions == 1


async def test_a_long_timer_in_a_deleted_delay_queue_is_two_seconds_late_at_most(
    house: House, amqp_url: str, topology: Topology
) -> None:
    """Given that half of its delay would be ten seconds."""
    ticks = Ticks()
    loop = asyncio.get_running_loop()

    def arm(this: Puppet) -> None:
        this.set_timer("t", 6_000)

    host = house.host("gateway-1", {"call.survey": answered(arm)}, observer=ticks)
    async with house.running(host), operator(amqp_url) as channel:
        await host.call(survey)
        armed_s = loop.time()
        await until(lambda: not host._timers.held)
        for name in map(topology.delay, DELAYS_MS):
            await channel.queue_delete(name)

        await until(lambda: ticks.at_s, within_s=10)
        assert 5.9 <= ticks.at_s[0] - armed_s < 6 + 2 + 0.5 + 0.4


async def test_a_policy_that_lets_unused_queues_expire_stops_no_timer(
    tmp_path: Path, own_broker: PrivateBroker, topology: Topology
) -> None:
    """Given delay queues that expire before their messages, unless a node declares them again."""
    often = RabbitOptions(redeclare_interval_s=0.15)
    house = House(tmp_path, lambda name: RabbitTransport(own_broker.url, topology, name, often))
    ticks = Ticks()
    own_broker.control("set_policy", "tidy", "delay", '{"expires": 1000}', "--apply-to", "queues")
    try:
        async with house.running(ticking(house, 2_000, ticks)):
            await until(lambda: len(ticks.at_s) >= 3, within_s=12)
    finally:
        own_broker.control("clear_policy", "tidy")

    each_s = [later - at for at, later in itertools.pairwise(ticks.at_s)]
    assert max(each_s) < 2.0 * DELAY_RATIO + 0.6, each_s


async def test_a_policy_that_keeps_no_messages_makes_no_timer_early_nor_a_node_busy(
    tmp_path: Path, own_broker: PrivateBroker, topology: Topology
) -> None:
    """Given delay queues of length 0, which pass each message on at once."""
    house = House(tmp_path, lambda name: RabbitTransport(own_broker.url, topology, name))
    own_broker.control("set_policy", "full", "delay", '{"max-length": 0}', "--apply-to", "queues")
    ticks = Ticks()
    try:
        host = ticking(house, 1_500, ticks)
        began_s = asyncio.get_running_loop().time()
        async with house.running(host):
            await until(lambda: ticks.at_s)
            generations = host._timers._generation
    finally:
        own_broker.control("clear_policy", "full")

    assert 1.4 <= ticks.at_s[0] - began_s < 2.5
    assert generations < 20, "it asks again and again"


# -- messages -------------------------------------------------------------------------------------


async def _unbind_everything(channel: Any, topology: Topology) -> None:
    for name in ("store-1", "store-2"):
        queue = topology.node_queue(name)
        await channel.queue_unbind(queue, topology.nodes, name)
        for group in Group.ALL:
            await channel.queue_unbind(queue, topology.group(group))


async def _delete_the_exchanges(channel: Any, topology: Topology) -> None:
    for name in topology.exchanges:
        await channel.exchange_delete(name)


async def _delete_the_queues(channel: Any, topology: Topology) -> None:
    for name in ("store-1", "store-2"):
        await channel.queue_delete(topology.node_queue(name))
        await channel.queue_delete(topology.bulk_queue(name))


@pytest.mark.parametrize("vanish", [_unbind_everything, _delete_the_exchanges, _delete_the_queues])
async def test_nodes_receive_each_others_messages_again(
    house: House,
    amqp_url: str,
    topology: Topology,
    vanish: Callable[[Any, Topology], Coroutine[Any, Any, None]],
) -> None:
    """Given nodes that talk to each other, and to groups, all the time."""

    def talk(this: Puppet, _: Any) -> None:
        other = "store-2" if this.identity.name == "store-1" else "store-1"
        this.send(other, "direct")
        this.send(other, ChunkMissing(sha256=HASH))
        this.send(other, ChunkData(sha256=HASH, data=b"bulk"))
        this.send(Group.STORES, "group")
        this.send(Group.HEARTBEATS, "beat")
        this.set_timer("talk", 100)

    ways = {"direct", "group", "beat", "chunk.data", "chunk.missing"}
    hosts = [house.host(name, {"restore": talk, "expire": talk}) for name in ("store-1", "store-2")]
    async with house.running(*hosts), operator(amqp_url) as channel:

        def all_hear() -> bool:
            return all(ways <= set(puppet(host).seen) for host in hosts)

        await until(all_hear)
        await vanish(channel, topology)
        await asyncio.sleep(0.3)  # Messages in flight may still arrive.
        for host in hosts:
            puppet(host).seen.clear()

        await until(all_hear, within_s=_SOON_S)


async def test_the_quarantine_takes_in_what_can_not_be_read_again(
    house: House, amqp_url: str, topology: Topology
) -> None:
    host = house.host("store-1")
    async with house.running(host), operator(amqp_url) as channel:
        await channel.queue_delete(topology.quarantine_queue)

        async def is_back() -> bool:
            async with channel_to(amqp_url) as looking:
                try:
                    await looking.get_queue(topology.quarantine_queue)
                except aio_pika.exceptions.ChannelNotFoundEntity:
                    return False
            return True

        await eventually(is_back, within_s=_SOON_S)
        await channel.basic_publish(b"garbage", exchange=topology.nodes, routing_key="store-1")
        async with channel_to(amqp_url) as looking:
            message = await take(await looking.get_queue(topology.quarantine_queue))
        assert message.body == b"garbage"


async def test_events_are_received_again(house: House, amqp_url: str, topology: Topology) -> None:
    heard: list[bytes] = []
    host = house.host("gateway-1")
    async with house.running(host), operator(amqp_url) as channel, asyncio.TaskGroup() as group:
        listening = group.create_task(
            subscribe_to_events(
                amqp_url, topology, "gateway-1", lambda *event: heard.append(event[2])
            )
        )
        await until(lambda: host.transport.emit("trace.gateway-1", "kind", b"before") and heard)
        await channel.exchange_delete(topology.events)
        heard.clear()
        await until(
            lambda: host.transport.emit("trace.gateway-1", "kind", b"after") and b"after" in heard,
            within_s=2 * _SOON_S,
        )
        listening.cancel()


async def test_messages_purged_from_queues_are_sent_again(
    house: House, amqp_url: str, topology: Topology
) -> None:
    """Given an operator who purges the delay queue in which a timer waits."""
    ticks = Ticks()
    host = ticking(house, 1_000, ticks)
    async with house.running(host), operator(amqp_url) as channel:
        await until(lambda: ticks.at_s)
        await asyncio.sleep(0.1)
        await channel.queue_purge(topology.delay(delay_level_ms(1_000)))
        await channel.queue_purge(topology.delay(delay_level_ms(980)))
        before = len(ticks.at_s)
        await until(lambda: len(ticks.at_s) >= before + 2, within_s=_SOON_S)
