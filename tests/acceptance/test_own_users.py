"""A whole cluster whose nodes are users of their own on the broker: as with a shared user."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from broker.topology import QueueKind
from chaos.cluster.local import Description, LocalCluster
from chaos.load.writers import Load
from synod.client import Client
from tests.acceptance.conftest import started
from tests.acceptance.test_failures import judge, outage
from tests.long import only_long

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(300), only_long]


@pytest.fixture(params=["named", "session"])
def own_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """Sixteen processes with a user each."""
    kind: QueueKind = request.param
    settings = {"broker_users": "own", "queues": kind}
    description = Description.mint(settings=settings, metrics=True)
    yield from started(LocalCluster(tmp_path_factory.mktemp("own"), description))


async def test_writes_reads_timers_and_a_restart_of_the_broker(own_cluster: LocalCluster) -> None:
    """Given eight clients that write, when nodes and then the broker die, then all goes on, nothing
    is lost, and no node was refused anything.
    """
    content = secrets.token_bytes(3 * 1024 * 1024)

    def copy() -> bytes:
        with Client(own_cluster.url) as synod:
            synod.put("large", content)
            return synod.read("large")

    async with Load(own_cluster.url, clients=8) as load:
        await load.count(50)
        assert await asyncio.to_thread(copy) == content
        leader = await asyncio.to_thread(own_cluster.leader)
        assert leader is not None
        await outage(own_cluster, load, leader, "learner-1", "store-1")
        broker = own_cluster.broker
        assert broker is not None
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(own_cluster.start_brokers)
        await asyncio.to_thread(own_cluster.wait_whole)
        await load.count(50)
    await judge(load)
    for name in own_cluster.nodes:
        log = own_cluster.nodes[name].log.read_text()
        assert "ACCESS_REFUSED" not in log, log
        assert "the broker does not confirm" not in log, log
        assert "quarantine" not in log, log
