"""An operator deletes what a running cluster uses on RabbitMQ: it recovers, and loses nothing."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import pytest

from actors.calls import WriteDecided
from actors.effects import Group
from broker.delay_levels import DELAYS_MS
from broker.rabbitmq import RabbitTransport
from broker.topology import Topology
from tests.replication.cluster import MemoryCluster, eventually, memory_cluster
from tests.worlds import put

pytestmark = pytest.mark.rabbitmq

Tidy = Callable[[Any, Topology, MemoryCluster], Coroutine[Any, Any, None]]


async def delay_queues(channel: Any, topology: Topology, cluster: MemoryCluster) -> None:
    for delay_ms in DELAYS_MS:
        await channel.queue_delete(topology.delay(delay_ms))


async def exchanges(channel: Any, topology: Topology, cluster: MemoryCluster) -> None:
    for exchange in (*topology.exchanges, *map(topology.delay, DELAYS_MS)):
        await channel.exchange_delete(exchange)


async def bindings(channel: Any, topology: Topology, cluster: MemoryCluster) -> None:
    for name in cluster.names:
        queue = topology.node_queue(name)
        await channel.queue_unbind(queue, topology.nodes, name)
        for group in Group.ALL:
            await channel.queue_unbind(queue, topology.group(group))


async def node_queues(channel: Any, topology: Topology, cluster: MemoryCluster) -> None:
    for name in cluster.names:
        await channel.queue_delete(topology.node_queue(name))


@pytest.mark.parametrize("tidy", [delay_queues, exchanges, bindings, node_queues])
async def test_a_cluster_is_whole_again_within_seconds_and_has_lost_nothing(
    amqp_url: str, tmp_path: Path, tidy: Tidy
) -> None:
    """Given writes that go on all the time, when a part of what the cluster uses is deleted."""
    topology = Topology(f"test-{uuid4().hex[:12]}")
    done: dict[str, str] = {}
    stop = asyncio.Event()

    async def write_on(cluster: MemoryCluster) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            answer = await cluster.write(put(f"f{number}", b"%d" % number))
            if isinstance(answer, WriteDecided) and answer.outcome.status == "done":
                done[f"f{number}"] = answer.outcome.etag
            await asyncio.sleep(0.02)

    async with (
        memory_cluster(
            tmp_path,
            heartbeat_ms=300,
            request_deadline_ms=3_000,
            transport=lambda name: RabbitTransport(amqp_url, topology, name),
        ) as cluster,
        await aio_pika.connect(amqp_url) as connection,
        connection.channel() as channel,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(write_on(cluster))
        await eventually(lambda: len(done) >= 5)
        await tidy(await channel.get_underlay_channel(), topology, cluster)
        before = len(done)

        def is_whole() -> bool:
            views = [cluster.actor(name).view for name in cluster.coordinators]
            return any(len(view.stores) == 3 for view in views) and len(done) >= before + 10

        def lost() -> int:
            return sum(host._timers.lost for host in cluster.hosts.values())

        async def loses_no_timers() -> bool:
            known = lost()
            await asyncio.sleep(1)
            return lost() == known

        # The nodes' timeouts come on top, where they have missed each other's heartbeats.
        await eventually(is_whole, within_s=20)
        await eventually(loses_no_timers, within_s=20)
        stop.set()
        await cluster.settled()

        for name in ("store-1", "store-2", "store-3"):
            entries = cluster.actor(name).state.entries
            assert {path: entries[path].etag for path in done} == done
