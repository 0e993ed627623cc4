"""Every message as the release that began wire version 1 wrote it, in `golden/wire-1.jsonl`.

Nodes of two releases run side by side during an upgrade, so within a version a release must write
and read the same bytes, and declare the same exchanges and queues
(docs/decisions/0024-versions.md). The record is made once for each version::

    python -m tests.broker.wire_record
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from actors.effects import TimerKey
from actors.messages import ChunkData, ChunkPut
from broker.amqp_frames import Properties
from broker.codec import WIRE_VERSION, Encoded, decode, encode, encode_timers
from broker.topology import QueueKind, Topology
from broker.transport import Lane, Parcel, TimerMessage
from tests.broker.samples import OF_MEMBERSHIP, OF_PRINCIPALS, SAMPLES

RECORD = Path(__file__).with_name("golden") / f"wire-{WIRE_VERSION}.jsonl"
TIMERS = TimerMessage("d1", 3, ((TimerKey("vote", "17"), 4), (TimerKey("beat"), 5)))


def record() -> Iterator[str]:
    """A line for each message, with what a node publishes, and one for each kind of queues."""
    for sample in (*SAMPLES, *OF_PRINCIPALS, *OF_MEMBERSHIP):
        message = sample
        if isinstance(sample, ChunkPut | ChunkData):
            message = sample.model_copy(update={"data": bytes(range(0, 256, 5))})
        (encoded,) = encode(Parcel("c1", "store-1", "d1", 3, (message,)))
        yield line_of(encoded)
    yield line_of(encode_timers("store-1", TIMERS))
    for kind in get_args(QueueKind):
        yield line_of_topology(Topology("c", kind))


def repeated(line: str) -> str:
    """What this version writes of what it reads in the line of a message."""
    read = json.loads(line)
    body = base64.b64decode(read["body"]) if read["lane"] == Lane.BULK else read["body"].encode()
    properties = Properties(
        read["type"],
        "store-1",
        "id",
        0,
        read["headers"],
        read["content_type"],
        read["correlation_id"],
    )
    item = decode(properties, body)
    if isinstance(item, TimerMessage):
        return line_of(encode_timers("store-1", item))
    (encoded,) = encode(item)
    return line_of(encoded)


def line_of(encoded: Encoded) -> str:
    """A message, without the number and the time that each has for itself."""
    properties = encoded.properties
    is_bulk = encoded.lane == Lane.BULK
    return _json(
        lane=encoded.lane,
        type=properties.type,
        headers=properties.headers,
        content_type=properties.content_type,
        correlation_id=properties.correlation_id,
        body=base64.b64encode(encoded.body).decode() if is_bulk else encoded.body.decode(),
    )


def line_of_topology(topology: Topology) -> str:
    """What nodes declare together, and what a node's former release has declared for it."""
    session = topology.of_session("store-1", "suffix")
    return _json(
        queues=topology.queues,
        exchanges=topology.exchanges,
        node=[session.control_queue, topology.node_arguments(topology.control_bytes_max)],
        bulk=[session.bulk_queue, topology.node_arguments(topology.bulk_bytes_max)],
        delay=[session.delay_queue(500), session.delay_arguments(500)],
        delay_route=session.delay_route(500),
        quarantine=[topology.quarantine_queue, topology.quarantine_arguments()],
    )


def _json(**members: Any) -> str:
    return json.dumps(members, ensure_ascii=False)


if __name__ == "__main__":
    RECORD.write_text("".join(f"{line}\n" for line in record()), encoding="utf-8")
