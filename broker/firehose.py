"""RabbitMQ's firehose, decoded: every message of a cluster, as the broker receives it.

The firehose copies each published message to the exchange `amq.rabbitmq.trace`. It is off after a
restart of the broker and costs throughput, so it is on only while `watch_firehose` runs.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import aio_pika
import aiormq
import httpx
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from actors.messages import AnyMessage
from broker.addresses import BrokerAddresses, split_urls
from broker.amqp_frames import HeaderValue, Properties
from broker.codec import PING, TIMER, NewerWireVersion, Undecodable, decode
from broker.tls import BrokerTls, refusal_of
from broker.topology import Topology
from broker.transport import Parcel, TimerMessage

_TRACE_EXCHANGE = "amq.rabbitmq.trace"
_QUEUED_MAX = 10_000


class FirehoseRefused(RuntimeError):
    """The management API did not switch the firehose; the text says why."""


class TracedMessage(NamedTuple):
    """One message as the broker received it. `to` is a node or a group; `wall_s` is Unix time."""

    wall_s: float
    sender: str
    to: str
    kind: str
    message_id: str
    slot: int | None
    ballot: str
    epoch: int | None
    message: AnyMessage | None
    """`None` for timers, pings, events and undecodable messages."""
    text: str
    """A description of those."""


_MANAGEMENT = {"amqp": ("http", 15672), "amqps": ("https", 15671)}


def management_url_of(broker_url: str) -> str:
    """The usual address of the management API of a broker: with TLS if the broker has it."""
    parts = urlsplit(broker_url)
    scheme, port = _MANAGEMENT[parts.scheme]
    host = parts.hostname or "localhost"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


async def watch_firehose(
    broker: str,
    management_url: str | None,
    topology: Topology,
    seconds: float,
    report: Callable[[TracedMessage], None],
    tls: BrokerTls,
) -> None:
    """Switch the firehose on, report every message of the cluster, and switch it off again.

    Each broker of a cluster copies what its own clients publish, so it is switched on at all of
    them; with `management_url` only there. Raises `FirehoseRefused`, or what aio-pika raises if
    none can be reached.
    """
    urls = split_urls(broker)
    consoles = [management_url] if management_url else [management_url_of(url) for url in urls]
    async with await _connect_to_one(urls, tls) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(_TRACE_EXCHANGE, ensure=False)
        queue = await channel.declare_queue(
            exclusive=True, arguments={"x-max-length": _QUEUED_MAX, "x-overflow": "drop-head"}
        )
        await queue.bind(exchange, f"publish.{topology.prefix}#")

        async def on_message(message: AbstractIncomingMessage) -> None:
            for traced_message in traced_messages_of(message, topology):
                report(traced_message)

        await queue.consume(on_message, no_ack=True)
        async with _switched_on(urls[0], consoles, tls):
            await asyncio.sleep(seconds)


async def _connect_to_one(urls: tuple[str, ...], tls: BrokerTls) -> AbstractConnection:
    addresses = BrokerAddresses(urls)
    while True:
        try:
            url = addresses.current
            return await aio_pika.connect(url, timeout=10, ssl_context=tls.context_for(url))
        except (aiormq.AMQPError, OSError):
            addresses.failed()
            if addresses.rounds:
                raise


def traced_messages_of(traced: AbstractIncomingMessage, topology: Topology) -> list[TracedMessage]:
    """The messages inside of one message of the firehose."""
    headers = {name: _text(value) for name, value in (traced.headers or {}).items()}
    properties = headers.get("properties")
    about: dict[str, Any] = properties if isinstance(properties, dict) else {}
    own: dict[str, HeaderValue] = about.get("headers") or {}
    keys = headers.get("routing_keys") or [""]
    to = _receiver(str(headers.get("exchange_name", "")), str(keys[0]), topology)
    base = TracedMessage(
        wall_s=time.time(),
        sender=str(about.get("app_id", "")),
        to=to,
        kind=str(about.get("type", "")),
        message_id=str(about.get("message_id", "")),
        slot=_number(own.get("slot")),
        ballot=str(own.get("ballot", "")),
        epoch=_number(own.get("epoch")),
        message=None,
        text="",
    )
    if base.kind == PING:
        return [base._replace(text="checks its own queue")]
    if to == "events":
        return [base._replace(text=f"{len(traced.body)} bytes of events")]
    try:
        item = decode(Properties(base.kind, base.sender, base.message_id, 0, own), traced.body)
    except (NewerWireVersion, Undecodable) as error:
        return [base._replace(text=f"undecodable: {error}")]
    if isinstance(item, TimerMessage):
        names = ", ".join(f"{key.name} {key.subject}".strip() for key, _ in item.timers)
        return [base._replace(kind=TIMER, text=names)]
    return _of_parcel(item, base)


def _of_parcel(parcel: Parcel, base: TracedMessage) -> list[TracedMessage]:
    return [
        base._replace(kind=message.type, message=message)  # type: ignore[attr-defined]
        for message in parcel.messages
    ]


def _receiver(exchange: str, key: str, topology: Topology) -> str:
    """The node or group that a message was published for."""
    last = exchange.removeprefix(topology.prefix)
    if exchange == topology.nodes or last.startswith("to."):
        return key
    if last.startswith("inbox."):
        node, _, level = key.removeprefix(f"{topology.prefix}delay.").partition(".")
        return f"{node} in {level.rpartition('.')[2]} ms" if level else node
    if last.startswith("delay."):
        return f"{key} in {last.rpartition('.')[2]} ms"
    if exchange == topology.session_delays:
        node, _, level = key.removeprefix(topology.delay_prefix).split(".")
        return f"{node} in {level} ms"
    return last if exchange in (topology.events, topology.quarantine) else f"@{last}"


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _text(value: Any) -> Any:
    """AMQP's long strings come as bytes."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict):
        return {name: _text(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_text(inner) for inner in value]
    return value


@contextlib.asynccontextmanager
async def _switched_on(
    broker_url: str, consoles: Sequence[str], tls: BrokerTls
) -> AsyncIterator[None]:
    """The firehose is on at all `consoles` that answer. Raises `FirehoseRefused` if none does."""
    parts = urlsplit(broker_url)
    host = quote(unquote(parts.path.removeprefix("/")) or "/", safe="")
    user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
    encrypted = any(console.startswith("https:") for console in consoles)
    async with httpx.AsyncClient(
        auth=(user, password),
        timeout=10,
        trust_env=False,
        verify=tls.context() if encrypted else False,
    ) as client:

        async def switch(console: str, on: bool) -> str:
            """Returns why it did not do so, or nothing."""
            url = f"{console.rstrip('/')}/api/vhosts/{host}"
            try:
                answer = await client.put(url, json={"tracing": on})
            except httpx.TransportError as error:
                return f"nothing answers at {console}: {refusal_of(error) or error}"
            if not answer.is_success:
                return f"{console} answered {answer.status_code}: {answer.text[:200]}"
            return ""

        refusals = [await switch(console, True) for console in consoles]
        if all(refusals):
            raise FirehoseRefused("; ".join(refusals))
        try:
            yield
        finally:
            refusals = [await switch(console, False) for console in consoles]
            if all(refusals):
                raise FirehoseRefused("; ".join(refusals))
