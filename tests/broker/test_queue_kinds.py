"""The kinds of queues: named and durable, exclusive to a session, or replicated."""

import asyncio
import socket
import time
from pathlib import Path
from uuid import uuid4

import aio_pika
import aiormq
import pytest

from actors.effects import Group, TimerKey
from actors.messages import ChunkData
from broker.delay_levels import DELAYS_MS
from broker.rabbitmq import RabbitOptions, RabbitTransport
from broker.topology import QueueKind, Topology
from broker.transport import TransportRefused
from tests.broker.actors import Puppet
from tests.broker.hosting import House, puppet, until
from tests.broker.samples import HASH
from tests.broker.test_rabbitmq import answered, channel_to, survey

pytestmark = pytest.mark.rabbitmq

KINDS: tuple[QueueKind, ...] = ("named", "session", "quorum")


def house_of(
    folder: Path, url: str, cluster: str, kind: QueueKind, options: RabbitOptions | None = None
) -> House:
    topology = Topology(cluster, kind)
    return House(folder, lambda name: RabbitTransport(url, topology, name, options))


@pytest.fixture
def cluster() -> str:
    return f"test-{uuid4().hex[:12]}"


async def exists(url: str, queue: str) -> bool:
    async with channel_to(url) as channel:
        try:
            await channel.declare_queue(queue, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
        except aiormq.exceptions.ChannelLockedResource:
            return True
    return True


@pytest.mark.parametrize("receiver", KINDS)
@pytest.mark.parametrize("sender", KINDS)
async def test_nodes_of_any_two_kinds_talk(
    tmp_path: Path, amqp_url: str, cluster: str, sender: QueueKind, receiver: QueueKind
) -> None:
    """Given a cluster that goes over from one kind to another, node by node."""

    def tell(this: Puppet) -> None:
        this.send("store-1", "hello")
        this.send("store-1", ChunkData(sha256=HASH, data=b"x" * 1000))
        this.send(Group.STORES, "group")
        this.set_timer("t", 50)

    one = house_of(tmp_path, amqp_url, cluster, sender).host(
        "gateway-1", {"call.survey": answered(tell)}
    )
    house = house_of(tmp_path, amqp_url, cluster, receiver)
    two = house.host("store-1")
    async with house.running(one, two):
        await one.call(survey)
        await until(lambda: sorted(puppet(two).seen) == ["chunk.data", "group", "hello"])
        await until(lambda: puppet(one).timer_expired == [TimerKey("t")])


@pytest.mark.parametrize("kind", KINDS)
async def test_timers_of_all_levels_are_held_by_queues_of_the_kind(
    tmp_path: Path, amqp_url: str, cluster: str, kind: QueueKind
) -> None:
    delays = [delay for delay in DELAYS_MS if delay <= 1_500]

    def arm(this: Puppet) -> None:
        for delay in delays:
            this.set_timer(str(delay), delay)

    house = house_of(tmp_path, amqp_url, cluster, kind)
    host = house.host("gateway-1", {"call.survey": answered(arm)})
    async with house.running(host):
        await host.call(survey)
        await until(lambda: len(puppet(host).timer_expired) == len(delays))
        assert {int(key.name) for key in puppet(host).timer_expired} == set(delays)
        assert host.transport.health.sessions == 1


async def test_queues_of_a_session_go_with_it(tmp_path: Path, amqp_url: str, cluster: str) -> None:
    house = house_of(tmp_path, amqp_url, cluster, "session")
    host = house.host("store-1", {"call.survey": answered(lambda this: this.set_timer("t", 700))})
    async with house.running(host):
        await host.call(survey)
        first = host.transport._session.queues  # type: ignore[attr-defined]
        queues = [first.control_queue, first.bulk_queue]
        assert all([await exists(amqp_url, queue) for queue in queues])
        host.transport._session._consuming._writer.transport.abort()  # type: ignore[attr-defined]
        await until(lambda: host.transport.health.sessions == 2)
        second = host.transport._session.queues  # type: ignore[attr-defined]
        assert second.control_queue != first.control_queue
        # What the former session's timers were to do, the new one's do.
        await until(lambda: puppet(host).timer_expired == [TimerKey("t")])
    levels = [q.delay_queue(ms) for q in (first, second) for ms in DELAYS_MS]
    for queue in [*queues, second.control_queue, second.bulk_queue, *levels]:
        assert not await exists(amqp_url, queue), queue


@pytest.mark.parametrize("former", KINDS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_node_that_changes_its_kind_of_queues_leaves_none_behind(
    tmp_path: Path, amqp_url: str, cluster: str, former: QueueKind, kind: QueueKind
) -> None:
    """Given a node that is started with another kind, then it works at once, and the queues that
    nothing consumes any more are gone.
    """
    house = house_of(tmp_path, amqp_url, cluster, former)
    host = house.host("store-1")
    async with house.running(host):
        queues = host.transport._session.queues  # type: ignore[attr-defined]
        used = [queues.control_queue, queues.bulk_queue]
        assert all([await exists(amqp_url, queue) for queue in used])
    house = house_of(tmp_path, amqp_url, cluster, kind)
    host = house.host("store-1", {"call.survey": answered(lambda this: this.set_timer("t", 30))})
    async with house.running(host), asyncio.timeout(20):
        await host.call(survey)
        await until(lambda: TimerKey("t") in puppet(host).timer_expired)
        queues = host.transport._session.queues  # type: ignore[attr-defined]
        gone = set(used) - {queues.control_queue, queues.bulk_queue}
        assert bool(gone) == (former != kind or kind == "session")
        while any([await exists(amqp_url, queue) for queue in gone]):
            pass
        # RabbitMQ 3.10 closes a connection that publishes to a quorum queue as it is deleted.
        assert host.transport.health.sessions == 1 or former == "quorum"


# -- several brokers ------------------------------------------------------------------------------


async def test_a_broker_that_can_not_be_reached_is_passed_over(
    tmp_path: Path, amqp_url: str, cluster: str
) -> None:
    """Given one address that refuses connections, one that accepts and says nothing, and one that
    serves, then each node finds the last one.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        others = [f"amqp://u:p@127.0.0.1:{s.getsockname()[1]}/" for s in (silent, closed)]
        house = house_of(tmp_path, ",".join((*others, amqp_url)), cluster, "session")
        hosts = [house.host(f"store-{number}") for number in (1, 2, 3)]
        async with asyncio.timeout(20), house.running(*hosts):
            assert all(host.transport.health.sessions == 1 for host in hosts)


async def test_credentials_are_wrong_only_if_every_broker_says_so(
    tmp_path: Path, amqp_url: str, cluster: str
) -> None:
    wrong = amqp_url.replace(":", ":wrong", 2).replace(":wrong", ":", 1)
    house = house_of(tmp_path, f"{wrong},{amqp_url}", cluster, "session")
    async with house.running(house.host("store-1")):
        pass
    host = house_of(tmp_path, f"{wrong},{wrong}", cluster, "session").host("store-2")
    with pytest.raises(TransportRefused, match="refused the user name or password"):
        await asyncio.wait_for(host.run(), 20)
    host._journal.close()


async def test_sessions_that_end_at_once_do_not_follow_each_other_without_a_pause(
    tmp_path: Path, amqp_url: str, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given several brokers that each accept a session and end it."""

    async def ends(self: RabbitTransport, session: object) -> str:
        return "the broker ended the session"

    monkeypatch.setattr(RabbitTransport, "_watch", ends)
    host = house_of(tmp_path, f"{amqp_url},{amqp_url}", cluster, "session").host("store-1")
    running = asyncio.create_task(host.run())
    began_s = time.monotonic()
    await until(lambda: host.transport.health.sessions >= 8)
    # Six pauses of a tenth of a second at least; each of the two brokers is tried once without one.
    assert time.monotonic() - began_s > 0.5
    running.cancel()
    await asyncio.wait([running])
    host._journal.close()
