"""A node's connection to RabbitMQ; `broker.topology` names what is declared there.

Every failure ends the session, and the next one starts from scratch: a reconnect that repairs a
session would be a second code path that is rarely exercised. Messages that can't be sent are
dropped and counted: the protocol retransmits, and nothing may wait for the broker or grow without
bound.
"""

import asyncio
import contextlib
import functools
import itertools
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import aiormq

from actors.effects import Group
from actors.messages.permissions import role_in
from actors.numbers import Milliseconds
from broker.addresses import BrokerAddresses, split_urls
from broker.amqp_frames import AmqpMessage, HeaderValue, Properties, encode_publish
from broker.amqp_session import AmqpSession, BrokerClosed
from broker.cancellation import cancellation_kept
from broker.codec import (
    BODY_BYTES_MAX,
    PING,
    Encoded,
    NewerWireVersion,
    Undecodable,
    decode,
    encode,
    encode_ping,
    encode_timers,
)
from broker.delay_levels import delay_level_ms
from broker.ping_times import PingTimes
from broker.seals import NotSealed, Seals
from broker.senders import NotItsSender, SenderCheck, exchanges_written_by
from broker.tls import BrokerTls, refusal_of
from broker.topology import Topology
from broker.transport import (
    Delivery,
    Lane,
    Parcel,
    Receipt,
    TimerMessage,
    TransportHealth,
    TransportRefused,
)

log = logging.getLogger("synod.rabbitmq")

_REFUSALS = {403: "user name or password", 530: "virtual host"}
"""What the broker refuses, by the code with which it closes a new connection."""

REPEAT_WARNING_S = 30.0
"""How often a warning with the same reason is logged again."""

ACKNOWLEDGE_DELAY_S = 1.0
"""How long an acknowledgement may wait for others of its lane. Each costs this process a packet and
the broker some work, and a redelivery after a lost session is harmless.
"""

EVENTS_UNSENT_BYTES_MAX = 256 * 1024
"""With more unsent bytes than this, events are dropped: protocol messages take precedence."""

QUARANTINED_BYTES_MAX = 256 * 1024
"""Larger messages are truncated in the quarantine."""


@dataclass(frozen=True, slots=True)
class RabbitOptions:
    """How a node uses the broker.

    With `wait` an unreachable broker is retried for ever, otherwise the first failure is final.
    Connecting may take `connect_timeout_s`, and twice as long, up to `connect_timeout_max_s`, after
    each round in which no broker could be used. After `silence_s` without a delivery the node sends
    a message to itself. If it takes longer than `ping_timeout_s`, and much longer than such
    messages took lately, or `ping_timeout_max_s` in any case, the session is given up: a broker
    that is frozen or cut off says nothing and closes nothing. A turn waits at most
    `flush_timeout_s` for a socket that takes nothing. Above `unsent_bytes_max` messages are
    dropped, contents already above `bulk_unsent_bytes_max`, because their senders resend them after
    a while even if the first copy was sent. The topology is declared again every
    `redeclare_interval_s`; the broker must confirm that within `redeclare_timeout_s`.
    """

    wait: bool = True
    connect_timeout_s: float = 5.0
    connect_timeout_max_s: float = 5.0
    heartbeat_s: int = 5
    prefetch: int = 256
    bulk_prefetch: int = 4
    backoff_min_s: float = 0.1
    backoff_max_s: float = 2.0
    silence_s: float = 5.0
    ping_timeout_s: float = 5.0
    ping_timeout_max_s: float = 5.0
    redeclare_interval_s: float = 3.0
    redeclare_timeout_s: float = 10.0
    flush_timeout_s: float = 1.0
    tls: BrokerTls = field(default_factory=BrokerTls)
    seals: Seals | None = None
    unsent_bytes_max: int = 32 * 1024 * 1024
    bulk_unsent_bytes_max: int = 8 * 1024 * 1024

    @classmethod
    def of(
        cls,
        broker: str,
        *,
        wait: bool = True,
        silence_ms: Milliseconds | None = None,
        ping_timeout_ms: Milliseconds | None = None,
        tls: BrokerTls | None = None,
        seals: Seals | None = None,
    ) -> Self:
        """For the broker or brokers of a setting: of several, a silent one is left sooner.

        `silence_ms` and `ping_timeout_ms` replace what this class chooses.
        """
        options = cls(wait=wait, tls=tls or BrokerTls(), seals=seals)
        if len(split_urls(broker)) > 1:
            options = replace(options, connect_timeout_s=1.0, silence_s=1.0, ping_timeout_s=1.5)
        if silence_ms is not None:
            options = replace(options, silence_s=silence_ms / 1000)
        if ping_timeout_ms is not None:
            timeout_s = ping_timeout_ms / 1000
            most_s = max(timeout_s, options.ping_timeout_max_s)
            options = replace(options, ping_timeout_s=timeout_s, ping_timeout_max_s=most_s)
        return options


