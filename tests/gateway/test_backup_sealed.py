"""Encrypted backups: nothing is readable, nothing can be changed, and keys can be."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.options import Options
from broker.journal import Journal
from broker.keys import KeyRing, KeysRefused, new_key
from gateway.backup.folder import BackupDamaged, BackupFolder, BackupRefused
from gateway.backup.manifest import Manifest, _checksum
from gateway.backup.restore import restore
from gateway.backup.signatures import Signer, Trust, new_signing_key
from gateway.backup.vault import SEGMENT_BYTES, Vault, sealed_size
from tests.gateway.backups import DATA, NAMES, former, make_backup

SEGMENT = SEGMENT_BYTES + 16
HEAD = sealed_size(0) - 16


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    new_key(tmp_path / "keys")
    return KeyRing.from_file(tmp_path / "keys")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "b"


def files(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def test_nothing_of_users_is_readable_in_the_folder_and_all_of_it_is_restored(
    keys: KeyRing, path: Path, tmp_path: Path
) -> None:
    """Given an encrypted backup, then neither contents nor their hashes nor rows are in it, and a
    cluster is made from it as from any other.
    """
    made = make_backup(path, keys=keys)

    held = files(path)
    assert made.format == "synod-backup-2"
    assert len(held) == 2 + len(DATA)
    for name, raw in held.items():
        for told in (*DATA, b"entry", b"session", *(name.encode() for name in NAMES)):
            assert told not in raw + name.encode(), (name, told)
    found, contained = BackupFolder(path, keys).verify()
    assert found == made
    assert dict(contained.state.rows()) == dict(former().rows())
    options = Options(acceptors=3, proposers=2, learners=2, stores=2)
    restore(path, tmp_path / "data", options, "test", keys=keys)
    with Journal.open(tmp_path / "data/store-1", "store-1", "test") as journal:
        assert tuple(journal.read_blob(name) for name in NAMES) == DATA


def test_a_cluster_is_restored_into_encrypted_journals(keys: KeyRing, tmp_path: Path) -> None:
    """Given `encrypt_journals`, then no journal of the new cluster holds anything in clear, and
    each is opened by the key alone. So a cluster that is not encrypted becomes one that is.
    """
    make_backup(tmp_path / "b")
    options = Options(acceptors=3, proposers=2, learners=2, stores=2)
    restore(tmp_path / "b", tmp_path / "data", options, "test", keys=keys, encrypted=True)
    held = files(tmp_path / "data")
    assert not [name for name, raw in held.items() if any(data in raw for data in DATA)]
    for name in options.members:
        with pytest.raises(KeysRefused, match="is encrypted"):
            Journal.open(tmp_path / "data" / name, name, "test")
    with Journal.open(tmp_path / "data/store-1", "store-1", "test", keys=keys) as journal:
        assert tuple(journal.read_blob(name) for name in NAMES) == DATA


def test_without_the_right_key_it_is_refused_and_says_which_one_it_needs(
    keys: KeyRing, path: Path, tmp_path: Path
) -> None:
    make_backup(path, keys=keys)
    new_key(tmp_path / "others")
    with pytest.raises(BackupRefused, match="is encrypted: name the key with --key-file"):
        BackupFolder(path).verify()
    others = KeyRing.from_file(tmp_path / "others")
    said = f"wrapped by key {keys.current_id}; .*others holds {others.current_id}"
    with pytest.raises(BackupRefused, match=said):
        BackupFolder(path, others).verify()
    for none_or_wrong in (None, others):
        with pytest.raises(BackupRefused, match="encrypted"):
            BackupFolder(path, none_or_wrong).claim("former").__enter__()


def test_a_new_key_rewrites_the_manifest_alone_and_the_signature_holds(
    keys: KeyRing, path: Path, tmp_path: Path
) -> None:
    public, _ = new_signing_key(tmp_path / "sign")
    make_backup(path, keys=keys, signer=Signer.load(tmp_path / "sign"))
    before = files(path)
    new_key(tmp_path / "keys")
    both = KeyRing.from_file(tmp_path / "keys")
    first, _ = (tmp_path / "keys").read_text().splitlines()
    (tmp_path / "new").write_text(first)

    BackupFolder(path, both).rewrap()

    after = files(path)
    assert {name for name in after if after[name] != before[name]} == {"manifest.json"}
    new = KeyRing.from_file(tmp_path / "new")
    BackupFolder(path, new, Trust.load(public)).verify()
    with pytest.raises(BackupRefused, match=f"by key {new.current_id}"):
        BackupFolder(path, keys).verify()
    make_backup(tmp_path / "plain")
    with pytest.raises(BackupRefused, match="is not encrypted"):
        BackupFolder(tmp_path / "plain", new).rewrap()


def test_a_newer_backup_keeps_the_data_key_and_the_chunks(keys: KeyRing, path: Path) -> None:
    """Given a folder with an encrypted backup, then the next one fetches nothing again; a chunk
    that is written anew has another salt, so no nonce is used twice.
    """
    first = make_backup(path, keys=keys)
    before = files(path)
    folder = BackupFolder(path, keys)
    with folder.claim("former"):
        assert tuple(folder.sound_chunk(name) for name in NAMES) == DATA
    second = make_backup(path, keys=keys)
    after = files(path)

    assert first.sealed is not None
    assert second.sealed is not None
    assert first.sealed.data_key == second.sealed.data_key
    assert set(before) == set(after)
    changed = [name for name in after if before[name] == after[name]]
    assert changed == []
    BackupFolder(path, keys).verify()


def test_encryption_begins_with_a_backup_and_leaves_nothing_in_clear(
    keys: KeyRing, path: Path
) -> None:
    make_backup(path)
    plain = files(path)
    make_backup(path, keys=keys)

    sealed = files(path)
    # The rows keep their name, which slot and hash make up; chunks get others.
    assert len(sealed) == len(plain)
    for raw in sealed.values():
        assert raw not in plain.values()
        assert not any(data in raw for data in DATA)
    BackupFolder(path, keys).verify()


def test_another_cluster_has_another_data_key(keys: KeyRing, tmp_path: Path) -> None:
    names = [make_backup(tmp_path / name, keys=keys).sealed for name in ("a", "b")]
    assert len({sealed.data_key for sealed in names if sealed is not None}) == 2


def big(path: Path, keys: KeyRing) -> tuple[BackupFolder, str, Path]:
    """A folder with a chunk of several segments beside the backup's, its name, and its file."""
    folder = BackupFolder(path, keys)
    with folder.claim("former"):
        data = bytes(range(256)) * (3 * SEGMENT_BYTES // 256) + b"the rest"
        name = hashlib.sha256(data).hexdigest()
        folder.keep_chunk(name, data)
        assert folder.chunk(name) == data
    return folder, name, path / folder.place(name)


Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: HEAD + SEGMENT],
        lambda raw: raw[: HEAD + 2 * SEGMENT],
        lambda raw: raw[: HEAD + 3 * SEGMENT],
        lambda raw: raw[:-1],
        lambda raw: raw[:HEAD],
        lambda raw: raw[:10],
        lambda raw: b"",
        lambda raw: raw + b"x",
        lambda raw: raw + raw[-SEGMENT:],
        lambda raw: raw[:HEAD] + raw[HEAD + SEGMENT :],
        lambda raw: (
            raw[:HEAD]
            + raw[HEAD + SEGMENT : HEAD + 2 * SEGMENT]
            + raw[HEAD : HEAD + SEGMENT]
            + raw[HEAD + 2 * SEGMENT :]
        ),
        lambda raw: raw[:8] + bytes([raw[8] ^ 1]) + raw[9:],
        lambda raw: raw[:-20] + bytes([raw[-20] ^ 1]) + raw[-19:],
    ],
    ids=[
        *("one segment", "two segments", "no last segment", "a byte less", "only a head"),
        *("half a head", "empty", "a byte more", "a segment more", "the first one gone"),
        *("two swapped", "another salt", "a bit"),
    ],
)
def test_a_file_that_was_cut_reordered_or_changed_is_refused(
    keys: KeyRing, path: Path, damage: Damage
) -> None:
    make_backup(path, keys=keys)
    folder, name, file = big(path, keys)
    file.write_bytes(damage(file.read_bytes()))
    assert folder.sound_chunk(name) is None
    with pytest.raises(BackupDamaged, match=f"{file.name}: (part|it is)"):
        folder.chunk(name)


