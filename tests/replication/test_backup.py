"""A backup of a running cluster holds one moment of it; a restored cluster goes on from there."""

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from actors.options import Options
from actors.store import chunks, contents
from actors.store.contents import StoreContents
from broker.journal import Journal
from gateway.backup.folder import BackupDamaged, BackupFolder, BackupRefused
from gateway.backup.manifest import Manifest
from gateway.backup.restore import restore
from gateway.backup.take import backup
from gateway.cli.transfer import Silent
from gateway.http.app import GatewayApp
from gateway.settings import Settings
from synod.client import AsyncClient
from synod.errors import NotFound, PreconditionFailed, SynodError, Unauthorized
from tests.replication.cluster import MemoryCluster, eventually, memory_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

KIB = 1024
SETTINGS = Settings(chunk_bytes=64 * KIB, trace="off")
WRITERS = 8


def _bytes(seed: str, size: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


@contextlib.asynccontextmanager
async def _auth(cluster: MemoryCluster) -> AsyncIterator[AsyncClient]:
    """The cluster's gateway, without a socket."""
    app = GatewayApp(cluster.hosts["gateway-1"], SETTINGS)
    async with AsyncClient("http://localhost", transport=httpx.ASGITransport(app)) as synod:
        yield synod


@contextlib.asynccontextmanager
async def _running(
    folder: Path, **options: Any
) -> AsyncIterator[tuple[MemoryCluster, AsyncClient]]:
    async with (
        memory_cluster(folder, heartbeat_ms=300, **options) as cluster,
        _auth(cluster) as synod,
    ):
        yield cluster, synod


@dataclass
class History:
    """All acknowledged writes: for each path its versions by slot and index."""

    versions: dict[str, dict[tuple[int, int], bytes]] = field(default_factory=dict)

    def note(self, path: str, etag: str, data: bytes) -> None:
        slot, _, index = etag.partition("-")
        self.versions.setdefault(path, {})[int(slot), int(index)] = data

    def at(self, slot: int) -> dict[str, bytes]:
        """The contents of every file at the end of `slot`."""
        found = {}
        for path, versions in self.versions.items():
            known = [place for place in versions if place[0] <= slot]
            if known:
                found[path] = versions[max(known)]
        return found


async def _write_on(synod: AsyncClient, history: History, stop: asyncio.Event, writer: int) -> None:
    """Replace three files again and again; sometimes both of a pair at once."""
    async with synod.sibling() as mine:
        count = 0
        while not stop.is_set():
            count += 1
            size = 200 * KIB if count % 4 == 0 else 100
            data = _bytes(f"{writer}/{count}", size)
            written = await mine.put(f"w/{writer}/{count % 3}", data)
            history.note(f"w/{writer}/{count % 3}", written.etag, data)
            text = f"{writer} {count}"
            pair = [f"pair/{writer}/{side}" for side in ("left", "right")]
            written = await mine.transaction(
                [{"op": "put", "path": path, "text": text} for path in pair]
            )
            for path in pair:
                history.note(path, written.etag, text.encode())


async def _all_files(synod: AsyncClient, directory: str = "") -> dict[str, bytes]:
    found = {}
    async for entry in synod.list(directory):
        if entry.is_directory:
            found.update(await _all_files(synod, entry.path))
        else:
            found[entry.path] = await synod.read(entry.path)
    return found


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Have stores delete replaced contents at once unless something holds them; counts sweeps."""
    monkeypatch.setattr(chunks, "RELEASED_GRACE_MS", 20)
    monkeypatch.setattr(chunks, "READING_GRACE_MS", 20)
    monkeypatch.setattr(contents, "READING_GRACE_MS", 20)
    monkeypatch.setattr(contents, "_SWEEP_MS", 20)
    sweep = StoreContents.sweep
    count: Counter[str] = Counter()

    def counting(self: StoreContents) -> None:
        sweep(self)
        count[self._turn.name] += 1

    monkeypatch.setattr(StoreContents, "sweep", counting)
    return count


async def test_what_is_restored_is_one_moment_of_a_busy_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweeps: Counter[str]
) -> None:
    """Eight writers replace every file between the copy of the state and that of its contents."""
    history = History()
    fetch = AsyncClient.chunk
    replaced = asyncio.Event()
    async with _running(tmp_path / "old") as (cluster, synod):
        state = cluster.actor("store-1").state

        async def replace_all() -> None:
            """All contents that the copy names are replaced by now, and would have been swept."""
            slot = state.applied
            files = [path for path in history.versions if path != "still"]
            await eventually(lambda: all(state.entries[path].slot > slot for path in files), 60)
            before = dict(sweeps)
            await eventually(lambda: all(sweeps[name] > before[name] + 5 for name in before))
            replaced.set()

        async def late(self: AsyncClient, sha256: str) -> bytes:
            if not waiting:
                waiting.append(asyncio.create_task(replace_all()))
            await replaced.wait()
            return await fetch(self, sha256)

        waiting: list[asyncio.Task[None]] = []
        monkeypatch.setattr(AsyncClient, "chunk", late)
        big = _bytes("big", 140 * 64 * KIB)
        history.note("still", (await synod.put("still", big)).etag, big)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(_write_on(synod, history, stop, writer))
            await eventually(lambda: len(history.versions) == 5 * WRITERS + 1, 60)
            acknowledged = max(max(versions)[0] for versions in history.versions.values())
            manifest, _ = await backup(synod, tmp_path / "backup", progress=Silent())
            stop.set()
            await waiting[0]
        after = await synod.put("after", b"x")
        last_version = (await synod.stat("w/0/0")).version

    expected = history.at(manifest.slot)
    assert manifest.slot >= acknowledged
    assert manifest.slot < after.slot
    assert expected != history.at(after.slot)
    assert manifest.files == len(expected)
    done = restore(tmp_path / "backup", tmp_path / "new", Options(heartbeat_ms=300), "test")
    async with _running(tmp_path / "new") as (cluster, synod):
        assert cluster.hosts["gateway-1"].actor.cluster == done.cluster != manifest.cluster
        assert await _all_files(synod) == expected
        for writer in range(WRITERS):
            pair = [expected[f"pair/{writer}/{side}"] for side in ("left", "right")]
            assert pair[0] == pair[1]
        entry = await synod.stat("w/0/0")
        assert entry.version <= last_version
        written = await synod.put("w/0/0", b"new", if_match=entry.etag)
        # Above all slots of the old cluster, also those after the backup.
        assert written.slot > done.slot > after.slot
        assert (await synod.stat("w/0/0")).version == entry.version + 1
        await cluster.settled()


async def test_sessions_and_idempotency_keys_survive(tmp_path: Path) -> None:
    async with _running(tmp_path / "old") as (_, synod):
        first = await synod.put("a", b"1", key="once")
        refused = None
        with pytest.raises(PreconditionFailed) as caught:
            await synod.put("a", b"2", if_none_match="*")
        refused = caught.value.problem["request"]
        await backup(synod, tmp_path / "backup", progress=Silent())
        lost = [(await synod.put("a", b"lost %d" % number)).etag for number in range(10)]

    restore(tmp_path / "backup", tmp_path / "new", Options(heartbeat_ms=300), "test")

    async with _running(tmp_path / "new") as (_, synod):
        again = await synod.put("a", b"1", key="once")
        assert (again.slot, again.etag) == (first.slot, first.etag)
        assert (await synod.result(refused))["result"] == "precondition_failed"
        assert await synod.read("a") == b"1"
        # What was written after the backup is lost, and its ETags are never given again.
        new = [(await synod.put("a", b"new %d" % number)).etag for number in range(10)]
        assert not set(lost) & set(new)


async def test_the_new_cluster_may_have_other_members_and_lose_disks(tmp_path: Path) -> None:
    """A store that lost its disk after the restore copies what it lacks, as in any cluster."""
    data = _bytes("x", 300 * KIB)
    async with _running(tmp_path / "old", acceptors=3, stores=2) as (_, synod):
        await synod.put("a", data)
        await backup(synod, tmp_path / "backup", progress=Silent())

    restore(
        tmp_path / "backup", tmp_path / "new", Options(acceptors=5, stores=3, learners=3), "test"
    )
    for name in ("store-2", "learner-3"):
        shutil.rmtree(tmp_path / "new" / name)

    async with _running(tmp_path / "new", learners=3) as (cluster, synod):
        await cluster.settled()
        assert await synod.read("a") == data
        await synod.put("a", b"2")
        await cluster.kill("store-1")
        await cluster.kill("store-3")
        await eventually(lambda: len(cluster.actor("learner-2").view.stores) == 1)
        assert await synod.read("a", stale=True) == b"2"


def _verified(folder: Path) -> Manifest | list[str]:
    """The manifest of a whole backup, or the parts that are damaged."""
    try:
        return BackupFolder(folder).verify()[0]
    except BackupDamaged as error:
        return error.parts


# -- damage ---------------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def _cut(path: Path, by: int = 1) -> None:
    os.truncate(path, path.stat().st_size - by)


async def test_every_kind_of_damage_is_named_and_refused(tmp_path: Path) -> None:
    async with _running(tmp_path / "old") as (_, synod):
        await synod.put("small", b"inside the command")
        await synod.put("big", _bytes("big", 130 * 64 * KIB))
        await backup(synod, tmp_path / "whole", progress=Silent())
    manifest, contained = BackupFolder(tmp_path / "whole").verify()
    (listing,) = contained.listings
    small = hashlib.sha256(b"inside the command").hexdigest()
    assert manifest.chunks == 1 + 130 + 1

    damages: list[tuple[str, Callable[[Path], None]]] = [
        ("manifest.json", Path.unlink),
        *((manifest.rows_file, damage) for damage in (_flip, _cut, Path.unlink)),
        *(
            (f"chunks/{name[:2]}/{name}", damage)
            for name in (small, listing, contained.listings[listing][70])
            for damage in (_flip, _cut, Path.unlink)
        ),
        ("manifest.json", _flip),
        ("manifest.json", functools.partial(_cut, by=3)),
    ]
    for name, damage in damages:
        broken = tmp_path / "broken"
        shutil.copytree(tmp_path / "whole", broken)
        damage(broken / name)
        with pytest.raises(BackupDamaged) as caught:
            restore(broken, tmp_path / "new", Options(), "test")
        assert [part.partition(":")[0].partition(" ")[0] for part in caught.value.parts] == [name]
        assert not (tmp_path / "new").exists()
        shutil.rmtree(broken)


async def test_any_flipped_bit_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    async with _running(tmp_path / "old") as (_, synod):
        await backup(synod, tmp_path / "whole", progress=Silent())
    raw = (tmp_path / "whole/manifest.json").read_bytes()
    whole = Manifest.load(raw)
    for place in range(len(raw)):
        for bit in (1, 4):
            damaged = bytearray(raw)
            damaged[place] ^= bit
            with contextlib.suppress(ValueError):
                assert Manifest.load(bytes(damaged)) == whole  # A blank may become another one.
    changed = {**json.loads(raw), "slot": whole.slot + 1}
    with pytest.raises(ValueError, match="checksum"):
        Manifest.load(json.dumps(changed).encode())


# -- the folder -----------------------------------------------------------------------------------


async def test_an_interrupted_backup_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = AsyncClient.chunk
    fetched: list[str] = []

    async def failing(self: AsyncClient, sha256: str) -> bytes:
        if len(fetched) == 5:
            raise SynodError("the line was cut")
        fetched.append(sha256)
        return await fetch(self, sha256)

    folder = tmp_path / "backup"
    async with _running(tmp_path / "old") as (_, synod):
        data = _bytes("a", 10 * 64 * KIB)
        await synod.put("a", data)
        with monkeypatch.context() as patched:
            patched.setattr(AsyncClient, "chunk", failing)
            with pytest.raises(SynodError, match="line was cut"):
                await backup(synod, folder, progress=Silent(), parallel=1)
        with pytest.raises(BackupDamaged, match=r"manifest\.json is missing"):
            restore(folder, tmp_path / "new", Options(), "test")
        _flip(folder / "chunks" / fetched[0][:2] / fetched[0])

        first, chunks_of_first = await backup(synod, folder, progress=Silent())

        assert first.chunks == 10
        assert chunks_of_first.fetched == 6  # Five were missing, and one had rotted.

        # While a newer backup is interrupted, the former one is whole. Finished, it reuses chunks.
        await synod.put("a", data[: 9 * 64 * KIB] + b"new")
        with monkeypatch.context() as patched:
            patched.setattr(AsyncClient, "chunk", failing)
            with pytest.raises(SynodError, match="line was cut"):
                await backup(synod, folder, progress=Silent())
        assert BackupFolder(folder).verify()[0] == first
        second, chunks_of_second = await backup(synod, folder, progress=Silent())
        assert second.slot > first.slot
        assert (second.chunks, chunks_of_second.fetched) == (10, 1)
        assert BackupFolder(folder).verify()[0] == second
        names = {path.name for path in folder.glob("chunks/*/*")}
        assert len(names) == 10
        assert [path.name for path in folder.glob("rows*")] == [second.rows_file]


async def test_a_backup_that_ends_anywhere_leaves_the_former_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a newer backup whose process dies before, while or after it puts its manifest in place,
    or while it removes what it does not need, then one of the two is whole.
    """
    folder = tmp_path / "backup"
    unlink = Path.unlink
    removed: list[str] = []

    class Died(Exception):
        pass

    def dying(*_: object) -> None:
        raise Died

    def unlink_one(self: Path) -> None:
        if self.is_relative_to(folder):
            removed.append(self.name)
            if len(removed) > 1:
                raise Died
        unlink(self)

    async with _running(tmp_path / "old") as (_, synod):
        await synod.put("a", _bytes("a", 3 * 64 * KIB))
        first, _ = await backup(synod, folder, progress=Silent())
        for name, moment in (
            ("gateway.backup.folder.BackupFolder.finish", dying),
            ("gateway.backup.folder.Manifest.dump", dying),
            ("gateway.backup.folder.BackupFolder.prune", dying),
            ("pathlib.Path.unlink", unlink_one),
        ):
            await synod.put("a", _bytes(name, 3 * 64 * KIB))
            with monkeypatch.context() as patched:
                patched.setattr(name, moment)
                with pytest.raises(Died):
                    await backup(synod, folder, progress=Silent())
            found = _verified(folder)
            assert isinstance(found, Manifest), name
            assert (found == first) == name.endswith(("finish", "dump")), name
        assert len(removed) == 2


async def test_folders_that_are_not_this_clusters_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    async with _running(tmp_path / "one") as (_, synod):
        await synod.put("a", b"1")
        await backup(synod, folder, progress=Silent())
    async with _running(tmp_path / "two") as (_, synod):
        with pytest.raises(BackupRefused, match="holds a backup of cluster"):
            await backup(synod, folder, progress=Silent())
        (tmp_path / "home").mkdir()
        (tmp_path / "home/letter.txt").write_text("dear")
        with pytest.raises(BackupRefused, match=r"letter\.txt"):
            await backup(synod, tmp_path / "home", progress=Silent())
        with (
            BackupFolder(tmp_path / "other").claim("c"),
            pytest.raises(BackupRefused, match="in use"),
        ):
            await backup(synod, tmp_path / "other", progress=Silent())
    assert (tmp_path / "home/letter.txt").read_text() == "dear"

    with pytest.raises(BackupRefused, match="is not empty"):
        restore(folder, tmp_path / "one", Options(), "test")


async def test_an_interrupted_restore_leaves_no_node_and_may_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _running(tmp_path / "old") as (_, synod):
        await synod.put("a", b"1")
        await backup(synod, tmp_path / "backup", progress=Silent())
    commit = Journal.commit
    commits = 0

    def failing(self: Journal, *arguments: Any) -> None:
        nonlocal commits
        commits += 1
        if commits == 15:
            raise KeyboardInterrupt
        commit(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "commit", failing)
        with pytest.raises(KeyboardInterrupt):
            restore(tmp_path / "backup", tmp_path / "new", Options(), "test")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".restoring"]

    restore(tmp_path / "backup", tmp_path / "new", Options(), "test")

    assert {path.name for path in (tmp_path / "new").iterdir()} == set(Options().members)
    async with _running(tmp_path / "new") as (_, synod):
        assert await synod.read("a") == b"1"


