"""What tracing costs, by paired runs on one cluster.

::

    python -m chaos.trace_cost --pairs 5 --seconds 6

Each pair writes for some seconds with recording off and for as long with it on, in turns first;
what is compared is the processor time of all processes for one write, and the writes a second.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.options import role_of
from chaos.load import Load, run_for
from chaos.local import Description, LocalCluster
from chaos.processes import ProcessFailed, cpu_seconds, session_members
from chaos.rabbitmq import BrokerFailedError


@dataclass(frozen=True)
class Run:
    """One run of the load in one mode."""

    writes_per_s: float
    cpu_ms_per_write: float
    cpu_s: dict[str, float]
    """By role, over the run."""


def _switch(cluster: LocalCluster, mode: str) -> None:
    request = urllib.request.Request(
        f"{cluster.url}/v1/traces", json.dumps({"mode": mode}).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=10):
        pass

    def switched() -> bool:
        said: str = json.loads(cluster.ask("/v1/traces").body)["mode"]
        return said == mode

    cluster.wait_until(switched, f"recording is {mode}")


def _cpu_s(cluster: LocalCluster) -> defaultdict[str, float]:
    used: defaultdict[str, float] = defaultdict(float)
    for name in cluster.nodes:
        used[role_of(name)] += cluster.cpu_seconds(name)
    leader = cluster.broker.process_id if cluster.broker is not None else None
    if leader is not None:
        used["broker"] = sum(map(cpu_seconds, session_members(leader)))
    return used


def measure(cluster: LocalCluster, mode: str, clients: int, seconds: float) -> Run:
    """Write for some seconds in one mode."""
    _switch(cluster, mode)
    before = _cpu_s(cluster)
    load = Load(cluster.url, clients=clients)
    summary = asyncio.run(run_for(load, seconds))
    writes = len(load.of_fate("acknowledged"))
    if not writes:
        raise ProcessFailed(f"no write was acknowledged: {summary}")
    after = _cpu_s(cluster)
    used_s = {role: after[role] - before[role] for role in after}
    return Run(writes / seconds, 1000 * sum(used_s.values()) / writes, used_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.trace_cost", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--mode", choices=("sampled", "all"), default="sampled")
    options = parser.parse_args(arguments)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            LocalCluster(Path(folder), Description.mint()) as cluster,
        ):
            measure(cluster, "off", options.clients, options.seconds)  # Warms all processes up.
            ratios = _pairs(cluster, options)
    except (ProcessFailed, BrokerFailedError, TimeoutError) as error:
        print(f"chaos.trace_cost: {error}", file=sys.stderr)
        return 1
    print(
        f"{options.mode} costs x{statistics.median(ratios):.3f} of the processor time of a write "
        f"(median of {len(ratios)} pairs; {min(ratios):.3f} to {max(ratios):.3f})"
    )
    return 0


def _pairs(cluster: LocalCluster, options: argparse.Namespace) -> list[float]:
    ratios = []
    for pair in range(options.pairs):
        modes = ("off", options.mode) if pair % 2 == 0 else (options.mode, "off")
        runs = {m: measure(cluster, m, options.clients, options.seconds) for m in modes}
        off, on = runs["off"], runs[options.mode]
        ratios.append(on.cpu_ms_per_write / off.cpu_ms_per_write)
        print(
            f"pair {pair + 1}: off {off.cpu_ms_per_write:.2f} ms and {off.writes_per_s:.0f}/s, "
            f"{options.mode} {on.cpu_ms_per_write:.2f} ms and {on.writes_per_s:.0f}/s, "
            f"x{ratios[-1]:.3f}",
            flush=True,
        )
        by_role = {role: f"{1000 * (on.cpu_s[role] - off.cpu_s[role]):+.0f}" for role in on.cpu_s}
        print(f"        processor time by role, ms more over the run: {by_role}", flush=True)
    return ratios


if __name__ == "__main__":
    sys.exit(main())
