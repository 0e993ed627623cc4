"""The broker inside the process keeps RabbitMQ's promises, and no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.calls import Survey
from actors.disk_events import DiskSpace
from actors.effects import Group, TimerKey
from actors.messages import ChunkPut, ChunkRefused, ReadReply, TxnPrepare
from actors.values import Batch, Command, DirectoryEntry, Inline, PutFile
from broker.memory_broker import MemoryBroker, MemoryTransport
from broker.transport import Delivery, Lane, Parcel, TimerMessage
from tests.broker.actors import note
from tests.broker.hosting import until
from tests.broker.samples import HASH


class Node:
    """A consumer that records its deliveries."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self.transport: MemoryTransport = broker.transport(name)
        self.name = name
        self.got: list[Delivery] = []
        self.unblocked = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        ready = asyncio.Event()
        task = asyncio.create_task(self.transport.run(self.got.append, ready.set, self.unblock))
        await ready.wait()
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def unblock(self) -> None:
        self.unblocked += 1

    async def send(self, to: str, *texts: str) -> None:
        parcel = Parcel("c", self.name, "d", 1, tuple(note(text) for text in texts))
        self.transport.publish(to, parcel)
        await self.transport.flush()

    async def acknowledge_all(self) -> None:
        for delivery in self.got:
            self.transport.acknowledge(delivery.receipt)
        await self.transport.flush()

    def texts(self) -> list[str]:
        return [
            message.reason
            for delivery in self.got
            if isinstance(delivery.item, Parcel)
            for message in delivery.item.messages
            if isinstance(message, ChunkRefused)
        ]


async def test_what_is_not_acknowledged_comes_again() -> None:
    broker = MemoryBroker()
    one, two = Node(broker, "store-1"), Node(broker, "store-2")
    async with one.running():
        async with two.running():
            await one.send("store-2", "a")
            await one.send("store-2", "b")
            assert two.texts() == ["a", "b"]
            two.transport.acknowledge(two.got[0].receipt)
            await two.transport.flush()
        await one.send("store-2", "c")
        again = Node(broker, "store-2")
        async with again.running():
            assert again.texts() == ["b", "c"]
            # An acknowledgement of the former session means nothing any more.
            again.transport.acknowledge(two.got[1].receipt)
            await again.transport.flush()
            assert len(broker.lanes("store-2")[0].unacknowledged) == 2


async def test_no_more_is_delivered_than_was_asked_for() -> None:
    broker = MemoryBroker(prefetch=2)
    one, two = Node(broker, "store-1"), Node(broker, "store-2")
    async with one.running(), two.running():
        for text in "abcd":
            await one.send("store-2", text)
        assert two.texts() == ["a", "b"]
        await two.acknowledge_all()
        assert two.texts() == ["a", "b", "c", "d"]


async def test_a_full_queue_drops_the_oldest() -> None:
    broker = MemoryBroker(control_bytes_max=512 * 3)
    one = Node(broker, "store-1")
    broker.transport("store-2")
    async with one.running():
        for text in "abcde":
            await one.send("store-2", text)
        assert one.transport.health.dropped == 2
        two = Node(broker, "store-2")
        async with two.running():
            assert two.texts() == ["c", "d", "e"]


async def test_what_a_slot_holds_counts_against_the_bound() -> None:
    """Given a node that is away, then its queue holds few large slots, or many small ones."""
    broker = MemoryBroker(control_bytes_max=100_000)
    one = Node(broker, "learner-1")
    broker.transport("store-2")
    content = Inline(sha256=HASH, data=b"x" * 10_000)
    command = Command(
        session="s",
        sequence=1,
        acknowledged=0,
        reply_to="gateway-1",
        operation=PutFile(path="a", content=content),
    )
    prepare = TxnPrepare(epoch=0, slot=1, batch=Batch(commands=(command,) * 4))
    async with one.running():
        for _ in range(5):
            one.transport.publish("store-2", Parcel("c", "learner-1", "d", 1, (prepare,)))
            await one.transport.flush()
        assert one.transport.health.dropped == 4


