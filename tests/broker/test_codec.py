"""A node can decode every message that a node encodes, and nothing else."""

import asyncio
import contextlib
import json
import random
import struct
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame, header
from pamqp.heartbeat import Heartbeat

from actors.effects import TimerKey
from actors.messages import (
    Accepted,
    AnyMessage,
    ChunkData,
    ChunkGet,
    ChunkRefused,
    Message,
    Result,
)
from broker.amqp_frames import (
    AmqpMessage,
    FrameSplitter,
    Properties,
    decode_header,
    encode_ack,
    encode_publish,
)
from broker.codec import (
    BODY_BYTES_MAX,
    WIRE_VERSION,
    Encoded,
    NewerWireVersion,
    Undecodable,
    decode,
    encode,
    encode_ping,
    encode_timers,
)
from broker.transport import Lane, Parcel, TimerMessage
from tests.broker.samples import BALLOT, HASH, SAMPLES


def parcel(*messages: AnyMessage) -> Parcel:
    return Parcel("c1", "store-1", "d1", 3, messages)


def test_there_is_a_sample_of_every_message() -> None:
    union = get_args(get_args(Message)[0])
    assert {type(sample) for sample in SAMPLES} == set(union)


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: message.type)
def test_every_message_comes_back_as_it_was(message: AnyMessage) -> None:
    (encoded,) = encode(parcel(message))
    assert encoded.properties.type == message.type  # type: ignore[attr-defined]
    assert decode(encoded.properties, encoded.body) == parcel(message)


def test_the_messages_of_a_turn_travel_together_and_contents_alone() -> None:
    encoded = list(encode(parcel(*SAMPLES)))
    control = [each for each in encoded if each.lane == Lane.CONTROL]
    bulk = [each for each in encoded if each.lane == Lane.BULK]
    assert [each.properties.type for each in bulk] == ["chunk.put", "chunk.data"]
    assert len(control) == 1
    assert len(control[0].properties.type) <= 255
    read = decode(control[0].properties, control[0].body)
    assert isinstance(read, Parcel)
    kinds = [type(message) for message in SAMPLES]
    assert [type(message) for message in read.messages] == [
        kind for kind in kinds if kind.__name__ not in ("ChunkPut", "ChunkData")
    ]


def test_a_result_can_be_found_by_its_slot_and_request() -> None:
    (result,) = [message for message in SAMPLES if isinstance(message, Result)]

    (encoded,) = encode(Parcel("c", "learner-1", "d", 1, (result,)))

    assert encoded.properties.headers["slot"] == result.outcome.slot
    assert encoded.properties.correlation_id == result.request


def test_the_properties_say_what_people_filter_by() -> None:
    (encoded,) = encode(parcel(Accepted(ballot=BALLOT, slot=9), ChunkGet(sha256=HASH)))
    properties = encoded.properties
    assert properties.type == "paxos.accepted,chunk.get"
    assert properties.app_id == "store-1"
    assert properties.headers == {
        "wire": WIRE_VERSION,
        "cluster": "c1",
        "disk": "d1",
        "incarnation": 3,
        "slot": 9,
        "ballot": "7.proposer-2",
    }
    assert json.loads(encoded.body)[0] == {
        "type": "paxos.accepted",
        "ballot": [7, "proposer-2"],
        "slot": 9,
    }


def test_a_large_turn_is_split_in_order() -> None:
    notes = [ChunkRefused(sha256="", reason=f"{number:03}" + "x" * 1000) for number in range(50)]
    encoded = list(encode(parcel(*notes), split_bytes=10_000))
    assert len(encoded) > 5
    assert all(len(each.body) <= 10_100 for each in encoded)
    read: list[AnyMessage] = []
    for each in encoded:
        part = decode(each.properties, each.body)
        assert isinstance(part, Parcel)
        read += part.messages
    assert read == notes


def test_a_wakeup_comes_back_as_it_was() -> None:
    timer_message = TimerMessage("d1", 3, ((TimerKey("vote", "17"), 4), (TimerKey("beat"), 5)))
    encoded = encode_timers("store-1", timer_message)
    assert decode(encoded.properties, encoded.body) == timer_message


GOOD = next(iter(encode(parcel(Accepted(ballot=BALLOT, slot=9)))))
GOOD_HEADERS = GOOD.properties.headers