def test_a_file_in_anothers_place_is_refused(keys: KeyRing, path: Path) -> None:
    """Also one with the same contents' key, from the same backup: chunks for chunks and rows."""
    make_backup(path, keys=keys)
    folder = BackupFolder(path, keys)
    manifest = folder.manifest()
    one, other = (path / folder.place(name) for name in NAMES)
    raw = one.read_bytes()
    shutil.copy(other, one)
    with pytest.raises(BackupDamaged, match=r"part 1 of 1 can't be decrypted"):
        folder.verify()
    one.write_bytes(raw)
    folder.verify()
    shutil.copy(path / manifest.rows_file, one)
    with pytest.raises(BackupDamaged, match=rf"{one.name}: part 1 of 1"):
        folder.verify()


def test_a_manifest_changed_without_the_key_is_refused(keys: KeyRing, path: Path) -> None:
    """Given a change that keeps the checksum right, as anybody can."""
    make_backup(path, keys=keys)
    file = path / "manifest.json"
    right = json.loads(file.read_bytes())
    right.pop("checksum")
    other = make_backup(path.with_name("c"), keys=keys).sealed
    assert other is not None
    for change, said in (
        ({"slot": 5}, "changed by somebody without the key"),
        ({"cluster": "x"}, "changed by somebody without the key"),
        ({"sealed": {**right["sealed"], "mac": "0" * 64}}, "without the key"),
        ({"sealed": {**right["sealed"], "data_key": "0" * 16}}, "another backup's"),
        ({"sealed": other.model_dump(), "slot": 5}, "without the key"),
        ({"sealed": other.model_dump()}, "rows.* can't be decrypted"),  # It says the same.
    ):
        body = {**right, **change}
        file.write_text(json.dumps({**body, "checksum": _checksum(body)}))
        with pytest.raises(BackupDamaged, match=said):
            BackupFolder(path, keys).verify()
    body = {**right, "sealed": {**right["sealed"], "wrapped": "00" * 48}}
    file.write_text(json.dumps({**body, "checksum": _checksum(body)}))
    with pytest.raises(BackupRefused, match="can't be unwrapped"):
        BackupFolder(path, keys).verify()


