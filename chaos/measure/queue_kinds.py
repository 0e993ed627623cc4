"""What each kind of queues costs on a cluster of RabbitMQ nodes, and what a dead node costs.

::

    python -m chaos.measure.queue_kinds --kills 3

starts three RabbitMQ nodes and sixteen processes for each kind, one after the other, and prints
throughput, what the brokers pay for it, and the longest time without an acknowledged write after
each of so many brokers was killed, and after one was frozen for a while.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from broker.topology import QueueKind
from chaos.cluster.local import Description, LocalCluster
from chaos.cluster.processes import ProcessFailed, cpu_seconds, written_bytes
from chaos.cluster.rabbitmq import BrokerFailedError, PrivateBroker
from chaos.load.writers import UNKNOWN, Load

_WARM_UP_S = 2.0
_DEAD_S = 4.0
_FROZEN_S = 12.0


@dataclass
class KindFigures:
    """The measurements of one kind."""

    kind: QueueKind
    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    cpu_s_per_1000: list[float] = field(default_factory=list)
    """The brokers' processor time."""
    disk_bytes_per_write: list[float] = field(default_factory=list)
    """What the brokers wrote to their disks."""
    kill_gaps_s: list[float] = field(default_factory=list)
    freeze_gap_s: float = 0.0
    not_acknowledged: int = 0
    unknown: int = 0
    lost: list[str] = field(default_factory=list)

    def row(self) -> str:
        """A row of the table."""
        median = statistics.median
        kills = ", ".join(f"{gap:.1f}" for gap in self.kill_gaps_s) or "-"
        return (
            f"{self.kind:8} {median(self.per_second):9.0f} {median(self.p50_ms):8.1f} ms"
            f" {median(self.cpu_s_per_1000):7.2f} s {median(self.disk_bytes_per_write) / 1024:7.1f}"
            f" KiB  {kills} s  {self.freeze_gap_s:.1f} s  {self.not_acknowledged}"
            f" ({self.unknown} unknown)  {len(self.lost)}"
        )


HEADING = "queues    writes/s      p50   CPU/1000  disk/write  gaps: killed  frozen  not done  lost"


async def measure(
    kind: QueueKind, folder: Path, *, rounds: int, seconds: float, kills: int
) -> KindFigures:
    """Measure one kind on a cluster of its own."""
    description = Description.mint(brokers=3, settings={"queues": kind})
    cluster = LocalCluster(folder, description)
    figures = KindFigures(kind)
    try:
        await asyncio.to_thread(cluster.start)
        assert cluster.broker_cluster is not None
        brokers = cluster.broker_cluster.brokers
        for number in range(rounds + 1):
            cpu_s, disk = _used(brokers)
            async with Load(cluster.url, clients=8) as load:
                await asyncio.sleep(seconds if number else _WARM_UP_S)
            if number:  # The first one warms up.
                _note_round(figures, load, brokers, cpu_s, disk)
        async with Load(cluster.url, clients=8) as load:
            await _break(cluster, brokers, load, figures, kills)
        figures.not_acknowledged = len(load.attempts) - len(load.of_fate("acknowledged"))
        figures.unknown = len(load.of_fate(UNKNOWN))
        figures.lost = await load.verify()
    finally:
        await asyncio.to_thread(cluster.stop)
    return figures


def _note_round(
    figures: KindFigures,
    load: Load,
    brokers: Sequence[PrivateBroker],
    cpu_before_s: float,
    disk_before: int,
) -> None:
    cpu_s, disk = _used(brokers)
    summary = load.summary()
    writes = summary["acknowledged"]
    figures.per_second.append(summary["per_second"])
    figures.p50_ms.append(summary["latency_ms"]["p50"])
    figures.cpu_s_per_1000.append((cpu_s - cpu_before_s) / writes * 1000)
    figures.disk_bytes_per_write.append((disk - disk_before) / writes)


async def _break(
    cluster: LocalCluster,
    brokers: Sequence[PrivateBroker],
    load: Load,
    figures: KindFigures,
    kills: int,
) -> None:
    for number in range(kills):
        victim = brokers[number % len(brokers)]
        began_ns = await _all_is_well(cluster, load)
        await asyncio.to_thread(victim.kill)
        await asyncio.sleep(_DEAD_S)
        await asyncio.to_thread(victim.start)
        await load.acknowledged_since(time.monotonic_ns(), timeout_s=120)
        figures.kill_gaps_s.append(load.gap_s(began_ns))
    began_ns = await _all_is_well(cluster, load)
    with brokers[0].frozen():
        await asyncio.sleep(_FROZEN_S)
    await load.acknowledged_since(time.monotonic_ns(), timeout_s=120)
    figures.freeze_gap_s = load.gap_s(began_ns)


async def _all_is_well(cluster: LocalCluster, load: Load) -> int:
    """Wait until all brokers and nodes are there and writes are acknowledged; the time then."""
    assert cluster.broker_cluster is not None
    await asyncio.to_thread(cluster.broker_cluster.wait_whole)
    await asyncio.to_thread(cluster.wait_whole)
    await load.acknowledged_since(time.monotonic_ns(), timeout_s=120)
    return time.monotonic_ns()


def _used(brokers: Sequence[PrivateBroker]) -> tuple[float, int]:
    """The processor time and the bytes written of all brokers so far."""
    members = [member for broker in brokers for member in broker.members]
    return sum(map(cpu_seconds, members)), sum(map(written_bytes, members))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit code 1 if a write was lost."""
    parser = argparse.ArgumentParser(prog="python -m chaos.measure.queue_kinds")
    kinds = get_args(QueueKind)
    parser.add_argument("kinds", nargs="*", choices=[*kinds, []], default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args(arguments)
    print(HEADING)
    lost = False
    try:
        for kind in options.kinds or kinds:
            with tempfile.TemporaryDirectory(prefix="synod-queues-") as folder:
                figures = asyncio.run(
                    measure(
                        kind,
                        Path(folder),
                        rounds=options.rounds,
                        seconds=options.seconds,
                        kills=options.kills,
                    )
                )
            print(figures.row(), flush=True)
            for fault in figures.lost:
                print(f"  {fault}")
            lost = lost or bool(figures.lost)
    except (BrokerFailedError, ProcessFailed) as error:
        print(f"chaos.measure.queue_kinds: {error}", file=sys.stderr)
        return 1
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
