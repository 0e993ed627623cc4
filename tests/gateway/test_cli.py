"""The command line against a real server: files come back unchanged, errors are one line."""

import asyncio
import io
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from actors.calls import NotDone
from gateway.cli import files as cli_files
from gateway.cli.main import run
from gateway.cli.transfer import Silent, put_tree
from synod.client import AsyncClient, Client
from synod.errors import NotFound, PreconditionFailed
from tests.gateway.fake import FakeCluster


class Ran(NamedTuple):
    """The exit code and output of a command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Runs commands against one gateway."""

    def __init__(self, port: int, capture: pytest.CaptureFixture[str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._capture = capture

    async def __call__(self, *arguments: str) -> Ran:
        self._capture.readouterr()
        os.environ["SYNOD_URL"] = self.url
        try:
            code = await asyncio.to_thread(run, list(arguments))
        finally:
            del os.environ["SYNOD_URL"]
        out, err = self._capture.readouterr()
        return Ran(code, out, err)


@pytest.fixture
def synod(port: int, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(port, capsys)


def _make_tree(folder: Path) -> None:
    (folder / "deep/er").mkdir(parents=True)
    (folder / "empty/within").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"one\n")
    (folder / "nothing").write_bytes(b"")
    (folder / "deep/tool").write_bytes(b"#!/bin/sh\n")
    (folder / "deep/tool").chmod(0o755)
    (folder / "deep/er/large.bin").write_bytes(os.urandom(300_000))
    (folder / "deep/er/na me %?#é").write_bytes(b"x")
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        os.utime(path, (1_600_000_000, 1_600_000_000.125 + number))


def _look(folder: Path) -> dict[str, tuple[bytes | None, int, bool]]:
    """Everything that a copy must keep."""
    seen: dict[str, tuple[bytes | None, int, bool]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            seen[name] = (None, 0, False)
        else:
            status = path.stat()
            executable = bool(status.st_mode & 0o100)
            seen[name] = (path.read_bytes(), status.st_mtime_ns // 1_000_000, executable)
    return seen


async def test_a_folder_goes_in_and_comes_back(synod: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    _make_tree(source)
    expected = _look(source)
    (source / "link").symlink_to("a.txt")
    os.mkfifo(source / "pipe")

    put = await synod("put", "-r", str(source), "backup/today")
    got = await synod("get", "-r", "backup/today", str(tmp_path / "copy"))

    assert (put.code, got.code) == (0, 0)
    assert "put 5 files" in put.err
    assert f"skipped {source / 'link'}: a symbolic link" in put.err
    assert f"skipped {source / 'pipe'}: not a regular file" in put.err
    assert _look(tmp_path / "copy") == expected
    assert len(expected) == 9
    assert not list((tmp_path / "copy").rglob(".synod-*"))


async def test_summaries_for_programs(synod: Shell, tmp_path: Path) -> None:
    _make_tree(tmp_path / "source")

    put = (await synod("put", "-r", str(tmp_path / "source"), "", "--json")).json()
    got = (await synod("get", "-r", "", str(tmp_path / "copy"), "--json")).json()

    assert (put["complete"], put["files"], put["directories"]) == (True, 5, 1)
    assert (got["complete"], got["files"], got["directories"]) == (True, 5, 4)
    assert put["bytes"] == got["bytes"] > 300_000
    assert put["failures"] == put["skipped"] == []


async def test_a_file_that_fails_is_named_and_the_others_are_copied(
    synod: Shell, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good").write_bytes(b"x")
    (source / "in the way").write_bytes(b"x")
    (source / "new\nline").write_bytes(b"x")
    (source / "e\u0301").write_bytes(b"decomposed")
    (source / "\u00e9").write_bytes(b"composed")
    assert (await synod("mkdir", "d/in the way")).code == 0

    put = await synod("put", "-r", str(source), "d", "--json")

    assert put.code == 1
    failed = {Path(item["path"]).name: item["reason"] for item in put.json()["failures"]}
    assert set(failed) == {"in the way", "new\nline", "\u00e9"}
    assert "is a directory" in failed["in the way"]
    assert "control characters" in failed["new\nline"]
    assert "normal form C" in failed["\u00e9"]
    assert put.json()["files"] == 2
    assert (await synod("get", "d/good", "-")).out == "x"


async def test_single_files(synod: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = tmp_path / "local.txt"
    local.write_text("hello")

    assert (await synod("put", str(local), "/dir/")).code == 0
    assert (await synod("get", "dir/local.txt", str(tmp_path / "back"))).code == 0
    assert (tmp_path / "back").read_text() == "hello"
    (tmp_path / "into").mkdir()
    assert (await synod("get", "dir/local.txt", str(tmp_path / "into"))).code == 0
    assert (tmp_path / "into/local.txt").read_text() == "hello"

    fake_stdin = io.TextIOWrapper(io.BytesIO(b"from stdin"))
    monkeypatch.setattr(sys, "stdin", fake_stdin)
    written = (await synod("put", "-", "piped", "--json")).json()
    assert written["created"] is True
    assert (await synod("get", "piped", "-")).out == "from stdin"
    fake_stdin.close()

    stat = (await synod("stat", "piped", "--json")).json()
    assert (stat["size"], stat["version"], stat["etag"]) == (10, 1, written["etag"])
    assert (await synod("stat", "dir", "--json")).json()["kind"] == "directory"
    assert "10" in (await synod("stat", "piped")).out


async def test_listing_and_removing(synod: Shell, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for target in ("a/one", "a/two", "a/[red]b"):
        await synod("put", str(tmp_path / "f"), target)
    await synod("mkdir", "a/sub")

    assert (await synod("ls", "a")).out.split() == ["[red]b", "one", "sub/", "two"]
    assert (await synod("ls")).out.split() == ["a/"]
    assert "v1" in (await synod("ls", "-l", "a")).out
    assert [item["name"] for item in (await synod("ls", "a/one", "--json")).json()] == ["one"]

    refused = await synod("rm", "a")
    assert (refused.code, "add -r" in refused.err) == (1, True)
    assert (await synod("rm", "a/one", "a/two")).code == 0
    assert (await synod("rm", "-r", "a")).code == 0
    gone = await synod("rm", "a")
    assert (gone.code, gone.err) == (4, "synod: there is no file or directory 'a'\n")
    assert (await synod("ls", "a")).code == 4


async def test_conditions_and_keys(synod: Shell, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    source = str(tmp_path / "f")

    first = (await synod("put", source, "c", "--if-none-match", "*", "--json")).json()
    again = await synod("put", source, "c", "--if-none-match", "*")
    assert (again.code, first["etag"] in again.err) == (5, True)
    assert (await synod("put", source, "c", "--if-match", first["etag"])).code == 0
    assert (await synod("put", source, "c", "--if-match", first["etag"])).code == 5
    keyed = [
        (await synod("put", source, "k", "--idempotency-key", "k1", "--json")).json()
        for _ in range(2)
    ]
    assert [answer["created"] for answer in keyed] == [True, True]
    assert keyed[0]["etag"] == keyed[1]["etag"]
    assert (await synod("stat", "k", "--json")).json()["version"] == 1


async def test_status(synod: Shell) -> None:
    people = await synod("status")
    program = (await synod("status", "--json")).json()

    assert "proposer-2" in people.out
    assert "epoch 3" in people.out
    assert program["leader"] == "proposer-2"


async def test_the_status_of_a_cluster_that_takes_no_writes_is_a_failure_with_its_reason(
    synod: Shell, cluster: FakeCluster
) -> None:
    assert (await synod("status")).code == 0
    cluster.ready = False

    people = await synod("status")
    program = await synod("status", "--json")

    assert (people.code, program.code) == (1, 1)
    assert "are not taken" in people.out
    assert "no proposer leads" in people.out
    condition = program.json()["condition"]
    assert condition["writes"] == "refused"
    assert [reason["code"] for reason in condition["reasons"]] == ["no_leader"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("put",), 2, "Missing argument"),
        (("nonsense",), 2, "No such command"),
        (("put", "nothing-here", "x"), 1, "nothing-here: No such file"),
        (("put", ".", "x"), 2, "is a folder; add -r"),
        (("put", "-r", "nothing-here", "x"), 2, "is not a folder"),
        (("put", "-", "dir/"), 2, "standard input has no name"),
        (("put", "-r", ".", "x", "--if-match", "1-0"), 2, "single files"),
        (("get", "-r", "x", "-"), 2, "standard output"),
        (("get", "nothing"), 4, "there is no file"),
        (("get", "a/../b"), 2, "'..' is refused"),
        (("stat", "nothing"), 4, "there is no file or directory 'nothing'"),
        (("ls", "a//b"), 2, "an empty name is refused"),
        (("ls", "--url", "http://127.0.0.1:1"), 6, "is `synod up` running there?"),
        (("ls", "--url", "not a url"), 2, "not a url"),
        (("node", "store-0"), 2, "not a node's name"),
        (("node", "king-1"), 2, "not a node's name"),
        (("node", "store-65", "--broker", "amqp://h/"), 2, "is not a member"),
        (("node", "store-1", "--failpoint", "send:txn.vot:1:after:kill"), 2, "are txn.vote"),
        (("node", "store-1", "--arm-on-signal"), 2, "there is no --failpoint"),
        (("node", "store-1"), 2, "--broker"),
        (("up", "--host", "0.0.0.0"), 2, "loopback only"),
        (("up", "--port", "99999"), 2, "--port is 99999"),
    ],
)
async def test_wrong_arguments_are_refused(
    synod: Shell, arguments: tuple[str, ...], code: int, says: str
) -> None:
    ran = await synod(*arguments)

    assert ran.code == code
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    assert ran.out == ""


async def test_settings_are_shown_without_secrets(synod: Shell) -> None:
    people = await synod("config", "--broker", "amqp://me:hunter2@host/")
    program = await synod("config", "--broker", "amqp://me:hunter2@host/", "--json")

    for ran in (people, program):
        assert ran.code == 0
        assert "hunter2" not in ran.out
        assert "amqp://me:********@host/" in ran.out
    assert program.json()["stores"] == {"value": 3, "source": "default"}


async def test_errors_of_the_cluster_are_one_line(
    synod: Shell, cluster: FakeCluster, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("x" * 21 * 2**20)

    ran = await synod("put", str(tmp_path / "f"), "x")

    assert ran.code == 1
    assert ran.err.startswith("synod: a file may have at most 20971520 bytes")
    assert ran.err.count("\n") == 1


async def test_a_write_is_sent_again_under_its_key_until_it_is_known(
    port: int, cluster: FakeCluster, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{port}"
    cluster.answers.extend([NotDone("no leader", "it was never sent")] * 3)

    async with AsyncClient(url) as synod:
        written = await synod.put("a", b"hello")

    assert written.created
    keys = [write.idempotency for write in cluster.submitted()]
    assert len(keys) == 4
    assert len(set(keys)) == 1


async def test_the_client_without_an_event_loop(port: int) -> None:
    def work() -> None:
        with Client(f"http://127.0.0.1:{port}") as synod:
            written = synod.put("notes/today.txt", b"hello", meta={"colour": "blue"})
            assert synod.read("notes/today.txt") == b"hello"
            synod.put("notes/today.txt", b"again", if_match=written.etag)
            with pytest.raises(PreconditionFailed):
                synod.delete("notes/today.txt", if_match=written.etag)
            assert synod.result(written.request)["result"] == "done"
            synod.make_directory("notes/empty")
            assert [entry.name for entry in synod.list("notes")] == ["empty", "today.txt"]
            assert synod.stat("notes").is_directory
            synod.remove_directory("notes", recursive=True)
            with pytest.raises(NotFound):
                synod.stat("notes/today.txt")

    await asyncio.to_thread(work)


async def test_a_tree_stops_when_the_cluster_fails_for_longer_than_patience(
    port: int, cluster: FakeCluster, tmp_path: Path
) -> None:
    for number in range(100):
        (tmp_path / f"{number}").write_text("x")
    cluster.answers.extend([NotDone("no leader", "it was never sent")] * 1000)

    async with AsyncClient(f"http://127.0.0.1:{port}", patience_s=0.2) as synod:
        tally = await put_tree(synod, tmp_path, "d", progress=Silent(), parallel=4)

    assert not tally.complete
    assert "no leader" in tally.stopped
    assert 1 <= len(tally.failures) <= 4
    assert tally.files == 0


async def test_a_download_continues_where_it_broke(
    port: int, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(1_000_000)
    broken: list[str] = []

    class Half(httpx.AsyncByteStream):
        """Gives some of another stream and then fails."""

        def __init__(self, whole: httpx.AsyncByteStream) -> None:
            self._whole = whole

        async def __aiter__(self) -> AsyncIterator[bytes]:
            seen = 0
            async for piece in self._whole:
                yield piece
                seen += len(piece)
                if seen > 300_000:
                    raise httpx.ReadError("gone")

        async def aclose(self) -> None:
            await self._whole.aclose()

    class Breaks(httpx.AsyncHTTPTransport):
        """Loses the connection in the middle of the first two answers with contents."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            if request.method == "GET" and len(broken) < 2:
                broken.append(request.headers.get("range", "all"))
                assert isinstance(response.stream, httpx.AsyncByteStream)
                half = Half(response.stream)
                return httpx.Response(response.status_code, headers=response.headers, stream=half)
            return response

    async with AsyncClient(f"http://127.0.0.1:{port}", transport=Breaks()) as synod:
        await synod.put("a", content)

        assert await synod.read("a") == content

    assert broken[0] == "all"
    assert broken[1].startswith("bytes=3")


def test_a_path_may_be_typed_with_slashes_around_it() -> None:
    assert [cli_files.remote(text) for text in ("/", "", "/a/b/", "a/b")] == ["", "", "a/b", "a/b"]


async def test_a_read_that_fails_says_what_was_not_read_and_what_to_do(
    synod: Shell, cluster: FakeCluster
) -> None:
    """Given no store, then a get says within its time what it could not read, and nothing of a
    write that never happened.
    """
    cluster.answers.extend([NotDone("no store answers", "a read")] * 1000)

    got = await synod("get", "x", "-", "--timeout", "0.7")

    assert (got.code, got.out) == (6, "")
    assert re.fullmatch(
        r"synod: 'x' was not read: no store answers\. Nothing was changed; it was tried for \d s\. "
        r"Try again, or for longer \(--timeout\)\n",
        got.err,
    )
