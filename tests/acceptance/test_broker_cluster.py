"""On a cluster of three RabbitMQ nodes the death of any one of them costs a moment and no write."""

import asyncio
import statistics
import time
from collections.abc import Iterator

import aio_pika
import pytest

from broker.topology import Topology
from chaos.cluster.local import Description, LocalCluster
from chaos.cluster.rabbitmq import COUNT_RUNNING, PrivateBroker
from chaos.load.writers import Load
from tests.acceptance.conftest import Figure, Length, started
from tests.long import LONG, only_long
from tests.replication.cluster import eventually

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(900 if LONG else 300)]

GAP_MAX_S = 10.0
"""What a busy machine may make of a second or two."""

FROZEN_GAP_MAX_S = 20.0
"""The other brokers wait about four seconds for one that says nothing."""

WATCHED_NS = 3 * 10**9
"""A write that begins so long after the fault ends the measurement of its gap."""

REFUSED_MEANWHILE = 100


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Sixteen processes over three brokers."""
    yield from started(
        LocalCluster(tmp_path_factory.mktemp("brokers"), Description.mint(brokers=3))
    )


def brokers_of(cluster: LocalCluster) -> list[PrivateBroker]:
    return list(cluster.brokers.values())


async def back(cluster: LocalCluster, broker: PrivateBroker) -> None:
    """Wait until a broker takes connections again, and writes are taken."""
    await asyncio.to_thread(broker.start, timeout_s=60)
    await asyncio.to_thread(cluster.wait_brokers)
    await asyncio.to_thread(cluster.wait_ready)


async def test_any_broker_may_be_killed(
    cluster: LocalCluster, length: Length, figure: Figure
) -> None:
    """Given load, when one broker after the other is killed and comes back, then writes go on at
    once and none is lost.
    """
    gaps = []
    async with Load(cluster.url, clients=8) as load:
        for number in range(length.pick(1, 10)):
            broker = brokers_of(cluster)[number % 3]
            await load.acknowledged_since(time.monotonic_ns())
            killed_ns = time.monotonic_ns()
            await asyncio.to_thread(broker.kill)
            await load.acknowledged_since(killed_ns + WATCHED_NS)
            gaps.append(load.gap_s(killed_ns))
            await back(cluster, broker)

    figure(
        f"gaps after the kill of a broker: {', '.join(f'{gap:.2f}' for gap in gaps)} s, median "
        f"{statistics.median(gaps):.2f}, longest {max(gaps):.2f}; {load.summary()}"
    )
    assert max(gaps) < GAP_MAX_S
    assert not await load.verify()


@only_long
async def test_a_broker_that_is_frozen_is_left(cluster: LocalCluster, figure: Figure) -> None:
    """Given load, when a broker stands still without closing anything, then writes go on while it
    does.
    """
    broker, other, _ = brokers_of(cluster)

    async def given_up() -> bool:
        running = await asyncio.to_thread(other.control, "--quiet", "eval", COUNT_RUNNING)
        return running.strip() == "2"

    async with Load(cluster.url, clients=8) as load:
        await load.acknowledged_since(time.monotonic_ns())
        frozen_ns = time.monotonic_ns()
        with broker.frozen():
            await eventually(given_up, within_s=60)
            await load.acknowledged_since(time.monotonic_ns() + WATCHED_NS)
            gap = load.gap_s(frozen_ns)
        await back(cluster, broker)
        await load.acknowledged_since(time.monotonic_ns())

    figure(f"gap after a broker was frozen: {gap:.2f} s; {load.summary()}")
    assert gap < FROZEN_GAP_MAX_S
    assert not await load.verify()


@only_long
async def test_a_majority_of_brokers_that_comes_back_goes_on_by_itself(
    cluster: LocalCluster, figure: Figure
) -> None:
    """Given that two of three brokers die, so that the third one pauses."""
    first, second, _ = brokers_of(cluster)
    async with Load(cluster.url, clients=4) as load:
        await load.acknowledged_since(time.monotonic_ns())
        await asyncio.to_thread(first.kill)
        await asyncio.to_thread(second.kill)
        await load.refused(REFUSED_MEANWHILE)
        await asyncio.to_thread(first.start)
        back_ns = time.monotonic_ns()
        resumed = await load.acknowledged_since(back_ns)
        waited_s = (resumed.ended_ns - back_ns) / 1e9
        await back(cluster, second)

    figure(f"writes went on {waited_s:.2f} s after a majority of brokers was back")
    assert not await load.verify()
    assert waited_s < GAP_MAX_S * 2


@only_long
async def test_the_quarantine_outlives_a_broker(cluster: LocalCluster) -> None:
    """Given a message that no node can read, then it is kept though any one broker dies."""
    topology = Topology(cluster.name, "session")

    async def count(broker: PrivateBroker) -> int:
        async with await aio_pika.connect(broker.url, timeout=10) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(topology.quarantine_queue, passive=True)
            return queue.declaration_result.message_count or 0

    async def holds(broker: PrivateBroker, number: int) -> None:
        async def does() -> bool:
            try:
                return await count(broker) == number
            except (aio_pika.exceptions.AMQPException, OSError):
                return False  # It has not noticed the other one's death yet.

        await eventually(does, within_s=30)

    first, second, third = brokers_of(cluster)
    before = await count(first)
    async with await aio_pika.connect(first.url, timeout=10) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(topology.nodes, ensure=False)
        await exchange.publish(aio_pika.Message(b"garbage"), routing_key="store-1")
    await holds(first, before + 1)
    for victim, other in ((first, second), (second, third), (third, first)):
        await asyncio.to_thread(victim.kill)
        await holds(other, before + 1)
        await back(cluster, victim)
