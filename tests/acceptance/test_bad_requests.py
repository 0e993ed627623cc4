"""Requests that no client should send: each gets a clear answer, and nothing is written."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from chaos.cluster.local import LocalCluster
from chaos.load.http1 import Connection
from tests.acceptance.conftest import GREATEST_FILE_BYTES, MIB
from tests.acceptance.shell import clean_environment, synod

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(120)]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def raw_connection(url: str) -> AsyncIterator[Streams]:
    """A connection for what no HTTP client would send."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


BAD_PATHS = {
    "traversal": "../etc/passwd",
    "traversal inside": "a/../../b",
    "traversal, escaped": "%2e%2e/etc/passwd",
    "dot": "a/./b",
    "slash, escaped": "a%2Fb",
    "NUL": "a%00b",
    "line feed": "a%0Ab",
    "delete": "a%7Fb",
    "empty name": "a//b",
    "empty name at the end": "a/",
    "no UTF-8": "%ff",
    "overlong UTF-8": "%c0%ae%c0%ae/x",
    "surrogate": "%ed%a0%80",
    "not NFC": "e%CC%81",
    "half an escape": "a%2",
    "long name": "n" * 256,
    "long name of wide letters": "%C3%A9" * 128,
    "long path": "/".join(["d" * 200] * 21),
}


@pytest.mark.parametrize("path", BAD_PATHS.values(), ids=BAD_PATHS)
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
async def test_a_bad_path_is_refused(cluster: LocalCluster, method: str, path: str) -> None:
    connection = Connection.to(cluster.url)
    reply = await connection.request(method, f"/v1/files/{path}", b"x")
    problem = json.loads(reply.body)
    assert (reply.status, problem["type"]) == (400, "urn:synod:problem:invalid-path")
    assert problem["detail"]
    connection.close()


@pytest.mark.parametrize("size", [1000, 3 * MIB])
@pytest.mark.parametrize("half_closed", [True, False])
async def test_a_body_cut_off_midway_writes_nothing(
    cluster: LocalCluster, size: int, half_closed: bool
) -> None:
    # Given an upload that announces more than it sends,
    path = f"/v1/files/cut-{secrets.token_hex(4)}"
    async with raw_connection(cluster.url) as (reader, writer):
        head = f"PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n"
        writer.write(head.encode())
        writer.write(b"y" * (size - size // 3))
        await writer.drain()

        # when the client ends it,
        if half_closed:
            writer.write_eof()
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 400 "), answer
            assert b"urn:synod:problem:incomplete-body" in answer
        else:
            writer.transport.abort()

    # then there is no such file, now or later.
    connection = Connection.to(cluster.url)
    after = await connection.request("PUT", "/v1/files/after-the-cut", b"x")
    assert after.status in (200, 201)
    assert (await connection.request("GET", path)).status == 404
    connection.close()


async def test_a_file_over_the_limit_is_refused_before_it_is_sent(cluster: LocalCluster) -> None:
    size = GREATEST_FILE_BYTES + 1
    head = f"PUT /v1/files/huge HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n"
    async with raw_connection(cluster.url) as (reader, writer), asyncio.timeout(10):
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 "), answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PUT /v1/files/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: many\r\n\r\n",
        b"GET /v1/files/x HTTP/1.1\r\nhost: localhost\r\nx y: z\r\n\r\n",
        b"GET /v1/files/x HTTP/9.9\r\n\r\n",
    ],
    ids=["TLS", "no length", "no header", "no version"],
)
async def test_what_is_no_http_is_refused(cluster: LocalCluster, sent: bytes) -> None:
    async with raw_connection(cluster.url) as (reader, writer), asyncio.timeout(10):
        writer.write(sent)
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert b"application/problem+json" in answer


async def test_a_head_without_end_is_cut(cluster: LocalCluster) -> None:
    async with raw_connection(cluster.url) as (reader, writer), asyncio.timeout(30):
        writer.write(b"GET /v1/files/x HTTP/1.1\r\nhost: localhost\r\nx: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                writer.write(b"y" * MIB)
                await writer.drain()
            await reader.read()
            pytest.fail("the gateway took 64 MiB of one header")
    assert await asyncio.to_thread(cluster.ready)


def test_the_command_line_refuses_bad_paths(
    cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shell")
    (folder / "some.txt").write_text("x")
    environment = clean_environment(url=cluster.url)
    ran = synod("put", "some.txt", "a/../b", environment=environment, folder=folder)
    assert (ran.code, ran.out) == (2, "")
    assert "'..'" in ran.err
    assert "Traceback" not in ran.err
    missing = synod("get", "no-such-file", "copy", environment=environment, folder=folder)
    assert (missing.code, "no-such-file" in missing.err) == (4, True)
    assert not (folder / "copy").exists()
