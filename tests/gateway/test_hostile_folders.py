"""Folders that an attacker prepared: backups that lead elsewhere, targets full of links."""

import asyncio
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.options import Options
from broker.journal import Journal
from broker.journal_folder import JournalError
from gateway.backup.folder import BackupDamaged, BackupFolder, BackupRefused, chunk_place
from gateway.backup.restore import restore
from gateway.cli.download_targets import DownloadFolder
from gateway.cli.transfer import Silent, get_tree
from synod.client import AsyncClient
from synod.errors import SynodError
from tests.gateway.backups import NAMES, make_backup
from tests.gateway.test_cli import Shell


@pytest.fixture
def synod(port: int, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(port, capsys)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no command may touch."""
    folder = tmp_path / "outside"
    (folder / "ab").mkdir(parents=True)
    (folder / "ab" / ("ab" * 32)).write_bytes(b"precious")
    (folder / "precious").write_bytes(b"precious")
    return folder


def seen(folder: Path) -> dict[str, bytes]:
    """The contents of a folder, without following links."""
    return {
        str(path.relative_to(folder)): os.readlink(path).encode()
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


# -- backups --------------------------------------------------------------------------------------


def _link_chunks(backup: Path, outside: Path) -> None:
    os.rename(backup / "chunks", backup.parent / "away")
    (backup / "chunks").symlink_to(outside)


def _link_chunk_folder(backup: Path, outside: Path) -> None:
    folder = backup / chunk_place(NAMES[0])
    os.rename(folder.parent, backup.parent / "away")
    folder.parent.symlink_to(backup.parent / "away")


def _link_chunk(backup: Path, outside: Path) -> None:
    chunk = backup / chunk_place(NAMES[0])
    os.rename(chunk, backup.parent / "away")
    chunk.symlink_to(backup.parent / "away")


def _device_for_chunk(backup: Path, outside: Path) -> None:
    chunk = backup / chunk_place(NAMES[0])
    chunk.unlink()
    os.mkfifo(chunk)


def _device_for_rows(backup: Path, outside: Path) -> None:
    (rows,) = backup.glob("rows-*")
    rows.unlink()
    rows.symlink_to("/dev/zero")


def _pipe_for_rows(backup: Path, outside: Path) -> None:
    (rows,) = backup.glob("rows-*")
    rows.unlink()
    os.mkfifo(rows)


def _endless_rows(backup: Path, outside: Path) -> None:
    (rows,) = backup.glob("rows-*")
    os.truncate(rows, 2**40)


def _manifest_is_endless(backup: Path, outside: Path) -> None:
    os.truncate(backup / "manifest.json", 2**40)


def _manifest_is_a_link(backup: Path, outside: Path) -> None:
    os.rename(backup / "manifest.json", backup.parent / "away")
    (backup / "manifest.json").symlink_to(backup.parent / "away")


def _manifest_nests(backup: Path, outside: Path) -> None:
    (backup / "manifest.json").write_text("[" * 100_000)


Meddle = Callable[[Path, Path], None]


@pytest.mark.parametrize(
    "meddle",
    [
        _link_chunks,
        _link_chunk_folder,
        _link_chunk,
        _device_for_chunk,
        _device_for_rows,
        _pipe_for_rows,
        _endless_rows,
        _manifest_is_endless,
        _manifest_is_a_link,
        _manifest_nests,
    ],
)
def test_a_backup_that_leads_elsewhere_is_refused(
    tmp_path: Path, outside: Path, meddle: Meddle
) -> None:
    make_backup(tmp_path / "b")
    meddle(tmp_path / "b", outside)

    with pytest.raises(BackupDamaged):
        restore(tmp_path / "b", tmp_path / "data", Options(), "test")

    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("says", ["../outside/precious", "/etc/passwd", "rows.jsonl/../x", ""])
def test_the_rows_are_in_the_folder(tmp_path: Path, outside: Path, says: str) -> None:
    make_backup(tmp_path / "b", rows_file=says)

    with pytest.raises(BackupDamaged, match=r"manifest\.json"):
        BackupFolder(tmp_path / "b").verify()


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc", "a//b", "new\nline", "a/../b", ".", "x" * 256, "gone/a"]
)
def test_a_name_that_no_client_could_give_is_refused(tmp_path: Path, path: str) -> None:
    """Given rows whose hash is right, but that name a file as no PUT can, then it is damaged."""
    manifest = make_backup(tmp_path / "b")
    rows = tmp_path / "b" / manifest.rows_file
    text = rows.read_text().replace('"entry/c"', json.dumps(f"entry/{path}"))
    text = text.replace(r"\"path\":\"c\"", json.dumps(json.dumps({"path": path})[1:-1])[1:-1])
    _again(tmp_path / "b", text.encode())

    with pytest.raises(BackupDamaged, match="rows"):
        BackupFolder(tmp_path / "b").verify()


def _again(folder: Path, rows: bytes) -> None:
    """Put other rows into a backup, with a manifest that names them."""
    import hashlib

    backup = BackupFolder(folder)
    manifest = backup.manifest()
    (folder / manifest.rows_file).write_bytes(rows)
    changes = {"rows_bytes": len(rows), "rows_sha256": hashlib.sha256(rows).hexdigest()}
    backup.finish(manifest.model_copy(update=changes))


@pytest.mark.parametrize(
    "row", [b"[]", b"7", b"null", b'["entry/a", 7]', b"[" * 50_000, b'["entry/a", "{}"]', b"\xff"]
)
def test_a_row_that_is_none_is_damage(tmp_path: Path, row: bytes) -> None:
    manifest = make_backup(tmp_path / "b")
    _again(tmp_path / "b", (tmp_path / "b" / manifest.rows_file).read_bytes() + row + b"\n")

    with pytest.raises(BackupDamaged, match="rows"):
        BackupFolder(tmp_path / "b").verify()


def test_nothing_is_removed_that_no_backup_wrote(tmp_path: Path, outside: Path) -> None:
    """Given a folder with links and files of others among a backup's own, when a backup is
    finished in it, then those and what they lead to are as they were.
    """
    manifest = make_backup(tmp_path / "b")
    chunks = tmp_path / "b/chunks"
    (chunks / "ab").symlink_to(outside / "ab")
    (chunks / "notes").mkdir()
    (chunks / "notes/mine").write_bytes(b"mine")
    (chunks / NAMES[0][:2] / "mine").write_bytes(b"mine")
    (tmp_path / "b/rows-of-mine").write_bytes(b"mine")
    before = seen(tmp_path)

    BackupFolder(tmp_path / "b").prune(manifest, NAMES)

    assert seen(tmp_path) == before


@pytest.mark.parametrize("meddle", [_link_chunks, _manifest_is_a_link])
def test_a_backup_is_not_taken_through_a_link(
    tmp_path: Path, outside: Path, meddle: Meddle
) -> None:
    make_backup(tmp_path / "b")
    meddle(tmp_path / "b", outside)
    before = seen(tmp_path)

    with pytest.raises(SynodError), BackupFolder(tmp_path / "b").claim("former"):
        pass
    with pytest.raises((OSError, SynodError)):
        BackupFolder(tmp_path / "b").keep_chunk("cd" * 32, b"x") if meddle is _link_chunks else (
            BackupFolder(tmp_path / "b").manifest()
        )

    assert seen(tmp_path) == before


def test_a_draft_that_is_a_link_is_not_written_through(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("manifest.json.part", "rows.jsonl.part"):
        (tmp_path / "b" / name).symlink_to(outside / "precious")

    with BackupFolder(tmp_path / "b").rows_draft() as draft:
        draft.write(b"rows")

    assert (outside / "precious").read_bytes() == b"precious"


def test_the_root_of_a_file_system_is_taken(tmp_path: Path) -> None:
    """Given a disk of its own, with its lost+found, then it takes a backup, and a cluster."""
    make_backup(tmp_path / "b")
    for name in ("b", "data"):
        (tmp_path / name / "lost+found").mkdir(parents=True)

    with BackupFolder(tmp_path / "b").claim("former"):
        pass
    restore(tmp_path / "b", tmp_path / "data", Options(), "test")

    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        *Options().members,
        "lost+found",
    }


@pytest.mark.parametrize("kind", ["link", "others"])
def test_what_a_restore_did_not_leave_is_not_removed(
    tmp_path: Path, outside: Path, kind: str
) -> None:
    make_backup(tmp_path / "b")
    (tmp_path / "data").mkdir()
    if kind == "link":
        (tmp_path / "data/.restoring").symlink_to(outside)
    else:
        (tmp_path / "data/.restoring/letters").mkdir(parents=True)
    before = seen(tmp_path)

    with pytest.raises(BackupRefused, match="is not empty"):
        restore(tmp_path / "b", tmp_path / "data", Options(), "test")

    assert seen(tmp_path) == before


# -- permissions ----------------------------------------------------------------------------------


def _open_to_others(folder: Path) -> list[str]:
    return [
        str(path)
        for path in (folder, *folder.rglob("*"))
        if stat.S_IMODE(path.lstat().st_mode) & 0o077 and not path.is_symlink()
    ]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_only_the_owner_reads_data_and_backups(tmp_path: Path, umask: int) -> None:
    former = os.umask(umask)
    try:
        journal = Journal.open(tmp_path / "data/store-1", "store-1", "c")
        os.umask(0o022)
        (tmp_path / "backups").mkdir(mode=0o700)
        os.umask(umask)
        make_backup_of(tmp_path / "backups/b")
    finally:
        os.umask(former)

    assert (tmp_path / "data/store-1/journal.db-wal").exists()
    assert _open_to_others(tmp_path / "data") == []
    assert _open_to_others(tmp_path / "backups") == []
    journal.close()


def make_backup_of(path: Path) -> None:
    backup = BackupFolder(path)
    with backup.claim("c"):
        with backup.rows_draft() as draft:
            draft.write(b"x")
            backup.keep_rows(draft, 1)
        backup.keep_chunk("ab" * 32, b"x")
        with backup.replacing("manifest.json") as file:
            file.write(b"{}")


def test_what_was_open_to_others_is_closed(tmp_path: Path) -> None:
    """Given folders of an earlier version, then they are narrowed when they are used again."""
    Journal.open(tmp_path / "data/store-1", "store-1", "c").close()
    make_backup(tmp_path / "b")
    for path in (*(tmp_path / "data/store-1").iterdir(), *(tmp_path / "b").iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (tmp_path / "data/store-1").chmod(0o755)
    (tmp_path / "b").chmod(0o755)

    Journal.open(tmp_path / "data/store-1", "store-1", "c").close()
    with BackupFolder(tmp_path / "b").claim("former"):
        pass

    assert _open_to_others(tmp_path / "data") == []
    assert [Path(path).name for path in _open_to_others(tmp_path / "b")] == ["chunks"]


def test_a_journal_that_is_a_link_is_not_followed(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "store-1").mkdir()
    (tmp_path / "store-1/journal.db").symlink_to(outside / "precious")

    with pytest.raises(JournalError, match="can't be used"):
        Journal.open(tmp_path / "store-1", "store-1", "c")

    assert (outside / "precious").read_bytes() == b"precious"


# -- where a download goes ------------------------------------------------------------------------


async def test_a_file_keeps_who_may_read_it(synod: Shell, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "secret").write_bytes(b"former")
    (tmp_path / "secret").chmod(0o640)
    (tmp_path / "link").symlink_to("secret")
    await synod("put", str(tmp_path / "new"), "f")

    assert (await synod("get", "f", str(tmp_path / "link"))).code == 0

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "secret").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o640


async def test_a_read_only_file_is_kept_unless_it_is_forced(synod: Shell, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "kept").chmod(0o444)
    await synod("put", str(tmp_path / "new"), "d/kept")

    refused = [
        await synod("get", "d/kept", str(tmp_path / "kept")),
        await synod("get", "-r", "d", str(tmp_path)),
    ]
    kept = (tmp_path / "kept").read_bytes()
    forced = await synod("get", "-f", "d/kept", str(tmp_path / "kept"))

    assert [ran.code for ran in refused] == [1, 1]
    assert all("read-only" in ran.err for ran in refused)
    assert (kept, forced.code, (tmp_path / "kept").read_bytes()) == (b"kept", 0, b"new")


async def test_a_pipe_gets_the_bytes_and_stays_a_pipe(synod: Shell, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    os.mkfifo(tmp_path / "pipe")
    await synod("put", str(tmp_path / "new"), "f")

    reading = asyncio.create_task(asyncio.to_thread((tmp_path / "pipe").read_bytes))
    got = await synod("get", "f", str(tmp_path / "pipe"))
    null = await synod("get", "f", "/dev/null")

    assert (got.code, null.code, await reading) == (0, 0, b"new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


async def test_a_tree_goes_through_no_link_of_its_target(
    synod: Shell, tmp_path: Path, outside: Path
) -> None:
    """Given links and a pipe in the target, then they are named, and the rest is copied."""
    target = tmp_path / "target"
    (target / "in").mkdir(parents=True)
    (target / "folder").symlink_to(outside)
    (target / "in/file").symlink_to(outside / "precious")
    (target / "in/dangling").symlink_to(outside / "new")
    os.mkfifo(target / "in/pipe")
    (tmp_path / "f").write_bytes(b"new")
    for name in ("folder/precious", "in/file", "in/dangling", "in/pipe", "in/fine", "fine"):
        await synod("put", str(tmp_path / "f"), f"d/{name}")
    before = seen(outside)

    got = await synod("get", "-r", "d", str(target), "--json")

    assert got.code == 1
    assert {failure["path"] for failure in got.json()["failures"]} == {
        "d/folder",
        "d/folder/precious",
        "d/in/file",
        "d/in/dangling",
        "d/in/pipe",
    }
    assert [(target / name).read_bytes() for name in ("in/fine", "fine")] == [b"new", b"new"]
    assert seen(outside) == before


def test_two_names_that_are_one_on_this_file_system_are_refused(tmp_path: Path) -> None:
    """Given a file system on which `A` and `a` are one name (as a link makes them here)."""

    async def write(tree: DownloadFolder, name: str) -> None:
        with tree.target(name) as target:
            async with target.replacing() as (give, dress):
                give(name.encode())
                dress(False, 0)

    with DownloadFolder(tmp_path / "t") as tree:
        asyncio.run(write(tree, "A"))
        os.link(tmp_path / "t/A", tmp_path / "t/a")
        with pytest.raises(OSError, match="the same as"):
            asyncio.run(write(tree, "a"))

    assert (tmp_path / "t/A").read_bytes() == b"A"


async def test_names_that_a_gateway_may_not_give_are_named(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a gateway that lists names which lead elsewhere, then none of them is written."""
    async with AsyncClient(f"http://127.0.0.1:{port}") as synod:
        await synod.put("d/fine", b"fine")
        real = AsyncClient.list

        async def listing(self: AsyncClient, path: str, **options: Any) -> Any:
            async for entry in real(self, path, **options):
                for bad in ("d/../../x", "/etc/x", "other/x", "d/a\0b", "d", ""):
                    yield type(entry)(bad, is_directory=False, size=1)
                yield entry

        monkeypatch.setattr(AsyncClient, "list", listing)
        tally = await get_tree(synod, "d", tmp_path / "t", progress=Silent())

    assert len(tally.failures) == 6
    assert (tally.files, tally.stopped) == (1, "")
    assert seen(tmp_path) == {"t/fine": b"fine"}
