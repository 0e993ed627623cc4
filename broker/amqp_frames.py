"""The AMQP 0-9-1 frames of publishes, deliveries and acknowledgements, encoded and decoded by hand.

aio-pika does everything else: it opens connections and channels, declares, consumes, sends
heartbeats and closes. Its general machinery (several objects for each frame, a task for each
delivery) costs more for a small message than all the rest of a node's work on it. Layouts: AMQP
0-9-1 specification, sections 2.3.5 and 4.2.
"""

import asyncio
import functools
import struct
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = b"\xce"
_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_FRAME = struct.Struct(">BHI")
_CONTENT = struct.Struct(">HHQH")
_SHORT = struct.Struct(">H")
_LONG = struct.Struct(">I")
_LONG_LONG = struct.Struct(">q")
_METHOD_ID = struct.Struct(">HH")
_PUBLISH = _METHOD_ID.pack(60, 40)
_RETURN = _METHOD_ID.pack(60, 50)
_DELIVER = _METHOD_ID.pack(60, 60)
_ACK = struct.Struct(">BHIHHQBB")
_CLOSE = _METHOD_ID.pack(10, 50)
_BLOCKED = _METHOD_ID.pack(10, 60)
_UNBLOCKED = _METHOD_ID.pack(10, 61)

# The property that each bit of a content header's flags stands for, highest bit first.
_HAS_CONTENT_TYPE = 1 << 15
_HAS_CONTENT_ENCODING = 1 << 14
_HAS_HEADERS = 1 << 13
_HAS_DELIVERY_MODE = 1 << 12
_HAS_PRIORITY = 1 << 11
_HAS_CORRELATION_ID = 1 << 10
_HAS_REPLY_TO = 1 << 9
_HAS_EXPIRATION = 1 << 8
_HAS_MESSAGE_ID = 1 << 7
_HAS_TIMESTAMP = 1 << 6
_HAS_TYPE = 1 << 5
_HAS_USER_ID = 1 << 4
_HAS_APP_ID = 1 << 3

HeaderValue = str | int | bool

# The kinds of header values: RabbitMQ's own choice of letters (its AMQP 0-9-1 errata).
_TEXT, _LONG_LONG_INT, _BOOLEAN = ord("S"), ord("l"), ord("t")
_SKIPPED_KINDS = frozenset(b"AFx")
_INTEGERS = {
    ord("b"): (1, True),
    ord("B"): (1, False),
    ord("s"): (2, True),
    ord("u"): (2, False),
    ord("I"): (4, True),
    ord("i"): (4, False),
    ord("T"): (8, False),
}
_FIXED = {ord("f"): 4, ord("D"): 5, ord("d"): 8, ord("V"): 0}
_UNREADABLE = (struct.error, UnicodeDecodeError, IndexError)
"""What reading a field beyond the end of a payload raises, or a text that is none."""


class Properties(NamedTuple):
    """The properties of a message that Synod sets and reads.

    `persistent` costs the broker a fifth more for each message. Messages that a broker's restart
    loses are sent again anyway: timers by the runtime on reconnect, the rest by the protocol.
    `user_id` is read only: the broker lets a publisher name no user but its own.
    """

    type: str
    app_id: str
    message_id: str
    timestamp_s: int
    headers: Mapping[str, HeaderValue]
    content_type: str = "application/json"
    correlation_id: str = ""
    persistent: bool = False
    user_id: str = ""


class AmqpMessage(NamedTuple):
    """A received message. `properties` is `None` if they could not be decoded.

    `size_bytes` is the body's true size; `body` is truncated if that is above the limit.
    """

    channel: int
    delivery_tag: int
    exchange: str
    routing_key: str
    properties: Properties | None
    body: bytes
    size_bytes: int


class MalformedFrame(ValueError):
    """The bytes are no AMQP frame, or not the frame that had to follow."""


# -- writing --------------------------------------------------------------------------------------


