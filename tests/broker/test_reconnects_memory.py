"""A node whose broker fails again and again keeps nothing of its former connections."""

import gc
from pathlib import Path
from uuid import uuid4

import pytest

from broker.rabbitmq import RabbitTransport
from broker.topology import Topology
from tests.broker.hosting import House, until
from tests.long import LONG

pytestmark = pytest.mark.rabbitmq

CUTS = 15 if LONG else 3


async def test_lost_connections_leave_nothing_behind(tmp_path: Path, amqp_url: str) -> None:
    topology = Topology(f"test-{uuid4().hex[:12]}")
    house = House(tmp_path, lambda name: RabbitTransport(amqp_url, topology, name))
    host = house.host("store-1")

    async def cut(times: int) -> int:
        """Lose the connection so often; how many objects a collection leaves then."""
        for _ in range(times):
            former = host.transport.health.sessions
            session = host.transport._session  # type: ignore[attr-defined]
            session._consuming._writer.transport.abort()
            del session
            await until(lambda: host.transport.health.sessions > former, within_s=30)  # noqa: B023
            await until(lambda: host.transport.health.connected, within_s=30)
        gc.collect()
        return len(gc.get_objects())

    async with house.running(host):
        before = await cut(2)  # What is made once for all connections is made by these.
        after = await cut(CUTS)
        assert after - before < 50 * CUTS, (before, after)