async def test_contents_have_a_lane_of_their_own() -> None:
    broker = MemoryBroker(bulk_prefetch=1)
    one, two = Node(broker, "gateway-1"), Node(broker, "store-1")
    chunk = ChunkPut(sha256=HASH, manifest=False, data=b"x" * 1000)
    async with one.running(), two.running():
        parcel = Parcel("c", "gateway-1", "d", 1, (chunk, note("a"), chunk, note("b")))
        one.transport.publish("store-1", parcel)
        await one.transport.flush()
        lanes = [delivery.receipt.lane for delivery in two.got]
        assert sorted(lanes) == [Lane.BULK, Lane.CONTROL]
        await two.acknowledge_all()
        assert [delivery.receipt.lane for delivery in two.got].count(Lane.BULK) == 2


async def test_a_delayed_message_comes_back_to_its_sender() -> None:
    node = Node(MemoryBroker(), "store-1")
    timer_message = TimerMessage("d", 1, ((TimerKey("beat"), 1),))
    async with node.running():
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        node.transport.delay(50, timer_message)
        await until(lambda: node.got)
        assert loop.time() - started_s >= 0.049
        assert node.got[0].item == timer_message


async def test_a_message_without_a_receiver_is_lost() -> None:
    node = Node(MemoryBroker(), "store-1")
    async with node.running():
        await node.send("store-7", "a")
        await node.send(Group.ACCEPTORS, "b")
    await node.send("store-1", "after the end")
    assert node.got == []
    assert node.transport.health.dropped == 1


async def test_a_message_that_rabbitmq_would_refuse_is_refused() -> None:
    """Given a message above the limit, then no node receives it, and it is quarantined."""
    broker = MemoryBroker(message_bytes_max=10_000)
    one, two = Node(broker, "store-1"), Node(broker, "gateway-1")
    children = tuple(
        DirectoryEntry(path=f"{number:0100}", slot=1, index=0) for number in range(100)
    )
    async with one.running(), two.running():
        for some in (children, children[:50]):
            reply = ReadReply(number=1, status="found", applied=1, children=some)
            one.transport.publish("gateway-1", Parcel("c", "store-1", "d", 1, (reply,)))
            await one.transport.flush()

        came = [d.item.messages[0] for d in two.got if isinstance(d.item, Parcel)]
    assert [len(reply.children) for reply in came if isinstance(reply, ReadReply)] == [50]
    assert (one.transport.health.dropped, one.transport.health.quarantined) == (1, 1)
    ((refused, reason),) = broker.quarantined
    assert (refused.sender, "more than a message may have" in reason) == ("store-1", True)


async def test_a_local_call_can_not_leave() -> None:
    node = Node(MemoryBroker(), "store-1")
    async with node.running():
        for own in (Survey(token=1), DiskSpace(low=True, free_bytes=0)):
            parcel = Parcel("c", "store-1", "d", 1, (own,))
            node.transport.publish("store-2", parcel)
            with pytest.raises(TypeError, match="local call"):
                await node.transport.flush()


async def test_a_blocked_broker_takes_nothing_and_delivers_what_it_has() -> None:
    # Given a broker with a message and a timer under way
    broker = MemoryBroker()
    one, two = Node(broker, "store-1"), Node(broker, "store-2")
    timer_message = TimerMessage("d", 1, ((TimerKey("beat"), 1),))
    async with one.running():
        await one.send("store-2", "before")
        one.transport.delay(20, timer_message)

        # When it takes no more
        broker.block()
        await one.send("store-2", "lost")
        assert not one.transport.delay(20, timer_message)
        assert not one.transport.emit("key", "kind", b"")

        # Then its clients notice it, and its queued messages arrive
        assert (one.transport.health.blocked, one.transport.health.dropped) == (True, 2)
        await until(lambda: one.got)
        async with two.running():
            assert two.texts() == ["before"]
            await two.acknowledge_all()

            # Until it takes messages again, and notifies them.
            broker.unblock()
            await one.send("store-2", "after")
            assert two.texts() == ["before", "after"]
            assert (one.unblocked, two.unblocked) == (1, 1)
            assert not one.transport.health.blocked