def encode_publish(
    channel: int,
    exchange: str,
    routing_key: str,
    properties: Properties,
    body: bytes,
    frame_bytes_max: int,
    *,
    mandatory: bool = False,
    user_id: str = "",
) -> bytes:
    """A whole publish: method, content header, body. The broker returns a `mandatory` message that
    it can't route to a queue; see `FrameSplitter.on_return`. It refuses a `user_id` other than that
    of the connection.
    """
    method = b"%b\x00\x00%b%b%b" % (
        _PUBLISH,
        _known_shortstr(exchange),
        _known_shortstr(routing_key),
        b"\x01" if mandatory else b"\x00",
    )
    header = _encode_header(properties, len(body), user_id)
    parts = [
        _FRAME.pack(METHOD, channel, len(method)),
        method,
        FRAME_END,
        _FRAME.pack(HEADER, channel, len(header)),
        header,
        FRAME_END,
    ]
    payload_max = frame_bytes_max - 8
    for start in range(0, len(body), payload_max):
        piece = body if len(body) <= payload_max else body[start : start + payload_max]
        parts += (_FRAME.pack(BODY, channel, len(piece)), piece, FRAME_END)
    return b"".join(parts)


def encode_ack(channel: int, delivery_tag: int) -> bytes:
    """Acknowledges `delivery_tag` and every earlier one of the channel."""
    return _ACK.pack(METHOD, channel, 13, 60, 80, delivery_tag, 1, 0xCE)


def _encode_header(properties: Properties, body_bytes: int, user_id: str) -> bytes:
    flags = (
        _HAS_CONTENT_TYPE
        | _HAS_HEADERS
        | _HAS_DELIVERY_MODE
        | _HAS_MESSAGE_ID
        | _HAS_TIMESTAMP
        | _HAS_TYPE
        | _HAS_APP_ID
    )
    correlation = b""
    if properties.correlation_id:
        flags |= _HAS_CORRELATION_ID
        correlation = _shortstr(properties.correlation_id)
    user = b""
    if user_id:
        flags |= _HAS_USER_ID
        user = _known_shortstr(user_id)
    return b"".join(
        (
            _CONTENT.pack(60, 0, body_bytes, flags),
            _known_shortstr(properties.content_type),
            _encode_table(properties.headers),
            b"\x02" if properties.persistent else b"\x01",
            correlation,
            _shortstr(properties.message_id),
            _LONG_LONG.pack(properties.timestamp_s),
            _known_shortstr(properties.type),
            user,
            _known_shortstr(properties.app_id),
        )
    )


