"""Cases that need a real socket: bodies cut off, half-closed clients, downloads that must break."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.http.listener import PortInUse, listen
from gateway.http.server import HEADER_BYTES_MAX, _CoalescingTransport
from gateway.settings import Settings
from tests.gateway.conftest import serving
from tests.gateway.fake import FakeCluster


@asynccontextmanager
async def _connection(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def _head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: localhost", *headers, "", ""]).encode()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One answer; its status is 0 if none comes."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return 0, {}, b""
    lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(lines[0].split()[1]), headers, body


def _problem(body: bytes) -> dict[str, Any]:
    problem: dict[str, Any] = json.loads(body)
    return problem


@pytest.mark.parametrize("size", [10, 20_000, 150_000])
async def test_a_body_cut_off_midway_is_an_error_and_nothing_is_submitted(
    port: int, cluster: FakeCluster, size: int
) -> None:
    async with _connection(port) as (reader, writer):
        writer.write(_head("PUT", "/v1/files/a", f"content-length: {size + 1}") + b"x" * size)
        writer.write_eof()

        status, headers, body = await _answer(reader)

    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert _problem(body)["type"] == "urn:synod:problem:incomplete-body"
    assert cluster.submitted() == []


async def test_a_chunked_body_cut_off_midway(port: int, cluster: FakeCluster) -> None:
    async with _connection(port) as (reader, writer):
        writer.write(_head("PUT", "/v1/files/a", "transfer-encoding: chunked") + b"5\r\nhello\r\n")
        writer.write_eof()

        status, _, body = await _answer(reader)

    assert (status, _problem(body)["type"]) == (400, "urn:synod:problem:incomplete-body")
    assert cluster.submitted() == []


async def test_a_client_that_vanishes_midway_submits_nothing(
    port: int, cluster: FakeCluster
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_head("PUT", "/v1/files/a", "content-length: 200000") + b"x" * 100_000)
    await writer.drain()
    await cluster.called.wait()
    writer.transport.abort()

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/v1/files/a")).status_code == 404
        await _until_idle(client)
    assert cluster.submitted() == []


async def test_a_body_that_stops_moving_is_given_up(cluster: FakeCluster) -> None:
    async with (
        serving(cluster, Settings(body_timeout_ms=100)) as port,
        _connection(port) as (reader, writer),
    ):
        writer.write(_head("PUT", "/v1/files/a", "content-length: 10") + b"x")

        status, headers, body = await _answer(reader)

        assert (status, _problem(body)["type"]) == (408, "urn:synod:problem:body-timeout")
        assert headers["connection"] == "close"
    assert cluster.submitted() == []


async def test_a_client_may_close_its_side_after_the_request(port: int) -> None:
    async with _connection(port) as (reader, writer):
        writer.write(_head("PUT", "/v1/files/a", "content-length: 5") + b"hello")
        writer.write_eof()

        status, headers, _ = await _answer(reader)

        assert (status, headers["etag"]) == (201, '"2-0"')
        assert await reader.read() == b""


async def test_a_large_file_is_refused_before_it_is_sent(
    port: int, settings: Settings, cluster: FakeCluster
) -> None:
    length = settings.greatest_file_bytes + 1
    async with _connection(port) as (reader, writer):
        writer.write(
            _head("PUT", "/v1/files/a", f"content-length: {length}", "expect: 100-continue")
        )

        status, _, body = await _answer(reader)

    assert (status, _problem(body)["type"]) == (413, "urn:synod:problem:too-large")
    assert cluster.calls == []


async def test_a_missing_chunk_breaks_the_connection_instead_of_giving_wrong_bytes(
    port: int, cluster: FakeCluster
) -> None:
    content = hashlib.shake_256(b"x").digest(64 * 1024 * 20)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        await client.put("/v1/files/a", content=content)
        cluster.missing.add(hashlib.sha256(content[64 * 1024 * 19 :]).hexdigest())
        received = b""

        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 - the stream is what raises
            async with client.stream("GET", "/v1/files/a") as answer:
                assert answer.headers["content-length"] == str(len(content))
                async for piece in answer.aiter_bytes():
                    received += piece

        assert content.startswith(received)
        assert len(received) < len(content)


async def test_a_client_that_stops_reading_a_download_does_not_hold_its_chunks(
    cluster: FakeCluster,
) -> None:
    settings = Settings(chunk_bytes=64 * 1024, upload_memory_bytes=4 * 2**20, body_timeout_ms=300)
    content = b"x" * 15 * 2**20
    async with serving(cluster, settings) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            await client.put("/v1/files/a", content=content)
            stalled = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
            for _, writer in stalled:
                writer.write(_head("GET", "/v1/files/a"))

            answer = await client.get("/v1/files/a")

            assert answer.content == content
            await _until_idle(client)
        for _, writer in stalled:
            writer.transport.abort()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"GET /v1/files/\xff HTTP/1.1\r\n\r\n",
        b"PUT /v1/files/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"PUT /v1/files/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_invalid_http_is_answered_by_a_problem(
    port: int, cluster: FakeCluster, raw: bytes
) -> None:
    async with _connection(port) as (reader, writer):
        writer.write(raw)

        status, _, body = await _answer(reader)

    assert (status, _problem(body)["status"]) == (400, 400)
    assert cluster.submitted() == []


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nx: ", b"GET /v1/files/", b"GET / HTTP/1.1\r\n"]
)
async def test_a_head_without_end_is_refused(port: int, start: bytes) -> None:
    line = b"x: y\r\n" if start.endswith(b"\n") else b"yyyyyy"
    async with _connection(port) as (reader, writer):
        writer.write(start + line * (HEADER_BYTES_MAX // 6 + 1))

        status, _, body = await _answer(reader)

    assert (status, _problem(body)["type"]) == (431, "urn:synod:problem:head-too-large")


async def test_two_can_not_listen_at_one_port(port: int) -> None:
    with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is in use"):
        listen("127.0.0.1", port)


async def _until_idle(client: httpx.AsyncClient) -> None:
    """Wait until this is the only request in progress."""
    while True:
        text = (await client.get("/metrics")).text
        if "paxos_gateway_requests_in_flight 1.0" in text.splitlines():
            return


class _Packets(asyncio.Protocol):
    """What comes at once, in the pieces in which it came."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()

    def data_received(self, data: bytes) -> None:
        self.pieces.put_nowait(data)


