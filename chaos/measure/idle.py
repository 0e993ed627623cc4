"""What a cluster costs without any requests.

::

    python -m chaos.measure.idle --seconds 600

measures the cluster in `./synod-local` or, if there is none, one of its own: the processor time of
each node and, separately, of the broker; their peak memory; and whether any queue grows.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aio_pika
import aiormq

from broker.delay_levels import DELAYS_MS
from broker.topology import Topology
from broker.transport import has_bulk_lane
from chaos.cluster.local import DEFAULT_FOLDER, Description, LocalCluster
from chaos.cluster.processes import ProcessFailed, cpu_seconds, session_members
from chaos.cluster.rabbitmq import BrokerFailedError

PART_OF_A_CORE_MAX = 0.25
GROWTH_MESSAGES_MAX = 100
"""A queue that grows holds more than this many messages more after ten minutes. Delayed messages
come and go: each timer of each node has one under way."""


def node_queues(cluster: LocalCluster) -> list[str]:
    """The queues that nodes consume."""
    topology = Topology(cluster.name)
    bulk = [topology.bulk_queue(name) for name in cluster.nodes if has_bulk_lane(name)]
    return [*(topology.node_queue(name) for name in cluster.nodes), *bulk]


def delay_queues(cluster: LocalCluster) -> list[str]:
    """The queues of delayed messages; one that no timer has used yet does not exist."""
    topology = Topology(cluster.name)
    return [topology.delay(delay_ms) for delay_ms in DELAYS_MS]


async def waiting(cluster: LocalCluster, queues: Sequence[str]) -> dict[str, int]:
    """How many messages are ready in each of the `queues` that exist."""
    found = {}
    async with await aio_pika.connect(cluster.broker_url, timeout=10) as connection:
        channel = await connection.channel()
        for name in queues:
            try:
                declared = await channel.declare_queue(name, passive=True)
            except aiormq.exceptions.ChannelNotFoundEntity:
                channel = await connection.channel()
                continue
            found[name] = declared.declaration_result.message_count or 0
    return found


@dataclass(frozen=True)
class Idle:
    """The measurements. Parts are of one core."""

    seconds: float
    part_of_a_core: float
    by_node: dict[str, float]
    broker_part_of_a_core: float
    growth_messages: dict[str, int]
    """By queue, where it is not 0."""
    peak_kib: dict[str, int]

    @property
    def faults(self) -> list[str]:
        """What exceeds its limit."""
        found = [
            f"{queue} grew by {growth} messages"
            for queue, growth in self.growth_messages.items()
            if growth > GROWTH_MESSAGES_MAX
        ]
        if self.part_of_a_core >= PART_OF_A_CORE_MAX:
            found.append(f"the nodes use {self.part_of_a_core:.1%} of a core")
        return found


async def measure(cluster: LocalCluster, seconds: float) -> Idle:
    """Measure a cluster for a time without sending it requests."""
    topology = Topology(cluster.name)
    queues = [*node_queues(cluster), *delay_queues(cluster), topology.quarantine_queue]
    before = await waiting(cluster, queues)
    used = {name: cluster.cpu_seconds(name) for name in cluster.nodes}
    broker_used = _broker_cpu_seconds(cluster)
    began = time.monotonic()
    await asyncio.sleep(seconds)
    seconds = time.monotonic() - began
    parts = {name: (cluster.cpu_seconds(name) - used[name]) / seconds for name in cluster.nodes}
    broker_part = (_broker_cpu_seconds(cluster) - broker_used) / seconds
    after = await waiting(cluster, queues)
    growth = {name: count - before.get(name, 0) for name, count in after.items()}
    return Idle(
        seconds=seconds,
        part_of_a_core=sum(parts.values()),
        by_node=parts,
        broker_part_of_a_core=broker_part,
        growth_messages={name: count for name, count in growth.items() if count},
        peak_kib={name: cluster.vm_hwm_kib(name) for name in cluster.nodes},
    )


def _broker_cpu_seconds(cluster: LocalCluster) -> float:
    """The processor time of a private broker and of the helpers in its session; else 0."""
    leader = cluster.broker.process_id if cluster.broker is not None else None
    return 0.0 if leader is None else sum(map(cpu_seconds, session_members(leader)))


# ── The command ───────────────────────────────────────────────────────────────


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit code 1 if the cluster costs too much."""
    parser = argparse.ArgumentParser(prog="python -m chaos.measure.idle")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, metavar="DIR")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        with _cluster(options.folder) as cluster:
            idle = asyncio.run(measure(cluster, options.seconds))
    except (BrokerFailedError, ProcessFailed) as error:
        print(f"chaos.measure.idle: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(idle.__dict__ | {"faults": idle.faults}, indent=2))
    else:
        _print(idle)
    return 1 if idle.faults else 0


@contextlib.contextmanager
def _cluster(folder: Path) -> Iterator[LocalCluster]:
    if LocalCluster.exists(folder):
        cluster = LocalCluster(folder, outlives=True)
        if cluster.ready():
            yield cluster
            return
    with (
        tempfile.TemporaryDirectory(prefix="synod-idle-") as own,
        LocalCluster(Path(own), Description.mint()) as cluster,
    ):
        yield cluster


def _print(idle: Idle) -> None:
    for name, part in idle.by_node.items():
        print(f"{name:12} {part:7.2%} {idle.peak_kib[name] // 1024:5} MiB")
    print(f"{'all nodes':12} {idle.part_of_a_core:7.2%} of a core over {idle.seconds:.0f} s")
    print(f"{'broker':12} {idle.broker_part_of_a_core:7.2%} of a core")
    for queue, growth in idle.growth_messages.items():
        print(f"{queue}: {growth:+} messages")
    for fault in idle.faults:
        print(f"FAULT: {fault}")


if __name__ == "__main__":
    sys.exit(main())
