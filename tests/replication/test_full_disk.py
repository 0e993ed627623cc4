"""A full disk: a store votes no, an acceptor is silent, and both go on when there is room."""

import hashlib
from itertools import count
from pathlib import Path

import pytest

from actors.calls import Unavailable, Upload
from actors.values import DeleteFile
from broker.journal import Journal
from tests.replication.cluster import MemoryCluster, eventually, memory_cluster
from tests.worlds import put

NAME = hashlib.sha256(b"x").hexdigest()

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The nodes whose disks have no room, by name."""
    names: set[str] = set()
    real = Journal.free_bytes
    monkeypatch.setattr("broker.upkeep.LOOK_S", 0.02)
    monkeypatch.setattr(
        Journal, "free_bytes", lambda self: 0 if self.folder.name in names else real(self)
    )
    return names


async def _knows(cluster: MemoryCluster, name: str, is_full: bool) -> None:
    await eventually(lambda: cluster.actor(name).disk_full is is_full)


async def test_a_store_without_room_votes_no_until_there_is_some(
    tmp_path: Path, full: set[str]
) -> None:
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        await cluster.done(put("a", b"1"))
        await cluster.done(put("b", b"1"))
        full.add("store-2")
        await _knows(cluster, "store-2", True)

        answer = await cluster.write(put("a", b"2"))
        uploaded = await cluster.hosts["gateway-1"].call(
            lambda token: Upload(token=token, sha256=NAME, manifest=False, data=b"x")
        )

        assert answer.outcome.status == "no_room"
        assert answer.outcome.detail == "no room: the disk of store-2 is full"
        assert isinstance(uploaded, Unavailable)
        assert uploaded.no_room
        # It stays in the view: what is there can be read, and deleted to make room.
        assert await cluster.version("a") == 1
        await cluster.done(DeleteFile(path="b"), retry=False)
        assert cluster.epoch == 0
        assert all(not cluster.actor(name).prepared for name in cluster.options.names("store"))
        full.clear()
        await _knows(cluster, "store-2", False)
        await cluster.done(put("a", b"2"), retry=False)
        await cluster.settled()


async def test_acceptors_without_room_are_silent_and_come_back(
    tmp_path: Path, full: set[str]
) -> None:
    async with memory_cluster(tmp_path, heartbeat_ms=300, request_deadline_ms=2_000) as cluster:
        await cluster.done(put("a", b"1"))
        full.update(("acceptor-1", "acceptor-2"))
        await _knows(cluster, "acceptor-1", True)
        await cluster.done(put("a", b"2"))
        full.add("acceptor-3")
        await _knows(cluster, "acceptor-3", True)

        answer = await cluster.write(put("a", b"3"))

        assert not hasattr(answer, "outcome"), answer
        silent = cluster.actor("acceptor-3")
        assert silent.counters["silent_disk_full"] > 0
        assert silent.vitals().model_copy(update={"disk_full": silent.disk_full}).disk_full
        full.clear()
        await cluster.ready()
        await cluster.done(put("a", b"4"))
        await cluster.settled()


async def test_commits_that_find_no_room_stop_a_store_and_leave_nothing_half_written(
    tmp_path: Path,
) -> None:
    """Given SQLite itself finds the disk full, then the view drops the store, and it comes back."""
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        await cluster.done(put("a", b"1"))
        connection = cluster._journals["store-3"]._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

        async def is_dropped() -> bool:
            data = b"%d" % next(numbers) + bytes(16_000)
            await cluster.write(put("f", data), retry=True)
            return cluster.actor("learner-1").view.member("store-3") is None

        numbers = count()
        await eventually(is_dropped, within_s=40)
        silent = cluster.actor("store-3")
        assert silent.identity.incarnation == 1  # It has not said a word since.

        connection.execute("PRAGMA max_page_count = 1000000").fetchone()
        await cluster.settled(within_s=40)
        assert cluster.actor("store-3").identity.incarnation == 2
        await cluster.done(put("a", b"2"))
