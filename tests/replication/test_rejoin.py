"""A node that returns after a long absence, or with an empty disk, copies what it lacks."""

import asyncio
import functools
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.calls import Call, ChangeBegun, Fetch, FetchedChunk, MemberChange, Survey, WriteDecided
from actors.store.chunks import RELEASED_GRACE_MS
from actors.values import Chunked, PutFile
from broker.journal import Journal
from broker.maintenance import MaintenanceOptions
from tests.replication.cluster import MemoryCluster, eventually, memory_cluster
from tests.worlds import put

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KIB = 1024


async def _write_on(cluster: MemoryCluster, stop: asyncio.Event, writer: int) -> int:
    """Overwrite files until `stop`; how many writes were acknowledged."""
    count = 0
    while not stop.is_set():
        await cluster.done(put(f"w/{writer}/{count % 7}", b"%d" % count))
        count += 1
    return count


async def _big_file(cluster: MemoryCluster, path: str, chunks: int) -> tuple[str, ...]:
    names = [
        await cluster.upload(bytes([number]) * 64 * KIB + path.encode()) for number in range(chunks)
    ]
    content = Chunked(size=1, sha256="0" * 64, chunks=tuple(names))
    await cluster.done(PutFile(path=path, content=content))
    return tuple(names)


async def _truncated(cluster: MemoryCluster) -> None:
    """Wait until the log alone would not let a replica catch up."""
    learners = [n for n in cluster.options.names("learner") if n in cluster.hosts]
    await eventually(
        lambda: (
            all(cluster.actor(name).log.first_kept > 5 for name in learners)
            and cluster.actor("acceptor-1").truncated_below > 5
        )
    )


@pytest.mark.parametrize("lost_disk", [False, True], ids=["long away", "empty disk"])
async def test_a_store_rejoins_while_clients_write(tmp_path: Path, lost_disk: bool) -> None:
    async with memory_cluster(tmp_path, heartbeat_ms=300, log_bytes=0) as cluster:
        names = await _big_file(cluster, "big", 8)
        await cluster.kill("store-2")
        more = await _big_file(cluster, "more", 8)
        if lost_disk:
            shutil.rmtree(tmp_path / "store-2")
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(_write_on(cluster, stop, n)) for n in range(8)]
            await _truncated(cluster)
            await cluster.start("store-2")
            await eventually(lambda: cluster.actor("store-2").held.membership is not None)
            stop.set()

        await cluster.settled()
        store = cluster.actor("store-2")
        assert store.counters["snapshots_installed"] >= 1
        # A prepare in its queue has asked for some of them, which does not count as copying.
        assert store.counters["chunks_copied"] >= (12 if lost_disk else 1)
        journal = cluster._journals["store-2"]
        assert all(journal.read_blob(name) for name in (*names, *more))
        total = sum(writer.result() for writer in writers)
        assert total > 50
        entries = store.state.entries
        assert sum(e.version for p, e in entries.items() if p.count("/") == 2) == total


async def test_the_last_store_of_the_view_loses_its_disk(tmp_path: Path) -> None:
    """Given a view of one store that lost its disk, then it copies all from the log and others."""
    # Slow enough that a busy machine does not make a store look dead: it might be store-3.
    async with memory_cluster(tmp_path, heartbeat_ms=600) as cluster:
        names = await _big_file(cluster, "big", 4)
        learner = cluster.actor(cluster.coordinator)
        await cluster.kill("store-1")
        await cluster.kill("store-2")
        in_doubt = asyncio.create_task(cluster.write(put("a", b"in doubt")))
        await eventually(lambda: [m.name for m in learner.view.stores] == ["store-3"])
        await cluster.kill("store-3")
        shutil.rmtree(tmp_path / "store-3")
        for name in cluster.options.names("learner"):
            await cluster.restart(name)

        for name in ("store-1", "store-2", "store-3"):
            await cluster.start(name)

        await cluster.done(put("b", b"afterwards"))
        await cluster.settled()
        answer = await in_doubt
        is_done = isinstance(answer, WriteDecided) and answer.outcome.status == "done"
        assert await cluster.version("a") == (1 if is_done else 0)
        journal = cluster._journals["store-3"]
        assert all(journal.read_blob(name) for name in names)


