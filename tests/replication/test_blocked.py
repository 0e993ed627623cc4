"""A broker takes no messages for a while, and writes go on within three seconds of its end.

RabbitMQ does so while its memory or disk alarm is on: connections that publish are blocked, those
that consume go on. Nothing can be published then, timers included, so all nodes pause together.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from actors.calls import WriteDecided
from broker.rabbitmq import RabbitTransport
from broker.topology import Topology
from chaos.cluster.rabbitmq import BrokerFailedError, PrivateBroker
from tests.long import LONG
from tests.replication.cluster import MemoryCluster, eventually, memory_cluster
from tests.worlds import put

RESUMED_WITHIN_S = 3.0

BLOCKED_S = [3.0, 35.0 if LONG else 12.0]
"""Shorter and longer than what a node is taken for dead after, or than a request may take."""


@asynccontextmanager
async def written_to(cluster: MemoryCluster) -> AsyncIterator[None]:
    """Clients write all the time, and go on after any answer."""

    ends = asyncio.Event()

    async def write_on(path: str) -> None:
        while not ends.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await cluster.write(put(path, b"x"), retry=True)

    writing = [asyncio.create_task(write_on(f"load/{number}")) for number in range(4)]
    try:
        yield
    finally:
        ends.set()
        await asyncio.wait(writing)


async def resumed_after_s(cluster: MemoryCluster) -> float:
    """The seconds until a write that begins now is done, with retries."""
    began_s = time.monotonic()

    async def is_done() -> bool:
        try:
            async with asyncio.timeout(1):
                answer = await cluster.write(put("after", b"2"), retry=True)
        except TimeoutError:
            return False
        return isinstance(answer, WriteDecided) and answer.outcome.status == "done"

    await eventually(is_done, within_s=60)
    return time.monotonic() - began_s


def standing(cluster: MemoryCluster) -> dict[str, Any]:
    """The views of the learners, the takeovers that they proposed, and the leader."""
    proposers = [cluster.actor(name) for name in cluster.options.names("proposer")]
    learners = [cluster.actor(name) for name in cluster.options.names("learner")]
    return {
        "views": [actor.view for actor in learners],
        "takeovers": [actor.counters["takeovers_proposed"] for actor in learners],
        "leaders": [actor.name for actor in proposers if actor.holds_lease],
    }


async def test_writes_go_on_soon_after_the_embedded_broker_was_blocked(tmp_path: Path) -> None:
    # Given a cluster that is written to,
    async with memory_cluster(tmp_path) as cluster, written_to(cluster):
        await cluster.done(put("before", b"1"))
        before = standing(cluster)

        # when the broker takes nothing for longer than the third retry of a lost timer,
        cluster.broker.block()
        await asyncio.sleep(9)
        dropped = sum(host.transport.health.dropped for host in cluster.hosts.values())
        assert dropped > 0
        cluster.broker.unblock()

        # then the same leader goes on in the same view, soon.
        assert await resumed_after_s(cluster) < RESUMED_WITHIN_S
        assert standing(cluster) == before


@pytest.fixture(scope="module")
def alarming_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A RabbitMQ whose memory alarm these tests may raise."""
    broker = PrivateBroker(tmp_path_factory.mktemp("alarming-rabbitmq"))
    try:
        broker.start()
        yield broker
    except BrokerFailedError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        broker.kill()


@asynccontextmanager
async def memory_alarm(broker: PrivateBroker) -> AsyncIterator[None]:
    """RabbitMQ has too little memory within the block, and always enough after it."""
    await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0")
    try:
        yield
    finally:
        await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.4")


@pytest.mark.rabbitmq
@pytest.mark.timeout(120)
@pytest.mark.parametrize("blocked_s", BLOCKED_S)
async def test_writes_go_on_soon_after_an_alarm_of_rabbitmq(
    tmp_path: Path, alarming_broker: PrivateBroker, blocked_s: float
) -> None:
    topology = Topology(f"test-{uuid4().hex[:12]}")

    def transport(name: str) -> RabbitTransport:
        return RabbitTransport(alarming_broker.url, topology, name)

    # Given a cluster on RabbitMQ that is written to,
    async with memory_cluster(tmp_path, transport=transport) as cluster, written_to(cluster):
        await cluster.done(put("before", b"1"))
        before = standing(cluster)
        health = [host.transport.health for host in cluster.hosts.values()]

        def blocked() -> list[bool]:
            return [host.transport.health.blocked for host in cluster.hosts.values()]

        # when RabbitMQ accepts nothing from any node for a while,
        async with memory_alarm(alarming_broker):
            await eventually(lambda: all(blocked()))
            await asyncio.sleep(blocked_s)
            assert all(blocked())
        await eventually(lambda: not any(blocked()))

        # then writes go on soon, on the same connections,
        assert await resumed_after_s(cluster) < RESUMED_WITHIN_S
        assert [node.sessions for node in health] == [1] * len(health)
        # and the view has its stores and its coordinator.
        after = standing(cluster)
        assert (after["views"], after["takeovers"]) == (before["views"], before["takeovers"])
