"""A backup's folder with changed files: it is refused, or read as it was written."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.options import Options
from broker.keys import KeyRing, new_key
from gateway.backup.folder import BackupDamaged, BackupFolder, BackupRefused
from gateway.backup.restore import restore
from gateway.backup.signatures import SignatureRefused, Signer, Trust, new_signing_key
from tests.gateway.backups import DATA, NAMES, former, make_backup

KINDS = ("plain", "signed", "sealed")


class Kept:
    """A backup of each kind, and the keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        new_key(folder / "keys")
        public, _ = new_signing_key(folder / "sign")
        signer = Signer.load(folder / "sign")
        self.keys = KeyRing.from_file(folder / "keys")
        self.trust = Trust.load(public)
        make_backup(folder / "plain")
        make_backup(folder / "signed", signer=signer)
        make_backup(folder / "sealed", signer=signer, keys=self.keys)

    def opened(self, kind: str, path: Path) -> BackupFolder:
        """The folder as who restores opens it."""
        return BackupFolder(
            path,
            self.keys if kind == "sealed" else None,
            None if kind == "plain" else self.trust,
        )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(tmp_path_factory.mktemp("backups"))


Change = tuple[str, float, bytes]
changes: st.SearchStrategy[list[Change]] = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "cut", "remove", "swap", "link", "folder"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=9) | st.just(b'"') | st.just(b"0") | st.just(b"\n"),
    ),
    min_size=1,
    max_size=3,
)


def damage(path: Path, changes: list[Change], which: int) -> None:
    """Change some of the folder's files."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    before = {file: file.read_bytes() for file in files}
    for number, (how, where, data) in enumerate(changes):
        file = files[(which + number) % len(files)]
        other = files[(which + number + 1) % len(files)]
        raw = before[file]
        at = int(where * len(raw))
        file.unlink(missing_ok=True) if not file.is_dir() else file.rmdir()
        match how:
            case "replace":
                file.write_bytes(raw[:at] + data + raw[at + len(data) :])
            case "insert":
                file.write_bytes(raw[:at] + data + raw[at:])
            case "cut":
                file.write_bytes(raw[:at])
            case "swap":
                file.write_bytes(before[other])
            case "link":
                file.symlink_to(other)
            case "folder":
                file.mkdir()


def held(folder: BackupFolder) -> tuple[tuple[bytes, ...], dict[str, Any]] | str:
    """The contents and rows, or why the backup is refused."""
    try:
        _, contained = folder.verify()
        return tuple(folder.chunk(name) for name in NAMES), dict(contained.state.rows())
    except (BackupDamaged, BackupRefused, SignatureRefused) as error:
        return f"{error}"


@given(st.sampled_from(KINDS), st.integers(0, 9), changes)
def test_a_damaged_backup_is_refused_or_read_as_it_was_written(
    kept: Kept, kind: str, which: int, changes: list[Change]
) -> None:
    """Given other bytes, then one of three errors with a text for people, or exactly what was
    backed up: no other exception, and no other contents.
    """
    path = kept.folder / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(kept.folder / kind, path)
    damage(path, changes, which)

    found = held(kept.opened(kind, path))
    if isinstance(found, str):
        assert found.startswith(str(path))
        return
    assert found == (DATA, dict(former().rows()))
    # JSON has several texts for the same manifest; no other file may differ.
    for file in path.rglob("*"):
        if file.is_file() and file.name != "manifest.json":
            assert file.read_bytes() == (kept.folder / kind / file.relative_to(path)).read_bytes()


def test_a_refused_backup_leaves_nothing_behind(kept: Kept, tmp_path: Path) -> None:
    shutil.copytree(kept.folder / "sealed", tmp_path / "b")
    (chunk, *_) = sorted((tmp_path / "b/chunks").glob("*/*"))
    chunk.write_bytes(b"")
    with pytest.raises(BackupDamaged):
        restore(
            *(tmp_path / "b", tmp_path / "data", Options(), "test"),
            keys=kept.keys,
            trust=kept.trust,
        )
    assert not (tmp_path / "data").exists()