# -- where the state comes from --------------------------------------------------------------------


@pytest.fixture
def many_pages(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Collects the pages of copied states."""
    pages: list[dict[str, Any]] = []
    ask = AsyncClient.backup_rows

    async def noting(self: AsyncClient, **place: str | int) -> dict[str, Any]:
        pages.append(await ask(self, **place))
        return pages[-1]

    monkeypatch.setattr(AsyncClient, "backup_rows", noting)
    return pages


async def test_a_replica_that_dies_in_the_middle_is_replaced_by_another(
    tmp_path: Path, many_pages: list[dict[str, Any]]
) -> None:
    async with _running(tmp_path / "old", page_bytes=4_000) as (cluster, synod):
        for number in range(40):
            await synod.put(f"f/{number}", b"%d" % number)
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(backup(synod, tmp_path / "b", progress=Silent()))
            await eventually(lambda: len(many_pages) >= 3)
            victim = cluster.coordinator
            await cluster.kill(victim)
        manifest, _ = taking.result()

    sources = [page["source"].partition("/")[0] for page in many_pages]
    assert sources[0] == victim
    assert sources[-1] != victim
    assert manifest.files == 40
    _, contained = BackupFolder(tmp_path / "b").verify()
    assert {f"f/{number}" for number in range(40)} < contained.state.entries.keys()


async def test_a_replica_that_is_behind_is_not_copied(
    tmp_path: Path, many_pages: list[dict[str, Any]]
) -> None:
    """Given a snapshot that was made before the last write, then the write is in the backup."""
    async with _running(tmp_path / "old", page_bytes=4_000) as (_, synod):
        await synod.put("a", b"1")
        early = await synod.backup_rows(at_least=0)
        written = await synod.put("b", b"2")
        manifest, _ = await backup(synod, tmp_path / "b", progress=Silent())
    assert early["slot"] < written.slot <= manifest.slot
    assert manifest.files == 2


# -- the API ---------------------------------------------------------------------------------------


async def test_chunks_and_rows_need_authentication(tmp_path: Path) -> None:
    async with memory_cluster(tmp_path) as cluster:
        guarded = SETTINGS.model_copy(update={"token": SecretStr("correct-horse-battery")})
        app = GatewayApp(cluster.hosts["gateway-1"], guarded)
        transport = httpx.ASGITransport(app)
        async with AsyncClient("http://localhost", transport=transport, token="") as synod:
            for work in (synod.begin_backup(), synod.backup_rows(), synod.chunk("ab" * 32)):
                with pytest.raises(Unauthorized):
                    await work
        token = "correct-horse-battery"
        async with AsyncClient("http://localhost", transport=transport, token=token) as synod:
            await synod.put("a", b"one")
            name = hashlib.sha256(b"one").hexdigest()
            assert await synod.chunk(name) == b"one"
            for wrong in ("ab" * 32, "AB" * 32, "x"):
                with pytest.raises(NotFound):
                    await synod.chunk(wrong)
            begun = await synod.begin_backup()
            assert begun["at_least"] >= (await synod.stat("a")).version
            assert begun["settings"]["stores"] == 3
