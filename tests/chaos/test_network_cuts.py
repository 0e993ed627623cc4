"""A cut lasts: whatever leads from a group to a node is unbound, also if it is declared again."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import aio_pika
import pytest

from broker.topology import Topology
from chaos.cluster.network_cuts import Cuts
from chaos.cluster.rabbitmq import BrokerFailedError, PrivateBroker
from tests.replication.cluster import eventually

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]

TOPOLOGY = Topology("cut", "session")
GROUP = "@stores"
PROCESS = f"'cut {TOPOLOGY.group(GROUP)} store-2'"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A running RabbitMQ of this module's own."""
    broker = PrivateBroker(tmp_path_factory.mktemp("rabbitmq"))
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


class Group:
    """The exchange of a group, and nodes that have bound queues of their own connection to it."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel) -> None:
        self._channel = channel
        self._sent = 0

    async def join(self, node: str, suffix: str) -> aio_pika.abc.AbstractQueue:
        exchange = await self.exchange()
        name = f"{TOPOLOGY.node_queue(node)}.{suffix}"
        queue = await self._channel.declare_queue(name, exclusive=True, durable=False)
        await queue.bind(exchange, routing_key="")
        return queue

    async def exchange(self) -> aio_pika.abc.AbstractExchange:
        """That of the group."""
        return await self._channel.declare_exchange(
            TOPOLOGY.group(GROUP), aio_pika.ExchangeType.FANOUT, durable=True
        )

    async def received(self, queue: aio_pika.abc.AbstractQueue) -> bool:
        """Send one more message to the group; whether a member receives it."""
        self._sent += 1
        body = b"%d" % self._sent
        await (await self.exchange()).publish(aio_pika.Message(body), routing_key="")
        # The broker has routed it when it answers the next request of the same channel.
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            if message.body == body:
                return True
        return False


async def test_a_cut_node_stays_cut_until_it_is_healed(broker: PrivateBroker) -> None:
    cuts = Cuts(lambda text: asyncio.to_thread(broker.control, "eval", text))
    async with await aio_pika.connect(broker.url) as connection:
        group = Group(await connection.channel(publisher_confirms=True))

        async def is_cut_off(queue: aio_pika.abc.AbstractQueue) -> bool:
            return not await group.received(queue)

        # Given two nodes, one of whose names begins with the other's,
        former = await group.join("store-2", "former")
        other = await group.join("store-22", "other")
        assert await group.received(former)

        # when one is cut off, and again, then only the other one receives;
        await cuts.begin(TOPOLOGY, "store-2", GROUP)
        await cuts.begin(TOPOLOGY, "store-2", GROUP)
        assert (await group.received(former), await group.received(other)) == (False, True)

        # when it binds its queue again, and one of its next session, then it is cut off at once;
        await group.join("store-2", "former")
        latter = await group.join("store-2", "latter")
        await eventually(lambda: is_cut_off(former))
        await eventually(lambda: is_cut_off(latter))

        # when the cut ends, then it receives without a declaration of its own.
        await cuts.end(TOPOLOGY, "store-2", GROUP)
        await cuts.end(TOPOLOGY, "store-2", GROUP)
        assert (await group.received(former), await group.received(latter)) == (True, True)

        # And a cut that did not last, or that cuts nothing, is an error.
        await cuts.begin(TOPOLOGY, "store-2", GROUP)
        broker.control("eval", f"exit(whereis({PROCESS}), kill).")
        with pytest.raises(BrokerFailedError, match="badarg"):
            await cuts.end_all()
        with pytest.raises(BrokerFailedError, match="badmatch"):
            await cuts.begin(TOPOLOGY, "store-7", GROUP)


async def test_where_nodes_are_users_of_their_own_their_inbox_is_cut_off(
    broker: PrivateBroker,
) -> None:
    """Only what `synod broker init` binds leads there, so it is bound again in the end."""
    own = replace(TOPOLOGY, users="own")
    cuts = Cuts(lambda text: asyncio.to_thread(broker.control, "eval", text))
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        group = Group(channel)
        queues = {}
        for node in ("store-2", "store-22"):
            inbox = await channel.declare_exchange(own.inbox(node), durable=True)
            queues[node] = await channel.declare_queue(own.node_queue(node), exclusive=True)
            # Of a fanout exchange the key does not matter, of the inbox it does.
            await queues[node].bind(inbox, routing_key="")
            await inbox.bind(await group.exchange(), routing_key="")
        assert await group.received(queues["store-2"])

        await cuts.begin(own, "store-2", GROUP)
        received = [await group.received(queue) for queue in queues.values()]
        assert received == [False, True]

        await cuts.end(own, "store-2", GROUP)
        assert await group.received(queues["store-2"])
