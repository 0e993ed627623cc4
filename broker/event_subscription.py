"""A subscription to a cluster's events on RabbitMQ, on a connection of its own.

A subscriber must never slow a node down: its queue is exclusive and bounded, and deleted when the
subscriber disconnects. Events that are published meanwhile are lost to it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from uuid import uuid4

import aio_pika
import aiormq
from aio_pika.abc import AbstractIncomingMessage
from yarl import URL

from broker.addresses import BrokerAddresses, split_urls
from broker.cancellation import cancellation_kept
from broker.tls import BrokerTls, refusal_of
from broker.topology import TRACE_TOPICS, Topology

log = logging.getLogger("synod.events")

_QUEUED_MAX = 2_000
_RECONNECT_S = 2.0
_CONNECT_TIMEOUT_S = 10.0
_REBIND_S = 3.0
"""How often the exchange and the binding are declared again: either may be deleted by others, and
the broker does not report that.
"""

_CONNECTION_ERRORS = (
    aiormq.AMQPError,
    aio_pika.exceptions.AMQPException,
    aiormq.exceptions.ChannelInvalidStateError,  # A RuntimeError: the connection went meanwhile.
    OSError,
    TimeoutError,
)


async def subscribe_to_events(
    broker: str,
    topology: Topology,
    name: str,
    listener: Callable[[str, str, bytes], None],
    tls: BrokerTls | None = None,
) -> None:
    """Call `listener` with each event's topic, type and body, until cancelled.

    After a lost connection it reconnects every two seconds, to the next of several brokers.
    """
    addresses = BrokerAddresses(split_urls(broker))
    tls = tls or BrokerTls()
    reported = ""
    while True:
        try:
            await _subscribe(addresses.current, topology, name, listener, tls)
        except _CONNECTION_ERRORS as error:
            reason = str(refusal_of(error) or error) or type(error).__name__
            # The node's own connection reports what is wrong with the broker, and for how long.
            log.log(
                logging.DEBUG if reason == reported else logging.INFO,
                "%s receives no events: %s",
                name,
                reason,
            )
            reported = reason
        addresses.failed()
        await asyncio.sleep(_RECONNECT_S)


async def _subscribe(
    url: str,
    topology: Topology,
    name: str,
    listener: Callable[[str, str, bytes], None],
    tls: BrokerTls,
) -> None:
    """Connect and pass events on until the connection is lost."""

    own_users = topology.own_users

    async def on_message(message: AbstractIncomingMessage) -> None:
        topic = message.routing_key or ""
        if own_users and message.user_id != topology.user(topic.removeprefix("trace.")):
            return  # Of another node than the topic says.
        listener(topic, message.type or "", message.body)

    disconnected = asyncio.Event()
    connection = aio_pika.Connection(
        URL(url),
        ssl_context=tls.context_for(url),
        client_properties={"connection_name": f"{name} events"},
    )
    try:
        with cancellation_kept():
            await connection.connect(timeout=_CONNECT_TIMEOUT_S)
            connection.close_callbacks.add(lambda *_: disconnected.set())
            channel = await connection.channel(publisher_confirms=False)
            channel.close_callbacks.add(lambda *_: disconnected.set())
            exchange = await channel.declare_exchange(
                topology.events, "topic", durable=True, passive=own_users
            )
            queue = await channel.declare_queue(
                topology.events_queue(name, uuid4().hex[:12]) if own_users else None,
                exclusive=True,
                arguments={"x-max-length": _QUEUED_MAX, "x-overflow": "drop-head"},
            )
            await queue.bind(exchange, TRACE_TOPICS)
            await queue.consume(on_message, no_ack=True)
        while not disconnected.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REBIND_S):
                    await disconnected.wait()
            if disconnected.is_set():
                return
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                with cancellation_kept():
                    await exchange.declare()
                    await queue.bind(exchange, TRACE_TOPICS)
    finally:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                with cancellation_kept():
                    await connection.close()
