"""`synod up` as its own process: it reports when it is ready, ends cleanly, and refuses clearly."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from chaos.cluster.rabbitmq import free_ports
from synod.client import AsyncClient
from synod.errors import Conflict
from synod.membership import Action
from tests.long import only_long

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def _started(
    *arguments: str, settings: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.cli.main",
        *arguments,
        cwd=ROOT,
        env={**os.environ, **(settings or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _url_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    found = re.fullmatch(r"Synod is ready at (http://127\.0\.0\.1:\d+)\n", line)
    assert found, line
    return found[1]


async def _begins(synod: AsyncClient, action: Action, member: str) -> bool:
    """Whether the leader begins a change; false if what is missing comes by itself."""
    try:
        await synod.change_member(action, member)
    except Conflict as refusal:
        if not refusal.problem["again"]:
            raise
        return False
    return True


async def _refusal_of(*arguments: str) -> str:
    """The message of a command that must fail."""
    async with _started(*arguments) as process:
        out, err = await process.communicate()
        assert (process.returncode, out) == (1, b"")
    assert b"Traceback" not in err
    return err.decode().splitlines()[-1]


async def test_a_cluster_in_one_process(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    async with _started("up", "--port", "0", *data) as process:
        url = await _url_of(process)
        async with AsyncClient(url) as synod:
            written = await synod.put("a/b", b"hello")
            large = bytes(range(256)) * 10_000
            await synod.put("large", large)
            assert await synod.read("large") == large

        busy = await _refusal_of("up", "--port", "0", *data)
        assert re.search(r"in use by process \d+", busy)
        taken = await _refusal_of("up", "--port", url.rpartition(":")[2], *data)
        assert re.search(r"port \d+ on 127.0.0.1 is in use", taken)

        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    async with _started("up", "--port", "0", *data) as process:
        async with AsyncClient(await _url_of(process)) as synod:
            assert await synod.read("a/b") == b"hello"
            assert (await synod.stat("a/b")).etag == written.etag
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


@only_long
async def test_a_member_that_was_removed_ends_no_other_of_its_process(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    async with _started("up", "--port", "0", *data) as process:
        async with AsyncClient(await _url_of(process)) as synod:
            async with asyncio.timeout(60):
                while not await _begins(synod, "remove", "proposer-5"):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                assert process.stderr is not None
                said = b"\n"
                while b"proposer-5: it was removed" not in said:
                    assert said
                    said = await process.stderr.readline()
            await synod.put("a/b", b"hello")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    # Also at the next start, whose settings name it.
    async with _started("up", "--port", "0", *data) as process:
        async with AsyncClient(await _url_of(process)) as synod:
            assert await synod.read("a/b") == b"hello"
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("up", "--broker", "amqp://me:hunter2@127.0.0.1:1/"), "can't be reached"),
        (("up", "--cluster", "other"), "other"),
    ],
)
async def test_what_can_not_start_says_why(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    data = ("--data", str(tmp_path / "data"))
    if "--cluster" in arguments:
        async with _started("up", "--port", "0", *data) as process:
            await _url_of(process)

    said = await _refusal_of(*arguments, "--port", "0", *data)

    assert said.startswith("synod: ")
    assert reason in said
    assert "hunter2" not in said


async def test_a_cluster_at_rest_logs_nothing(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    async with _started("up", "--port", "0", *data) as process:
        url = await _url_of(process)
        async with AsyncClient(url) as synod:
            await synod.put("a", b"a")
            written = datetime.now(UTC).isoformat()
            async with asyncio.timeout(30):
                while await _heartbeats(url) < 45:  # Three of each of the 15 members.
                    pass
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()

    lines = [json.loads(line) for line in err.decode().splitlines()]
    before = [line["message"].split(":")[0] for line in lines if line["time"] < written]
    assert before[-1].endswith("was elected")
    assert all(text.endswith(("stands for election", "was elected")) for text in before), before
    assert [line["message"] for line in lines if line["time"] >= written] == ["ending"]


async def _heartbeats(url: str) -> float:
    """How many heartbeats the nodes have sent."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"{url}/metrics")).text
    sent = r"^paxos_node_messages_sent_total{.*node.heartbeat.*} (\S+)$"
    return sum(float(found) for found in re.findall(sent, text, re.MULTILINE))


async def test_a_request_can_be_traced_as_soon_as_it_is_answered(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    async with _started("up", "--port", "0", *data) as process:
        url = await _url_of(process)
        async with AsyncClient(url) as synod:
            written = await synod.put("a/b", b"hello")
            page = (await synod.log())["entries"]
        code, out = await _said("trace", written.request, "--url", url)
        coded, listed = await _said("trace", "--json", "--url", url)
        failed, why = await _said("trace", "nobody-1", "--url", url)
        everything, _ = await _said("trace", "--all", "5", "--url", url)
        async with (
            asyncio.timeout(20),
            httpx.AsyncClient(trust_env=False) as client,
            client.stream("GET", f"{url}/v1/events") as events,
        ):
            figures = await anext(
                line async for line in events.aiter_lines() if line.startswith("data: ")
            )
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    assert code == 0, out
    assert re.search(r"slot \d+, \d+\.\d ms", out)
    sums = {name: float(ms) for name, ms in re.findall(r"^(\w+) +(\d+\.\d+) ms", out, re.MULTILINE)}
    assert list(sums) == ["queue", "journal", "quorum", "vote", "answer", "sum"]
    assert sum(sums.values()) == pytest.approx(2 * sums["sum"], abs=0.05)
    for node, kind in (
        ("gateway-1", "client.submit"),
        ("proposer-", "paxos.accept"),
        ("acceptor-5", "journal.commit"),
        ("learner-", "txn.prepare"),
        ("store-3", "txn.vote"),
    ):
        assert re.search(rf"{node}\S* +[→■] {kind}", out), (node, kind)
    assert coded == 0
    assert written.request in {row["request"] for row in json.loads(listed)["requests"]}
    assert (failed, everything) == (4, 0)
    assert "has no trace of the request" in why
    assert json.loads(figures.removeprefix("data: "))["leader"].startswith("proposer-")
    (slot,) = [entry for entry in page if entry["slot"] == written.slot]
    assert slot["commands"][0] == {
        "request": written.request,
        "operation": "put_file",
        "path": "a/b",
        "outcome": "decided",
    }


async def _said(*arguments: str) -> tuple[int, str]:
    """A command's exit code and all that it printed."""
    async with _started(*arguments) as process:
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode() + err.decode()


def test_a_node_loads_nothing_that_only_clients_or_gateways_need() -> None:
    """A cluster starts many processes, and loading modules is most of the start of each."""
    needless = ("chaos", "httpx", "rich", "starlette", "typer.rich_utils", "uvicorn")
    program = (
        "import sys, gateway.cli.main; gateway.cli.main.build_cli('node'); import gateway.hosting; "
        f"print([name for name in {needless} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("role", ["acceptor", "gateway"])
async def test_a_node_that_waits_for_its_broker_ends_on_sigterm(tmp_path: Path, role: str) -> None:
    """Given a node whose broker can't be reached, when SIGTERM arrives, then it ends in order."""
    (port,) = free_ports(1)
    settings = {
        "SYNOD_BROKER": f"amqp://127.0.0.1:{port}/",
        "SYNOD_DATA": str(tmp_path / "data"),
        "SYNOD_PORT": "0",
    }
    async with _started("node", f"{role}-1", settings=settings) as process:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while b"no connection to" not in await process.stderr.readline():
                pass
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
