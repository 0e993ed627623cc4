"""Hostile bytes from the broker: the frame splitter and the decoding of messages refuse them."""

import asyncio
import json
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.amqp_frames import (
    AmqpMessage,
    FrameSplitter,
    MalformedFrame,
    Properties,
    encode_publish,
)
from broker.codec import NewerWireVersion, Undecodable, decode, encode
from broker.transport import Parcel, TimerMessage
from tests.broker.samples import SAMPLES
from tests.fuzz.hostile import garbled, texts

_DELIVER = struct.pack(">HH", 60, 60) + b"\x01c" + struct.pack(">QB", 7, 0) + b"\x02ex\x03key"


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def delivery(channel: int, properties: Properties, body: bytes) -> bytes:
    """The frames of a delivery: those of a publish, but for their first."""
    sent = encode_publish(channel, "ex", "key", properties, body, 4096)
    (length,) = struct.unpack_from(">I", sent, 3)
    return frame(1, channel, _DELIVER) + sent[8 + length :]


PARCELS = [
    Parcel("c", "proposer-1", "d", 3, (sample,))
    for sample in SAMPLES
    if len(sample.to_json()) < 20_000
]
DELIVERIES = [
    delivery(1 + number % 3, encoded.properties, encoded.body)
    for number, parcel in enumerate(PARCELS)
    for encoded in encode(parcel)
    if len(encoded.body) < 2_000
]
KINDS = sorted({encoded.properties.type for parcel in PARCELS for encoded in encode(parcel)})
LOOP = asyncio.new_event_loop()
"""Never runs; a reader of a stream wants one."""


def split(stream: bytes, sizes: list[int]) -> tuple[list[AmqpMessage], bool]:
    """What is delivered, and whether the stream was refused, if it arrives in such pieces."""
    found: list[AmqpMessage] = []
    splitter = FrameSplitter(asyncio.StreamReader(loop=LOOP), LOOP, 1024 * 1024)
    try:
        splitter.on_delivery = found.append
        splitter.on_return = found.append
        at, turn = 0, 0
        while at < len(stream):
            size = sizes[turn % len(sizes)]
            splitter.data_received(stream[at : at + size])
            at, turn = at + size, turn + 1
    except MalformedFrame:
        return found, True
    return found, False


pieces = st.lists(st.integers(5, 2_000), min_size=1, max_size=5)
deliveries = st.lists(st.sampled_from(DELIVERIES), min_size=1, max_size=4)
damages = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 6), st.binary(max_size=6)),
    max_size=4,
)


@given(deliveries, pieces, damages)
def test_the_splitter_takes_frames_or_refuses_them_however_they_arrive(
    sent: list[bytes], sizes: list[int], damages: list[tuple[float, int, bytes]]
) -> None:
    """Given a stream with other bytes than a broker sends, then it raises `MalformedFrame` and
    nothing else, and the pieces in which it arrives make no difference.
    """
    stream = b"".join(sent)
    for where, removed, added in damages:
        at = 1 + int(where * (len(stream) - 1))
        stream = stream[:at] + added + stream[at + removed :]

    whole, refused = split(stream, [len(stream)])
    piecemeal, also = split(stream, sizes)

    assert (piecemeal, also) == (whole, refused)
    if not damages:
        assert not refused
        assert len(whole) == len(sent)
    for message in whole:
        if message.properties is not None:
            decoded(message.properties, message.body)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.binary(max_size=60)), max_size=9)
)
def test_the_splitter_survives_frames_in_any_order(frames: list[tuple[int, int, bytes]]) -> None:
    prefixed = [
        frame(kind, channel, (_DELIVER if kind == 1 and payload[:1] < b"\x80" else b"") + payload)
        for kind, channel, payload in frames
    ]
    split(frame(1, 1, _DELIVER) + b"".join(prefixed), [11])


def decoded(properties: Properties, body: bytes) -> Parcel | TimerMessage | None:
    """The message, or `None` if it was refused."""
    try:
        return decode(properties, body)
    except (Undecodable, NewerWireVersion):
        return None


values: st.SearchStrategy[Any] = st.one_of(
    texts, st.integers(-(2**63), 2**63 - 1), st.booleans(), st.just(1), st.just("c")
)
headers = st.dictionaries(
    st.sampled_from(["wire", "cluster", "disk", "incarnation", "sha256", "manifest", "x"]),
    values,
)


@given(st.data())
def test_a_message_is_decoded_or_refused(data: st.DataObject) -> None:
    """Given a message of a node with other headers, type or body, then nothing but a refusal is
    raised; what is decoded can be encoded, and is then decoded to the same.
    """
    (encoded, *_) = encode(data.draw(st.sampled_from(PARCELS)))
    body, about = encoded.body, encoded.properties
    match data.draw(st.integers(0, 5)):
        case 0:
            body = data.draw(st.binary(max_size=80))
        case 1:
            cut = data.draw(st.integers(0, len(body)))
            body = body[:cut] + data.draw(st.binary(max_size=3)) + body[cut + 1 :]
        case 2 if body[:1] == b"[":
            body = json.dumps(data.draw(garbled(json.loads(body)))).encode()
        case 3:
            about = about._replace(headers={**about.headers, **data.draw(headers)})
        case 4:
            kind = data.draw(texts | st.sampled_from([*KINDS, "timer", "ping"]))
            about = about._replace(type=kind)
        case _:
            about = about._replace(app_id=data.draw(texts))

    found = decoded(about, body)

    if isinstance(found, Parcel) and found.messages:
        again = [decode(each.properties, each.body) for each in encode(found)]
        assert again == [found]
