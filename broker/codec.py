"""The encoding of messages on the broker, and their validation when they are decoded.

A body is a JSON list of messages, so that people can read it in the RabbitMQ console; contents
(`actors.messages.BULK`) are raw bytes with headers. The AMQP properties repeat the fields that
people filter by. The header `wire` names the version of all this
(docs/decisions/0024-versions.md).
"""

import functools
import itertools
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from actors.effects import TimerKey
from actors.messages import (
    BULK,
    MESSAGES,
    Accept,
    AnyMessage,
    ChunkData,
    ChunkPut,
    Result,
    TxnPrepare,
)
from actors.paging import MESSAGE_BYTES_MAX
from actors.paxos.ballot import Ballot
from actors.paxos.votes import read_batch
from actors.unread import UnreadBatch
from broker.amqp_frames import HeaderValue, Properties
from broker.transport import Lane, Parcel, TimerMessage

WIRE_VERSION = 1
"""The version that this release writes, and the newest that it reads.

Within a version no message gains, loses or renames a field, a type or a kind of operation: a node
of the former release refuses what it does not know, and `tests/broker/golden` holds every message.
"""

BODY_BYTES_MAX = MESSAGE_BYTES_MAX
"""RabbitMQ 4's own limit; no node sends larger messages."""

SPLIT_BYTES = 4 * 1024 * 1024
"""A larger parcel is split into several messages."""

TIMER = "timer"
PING = "ping"

_TIMERS: TypeAdapter[list[tuple[str, str, int]]] = TypeAdapter(list[tuple[str, str, int]])
_SHORTSTR_BYTES_MAX = 255
_NAME_CHARS_SHOWN = 64
_numbers = itertools.count(1)

# The beginnings of messages with a batch, as `actors.values.Holder` encodes them.
_HELD = {
    "paxos.accept": re.compile(
        rb'\[\{"type":"paxos.accept","ballot":\[(\d{1,18}),"([ !#-\[\]-~]*)"\],"slot":(\d{1,18}),'
        rb'"learner":"([\w.-]*)",(?:"version":(\d{1,15}),)?"value":(?=\{"kind":"batch",)'
    ),
    "txn.prepare": re.compile(
        rb'\[\{"type":"txn.prepare","epoch":(\d{1,18}),"slot":(\d{1,18}),'
        rb'"reconsider":(true|false),"batch":(?=\{)'
    ),
}


class Undecodable(ValueError):
    """No node of this version encoded the message; the text says why."""


class NewerWireVersion(ValueError):
    """The message is of a newer version than this node reads; the text names sender and version."""


class Encoded(NamedTuple):
    """One broker message, ready to be published on a lane of its destination."""

    lane: str
    properties: Properties
    body: bytes


# -- writing --------------------------------------------------------------------------------------


def encode(parcel: Parcel, split_bytes: int = SPLIT_BYTES) -> Iterator[Encoded]:
    """The broker messages for a parcel, in order: one for each content and each proposal of a text
    that was not read, all others together.
    """
    together: list[AnyMessage] = []
    bodies: list[bytes] = []
    size_bytes = 0
    for message in parcel.messages:
        if isinstance(message, ChunkPut | ChunkData):
            yield _encode_bulk(parcel, message)
            continue
        body = message.to_json()
        if isinstance(message, Accept) and isinstance(message.value, UnreadBatch):
            # Beside others it would be read as JSON like them, and refused with them if it is no
            # batch.
            yield _encode_control(parcel, [message], [body])
            continue
        if bodies and size_bytes + len(body) > split_bytes:
            yield _encode_control(parcel, together, bodies)
            together, bodies, size_bytes = [], [], 0
        together.append(message)
        bodies.append(body)
        size_bytes += len(body) + 1
    if bodies:
        yield _encode_control(parcel, together, bodies)