@pytest.mark.parametrize(
    ("changes", "body", "reason"),
    [
        ({}, b"", "paxos.accepted.*Invalid JSON"),
        ({}, b"\xff\xfe", "Invalid JSON"),
        ({}, b"{}", "valid array"),
        ({"type": "paxos.surprise"}, b'[{"type": "paxos.surprise"}]', "paxos.surprise"),
        ({}, b'[{"type": "call.write", "token": 1}]', "call.write"),
        ({}, b'[{"type": "disk.row_rotten", "key": "round"}]', "disk.row_rotten"),
        ({}, b'[{"type": "paxos.accepted", "slot": 1}]', "ballot"),
        (
            {},
            b'[{"type": "paxos.accepted", "slot": 1, "ballot": [1, "p"], "more": 1}]',
            "Extra inputs",
        ),
        ({}, b'[{"type": "chunk.data", "sha256": "", "data": ""}]', "raw bytes"),
        ({"headers": {}}, GOOD.body, "wire"),
        ({"headers": {**GOOD_HEADERS, "wire": "1"}}, GOOD.body, "wire"),
        ({"headers": {**GOOD_HEADERS, "wire": 0}}, GOOD.body, "wire"),
        ({"headers": {"wire": 1}}, GOOD.body, "disk"),
        ({"headers": {**GOOD_HEADERS, "incarnation": "3"}}, GOOD.body, "incarnation"),
        ({"headers": {"wire": 1, "disk": "d", "incarnation": 3}}, GOOD.body, "cluster"),
        ({"app_id": ""}, GOOD.body, "app_id"),
        ({"type": "chunk.put"}, b"data", "sha256"),
        ({"type": "timer"}, b'[["name"]]', "timer"),
        ({}, b" " * (BODY_BYTES_MAX + 1), "more than"),
    ],
)
def test_anything_else_is_undecodable(changes: dict[str, Any], body: bytes, reason: str) -> None:
    with pytest.raises(Undecodable, match=reason):
        decode(GOOD.properties._replace(**changes), body)


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        *encode(parcel(SAMPLES[0])),
        *encode(parcel(ChunkData(sha256=HASH, data=b"x"))),
        encode_timers("store-1", TimerMessage("d1", 3, ())),
    ],
    ids=lambda encoded: encoded.properties.type,
)
def test_a_message_of_a_newer_version_is_no_wrong_one(good: Encoded) -> None:
    """Given a message of the next version, whatever is in it, then it is told apart from garbage,
    and the error names who is too old.
    """
    newer = good.properties._replace(headers={**good.properties.headers, "wire": WIRE_VERSION + 1})
    for body in (good.body, b"\x00 no JSON at all"):
        with pytest.raises(NewerWireVersion, match=r"store-1 sends .* wire version 2.* reads 1"):
            decode(newer, body)


@given(st.binary(max_size=200))
def test_no_body_raises_anything_but_undecodable(body: bytes) -> None:
    with contextlib.suppress(Undecodable):
        decode(GOOD.properties, body)


# -- frames ---------------------------------------------------------------------------------------

PROPERTIES = Properties(
    "paxos.accept,txn.vote",
    "proposer-1",
    "proposer-1-7",
    1_700_000_000,
    {"cluster": "ü" * 40, "incarnation": -3, "manifest": True, "empty": ""},
    correlation_id="session-4",
    persistent=True,
)


def split(raw: bytes) -> list[Any]:
    """The frames as pamqp, the library beneath aio-pika, reads them."""
    frames = []
    while raw:
        size, channel, value = frame.unmarshal(raw)
        assert channel == 5
        frames.append(value)
        raw = raw[size:]
    return frames


def test_a_publish_is_what_the_library_would_have_written() -> None:
    body = random.randbytes(10_000)
    method, head, *pieces = split(
        encode_publish(5, "synod.c.nodes", "store-1", PROPERTIES, body, 4096)
    )
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key) == ("synod.c.nodes", "store-1")
    assert not method.mandatory
    assert not method.immediate
    assert isinstance(head, header.ContentHeader)
    assert head.body_size == len(body)
    found = head.properties
    assert found.headers == PROPERTIES.headers
    assert found.message_type == PROPERTIES.type
    assert found.app_id == PROPERTIES.app_id
    assert found.message_id == PROPERTIES.message_id
    assert found.correlation_id == PROPERTIES.correlation_id
    assert found.content_type == PROPERTIES.content_type
    assert found.delivery_mode == 2
    assert found.timestamp is not None
    assert found.timestamp.timestamp() == PROPERTIES.timestamp_s
    assert b"".join(piece.value for piece in pieces) == body
    assert len(pieces) == 3


