"""Answers that outgrow a message are sent in pages, on a real RabbitMQ as within one process."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from actors.calls import Read
from actors.messages import ReadRequest
from actors.store.changes import Change
from broker.memory_broker import MemoryBroker
from broker.rabbitmq import RabbitTransport
from broker.topology import Topology
from broker.transport import Transport
from chaos.cluster.rabbitmq import PrivateBroker
from gateway.http.app import GatewayApp
from gateway.settings import Settings
from tests.replication.cluster import MemoryCluster, memory_cluster

_MESSAGE_BYTES_MAX = 2 * 1024 * 1024
"""The largest message that the brokers of these tests take, so that directories can be smaller."""

_NAME = '"' * 251
"""The longest name, together with four digits; as JSON it takes twice as much."""

_FOLDER = "/".join(['"' * 255] * 15)
_META = {f"{number:x}": "" for number in range(150)}
_FILES_EACH = 100
_REQUESTS = 3


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def connect(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Transport]]:
    """Connects a node to a broker that takes no large messages."""
    if request.param == "memory":
        yield MemoryBroker(message_bytes_max=_MESSAGE_BYTES_MAX).transport
        return
    broker = PrivateBroker(tmp_path_factory.mktemp("small-rabbitmq"))
    try:
        broker.start()
        limit = f"application:set_env(rabbit, max_message_size, {_MESSAGE_BYTES_MAX})."
        broker.control("eval", limit)
        topology = Topology("small")
        yield lambda name: RabbitTransport(broker.url, topology, name)
    finally:
        broker.kill()


async def test_the_largest_directory_can_be_listed_and_watched_and_its_log_read(
    connect: Callable[[str], Transport], tmp_path: Path
) -> None:
    """Given a directory whose entries are as large as they may be, and outgrow a message together.

    Then its listing, the changes that made it and the log of them come in pages, one after the
    other, and nothing is missing.
    """
    # One process does the work of all nodes: with quicker heartbeats stores are taken for dead.
    async with (
        memory_cluster(tmp_path, heartbeat_ms=1_000, transport=connect) as cluster,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(GatewayApp(cluster.hosts["gateway-1"], Settings())),
            base_url="http://localhost",
            timeout=30,
        ) as client,
    ):
        slot = 0
        names = [f"{_NAME}{number:04}" for number in range(_FILES_EACH * _REQUESTS)]
        for begin in range(0, len(names), _FILES_EACH):
            steps = [
                {"op": "put", "path": f"{_FOLDER}/{name}", "text": "", "meta": _META}
                for name in names[begin : begin + _FILES_EACH]
            ]
            made = await client.post("/v1/transactions", json={"steps": steps})
            assert made.status_code == 200, made.text
            slot = made.json()["slot"]

        pages = [page async for page in _pages(client, _FOLDER)]
        assert [entry["name"] for page in pages for entry in page["entries"]] == names
        assert len(json.dumps(pages[0]["entries"][0])) * len(names) > _MESSAGE_BYTES_MAX

        paths = [change.path async for change in _changes(cluster, through=slot)]
        assert paths == [f"{_FOLDER}/{name}" for name in names]
        sessions = {host.transport.health.sessions for host in cluster.hosts.values()}
        assert sessions == {1}, "the broker closed a channel over a message that was too large"


async def _pages(client: httpx.AsyncClient, path: str) -> AsyncIterator[dict[str, Any]]:
    after: str | None = ""
    while after is not None:
        found = await client.get(
            f"/v1/directories/{path}".replace('"', "%22"), params={"after": after, "limit": 1_000}
        )
        assert found.status_code == 200, found.text
        page: dict[str, Any] = found.json()
        yield page
        after = page["next"]


def _read(request: ReadRequest, token: int) -> Read:
    return Read(token=token, request=request)


async def _changes(cluster: MemoryCluster, through: int) -> AsyncIterator[Change]:
    """The changes, asked for as a gateway does for its watchers."""
    known = 0
    while known < through:
        request = ReadRequest(
            number=0, what="changes", at_least=known + 1, limit=1_000, consistency="stale"
        )
        done = await cluster.hosts["gateway-1"].call(partial(_read, request))
        for change in done.reply.changes:
            yield change
        known = done.reply.applied