def test_what_is_neither_signed_nor_encrypted_is_what_former_releases_read(path: Path) -> None:
    make_backup(path)
    body = json.loads((path / "manifest.json").read_bytes())
    assert body["format"] == "synod-backup-1"
    assert not {"sealed", "signature"} & set(body)
    body.pop("checksum")
    for wrong in ({**body, "format": "synod-backup-2"}, {**body, "format": "synod-backup-3"}):
        with pytest.raises(ValueError, match="this Synod can't read it"):
            Manifest.load(json.dumps({**wrong, "checksum": _checksum(wrong)}).encode())


def test_equal_parts_are_encrypted_differently(path: Path) -> None:
    """A nonce that is used twice with one key would show that, and more."""
    path.mkdir()
    vault = Vault.new()
    sealed = set()
    for _ in range(2):
        with (path / "f").open("w+b") as file:
            writer = vault.writer(file, "x")
            writer.write(bytes(4 * SEGMENT_BYTES))
            writer.finish()
            file.seek(HEAD)
            sealed |= {file.read(SEGMENT)[:SEGMENT_BYTES] for _ in range(4)}
    assert len(sealed) == 8


def test_no_size_is_written_otherwise_than_it_is_read(path: Path) -> None:
    """Around the borders of segments."""
    path.mkdir()
    vault = Vault.new()
    for size in (0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 2 * SEGMENT_BYTES):
        data = os.urandom(size)
        with (path / "f").open("w+b") as file:
            writer = vault.writer(file, "x")
            for at in range(0, size, 50_000):
                writer.write(data[at : at + 50_000])
            writer.finish()
            file.flush()
            assert file.tell() == sealed_size(size)
            file.seek(0)
            assert vault.reader(file, "x").readall() == data
            file.seek(0)
            with pytest.raises(ValueError, match="put in another's place"):
                vault.reader(file, "y").readall()
