"""Slow or stalled clients take no resources from the others."""

import asyncio
import hashlib
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from actors.values import CHUNK_BYTES
from gateway.http import contents as contents_module
from gateway.http.app import GatewayApp
from gateway.http.connections import ConnectionLimits
from gateway.http.spill import SpillFile
from gateway.settings import Settings
from tests.gateway.conftest import serving_app
from tests.gateway.fake import FakeCluster

MIB = 1024 * 1024
SLOW_BYTES_PER_S = 60_000
SLOW_UPLOAD = hashlib.shake_256(b"slow").digest(600_000)
LARGE = hashlib.shake_256(b"large").digest(3 * MIB + 17)
FAST = hashlib.shake_256(b"fast").digest(6 * MIB)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def settings() -> Settings:
    """The smallest allowed: memory for four chunks."""
    return Settings(upload_memory_bytes=4 * MIB, body_timeout_ms=2_000)


@pytest.fixture
def app(cluster: FakeCluster, settings: Settings) -> GatewayApp:
    return GatewayApp(cluster, settings)


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client


async def connect(port: int) -> Connection:
    """A connection whose kernel takes no more than a little for a reader that reads slowly."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=sock, limit=16 * 1024)


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: localhost", *headers, "", ""]).encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict[str, Any]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), headers, json.loads(body)


async def upload(
    port: int, path: str, body: bytes, bytes_per_s: int, hurry: asyncio.Event | None = None
) -> int:
    """Put a file so slowly, until `hurry` is set; the status."""
    reader, writer = await connect(port)
    answered = asyncio.ensure_future(answer(reader))
    try:
        writer.write(head("PUT", path, f"content-length: {len(body)}"))
        for start in range(0, len(body), bytes_per_s // 10):
            writer.write(body[start : start + bytes_per_s // 10])
            done, _ = await asyncio.wait({answered}, timeout=0.1)
            if done or (hurry and hurry.is_set()):
                writer.write(body[start + bytes_per_s // 10 :])
                break
        status, _, _ = await answered
    finally:
        answered.cancel()
        writer.transport.abort()
    return status


async def download(port: int, path: str, bytes_per_s: int) -> bytes:
    """Read an answer's body so slowly, until it ends or the connection does."""
    reader, writer = await connect(port)
    body = bytearray()
    try:
        writer.write(head("GET", path))
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        (length,) = (int(line.split()[1]) for line in lines if line.startswith("content-length"))
        while len(body) < length:
            piece = await reader.read(bytes_per_s // 20)
            if not piece:
                break
            body += piece
            await asyncio.sleep(0.05)
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return bytes(body)


async def until(what: Any) -> None:
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 - nothing tells of memory
            await asyncio.sleep(0.01)


async def until_nothing_is_held(app: GatewayApp) -> None:
    """Whatever happened to the requests, everything that they took is released."""
    held = app.contents

    def nothing() -> bool:
        return (held.incoming.held, held.outgoing.held, held.spill.used) == (0, 0, 0)

    await until(nothing)


async def there_and_back(client: httpx.AsyncClient) -> None:
    """A large upload and its download."""
    assert (await client.put("/v1/files/fast", content=FAST)).is_success
    assert (await client.get("/v1/files/fast")).content == FAST


async def test_fast_clients_wait_for_no_slow_ones(app: GatewayApp) -> None:
    """Given 50 slow uploads and 50 slow downloads with memory for four chunks, then a fast client
    is done long before any of them; and all of them complete, as they keep the minimum rate.
    """
    hurry = asyncio.Event()
    async with serving_app(app) as port, client_of(port) as client:
        assert (await client.put("/v1/files/large", content=LARGE)).is_success
        async with asyncio.TaskGroup() as group:
            uploads = [
                group.create_task(
                    upload(port, f"/v1/files/{n}", SLOW_UPLOAD, SLOW_BYTES_PER_S, hurry)
                )
                for n in range(50)
            ]
            downloads = [
                group.create_task(download(port, "/v1/files/large", SLOW_BYTES_PER_S))
                for _ in range(50)
            ]
            # Most of them wait on the disk by now: there is no memory for them.
            await until(lambda: app.contents.spill.used >= 60)

            await there_and_back(client)

            assert not any(task.done() for task in (*uploads, *downloads))
            for task in downloads[1:]:
                task.cancel()
            hurry.set()
            whole = group.create_task(download(port, "/v1/files/large", len(LARGE)))
            assert [await task for task in uploads] == [201] * 50
            assert await whole == LARGE
            downloads[0].cancel()

        for n in range(50):
            assert (await client.get(f"/v1/files/{n}")).content == SLOW_UPLOAD
        await until_nothing_is_held(app)


@pytest.mark.parametrize("size", [10_000, 100_000])
async def test_an_upload_below_the_least_rate_is_ended(app: GatewayApp, size: int) -> None:
    """It never stalls for the whole timeout, and is given up nevertheless."""
    async with serving_app(app) as port:
        async with asyncio.timeout(15):
            assert await upload(port, "/v1/files/a", b"x" * size, 300) == 408

        await until_nothing_is_held(app)


@pytest.mark.parametrize("path", ["/v1/transactions", "/v1/login"])
async def test_a_body_in_json_that_stalls_is_ended(
    app: GatewayApp, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http.small_bodies._TIMEOUT_S", 0.2)
    async with serving_app(app) as port:
        reader, writer = await connect(port)
        writer.write(
            head(
                "POST",
                path,
                "content-type: application/json",
                "content-length: 1000",
            )
        )
        writer.write(b'{"steps": [')

        async with asyncio.timeout(15):
            status, headers, problem = await answer(reader)

        assert (status, problem["type"]) == (408, "urn:synod:problem:body-timeout")
        assert headers["connection"] == "close"
        writer.close()
        await until_nothing_is_held(app)


async def test_a_reader_below_the_least_rate_is_cut_off(app: GatewayApp) -> None:
    async with serving_app(app) as port, client_of(port) as client:
        await client.put("/v1/files/large", content=LARGE)
        reader, writer = await connect(port)
        writer.write(head("GET", "/v1/files/large"))
        await until(lambda: app.contents.outgoing.held)

        await until_nothing_is_held(app)

        received = await reader.read(-1)
        assert len(received) < len(LARGE), "a part, which can't be taken for the whole"
        writer.close()


async def test_large_bodies_in_json_wait_on_the_disk(app: GatewayApp) -> None:
    """Given more of them than there is room for, each but for its last byte, then all are run."""
    size = 400_000
    bodies = [
        json.dumps(
            {"steps": [{"op": "put", "path": f"{n}", "text": "x" * size}]}, separators=(",", ":")
        ).encode()
        for n in range(10)
    ]
    async with serving_app(app) as port, client_of(port) as client:
        connections = []
        for body in bodies:
            reader, writer = await connect(port)
            about = ("content-type: application/json", f"content-length: {len(body)}")
            writer.write(head("POST", "/v1/transactions", *about) + body[:-1])
            await writer.drain()
            connections.append((reader, writer))
        await until(lambda: app.contents.spill.used >= 5)
        assert app.contents.incoming.held <= 2 * MIB

        for _, writer in connections:
            writer.write(b"}")
        answers = [await answer(reader) for reader, _ in connections]

        assert [status for status, _, _ in answers] == [200] * 10
        assert (await client.get("/v1/files/9")).text == "x" * size
        await until_nothing_is_held(app)
        for _, writer in connections:
            writer.close()


async def test_where_nothing_is_left_an_upload_is_refused_before_it_is_sent(
    cluster: FakeCluster, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given uploads that stall and no space on the disk, then the next one is refused for now at
    once; small ones continue.
    """
    monkeypatch.setattr(contents_module, "_SPILLED_PER_MEMORY", 0)
    app = GatewayApp(cluster, settings)
    async with serving_app(app) as port, client_of(port) as client:
        stalled = [await connect(port) for _ in range(3)]
        for _, writer in stalled:
            writer.write(head("PUT", "/v1/files/a", f"content-length: {MIB}") + b"x" * 699_000)
        await until(lambda: app.contents.incoming.held > 2 * MIB - 16 * 1024)
        reader, writer = await connect(port)
        began_s = time.perf_counter()
        writer.write(head("PUT", "/v1/files/b", f"content-length: {MIB}", "expect: 100-continue"))

        status, headers, problem = await answer(reader)

        assert time.perf_counter() - began_s < 1
        assert (status, problem["type"]) == (503, "urn:synod:problem:unavailable")
        assert int(headers["retry-after"]) > 0
        assert problem["fact"] == "no command was submitted"
        assert (await client.put("/v1/files/c", content=b"small")).status_code == 201
        writer.close()
        for _, other in stalled:
            other.transport.abort()
        await until_nothing_is_held(app)
        assert (await client.put("/v1/files/b", content=FAST)).status_code == 201


async def test_a_full_disk_refuses_slow_uploads_and_lets_downloads_be(
    cluster: FakeCluster,
) -> None:
    """The journal is on the same disk: its reserve is not used for chunks of slow clients."""
    app = GatewayApp(
        cluster,
        Settings(upload_memory_bytes=4 * MIB, body_timeout_ms=2_000, disk_reserve_bytes=2**62),
    )
    async with serving_app(app) as port, client_of(port) as client:
        assert (await client.put("/v1/files/large", content=LARGE)).is_success
        async with asyncio.TaskGroup() as group:
            uploads = [
                group.create_task(upload(port, f"/v1/files/{n}", b"x" * MIB, MIB)) for n in range(6)
            ]
            downloads = [
                group.create_task(download(port, "/v1/files/large", len(LARGE))) for _ in range(6)
            ]

        statuses = [await task for task in uploads]
        assert set(statuses) == {201, 503}
        assert [await task for task in downloads] == [LARGE] * 6
        await until_nothing_is_held(app)


async def test_what_rots_on_the_disk_is_not_stored(
    app: GatewayApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given five uploads of which some wait on a disk that rots, then none of them is taken in as
    something else.
    """
    sound = SpillFile._read

    def rotten(spill: SpillFile, position: int, size: int) -> bytes:
        return b"y" + sound(spill, position, size)[1:]

    monkeypatch.setattr(SpillFile, "_read", rotten)
    body = b"x" * MIB
    async with serving_app(app) as port, client_of(port) as client:
        connections = [await connect(port) for _ in range(5)]
        for number, (_, writer) in enumerate(connections):
            writer.write(head("PUT", f"/v1/files/{number}", f"content-length: {MIB}") + body[1:])
        await until(lambda: app.contents.spill.used >= 3)

        for _, writer in connections:
            writer.write(b"x")
        answers = [await answer(reader) for reader, _ in connections]

        refused = [problem["detail"] for status, _, problem in answers if status == 503]
        assert len(refused) >= 3
        assert all("other bytes than were written" in detail for detail in refused)
        for number, (status, _, _) in enumerate(answers):
            there = await client.get(f"/v1/files/{number}")
            assert there.status_code == (404 if status == 503 else 200)
            assert there.content == body or status == 503
        for _, writer in connections:
            writer.close()
        await until_nothing_is_held(app)


async def test_a_client_that_vanishes_releases_everything(app: GatewayApp) -> None:
    async with serving_app(app) as port, client_of(port) as client:
        await client.put("/v1/files/large", content=LARGE)
        connections = [await connect(port) for _ in range(20)]
        for number, (_, writer) in enumerate(connections):
            if number % 2:
                writer.write(head("GET", "/v1/files/large"))
            else:
                writer.write(head("PUT", "/v1/files/a", f"content-length: {MIB}"))
                writer.write(b"x" * (MIB - 1))
        await until(lambda: app.contents.spill.used >= 18)

        for _, writer in connections:
            writer.transport.abort()

        await until_nothing_is_held(app)


async def test_parts_of_large_chunks_are_read_in_turn(
    app: GatewayApp, cluster: FakeCluster
) -> None:
    """A part of a few bytes needs its whole chunk in memory: many at once wait for each other."""
    async with serving_app(app) as port, client_of(port) as client:
        await client.put("/v1/files/one", content=LARGE[:CHUNK_BYTES])
        starts = range(0, CHUNK_BYTES, CHUNK_BYTES // 60)

        async def part(start: int) -> bytes:
            headers = {"range": f"bytes={start}-{start + 9}"}
            return (await client.get("/v1/files/one", headers=headers)).content

        parts = await asyncio.gather(*(part(start) for start in starts))

        assert parts == [LARGE[start : min(start + 10, CHUNK_BYTES)] for start in starts]
        assert 1 <= cluster.fetches_under_way_max <= 4
        await until_nothing_is_held(app)


async def test_slow_copies_of_a_backup_keep_no_other_waiting(
    app: GatewayApp, cluster: FakeCluster
) -> None:
    async with serving_app(app) as port, client_of(port) as client:
        await client.put("/v1/files/large", content=LARGE)
        url = f"/v1/chunks/{hashlib.sha256(LARGE[:CHUNK_BYTES]).hexdigest()}"
        async with asyncio.TaskGroup() as group:
            slow = [group.create_task(download(port, url, 50_000)) for _ in range(20)]
            await until(lambda: app.contents.spill.used >= 16)

            assert (await client.get(url)).content == LARGE[:CHUNK_BYTES]
            assert (await client.get("/v1/files/large")).content == LARGE
            assert not any(task.done() for task in slow)
            for task in slow:
                task.cancel()
        await until_nothing_is_held(app)


async def test_a_client_that_reads_nothing_of_a_response_is_disconnected(app: GatewayApp) -> None:
    """Complete responses wait in the connection, but not for ever."""
    async with serving_app(app, ConnectionLimits(unsent_s=0.2)) as port, client_of(port) as client:
        steps = [{"op": "mkdir", "path": f"{n:0250}"} for n in range(1000)]
        assert (await client.post("/v1/transactions", json={"steps": steps})).is_success
        whole = len((await client.get("/v1/directories/?limit=1000")).content)
        reader, writer = await connect(port)
        for _ in range(10):
            writer.write(head("GET", "/v1/directories/?limit=1000"))

        async with asyncio.timeout(10):
            await asyncio.sleep(0.1)  # Until the first of them is being answered.
            while "requests_in_flight 1.0" not in (await client.get("/metrics")).text:
                pass

        try:
            received = await reader.read(-1)
        except ConnectionError:
            received = b""
        assert len(received) < 10 * whole
        writer.close()
