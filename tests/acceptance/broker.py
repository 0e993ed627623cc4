"""The tests' own connection to the broker: reads its queues, and publishes malformed messages."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import aio_pika
from aio_pika.abc import AbstractConnection, HeadersType
from pamqp.commands import Basic

from broker.topology import Topology
from chaos.cluster.local import LocalCluster
from chaos.measure.idle import waiting


@dataclass(frozen=True)
class Malformed:
    """A message that no node sends."""

    name: str
    body: bytes
    type: str = ""
    app_id: str = ""
    content_type: str = "application/json"
    headers: HeadersType = field(default_factory=dict)


@contextlib.asynccontextmanager
async def connection(cluster: LocalCluster) -> AsyncIterator[AbstractConnection]:
    """A connection with the cluster's own credentials."""
    link = await aio_pika.connect(cluster.broker_url, timeout=10)
    async with link:
        yield link


async def publish_malformed(
    cluster: LocalCluster, queues: Iterable[str], messages: Iterable[Malformed]
) -> int:
    """Publish every message straight into every queue; return how many the broker accepted."""
    taken = 0
    sent = list(messages)
    async with connection(cluster) as link:
        channel = await link.channel()
        for queue in queues:
            for one in sent:
                message = aio_pika.Message(
                    one.body,
                    type=one.type,
                    app_id=one.app_id,
                    content_type=one.content_type,
                    headers=one.headers,
                )
                confirmed = await channel.default_exchange.publish(message, routing_key=queue)
                taken += isinstance(confirmed, Basic.Ack)
    return taken


async def wait_for_quarantine(cluster: LocalCluster, number: int, *, timeout_s: float = 60) -> None:
    """Wait until so many messages are in quarantine."""
    deadline = time.monotonic() + timeout_s
    found = await quarantined(cluster)
    while found < number:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{found} of {number} messages are in quarantine")
        await asyncio.sleep(0.1)
        found = await quarantined(cluster)


async def quarantined(cluster: LocalCluster) -> int:
    """How many messages are in quarantine."""
    quarantine = Topology(cluster.name).quarantine_queue
    return (await waiting(cluster, [quarantine]))[quarantine]
