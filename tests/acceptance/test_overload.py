"""Far more requests than the cluster can do: it keeps doing what it can, and refuses the rest."""

import asyncio
import secrets

import pytest

from chaos.bench.cases import CLIENTS_MAX, LoadCase, Mix
from chaos.bench.http_stores import SynodSession
from chaos.bench.loops import run_load
from chaos.bench.recording import LoadResult
from chaos.cluster.local import LocalCluster
from chaos.measure.idle import node_queues, waiting
from tests.acceptance.conftest import Figure
from tests.long import only_long

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(300), only_long]

SIZE_BYTES = 1024
KEYS = [f"{number:04d}" for number in range(1000)]
WRITES = Mix(0, 1)

KEPT_PART_MIN = 0.8
REFUSAL_MS_MAX = 5_000
MEMORY_GROWTH_MIB_MAX = 128
RECOVERED_MS_MAX = 1_000


async def _load(
    cluster: LocalCluster, clients: int, seconds: float, rate: float | None = None
) -> LoadResult:
    folder = f"overload-{secrets.token_hex(4)}"
    case = LoadCase(WRITES, SIZE_BYTES, clients, rate)
    sessions = [SynodSession(cluster.url, SIZE_BYTES, folder) for _ in range(clients)]
    try:
        return await run_load(sessions, case, KEYS, seconds)
    finally:
        for session in sessions:
            session.close()


async def test_three_times_the_peak(cluster: LocalCluster, figure: Figure) -> None:
    # Given the most that closed loops of several widths get done,
    peak = max([(await _load(cluster, clients, 5)).rate for clients in (64, 256, 512)])
    memory_mib = {name: cluster.vm_hwm_kib(name) / 1024 for name in cluster.nodes}
    # when three times as many writes are due as that, through as many connections as there may be,
    loading = asyncio.create_task(_load(cluster, CLIENTS_MAX, 20, rate=3 * peak))
    longest_queue = 0
    while not loading.done():
        await asyncio.wait([loading], timeout=1.0)
        longest_queue = max(longest_queue, *(await waiting(cluster, node_queues(cluster))).values())
    flooded = await loading
    growth_mib = {
        name: cluster.vm_hwm_kib(name) / 1024 - before for name, before in memory_mib.items()
    }
    after = await _load(cluster, 1, 3)
    figure(
        f"peak {peak:.0f} a second; at {3 * peak:.0f} due: {flooded.rate:.0f} done, p50 and p99 "
        f"{flooded.latency_ms.get('p50')} and {flooded.latency_ms.get('p99')} ms from when due; "
        f"{flooded.refused} refused in {flooded.refused_ms}, {flooded.failed} failed, "
        f"{flooded.unsent} never sent, {flooded.problems}; load {flooded.load_cores} cores; "
        f"longest queue {longest_queue}; most memory more {max(growth_mib.values()):.0f} MiB "
        f"({max(growth_mib, key=lambda name: growth_mib[name])}); "
        f"one client afterwards p50 {after.latency_ms['p50']} ms"
    )
    # then nearly all of the peak is still done, and the rest is refused at once, to come back.
    assert flooded.rate >= KEPT_PART_MIN * peak
    assert flooded.refused > 0
    assert flooded.refused_without_retry_after == 0
    assert flooded.refused_ms["p99"] <= REFUSAL_MS_MAX
    assert flooded.failed == 0
    # Nothing has grown without bound, and it is over when the load is.
    assert max(growth_mib.values()) <= MEMORY_GROWTH_MIB_MAX
    assert after.refused == after.failed == 0
    assert after.latency_ms["p50"] <= RECOVERED_MS_MAX
