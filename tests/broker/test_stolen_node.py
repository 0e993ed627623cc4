"""A node's stolen password lets a thief be that one node, and nothing else: all else is tried.

What the broker refuses closes the channel; what it lets through, the receivers refuse.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiormq
import httpx
import pytest
from pamqp import commands

from actors.effects import Envelope, Group
from actors.messages import ChunkData, ChunkPut
from actors.messages.addresses import SENT_TO_GROUPS_ONLY, groups_reached_by, roles_reached_by
from actors.messages.permissions import PERMISSIONS, role_in
from actors.options import MEMBER_ROLES
from broker.codec import PING, TIMER, WIRE_VERSION
from broker.rabbitmq import RabbitTransport
from broker.topology import CONTROL_TRACE, TRACE_TOPICS, Topology, trace_topic
from broker.transport import Delivery, Parcel, groups_of, has_bulk_lane
from chaos.simulator.world import World
from tests.actors.test_permissions import (
    MEMBERS,
    RECEIVERS,
    enveloped,
    is_admitted,
    suited,
    world,  # noqa: F401
)
from tests.broker.actors import note
from tests.broker.hosting import until
from tests.broker.samples import SAMPLES
from tests.broker.users import PreparedBroker
from tests.long import only_long

pytestmark = pytest.mark.rabbitmq

Channel = aiormq.abc.AbstractChannel
Attempt = Callable[[Channel], Awaitable[object]]
ANY_SUFFIX = "0123456789ab"
REFUSED = (
    aiormq.exceptions.ChannelAccessRefused,
    # Of a `user_id`, RabbitMQ says that a precondition fails.
    aiormq.exceptions.ChannelPreconditionFailed,
)


@asynccontextmanager
async def thief(prepared: PreparedBroker, name: str) -> AsyncIterator[aiormq.Connection]:
    """A program that has got at a node's password."""
    connection = await aiormq.connect(prepared.url(name))
    try:
        yield connection
    finally:
        await connection.close()


