"""Uploads send exactly their source: streams to their end, files only if they did not change."""

import asyncio
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.calls import NotDone as Refused
from gateway.cli.transfer import Silent, put_tree
from synod.bodies import REPLAYED_BYTES_MAX, Source
from synod.client import AsyncClient
from synod.errors import SourceChanged, Unavailable
from tests.gateway.fake import FakeCluster
from tests.gateway.test_cli import Shell

LARGE = 1_500_000
"""Several pieces."""


@pytest.fixture
def synod(port: int, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(port, capsys)


async def test_a_pipe_is_sent_to_its_end(synod: Shell, tmp_path: Path) -> None:
    """Given a file in Synod, when a pipe is put in its place, then it has what came out of it."""
    pipe, content = tmp_path / "pipe", os.urandom(LARGE)
    os.mkfifo(pipe)
    (tmp_path / "former").write_bytes(b"former")
    await synod("put", str(tmp_path / "former"), "keep")
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()

    put = await synod("put", str(pipe), "keep")
    got = await synod("get", "keep", str(tmp_path / "got"))

    writer.join()
    assert (put.code, got.code) == (0, 0)
    assert (tmp_path / "got").read_bytes() == content


@pytest.mark.parametrize(
    "path", ["/proc/self/status", "/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"]
)
async def test_a_file_whose_size_says_nothing_is_sent_whole(
    synod: Shell, tmp_path: Path, path: str
) -> None:
    there = _beginning(path)
    if not there:
        pytest.skip(f"there is no {path} here")

    assert (await synod("put", path, "kernel")).code == 0

    assert (await synod("get", "kernel", str(tmp_path / "got"))).code == 0
    assert (tmp_path / "got").read_bytes().startswith(there)


def _beginning(path: str) -> bytes:
    return Path(path).read_bytes()[:5] if Path(path).exists() else b""


class Meddling(Silent):
    """Changes the files once the first bytes were sent."""

    def __init__(self, meddle: Callable[[], Any]) -> None:
        self._meddle: Callable[[], Any] | None = meddle

    def moved(self, size_bytes: int) -> None:
        if self._meddle is not None:
            meddle, self._meddle = self._meddle, None
            meddle()


def _replace(path: Path) -> None:
    path.with_name("other").write_bytes(os.urandom(LARGE))
    path.with_name("other").replace(path)


def _same_time(path: Path) -> None:
    """Change it, and set its time back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(LARGE - 1)
        file.write(b"?")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("meddle", "says"),
    [
        (lambda path: os.truncate(path, LARGE + 5), "grew from 1500000 to 1500005 bytes"),
        (lambda path: os.truncate(path, 400_000), "it has only 400000 of 1500000 bytes now"),
        (_replace, "another file took its place"),
        (os.unlink, "it was removed"),
        (_same_time, "it was changed"),
    ],
    ids=["grows", "shrinks", "replaced", "removed", "rewritten"],
)
async def test_a_file_that_changes_is_named_and_the_rest_goes_on(
    port: int, cluster: FakeCluster, tmp_path: Path, meddle: Callable[[Path], Any], says: str
) -> None:
    """Given a tree in Synod, when one of its files changes while all are put again, then that one
    is named and keeps its former version, and the others are copied.
    """
    source = tmp_path / "tree"
    source.mkdir()
    async with AsyncClient(f"http://127.0.0.1:{port}") as synod:
        await synod.put("d/1-log", b"former")
        (source / "1-log").write_bytes(os.urandom(LARGE))
        (source / "2-next").write_bytes(b"next")

        tally = await put_tree(
            synod,
            source,
            "d",
            progress=Meddling(lambda: meddle(source / "1-log")),
            parallel=1,
        )

        kept = {name: await synod.read(f"d/{name}") for name in ("1-log", "2-next")}
    assert kept == {"1-log": b"former", "2-next": b"next"}
    (failure,) = tally.failures
    assert failure.path == str(source / "1-log")
    assert says in failure.reason
    assert "nothing was written" in failure.reason
    assert (tally.files, tally.stopped, tally.complete) == (1, "", False)
    assert len(cluster.submitted()) == 2


async def test_what_is_no_regular_file_any_more_is_not_waited_for(
    port: int, tmp_path: Path
) -> None:
    """Given a file that became a pipe, and one that became a link, after the folder was listed."""
    for name in ("1-first", "2-pipe", "3-link", "4-gone", "5-last"):
        (tmp_path / name).write_bytes(b"x")

    def meddle() -> None:
        for name in ("2-pipe", "3-link", "4-gone"):
            (tmp_path / name).unlink()
        os.mkfifo(tmp_path / "2-pipe")
        (tmp_path / "3-link").symlink_to("1-first")

    async with AsyncClient(f"http://127.0.0.1:{port}") as synod:
        tally = await put_tree(synod, tmp_path, "d", progress=Meddling(meddle), parallel=1)
        listed = [entry.name async for entry in synod.list("d")]

    assert listed == ["1-first", "5-last"]
    assert [Path(failure.path).name for failure in tally.failures] == [
        "2-pipe",
        "3-link",
        "4-gone",
    ]


async def test_a_short_stream_is_sent_again(port: int, cluster: FakeCluster) -> None:
    cluster.answers.extend([Refused("no leader", "it was never sent")] * 2)

    async with AsyncClient(f"http://127.0.0.1:{port}") as synod:
        await synod.put("piped", io.BytesIO(b"hello"))

        assert await synod.read("piped") == b"hello"
    assert len({write.idempotency for write in cluster.submitted()}) == 1


async def test_a_long_stream_is_not_and_says_so(
    port: int, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a stream of which not all is kept, when the cluster refuses it, then it is not sent
    again without its beginning, and the error says that nothing happened.
    """
    writes = []

    def refuse(call: object) -> Refused:
        writes.append(call)
        return Refused("no leader", "it was never sent")

    monkeypatch.setattr(cluster, "_write", refuse)
    async with AsyncClient(f"http://127.0.0.1:{port}") as synod:
        with pytest.raises(Unavailable, match="came from a stream") as caught:
            await synod.put("piped", io.BytesIO(bytes(REPLAYED_BYTES_MAX + 1)))

    assert not caught.value.undecided
    assert len(writes) == 1


async def test_a_slow_pipe_blocks_nothing_else(port: int) -> None:
    """Given a pipe without data, then the client's event loop continues, and can be cancelled."""
    reading, writing = os.pipe()
    async with AsyncClient(f"http://127.0.0.1:{port}") as synod:
        with os.fdopen(writing, "wb"), os.fdopen(reading, "rb", buffering=0) as pipe:
            waiting = asyncio.create_task(synod.put("slow", pipe))
            await synod.put("quick", b"1")
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


async def test_a_source_of_a_file_is_held_to_its_size(port: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1234")
    source = Source.of_file(tmp_path / "f")
    (tmp_path / "f").write_bytes(b"12345")

    async with AsyncClient(f"http://127.0.0.1:{port}") as synod:
        with pytest.raises(SourceChanged, match="grew from 4 to 5"):
            await synod.put("f", source)