def test_an_acknowledgement_is_what_the_library_would_have_written() -> None:
    (ack,) = split(encode_ack(5, 1 << 40))
    assert isinstance(ack, commands.Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (1 << 40, True)


@given(
    st.text(max_size=60),
    st.text(max_size=60),
    st.dictionaries(
        st.text(max_size=20),
        st.text(max_size=80) | st.booleans() | st.integers(-(2**63), 2**63 - 1),
        max_size=8,
    ),
    st.text(max_size=60),
    st.booleans(),
)
def test_a_content_header_comes_back_as_it_was(
    kind: str, app_id: str, headers: dict[str, str | int | bool], correlation: str, persistent: bool
) -> None:
    properties = Properties(
        kind, app_id, "id", 7, headers, "application/json", correlation, persistent
    )
    raw = encode_publish(1, "", "", properties, b"", 4096)
    method_bytes = 8 + struct.unpack_from(">I", raw, 3)[0]
    (length,) = struct.unpack_from(">I", raw, method_bytes + 3)
    payload = raw[method_bytes + 7 : method_bytes + 7 + length]
    assert decode_header(payload) == (properties, 0)


def test_headers_of_other_kinds_are_passed_over() -> None:
    # RabbitMQ adds x-death, a list of tables, to messages from a delay queue.
    values: dict[str, Any] = {
        "x-death": [{"count": 1, "queue": "q"}],
        "table": {"a": 1},
        "float": 1.5,
        "nothing": None,
        "small": 5,
        "text": "t",
    }
    head = header.ContentHeader(
        body_size=3, properties=commands.Basic.Properties(headers=values, priority=3)
    )
    properties, size = decode_header(frame.marshal(head, 1)[7:-1])
    assert size == 3
    assert properties is not None
    assert properties.headers == {"small": 5, "text": "t"}


@given(st.binary(min_size=14, max_size=80))
def test_a_garbled_header_is_no_properties_at_worst(payload: bytes) -> None:
    decode_header(payload)


class Stream:
    """A splitter whose two sides are written down."""

    def __init__(self, bytes_max: int = 1 << 20) -> None:
        self.reader = asyncio.StreamReader()
        self.splitter = FrameSplitter(self.reader, asyncio.get_running_loop(), bytes_max)
        self.delivered: list[AmqpMessage] = []
        self.blocked: list[bool] = []
        self.splitter.on_delivery = self.delivered.append
        self.splitter.on_blocked = self.blocked.append

    @property
    def passed_on(self) -> bytes:
        buffer: bytearray = self.reader._buffer  # type: ignore[attr-defined]
        return bytes(buffer)


def delivery(tag: int, body: bytes) -> bytes:
    """The broker's delivery of an `encode_publish`: the same content under another method."""
    publish = encode_publish(5, "", "", PROPERTIES, body, 4096)
    (length,) = struct.unpack_from(">I", publish, 3)
    deliver = commands.Basic.Deliver("tag", tag, False, "exchange", "key")
    return frame.marshal(deliver, 5) + publish[8 + length :]


async def test_deliveries_are_taken_out_of_the_stream_wherever_it_is_cut() -> None:
    bodies = [random.randbytes(size) for size in (0, 1, 4088, 4089, 20_000)]
    others = [
        frame.marshal(commands.Basic.ConsumeOk("tag"), 5),
        frame.marshal(commands.Connection.Blocked("memory"), 0),
        frame.marshal(commands.Connection.Unblocked(), 0),
    ]
    stream_bytes = others[0] + b"".join(
        delivery(number, body) for number, body in enumerate(bodies, 1)
    )
    stream_bytes += others[1] + others[2]
    for step in (1, 7, 1000, len(stream_bytes)):
        stream = Stream()
        for start in range(0, len(stream_bytes), step):
            stream.splitter.data_received(stream_bytes[start : start + step])
        assert [each.body for each in stream.delivered] == bodies
        assert [each.delivery_tag for each in stream.delivered] == [1, 2, 3, 4, 5]
        assert {each.exchange for each in stream.delivered} == {"exchange"}
        assert {each.routing_key for each in stream.delivered} == {"key"}
        assert all(each.properties == PROPERTIES for each in stream.delivered)
        # A heartbeat may be put in while deliveries come: aiormq takes silence for death.
        heartbeat = frame.marshal(Heartbeat(), 0)
        assert stream.passed_on.replace(heartbeat, b"") == b"".join(others)
        assert stream.blocked == [True, False]


async def test_a_routing_key_that_is_no_text_is_a_delivery_like_any_other() -> None:
    """Given bytes that are no UTF-8 in a name that is only displayed, then the stream continues."""
    stream = Stream()
    foul = delivery(1, b"x").replace(b"exchange", b"\xff\xfeexchan").replace(b"key", b"\x80\xffk")

    with contextlib.suppress(UnicodeDecodeError):
        stream.splitter.data_received(foul + delivery(2, b"y"))

    assert [each.body for each in stream.delivered] == [b"x", b"y"]
    assert stream.delivered[0].routing_key == "\\x80\\xffk"


async def test_of_an_oversized_body_only_the_beginning_is_kept() -> None:
    stream = Stream(bytes_max=10_000)
    stream.splitter.data_received(frame.marshal(commands.Basic.ConsumeOk("tag"), 5))
    stream.splitter.data_received(delivery(1, b"x" * 100_000) + delivery(2, b"y"))
    large, small = stream.delivered
    assert large.size_bytes == 100_000
    assert len(large.body) <= 10_000
    assert small.body == b"y"


async def test_a_server_that_speaks_something_else_is_left_to_the_library() -> None:
    stream = Stream()
    stream.splitter.data_received(b"AMQP\x00\x01\x00\x00")
    assert stream.passed_on == b"AMQP\x00\x01\x00\x00"


def test_a_ping_is_recognized_by_its_type() -> None:
    assert encode_ping("store-1", 4).properties.type == "ping"
