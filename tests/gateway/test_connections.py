"""Connections can't exhaust a server: every buffer has a bound, every wait a deadline."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
from pydantic import SecretStr

from gateway.http.connections import ConnectionLimits, Connections
from gateway.http.live_events import SUBSCRIBERS_MAX
from gateway.http.server import HEADER_BYTES_MAX, HEADERS_MAX
from gateway.settings import Settings
from tests.gateway.conftest import serving
from tests.gateway.fake import FakeCluster
from tests.gateway.raw import Client, connected, head

pytestmark = pytest.mark.timeout(30)

TOKEN = "a-token-of-the-tests-0123"
MIB = 1024 * 1024
SHORT = ConnectionLimits(
    connections=8,
    from_one_address=6,
    bodies=2,
    head_s=0.4,
    body_s=0.4,
    idle_s=0.6,
    unsent_s=0.5,
    discard_s=0.6,
    linger_s=0.5,
    unsent_bytes=64 * MIB,
)


@pytest.fixture
async def short(cluster: FakeCluster, settings: Settings) -> AsyncIterator[int]:
    """The port of a server with short deadlines and small bounds."""
    async with serving(cluster, settings, SHORT) as port:
        yield port


async def _figure(port: int, name: str, address: str = "127.0.0.9") -> float:
    async with connected(port, address) as client:
        answer = await client.ask("GET", "/metrics")
    for line in answer.body.decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    return 0.0


async def _until_nothing_runs(port: int) -> None:
    async with asyncio.timeout(10):
        while await _figure(port, "paxos_gateway_requests_in_flight") != 1:
            pass


# -- heads and bodies --------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, SecretStr(TOKEN)], ids=["open", "behind a 401"])
@pytest.mark.parametrize(
    "endless",
    [b"0\r\n" + b"x: y\r\n" * 20_000, b"0\r\nx: " + b"y" * MIB, b"1;" + b"e" * MIB],
    ids=["many trailers", "one long trailer", "a chunk's extension"],
)
async def test_what_is_no_body_is_not_taken_in_for_ever(
    cluster: FakeCluster, settings: Settings, token: SecretStr | None, endless: bytes
) -> None:
    settings = settings.model_copy(update={"token": token})
    async with serving(cluster, settings) as port, connected(port) as client:
        client.send(head("PUT", "/v1/files/a", "transfer-encoding: chunked"))
        await asyncio.sleep(0.01)
        reading = asyncio.create_task(client.answer())
        client.send(endless)

        taken = await client.flood(endless[-100_000:], 64 * MIB)

        answer = await reading
        assert answer.problem == ("unauthorized" if token else "head-too-large")
        assert taken < 40 * MIB
    assert cluster.submitted() == []


async def test_an_honest_trailer_is_taken_and_dropped(port: int) -> None:
    async with connected(port) as client:
        body = b"2\r\nhi\r\n1;e=f\r\n!\r\n0\r\nx-digest: y\r\n\r\n"

        answer = await client.ask("PUT", "/v1/files/a", "transfer-encoding: chunked", body=body)

        assert answer.status == 201
        assert (await client.ask("GET", "/v1/files/a")).body == b"hi!"


async def test_a_body_in_chunks_of_one_byte_is_taken(port: int) -> None:
    async with connected(port) as client:
        body = b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"

        answer = await client.ask("PUT", "/v1/files/a", "transfer-encoding: chunked", body=body)

        assert answer.status == 201


@pytest.mark.parametrize(
    "sent",
    [
        head("GET", "/v1/files/a", *(f"x-{n}: y" for n in range(HEADERS_MAX + 1))),
        head("GET", "/v1/files/a", "x: " + "y" * HEADER_BYTES_MAX),
        head("GET", "/" + "y" * HEADER_BYTES_MAX),
    ],
    ids=["many", "long", "URL"],
)
async def test_a_head_that_comes_at_once_has_the_same_bounds(port: int, sent: bytes) -> None:
    async with connected(port) as client:
        client.send(sent)

        answer = await client.answer()

        assert (answer.status, answer.problem) == (431, "head-too-large")
        assert await client.rest() == b""


async def test_what_is_quoted_of_a_request_is_cut(port: int) -> None:
    async with connected(port) as client:
        for target in (f"/{'y' * 20_000}", f"/v1/traces/{'y' * 20_000}"):
            answer = await client.ask("GET", target)
            assert (answer.status, len(answer.body) < 2_000) == (404, True)

        kept = (await client.ask("GET", "/v1/requests")).body

        assert len(kept) < 2_000


async def test_a_large_body_that_is_refused_can_be_sent_to_its_end(port: int) -> None:
    """Most clients read the response only after they have sent everything."""
    async with connected(port) as client:
        size = 30 * MIB
        client.send(head("PUT", "/v1/files/a", f"content-length: {size}"))
        assert await client.flood(b"x" * MIB, size) == size

        answer = await client.answer()

        assert answer.problem == "too-large"
        assert (await client.ask("GET", "/healthz")).status == 200


# -- pipelines ----------------------------------------------------------------------------------


async def test_no_more_than_some_requests_wait_for_an_earlier_one(
    port: int, cluster: FakeCluster
) -> None:
    cluster.hold = asyncio.Event()
    async with connected(port) as client:
        client.send(head("GET", "/v1/files/a") * 5_000)
        await cluster.called.wait()
        assert await _figure(port, "paxos_gateway_requests_in_flight") == 2
        cluster.hold.set()

        answers = [await client.answer() for _ in range(17)]

        assert {answer.status for answer in answers} == {404}
        assert answers[-1].headers["connection"] == "close"
        assert await client.rest() == b""


@pytest.mark.parametrize("bad", [b"\x00\x01\x02\r\n\r\n", head("GET", "/", "x: " + "y" * 40_000)])
async def test_a_write_gets_its_own_answer_whatever_follows_it(
    port: int, cluster: FakeCluster, bad: bytes
) -> None:
    async with connected(port) as client:
        client.send(head("PUT", "/v1/files/a", "content-length: 1") + b"1" + bad)

        answer = await client.answer()

        assert (answer.status, answer.headers["connection"]) == (201, "close")
        assert await client.rest() == b""
    assert len(cluster.submitted()) == 1


async def test_a_stream_ends_with_its_client_also_before_other_requests(port: int) -> None:
    async with connected(port) as client, connected(port) as other:
        client.send(head("GET", "/v1/watch") + head("GET", "/healthz"))
        await client.some()
        assert await _figure(port, "paxos_gateway_requests_in_flight") == 2

        client.abort()

        # The next send to it fails, which shows that it is gone.
        while await _figure(port, "paxos_gateway_requests_in_flight") != 1:
            assert (await other.ask("PUT", "/v1/files/a", "content-length: 0")).status < 300


# -- deadlines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", head("GET", "/healthz")], ids=["first", "second"])
async def test_a_head_has_a_deadline(short: int, before: bytes) -> None:
    async with connected(short) as client:
        if before:
            client.send(before)
            assert (await client.answer()).status == 200
        client.send(b"GET / HTTP/1.1\r\nx:")
        began = time.monotonic()

        answer = await client.answer()

        assert (answer.status, answer.problem) == (408, "head-timeout")
        assert time.monotonic() - began < 3
        assert await client.rest() == b""


async def test_a_head_that_comes_drop_by_drop_has_the_same_deadline(short: int) -> None:
    async with connected(short) as client:
        dripping = asyncio.create_task(_drip(client, b"GET / HTTP/1.1\r\nx: ", b"y"))

        answer = await client.answer()

        dripping.cancel()
        assert (answer.status, answer.problem) == (408, "head-timeout")


async def test_a_body_that_comes_drop_by_drop_is_given_up(short: int, cluster: FakeCluster) -> None:
    async with connected(short) as client:
        begin = head("PUT", "/v1/files/a", "content-length: 100000")
        dripping = asyncio.create_task(_drip(client, begin, b"y"))

        answer = await client.answer()

        dripping.cancel()
        assert (answer.status, answer.problem) == (408, "body-timeout")
    await _until_nothing_runs(short)
    assert cluster.submitted() == []


async def _drip(client: Client, begin: bytes, drop: bytes) -> None:
    client.send(begin)
    while True:
        await asyncio.sleep(0.05)
        client.send(drop)


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n", head("GET", "/healthz"), head("GET", "/healthz") + b"\r\n"]
)
async def test_a_connection_that_asks_nothing_ends(short: int, sent: bytes) -> None:
    async with connected(short) as client, asyncio.timeout(5):
        client.send(sent)
        assert (await client.rest()).startswith(b"HTTP/1.1 200" if b"GET" in sent else b"")


async def test_a_body_that_was_answered_without_it_does_not_go_on_for_ever(
    cluster: FakeCluster, settings: Settings
) -> None:
    settings = settings.model_copy(update={"token": SecretStr(TOKEN)})
    async with serving(cluster, settings, SHORT) as port, connected(port) as client:
        answer = await client.ask("PUT", "/v1/files/a", "content-length: 1000000000")
        assert answer.status == 401
        async with asyncio.timeout(5):
            dripping = asyncio.create_task(_drip(client, b"", b"y"))
            assert await client.rest() == b""
        dripping.cancel()


async def test_an_answer_that_is_not_read_is_dropped(
    short: int, cluster: FakeCluster, settings: Settings
) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{short}") as http:
        await http.put("/v1/files/a", content=b"x" * 15 * MIB)
    async with connected(short, "127.0.0.2") as client:
        client.send(head("GET", "/v1/files/a"))
        async with asyncio.timeout(8):
            await _until_nothing_runs(short)
    assert await _figure(short, 'paxos_gateway_turned_away_total{reason="unread"}') == 1


# -- how many -----------------------------------------------------------------------------------


async def test_connections_that_wait_make_room_for_a_new_one(
    cluster: FakeCluster, settings: Settings
) -> None:
    patient = ConnectionLimits(connections=8, from_one_address=8)
    async with serving(cluster, settings, patient) as port, AsyncExitStack() as stack:
        known = await stack.enter_async_context(connected(port))
        assert (await known.ask("GET", "/healthz")).status == 200
        half = await stack.enter_async_context(connected(port))
        half.send(b"GET / HTTP/1.1\r\nx:")
        for _ in range(30):
            await stack.enter_async_context(connected(port))
        newest = await stack.enter_async_context(connected(port))
        assert (await newest.ask("GET", "/healthz")).status == 200

        assert (await half.answer()).problem == "crowded"
        # A client that was served before keeps its connection; those without a request lose theirs.
        assert (await known.ask("GET", "/healthz")).status == 200


async def test_no_request_under_way_is_given_up_for_another_connection(
    cluster: FakeCluster, settings: Settings
) -> None:
    limits = ConnectionLimits(connections=8, from_one_address=6)
    async with serving(cluster, settings, limits) as port, AsyncExitStack() as stack:
        cluster.hold = asyncio.Event()
        busy = [await stack.enter_async_context(connected(port)) for _ in range(6)]
        for client in busy:
            client.send(head("GET", "/v1/files/a"))
        while await _figure(port, "paxos_gateway_requests_in_flight") != 7:
            pass

        refused = await (await stack.enter_async_context(connected(port))).answer()
        other = await stack.enter_async_context(connected(port, "127.0.0.2"))
        other.send(head("GET", "/v1/files/a"))
        cluster.hold.set()

        assert (refused.status, refused.problem) == (503, "crowded")
        assert refused.headers["retry-after"] == "1"
        assert [(await client.answer()).status for client in (*busy, other)] == [404] * 7


async def test_more_bodies_than_may_be_incomplete_are_refused(
    cluster: FakeCluster, settings: Settings
) -> None:
    async with (
        serving(cluster, settings, ConnectionLimits(bodies=2)) as port,
        AsyncExitStack() as stack,
    ):
        first, second, third = [await stack.enter_async_context(connected(port)) for _ in range(3)]
        for client in (first, second):
            client.send(head("PUT", "/v1/files/a", "content-length: 4") + b"ab")
        await _figure(port, "")

        refused = await third.ask("PUT", "/v1/files/b", "content-length: 4", body=b"ab")
        whole = await third.ask("PUT", "/v1/files/b", "content-length: 2", body=b"ab")

        assert (refused.status, refused.problem) == (503, "crowded")
        assert whole.status == 0
        first.send(b"cd")
        assert (await first.answer()).status == 201


async def test_no_more_than_some_listen_to_events(port: int) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(SUBSCRIBERS_MAX):
            client = await stack.enter_async_context(connected(port))
            client.send(head("GET", "/v1/events"))
            assert (await client.some()).startswith(b"HTTP/1.1 200")
        client = await stack.enter_async_context(connected(port))
        answer = await client.ask("GET", "/v1/events")
        assert (answer.status, answer.problem) == (503, "crowded")
        assert (await client.ask("GET", "/healthz")).status == 200


def test_the_limit_of_a_process_leaves_descriptors_for_journals() -> None:
    limits = ConnectionLimits.of_process(body_s=7)
    assert 0 < limits.from_one_address < limits.connections <= 1_000
    assert limits.body_s == 7


class _Plain:
    """A connection that records the calls of its methods."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.ended = ""

    def make_room(self) -> None:
        self.ended = "room"

    def abort(self) -> None:
        self.ended = "aborted"


def test_the_oldest_stranger_goes_first_and_the_busy_never() -> None:
    held = Connections(ConnectionLimits(connections=3, from_one_address=2))
    known, stranger, busy, new, other = (_Plain(a) for a in ("a", "b", "a", "c", "b"))
    for one in (known, stranger, busy):
        assert held.admit(one)
    held.mark_serving(known)
    held.mark_idle(known, known=True)
    held.mark_serving(busy)

    assert held.admit(new)
    assert (stranger.ended, known.ended, len(held)) == ("room", "", 3)
    held.mark_serving(new)
    assert held.admit(other)
    assert (known.ended, len(held)) == ("room", 3)
    held.mark_serving(other)
    assert not held.admit(_Plain("d"))
    for one in (known, stranger, busy, new, other):
        held.remove(one)
    assert (len(held), held._of_address) == (0, {})
