"""Strict HTTP in cases where a client would otherwise wait for ever, or take wrong bytes."""

import asyncio

import pytest

from tests.gateway.fake import FakeCluster
from tests.gateway.raw import Answer, connected, head

pytestmark = pytest.mark.timeout(30)

GETS = [
    "/",
    "/static/app.css",
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/cluster",
    "/v1/directories/",
    "/v1/events",
    "/v1/events?topics=cluster,requests,log&figures_after=0",
    "/v1/files/a",
    "/v1/requests",
    "/v1/traces",
    "/v1/watch?prefix=a",
]


async def test_head_is_answered_as_get_would_be_begun_and_ends(port: int) -> None:
    async with connected(port) as client, asyncio.timeout(20):
        await client.ask("PUT", "/v1/files/a", "content-length: 2", body=b"hi")
        told = {target: await client.ask("HEAD", target) for target in GETS}
        figures = (await client.ask("GET", "/metrics")).body
        for target in GETS:
            async with connected(port) as other:
                other.send(head("GET", target))
                full = await other.answer(bodyless=True)
            assert _lasting(told[target]) == _lasting(full), target
            assert told[target].status == full.status == 200
    assert b"paxos_gateway_requests_in_flight 1.0" in figures


def _lasting(answer: Answer) -> dict[str, str]:
    passing = ("date", "transfer-encoding", "content-length")
    return {name: value for name, value in answer.headers.items() if name not in passing}


@pytest.mark.parametrize("target", ["/v1/watch", "/v1/events"])
async def test_http_1_0_gets_a_stream_without_the_sizes_of_chunks(port: int, target: str) -> None:
    async with connected(port) as client, asyncio.timeout(5):
        client.send(head("GET", target, version="1.0"))

        answer = await client.answer()
        begin = await client.some()

        assert answer.headers["connection"] == "close"
        assert "transfer-encoding" not in answer.headers
        assert begin.startswith(b"retry: 1000\n\n")


async def test_http_1_0_may_leave_the_host_out(port: int) -> None:
    async with connected(port) as client:
        client.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.rest() == b""


MALFORMED = [
    b"GET /healthz HTTP/1.1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.0\r\nhost: localhost\r\nhost: evil.example\r\n\r\n",
    b"GET healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
]


async def test_a_request_names_one_host_and_one_path(port: int) -> None:
    for sent in MALFORMED:
        async with connected(port) as client:
            client.send(sent)
            answer = await client.answer()
            assert (answer.status, answer.problem) == (400, "invalid-request"), sent


ABSOLUTE = {
    "http://localhost/healthz": 200,
    "http://127.0.0.1:8080/healthz?x=y": 200,
    "http://[::1]:8080/healthz": 200,
    "http://localhost": 200,
    "http://evil.example/healthz": 421,
    "http://localhost@evil.example/healthz": 421,
    "http://evil.example:80": 421,
}


async def test_an_absolute_url_counts_and_not_the_host_beside_it(port: int) -> None:
    async with connected(port) as client:
        for target, status in ABSOLUTE.items():
            assert (await client.ask("GET", target)).status == status, target


@pytest.mark.parametrize("of_body", ["content-length: 2", "transfer-encoding: chunked"])
async def test_an_upgrade_never_makes_a_body_an_empty_one(
    port: int, cluster: FakeCluster, of_body: str
) -> None:
    upgrade = ("connection: upgrade", "upgrade: h2c", of_body)
    async with connected(port) as client:
        answer = await client.ask("PUT", "/v1/files/a", *upgrade, body=b"2\r\nhi\r\n0\r\n\r\n")

        assert (answer.status, answer.problem) == (400, "invalid-request")
        assert await client.rest() == b""
    assert cluster.submitted() == []


async def test_an_upgrade_is_not_taken_up_and_the_request_answered(port: int) -> None:
    async with connected(port) as client:
        answer = await client.ask("GET", "/healthz", "connection: upgrade", "upgrade: h2c")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.rest() == b""
