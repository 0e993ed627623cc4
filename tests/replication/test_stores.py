"""A store that dies idle, with a pending request, or after it granted the write."""

import asyncio
import time
from pathlib import Path

import pytest

from actors.calls import WriteDecided
from tests.replication.cluster import Stop, eventually, memory_cluster
from tests.worlds import put

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def test_an_idle_store_that_dies_leaves_the_view_and_writes_go_on(tmp_path: Path) -> None:
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        await cluster.done(put("a", b"1"))
        await cluster.kill("store-2")

        await eventually(lambda: cluster.epoch >= 1)

        members = [store.name for store in cluster.actor("learner-1").view.stores]
        assert members == ["store-1", "store-3"]
        began = time.monotonic()
        await cluster.done(put("a", b"2"), retry=False)
        assert time.monotonic() - began < 1.0
        await cluster.start("store-2")
        await cluster.settled()  # Waits until the view has all stores again.
        assert cluster.epoch >= 2


async def test_a_write_that_a_dying_store_had_not_prepared_is_aborted_by_timeout(
    tmp_path: Path,
) -> None:
    """Given a store that stops before it receives the prepare, then the client learns of it."""
    stop = Stop("receive", "txn.prepare")
    async with memory_cluster(tmp_path, {"store-2": stop}) as cluster:
        await cluster.done(put("a", b"1"))
        stop.armed = True
        write = asyncio.create_task(cluster.write(put("a", b"2")))
        await stop.reached.wait()
        await cluster.kill("store-2")

        answer = await write

        assert isinstance(answer, WriteDecided)
        assert answer.outcome.status == "aborted"
        assert "store-2 did not vote within" in answer.outcome.detail
        assert await cluster.version("a") == 1
        assert all(not cluster.actor(name).prepared for name in ("store-1", "store-3"))
        await cluster.done(put("a", b"3"), retry=False)
        assert cluster.epoch == 1
        await cluster.start("store-2")
        await cluster.settled()
        assert cluster.actor("store-2").state.entries["a"].version == 2


async def test_the_gateways_own_retry_finds_the_view_without_the_dead_store(tmp_path: Path) -> None:
    async with memory_cluster(tmp_path) as cluster:
        await cluster.done(put("a", b"1"))
        await cluster.kill("store-3")

        answer = await cluster.done(put("a", b"2"), retry=True)

        assert answer.retried
        assert cluster.epoch == 1


async def test_a_store_that_dies_after_its_vote_learns_the_outcome_before_it_serves_a_read(
    tmp_path: Path,
) -> None:
    stop = Stop("send", "txn.vote", side="after")
    async with memory_cluster(tmp_path, {"store-2": stop}) as cluster:
        await cluster.done(put("a", b"1"))
        stop.armed = True
        write = asyncio.create_task(cluster.write(put("a", b"2")))
        await stop.reached.wait()
        await cluster.kill("store-2")

        answer = await write

        assert isinstance(answer, WriteDecided)
        assert answer.outcome.status == "done"
        await cluster.start("store-2")
        for _ in range(30):
            reply = await cluster.read("a")
            assert reply.reply.entry is not None
            assert reply.reply.entry.slot >= answer.outcome.slot, reply.store
        await cluster.settled()


async def test_strict_writes_are_refused_with_the_reason_until_the_store_is_back(
    tmp_path: Path,
) -> None:
    async with memory_cluster(tmp_path, rowa="strict", heartbeat_ms=300) as cluster:
        await cluster.done(put("a", b"1"))
        await cluster.kill("store-2")
        await eventually(lambda: cluster.epoch >= 1)

        answer = await cluster.write(put("a", b"2"))

        assert answer.outcome.status == "aborted"
        assert "writes need 3 whole stores" in answer.outcome.detail
        assert await cluster.version("a") == 1
        await cluster.start("store-2")
        await cluster.settled()
        await cluster.done(put("a", b"3"))


async def test_too_few_stores_refuse_writes_and_serve_reads(tmp_path: Path) -> None:
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        await cluster.done(put("a", b"1"))
        await cluster.kill("store-2")
        await cluster.kill("store-3")
        await eventually(lambda: len(cluster.actor("learner-1").view.stores) == 1)

        answer = await cluster.write(put("a", b"2"))

        assert answer.outcome.status == "aborted"
        assert "writes need 2 whole stores, but the view has 1 (store-1)" in answer.outcome.detail
        assert await cluster.version("a") == 1
        await cluster.start("store-2")
        await eventually(lambda: len(cluster.actor("learner-1").view.stores) == 2)
        await cluster.done(put("a", b"3"))
