"""What a write costs in messages, commits and bytes, which is the same on every machine.

The figures of `COSTS` are exact. A change that makes writes cheaper or dearer changes them in the
same commit, where a reader sees the difference. Every write has contents of 1 KiB.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any
from unittest.mock import patch

import pytest

from actors.effects import Blob, Record
from actors.messages import Accept
from actors.options import role_of
from actors.paxos.votes import unread
from actors.values import Frozen
from broker.codec import encode
from broker.transport import Parcel
from chaos.simulator.machine import Machine, MachineObserver
from chaos.simulator.network import Conditions
from chaos.simulator.parcels import Envelopes
from chaos.simulator.world import World
from tests.worlds import put

WRITES_PER_CLIENT = {1: 256, 64: 16}
AFTERWARDS_MS = 2_000
"""In this time journals get what was left for later, and heartbeats are few against the rest."""

CONTENT = bytes(range(256)) * 4

COSTS: dict[int, dict[str, float]] = {
    1: {
        "published": 15.43,
        "delivered": 27.23,
        "bytes_delivered": 23191.42,
        "models_validated": 68.02,
        "commits": 8.2,
        "rows_journaled": 23.72,
        "bytes_journaled": 17266.57,
        "ms": 3.0,
    },
    64: {
        "published": 2.6,
        "delivered": 3.96,
        "bytes_delivered": 20230.29,
        "models_validated": 31.61,
        "commits": 0.9,
        "rows_journaled": 8.23,
        "bytes_journaled": 16074.88,
        "ms": 0.05,
    },
}
"""For each write, by the number of clients, each of which sends one write after the other."""


class Meter(MachineObserver):
    """Counts what crosses the broker, and what journals commit, while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.counts: Counter[str] = Counter()

    def add(self, **counts: int) -> None:
        """Add to the counts, if the meter is on."""
        if self.on:
            self.counts.update(counts)

    def parcel(self, receivers: Collection[str], parcel: Envelopes) -> None:
        """Count a parcel: once as it is published, and as it is delivered for every receiver."""
        to_queues = len(receivers)
        first = parcel[0]
        messages = tuple(envelope.message for envelope in parcel)
        sent = Parcel(first.cluster, first.sender, first.disk, first.incarnation, messages)
        for encoded in encode(sent):
            self.add(
                published=1, delivered=to_queues, bytes_delivered=to_queues * len(encoded.body)
            )
        for receiver in receivers:
            read = map(_read_for_votes, messages) if role_of(receiver) == "acceptor" else messages
            self.add(models_validated=sum(1 for message in read for _ in _models(message)))

    def committed(self, machine: Machine, records: list[Record], blobs: list[Blob]) -> None:
        """Count a commit."""
        rows = [*records, *blobs]
        size_bytes = sum(len(data or b"") for _, data in rows)
        self.add(commits=1, rows_journaled=len(rows), bytes_journaled=size_bytes)


def _read_for_votes(message: Any) -> Any:
    """What an acceptor reads of a message: nothing of a batch."""
    if isinstance(message, Accept):
        return message.model_copy(update={"value": unread(message.value)})
    return message


def _models(value: Any) -> Iterator[Frozen]:
    """A message and all models in it, each of which a reader validates."""
    if isinstance(value, Frozen):
        yield value
        value = tuple(getattr(value, name) for name in type(value).model_fields)
    if isinstance(value, tuple):
        for item in value:
            yield from _models(item)


def _per_write(clients: int) -> dict[str, float]:
    meter = Meter()
    world = World(1, observer=meter)
    world.network.conditions = Conditions(least_us=500, most_us=500)
    publish = world.network.publish

    def measured(sender: str, to: str, parcel: Envelopes) -> None:
        meter.parcel(world.network.receivers.get(to, ()), parcel)
        publish(sender, to, parcel)

    with patch.object(world.network, "publish", measured):
        world.start()
        world.ready()
        for number in range(2 * clients):  # Estimates of delays settle.
            world.done(put(f"before/{number}", CONTENT))
        meter.on = True
        began_us = world.now_us
        writes = clients * WRITES_PER_CLIENT[clients]
        _write_at_once(world, clients, writes)
        took_us = world.now_us - began_us
        world.run(AFTERWARDS_MS)
    totals = {**meter.counts, "ms": took_us / 1_000}
    return {name: round(total / writes, 2) for name, total in totals.items()}


def _write_at_once(world: World, clients: int, writes: int) -> None:
    """Each client begins its next write when the one before is answered."""
    left = iter(range(writes))
    waiting: set[int] = set()

    def begin() -> None:
        for number in left:
            waiting.add(world.write(put(f"file/{number}", CONTENT)))
            return

    for _ in range(clients):
        begin()
    while waiting:
        world.run_until(lambda: bool(waiting & world.answers.keys()), 30_000, 1, "an answer")
        for token in sorted(waiting & world.answers.keys()):
            waiting.remove(token)
            answer = world.answers.pop(token)
            assert type(answer).__name__ == "WriteDecided", answer
            begin()


@pytest.mark.parametrize("clients", COSTS)
def test_a_write_costs_exactly_so_much(clients: int) -> None:
    assert _per_write(clients) == COSTS[clients]
