"""A full disk: a store votes no, an acceptor is silent, and both go on when there is room."""

import hashlib
import random
from itertools import count
from pathlib import Path

import pytest

from actors.calls import NotDone, Upload, Uploaded, Write
from actors.values import (
    AnyOperation,
    Check,
    Chunked,
    CopyEntry,
    DeleteFile,
    IdempotencyKey,
    MakeDirectory,
    MoveEntry,
    Precondition,
    PutFile,
    RemoveDirectory,
    Transaction,
)
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
    monkeypatch.setattr("broker.maintenance.CHECK_INTERVAL_S", 0.02)
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
        assert isinstance(uploaded, NotDone)
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
        assert silent.heartbeat().model_copy(update={"disk_full": silent.disk_full}).disk_full
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
        assert silent.identity.incarnation == 1  # It has not restarted since.

        connection.execute("PRAGMA max_page_count = 1000000").fetchone()
        await cluster.settled(within_s=40)
        assert cluster.actor("store-3").identity.incarnation == 2
        await cluster.done(put("a", b"2"))


MIB = 1024 * 1024
DISK_BYTES = 64 * MIB
RESERVE_BYTES = 20 * MIB


@pytest.fixture
def one_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk that all nodes share: what their files take is taken from all of them."""
    monkeypatch.setattr("broker.maintenance.CHECK_INTERVAL_S", 0.1)
    monkeypatch.setattr("actors.store.chunks.RELEASED_GRACE_MS", 500)
    monkeypatch.setattr("actors.store.contents._SWEEP_MS", 200)
    monkeypatch.setattr("actors.store.contents._SWEEPS_MISSED", 1_000)
    monkeypatch.setattr(Journal, "free_bytes", lambda self: DISK_BYTES - used_bytes(tmp_path))
    return tmp_path


def used_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def put_mib(cluster: MemoryCluster, number: int) -> object:
    """Upload a file of 1 MiB and put it into the tree; the answer, or why there was none."""
    data = random.Random(number).randbytes(MIB)
    name = hashlib.sha256(data).hexdigest()
    uploaded = await cluster.hosts["gateway-1"].call(
        lambda token: Upload(token=token, sha256=name, manifest=False, data=data)
    )
    if not isinstance(uploaded, Uploaded):
        return uploaded
    content = Chunked(size=MIB, sha256=name, chunks=(name,))
    return (await cluster.write(PutFile(path=f"f{number}", content=content))).outcome


def is_no_room(answer: object) -> bool:
    if isinstance(answer, NotDone):
        return answer.no_room
    return getattr(answer, "status", "") == "no_room"


async def fill(cluster: MemoryCluster) -> list[int]:
    """Put files until stores refuse them for good; those that are there."""
    files: list[int] = []
    for number in count():
        answer = await put_mib(cluster, number)
        if getattr(answer, "status", "") == "done":
            files.append(number)
        stores = [cluster.actor(name) for name in cluster.options.names("store")]
        if is_no_room(answer) and all(store.disk_full for store in stores):
            break
    return files


async def test_a_disk_that_all_nodes_share_is_filled_and_freed(one_disk: Path) -> None:
    """Given one disk for all, filled until writes are refused, when files are deleted, then their
    room comes back while everything runs, and writes go on.
    """
    async with memory_cluster(
        one_disk, reserve_bytes=RESERVE_BYTES, chunk_grace_ms=1_000
    ) as cluster:
        files = await fill(cluster)
        used = used_bytes(one_disk)
        assert len(files) > 3
        # Much less than the reserve was taken beyond it, though the look is but ten times a second.
        assert DISK_BYTES - used > RESERVE_BYTES // 4
        assert not any(cluster.actor(name).disk_full for name in cluster.options.names("acceptor"))

        for number in files[::2]:
            await cluster.done(DeleteFile(path=f"f{number}"), retry=True)
        stores = [cluster.actor(name) for name in cluster.options.names("store")]
        await eventually(lambda: not any(store.disk_full for store in stores))
        # The room of all three copies, but for a little, is the file system's again.
        await eventually(lambda: used - used_bytes(one_disk) > len(files) // 2 * 2 * MIB)

        again = [await put_mib(cluster, 1_000 + number) for number in range(3)]
        assert not any(is_no_room(answer) for answer in again), again
        assert await cluster.version(f"f{files[1]}") > 0
        assert all(store.identity.incarnation == 1 for store in stores)
        await cluster.settled()


async def test_commands_that_only_remove_pass_and_all_others_are_refused(
    tmp_path: Path, full: set[str]
) -> None:
    """Given stores that are full, then each kind of command passes or is refused at all alike."""
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        for name in ("a", "b", "c", "d/e/f"):
            await cluster.done(put(name, b"1"))
        full.update(cluster.options.names("store"))
        for name in sorted(full):
            await _knows(cluster, name, True)
        exists = Check(path="a", when=Precondition(if_match=("*",)))
        refused: list[AnyOperation] = [
            put("a", b"2"),
            put("new", b""),
            MakeDirectory(path="new"),
            CopyEntry(source="a", target="new"),
            MoveEntry(source="a", target="new"),
            Transaction(steps=(DeleteFile(path="a"), put("new", b"1"))),
            Transaction(steps=(exists, MakeDirectory(path="new"))),
        ]
        freeing: list[AnyOperation] = [
            Transaction(steps=(exists, DeleteFile(path="b"))),
            DeleteFile(path="c"),
            RemoveDirectory(path="d", recursive=True),
        ]
        answers = [await cluster.write(operation) for operation in refused]
        assert [answer.outcome.status for answer in answers] == ["no_room"] * len(refused)
        for operation in freeing:
            await cluster.done(operation, retry=False)
        assert await cluster.version("a") == 1


async def test_a_store_that_is_full_keeps_nothing_of_what_it_refuses(
    tmp_path: Path, full: set[str]
) -> None:
    """Given writes that bring their contents along, when they are refused, then no store has them:
    they would take the room that the reserve is for.
    """
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        await cluster.done(put("a", b"1"))
        names = cluster.options.names("store")
        full.update(names)
        for name in names:
            await _knows(cluster, name, True)
        before = {name: cluster._journals[name].blob_names() for name in names}
        for number in range(20):
            answer = await cluster.write(put("a", b"%d" % number + bytes(16_000)))
            assert answer.outcome.status == "no_room"
        assert {name: cluster._journals[name].blob_names() for name in names} == before


async def test_a_retry_on_a_full_disk_learns_that_the_write_was_done(
    tmp_path: Path, full: set[str]
) -> None:
    """Given a write that was done under a key, when it is sent again on a full disk, then it is not
    refused: a 507 would say that it never happened.
    """
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        key = IdempotencyKey(key="k", fingerprint="f")

        async def send(operation: PutFile, key: IdempotencyKey) -> str:
            answer = await cluster.hosts["gateway-1"].call(
                lambda token: Write(
                    token=token, operation=operation, idempotency=key, retry_aborted=False
                )
            )
            return str(answer.outcome.status)

        assert await send(put("a", b"1"), key) == "done"
        await cluster.settled()
        full.update(cluster.options.names("store"))
        for name in sorted(full):
            await _knows(cluster, name, True)
        assert await send(put("a", b"1"), key) == "done"
        other = IdempotencyKey(key="other", fingerprint="f")
        assert await send(put("a", b"2"), other) == "no_room"
        assert await cluster.version("a") == 1


async def test_a_newcomer_without_room_waits_outside_of_the_view(
    tmp_path: Path, full: set[str]
) -> None:
    """Given a store on an empty folder whose disk is full, then it copies no contents, and does so
    as soon as there is room.
    """
    async with memory_cluster(tmp_path, heartbeat_ms=300) as cluster:
        for number in range(4):
            await put_mib(cluster, number)
        await cluster.kill("store-3")
        await cluster.done(put("more", b"1"), retry=True)
        (tmp_path / "store-3").rename(tmp_path / "lost")
        full.add("store-3")
        await cluster.start("store-3")
        store = cluster.actor("store-3")
        await eventually(lambda: store.disk_full)
        await eventually(lambda: store.state.applied == cluster.actor("learner-1").state.applied)
        held = len(cluster._journals["store-3"].blob_names())
        await cluster.done(put("more", b"2"), retry=True)
        assert (store.held.membership, store.counters["chunks_copied"]) == (None, 0)
        assert store.contents.missing
        full.clear()
        await cluster.settled()
        assert len(cluster._journals["store-3"].blob_names()) > held