def encode_timers(name: str, timer_message: TimerMessage) -> Encoded:
    """The broker message that expires some timers of the node `name`."""
    rows = [(key.name, key.subject, generation) for key, generation in timer_message.timers]
    headers: dict[str, HeaderValue] = {
        "wire": WIRE_VERSION,
        "disk": timer_message.disk,
        "incarnation": timer_message.incarnation,
    }
    return Encoded(Lane.CONTROL, _properties(TIMER, name, headers), _TIMERS.dump_json(rows))


def encode_ping(name: str, number: int) -> Encoded:
    """A message of a node to itself, which checks that its queue still delivers."""
    return Encoded(Lane.CONTROL, _properties(PING, name, {"number": number}), b"")


def _encode_bulk(parcel: Parcel, message: ChunkPut | ChunkData) -> Encoded:
    headers = _identity_headers(parcel)
    headers["sha256"] = message.sha256
    headers["manifest"] = message.manifest if isinstance(message, ChunkPut) else False
    properties = _properties(
        message.type, parcel.sender, headers, content_type="application/octet-stream"
    )
    return Encoded(Lane.BULK, properties, message.data)


def _encode_control(parcel: Parcel, messages: list[AnyMessage], bodies: list[bytes]) -> Encoded:
    # People filter by these in the console; of a parcel with several slots, the first is named.
    headers = _identity_headers(parcel)
    first: Any = messages[0]
    kind: type[AnyMessage] = type(first)
    shown = _shown(kind)
    if shown.slot:
        headers["slot"] = first.slot
    if kind is Result:
        headers["slot"] = first.outcome.slot
    if shown.ballot and first.ballot is not None:
        headers["ballot"] = f"{first.ballot[0]}.{first.ballot[1]}"
    if shown.epoch:
        headers["epoch"] = first.epoch
    properties = _properties(
        _type_of(messages),
        parcel.sender,
        headers,
        correlation_id=first.request if shown.request else "",
    )
    return Encoded(Lane.CONTROL, properties, b"[%b]" % b",".join(bodies))


class _Shown(NamedTuple):
    """The fields of a message type that the properties repeat."""

    slot: bool
    ballot: bool
    epoch: bool
    request: bool


@functools.cache
def _shown(kind: type[AnyMessage]) -> _Shown:
    fields = kind.model_fields
    # In some types the request's id is a property; `ReadRequest` has no such field at all.
    request = isinstance(getattr(kind, "request", None), property)
    return _Shown("slot" in fields, "ballot" in fields, "epoch" in fields, request)


def _type_of(messages: list[AnyMessage]) -> str:
    """The distinct types in order of appearance, as many as fit into the AMQP property."""
    if len(messages) == 1:
        return _kind(messages[0])
    joined = ""
    for kind in dict.fromkeys(map(_kind, messages)):
        if len(joined) + 1 + len(kind) > _SHORTSTR_BYTES_MAX:
            break
        joined = f"{joined},{kind}" if joined else kind
    return joined


def _kind(message: AnyMessage) -> str:
    kind: str = message.type  # type: ignore[attr-defined]
    return kind


def _identity_headers(parcel: Parcel) -> dict[str, HeaderValue]:
    return {
        "wire": WIRE_VERSION,
        "cluster": parcel.cluster,
        "disk": parcel.disk,
        "incarnation": parcel.incarnation,
    }


def _properties(
    kind: str,
    sender: str,
    headers: dict[str, HeaderValue],
    *,
    content_type: str = "application/json",
    correlation_id: str = "",
) -> Properties:
    return Properties(
        kind,
        sender,
        f"{sender}-{next(_numbers)}",
        int(time.time()),
        headers,
        content_type,
        correlation_id.encode()[:_SHORTSTR_BYTES_MAX].decode(errors="ignore"),
    )


# -- reading --------------------------------------------------------------------------------------