def message(
    topology: Topology,
    user: str | None,
    sender: str,
    *,
    kind: str = "chunk.refused",
    headers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A message that any node would decode, with what the thief claims."""
    text: str = note("stolen").model_dump_json()
    properties = commands.Basic.Properties(
        message_type=kind,
        app_id=sender,
        user_id=None if user is None else topology.user(user),
        content_type="application/json",
        headers={
            "wire": WIRE_VERSION,
            "cluster": "cluster-id",
            "disk": "d",
            "incarnation": 1,
            **(headers or {}),
        },
    )
    body = b'[["t","",1]]' if kind == TIMER else b"" if kind == PING else f"[{text}]".encode()
    return {"body": body, "properties": properties}


# -- what the broker refuses ----------------------------------------------------------------------


def refused_by_the_broker(topology: Topology, me: str) -> Iterator[tuple[str, Attempt]]:
    """Each attempt that has to end with a refusal."""
    role = role_in(me)
    other = "store-2" if me != "store-2" else "store-1"
    mine, own = f"{topology.user(me)}.{ANY_SUFFIX}", message(topology, me, me)

    def publish(exchange: str, key: str, sent: dict[str, Any] = own) -> Attempt:
        async def attempt(channel: Channel) -> None:
            await channel.basic_publish(exchange=exchange, routing_key=key, **sent)

        return attempt

    def with_own_queue(use: Attempt) -> Attempt:
        async def attempt(channel: Channel) -> None:
            await channel.queue_declare(mine, exclusive=True)
            await use(channel)

        return attempt

    # Another sender's name, to RabbitMQ.
    in_anothers_name = message(topology, other, other)
    yield "another's user_id", publish(topology.inbox(me), me, in_anothers_name)
    yield (
        "another's user_id, to all",
        publish(topology.group(Group.HEARTBEATS), "", in_anothers_name),
    )
    # Exchanges of others.
    for queue in (topology.user(other), topology.bulk_queue(other), topology.quarantine_queue):
        yield f"default exchange to {queue}", publish("", queue)
    yield "another's inbox", publish(topology.inbox(other), other)
    for receiver in set(map(role_in, RECEIVERS)) - roles_reached_by(role):
        yield f"nodes of role {receiver}", publish(topology.role(receiver), f"{receiver}-2")
    for group in set(Group.ALL) - groups_reached_by(role):
        yield f"group {group}", publish(topology.group(group), "")
    for exchange in ("amq.direct", "amq.topic", "amq.fanout", "amq.headers", "amq.match"):
        yield exchange, publish(exchange, topology.user(other))
    # The topics of events.
    yield "another's trace", publish(topology.events, trace_topic(other))
    yield "an unknown topic", publish(topology.events, "control.halt")
    if role != "gateway":
        yield "a command to all", publish(topology.events, CONTROL_TRACE)
        yield (
            "subscribe to events",
            with_own_queue(lambda channel: channel.queue_bind(mine, topology.events, TRACE_TOPICS)),
        )
    for topics in ("#", "control.#", "trace.*"):
        yield (
            f"subscribe to {topics}",
            with_own_queue(
                lambda channel, topics=topics: channel.queue_bind(  # type: ignore[misc]
                    mine, topology.events, topics
                )
            ),
        )
    # Queues of others.
    for queue in (topology.user(other), topology.bulk_queue(other), topology.quarantine_queue):
        yield (
            f"get from {queue}",
            lambda channel, q=queue: channel.basic_get(q),  # type: ignore[misc]
        )
        yield (
            f"consume {queue}",
            lambda channel, q=queue: channel.basic_consume(  # type: ignore[misc]
                q, ignored
            ),
        )
        yield (
            f"purge {queue}",
            lambda channel, q=queue: channel.queue_purge(q),  # type: ignore[misc]
        )
        yield (
            f"delete {queue}",
            lambda channel, q=queue: channel.queue_delete(q),  # type: ignore[misc]
        )
        yield (
            f"bind {queue}",
            lambda channel, q=queue: channel.queue_bind(  # type: ignore[misc]
                q, topology.inbox(me), me
            ),
        )
    # What is sent to others, by a queue of its own.
    shared = (
        topology.inbox(other),
        *(topology.role(role_in(receiver)) for receiver in RECEIVERS),
        *map(topology.group, Group.ALL),
        topology.quarantine,
        "amq.rabbitmq.trace",
    )
    for exchange in shared:
        yield (
            f"listen at {exchange}",
            with_own_queue(
                lambda channel, e=exchange: channel.queue_bind(mine, e, other)  # type: ignore[misc]
            ),
        )
        yield (
            f"{exchange} to its inbox",
            lambda channel, e=exchange: channel.exchange_bind(  # type: ignore[misc]
                topology.inbox(me), e, routing_key=other
            ),
        )
        yield (
            f"delete {exchange}",
            lambda channel, e=exchange: channel.exchange_delete(e),  # type: ignore[misc]
        )
    yield (
        "its inbox to another's",
        lambda channel: channel.exchange_bind(
            topology.inbox(other), topology.inbox(me), routing_key=me
        ),
    )
    yield (
        "unbind another",
        lambda channel: channel.exchange_unbind(
            topology.inbox(other), topology.role("store"), routing_key=other
        ),
    )
    yield "delete its own inbox", lambda channel: channel.exchange_delete(topology.inbox(me))
    # Declarations.
    for name in (
        f"{topology.prefix}x",
        topology.user(other),
        f"{topology.user(other)}.{ANY_SUFFIX}",
        f"{topology.user(me)}0",
        f"x{topology.user(me)}",
        f"{topology.user(me)}.{ANY_SUFFIX}.x",
        "anything",
        "",
    ):
        yield (
            f"declare the queue {name!r}",
            lambda channel, n=name: channel.queue_declare(  # type: ignore[misc]
                n, exclusive=True
            ),
        )
        if name:
            yield (
                f"declare the exchange {name!r}",
                lambda channel, n=name: (  # type: ignore[misc]
                    channel.exchange_declare(n, exchange_type="fanout")
                ),
            )
    for target in ("", topology.inbox(other), topology.quarantine_queue, "amq.direct"):
        yield (
            f"expire to {target!r}",
            lambda channel, t=target: channel.queue_declare(  # type: ignore[misc]
                mine, exclusive=True, arguments={"x-dead-letter-exchange": t}
            ),
        )
    yield (
        "an alternate exchange",
        lambda channel: channel.exchange_declare(
            mine, arguments={"alternate-exchange": topology.inbox(other)}
        ),
    )


async def ignored(delivered: object) -> None:
    """A consumer that is never called."""


@pytest.mark.parametrize(
    "me",
    [
        "store-1",
        "gateway-1",
        *(pytest.param(f"{role}-1", marks=only_long) for role in MEMBER_ROLES[:3]),
    ],
)
async def test_the_broker_refuses_what_is_not_the_nodes_own(
    prepared: PreparedBroker, me: str
) -> None:
    tried = 0
    async with AsyncExitStack() as stack:
        # Given named queues of the others, which are there while those are away,
        for name in ("store-1", "store-2"):
            if name != me:
                await stack.enter_async_context(served(prepared.transport(name, "named")))
        connection = await stack.enter_async_context(thief(prepared, me))
        for what, attempt in refused_by_the_broker(prepared.topology, me):
            # When the thief tries what is not that node's,
            channel = await connection.channel(publisher_confirms=True)
            try:
                async with asyncio.timeout(20):
                    await attempt(channel)
            except REFUSED:
                tried += 1
            else:
                pytest.fail(f"{me} may {what}")
    assert tried > 75


@asynccontextmanager
async def served(
    transport: RabbitTransport, deliver: Callable[[Delivery], None] = lambda delivery: None
) -> AsyncIterator[None]:
    """Run a transport for the length of a block."""
    connected = asyncio.Event()

    def acknowledge(delivery: Delivery) -> None:
        deliver(delivery)
        transport.acknowledge(delivery.receipt)

    async def flush() -> None:
        while True:
            await transport.flush()
            await asyncio.sleep(0.01)

    running = asyncio.create_task(transport.run(acknowledge, connected.set, lambda: None))
    flushing = asyncio.create_task(flush())
    try:
        async with asyncio.timeout(20):
            await connected.wait()
        yield
    finally:
        running.cancel()
        flushing.cancel()
        await asyncio.wait([running, flushing])


def test_the_management_api_is_not_for_nodes(prepared: PreparedBroker) -> None:
    """A node has no tag; the other users see figures, and change nothing."""
    address = prepared.broker.management_url.rstrip("/")

    def status(name: str, method: str, path: str, json: Any = None) -> int:
        user = prepared.topology.user(name), prepared.passwords[name]
        return httpx.request(method, f"{address}{path}", auth=user, json=json).status_code

    for name in ("store-1", "gateway-1"):
        for path in ("/api/overview", "/api/users", "/api/queues"):
            assert status(name, "GET", path) == 401
    quarantine = prepared.topology.quarantine_queue
    get = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
    for name, reads in (("operator", 200), ("monitoring", 401)):
        assert status(name, "GET", "/api/overview") == 200
        assert status(name, "GET", "/api/nodes") == 200
        assert status(name, "POST", f"/api/queues/%2f/{quarantine}/get", get) == reads
        assert status(name, "PUT", "/api/users/x", {"password": "x", "tags": ""}) == 401
        assert status(name, "PUT", "/api/vhosts/%2f", {"tracing": True}) == 401
        assert status(name, "GET", "/api/definitions") == 401


# -- what receivers refuse ------------------------------------------------------------------------


async def test_receivers_refuse_what_the_broker_lets_through(prepared: PreparedBroker) -> None:
    """Given a thief with the password of store-2, then store-1 takes only what says so."""
    topology, taken = prepared.topology, []
    receiver = prepared.transport("store-1")

    def deliver(delivery: Delivery) -> None:
        if isinstance(delivery.item, Parcel):
            taken.append(delivery.item.sender)
        elif delivery.item is not None:
            taken.append("a timer")

    to, key = topology.role("store"), "store-1"
    group = topology.group(Group.HEARTBEATS)
    async with served(receiver, deliver), thief(prepared, "store-2") as connection:
        channel = await connection.channel(publisher_confirms=True)

        async def publish(exchange: str, key: str, sent: dict[str, Any]) -> None:
            await channel.basic_publish(exchange=exchange, routing_key=key, **sent)

        for name in ("store-1", "learner-1", "proposer-1", "nobody", "", "store-22", "store-2 "):
            for user in ("store-2", None):
                await publish(to, key, message(topology, user, name))
                await publish(group, "", message(topology, user, name))
        await publish(to, key, message(topology, None, "store-2"))
        await publish(to, topology.bulk_key(key), message(topology, None, "store-2"))
        refused = 30
        for kind in (TIMER, PING):
            await publish(to, key, message(topology, "store-2", "store-2", kind=kind))
            await publish(to, key, message(topology, "store-2", "store-1", kind=kind))
            refused += 2
        # A second key, which is no address of this node's.
        await publish(to, "store-3", message(topology, "store-2", "store-2", headers={"CC": [key]}))
        refused += 1
        await publish(to, key, message(topology, "store-2", "store-2"))
        await publish(group, "", message(topology, "store-2", "store-2"))
        await until(lambda: len(taken) == 2 and receiver.health.refused == refused, within_s=20)
    assert taken == ["store-2", "store-2"]


async def test_no_node_passes_on_what_others_send_to_it(prepared: PreparedBroker) -> None:
    """Given a thief that binds its inbox, or lets its messages expire, to what it may write to,
    then honest nodes' messages to it are not taken by others as sent to them.
    """
    topology = prepared.topology
    taken: list[object] = []
    store, proposer = prepared.transport("store-1"), prepared.transport("proposer-1")
    honest = prepared.transport("learner-1")
    me, mine = "store-2", f"{topology.user('store-2')}.{ANY_SUFFIX}"
    role, heartbeats = topology.role("store"), topology.group(Group.HEARTBEATS)

    def deliver(delivery: Delivery) -> None:
        if delivery.item is not None:
            taken.append(delivery.item)

    def tell(to: str) -> Parcel:
        parcel = Parcel("cluster-id", "learner-1", "d", 1, (note(to),))
        honest.publish(to, parcel)
        return parcel

    async with AsyncExitStack() as stack:
        for transport in (store, proposer, honest):
            await stack.enter_async_context(served(transport, deliver))
        connection = await stack.enter_async_context(thief(prepared, me))
        channel = await connection.channel()
        for target in (role, heartbeats, topology.events):
            for key in (me, ""):
                await channel.exchange_bind(target, topology.inbox(me), routing_key=key)
        # Its own queue expires to another store, with that one's key.
        await channel.queue_declare(
            mine,
            exclusive=True,
            arguments={
                "x-message-ttl": 0,
                "x-dead-letter-exchange": role,
                "x-dead-letter-routing-key": "store-1",
            },
        )
        await channel.queue_bind(mine, topology.inbox(me), me)
        try:
            # When a learner speaks to the thief, a copy expires to the other store,
            tell(me)
            await until(lambda: store.health.refused == 1, within_s=20)
            # and what it tells all stores reaches all that hear heartbeats,
            parcel = tell(Group.STORES)
            await until(lambda: proposer.health.refused == 1, within_s=20)
            # then each takes only what was sent to it.
            await until(lambda: taken, within_s=20)
        finally:
            for target in (role, heartbeats, topology.events):
                for key in (me, ""):
                    await channel.exchange_unbind(target, topology.inbox(me), routing_key=key)
    assert taken == [parcel]
    assert store.health.refused == 1


# -- the table of who may send what ---------------------------------------------------------------


async def test_of_each_type_and_role_only_what_the_table_permits_is_taken(
    prepared: PreparedBroker,
    world: World,  # noqa: F811
) -> None:
    """Given nodes of all roles that send all types of messages to all nodes and groups they reach,
    then the receivers' actors take what the table permits, and nothing else.
    """
    arrived: dict[str, list[Parcel]] = {name: [] for name in RECEIVERS}
    expected: dict[str, int] = dict.fromkeys(RECEIVERS, 0)

    def into(name: str) -> Callable[[Delivery], None]:
        def deliver(delivery: Delivery) -> None:
            if isinstance(delivery.item, Parcel):
                arrived[name].append(delivery.item)

        return deliver

    senders = {name: prepared.transport(name) for name in MEMBERS}
    receivers = {name: prepared.transport(name) for name in RECEIVERS}
    async with AsyncExitStack() as stack:
        for name, transport in receivers.items():
            await stack.enter_async_context(served(transport, into(name)))
        for transport in senders.values():
            await stack.enter_async_context(served(transport))
        for sender, transport in senders.items():
            role = role_in(sender)
            for sample in SAMPLES:
                for receiver in RECEIVERS:
                    envelope = enveloped(world, sender, suited(world, sample, sender, receiver))
                    parcel = Parcel(*envelope[:4], (envelope.message,))
                    reached = [receiver] if role_in(receiver) in roles_reached_by(role) else []
                    if isinstance(sample, ChunkPut | ChunkData) and not has_bulk_lane(receiver):
                        reached = []  # It has no queue for contents.
                    transport.publish(receiver, parcel)
                    for name in reached:
                        expected[name] += 1
                await transport.flush()
                if isinstance(sample, ChunkPut | ChunkData):
                    continue
                for group in groups_reached_by(role):
                    envelope = enveloped(world, sender, suited(world, sample, sender, RECEIVERS[0]))
                    transport.publish(group, Parcel(*envelope[:4], (envelope.message,)))
                    for name in RECEIVERS:
                        expected[name] += group in groups_of(name)
            await transport.flush()
        await until(
            lambda: {name: len(found) for name, found in arrived.items()} == expected, within_s=60
        )
    taken = set()
    for name, parcels in arrived.items():
        for parcel in parcels:
            (sent,) = parcel.messages
            envelope = Envelope(*parcel[:4], sent)
            if is_admitted(world.actor(name), envelope):
                taken.add((type(sent), role_in(parcel.sender), role_in(name)))
    permitted = {
        (kind, sender, receiver)
        for kind, row in PERMISSIONS.items()
        for sender in row.senders & set(map(role_in, MEMBERS))
        for receiver in row.receivers
    }
    assert taken == permitted
    assert sum(expected.values()) > 1_000
    assert all(each.health.refused == 0 for each in receivers.values())
    assert set(PERMISSIONS) > SENT_TO_GROUPS_ONLY
