"""Tries at one broker what a node does there, under names of its own that are gone afterwards."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import aiormq

from broker.amqp_frames import AmqpMessage
from broker.amqp_session import AmqpConnection
from broker.cancellation import cancellation_kept
from broker.tls import BrokerTls
from broker.topology import Topology

TIMEOUT_S = 5.0
"""How long to wait for the connection, and then for each reply."""

DELAY_MS = 100
"""How long the probe's message waits before the broker sends it on, as timers do."""

_HEARTBEAT_S = 5
_CONNECTION = "synod doctor"
_DIRECT, _LATER = "direct", "later"


class FailedStep(NamedTuple):
    """What the broker did not do, and why."""

    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class Probed:
    """What was found at a broker. `failed_step` is the first step that failed, if any.

    `blocked`: the broker blocks publishers, as it does while an alarm is set.
    """

    version: str
    failed_step: FailedStep | None
    blocked: bool
    round_trip_ms: float | None
    late_ms: float | None
    """How much later than asked for the delayed message came."""


class _StepFailed(Exception):
    """A step failed."""

    def __init__(self, failed: FailedStep) -> None:
        super().__init__(failed.step)
        self.failed = failed


async def probe(url: str, topology: Topology, tls: BrokerTls) -> Probed:
    """Connect, declare, bind, publish, consume, and let a message expire.

    Raises `OSError`, `TimeoutError` or `aiormq.AMQPError` if there is no connection.
    """
    connection = await AmqpConnection.open(url, _CONNECTION, TIMEOUT_S, _HEARTBEAT_S, tls)
    attempt = _Attempt(connection, _names_for(url, topology))
    failed_step = None
    try:
        try:
            await attempt.run()
        except _StepFailed as error:
            failed_step = error.failed
        return Probed(
            version=str(connection.server_properties.get("version", "")),
            failed_step=failed_step,
            blocked=attempt.blocked,
            round_trip_ms=attempt.round_trip_ms,
            late_ms=attempt.late_ms,
        )
    finally:
        await attempt.clean_up()
        await connection.close(politely=True)


async def strangers(urls: Sequence[str], topology: Topology, tls: BrokerTls) -> tuple[str, ...]:
    """Those of the brokers that are of another cluster than the first: an exchange that is declared
    at one node of a cluster exists at all of them, while their cluster names differ by default.

    Raises `OSError`, `TimeoutError` or `aiormq.AMQPError` if one can't be asked.
    """
    name = _probe_name(topology)
    found = []
    async with asyncio.timeout(TIMEOUT_S * len(urls)), _connected(urls[0], tls) as first:
        await first.exchange_declare(name, exchange_type="direct")
        try:
            for url in urls[1:]:
                async with _connected(url, tls) as channel:
                    try:
                        await channel.exchange_declare(name, passive=True)
                    except aiormq.exceptions.ChannelNotFoundEntity:
                        found.append(url)
        finally:
            await first.exchange_delete(name)
    return tuple(found)


@asynccontextmanager
async def _connected(url: str, tls: BrokerTls) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    connection = await AmqpConnection.open(url, _CONNECTION, TIMEOUT_S, _HEARTBEAT_S, tls)
    try:
        yield await connection.channel()
    finally:
        await connection.close(politely=True)


def _probe_name(topology: Topology) -> str:
    # As the names of a node: the permissions of its user cover the prefix.
    return f"{topology.prefix}doctor.{uuid4().hex[:12]}"


class _Names(NamedTuple):
    """What the probe uses. With users of their own a node has its exchange, and declares none."""

    exchange: str
    declares_exchange: bool
    queue: str
    delays: str
    direct_key: str
    later_key: str


def _names_for(url: str, topology: Topology) -> _Names:
    if topology.own_users:
        node = unquote(urlsplit(url).username or "guest").removeprefix(topology.prefix)
        session = topology.of_session(node, uuid4().hex[:12])
        queue = f"{topology.user(node)}.{session.suffix}"
        delays = session.delay_queue(DELAY_MS)
        return _Names(topology.inbox(node), False, queue, delays, queue, delays)
    name = _probe_name(topology)
    return _Names(name, True, name, f"{name}.delay", _DIRECT, _LATER)