def _shortstr(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:
        raise ValueError(f"{text[:60]!r}… is longer than 255 bytes")
    return b"%c%b" % (len(raw), raw)


# Names of nodes, exchanges, types, headers and disks are few and recur all the time.
_known_shortstr = functools.lru_cache(maxsize=4096)(_shortstr)


@functools.lru_cache(maxsize=4096)
def _text_entry(name: str, value: str) -> bytes:
    raw = value.encode()
    return b"%bS%b%b" % (_shortstr(name), _LONG.pack(len(raw)), raw)


def _encode_table(table: Mapping[str, HeaderValue]) -> bytes:
    parts = []
    for name, value in table.items():
        if isinstance(value, str):
            parts.append(_text_entry(name, value))
        elif isinstance(value, bool):
            parts.append(_known_shortstr(name) + (b"t\x01" if value else b"t\x00"))
        else:
            parts.append(b"%bl%b" % (_known_shortstr(name), _LONG_LONG.pack(value)))
    entries = b"".join(parts)
    return _LONG.pack(len(entries)) + entries


# -- reading --------------------------------------------------------------------------------------


def decode_header(payload: bytes) -> tuple[Properties | None, int]:
    """The properties and the body's size of a content header frame."""
    _, _, body_bytes, flags = _CONTENT.unpack_from(payload)
    try:
        return _decode_properties(payload, flags), body_bytes
    except (*_UNREADABLE, MalformedFrame):
        return None, body_bytes


def _decode_properties(payload: bytes, flags: int) -> Properties:
    if flags & 1:
        raise MalformedFrame("more than one word of property flags")
    at = _CONTENT.size
    content_type = correlation_id = message_id = kind = user_id = app_id = ""
    headers: dict[str, HeaderValue] = {}
    persistent = False
    timestamp_s = 0
    if flags & _HAS_CONTENT_TYPE:
        content_type, at = _read_shortstr(payload, at)
    if flags & _HAS_CONTENT_ENCODING:
        _, at = _read_shortstr(payload, at)
    if flags & _HAS_HEADERS:
        headers, at = _decode_table(payload, at)
    if flags & _HAS_DELIVERY_MODE:
        persistent = payload[at] == 2
        at += 1
    if flags & _HAS_PRIORITY:
        at += 1
    if flags & _HAS_CORRELATION_ID:
        correlation_id, at = _read_shortstr(payload, at)
    if flags & _HAS_REPLY_TO:
        _, at = _read_shortstr(payload, at)
    if flags & _HAS_EXPIRATION:
        _, at = _read_shortstr(payload, at)
    if flags & _HAS_MESSAGE_ID:
        message_id, at = _read_shortstr(payload, at)
    if flags & _HAS_TIMESTAMP:
        (timestamp_s,) = _LONG_LONG.unpack_from(payload, at)
        at += 8
    if flags & _HAS_TYPE:
        kind, at = _read_shortstr(payload, at)
    if flags & _HAS_USER_ID:
        user_id, at = _read_shortstr(payload, at)
    if flags & _HAS_APP_ID:
        app_id, at = _read_shortstr(payload, at)
    if at > len(payload):
        raise MalformedFrame("a property runs over the end")
    return Properties(
        kind,
        app_id,
        message_id,
        timestamp_s,
        headers,
        content_type,
        correlation_id,
        persistent,
        user_id,
    )


def _read_shortstr(payload: bytes, at: int) -> tuple[str, int]:
    """The text at `at` and where it ends; the caller checks that this is within the payload."""
    start = at + 1
    end = start + payload[at]
    return payload[start:end].decode(), end


def _read_lossy_shortstr(payload: bytes, at: int) -> tuple[str, int]:
    """As `_read_shortstr`, for text that is only displayed and may hold any bytes."""
    start = at + 1
    end = start + payload[at]
    return payload[start:end].decode(errors="backslashreplace"), end


def _decode_table(payload: bytes, at: int) -> tuple[dict[str, HeaderValue], int]:
    """The text, integer and boolean values; other kinds (RabbitMQ's `x-death`) are skipped."""
    (length,) = _LONG.unpack_from(payload, at)
    at += 4
    end = at + length
    table: dict[str, HeaderValue] = {}
    while at < end:
        start = at + 1
        at = start + payload[at]
        name = payload[start:at].decode()
        kind = payload[at]
        at += 1
        if kind == _TEXT:
            start = at + 4
            at = start + _LONG.unpack_from(payload, at)[0]
            table[name] = payload[start:at].decode()
        elif kind == _LONG_LONG_INT:
            (table[name],) = _LONG_LONG.unpack_from(payload, at)
            at += 8
        elif kind == _BOOLEAN:
            table[name] = payload[at] != 0
            at += 1
        elif kind in _SKIPPED_KINDS:
            at += 4 + _LONG.unpack_from(payload, at)[0]
        elif kind in _INTEGERS:
            size, signed = _INTEGERS[kind]
            table[name] = int.from_bytes(payload[at : at + size], "big", signed=signed)
            at += size
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise MalformedFrame(f"a header value of the unknown kind {chr(kind)!r}")
    if at != end:
        raise MalformedFrame("a header runs over the end of its table")
    return table, end


def _decode_deliver(payload: bytes) -> tuple[int, str, str]:
    _, at = _read_shortstr(payload, 4)
    (delivery_tag,) = _LONG_LONG.unpack_from(payload, at)
    exchange, at = _read_lossy_shortstr(payload, at + 9)
    routing_key, _ = _read_lossy_shortstr(payload, at)
    return delivery_tag, exchange, routing_key


def _decode_return(payload: bytes) -> tuple[int, str, str]:
    """As `_decode_deliver`; the delivery tag is 0, because a return is not acknowledged."""
    # After the reply code; the reply text always says that no queue took the message.
    _, at = _read_lossy_shortstr(payload, 6)
    exchange, at = _read_lossy_shortstr(payload, at)
    routing_key, _ = _read_lossy_shortstr(payload, at)
    return 0, exchange, routing_key


class _Content:
    """A delivery, or a returned message, whose frames have not all arrived yet."""

    __slots__ = (
        "callback",
        "channel",
        "deliver",
        "left_bytes",
        "pieces",
        "properties",
        "size_bytes",
    )

    def __init__(
        self, channel: int, deliver: tuple[int, str, str], callback: Callable[[AmqpMessage], None]
    ) -> None:
        self.channel = channel
        self.deliver = deliver
        self.callback = callback
        self.properties: Properties | None = None
        self.size_bytes = -1
        self.left_bytes = 0
        self.pieces: list[bytes] = []


class FrameSplitter(asyncio.StreamReaderProtocol):
    """Takes deliveries and returns out of a connection's stream; aiormq gets all other frames."""

    def __init__(
        self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop, bytes_max: int
    ) -> None:
        super().__init__(reader, loop=loop)
        self.on_delivery: Callable[[AmqpMessage], None] | None = None
        """Receives deliveries; while it is `None`, aiormq gets them."""
        self.on_return: Callable[[AmqpMessage], None] | None = None
        """Receives mandatory messages that no queue took; while it is `None`, aiormq gets them."""
        self.on_blocked: Callable[[bool], None] | None = None
        """Called when the broker blocks publishers (`True`) or unblocks them (`False`)."""
        self.close_reason: tuple[int, str] | None = None
        """The reply code and text with which the broker closed the connection."""
        self._bytes_max = bytes_max
        self._buffer = b""
        self._contents: dict[int, _Content] = {}
        self._is_amqp: bool | None = None
        self._forwarded_s = 0.0

    def data_received(self, data: bytes) -> None:
        """Split the received bytes into frames. Raises `MalformedFrame`; asyncio then cuts the
        connection, and the node opens another.
        """
        if self._is_amqp is None and data:
            # A server that does not support this version answers with its own protocol header.
            self._is_amqp = data[0] == METHOD
        if not self._is_amqp:
            super().data_received(data)
            return
        if self._buffer:
            data = self._buffer + data
        rest: list[bytes] = []
        at, size = 0, len(data)
        while size - at >= 8:
            kind, channel, length = _FRAME.unpack_from(data, at)
            end = at + 8 + length
            if end > size:
                break
            if not self._take(kind, channel, data[at + 7 : end - 1]):
                rest.append(data[at:end])
            at = end
        self._buffer = data[at:]
        now_s = time.monotonic()
        if rest:
            self._forwarded_s = now_s
            super().data_received(b"".join(rest))
        elif at and now_s - self._forwarded_s > 1:
            # aiormq takes silence for a dead server, but a busy server sends no heartbeats.
            self._forwarded_s = now_s
            super().data_received(_HEARTBEAT)

    def _take(self, kind: int, channel: int, payload: bytes) -> bool:
        if channel == 0:
            if kind == METHOD:
                self._inspect(payload)
            return False
        if kind == METHOD:
            callback: Callable[[AmqpMessage], None]
            try:
                if self.on_delivery is not None and payload.startswith(_DELIVER):
                    deliver, callback = _decode_deliver(payload), self._deliver
                elif self.on_return is not None and payload.startswith(_RETURN):
                    deliver, callback = _decode_return(payload), self.on_return
                else:
                    return False
            except _UNREADABLE as error:
                raise MalformedFrame(f"a method can't be read: {error}") from error
            self._contents[channel] = _Content(channel, deliver, callback)
            return True
        content = self._contents.get(channel)
        if content is None:
            return False
        if kind == HEADER:
            try:
                content.properties, content.size_bytes = decode_header(payload)
            except struct.error as error:
                raise MalformedFrame(f"a content header can't be read: {error}") from error
            content.left_bytes = content.size_bytes
        elif kind == BODY:
            content.left_bytes -= len(payload)
            # Bytes above the limit are counted, but not kept.
            if content.size_bytes - content.left_bytes <= self._bytes_max or not content.pieces:
                content.pieces.append(payload)
        if content.left_bytes <= 0:
            del self._contents[channel]
            self._finish(content)
        return True

    def _inspect(self, payload: bytes) -> None:
        """Note methods about the connection itself; aiormq gets them, too."""
        if payload.startswith(_CLOSE):
            try:
                (code,) = _SHORT.unpack_from(payload, 4)
                self.close_reason = (code, _read_lossy_shortstr(payload, 6)[0])
            except _UNREADABLE as error:
                raise MalformedFrame(f"a method can't be read: {error}") from error
        elif self.on_blocked is not None:
            if payload.startswith(_BLOCKED):
                self.on_blocked(True)
            elif payload.startswith(_UNBLOCKED):
                self.on_blocked(False)

    def _finish(self, content: _Content) -> None:
        pieces = content.pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        delivered = AmqpMessage(
            content.channel, *content.deliver, content.properties, body, content.size_bytes
        )
        content.callback(delivered)

    def _deliver(self, delivered: AmqpMessage) -> None:
        # It may have been removed since the delivery began.
        if self.on_delivery is not None:
            self.on_delivery(delivered)