async def test_head_and_body_of_a_small_answer_are_one_packet(port: int) -> None:
    loop = asyncio.get_running_loop()
    transport, packets = await loop.create_connection(_Packets, "127.0.0.1", port)
    try:
        for number in (1, 2, 3):
            transport.write(_head("PUT", f"/v1/files/{number}", "content-length: 2") + b"ok")
            async with asyncio.timeout(5):
                piece = await packets.pieces.get()
            assert piece.startswith(b"HTTP/1.1 201 ")
            assert piece.endswith(b"}")
    finally:
        transport.close()


async def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    async with _connection(port) as (reader, writer):
        writer.write(
            _head("PUT", "/v1/files/a", "content-length: 1") + b"1" + _head("GET", "/v1/files/a")
        )
        status, _, body = await _answer(reader)
        assert (status, _problem(body)["path"]) == (201, "a")
        status, _, body = await _answer(reader)
        assert (status, body) == (200, b"1")


async def test_what_is_written_before_the_end_of_a_connection_is_sent(port: int) -> None:
    async with _connection(port) as (reader, writer):
        writer.write(_head("GET", "/healthz", "connection: close"))
        status, headers, body = await _answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert body
        assert await reader.read() == b""


class _Transport:
    """Records what is written to it, and when it is closed."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def is_closing(self) -> bool:
        return False

    def writelines(self, pieces: list[bytes]) -> None:
        self.written.append(b"".join(pieces))

    def close(self) -> None:
        self.written.append(b"closed")

    def get_write_buffer_size(self) -> int:
        return 0


async def test_no_more_than_a_little_waits_for_the_end_of_a_round() -> None:
    transport: Any = _Transport()
    joining = _CoalescingTransport(transport, asyncio.get_running_loop())
    for _ in range(3):
        joining.write(b"x" * 7_000)
    joining.write(b"y")
    assert transport.written == [b"x" * 21_000]
    await asyncio.sleep(0)
    assert transport.written == [b"x" * 21_000, b"y"]
    joining.write(b"z")
    joining.close()
    await asyncio.sleep(0)
    assert transport.written[2:] == [b"z", b"closed"]
