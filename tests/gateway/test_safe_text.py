"""Names as text in every output: streams of events, JSON for programs, lines for people."""

import asyncio
import io
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.logs import HumanFormatter, JsonFormatter
from observability.safe_text import json_text, visible
from synod.client import AsyncClient
from tests.gateway.fake import FakeCluster
from tests.gateway.test_cli import Shell
from tests.worlds import put as put_of

ROOT = Path(__file__).parents[2]
NAMES = ["a\u2028b", "b\u2029c", "c\u202ecod.exe", "d日本", "e\u0301"[1:] + "e"]

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_NEVER_SHOWN = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *"\u202e\u2066\u2028"}
_ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.fixture
def synod(port: int, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(port, capsys)


@given(_VALUES)
def test_json_says_the_same_on_one_line(value: Any) -> None:
    text = json_text(value)

    assert json.loads(text) == value
    assert len(text.splitlines()) == 1


@given(_ANY_TEXT)
def test_json_is_utf8_whatever_comes(text: str) -> None:
    for indent in (None, 2):
        written = json_text([text, {text: text}], indent=indent).encode()
        assert len(json.loads(written)) == 2


@given(st.binary(max_size=20))
def test_a_local_name_can_be_read_in_json_and_by_people(raw: bytes) -> None:
    """Bytes that are not UTF-8 are written as escapes, which both say alike."""
    name = os.fsdecode(raw)

    told = json.loads(json_text(name))

    assert told == raw.decode(errors="backslashreplace")
    assert told.encode().decode() == told
    assert visible(name).encode().decode() == visible(told)


@given(_ANY_TEXT)
def test_nothing_for_people_moves_a_terminal_or_disguises_a_name(text: str) -> None:
    for lines in (False, True):
        shown = visible(text, lines=lines)
        assert visible(shown, lines=lines) == shown
        assert shown.encode().decode() == shown
        assert not (_NEVER_SHOWN - {"\n" if lines else ""}) & set(shown)


class _Pieces(httpx.AsyncByteStream):
    """A body that arrives byte by byte."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for byte in self._body:
            yield bytes((byte,))


async def test_events_end_at_newlines_only() -> None:
    """Given a stream as any server may write it, in pieces that cut characters, with names that
    hold what Python takes for the end of a line, then each name comes whole.
    """
    names = [*NAMES, "x\x85y\x0bz\x1c"]
    events = "".join(
        f": comment\nevent:change\nid: {slot}\ndata: "
        f"{json.dumps({'kind': 'put', 'slot': slot, 'path': name}, ensure_ascii=False)}\r\n\n"
        for slot, name in enumerate(names)
    )

    def answer(request: httpx.Request) -> httpx.Response:
        kind = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=kind, stream=_Pieces(events.encode()))

    client = AsyncClient("http://synod", transport=httpx.MockTransport(answer), patience_s=0)
    seen = []
    async with client:
        async for change in client.watch():
            seen.append((change.id, change.path))
            if len(seen) == len(names):
                break

    assert seen == [(str(slot), name) for slot, name in enumerate(names)]


async def test_a_watch_passes_every_name(port: int) -> None:
    """Given names that end lines for some readers, then a watch prints them and continues, and what
    goes over the wire is one line for every reader.
    """
    url = f"http://127.0.0.1:{port}"
    async with AsyncClient(url) as client, asyncio.timeout(20):
        for name in NAMES:
            await client.put(name, b"x")
        seen = []
        async for change in client.watch(after="1"):
            seen.append(change.path)
            if len(seen) == len(NAMES):
                break
        assert seen == NAMES
        async with (
            httpx.AsyncClient(base_url=url) as http,
            http.stream("GET", "/v1/watch?after=1") as stream,
        ):
            lines = stream.aiter_lines()
            told = [json.loads(line[6:]) async for line in _data(lines, len(NAMES) + 1)]
    assert [data["path"] for data in told[1:]] == NAMES


async def _data(lines: AsyncIterator[str], most: int) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith("data: "):
            yield line
            most -= 1
            if not most:
                return


async def test_json_of_the_command_line_is_utf8_in_any_locale(port: int, tmp_path: Path) -> None:
    """Given local names that are not UTF-8 and a terminal that knows no Unicode, then `--json` is
    UTF-8 all the same, and what is for people is escaped and whole.
    """
    source = _folder_with_a_name_that_is_not_utf8(tmp_path)
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    environment["SYNOD_URL"] = f"http://127.0.0.1:{port}"
    environment.pop("PYTHONUTF8", None)

    async def run(*arguments: str) -> tuple[bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli.main", *arguments),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return await process.communicate()

    (put, _), (_, shown) = await asyncio.gather(
        run("put", "-r", "--json", str(source), "to"), run("put", "-r", str(source), "to")
    )
    (listed, _), (people, complaints) = await asyncio.gather(
        run("ls", "to", "--json"), run("ls", "to")
    )

    (failure,) = json.loads(put.decode())["failures"]
    assert failure["path"] == f"{source}/bad\\xff\x1b[31m"
    assert b"bad\\xff\\x1b[31m" in shown
    assert [entry["name"] for entry in json.loads(listed.decode())] == ["good日"]
    assert people.startswith(b"good")
    assert complaints == b""


def _folder_with_a_name_that_is_not_utf8(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good日").write_bytes(b"1")
    Path(os.fsdecode(os.fsencode(source) + b"/bad\xff\x1b[31m")).write_bytes(b"2")
    return source


async def test_no_name_gives_orders_to_a_terminal(
    synod: Shell, cluster: FakeCluster, tmp_path: Path
) -> None:
    """Given names that would turn text around, and one that older programs could store with an
    escape sequence, then every command for people shows them escaped, and JSON as they are; a
    copy of all names the one that no local file may have, and has the others.
    """
    paths = ["d/\x1b]0;owned\x07\r\n[bold]x", "d/cod\u202egpj.exe"]
    for path in paths:
        cluster.store(put_of(path, b"1", meta=(("a", "\x9b31m"),)))
    names = ["\\x1b]0;owned\\x07\\x0d\\x0a[bold]x", "cod\\u202egpj.exe"]

    short, long = await synod("ls", "d"), await synod("ls", "-l", "d")
    stat = await synod("stat", "d/cod\u202egpj.exe")
    missing = await synod("stat", "d/\u202ex")
    listed = (await synod("ls", "--json", "d")).json()
    copied = await synod("get", "-r", "d", str(tmp_path))

    assert short.out.splitlines() == names
    assert [line.split()[-1] for line in long.out.splitlines()] == names
    assert "cod\\u202egpj.exe" in stat.out
    assert "\\u202ex" in missing.err
    assert (copied.code, os.listdir(tmp_path)) == (1, ["cod\u202egpj.exe"])
    assert f"failed  d/{names[0]}: control characters" in copied.err
    for ran in (short, long, stat, missing, copied):
        assert not {"\x1b", "\x07", "\r", "\u202e", "\x9b"} & set(ran.out + ran.err)
    assert [entry["name"] for entry in listed] == [
        "\x1b]0;owned\x07\r\n[bold]x",
        "cod\u202egpj.exe",
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"\xff", 2),
        (b"[" * 100_000, 2),
        (b'[{"op": "put", "path": "a", "file": 5}]', 2),
        (b'[{"op": "put", "path": "a", "file": "a\\u0000"}]', 2),
        (b'[{"op": "put", "path": "a", "text": "\\ud800"}]', 1),
        (b'[{"op": "put", "path": "a", "text": "", "meta": {"a": "b\\n"}}]', 1),
        (b'[{"op": "put", "path": "a\\ud800", "text": ""}]', 2),
        (b'\xef\xbb\xbf[{"op": "put", "path": "d\xc3\xa9", "text": "\xe2\x82\xac"}]', 0),
    ],
)
async def test_a_file_of_steps_is_utf8_and_its_errors_are_one_line(
    synod: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, code: int
) -> None:
    (tmp_path / "steps").write_bytes(text)

    by_name = await synod("txn", str(tmp_path / "steps"))
    stdin = io.TextIOWrapper(io.BytesIO(text), "ascii")
    monkeypatch.setattr(sys, "stdin", stdin)
    piped = await synod("txn", "-")
    stdin.close()

    assert (by_name.code, piped.code) == (code, code), by_name.err
    assert "Traceback" not in by_name.err + piped.err
    if code == 0:
        assert (await synod("get", "dé", "-")).out == "€"


def test_a_line_of_a_log_is_one_line() -> None:
    path = "/a\n12:00 error forged\x1b[31m\u2028"
    record = logging.LogRecord("synod.x", logging.INFO, "", 0, "GET %s", (path,), None)
    record.who = "\r"

    human, machine = HumanFormatter().format(record), JsonFormatter().format(record)

    assert "GET /a\\x0a12:00 error forged\\x1b[31m\\u2028 who=\\x0d" in human
    assert len(human.splitlines()) == len(machine.splitlines()) == 1
    assert json.loads(machine)["message"] == record.getMessage()
