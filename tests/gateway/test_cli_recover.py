"""`synod recover` as users run it, on a cluster in processes of its own with encrypted journals."""

import json
import os
import shutil
from pathlib import Path

import pytest

from broker.keys import new_key
from synod.client import AsyncClient
from tests.gateway.test_cli_backup import _synod
from tests.gateway.test_hosting import _started, _url_of
from tests.long import only_long

pytestmark = pytest.mark.timeout(300)

LARGE = os.urandom(2_560_000)


@only_long
async def test_a_cluster_that_lost_its_acceptors_is_founded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a cluster that was killed and lost three of five acceptors, then its stores' folders
    make a new one with all files, once the user says that the old one is dead.
    """
    keys, old, new = tmp_path / "keys", tmp_path / "old", tmp_path / "new"
    new_key(keys)
    monkeypatch.setenv("SYNOD_KEY_FILE", str(keys))
    monkeypatch.setenv("SYNOD_ENCRYPT_JOURNALS", "true")
    async with _started("up", "--port", "0", "--data", str(old)) as process:
        async with AsyncClient(await _url_of(process)) as client:
            await client.put("small", b"1")
            await client.put("large", LARGE)
        running = await _synod("recover", "--from-store", str(old), "--dry-run")
        assert running.code == 1
        assert " runs on " in running.err
        process.kill()
        await process.wait()
    whole = await _synod("recover", "--from-store", str(old), "--data", str(new))
    assert whole.code == 1
    assert "a majority of the acceptors is here" in whole.err
    for number in (1, 2, 3):
        shutil.rmtree(old / f"acceptor-{number}")

    asked = (
        "recover",
        "--from-store",
        str(old / "store-3"),
        "--from-store",
        str(old / "learner-2"),
    )
    look = await _synod(*asked, "--dry-run", "--data", str(new))
    assert look.code == 0, look.err
    assert "store-3" in look.out
    assert "in the view" in look.out
    assert "2 files" in look.out
    refused = await _synod(*asked, "--data", str(new))
    assert (refused.code, new.exists()) == (1, False)
    assert "nothing here proves that the old cluster is dead" in refused.err
    dead = "--the-old-cluster-is-dead"
    inside = await _synod(*asked, "--data", str(old / "store-3" / "new"), dead)
    assert inside.code == 1

    done = await _synod(*asked, "--data", str(new), dead, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["founded"]["cluster"] != report["cluster"]
    again = await _synod(*asked, "--data", str(new), dead)
    assert again.code == 1
    assert "is not empty" in again.err
    assert not any(b"small" in path.read_bytes() for path in new.rglob("journal.log"))
    async with (
        _started("up", "--port", "0", "--data", str(new)) as process,
        AsyncClient(await _url_of(process)) as client,
    ):
        assert await client.read("small") == b"1"
        assert await client.read("large") == LARGE
        await client.put("small", b"2")
