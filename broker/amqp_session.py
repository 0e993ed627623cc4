"""One session with RabbitMQ: two connections, the declared topology, two consumers.

A session is never repaired: when any part of it fails it is discarded, and `broker.rabbitmq` opens
the next one.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import aio_pika
import aiormq
from aiormq.connection import SSLContextProvider, TransportFactory
from pamqp import commands
from pamqp.base import Frame
from pamqp.frame import marshal
from yarl import URL

from actors.numbers import Milliseconds
from broker.amqp_frames import AmqpMessage, FrameSplitter, encode_ack
from broker.cancellation import cancellation_kept
from broker.codec import BODY_BYTES_MAX
from broker.tls import BrokerTls
from broker.topology import Topology
from broker.transport import Lane, has_bulk_lane

CLOSE_TIMEOUT_S = 1.0
FRAME_BYTES_MAX = 128 * 1024


class BrokerClosed(ConnectionError):
    """The broker closed the connection and said why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class _SplitStreams(TransportFactory):
    """Opens the socket of one connection with a `FrameSplitter` in front of aiormq."""

    def __init__(self) -> None:
        self.splitter: FrameSplitter | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider: SSLContextProvider = kwargs.pop("ssl_context_provider")
        context: ssl.SSLContext | None = None
        if url.scheme == "amqps":
            context = await provider.get_context()
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        splitter = FrameSplitter(reader, loop, BODY_BYTES_MAX)
        transport, _ = await loop.create_connection(
            lambda: splitter, url.host or "localhost", url.port or 0, ssl=context, **kwargs
        )
        self.splitter = splitter
        self.writer = asyncio.StreamWriter(transport, splitter, reader, loop)
        return reader, self.writer


