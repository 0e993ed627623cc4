"""Uploads and downloads over HTTP that take longer than stores keep what nothing uses."""

import asyncio
import contextlib
import functools
import hashlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from actors.store import chunks, contents
from gateway.http import contents as gateway_contents
from gateway.http.chunk_keeping import RenewalSchedule
from gateway.settings import Settings
from tests.gateway.conftest import serving
from tests.replication.cluster import MemoryCluster, eventually, memory_cluster

pytestmark = pytest.mark.timeout(120)

KIB = 1024
CHUNK = 64 * KIB
GRACE_MS = 1_000
SETTINGS = Settings(chunk_bytes=CHUNK, chunk_grace_ms=GRACE_MS, trace="off")


def _names(data: bytes) -> set[str]:
    parts = (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))
    return {hashlib.sha256(part).hexdigest() for part in parts}


def _held(cluster: MemoryCluster, store: str) -> set[str]:
    return set(cluster._journals[store].blob_names())


def _held_everywhere(cluster: MemoryCluster, names: set[str]) -> bool:
    return all(names <= _held(cluster, store) for store in cluster.options.names("store"))


def _held_nowhere(cluster: MemoryCluster, names: set[str]) -> bool:
    return not any(names & _held(cluster, store) for store in cluster.options.names("store"))


@contextlib.asynccontextmanager
async def _running(folder: Path) -> AsyncIterator[tuple[MemoryCluster, int]]:
    """A cluster, and the port of its gateway."""
    async with (
        memory_cluster(folder, heartbeat_ms=300, chunk_grace_ms=GRACE_MS) as cluster,
        serving(cluster.hosts["gateway-1"], SETTINGS) as port,
    ):
        yield cluster, port


@pytest.fixture(autouse=True)
def _short_graces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "RELEASED_GRACE_MS", GRACE_MS)
    for module in (chunks, contents):
        monkeypatch.setattr(module, "READING_GRACE_MS", GRACE_MS)
    monkeypatch.setattr(contents, "_SWEEP_MS", 50)
    # A machine that is busy with other tests must not count as paused.
    monkeypatch.setattr(contents, "_SWEEPS_MISSED", 1_000)
    schedule = RenewalSchedule(for_ms=GRACE_MS, every_ms=GRACE_MS // chunks.RENEWALS)
    monkeypatch.setattr(gateway_contents, "DOWNLOAD_SCHEDULE", schedule)


async def test_an_upload_that_takes_several_graces_is_written(tmp_path: Path) -> None:
    """Given a slow client, when chunks that others uploaded at the same time are long deleted, then
    all that it sent is there.
    """
    whole = hashlib.shake_256(b"slow").digest(5 * CHUNK)
    async with (
        _running(tmp_path) as (cluster, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):

        async def body() -> AsyncIterator[bytes]:
            yield whole[: 2 * CHUNK]
            await eventually(lambda: _held_everywhere(cluster, _names(whole[:CHUNK])))
            for number in range(3):
                # All stores have acknowledged it; on a busy machine they may have deleted it again.
                control = {await cluster.upload(b"left alone %d" % number)}
                await eventually(functools.partial(_held_nowhere, cluster, control))
            assert _held_everywhere(cluster, _names(whole[:CHUNK]))
            yield whole[2 * CHUNK :]

        written = await client.put("/v1/files/a", content=body())

        assert written.status_code == 201, written.text
        assert (await client.get("/v1/files/a")).content == whole


@pytest.mark.parametrize("megabytes", [7, 20])
async def test_a_slow_download_of_a_replaced_file_is_served_to_its_end(
    tmp_path: Path, megabytes: int
) -> None:
    """Given a reader that pauses, when its file is replaced and contents that were replaced at the
    same time are long deleted, then it gets all of its version, which is deleted afterwards.
    """
    whole = hashlib.shake_256(b"slow").digest(megabytes * KIB * KIB)
    other = hashlib.shake_256(b"other").digest(2 * CHUNK)
    async with (
        _running(tmp_path) as (cluster, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        await client.put("/v1/files/a", content=whole)
        await client.put("/v1/files/b", content=other)
        async with _slow_reader(port) as reader:
            await reader.readuntil(b"\r\n\r\n")
            received = bytearray(await reader.readexactly(CHUNK))
            for path in ("a", "b"):
                assert (await client.put(f"/v1/files/{path}", content=b"new")).status_code == 200
            await eventually(lambda: _held_nowhere(cluster, _names(other)))
            control = {await cluster.upload(b"left alone")}
            await eventually(lambda: _held_nowhere(cluster, control))
            received += await reader.read(-1)

        assert len(received) == len(whole)
        assert hashlib.sha256(received).digest() == hashlib.sha256(whole).digest()
        await eventually(lambda: _held_nowhere(cluster, _names(whole)))
        assert (await client.get("/v1/files/a")).content == b"new"


@contextlib.asynccontextmanager
async def _slow_reader(port: int) -> AsyncIterator[asyncio.StreamReader]:
    """A download of `a` through small buffers, so that little is under way unread."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client, limit=CHUNK)
    try:
        writer.write(b"GET /v1/files/a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()
