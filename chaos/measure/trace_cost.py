"""What tracing costs, by paired runs on one cluster.

::

    python -m chaos.measure.trace_cost --pairs 6 --seconds 8 --rate 40

Each pair makes the same number of writes at the same moments with recording off and with it on, in
alternating order, so that only the recording differs. It compares the processor time of all
processes, the broker's included, and the median time of a write.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.options import role_of
from chaos.cluster.local import Description, LocalCluster
from chaos.cluster.processes import ProcessFailed, cpu_seconds, session_members
from chaos.cluster.rabbitmq import BrokerFailedError
from chaos.load.http1 import Connection

_CONTENT = bytes(1024)


@dataclass(frozen=True)
class LoadRun:
    """One run of the load in one mode."""

    cpu_s: dict[str, float]
    """By role, over the run."""
    median_ms: float

    @property
    def total_s(self) -> float:
        """The processor time of all roles."""
        return sum(self.cpu_s.values())


def _switch(cluster: LocalCluster, mode: str) -> None:
    request = urllib.request.Request(
        f"{cluster.url}/v1/traces",
        json.dumps({"mode": mode}).encode(),
        {"content-type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=10):
        pass

    def switched() -> bool:
        said: str = json.loads(cluster.ask("/v1/traces").body)["mode"]
        return said == mode

    cluster.wait_until(switched, f"recording is {mode}")


def cpu_by_role(cluster: LocalCluster) -> defaultdict[str, float]:
    """The processor time that all processes of each role have taken so far, in seconds."""
    used: defaultdict[str, float] = defaultdict(float)
    for name in cluster.nodes:
        used[role_of(name)] += cluster.cpu_seconds(name)
    leader = cluster.broker.process_id if cluster.broker is not None else None
    if leader is not None:
        used["broker"] = sum(map(cpu_seconds, session_members(leader)))
    return used


def measure(cluster: LocalCluster, mode: str, rate: float, seconds: float) -> LoadRun:
    """Write `rate` times a second in one mode. Raises `ProcessFailed` if a write fails."""
    _switch(cluster, mode)
    before = cpu_by_role(cluster)
    times_s = asyncio.run(write_steadily(cluster.url, rate, seconds))
    after = cpu_by_role(cluster)
    used_s = {role: after[role] - before[role] for role in after}
    return LoadRun(used_s, 1000 * statistics.median(times_s))


async def write_steadily(url: str, rate: float, seconds: float) -> list[float]:
    """Write at fixed moments, whether or not earlier writes have ended; how long each took.

    Raises `ProcessFailed` if a write is refused.
    """
    began_s = time.perf_counter()
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(32):
        idle.put_nowait(Connection.to(url))
    times_s: list[float] = []
    refusals: list[str] = []

    async def write(number: int, connection: Connection) -> None:
        start_s = time.perf_counter()
        reply = await connection.request("PUT", f"/v1/files/cost/{number % 16}", _CONTENT)
        times_s.append(time.perf_counter() - start_s)
        idle.put_nowait(connection)
        if reply.status not in (200, 201):
            refusals.append(f"{reply.status}: {reply.body[:200]!r}")

    async with asyncio.TaskGroup() as group:
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began_s + number / rate - time.perf_counter()))
            group.create_task(write(number, await idle.get()))
    while not idle.empty():
        idle.get_nowait().close()
    if refusals:
        raise ProcessFailed(f"{len(refusals)} writes were refused; the first: {refusals[0]}")
    return times_s


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.measure.trace_cost", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rate", type=float, default=40.0, help="writes a second")
    parser.add_argument("--mode", choices=("sampled", "all"), default="sampled")
    options = parser.parse_args(arguments)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            LocalCluster(Path(folder), Description.mint()) as cluster,
        ):
            measure(cluster, "off", options.rate, options.seconds)  # Warms all processes up.
            ratios = _pairs(cluster, options)
    except (ProcessFailed, BrokerFailedError, TimeoutError) as error:
        print(f"chaos.measure.trace_cost: {error}", file=sys.stderr)
        return 1
    print(
        f"{options.mode} costs x{statistics.median(ratios):.3f} of the processor time "
        f"(median of {len(ratios)} pairs; {min(ratios):.3f} to {max(ratios):.3f})"
    )
    return 0


def _pairs(cluster: LocalCluster, options: argparse.Namespace) -> list[float]:
    ratios = []
    for pair in range(options.pairs):
        modes = ("off", options.mode) if pair % 2 == 0 else (options.mode, "off")
        runs = {m: measure(cluster, m, options.rate, options.seconds) for m in modes}
        off, on = runs["off"], runs[options.mode]
        ratios.append(on.total_s / off.total_s)
        more_ms = {role: f"{1000 * (on.cpu_s[role] - off.cpu_s[role]):+.0f}" for role in on.cpu_s}
        print(
            f"pair {pair + 1}: off {off.total_s:.2f} s, {off.median_ms:.1f} ms a write; "
            f"{options.mode} {on.total_s:.2f} s, {on.median_ms:.1f} ms; x{ratios[-1]:.3f}; "
            f"ms more by role {more_ms}",
            flush=True,
        )
    return ratios


if __name__ == "__main__":
    sys.exit(main())