class _SplitConnection(aio_pika.Connection):
    """aio-pika's connection on streams of our own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.streams = _SplitStreams()
        self.kwargs["transport_factory"] = self.streams


class AmqpConnection:
    """One connection to the broker, to which frames are written directly."""

    def __init__(self, connection: _SplitConnection) -> None:
        assert connection.streams.splitter is not None
        assert connection.streams.writer is not None
        assert connection.transport is not None
        self._connection = connection
        self.splitter: FrameSplitter = connection.streams.splitter
        self._writer: asyncio.StreamWriter = connection.streams.writer
        self._underlay = connection.transport.connection
        # The broker sends 0 for "no limit".
        self.frame_bytes_max: int = self._underlay.connection_tune.frame_max or FRAME_BYTES_MAX

    @classmethod
    async def open(
        cls,
        url: str,
        name: str,
        timeout_s: float,
        heartbeat_s: int,
        tls: BrokerTls,
    ) -> "AmqpConnection":
        """Connect. The management console shows `name`. Raises `BrokerClosed`."""
        connection = _SplitConnection(
            URL(url).update_query(heartbeat=heartbeat_s),
            ssl_context=tls.context_for(url),
            client_properties={"connection_name": name},
        )
        try:
            await connection.connect(timeout=timeout_s)
        except BaseException as error:
            await connection.close()
            # aiormq's error says less than the broker did.
            splitter = connection.streams.splitter
            if splitter is not None and splitter.close_reason is not None:
                raise BrokerClosed(*splitter.close_reason) from error
            raise
        return cls(connection)

    @property
    def server_properties(self) -> dict[str, Any]:
        """What the broker says about itself: `product`, `version`, `cluster_name` and more."""
        return dict(self._underlay.server_properties)

    async def channel(self) -> aiormq.abc.AbstractChannel:
        """A channel without publisher confirms: no decision depends on one."""
        return await self._underlay.channel(publisher_confirms=False)

    def on_closed(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the reason when the connection is closed."""
        self._underlay.closing.add_done_callback(_on_close("the connection", callback))

    def write(self, frames: bytes) -> None:
        """Hand whole frames to the socket; never waits.

        A closing socket drops them (uvloop would raise): the session is about to fail.
        """
        if not self._writer.transport.is_closing():
            self._writer.write(frames)

    @property
    def unsent_bytes(self) -> int:
        """The bytes that the socket has not taken yet."""
        return self._writer.transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Wait until the socket has taken most of what was written."""
        await self._writer.drain()

    async def close(self, *, politely: bool) -> None:
        """Close within a bounded time, without waiting for a dead broker."""
        if not politely:
            self._writer.transport.abort()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                with cancellation_kept():
                    await self._connection.close()
        self._writer.transport.abort()


class AmqpSession:
    """The connections, channels and declared delay queues of one session."""

    def __init__(self, number: int, name: str, topology: Topology) -> None:
        self.number = number
        self.failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolved with the reason as soon as any part of the session fails."""
        self.blocked = False
        self.received_s = asyncio.get_running_loop().time()
        """The time of the latest delivery, on the loop's clock."""
        self._name = name
        self._topology = topology
        self.queues = topology.of_session(name, uuid4().hex[:12])
        """The names of this session's queues and delay levels."""
        self._publishing: AmqpConnection | None = None
        self._consuming: AmqpConnection | None = None
        self._publish_channel: aiormq.abc.AbstractChannel | None = None
        self.publish_channel = 0
        self._consumers: dict[str, aiormq.abc.AbstractChannel] = {}
        self.lanes: dict[int, str] = {}
        """The lane of each channel of the consuming connection, by the channel's number."""
        self._blocked_callback: Callable[[AmqpSession], None] | None = None
        self._levels: dict[Milliseconds, float] = {}
        """The declared delay queues, and until when each may hold a message of this node."""
        self._renews_levels = False

    async def open(
        self,
        url: str,
        deliver: Callable[["AmqpSession", AmqpMessage], None],
        blocked: Callable[["AmqpSession"], None],
        returned: Callable[["AmqpSession", AmqpMessage], None],
        *,
        timeout_s: float,
        heartbeat_s: int,
        tls: BrokerTls,
    ) -> None:
        """Connect and declare. The caller calls `close` also after a failure.

        `blocked` is called when the broker blocks or unblocks publishers, after `self.blocked` was
        set. `returned` receives mandatory messages that no queue took.
        """
        self._publishing = await AmqpConnection.open(
            url, f"{self._name} publishes", timeout_s, heartbeat_s, tls
        )
        self._publishing.on_closed(self.fail)
        self._publishing.splitter.on_blocked = self._on_blocked
        self._publishing.splitter.on_return = lambda message: returned(self, message)
        self._blocked_callback = blocked
        self._consuming = await AmqpConnection.open(
            url, f"{self._name} consumes", timeout_s, heartbeat_s, tls
        )
        self._consuming.on_closed(self.fail)
        channel = await self._publishing.channel()
        channel.closing.add_done_callback(_on_close("the publishing channel", self.fail))
        self._publish_channel, self.publish_channel = channel, channel.number
        control = await self._consuming.channel()
        self._watch(control, Lane.CONTROL)
        await self._declare(control)
        self._consumers[Lane.CONTROL] = control
        if has_bulk_lane(self._name):
            bulk = await self._consuming.channel()
            self._watch(bulk, Lane.BULK)
            self._consumers[Lane.BULK] = bulk
        self._consuming.splitter.on_delivery = lambda delivered: deliver(self, delivered)

    async def consume(self, prefetch: dict[str, int]) -> None:
        """Start the consumers, with at most `prefetch` unacknowledged deliveries on each lane."""
        queues = {
            Lane.CONTROL: self.queues.control_queue,
            Lane.BULK: self.queues.bulk_queue,
        }
        for lane, channel in self._consumers.items():
            await channel.basic_qos(prefetch_count=prefetch[lane], global_=False)
            await channel.basic_consume(
                queues[lane], _unexpected_delivery, consumer_tag=f"{self._name}.{lane}"
            )

    def _watch(self, channel: aiormq.abc.AbstractChannel, lane: str) -> None:
        self.lanes[channel.number] = lane
        channel.closing.add_done_callback(_on_close(f"the {lane} channel", self.fail))
        channel.on_consumer_cancel_callbacks.add(
            lambda _: self.fail(f"the broker cancelled the {lane} consumer")
        )

    async def redeclare(self) -> None:
        """Declare again whatever is missing of the topology, and renew the delay queues in use.

        An operator or a cleanup job may delete exchanges, bindings and queues under a running
        cluster, and the broker notifies only the consumers of a queue. The protocol stays safe
        without them; but a node that no longer receives its groups' messages, or its own timers,
        is useless until they are back. Whatever still exists stays as it is.
        """
        with cancellation_kept():
            await self._redeclare()

    async def _redeclare(self) -> None:
        channel = self._consumers[Lane.CONTROL]
        await self._declare(channel)
        self._renews_levels = not self._renews_levels
        if not self._renews_levels:
            return
        # A policy that expires queues takes a queue without consumers for unused, unless it is
        # declared again without `nowait`. Whether its exchange and its binding are still there, the
        # next publish finds out.
        if self.queues.own_delays:
            # They belong to the other connection.
            assert self._publish_channel is not None
            channel = self._publish_channel
        now_s = asyncio.get_running_loop().time()
        for level in [level for level, until_s in self._levels.items() if now_s < until_s]:
            await channel.queue_declare(
                self.queues.delay_queue(level),
                durable=not self.queues.own_delays,
                exclusive=self.queues.own_delays,
                arguments=self.queues.delay_arguments(level),
            )

    async def delete_former_queues(self, timeout_s: float) -> bool:
        """Delete the queues that this node had if its queues were of another kind before: nothing
        would consume them. Returns whether none is left; a classic one that another process of this
        node uses stays.
        """
        assert self._consuming is not None
        try:
            async with asyncio.timeout(timeout_s):
                for name, is_quorum in self.queues.former_queues.items():
                    with cancellation_kept():
                        channel = await self._consuming.channel()
                    # In use, or not this user's to delete: the next attempt would be refused, too.
                    # The refusal has closed the channel.
                    refused = contextlib.suppress(
                        aiormq.exceptions.ChannelPreconditionFailed,
                        aiormq.exceptions.ChannelAccessRefused,
                    )
                    with refused, cancellation_kept():
                        # Quorum queues don't know the condition, and to set it closes the
                        # connection.
                        await channel.queue_delete(name, if_unused=not is_quorum)
                        await channel.close()
        except (aiormq.AMQPError, TimeoutError):
            return False
        return True

    async def _declare(self, channel: aiormq.abc.AbstractChannel) -> None:
        """Declare everything, and wait only for the last reply, which implies all the others.

        All nodes do so every few seconds, so all frames are written at once.
        """
        assert self._consuming is not None
        frames = self._declarations()
        self._consuming.write(b"".join(marshal(frame, channel.number) for frame in frames))
        await channel.queue_bind(*self._last_binding)

    @property
    def _last_binding(self) -> tuple[str, str, str]:
        topology = self._topology
        if topology.own_users:
            return self.queues.bindings[0]
        return topology.quarantine_queue, topology.quarantine, ""

    def _declarations(self) -> Iterator[Frame]:
        """With users of their own, nodes declare and bind their own queues and nothing else."""
        topology, queues = self._topology, self.queues
        exclusive = queues.exclusive
        for exchange, kind in topology.exchanges.items():
            yield _exchange(exchange, kind)
        control = queues.control_queue
        yield _queue(control, topology.node_arguments(topology.control_bytes_max), exclusive)
        if has_bulk_lane(self._name):
            bulk = queues.bulk_queue
            yield _queue(bulk, topology.node_arguments(topology.bulk_bytes_max), exclusive)
        for queue, exchange, key in queues.bindings:
            yield _binding(queue, exchange, key)
        if not topology.own_users:
            yield _queue(topology.quarantine_queue, topology.quarantine_arguments())

    # -- use --------------------------------------------------------------------------------------

    @property
    def frame_bytes_max(self) -> int:
        """The largest frame that the broker takes."""
        assert self._publishing is not None
        return self._publishing.frame_bytes_max

    @property
    def unsent_bytes(self) -> int:
        """The bytes that the publishing socket has not taken yet."""
        return self._publishing.unsent_bytes if self._publishing else 0

    def declare_delay(self, delay_ms: Milliseconds) -> bytes:
        """The frames that declare one delay queue; empty if this session has declared it already.

        They precede the first message on the same channel, so no reply is needed.
        """
        is_new = delay_ms not in self._levels
        self._levels[delay_ms] = asyncio.get_running_loop().time() + delay_ms / 1000
        if not is_new:
            return b""
        name = self.queues.delay_queue(delay_ms)
        arguments = self.queues.delay_arguments(delay_ms)
        exchange, key = self.queues.delay_route(delay_ms)
        frames: tuple[Frame, ...]
        if self.queues.own_delays:
            frames = (_queue(name, arguments, exclusive=True), _binding(name, exchange, key))
        else:
            frames = (_exchange(exchange, "fanout"), _queue(name, arguments), _binding(name, name))
        return b"".join(marshal(frame, self.publish_channel) for frame in frames)

    def forget_delay(self, delay_ms: Milliseconds) -> bool:
        """Have the next message declare the delay queue again. Returns whether it was declared."""
        return self._levels.pop(delay_ms, None) is not None

    def write(self, frames: bytes) -> None:
        """Hand publishes to the socket."""
        assert self._publishing is not None
        self._publishing.write(frames)

    async def drain(self) -> None:
        """Wait until the socket has taken most of what was written."""
        assert self._publishing is not None
        await self._publishing.drain()

    def acknowledge(self, lane: str, tag: int) -> None:
        """Acknowledge `tag` and all before it on `lane`."""
        assert self._consuming is not None
        self._consuming.write(encode_ack(self._consumers[lane].number, tag))

    def fail(self, reason: str) -> None:
        """Mark the session as failed."""
        if not self.failure.done():
            self.failure.set_result(reason)

    async def close(self, *, politely: bool) -> None:
        """Close both connections."""
        for link in (self._consuming, self._publishing):
            if link is not None:
                link.splitter.on_delivery = None
                link.splitter.on_return = None
                await link.close(politely=politely)

    def _on_blocked(self, blocked: bool) -> None:
        self.blocked = blocked
        if self._blocked_callback is not None:
            self._blocked_callback(self)


async def _unexpected_delivery(message: aiormq.abc.DeliveredMessage) -> None:
    """A consumer's callback for aiormq, which never gets a delivery: the splitter takes them."""
    raise AssertionError(f"the splitter missed a delivery: {message.delivery}")


def _on_close(what: str, callback: Callable[[str], None]) -> Callable[[asyncio.Future[Any]], None]:
    def on_done(future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        callback(f"{what} was closed" + (f": {error}" if error else ""))

    return on_done


def _exchange(name: str, kind: str) -> Frame:
    return commands.Exchange.Declare(exchange=name, exchange_type=kind, durable=True, nowait=True)


def _queue(name: str, arguments: dict[str, Any], exclusive: bool = False) -> Frame:
    return commands.Queue.Declare(
        queue=name,
        durable=not exclusive,
        exclusive=exclusive,
        nowait=True,
        arguments=arguments,
    )


def _binding(queue: str, exchange: str, key: str = "") -> Frame:
    return commands.Queue.Bind(queue=queue, exchange=exchange, routing_key=key, nowait=True)