def decode(
    properties: Properties, body: bytes, *, for_votes: bool = False
) -> Parcel | TimerMessage:
    """Decode a node's message. Raises `NewerWireVersion` or `Undecodable`.

    `for_votes`: the batch of a proposal is not read, because acceptors don't (decision 33).
    """
    _check_version(properties)
    if len(body) > BODY_BYTES_MAX:
        raise Undecodable(f"{len(body)} bytes are more than {BODY_BYTES_MAX}")
    headers = properties.headers
    disk, incarnation = headers.get("disk"), headers.get("incarnation")
    if not isinstance(disk, str) or not isinstance(incarnation, int):
        raise Undecodable("the headers disk (text) and incarnation (number) are missing or wrong")
    if properties.type == TIMER:
        return _decode_timers(disk, incarnation, body)
    cluster = headers.get("cluster")
    if not isinstance(cluster, str):
        raise Undecodable("the header cluster (text) is missing or wrong")
    if not properties.app_id:
        raise Undecodable("app_id does not name the sender")
    if properties.type in BULK:
        messages: tuple[AnyMessage, ...] = (_decode_bulk(properties, body),)
    else:
        messages = _decode_held(properties.type, body, for_votes) or _decode_control(
            properties.type, body
        )
    return Parcel(cluster, properties.app_id, disk, incarnation, messages)


def _check_version(properties: Properties) -> None:
    version = properties.headers.get("wire")
    if not isinstance(version, int) or version < 1:
        raise Undecodable("the header wire (a version, from 1) is missing or wrong")
    if version > WIRE_VERSION:
        raise NewerWireVersion(
            f"{properties.app_id[:_NAME_CHARS_SHOWN] or 'a node without a name'} sends messages of "
            f"wire version {version}, and this Synod reads {WIRE_VERSION} at most: upgrade it"
        )


def _decode_control(kind: str, body: bytes) -> tuple[AnyMessage, ...]:
    try:
        messages = MESSAGES.validate_json(body)
    except ValidationError as error:
        raise Undecodable(_explain(kind, error)) from None
    if any(message.type in BULK for message in messages):
        raise Undecodable("contents must be raw bytes, not JSON")
    return messages


def _decode_held(kind: str, body: bytes, for_votes: bool) -> tuple[AnyMessage, ...] | None:
    """Decode one message with a batch quickly; `None` if it has not exactly the form of a node's.

    The batch keeps exactly the bytes that it was decoded from as its text.
    """
    form = _HELD.get(kind)
    head = form.match(body) if form is not None else None
    if head is None or not body.endswith(b"}]"):
        return None
    text = body[head.end() : -2]
    try:
        if kind == "txn.prepare":
            batch = read_batch(text)
            if batch is None:
                return None
            epoch, slot, reconsider = int(head[1]), int(head[2]), head[3] == b"true"
            return (TxnPrepare(epoch=epoch, slot=slot, reconsider=reconsider, batch=batch),)
        value = (None if for_votes else read_batch(text)) or UnreadBatch(text=text)
        ballot = Ballot(int(head[1]), head[2].decode())
        slot, learner, version = int(head[3]), head[4].decode(), int(head[5] or 0)
        return (Accept(ballot=ballot, slot=slot, learner=learner, version=version, value=value),)
    except ValueError:  # Including invalid UTF-8 and pydantic's validation errors.
        return None


def _decode_timers(disk: str, incarnation: int, body: bytes) -> TimerMessage:
    try:
        rows = _TIMERS.validate_json(body)
    except ValidationError as error:
        raise Undecodable(_explain(TIMER, error)) from None
    timers = tuple((TimerKey(name, subject), generation) for name, subject, generation in rows)
    return TimerMessage(disk, incarnation, timers)


def _decode_bulk(properties: Properties, body: bytes) -> ChunkPut | ChunkData:
    sha256, manifest = properties.headers.get("sha256"), properties.headers.get("manifest")
    if not isinstance(sha256, str) or not isinstance(manifest, bool):
        raise Undecodable("the headers sha256 (text) and manifest (true or false) are missing")
    if properties.type == "chunk.put":
        return ChunkPut(sha256=sha256, manifest=manifest, data=body)
    return ChunkData(sha256=sha256, data=body)


def _explain(kind: str, error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    return f"{kind or 'a message without a type'}: {where}: {first['msg']}"[:500]