class _Attempt:
    """The steps, in order; the first that fails ends them."""

    def __init__(self, connection: AmqpConnection, names: _Names) -> None:
        self._connection = connection
        self._names = names
        self._exchange_declared = False
        self._arrived: asyncio.Queue[AmqpMessage] = asyncio.Queue()
        self.blocked = False
        self.round_trip_ms: float | None = None
        self.late_ms: float | None = None
        connection.splitter.on_delivery = self._arrived.put_nowait
        connection.splitter.on_blocked = self._on_blocked

    def _on_blocked(self, blocked: bool) -> None:
        self.blocked = blocked

    async def run(self) -> None:
        """Raises `_StepFailed`."""
        names = self._names
        exchange, queue, delays = names.exchange, names.queue, names.delays
        async with self._step("open a channel"):
            channel = await self._connection.channel()
        if names.declares_exchange:
            async with self._step(f"configure the exchange {exchange}"):
                await channel.exchange_declare(exchange, exchange_type="direct", auto_delete=True)
                self._exchange_declared = True
        async with self._step(f"configure the queue {queue}"):
            await channel.queue_declare(queue, exclusive=True)
        async with self._step(f"bind the queue {queue} (write) to the exchange {exchange} (read)"):
            await channel.queue_bind(queue, exchange, names.direct_key)
        async with self._step(f"read the queue {queue}"):
            await channel.basic_consume(queue, _unexpected, no_ack=True)
        async with self._step(f"write to the exchange {exchange}"):
            self.round_trip_ms = await self._send(channel, names.direct_key)
        async with self._step(
            f"let messages of the queue {delays} expire (read) to {exchange} (write)"
        ):
            await channel.queue_declare(delays, exclusive=True, arguments=self._delay_arguments())
            await channel.queue_bind(delays, exchange, names.later_key)
            self.late_ms = await self._send(channel, names.later_key) - DELAY_MS

    def _delay_arguments(self) -> dict[str, Any]:
        return {
            "x-message-ttl": DELAY_MS,
            "x-dead-letter-exchange": self._names.exchange,
            "x-dead-letter-routing-key": self._names.direct_key,
        }

    async def _send(self, channel: aiormq.abc.AbstractChannel, key: str) -> float:
        """Publish one message and wait for it; the time in milliseconds."""
        loop = asyncio.get_running_loop()
        sent_s = loop.time()
        await channel.basic_publish(b"", exchange=self._names.exchange, routing_key=key)
        # A refused publish is not answered: the broker closes the channel.
        await _first(self._arrived.get(), channel.closing)
        return (loop.time() - sent_s) * 1000

    @asynccontextmanager
    async def _step(self, step: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                with cancellation_kept():
                    yield
        except TimeoutError:
            raise _StepFailed(FailedStep(step, f"no reply within {TIMEOUT_S:g} s")) from None
        except (aiormq.AMQPError, OSError) as error:
            raise _StepFailed(FailedStep(step, str(error) or type(error).__name__)) from error

    async def clean_up(self) -> None:
        """Delete the exchange, in case no binding's end does so. The queues go by themselves."""
        if self._exchange_declared:
            with contextlib.suppress(aiormq.AMQPError, OSError, TimeoutError):
                async with asyncio.timeout(TIMEOUT_S):
                    with cancellation_kept():
                        channel = await self._connection.channel()
                        await channel.exchange_delete(self._names.exchange)


async def _first(wanted: Awaitable[object], closing: "asyncio.Future[Any]") -> None:
    """Wait for `wanted`. Raises the error of `closing` if that comes first."""
    waiting = asyncio.ensure_future(wanted)
    try:
        await asyncio.wait({waiting, closing}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await closing
            raise ConnectionError("the channel was closed")
    finally:
        waiting.cancel()


async def _unexpected(message: object) -> None:
    raise AssertionError(f"the splitter takes deliveries, but {message!r} passed it")
