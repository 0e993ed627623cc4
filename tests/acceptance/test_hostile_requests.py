"""Small requests that are expensive to serve, sent to sixteen processes of little memory."""

import asyncio
import collections
import contextlib
import json
import random
import resource
import secrets
import time
from typing import Any

import pytest

from chaos.cluster.local import LocalCluster
from chaos.load.http1 import Connection
from tests.acceptance.conftest import Figure, Length
from tests.fuzz.commands import REFUSALS, hostile

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(300)]

MEMORY_BYTES = 512 * 1024 * 1024
CLIENTS = 6
KILLED = ("store-1", "learner-1", "acceptor-2", "proposer-1")


def limit_memory(cluster: LocalCluster) -> None:
    """Have every node's allocations fail beyond the limit (setrlimit(2), RLIMIT_DATA)."""
    for name in cluster.nodes:
        process_id = cluster.process_id(name)
        if process_id is not None:
            resource.prlimit(process_id, resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))


def equal_stores(cluster: LocalCluster) -> bool:
    nodes = [node for node in cluster.survey()["nodes"] if node["role"] in ("store", "learner")]
    return (
        all(node["seen"] and node["age_ms"] < 5_000 for node in nodes)
        and len({(node["applied"], node["state_hash"]) for node in nodes}) == 1
    )


async def test_hostile_transactions_cost_no_node_much_and_leave_equal_replicas(
    cluster: LocalCluster, figure: Figure, length: Length
) -> None:
    # Given nodes that may have 512 MiB each, and clients that send the most expensive requests,
    limit_memory(cluster)
    seed = secrets.randbits(32)
    ends = time.monotonic() + length.pick(12, 120)
    statuses: collections.Counter[int] = collections.Counter()
    slowest_s = 0.0

    async def client(number: int) -> None:
        nonlocal slowest_s
        dice = random.Random(f"{seed}/{number}")
        connection = Connection.to(cluster.url)
        while time.monotonic() < ends:
            body = json.dumps({"steps": hostile(dice)}).encode()
            began = time.monotonic()
            reply = await connection.request(
                "POST", "/v1/transactions", body, "content-type: application/json\r\n"
            )
            slowest_s = max(slowest_s, time.monotonic() - began)
            statuses[reply.status] += 1
        connection.close()

    # when nodes are killed amid it and start again,
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(number))
        for name in KILLED:
            await asyncio.sleep(length.pick(2, 20))
            await asyncio.to_thread(cluster.kill, name)
            cluster.start_node(name)
            limit_memory(cluster)

    # then each request was done or refused in bounded time, and no node needed more than it has,
    summary: Any = f"seed {seed}: {dict(sorted(statuses.items()))}, slowest {slowest_s:.1f} s"
    assert statuses[200], summary
    assert set(statuses) <= {200, *REFUSALS}, summary
    assert slowest_s < 12, summary
    cluster.check_alive()
    peak_kib = max(cluster.vm_hwm_kib(name) for name in cluster.nodes)
    assert peak_kib * 1024 < MEMORY_BYTES, summary

    # and all replicas are equal, also after all of them were killed at once, and take writes.
    for again in (False, True):
        if again:
            for name in cluster.nodes:
                await asyncio.to_thread(cluster.kill, name)
            await asyncio.to_thread(cluster.start)
            limit_memory(cluster)
        await asyncio.to_thread(
            cluster.wait_until, lambda: equal_stores(cluster), "all replicas are equal"
        )
        connection = Connection.to(cluster.url)
        for path in ("all", "copy", "b", "next"):
            with contextlib.suppress(ConnectionError):
                await connection.request("DELETE", f"/v1/directories/{path}?recursive=true")
        assert (await connection.request("PUT", "/v1/files/after", b"x")).status in (200, 201)
        connection.close()
    figure(f"{summary}; no process had more than {peak_kib // 1024} MiB")