async def test_copying_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Given a store that is killed in the middle of copying, then nothing is copied twice."""
    async with memory_cluster(
        tmp_path, heartbeat_ms=300, log_bytes=0, copy_bytes_per_s=2 * KIB * KIB
    ) as cluster:
        await _big_file(cluster, "big", 40)
        await cluster.kill("store-2")
        shutil.rmtree(tmp_path / "store-2")
        for number in range(8):
            await cluster.done(put("a", b"%d" % number))
        await _truncated(cluster)
        await cluster.start("store-2")
        await eventually(lambda: cluster.actor("store-2").counters["chunks_copied"] >= 10)
        seen = cluster.actor("learner-1")
        await eventually(lambda: cluster.actor("store-2").heartbeat().chunks_missing > 0)
        assert seen.view.member("store-2") is None

        await cluster.restart("store-2")

        held = len(cluster.actor("store-2").chunks.held)
        await cluster.settled()
        assert held >= 10
        assert cluster.actor("store-2").counters["chunks_copied"] == 41 - held


@pytest.mark.parametrize("victim", ["learner-1", "learner-2"])
async def test_a_learner_that_lost_its_disk_copies_the_state(tmp_path: Path, victim: str) -> None:
    async with memory_cluster(tmp_path, heartbeat_ms=300, log_bytes=0) as cluster:
        await cluster.done(put("a", b"1"))
        await cluster.kill(victim)
        shutil.rmtree(tmp_path / victim)
        for number in range(20):
            await cluster.done(put("a", b"%d" % number))
        await eventually(lambda: cluster.actor("acceptor-1").truncated_below > 5)

        await cluster.start(victim)

        await cluster.settled()
        assert cluster.actor(victim).counters["snapshots_installed"] >= 1
        assert cluster.actor(victim).state.entries["a"].version == 21
        other = next(name for name in cluster.options.names("learner") if name != victim)
        await cluster.kill(other)
        await cluster.done(put("a", b"last"))
        assert cluster.coordinator == victim


async def test_an_acceptor_that_lost_its_disk_is_replaced_and_votes_again(tmp_path: Path) -> None:
    """Given an acceptor on an empty folder, then it is put in the place of the former disk while
    others write, and afterwards a quorum can be made with its votes.
    """
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        await cluster.done(put("a", b"1"))
        await cluster.kill("acceptor-3")
        shutil.rmtree(tmp_path / "acceptor-3")
        await cluster.start("acceptor-3")

        async def asked(make: Callable[[int], Call]) -> Any:
            return await cluster.hosts["gateway-1"].call(make)

        async def has_begun() -> bool:
            answer = await asked(
                lambda token: MemberChange(token=token, action="replace", name="acceptor-3")
            )
            return isinstance(answer, ChangeBegun)

        async def is_over() -> bool:
            known = (await asked(lambda token: Survey(token=token))).acceptors
            return known.membership.newest.version == 1 and not known.needs_former

        await eventually(has_begun, within_s=40)
        await cluster.done(put("a", b"2"))
        await eventually(is_over, within_s=40)

        await cluster.kill("acceptor-1")
        await cluster.kill("acceptor-2")  # A quorum needs the new disk's votes now.
        await cluster.done(put("a", b"3"))


async def test_a_store_whose_state_differs_leaves_the_view_and_copies_the_others(
    tmp_path: Path,
) -> None:
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        await cluster.done(put("a", b"1"))
        odd = cluster.actor("store-3").state
        odd.entries["a"] = odd.entries["a"].model_copy(update={"version": 7})
        odd.state_hash = "0" * 32

        await eventually(lambda: cluster.actor("learner-1").counters["diverged"] > 0)

        await eventually(lambda: cluster.actor("store-3").counters["snapshots_installed"] > 0)
        await cluster.settled()
        assert cluster.actor("store-3").state.entries["a"].version == 1
        await cluster.done(put("a", b"2"))
        assert await cluster.version("a") == 2


def _is_mended(cluster: MemoryCluster, store: str) -> bool:
    return bool(cluster.actor(store).contents.missing == 0)


def _holds(journal: Journal, blobs: int) -> bool:
    return len(journal.blob_names()) == blobs


async def _fetch(cluster: MemoryCluster, name: str) -> object:
    return await cluster.hosts["gateway-1"].call(lambda token: Fetch(token=token, sha256=name))


def _flip(folder: Path, statement: str) -> None:
    with sqlite3.connect(folder / "journal.db") as connection:
        assert connection.execute(statement).rowcount > 0


async def test_a_chunk_with_a_flipped_bit_is_read_from_another_store_and_repaired(
    tmp_path: Path,
) -> None:
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        (name,) = await _big_file(cluster, "big", 1)
        for store in ("store-1", "store-2"):
            _flip(tmp_path / store, "UPDATE blobs SET data = zeroblob(10)")

        for _ in range(6):
            answer = await _fetch(cluster, name)
            assert isinstance(answer, FetchedChunk)
            assert answer.data.startswith(bytes(64 * KIB))

        for store in ("store-1", "store-2"):
            await eventually(functools.partial(_is_mended, cluster, store))
            assert cluster.actor(store).counters["chunks_rotten"] == 1
            assert cluster._journals[store].is_sound(name) == (True, 64 * KIB + 3)


async def test_the_scrub_repairs_rows_and_chunks_that_no_client_reads(tmp_path: Path) -> None:
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        (name,) = await _big_file(cluster, "big", 1)
        await cluster.kill("store-1")
        await cluster.start("store-1", maintenance=MaintenanceOptions(scrub_rest_s=0.05))
        await cluster.settled()
        store = cluster.actor("store-1")
        await eventually(lambda: store.durable == store.state.applied)
        cluster._journals["store-1"].fold()
        _flip(tmp_path / "store-1", "UPDATE blobs SET data = zeroblob(10)")
        _flip(tmp_path / "store-1", "UPDATE records SET value = x'00' WHERE key = 'entry/big'")

        await eventually(lambda: store.counters["chunks_rotten"] and store.counters["rows_rotten"])

        journal = cluster._journals["store-1"]
        await eventually(lambda: journal.scrub_rows("")[0] == [] and journal.is_sound(name)[0])
        await cluster.restart("store-1")
        await cluster.settled()
        assert cluster.actor("store-1").state.entries["big"].content.chunks == (name,)


async def test_replaced_contents_are_deleted_and_those_in_use_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.store.chunks.RELEASED_GRACE_MS", 200)
    monkeypatch.setattr("actors.store.contents._SWEEP_MS", 100)
    # With so short an interval, four sweeps that a busy machine delays would count as a pause of
    # the node, after which it rightly deletes nothing for minutes; see test_kept_until.py.
    monkeypatch.setattr("actors.store.contents._SWEEPS_MISSED", 10_000)
    assert RELEASED_GRACE_MS == 60_000
    async with memory_cluster(tmp_path, heartbeat_ms=300, chunk_grace_ms=500) as cluster:
        (kept,) = await _big_file(cluster, "kept", 1)
        unused = await cluster.upload(b"never named by anything")
        for number in range(50):
            await cluster.done(put("a", b"number %d" % number))

        for store in cluster.options.names("store"):
            journal = cluster._journals[store]
            await eventually(functools.partial(_holds, journal, 2))
            assert kept in journal.blob_names()
            assert unused not in journal.blob_names()
