"""A new cluster from the disks of one that lost its acceptors for good, amid writes."""

import asyncio
import contextlib
import hashlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from actors.effects import Record
from actors.options import Options
from broker.journal import Journal
from broker.rabbitmq import RabbitTransport
from broker.roll_call import nodes_heard
from broker.tls import BrokerTls
from broker.topology import Topology
from broker.transport import Transport
from gateway.cli.main import run
from gateway.recovery.folders import RecoveryRefused, find
from gateway.recovery.recover import Look, looked_at, recover
from gateway.recovery.report import lines_of, report_of
from synod.client import AsyncClient
from tests.long import only_long
from tests.replication.cluster import MemoryCluster, eventually, memory_cluster
from tests.replication.test_backup import _all_files, _auth

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SIZES: dict[str, Any] = {"acceptors": 3, "proposers": 2, "learners": 2, "stores": 3}
STORES = ("store-1", "store-2", "store-3")
KIB = 1024
WRITERS = 4


def _bytes(seed: str, size: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


@contextlib.asynccontextmanager
async def running(
    folder: Path, transport: Callable[[str], Transport] | None = None
) -> AsyncIterator[tuple[MemoryCluster, AsyncClient]]:
    async with (
        memory_cluster(folder, None, transport, heartbeat_ms=300, **SIZES) as cluster,
        _auth(cluster) as synod,
    ):
        yield cluster, synod


async def write_on(synod: AsyncClient, writer: int, acknowledged: dict[str, bytes]) -> None:
    """Write files, each one once, small and large ones, until the cluster is gone."""
    async with synod.sibling() as mine:
        count = 0
        while True:
            count += 1
            path, size = f"w/{writer}/{count}", 150 * KIB if count % 5 == 0 else 100
            data = _bytes(path, size)
            await mine.put(path, data)
            acknowledged[path] = data


async def lose(cluster: MemoryCluster) -> None:
    """Kill all nodes at once, and lose all acceptors but one."""
    for name in list(cluster.hosts):
        await cluster.kill(name)
    for name in ("acceptor-1", "acceptor-2"):
        shutil.rmtree(cluster.folder / name)


async def written(folder: Path, at_least: int = 100) -> dict[str, bytes]:
    """The files that were acknowledged by a cluster in `folder` that was lost amid writes."""
    acknowledged: dict[str, bytes] = {}
    async with running(folder) as (cluster, synod):
        writers = [
            asyncio.create_task(write_on(synod, writer, acknowledged)) for writer in range(WRITERS)
        ]
        await eventually(lambda: len(acknowledged) >= at_least, within_s=60)
        known = dict(acknowledged)
        await lose(cluster)
        for task in writers:
            task.cancel()
        await asyncio.wait(writers)
    return known


def found(look: Look, data: Path, **more: Any) -> str:
    """Found the new cluster; its id."""
    asked = {"old_cluster_is_dead": True, **more}
    return recover(look, data, Options(**SIZES), "test", **asked).cluster


def prints(folder: Path) -> dict[str, tuple[int, str]]:
    """When each file below a folder was last changed, and what is in it."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def test_each_store_alone_has_everything_that_was_acknowledged(tmp_path: Path) -> None:
    """Given writers whose cluster dies under them, then a cluster from any one store, or from all
    that is left, has each file that one of them knew to be written, with its bytes; the old folders
    are as they were.
    """
    old = tmp_path / "old"
    acknowledged = await written(old)
    before = prints(old)

    tails = []
    for name in (*STORES, ""):
        data = tmp_path / f"new-{name}"
        with looked_at([old / name if name else old]) as look:
            report = report_of(look)
            assert not report["lost_files"]
            assert name in (*report["members_given"], "")
            tails.append(len(report["open"]))
            cluster_id = found(look, data)
            assert cluster_id != report["cluster"]
    assert prints(old) == before
    assert any(tails), "nothing was under way when the cluster died"

    async with running(tmp_path / "new-store-2") as (_, synod):
        files = await _all_files(synod)
        assert {path: files.get(path) for path in acknowledged} == acknowledged
        one = sorted(acknowledged)[0]
        await synod.put(one, b"again")
        assert (await synod.stat(one)).version == 2
    for name in ("store-1", "store-3", ""):
        with looked_at([tmp_path / f"new-{name}" / "store-1"]) as look:
            entries = look.collected.contained.state.entries
            assert acknowledged.keys() <= entries.keys()
            assert not look.collected.lost


async def test_a_store_that_was_dropped_is_told_and_lacks_what_came_later(tmp_path: Path) -> None:
    """Given a store that died before the last writes, then the most advanced one is taken; the one
    behind can't know it by itself, but others' journals tell; and a file whose contents are on no
    given disk is named, and left out only on demand.
    """
    old = tmp_path / "old"
    async with running(old) as (cluster, synod):
        await synod.put("early", b"1")
        await cluster.settled()
        slot = cluster.actor("store-3").state.applied
        await eventually(lambda: cluster.actor("store-3").durable >= slot)
        await cluster.kill("store-3")
        await eventually(lambda: cluster.view == ["store-1", "store-2"])
        await cluster.ready()
        await synod.put("late/large", _bytes("late", 200 * KIB))
        await synod.put("late/small", b"2")
        through = cluster.actor(cluster.coordinator).decided
        await eventually(lambda: cluster.actor("learner-1").durable >= through)
        await lose(cluster)

    with looked_at([old / "store-3"]) as look:
        report = report_of(look)
        assert report["members_given"] == ["store-3"]
        assert "store-1, store-2 could have" in report["missing"][0]
        assert "late/small" not in look.collected.contained.state.entries
    with looked_at([old / "store-3", old / "store-1"]) as look:
        report = report_of(look)
        by_name = {node["node"]: node for node in report["nodes"]}
        assert report["base"] == "store-1"
        assert by_name["store-3"]["behind"] > 0
        assert by_name["store-3"]["standing"] == "dropped"
        assert any("store-3" in line and "dropped from the view" in line for line in lines_of(look))
        assert not report["lost_files"]
    with looked_at([old / "store-3", old / "learner-1"]) as look:
        assert report_of(look)["base"] == "learner-1"
        assert [entry.path for entry in look.collected.lost] == ["late/large"]
        assert "no given store is known" in report_of(look)["missing"][0]
        with pytest.raises(RecoveryRefused, match=r"contents of 1 files .*'late/large'"):
            found(look, tmp_path / "new")
        found(look, tmp_path / "new", without_lost_files=True)
    async with running(tmp_path / "new") as (_, synod):
        # The small one comes from the learner's log.
        assert await _all_files(synod) == {"early": b"1", "late/small": b"2"}


async def quiet(old: Path) -> dict[str, bytes]:
    """A cluster that was lost while nothing was under way; its files."""
    files = {"large": _bytes("large", 200 * KIB), "small": b"1"}
    async with running(old) as (cluster, synod):
        for path, data in files.items():
            await synod.put(path, data)
        await cluster.settled()
        slot = cluster.actor("store-1").state.applied
        stores = [cluster.actor(name) for name in STORES]
        await eventually(lambda: min(store.durable for store in stores) >= slot)
        await lose(cluster)
    return files


def rot(folder: Path) -> int:
    """Flip bits in all large contents of a store's journal; how many."""
    connection = sqlite3.connect(folder / "journal.db")
    with connection:
        changed = connection.execute(
            "UPDATE blobs SET data = zeroblob(length(data)) WHERE length(data) > 1000"
        ).rowcount
    connection.close()
    return changed


async def test_what_rotted_or_contradicts_is_found_and_never_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given stores of which one has rotten contents, then they come from another one, and without
    that nothing is made. Given stores whose states differ, or a folder that is in use, damaged, or
    no copy of its own, or a cluster that may live, then nothing is made either.
    """
    old, new = tmp_path / "old", tmp_path / "new"
    files = await quiet(old)
    count = rot(old / "store-3")  # Of equal ones its state is taken.
    assert count > 1

    def refused(match: str, *names: str, data: Path = new, **more: Any) -> None:
        with (
            pytest.raises(RecoveryRefused, match=match),
            looked_at([old / name for name in names]) as look,
        ):
            found(look, data, **more)
        assert not new.exists()

    refused("contents of 1 files", "store-3")
    refused("nothing here proves", "store-1", "store-2", old_cluster_is_dead=False)
    refused("is of the old cluster", "store-1", "store-2", data=old / "store-1" / "new")
    refused("no folder of a store", "acceptor-3")
    with pytest.raises(RecoveryRefused, match="neither a node's folder"):
        find([_empty(tmp_path)])

    with Journal.open(old / "store-2", "store-2", "test") as held:
        refused("store-2 runs on", "store-1", "store-2")
        assert held.identity.disk
    shutil.copytree(old / "store-1", old / "copy")
    refused("two copies of the disk", "store-1", "copy")
    with Journal.open(old / "copy", "store-1", "test") as journal:
        rows = {record.key: record.value for record in journal.records()}
        state = json.loads(rows["state"] or b"")
        changed = json.dumps({**state, "state_hash": "0" * 32}).encode()
        journal.commit([Record("state", changed)])
    refused("have diverged", "store-2", "copy")
    (old / "copy" / "journal.log").unlink()
    (old / "copy" / "journal.db").write_bytes(b"rotten")
    refused("Nothing of store-1 can be used", "store-2", "copy")

    both = ("--from-store", str(old / "store-3"), "--from-store", str(old / "store-2"))
    before = prints(old)
    asked = ["recover", *both, "--data", str(new), "--json"]
    assert run([*asked, "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["founded"], shown["files"], shown["lost_files"]) == (None, 2, [])
    assert run(asked) == 1
    assert "--the-old-cluster-is-dead" in json.loads(capsys.readouterr().err)["error"]
    assert run(["recover", "--data", str(new)]) == 2
    assert not new.exists()
    assert prints(old) == before

    with looked_at([old / "store-3", old / "store-2"]) as look:
        report = report_of(look)
        about = {node["node"]: node for node in report["nodes"]}
        assert report["base"] == "store-3"
        assert len(about["store-3"]["contents_rotten"]) == count
        assert about["store-2"]["contents_used"] == count
        found(look, new)
    with looked_at([new / "store-1"]) as look:
        entries = {file.path: file for file in look.collected.contained.files}
        for path, data in files.items():
            chunks = look.collected.contained.names_of(entries[path].content)
            assert b"".join(map(look.contents.read, chunks)) == data


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@only_long
@pytest.mark.rabbitmq
async def test_nodes_that_run_are_heard_at_the_broker(tmp_path: Path, amqp_url: str) -> None:
    """Given a cluster that runs over RabbitMQ, then its nodes are heard, and those of no other one
    are taken for them.
    """
    topology = Topology(f"test-{uuid4().hex[:12]}")

    def transport(name: str) -> Transport:
        return RabbitTransport(amqp_url, topology, name)

    async def heard(where: Topology, cluster_id: str, for_s: float) -> frozenset[str]:
        return await nodes_heard(amqp_url, where, cluster_id, BrokerTls(), for_s)

    async with running(tmp_path, transport) as (cluster, _):
        cluster_id = cluster.actor("store-1").cluster
        assert not await heard(Topology("none-of-this-name"), cluster_id, 0.1)
        assert not await heard(topology, "another", 0.5)
        members = set(cluster.options.members)

        async def are_heard() -> bool:
            return members <= await heard(topology, cluster_id, 1.0)

        await eventually(are_heard, within_s=60)
