"""Which nodes of a cluster run: those whose heartbeats a broker carries."""

import asyncio
from urllib.parse import urlsplit

import aiormq

from actors.effects import Group
from broker.amqp_frames import AmqpMessage
from broker.amqp_session import AmqpConnection
from broker.tls import BrokerTls
from broker.topology import Topology

_TIMEOUT_S = 5.0
_HEARTBEAT_S = 5
_CONNECTION = "synod recover"


async def nodes_heard(
    url: str, topology: Topology, cluster: str, tls: BrokerTls, for_s: float
) -> frozenset[str]:
    """The nodes of the cluster with the id `cluster` that send a heartbeat within `for_s`.

    Raises `OSError`, `TimeoutError` or `aiormq.AMQPError` if the broker can't be asked.
    """
    heard: set[str] = set()

    def note(message: AmqpMessage) -> None:
        properties = message.properties
        headers = (properties.headers if properties is not None else None) or {}
        if properties is not None and properties.app_id and headers.get("cluster") == cluster:
            heard.add(properties.app_id)

    connection = await AmqpConnection.open(url, _CONNECTION, _TIMEOUT_S, _HEARTBEAT_S, tls)
    try:
        connection.splitter.on_delivery = note
        async with asyncio.timeout(_TIMEOUT_S):
            channel = await connection.channel()
            exchange = topology.group(Group.HEARTBEATS)
            try:
                await channel.exchange_declare(exchange, passive=True)
            except aiormq.exceptions.ChannelNotFoundEntity:
                return frozenset()  # No node of this cluster has ever been at this broker.
            declared = await channel.queue_declare("", exclusive=True)
            assert declared.queue is not None
            await channel.queue_bind(declared.queue, exchange)
            await channel.basic_consume(declared.queue, _unexpected, no_ack=True)
        await asyncio.sleep(for_s)
    finally:
        await connection.close(politely=True)
    return frozenset(heard)


def address_of(url: str) -> str:
    """The broker's host and port, without user and password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}"


async def _unexpected(message: object) -> None:
    raise AssertionError(f"the splitter takes deliveries, but {message!r} passed it")
