"""What a gateway reports of a cluster that lacks nodes: the same truth at every endpoint."""

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

# Nodes count as dead after three of these.
HEARTBEAT_MS = 500


class HttpGateway:
    """A gateway's HTTP API."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def readiness(self) -> tuple[int, int, list[str]]:
        """The statuses of /readyz for writes and for reads, and the codes of the reasons."""
        writes = await self._client.get("/readyz")
        reads = await self._client.get("/readyz?for=reads")
        about = (await self._client.get("/v1/cluster")).json()
        codes = [reason["code"] for reason in about["condition"]["reasons"]]
        assert about["ready"] == (about["condition"]["writes"] == "taken") == (codes == [])
        return writes.status_code, reads.status_code, codes

    async def detail(self) -> str:
        """The detail in the answer of /readyz for writes."""
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
async def cluster_with_gateway(
    folder: Path, **options: Any
) -> AsyncIterator[tuple[MemoryCluster, HttpGateway]]:
    async with memory_cluster(folder, heartbeat_ms=HEARTBEAT_MS, **options) as cluster:
        host = cluster.hosts["gateway-1"]
        app = GatewayApp(host, Settings(), broker_outage=lambda: broker_outage(host.transport))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            gateway = HttpGateway(client)
            await until(gateway, (200, 200, []))
            yield cluster, gateway


async def until(gateway: HttpGateway, expected: tuple[int, int, list[str]]) -> None:
    async def reached() -> bool:
        return await gateway.readiness() == expected

    await eventually(reached)


async def test_without_two_of_three_stores_writes_are_refused_and_reads_go_on(
    tmp_path: Path,
) -> None:
    async with cluster_with_gateway(tmp_path) as (cluster, gateway):
        assert (await gateway.put("a"))[0] == 201
        for name in ("store-2", "store-3"):
            await cluster.kill(name)

        await until(gateway, (503, 200, ["too_few_stores"]))
        # Not a view of two: what is under way as its dead store leaves is carried through.
        await eventually(lambda: cluster.view == ["store-1"])

        status, problem = await gateway.put("a")
        assert (status, problem["type"]) == (503, "urn:synod:problem:aborted")
        assert await gateway.read("a") == (200, "x")
        assert await gateway.readiness() == (503, 200, ["too_few_stores"])
        why = await gateway.detail()
        assert why.startswith("writes need 2 whole stores, but the view has 1 (store-1)"), why
        assert "store-2" in why
        # One comes back: that is enough.
        await cluster.start("store-2")
        await until(gateway, (200, 200, []))
        assert (await gateway.put("a"))[0] == 200
        assert any(said.startswith("store-3: not heard") for said in await gateway.warnings())


async def test_one_store_less_is_enough_unless_the_cluster_is_strict(tmp_path: Path) -> None:
    async with cluster_with_gateway(tmp_path / "available") as (cluster, gateway):
        await cluster.kill("store-3")
        await eventually(lambda: cluster.epoch >= 1)
        await until(gateway, (200, 200, []))  # The learners know a view before the gateway does.
        assert (await gateway.put("a"))[0] == 201
    async with cluster_with_gateway(tmp_path / "strict", rowa="strict") as (cluster, gateway):
        await cluster.kill("store-3")

        await until(gateway, (503, 200, ["too_few_stores"]))
        await eventually(lambda: cluster.epoch >= 1)

        assert (await gateway.put("a"))[0] == 503
        await cluster.start("store-3")
        await until(gateway, (200, 200, []))
        assert (await gateway.put("a"))[0] == 201


async def test_without_a_quorum_of_acceptors_the_gateway_is_not_ready(tmp_path: Path) -> None:
    async with cluster_with_gateway(tmp_path) as (cluster, gateway):
        for name in ("acceptor-1", "acceptor-2", "acceptor-3"):
            await cluster.kill(name)

        await until(gateway, (503, 503, ["no_leader", "too_few_acceptors"]))

        assert "2 of 5 acceptors can be counted on and 3 are needed" in await gateway.detail()
        await cluster.start("acceptor-1")
        await until(gateway, (200, 200, []))


async def test_without_a_learner_nothing_can_be_decided(tmp_path: Path) -> None:
    async with cluster_with_gateway(tmp_path) as (cluster, gateway):
        for name in ("learner-1", "learner-2"):
            await cluster.kill(name)

        await until(gateway, (503, 200, ["no_learner"]))

        await cluster.start("learner-2")
        await until(gateway, (200, 200, []))


async def test_a_read_without_a_store_says_that_nothing_was_changed(tmp_path: Path) -> None:
    async with cluster_with_gateway(tmp_path, request_deadline_ms=2_000) as (cluster, gateway):
        for name in ("store-1", "store-2", "store-3"):
            await cluster.kill(name)

        status, text = await gateway.read("a")

        assert status == 503
        assert "Not answered: no store could serve the read" in text
        assert "Nothing was changed" in text
        assert "never will" not in text
        await until(gateway, (503, 503, ["too_few_stores"]))


async def test_a_restarted_gateway_claims_nothing_before_it_knows_the_view(
    tmp_path: Path,
) -> None:
    """Given a view of one store, a restarted gateway would know only the founding view of three."""
    async with cluster_with_gateway(tmp_path) as (cluster, gateway):
        for name in ("store-2", "store-3"):
            await cluster.kill(name)
        await until(gateway, (503, 200, ["too_few_stores"]))
        host = await cluster.restart("gateway-1")
        app = GatewayApp(host, Settings())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            anew = HttpGateway(client)
            said: set[int] = set()

            async def settled() -> bool:
                writes, _, codes = await anew.readiness()
                said.add(writes)
                return codes == ["too_few_stores"]

            await eventually(settled)

        assert said == {503}
