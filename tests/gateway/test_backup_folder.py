"""The folder of a backup, without a cluster: the order in which its parts become durable."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from broker.journal_folder import sync_folder
from gateway.backup.folder import (
    BackupDamaged,
    BackupFolder,
    BackupRefused,
    chunk_place,
)
from gateway.backup.manifest import Manifest
from tests.gateway.backups import DATA as OTHERS
from tests.gateway.backups import NAMES, former, make_backup

DATA = b"contents"
NAME = hashlib.sha256(DATA).hexdigest()
MANIFEST = Manifest(
    cluster="c",
    taken_at="2026-01-01T00:00:00+00:00",
    slot=7,
    state_hash="0",
    rows_file="rows.jsonl",
    rows=0,
    rows_bytes=0,
    rows_sha256="0",
    files=0,
    files_bytes=0,
    chunks=1,
    chunks_bytes=len(DATA),
    settings={},
)


def test_the_manifest_appears_once_all_that_it_names_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a chunk, then its bytes are on the disk before it has its name, the names before there
    is a manifest, and the manifest's bytes before it is one.
    """
    fsync, replace = os.fsync, Path.replace
    happened: list[tuple[str, str]] = []

    def note(what: str, path: Path) -> None:
        happened.append((what, os.path.relpath(path, tmp_path)))

    def noting_fsync(descriptor: int) -> None:
        note("bytes", Path(f"/proc/self/fd/{descriptor}").resolve())
        fsync(descriptor)

    def noting_replace(self: Path, target: Path) -> Path:
        note("name", target)
        return replace(self, target)

    def noting_sync(path: Path) -> None:
        note("names in", path)
        with monkeypatch.context() as without:
            without.setattr(os, "fsync", fsync)
            sync_folder(path)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    monkeypatch.setattr("gateway.backup.folder.sync_folder", noting_sync)
    folder = BackupFolder(tmp_path)
    folder.keep_chunk(NAME, DATA)
    folder.finish(MANIFEST)

    chunk = f"chunks/{NAME[:2]}/{NAME}"
    assert happened == [
        ("bytes", f"{chunk}.part"),
        ("name", chunk),
        ("names in", "."),
        ("names in", "chunks"),
        ("names in", f"chunks/{NAME[:2]}"),
        ("bytes", "manifest.json.part"),
        ("name", "manifest.json"),
        ("names in", "."),
    ]
    assert (folder.manifest(), folder.chunk(NAME)) == (MANIFEST, DATA)


def test_what_could_not_be_written_whole_gets_no_name(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path)
    folder.finish(MANIFEST)

    def write_half() -> None:
        with folder.replacing("manifest.json") as file:
            file.write(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()

    assert folder.manifest() == MANIFEST


def test_only_what_no_file_needs_is_removed(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path)
    other = hashlib.sha256(b"other").hexdigest()
    for data in (DATA, b"other"):
        folder.keep_chunk(hashlib.sha256(data).hexdigest(), data)
    names = ("rows-7-0123456789ab.jsonl", "rows-6-0123456789ab.jsonl", "rows-6-0.jsonl.part")
    for name in names:
        (tmp_path / name).write_bytes(b"")
    manifest = MANIFEST.model_copy(update={"rows_file": names[0]})
    folder.finish(manifest)

    folder.prune(manifest, [NAME])

    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"manifest.json", names[0], NAME}
    assert folder.sound_chunk(other) is None


def test_a_whole_backup_is_verified(tmp_path: Path) -> None:
    manifest = make_backup(tmp_path / "b")
    moved: list[int] = []

    found, contained = BackupFolder(tmp_path / "b").verify(moved.append)

    assert found == manifest
    assert sorted(moved) == sorted(len(data) for data in OTHERS)
    assert list(contained.chunk_names()) == list(NAMES)
    assert dict(contained.state.rows()) == dict(former().rows())


@pytest.mark.parametrize(
    ("says", "named"),
    [
        ({"chunks": 1}, "chunks"),
        ({"chunks_bytes": 7}, "chunks"),
        ({"rows": 1}, "rows"),
        ({"slot": 5}, "rows"),
        ({"state_hash": "0"}, "rows"),
        ({"files": 4}, "rows"),
        ({"rows_bytes": 7}, "rows"),
        ({"rows_sha256": "0" * 64}, "rows"),
        ({"rows_file": "rows-1-0123456789ab.jsonl"}, "rows"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_manifest_that_says_something_else_than_what_is_there_is_refused(
    tmp_path: Path, says: dict[str, Any], named: str
) -> None:
    make_backup(tmp_path / "b", **says)
    with pytest.raises(BackupDamaged) as caught:
        BackupFolder(tmp_path / "b").verify()
    assert [part.partition(":")[0].startswith(named) for part in caught.value.parts] == [True]


def test_all_damaged_chunks_are_named(tmp_path: Path) -> None:
    make_backup(tmp_path / "b")
    folder = BackupFolder(tmp_path / "b")
    places = [tmp_path / "b" / chunk_place(name) for name in NAMES]
    places[0].unlink()
    places[1].write_bytes(b"rotten")

    with pytest.raises(BackupDamaged) as caught:
        folder.verify()

    assert caught.value.parts == [
        f"{chunk_place(NAMES[0])}: it is missing",
        f"{chunk_place(NAMES[1])}: its bytes are not those that its name says",
    ]
    for name in NAMES:
        assert folder.sound_chunk(name) is None
        with pytest.raises(BackupDamaged, match=name):
            folder.chunk(name)


def test_a_folder_is_taken_for_the_backups_of_one_cluster_alone(tmp_path: Path) -> None:
    make_backup(tmp_path / "b")
    folder = BackupFolder(tmp_path / "b")
    with folder.claim("former"), pytest.raises(BackupRefused, match="in use"):
        BackupFolder(tmp_path / "b").claim("former").__enter__()
    with pytest.raises(BackupRefused, match="holds a backup of cluster former"):
        folder.claim("another").__enter__()
    (tmp_path / "b/rows-1-0123456789ab.jsonl.part").write_bytes(b"")
    with folder.claim("former"):
        pass
    (tmp_path / "b/letter.txt").write_bytes(b"")
    with pytest.raises(BackupRefused, match=r"letter\.txt"):
        folder.claim("former").__enter__()
    with BackupFolder(tmp_path / "new").claim("any"):
        pass
