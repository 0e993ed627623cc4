"""A cluster with encrypted journals in a process of its own: its files, its key, its refusals."""

import os
import signal
from pathlib import Path

import pytest

from broker.keys import new_key
from synod.client import AsyncClient
from tests.gateway.test_backup_sealed import files
from tests.gateway.test_cli_backup import _synod
from tests.gateway.test_hosting import _started, _url_of
from tests.long import only_long

pytestmark = pytest.mark.timeout(300)

SMALL, LARGE = b"a small secret " * 20, os.urandom(32) + b"a large secret " * 100_000


@only_long
async def test_a_cluster_whose_disks_tell_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given files in an encrypted cluster, then no file of its data holds them in clear; it starts
    again with a new key before the former one, and with neither missing.
    """
    keys = tmp_path / "keys"
    new_key(keys)
    monkeypatch.setenv("SYNOD_KEY_FILE", str(keys))
    monkeypatch.setenv("SYNOD_ENCRYPT_JOURNALS", "true")
    data = str(tmp_path / "data")

    async with _started("up", "--port", "0", "--data", data) as process:
        async with AsyncClient(await _url_of(process)) as client:
            await client.put("small", SMALL)
            await client.put("large", LARGE)
        process.kill()
        await process.wait()
    held = files(tmp_path / "data")
    assert len(held) > 30
    for secret in (SMALL[:30], LARGE[:32], LARGE[-60:]):
        assert [name for name, raw in held.items() if secret in raw] == []

    new_key(keys)
    async with _started("up", "--port", "0", "--data", data) as process:
        async with AsyncClient(await _url_of(process)) as client:
            assert await client.read("small") == SMALL
            assert await client.read("large") == LARGE
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    former = keys.read_text().splitlines()[1]
    keys.write_text(former)
    refused = await _synod("up", "--port", "0", "--data", data)
    assert refused.code == 1
    assert "its data key is wrapped by key" in refused.err
    assert former not in refused.err
    monkeypatch.delenv("SYNOD_KEY_FILE")
    refused = await _synod("up", "--port", "0", "--data", data)
    assert refused.code == 2
    assert "encrypt_journals is set, but neither key_file nor key_command is" in refused.err
    monkeypatch.delenv("SYNOD_ENCRYPT_JOURNALS")
    refused = await _synod("up", "--port", "0", "--data", data)
    assert refused.code == 1
    assert "is encrypted: set key_file or key_command" in refused.err
