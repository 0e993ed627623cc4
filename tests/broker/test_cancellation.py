"""A task that talks to RabbitMQ ends when it is cancelled, at whatever point of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiormq
import pytest

from broker.amqp_session import AmqpSession
from broker.cancellation import cancellation_kept
from broker.event_subscription import subscribe_to_events
from broker.tls import BrokerTls
from broker.topology import Topology

Request = Callable[[AmqpSession], Coroutine[Any, Any, object]]

REQUESTS: dict[str, Request] = {
    "redeclare": lambda session: session.redeclare(),
    "delete former queues": lambda session: session.delete_former_queues(60.0),
}


@asynccontextmanager
async def session_at(url: str) -> AsyncIterator[AmqpSession]:
    session = AmqpSession(1, "store-1", Topology(f"test-{uuid4().hex[:12]}"))
    try:
        await session.open(
            url,
            lambda *_: None,
            lambda _: None,
            lambda *_: None,
            timeout_s=10.0,
            heartbeat_s=60,
            tls=BrokerTls(),
        )
        yield session
    finally:
        await session.close(politely=False)


async def was_running(task: asyncio.Task[object], turns: int) -> bool:
    """Cancel the task after so many turns of the loop; whether it ran until then."""
    for _ in range(turns):
        await asyncio.sleep(0)
    if not task.cancel():
        return False
    await asyncio.wait([task], timeout=20)
    assert task.cancelled(), (turns, task)
    return True


@pytest.mark.rabbitmq
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_a_cancelled_request_ends_as_cancelled(amqp_url: str, request_: Request) -> None:
    ran = 0
    for turns in range(40):
        async with session_at(amqp_url) as session:
            ran += await was_running(asyncio.create_task(request_(session)), turns)
    assert ran > 20


@pytest.mark.rabbitmq
async def test_a_cancelled_subscription_is_not_renewed(amqp_url: str) -> None:
    topology = Topology(f"test-{uuid4().hex[:12]}")
    async with session_at(amqp_url):
        for turns in range(60):
            subscription = subscribe_to_events(amqp_url, topology, "gateway-1", lambda *_: None)
            assert await was_running(asyncio.create_task(subscription), turns)


async def test_other_failures_stay_what_they_are() -> None:
    with pytest.raises(aiormq.AMQPError), cancellation_kept():
        raise aiormq.AMQPError("refused")
