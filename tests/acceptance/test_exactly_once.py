"""A request that is sent again is applied once; compare-and-set loses no update."""

import asyncio
import secrets
from collections import Counter

import pytest

from chaos.cluster.local import LocalCluster
from chaos.load.http1 import Connection, Disconnected, Reply
from tests.acceptance.conftest import Figure, Length
from tests.acceptance.test_failures import living_leader

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(240)]

PATIENCE_S = 60.0


async def put(connection: Connection, path: str, body: bytes, key: str) -> Reply:
    return await connection.request("PUT", f"/v1/files/{path}", body, f"idempotency-key: {key}\r\n")


async def put_until_answered(connection: Connection, path: str, body: bytes, key: str) -> Reply:
    """Send the same request again, as a client should, until there is a final answer."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                reply = await put(connection, path, body, key)
            except ConnectionError:
                reply = None
            if reply is not None and reply.status not in (409, 503, 504):
                return reply
            await asyncio.sleep(0.1)


async def version(connection: Connection, path: str) -> int:
    return int((await connection.request("HEAD", f"/v1/files/{path}")).header("synod-version"))


def first_result(reply: Reply) -> tuple[str, str, bytes]:
    return reply.header("etag"), reply.header("synod-slot"), reply.body


async def test_a_retry_returns_the_first_result(cluster: LocalCluster) -> None:
    # Given a write with a key, and another one after it,
    connection = Connection.to(cluster.url)
    key, path = secrets.token_hex(8), f"once-{secrets.token_hex(4)}"
    first = await put(connection, path, b"first", key)
    assert first.status == 201
    etag, slot, _ = first_result(first)

    # when it is sent again at once, after a leader change, and after the gateway's restart,
    again = [await put_until_answered(connection, path, b"first", key)]
    leader = await asyncio.to_thread(living_leader, cluster)
    await asyncio.to_thread(cluster.kill, leader)
    await asyncio.to_thread(
        cluster.wait_until, lambda: cluster.leader() not in (None, leader), "another one leads"
    )
    again.append(await put_until_answered(connection, path, b"first", key))
    cluster.start_node(leader)
    await asyncio.to_thread(cluster.kill, "gateway-1")
    cluster.start_node("gateway-1")
    await asyncio.to_thread(cluster.wait_ready)
    again.append(await put_until_answered(connection, path, b"first", key))

    # then it was applied once, and each answer is the first one.
    assert [first_result(reply)[:2] for reply in again] == [(etag, slot)] * 3
    assert {reply.status for reply in again} == {201}
    assert await version(connection, path) == 1

    # And the key is refused for another request.
    other = await put(connection, path, b"second", key)
    assert (other.status, other.body.count(b"urn:synod:problem:key-reused")) == (422, 1)
    connection.close()


async def test_what_was_under_way_when_the_gateway_died_is_applied_once(
    cluster: LocalCluster, figure: Figure
) -> None:
    # Given clients with a key each, whose requests are under way,
    names = [f"cut-{secrets.token_hex(4)}" for _ in range(16)]
    connections = {name: Connection.to(cluster.url) for name in names}
    under_way = [asyncio.create_task(put(connections[name], name, b"x", name)) for name in names]
    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)

    # when the gateway is killed meanwhile,
    await asyncio.to_thread(cluster.kill, "gateway-1")
    answers = await asyncio.gather(*under_way, return_exceptions=True)
    cut = [name for name, answer in zip(names, answers, strict=True) if not_answered(answer)]
    cluster.start_node("gateway-1")
    await asyncio.to_thread(cluster.wait_ready)

    # and all send the same request again,
    replies = await asyncio.gather(
        *(put_until_answered(connections[name], name, b"x", name) for name in names)
    )

    # then each was applied once.
    assert {reply.status for reply in replies} == {201}
    assert {await version(connections[name], name) for name in names} == {1}
    figure(f"{len(cut)} of {len(names)} requests were cut off by the gateway's death")
    for connection in connections.values():
        connection.close()


def not_answered(answer: Reply | BaseException) -> bool:
    if isinstance(answer, BaseException):
        assert isinstance(answer, Disconnected)
        return True
    return False


async def test_fifty_clients_increment_one_counter(
    cluster: LocalCluster, figure: Figure, length: Length
) -> None:
    # Given fifty clients that read a counter and increment it by compare-and-set,
    target = f"/v1/files/counter-{secrets.token_hex(4)}"
    each = length.pick(1, 10)
    statuses: Counter[int] = Counter()

    async def increment(connection: Connection) -> bool:
        now = await connection.request("GET", target)
        if now.status == 404:
            condition, value = "if-none-match: *\r\n", 0
        elif now.status == 200:
            condition, value = f"if-match: {now.header('etag')}\r\n", int(now.body)
        else:
            statuses[now.status] += 1
            return False
        reply = await connection.request("PUT", target, b"%d" % (value + 1), condition)
        statuses[reply.status] += 1
        assert reply.status in (200, 201, 412, 503), reply.body
        return reply.status in (200, 201)

    async def client() -> int:
        connection = Connection.to(cluster.url)
        successes = 0
        while successes < each:
            successes += await increment(connection)
        connection.close()
        return successes

    # when all of them do so until each has succeeded,
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client()) for _ in range(50)]
    successes = sum(client.result() for client in clients)

    # then the counter holds the number of successes, and there was a contest.
    connection = Connection.to(cluster.url)
    final = await connection.request("GET", target)
    assert (int(final.body), int(final.header("synod-version"))) == (successes, successes)
    assert statuses[201] == 1
    assert statuses[412] > successes
    figure(f"{successes} increments, {statuses[412]} lost races")
    connection.close()
