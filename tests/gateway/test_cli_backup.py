"""`synod backup` and `synod restore` as users run them, on clusters in processes of their own."""

import asyncio
import hashlib
import json
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.keys import KeyRing, new_key
from gateway.backup.folder import BackupFolder
from gateway.backup.signatures import Trust, new_signing_key
from synod.client import AsyncClient
from tests.gateway.test_hosting import ROOT, _started, _url_of

pytestmark = pytest.mark.timeout(120)


class Ran(NamedTuple):
    """The exit code and output of a command."""

    code: int
    out: str
    err: str


async def _synod(*arguments: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.cli.main",
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


@pytest.mark.slow
async def test_a_cluster_is_copied_and_made_anew(tmp_path: Path) -> None:
    source, folder, new = tmp_path / "source", str(tmp_path / "backup"), str(tmp_path / "new")
    large = hashlib.shake_128(b"large").digest(2_560_000)
    source.write_bytes(large)
    async with _started("up", "--port", "0", "--data", str(tmp_path / "old")) as process:
        url = ("--url", await _url_of(process))
        assert (await _synod("put", str(source), "large", *url)).code == 0
        async with AsyncClient(url[1]) as client:
            about_it = {"text": "", "content_type": "text/x; a=b", "meta": {"Owner": "Zoë … €"}}
            step = {"op": "put", "path": "of\u2028Zoë", "modified_ms": -1, **about_it}
            await client.transaction([step])
            named = await client.stat("of\u2028Zoë")
            assert (named.content_type, named.meta) == ("text/x; a=b", {"owner": "Zoë … €"})
        taken = await _synod("backup", folder, "--json", *url)
        assert taken.code == 0, taken.err
        about = json.loads(taken.out)
        assert (about["files"], about["chunks"], about["fetched_chunks"]) == (2, 3, 3)
        again = await _synod("backup", folder, *url)
        assert again.code == 0, again.err
        assert "2 files, 2.4 MiB" in again.err
        assert "0 B of contents were new" in again.err
        sealed, keys, sign = (tmp_path / name for name in ("sealed", "keys", "sign"))
        public, _ = new_signing_key(sign)
        new_key(keys)
        with_keys = ("--sign-key", str(sign), "--key-file", str(keys))
        closed = await _synod("backup", str(sealed), *with_keys, *url)
        assert closed.code == 0, closed.err
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    found, _ = BackupFolder(sealed, KeyRing.from_file(keys), Trust.load(public)).verify()
    assert (found.cluster, found.files, found.chunks) == (about["cluster"], 2, 3)
    assert not any(b"large" in path.read_bytes() for path in sealed.rglob("rows-*"))
    checked = await _synod("restore", folder, "--verify", "--json")
    assert (checked.code, json.loads(checked.out)["whole"]) == (0, True)
    made = await _synod("restore", folder, "--data", new, "--json")
    assert made.code == 0, made.err
    restored = json.loads(made.out)
    assert restored["cluster"] != about["cluster"]
    assert restored["slot"] > about["slot"]

    async with _started("up", "--port", "0", "--data", new) as process:
        url = ("--url", await _url_of(process))
        target = tmp_path / "target"
        assert (await _synod("get", "large", str(target), *url)).code == 0
        assert target.read_bytes() == large
        async with AsyncClient(url[1]) as client:
            assert [entry async for entry in client.list("")][1] == named
        refused = await _synod("restore", folder, "--data", new)
        assert refused.code == 1
        assert "is not empty" in refused.err
        other = await _synod("backup", folder, *url)
        assert other.code == 1
        assert "holds a backup of cluster" in other.err
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    (chunk, *_) = sorted((tmp_path / "backup/chunks").glob("*/*"))
    chunk.write_bytes(b"rotten")
    for arguments in (("--verify",), ("--data", str(tmp_path / "newer"))):
        damaged = await _synod("restore", folder, *arguments)
        assert damaged.code == 1
        assert "Traceback" not in damaged.err
        assert f"chunks/{chunk.name[:2]}/{chunk.name}: its bytes are not" in damaged.err
    assert not (tmp_path / "newer").exists()


async def test_a_folder_without_a_backup_is_refused(tmp_path: Path) -> None:
    ran = await _synod("restore", str(tmp_path), "--data", str(tmp_path / "new"))
    assert ran.code == 1
    assert ran.err.startswith("synod: ")
    assert "manifest.json is missing" in ran.err
