"""The limits below Synod: the disk's commit, and the broker's hop and message rate."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from broker.amqp_frames import AmqpMessage, Properties, encode_ack, encode_publish
from broker.amqp_session import AmqpConnection
from broker.tls import BrokerTls
from chaos.bench.recording import percentiles_ms

PAGE_BYTES = 4096
MESSAGE_BYTES = 1024

_PAGES = 1024
_IN_FLIGHT = 512
_TIMEOUT_S = 10.0
_HEARTBEAT_S = 30


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How many a second, one after the other unless the probe says otherwise, and how long each
    took, in milliseconds."""

    rate: float
    latency_ms: dict[str, float] = field(default_factory=dict)


def commit_times(folder: Path, seconds: float) -> ProbeResult:
    """Write a page of a file in place and wait until it is on the disk, again and again.

    One call of pwrite and one of fdatasync each, which is the least that a durable journal does.
    """
    path = folder / f"commit-times-{uuid4().hex[:8]}"
    page = os.urandom(PAGE_BYTES)
    took_ns: list[int] = []
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # Its blocks exist before: a commit of a file that grows writes the file system's own, too.
        os.pwrite(descriptor, page * _PAGES, 0)
        os.fsync(descriptor)
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            began_ns = time.perf_counter_ns()
            os.pwrite(descriptor, page, len(took_ns) % _PAGES * PAGE_BYTES)
            os.fdatasync(descriptor)
            took_ns.append(time.perf_counter_ns() - began_ns)
    finally:
        os.close(descriptor)
        path.unlink()
    return ProbeResult(round(len(took_ns) / (sum(took_ns) / 1e9), 1), percentiles_ms(took_ns))


class BrokerProbe:
    """Messages of `MESSAGE_BYTES` that this process sends to itself through a broker, as a node
    does: transient, to a classic queue, on one connection to publish and one to consume, with the
    frames that nodes use.
    """

    def __init__(self, publishing: AmqpConnection, consuming: AmqpConnection) -> None:
        self._publishing = publishing
        self._consuming = consuming
        self._name = f"synod.bench.{uuid4().hex[:12]}"
        self._frame = b""
        self._consumer = 0
        self._received = 0
        self._last_tag = 0
        self._awaited: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, url: str, tls: BrokerTls) -> "BrokerProbe":
        """Connect and declare a queue, which goes with the connection.

        Raises `OSError`, `TimeoutError` or `aiormq.AMQPError`.
        """
        links: list[AmqpConnection] = []
        try:
            for what in ("publishes", "consumes"):
                name = f"synod bench {what}"
                links.append(await AmqpConnection.open(url, name, _TIMEOUT_S, _HEARTBEAT_S, tls))
            probe = cls(*links)
            await probe.declare()
        except BaseException:
            for link in links:
                await link.close(politely=False)
            raise
        return probe

    async def declare(self) -> None:
        """Declare the queue and consume it."""
        consumer = await self._consuming.channel()
        self._consumer = consumer.number
        self._consuming.splitter.on_delivery = self._take
        await consumer.queue_declare(self._name, exclusive=True, auto_delete=True)
        await consumer.basic_qos(prefetch_count=2 * _IN_FLIGHT)
        await consumer.basic_consume(self._name, _unexpected_delivery)
        publisher = await self._publishing.channel()
        about = Properties("bench", "synod bench", "", int(time.time()), {})
        self._frame = encode_publish(
            publisher.number,
            "",
            self._name,
            about,
            os.urandom(MESSAGE_BYTES),
            self._publishing.frame_bytes_max,
        )

    @property
    def server(self) -> str:
        """The broker's name and version."""
        about: dict[str, Any] = self._publishing.server_properties
        return f"{about.get('product', 'AMQP broker')} {about.get('version', '')}".strip()

    async def hops(self, seconds: float) -> ProbeResult:
        """One message after the other, from its publish to its arrival."""
        took_ns: list[int] = []
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            began_ns = time.perf_counter_ns()
            await self._send(1)
            took_ns.append(time.perf_counter_ns() - began_ns)
        rate = len(took_ns) / (sum(took_ns) / 1e9)
        return ProbeResult(round(rate, 1), percentiles_ms(took_ns))

    async def throughput(self, seconds: float) -> ProbeResult:
        """As many as pass with up to `_IN_FLIGHT` under way: a rate without latencies."""
        began_s = time.perf_counter()
        until_s = began_s + seconds
        sent = self._received
        start = self._received
        while time.perf_counter() < until_s:
            room = _IN_FLIGHT - (sent - self._received)
            if room >= _IN_FLIGHT // 2:
                self._publishing.write(self._frame * room)
                sent += room
            await self._until(self._received + 1)
        await self._until(sent)
        took_s = time.perf_counter() - began_s
        return ProbeResult(round((sent - start) / took_s, 1))

    async def _send(self, count: int) -> None:
        self._publishing.write(self._frame * count)
        await self._until(self._received + count)

    async def _until(self, received: int) -> None:
        """Wait until so many messages have come. Raises `TimeoutError`."""
        async with asyncio.timeout(_TIMEOUT_S):
            while self._received < received:
                self._awaited = asyncio.get_running_loop().create_future()
                await self._awaited

    def _take(self, message: AmqpMessage) -> None:
        self._received += 1
        self._last_tag = message.delivery_tag
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)
            # What came in one read is acknowledged by one frame.
            asyncio.get_running_loop().call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        self._consuming.write(encode_ack(self._consumer, self._last_tag))

    async def close(self) -> None:
        """Close the connections, and so delete the queue."""
        for link in (self._consuming, self._publishing):
            link.splitter.on_delivery = None
            await link.close(politely=True)


async def _unexpected_delivery(message: object) -> None:
    """A consumer's callback that is never called: the splitter takes all deliveries."""
    raise AssertionError(f"the splitter missed a delivery: {message!r}")


def median_probe(rounds: Sequence[ProbeResult]) -> dict[str, float]:
    """The middle of several rounds, by the rate: the figures of one round belong together."""
    middle = sorted(rounds, key=lambda one: one.rate)[len(rounds) // 2]
    return {"rate": middle.rate, **middle.latency_ms}
