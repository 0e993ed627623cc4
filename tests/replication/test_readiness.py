"""What a gateway says of a cluster that lacks nodes: the truth, at every door alike."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.hosting import broker_outage
from gateway.http.app import GatewayApp
from gateway.settings import Settings
from tests.replication.cluster import MemoryCluster, eventually, memory_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

# Nodes are taken for dead after three of these.
HEARTBEAT_MS = 300


class Door:
    """The gateway's doors, asked over HTTP."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def says(self) -> tuple[int, int, list[str]]:
        """The statuses of /readyz for writes and for reads, and the codes of the reasons."""
        writes = await self._client.get("/readyz")
        reads = await self._client.get("/readyz?for=reads")
        about = (await self._client.get("/v1/cluster")).json()
        codes = [reason["code"] for reason in about["condition"]["reasons"]]
        assert about["ready"] == (about["condition"]["writes"] == "taken") == (codes == [])
        return writes.status_code, reads.status_code, codes

    async def why_not(self) -> str:
        """What /readyz says of the writes."""
        return str((await self._client.get("/readyz")).json()["detail"])

    async def warnings(self) -> list[str]:
        about = (await self._client.get("/v1/cluster")).json()
        return [warning["detail"] for warning in about["condition"]["warnings"]]

    async def put(self, path: str) -> tuple[int, dict[str, Any]]:
        answer = await self._client.put(f"/v1/files/{path}", content=b"x")
        return answer.status_code, answer.json()

    async def read(self, path: str) -> tuple[int, Any]:
        answer = await self._client.get(f"/v1/files/{path}")
        return answer.status_code, answer.text


@asynccontextmanager
async def door_of(folder: Path, **options: Any) -> AsyncIterator[tuple[MemoryCluster, Door]]:
    async with memory_cluster(folder, heartbeat_ms=HEARTBEAT_MS, **options) as cluster:
        host = cluster.hosts["gateway-1"]
        app = GatewayApp(host, Settings(), broker_outage=lambda: broker_outage(host.transport))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            door = Door(client)
            await until(door, (200, 200, []))
            yield cluster, door


async def until(door: Door, expected: tuple[int, int, list[str]]) -> None:
    async def says() -> bool:
        return await door.says() == expected

    await eventually(says)


async def test_two_of_three_stores_dead_is_no_writes_and_says_so_and_reads_go_on(
    tmp_path: Path,
) -> None:
    async with door_of(tmp_path) as (cluster, door):
        assert (await door.put("a"))[0] == 201
        for name in ("store-2", "store-3"):
            await cluster.kill(name)

        await until(door, (503, 200, ["too_few_stores"]))
        await eventually(lambda: cluster.epoch == 1)  # What is under way until then is ended.

        status, problem = await door.put("a")
        assert (status, problem["type"]) == (503, "urn:synod:problem:aborted")
        assert await door.read("a") == (200, "x")
        assert await door.says() == (503, 200, ["too_few_stores"])
        why = await door.why_not()
        assert why.startswith("writes need 2 whole stores, but the view has 1 (store-1)"), why
        assert "store-2" in why
        # One comes back: that is enough.
        await cluster.start("store-2")
        await until(door, (200, 200, []))
        assert (await door.put("a"))[0] == 200
        assert any(said.startswith("store-3: not heard") for said in await door.warnings())


async def test_one_store_less_is_enough_unless_the_cluster_is_strict(tmp_path: Path) -> None:
    async with door_of(tmp_path / "available") as (cluster, door):
        await cluster.kill("store-3")
        await eventually(lambda: cluster.epoch == 1)
        assert await door.says() == (200, 200, [])
        assert (await door.put("a"))[0] == 201
    async with door_of(tmp_path / "strict", rowa="strict") as (cluster, door):
        await cluster.kill("store-3")

        await until(door, (503, 200, ["too_few_stores"]))
        await eventually(lambda: cluster.epoch == 1)

        assert (await door.put("a"))[0] == 503
        await cluster.start("store-3")
        await until(door, (200, 200, []))
        assert (await door.put("a"))[0] == 201


async def test_without_a_quorum_of_acceptors_nothing_is_promised(tmp_path: Path) -> None:
    async with door_of(tmp_path) as (cluster, door):
        for name in ("acceptor-1", "acceptor-2", "acceptor-3"):
            await cluster.kill(name)

        await until(door, (503, 503, ["no_leader", "too_few_acceptors"]))

        assert "2 of 5 acceptors can be counted on and 3 are needed" in await door.why_not()
        await cluster.start("acceptor-1")
        await until(door, (200, 200, []))


async def test_without_a_learner_nothing_can_be_decided(tmp_path: Path) -> None:
    async with door_of(tmp_path) as (cluster, door):
        for name in ("learner-1", "learner-2"):
            await cluster.kill(name)

        await until(door, (503, 200, ["no_learner"]))

        await cluster.start("learner-2")
        await until(door, (200, 200, []))


async def test_a_read_without_a_store_says_that_nothing_was_changed(tmp_path: Path) -> None:
    async with door_of(tmp_path, request_deadline_ms=2_000) as (cluster, door):
        for name in ("store-1", "store-2", "store-3"):
            await cluster.kill(name)

        status, text = await door.read("a")

        assert status == 503
        assert "Not answered: no store could serve the read" in text
        assert "Nothing was changed" in text
        assert "never will" not in text
        await until(door, (503, 503, ["too_few_stores"]))


async def test_a_gateway_that_begins_anew_claims_nothing_before_it_has_heard_of_the_view(
    tmp_path: Path,
) -> None:
    """Given a view of one store, a fresh gateway would know the founders' view of three only."""
    async with door_of(tmp_path) as (cluster, door):
        for name in ("store-2", "store-3"):
            await cluster.kill(name)
        await until(door, (503, 200, ["too_few_stores"]))
        host = await cluster.restart("gateway-1")
        app = GatewayApp(host, Settings())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            anew = Door(client)
            said: set[int] = set()

            async def settled() -> bool:
                writes, _, codes = await anew.says()
                said.add(writes)
                return codes == ["too_few_stores"]

            await eventually(settled)

        assert said == {503}
