"""Signed backups: what a restore takes with trusted keys, and what it says to all others."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.backup.folder import BackupDamaged, BackupFolder
from gateway.backup.manifest import Manifest, _checksum
from gateway.backup.signatures import SignatureRefused, Signer, Trust, new_signing_key
from gateway.cli.main import run
from tests.gateway.backups import NAMES, make_backup


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    new_signing_key(tmp_path / "sign")
    return Signer.load(tmp_path / "sign")


@pytest.fixture
def trust(signer: Signer, tmp_path: Path) -> Trust:
    return Trust.load(tmp_path / "sign.pub")


def rewritten(path: Path, **changes: Any) -> None:
    """Change the manifest, and make its checksum right again, as anybody can."""
    body = json.loads((path / "manifest.json").read_bytes()) | changes
    body.pop("checksum")
    body = {name: value for name, value in body.items() if value is not None}
    (path / "manifest.json").write_text(json.dumps({**body, "checksum": _checksum(body)}))


def test_a_backup_signed_by_a_trusted_key_is_read(
    signer: Signer, trust: Trust, tmp_path: Path
) -> None:
    made = make_backup(tmp_path / "b", signer=signer)
    found, _ = BackupFolder(tmp_path / "b", trust=trust).verify()
    assert found == made
    assert found.signature is not None
    assert found.signature.key == signer.public_id
    BackupFolder(tmp_path / "b").verify()


@pytest.mark.parametrize(
    "change",
    [
        {"slot": 3},
        {"cluster": "another"},
        {"state_hash": "0"},
        {"rows_sha256": "0" * 64},
        {"rows_file": "rows-4-000000000000.jsonl"},
        {"settings": {"stores": 9}},
        {"taken_at": "2027-01-01T00:00:00+00:00"},
        {"chunks": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_manifest_is_refused_before_anything_is_read(
    signer: Signer, trust: Trust, tmp_path: Path, change: dict[str, Any]
) -> None:
    make_backup(tmp_path / "b", signer=signer)
    rewritten(tmp_path / "b", **change)
    with pytest.raises(SignatureRefused, match=r"does not match its manifest: it was changed"):
        BackupFolder(tmp_path / "b", trust=trust).verify()


def test_every_field_that_says_something_is_signed(signer: Signer, tmp_path: Path) -> None:
    """A field that is added some day must not be forgotten."""
    made = make_backup(tmp_path / "b", signer=signer)
    said = set(json.loads(made.statement()))
    assert said == set(Manifest.model_fields) - {"sealed", "signature"} | {"data_key"}


def test_unsigned_or_signed_by_others_is_refused(
    signer: Signer, trust: Trust, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    make_backup(path)
    with pytest.raises(SignatureRefused, match=r"is not signed.*--allow-unsigned"):
        BackupFolder(path, trust=trust).verify()
    lenient = Trust.load(tmp_path / "sign.pub", unsigned=True)
    BackupFolder(path, trust=lenient).verify()

    new_signing_key(tmp_path / "other")
    other = Signer.load(tmp_path / "other")
    theirs = make_backup(path, signer=other)
    for strict_or_lenient in (trust, lenient):
        with pytest.raises(SignatureRefused, match=f"by key {other.public_id}, which is not"):
            BackupFolder(path, trust=strict_or_lenient).verify()
    assert theirs.signature is not None
    forged = theirs.signature.model_copy(update={"key": signer.public_id})
    rewritten(path, signature=forged.model_dump())
    for strict_or_lenient in (trust, lenient):
        with pytest.raises(SignatureRefused, match="does not match its manifest"):
            BackupFolder(path, trust=strict_or_lenient).verify()
    rewritten(path, signature=None, format="synod-backup-1")
    with pytest.raises(SignatureRefused, match="is not signed"):
        BackupFolder(path, trust=trust).verify()


def test_several_keys_may_be_trusted(signer: Signer, tmp_path: Path) -> None:
    new_signing_key(tmp_path / "next")
    both = tmp_path / "both.pem"
    both.write_text((tmp_path / "next.pub").read_text() + (tmp_path / "sign.pub").read_text())
    make_backup(tmp_path / "b", signer=signer)
    BackupFolder(tmp_path / "b", trust=Trust.load(both)).verify()


def test_changed_rows_and_contents_under_a_right_signature_are_named(
    signer: Signer, trust: Trust, tmp_path: Path
) -> None:
    made = make_backup(tmp_path / "b", signer=signer)
    folder = BackupFolder(tmp_path / "b", trust=trust)
    chunk = tmp_path / "b" / folder.place(NAMES[0])
    right = chunk.read_bytes()
    chunk.write_bytes(b"evil")
    with pytest.raises(BackupDamaged, match=f"{NAMES[0]}: its bytes are not"):
        folder.verify()
    chunk.write_bytes(right)
    rows = tmp_path / "b" / made.rows_file
    rows.write_bytes(rows.read_bytes().replace(b"learner-2", b"learner-1"))
    with pytest.raises(BackupDamaged, match="its SHA-256 is"):
        folder.verify()


def test_what_is_no_key_is_refused(signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no key")
    for load, said in ((Signer.load, "holds no private"), (Trust.load, "holds no public")):
        for wrong in ("text", "sign.pub" if load == Signer.load else "sign"):
            with pytest.raises(SignatureRefused, match=said):
                load(tmp_path / wrong)
        with pytest.raises(SignatureRefused, match="can't be read: No such file"):
            load(tmp_path / "none")
    with pytest.raises(SignatureRefused, match="exists already"):
        new_signing_key(tmp_path / "sign")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`backup keygen`, `keygen`, `restore --verify` with keys, `backup rewrap`."""
    sign, keys, path = (str(tmp_path / name) for name in ("s", "k", "b"))
    assert run(["backup", "keygen", sign, "--json"]) == 0
    public = json.loads(capsys.readouterr().out)["key"]
    assert run(["backup", "keygen", sign]) == 1
    assert "exists already" in capsys.readouterr().err
    make_backup(Path(path), signer=Signer.load(Path(sign)))
    trusting = ["restore", path, "--verify", "--trusted-keys", f"{sign}.pub"]
    assert run(trusting) == 0
    assert f"is signed by key {public}" in capsys.readouterr().err
    assert run(["restore", path, "--verify"]) == 0
    assert f"claims to be signed by key {public}" in capsys.readouterr().err
    rewritten(Path(path), slot=3)
    assert run(trusting) == 1
    assert "does not match its manifest" in capsys.readouterr().err
    make_backup(Path(path))
    assert run(trusting) == 1
    assert "is not signed" in capsys.readouterr().err
    assert run([*trusting, "--allow-unsigned"]) == 0
    assert "nothing shows who made it" in capsys.readouterr().err
    assert run(["restore", path, "--verify", "--allow-unsigned"]) == 2
    capsys.readouterr()

    assert run(["keygen", keys, "--json"]) == 0
    key = json.loads(capsys.readouterr().out)["key"]
    opened = ["--key-file", keys]
    assert run(["restore", path, "--verify", *opened]) == 0
    assert "is not encrypted, though a key is set" in capsys.readouterr().err
    assert run(["backup", "rewrap", path, *opened]) == 1
    assert "is not encrypted" in capsys.readouterr().err
    assert run(["restore", path, "--verify", *opened, "--key-command", "true"]) == 2
    assert "set one of them" in capsys.readouterr().err
    assert run(["restore", path, "--verify", "--key-file", sign]) == 1
    assert "line 1 is no key" in capsys.readouterr().err
    assert len(key) == 16