class RabbitTransport:
    """Keeps one node connected to RabbitMQ, to one of several brokers if `broker` names several."""

    def __init__(
        self, broker: str, topology: Topology, name: str, options: RabbitOptions | None = None
    ) -> None:
        self._addresses = BrokerAddresses(split_urls(broker))
        self._refusals = 0
        self._former_queues_deleted = False
        self._topology = topology
        self._name = name
        self._votes = role_in(name) == "acceptor"
        self._options = options or RabbitOptions.of(broker)
        self._prefetch = {
            Lane.CONTROL: self._options.prefetch,
            Lane.BULK: self._options.bulk_prefetch,
        }
        self._health = TransportHealth()
        self._session: AmqpSession | None = None
        self._staged: list[bytes] = []
        self._receipts: dict[str, Receipt] = {}
        self._acknowledged: dict[str, int] = {}
        self._acknowledging: asyncio.TimerHandle | None = None
        self._deliver: Callable[[Delivery], None] | None = None
        self._unblocked: Callable[[], None] | None = None
        self._control_listener: Callable[[str, bytes], None] | None = None
        self._events = itertools.count(1)
        self._reported_s = 0.0
        self._newer_reported_s = -REPEAT_WARNING_S
        self._silent_ping_s = 0.0
        self._pings = PingTimes(self._options.ping_timeout_s, self._options.ping_timeout_max_s)
        self._quarantined = itertools.count(1)
        self._to_itself = (topology.nodes, topology.inbox(name))
        self._exchange_of = functools.lru_cache(maxsize=1024)(self._find_exchange)
        self._user_id = topology.user(name) if topology.own_users else ""
        self._seals = self._options.seals
        self._senders = SenderCheck(topology, name) if topology.own_users else None
        self._writable = exchanges_written_by(topology, name) if topology.own_users else None
        self._refused_reported_s = -REPEAT_WARNING_S
        # This module logs every failure in words; the libraries' own log lines would repeat them.
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)
        logging.getLogger("aio_pika").setLevel(logging.CRITICAL)

    @property
    def health(self) -> TransportHealth:
        """Live figures, updated in place."""
        session = self._session
        self._health.blocked = session is not None and session.blocked
        return self._health

    @property
    def unsent_bytes(self) -> int:
        """See `Transport`."""
        return 0 if self._session is None else self._session.unsent_bytes

    # -- sessions ---------------------------------------------------------------------------------

    async def run(
        self,
        deliver: Callable[[Delivery], None],
        connected: Callable[[], None],
        unblocked: Callable[[], None],
    ) -> None:
        """Stay connected until cancelled. Raises `TransportRefused`."""
        self._deliver = deliver
        self._unblocked = unblocked
        self._require_own_user()
        failures = 0
        while True:
            session = AmqpSession(self._health.sessions + 1, self._name, self._topology)
            timeout_s = self._connect_timeout_s
            politely = False
            try:
                async with asyncio.timeout(2 * timeout_s):
                    with cancellation_kept():
                        await self._open(session, timeout_s)
                # The node must know of the new session before its first delivery.
                self._begin(session)
                connected()
                async with asyncio.timeout(timeout_s):
                    with cancellation_kept():
                        await self._consume(session)
                self._refusals = 0
                self._addresses.succeeded()
                self._report_reconnected()
                began_s = asyncio.get_running_loop().time()
                try:
                    reason = await self._watch(session)
                finally:
                    # A session that ends soon counts as a failure, or the next ones would follow
                    # each other without a pause.
                    if asyncio.get_running_loop().time() - began_s > self._options.backoff_max_s:
                        failures = 0
            except asyncio.CancelledError:
                politely = True
                raise
            except (aiormq.AMQPError, OSError, TimeoutError, RuntimeError) as error:
                self._raise_if_permanent(error)
                reason = _reason_of(error)
            finally:
                self._end(politely=politely)
                await session.close(politely=politely)
            failures += 1
            self._health.failures += 1
            self._report_failure(reason)
            self._addresses.failed()
            await self._back_off(failures)

    def _require_own_user(self) -> None:
        """Raise `TransportRefused` if the broker would refuse each message for its `user_id`."""
        for url in self._addresses.urls if self._user_id else ():
            if (user := unquote(urlsplit(url).username or "guest")) != self._user_id:
                raise TransportRefused(
                    f"{self._name}: with broker_users = 'own' it logs on as {self._user_id!r}, but "
                    f"`broker` names {user!r}: take the file that synod broker init wrote for it"
                )

    @property
    def _connect_timeout_s(self) -> float:
        """How long to wait for a broker: not long while others may answer sooner."""
        patience_s = self._options.connect_timeout_s * 2.0 ** min(self._addresses.rounds, 10)
        return min(self._options.connect_timeout_max_s, patience_s)

    async def _open(self, session: AmqpSession, timeout_s: float) -> None:
        await session.open(
            self._addresses.current,
            self._on_delivered,
            self._on_blocked,
            self._on_returned,
            timeout_s=timeout_s,
            heartbeat_s=self._options.heartbeat_s,
            tls=self._options.tls,
        )

    async def _consume(self, session: AmqpSession) -> None:
        await session.consume(self._prefetch)

    async def _watch(self, session: AmqpSession) -> str:
        """Wait for the session's end and return its reason. Meanwhile, ping through the node's own
        queue and declare the topology again.
        """
        declaring = asyncio.create_task(self._redeclare_periodically(session))
        try:
            return await self._watch_silence(session, declaring)
        finally:
            declaring.cancel()
            await asyncio.wait([declaring])
            if not declaring.cancelled():
                declaring.exception()  # Reported already, or of a session that has ended.

    async def _watch_silence(self, session: AmqpSession, declaring: asyncio.Task[None]) -> str:
        loop, options = asyncio.get_running_loop(), self._options
        await self._ping()  # The first one tells how long others may take.
        ends: list[asyncio.Future[Any]] = [session.failure, declaring]
        while True:
            await asyncio.wait(
                ends,
                timeout=options.silence_s / 5,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if session.failure.done():
                return session.failure.result()
            if declaring.done():
                await declaring  # It only ends by raising.
            now_s = loop.time()
            if session.blocked or now_s - session.received_s < options.silence_s:
                self._silent_ping_s = 0.0
                if self._pings.is_due(now_s, options.silence_s) and not session.blocked:
                    await self._ping()
            elif not self._silent_ping_s:
                self._silent_ping_s = now_s
                await self._ping()
            elif now_s - self._silent_ping_s > self._pings.timeout_s:
                self._pings.give_up()
                return "the node's own queue delivers nothing"

    async def _ping(self) -> None:
        number = self._pings.send(asyncio.get_running_loop().time())
        self._stage(encode_ping(self._name, number), self._name)
        await self.flush()

    async def _redeclare_periodically(self, session: AmqpSession) -> None:
        options = self._options
        # At a random time, so that not all nodes do so at once.
        await asyncio.sleep(random.uniform(0, options.redeclare_interval_s))
        while True:
            if not self._former_queues_deleted:
                self._former_queues_deleted = await session.delete_former_queues(
                    options.redeclare_timeout_s
                )
            declaration = asyncio.create_task(session.redeclare())
            try:
                while not declaration.done():
                    await asyncio.wait([declaration], timeout=options.redeclare_timeout_s)
                    # During an alarm a broker does not read from connections that publish.
                    if not declaration.done() and not session.blocked:
                        raise TimeoutError("the broker did not confirm what was declared")
                await declaration
            finally:
                declaration.cancel()
            await asyncio.sleep(options.redeclare_interval_s)

    def _begin(self, session: AmqpSession) -> None:
        self._session = session
        self._staged.clear()
        self._receipts.clear()
        self._acknowledged.clear()
        self._health.sessions = session.number
        self._health.connected = True

    def _end(self, *, politely: bool) -> None:
        if politely:
            self._acknowledge_all()
        self._session = None
        self._health.connected = False

    def _on_blocked(self, session: AmqpSession) -> None:
        if session is not self._session:
            return  # It is being opened, and will begin by sending all timers, or it has ended.
        if session.blocked:
            log.warning("%s: %s takes no messages: memory or disk alarm", self._name, self._where())
        else:
            log.warning("%s: %s takes messages again", self._name, self._where())
            if self._unblocked is not None:
                self._unblocked()

    def _on_returned(self, session: AmqpSession, message: AmqpMessage) -> None:
        """A delay queue was deleted: declare it again and resend the returned timer message.

        The messages that were lost with the queue will be overdue soon (`broker.timers`).
        """
        level = session.queues.delay_of(message.exchange, message.routing_key)
        if session is not self._session or level is None or not session.forget_delay(level):
            return
        log.warning(
            "%s: the delay queue of %d ms is gone from %s; it is declared again",
            self._name,
            level,
            self._where(),
        )
        if message.properties is not None and not session.blocked:
            session.write(
                session.declare_delay(level)
                + self._publish_frames(
                    session, message.exchange, message.routing_key, message.properties, message.body
                )
            )

    def _report_reconnected(self) -> None:
        if self._health.last_error:
            log.warning("%s is connected to %s again", self._name, self._where())
            self._health.last_error = ""

    def _report_failure(self, reason: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if reason != self._health.last_error or now_s - self._reported_s > REPEAT_WARNING_S:
            self._health.last_error = reason
            self._reported_s = now_s
            log.warning("%s: no connection to %s: %s", self._name, self._where(), reason)

    async def _back_off(self, failures: int) -> None:
        options = self._options
        if failures < len(self._addresses):
            return  # Others were not tried yet.
        max_s = min(options.backoff_max_s, options.backoff_min_s * 2 ** min(failures, 10))
        await asyncio.sleep(random.uniform(options.backoff_min_s, max_s))

    def _raise_if_permanent(self, error: BaseException) -> None:
        """Raise `TransportRefused` if a retry is useless: known only before the first session, and
        when each of the brokers has refused.
        """
        if isinstance(error, aiormq.exceptions.ChannelPreconditionFailed):
            raise TransportRefused(self._advice_on_other_arguments(error)) from error
        if self._health.sessions:
            return
        where = f"{self._name}: the broker {self._where()}"
        if isinstance(error, BrokerClosed) and error.code in _REFUSALS:
            refusal = f"{where} refused the {_REFUSALS[error.code]}: {error}"
        elif self._topology.own_users and isinstance(
            error,
            aiormq.exceptions.ChannelAccessRefused | aiormq.exceptions.ChannelNotFoundEntity,
        ):
            refusal = (
                f"{where} is not prepared for this node: {_reason_of(error)}. Run synod broker init"
            )
        elif isinstance(error, aiormq.exceptions.ChannelAccessRefused):
            refusal = f"{where} refused a permission: {_reason_of(error)}"
        elif why := refusal_of(error):
            refusal = f"{where} can't be used: {why}"
        elif not self._options.wait:
            refusal = f"{where} can't be reached: {_reason_of(error)}"
        else:
            return
        self._refusals += 1
        if self._refusals >= len(self._addresses):
            raise TransportRefused(refusal) from error

    def _advice_on_other_arguments(self, error: BaseException) -> str:
        """What to do about a queue that exists with other arguments (406)."""
        found = re.search(r"for (queue|exchange) '([^']*)'", str(error))
        what, name = found.groups() if found else ("queue", "NAME")
        return (
            f"{self._name}: {self._where()} holds a queue or exchange of this cluster with other "
            f"settings: {error}. Stop the nodes that use it, delete it (rabbitmqctl delete_{what} "
            f"{name}), and start them again; what it held is sent again. Or use another cluster"
        )

    def _where(self) -> str:
        return str(self._addresses)

    # -- receiving --------------------------------------------------------------------------------

    def _on_delivered(self, session: AmqpSession, delivered: AmqpMessage) -> None:
        session.received_s = asyncio.get_running_loop().time()
        self._silent_ping_s = 0.0
        if self._deliver is None or session.failure.done():
            return
        lane = session.lanes[delivered.channel]
        receipt = Receipt(session.number, lane, delivered.delivery_tag)
        item = self._read(delivered)
        self._deliver(Delivery(item, receipt, delivered.size_bytes))

    def _read(self, delivered: AmqpMessage) -> Parcel | TimerMessage | None:
        """Decode before anything else; undecodable messages go to quarantine. Those of a newer
        version are dropped: they are not wrong, and a whole cluster may send nothing else.
        """
        properties = delivered.properties
        try:
            if properties is None:
                raise Undecodable("the properties can't be read")
            if self._seals is not None:
                self._seals.require(
                    delivered.exchange, delivered.routing_key, properties, delivered.body
                )
            if self._senders is not None:
                self._senders.require(delivered, properties)
            if delivered.exchange == self._topology.events:
                if self._control_listener is not None:
                    self._control_listener(properties.type, delivered.body)
                return None
            if properties.app_id == self._name:
                if properties.type == PING:
                    now_s = asyncio.get_running_loop().time()
                    self._pings.receive((properties.headers or {}).get("number"), now_s)
                    return None
                if delivered.exchange not in self._to_itself:
                    # A sender receives its own message to a group, too, and ignores it.
                    return None
            if delivered.size_bytes > BODY_BYTES_MAX:
                raise Undecodable(f"{delivered.size_bytes} bytes are more than {BODY_BYTES_MAX}")
            return decode(properties, delivered.body, for_votes=self._votes)
        except NewerWireVersion as error:
            self._drop_newer(str(error))
            return None
        except (NotItsSender, NotSealed) as error:
            self._refuse_sender(delivered, str(error))
            return None
        except (Undecodable, ValueError) as error:
            self._quarantine(delivered, str(error))
            return None

    def _refuse_sender(self, delivered: AmqpMessage, reason: str) -> None:
        """Somebody who got at a node's password may send many such messages."""
        self._health.refused += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._refused_reported_s >= REPEAT_WARNING_S:
            self._refused_reported_s = now_s
            log.error(
                "%s has refused %d messages whose sender is not confirmed; the latest: %s",
                self._name,
                self._health.refused,
                reason,
            )
        self._quarantine(delivered, reason, silently=True)

    def _drop_newer(self, reason: str) -> None:
        self._health.newer += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._newer_reported_s >= REPEAT_WARNING_S:
            self._newer_reported_s = now_s
            log.error("%s can't take part: %s", self._name, reason)

    def _quarantine(self, delivered: AmqpMessage, reason: str, *, silently: bool = False) -> None:
        properties = delivered.properties
        self._put_into_quarantine(
            reason,
            delivered.exchange,
            delivered.routing_key,
            properties.type if properties else "",
            properties.app_id if properties else "",
            properties.content_type if properties else "",
            delivered.body,
            user=properties.user_id if properties else "",
            silently=silently,
        )

    def _put_into_quarantine(
        self,
        reason: str,
        exchange: str,
        routing_key: str,
        kind: str,
        app_id: str,
        content_type: str,
        body: bytes,
        *,
        user: str = "",
        silently: bool = False,
    ) -> None:
        if not silently:
            self._health.quarantined += 1
            log.warning("%s: a message goes to quarantine: %s", self._name, reason)
        headers: dict[str, HeaderValue] = {
            "reason": reason,
            "node": self._name,
            "exchange": exchange,
            "routing_key": routing_key,
            "sender": app_id,
            "size": len(body),
            **({"user": user} if user else {}),
        }
        properties = Properties(
            kind,
            self._name,
            f"{self._name}-quarantined-{next(self._quarantined)}",
            int(time.time()),
            headers,
            content_type or "application/octet-stream",
            persistent=True,
        )
        self._stage_frames(self._topology.quarantine, "", properties, body[:QUARANTINED_BYTES_MAX])

    # -- sending ----------------------------------------------------------------------------------

    def publish(self, to: str, parcel: Parcel) -> None:
        """Stage `parcel` for a node or a group."""
        if self._can_send():
            for encoded in encode(parcel):
                if len(encoded.body) > BODY_BYTES_MAX:
                    self._refuse_too_large(to, encoded)
                elif encoded.lane == Lane.BULK and self._is_congested:
                    self._health.dropped += 1
                else:
                    self._stage(encoded, to)

    def _refuse_too_large(self, to: str, encoded: Encoded) -> None:
        """Quarantine the message: the broker would close the channel, and lose all later ones."""
        self._health.dropped += 1
        self._put_into_quarantine(
            f"not sent: {len(encoded.body)} bytes are more than {BODY_BYTES_MAX}",
            self._exchange_of(to),
            to,
            encoded.properties.type,
            self._name,
            encoded.properties.content_type,
            encoded.body,
        )

    def delay(self, delay_ms: Milliseconds, timer_message: TimerMessage) -> bool:
        """Stage `timer_message` for this node, by way of the delay queue of its level."""
        session = self._session
        if not self._can_send() or session is None:
            return False
        level = delay_level_ms(delay_ms)
        declaration = session.declare_delay(level)
        if declaration:
            self._staged.append(declaration)
        encoded = encode_timers(self._name, timer_message)
        exchange, key = session.queues.delay_route(level)
        # Mandatory: the delay queue may have been deleted since it was declared.
        self._staged.append(
            self._publish_frames(
                session,
                exchange,
                key,
                encoded.properties,
                encoded.body,
                mandatory=True,
            )
        )
        return True

    def quarantine(self, parcel: Parcel, reason: str) -> None:
        """Stage a message that the actor can't process for the quarantine."""
        for encoded in encode(parcel):
            self._put_into_quarantine(
                reason,
                self._topology.nodes,
                self._name,
                encoded.properties.type,
                parcel.sender,
                encoded.properties.content_type,
                encoded.body,
            )

    def acknowledge(self, receipt: Receipt) -> None:
        """Stage the acknowledgement of `receipt` and all before it on its lane."""
        self._receipts[receipt.lane] = receipt

    def emit(self, key: str, kind: str, body: bytes) -> bool:
        """Publish an event, unless the session is blocked, broken or congested."""
        session = self._session
        if (
            session is None
            or session.blocked
            or session.failure.done()
            or session.unsent_bytes > EVENTS_UNSENT_BYTES_MAX
        ):
            return False
        number = next(self._events)
        properties = Properties(
            kind, self._name, f"{self._name}-event-{number}", int(time.time()), {}
        )
        session.write(self._publish_frames(session, self._topology.events, key, properties, body))
        return True

    def on_control(self, listener: Callable[[str, bytes], None]) -> None:
        """Call `listener` for each event on the topics `control.#`."""
        self._control_listener = listener

    async def flush(self) -> None:
        """Send what is staged, wait briefly if the socket is full, then acknowledge."""
        staged, self._staged = self._staged, []
        session = self._session
        if session is None:
            self._health.dropped += len(staged)
            return
        if staged:
            session.write(staged[0] if len(staged) == 1 else b"".join(staged))
            if session.unsent_bytes:
                with contextlib.suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(self._options.flush_timeout_s):
                        await session.drain()
        if self._receipts:
            self._acknowledge_soon(session)

    def _acknowledge_soon(self, session: AmqpSession) -> None:
        """Acknowledge several turns at once: a delay is always safe, and each costs a packet.

        A lane is acknowledged as soon as a quarter of its prefetch has been processed, so that
        deliveries never pause for it.
        """
        for receipt in list(self._receipts.values()):
            processed = receipt.tag - self._acknowledged.get(receipt.lane, 0)
            if processed * 4 >= self._prefetch[receipt.lane]:
                self._acknowledge(session, receipt)
        if self._receipts and self._acknowledging is None:
            self._acknowledging = asyncio.get_running_loop().call_later(
                ACKNOWLEDGE_DELAY_S, self._acknowledge_all
            )

    def _acknowledge_all(self) -> None:
        if self._acknowledging is not None:
            self._acknowledging.cancel()
            self._acknowledging = None
        if self._session is not None:
            for receipt in list(self._receipts.values()):
                self._acknowledge(self._session, receipt)

    def _acknowledge(self, session: AmqpSession, receipt: Receipt) -> None:
        del self._receipts[receipt.lane]
        if receipt.session == session.number and not session.failure.done():
            self._acknowledged[receipt.lane] = receipt.tag
            session.acknowledge(receipt.lane, receipt.tag)

    def _can_send(self) -> bool:
        session = self._session
        if (
            session is None
            or session.blocked
            or session.failure.done()
            or session.unsent_bytes > self._options.unsent_bytes_max
        ):
            self._health.dropped += 1
            return False
        return True

    @property
    def _is_congested(self) -> bool:
        return self.unsent_bytes > self._options.bulk_unsent_bytes_max

    def _stage(self, encoded: Encoded, to: str) -> None:
        exchange = self._exchange_of(to)
        if not exchange:
            self._health.dropped += 1
        elif encoded.lane == Lane.BULK:
            key = self._topology.bulk_key(to)
            self._stage_frames(exchange, key, encoded.properties, encoded.body)
        else:
            key = "" if to in Group.ALL else to
            self._stage_frames(exchange, key, encoded.properties, encoded.body)

    def _find_exchange(self, to: str) -> str:
        """Empty if this node may not publish there: the broker would close the channel, and lose
        all that follows.
        """
        try:
            exchange = self._topology.exchange_of(to, self._name)
        except ValueError:
            return ""
        return exchange if self._writable is None or exchange in self._writable else ""

    def _stage_frames(
        self, exchange: str, routing_key: str, properties: Properties, body: bytes
    ) -> None:
        session = self._session
        if session is None:
            self._health.dropped += 1
            return
        self._staged.append(self._publish_frames(session, exchange, routing_key, properties, body))

    def _publish_frames(
        self,
        session: AmqpSession,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes,
        *,
        mandatory: bool = False,
    ) -> bytes:
        if self._seals is not None:
            properties = self._seals.sealed(exchange, routing_key, properties, body)
        return encode_publish(
            session.publish_channel,
            exchange,
            routing_key,
            properties,
            body,
            session.frame_bytes_max,
            mandatory=mandatory,
            user_id=self._user_id,
        )


def _reason_of(error: BaseException) -> str:
    if why := refusal_of(error):
        return f"{why}"
    if isinstance(error, TimeoutError) and not str(error):
        return "no reply in time"
    return str(error) or type(error).__name__
