"""mv, cp, txn and watch, as users type them."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from actors.values import Constants
from synod.client import AsyncClient
from tests.gateway.fake import FakeCluster
from tests.gateway.test_cli import Shell

ROOT = Path(__file__).parents[2]


@pytest.fixture
def synod(port: int, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(port, capsys)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    (tmp_path / "hello.txt").write_text("hello\n")
    return tmp_path


async def test_mv_and_cp_take_files_and_whole_directories(synod: Shell, local: Path) -> None:
    await synod("put", f"{local}/hello.txt", "a/hello.txt")

    moved = await synod("mv", "--json", "a", "b/c")
    copied = await synod("cp", "-r", "b", "d")
    into = await synod("cp", "/b/c/hello.txt", "d/")

    assert (moved.code, moved.json()["target"], copied.code, into.code) == (0, "b/c", 0, 0)
    assert (await synod("ls", "d")).out == "c/\nhello.txt\n"
    assert (await synod("ls", "")).out == "b/\nd/\n"


async def test_mv_replaces_only_if_forced(synod: Shell, local: Path) -> None:
    await synod("put", f"{local}/hello.txt", "a")
    await synod("put", f"{local}/hello.txt", "b")

    refused = await synod("mv", "a", "b")
    forced = await synod("mv", "-f", "a", "b")
    gone = await synod("mv", "a", "b")

    assert (refused.code, forced.code, gone.code) == (1, 0, 4)
    assert "add -f to replace it, or write b/ to put it into it" in refused.err
    assert "'a' does not exist" in gone.err


async def test_txn_runs_all_steps_or_none(synod: Shell, local: Path) -> None:
    steps = local / "steps.json"
    steps.write_text(
        json.dumps(
            [
                {"op": "check", "path": "a.txt", "if_none_match": "*"},
                {"op": "put", "path": "a.txt", "file": f"{local}/hello.txt"},
                {"op": "copy", "source": "a.txt", "target": "b"},
            ]
        )
    )

    first = await synod("txn", "--json", str(steps))
    second = await synod("txn", str(steps))

    assert (first.code, first.json()["steps"], second.code) == (0, 3, 5)
    assert "step 0: 'a.txt'" in second.err
    stat = (await synod("stat", "--json", "a.txt")).json()
    assert (stat["size"], stat["content_type"]) == (6, "text/plain")


@pytest.mark.parametrize("text", ["{", "3", '{"step": []}', "[1]"])
async def test_txn_explains_invalid_input(synod: Shell, local: Path, text: str) -> None:
    (local / "steps.json").write_text(text)

    assert (await synod("txn", f"{local}/steps.json")).code == 2


async def test_watch_prints_a_line_for_each_change_until_it_is_interrupted(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli.main", "watch", "logs/", "--json"),
        *("--after", "1", "--url", url),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with AsyncClient(url) as client, asyncio.timeout(30):
            await client.put("elsewhere", b"1")
            await client.put("logs/a", b"12")
            await client.move("logs", "old")
            lines = [json.loads(await process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

    assert [(line["kind"], line["source"], line["path"]) for line in lines] == [
        ("put", "", "logs/a"),
        ("move", "logs", "old"),
    ]
    assert b"Traceback" not in errors


async def test_rm_removes_in_parts_what_is_too_large_for_one_request(
    synod: Shell, cluster: FakeCluster, local: Path
) -> None:
    """Given a tree that is too large for one request, then rm -r removes it nevertheless, and says
    that it does so part by part; mv names the limit.
    """
    for number in range(12):
        for above in ("big/one", "big/two/three", "big/two"):
            await synod("put", f"{local}/hello.txt", f"{above}/{number}")
    cluster.state.constants = Constants(slot_steps=25)

    moved = await synod("mv", "big", "elsewhere")
    removed = await synod("rm", "-r", "big")

    assert (moved.code, "more than 25 entries" in moved.err) == (1, True)
    assert (removed.code, "part by part" in removed.err) == (0, True)
    assert (await synod("ls", "")).out == ""
