"""Failpoints: each stops the node at its exact moment, with the effects that its rule states."""

import asyncio
import signal
from pathlib import Path

import aio_pika
import pytest

from actors.effects import Envelope, Group
from actors.messages import ProposeValue
from actors.options import Options
from actors.values import Abort, View
from broker.failpoints import BadFailpoint, Failpoint, Failpoints, TaskStopper
from broker.runtime import NodeHost
from broker.topology import Topology
from broker.transport import Parcel
from chaos.cluster.local import Description, LocalCluster
from chaos.cluster.processes import Daemon, wait_until
from tests.broker.actors import Puppet, note
from tests.broker.hosting import inject, memory_house, puppet, until

WORK = "chunk.refused"
"""The type of what the puppets send."""


def work(this: Puppet, envelope: Envelope) -> None:
    """Keep a record and send two messages."""
    this.keep(f"k{len(this.seen)}", b"v")
    this.send("store-2", "first")
    this.send("store-2", "second")


class Ground:
    """One node with a failpoint, in memory."""

    def __init__(self, folder: Path, rule: str, *, armed: bool = True) -> None:
        self.house, self.broker = memory_house(folder)
        self.broker.transport("store-2")
        self.stopper = TaskStopper()
        self.failpoints = Failpoints([Failpoint.parse(rule)], self.stopper, armed=armed)
        self.host: NodeHost = self.house.host(
            "store-1", {"work": work}, interceptor=self.failpoints
        )
        self.task = asyncio.create_task(self.host.run())
        self.stopper.watch(self.task)

    def say(self, *texts: str) -> None:
        inject(self.broker, "store-1", *map(note, texts))

    @property
    def arrived(self) -> int:
        parcels = [item for item, *_ in self.broker.lanes("store-2")[0].ready]
        return sum(len(parcel.messages) for parcel in parcels if isinstance(parcel, Parcel))

    @property
    def kept(self) -> list[str]:
        return [record.key for record in self.host._journal.records()]

    async def dead(self) -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(self.task), 5)

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        self.host._journal.close()


@pytest.mark.parametrize(
    ("rule", "kept", "arrived"),
    [
        (f"receive:{WORK}:1:before:kill", [], 0),
        (f"receive:{WORK}:1:after:kill", [], 0),
        (f"send:{WORK}:1:before:kill", ["k1"], 0),
        (f"send:{WORK}:1:after:kill", ["k1"], 1),
        (f"send:{WORK}:2:before:kill", ["k1"], 1),
        (f"send:{WORK}:2:after:kill", ["k1"], 2),
        (f"receive:{WORK}:2:before:kill", ["k1"], 2),
        (f"send:{WORK}:3:before:kill", ["k1", "k2"], 2),
    ],
)
async def test_a_node_dies_exactly_there(
    tmp_path: Path, rule: str, kept: list[str], arrived: int
) -> None:
    ground = Ground(tmp_path, rule)
    await ground.host.ready()

    ground.say("work")
    await asyncio.sleep(0)
    if not ground.task.cancelling():
        await until(lambda: ground.arrived == 2 or ground.task.done())
        ground.say("work")

    await ground.dead()
    assert (ground.kept, ground.arrived) == (kept, arrived)
    assert ground.failpoints.idle
    await ground.end()


async def test_what_was_not_acknowledged_comes_again_to_the_next_start(tmp_path: Path) -> None:
    ground = Ground(tmp_path, f"receive:{WORK}:1:after:kill")
    await ground.host.ready()
    ground.say("work")
    await ground.dead()
    await ground.end()

    again = ground.house.host("store-1", {"work": work})
    async with ground.house.running(again):
        await until(lambda: puppet(again).seen == ["work"])


async def test_a_paused_node_waits_and_goes_on_with_the_same_message(tmp_path: Path) -> None:
    ground = Ground(tmp_path, f"send:{WORK}:2:before:pause")
    await ground.host.ready()

    ground.say("work")
    await asyncio.wait_for(ground.stopper.paused.wait(), 5)
    ground.say("work")
    await asyncio.sleep(0)
    assert (ground.kept, ground.arrived) == (["k1"], 1)

    ground.stopper.resume()
    await until(lambda: ground.arrived == 4)
    assert puppet(ground.host).seen == ["work", "work"]
    await ground.end()


async def test_an_error_is_a_failure_of_the_actor(tmp_path: Path) -> None:
    ground = Ground(tmp_path, f"receive:{WORK}:2:after:error")
    await ground.host.ready()
    first = ground.host.identity.incarnation

    ground.say("one", "two", "three")

    # The three are tried again one by one by the rebuilt actor, and the rule has struck.
    await until(lambda: puppet(ground.host).seen == ["one", "two", "three"])
    assert ground.host.identity.incarnation == first + 1
    await ground.end()


async def test_rules_count_from_when_they_are_armed(tmp_path: Path) -> None:
    ground = Ground(tmp_path, f"receive:{WORK}:2:before:kill", armed=False)
    await ground.host.ready()
    assert ground.failpoints.idle

    ground.say("work", "work", "work")
    await until(lambda: ground.arrived == 6)
    ground.failpoints.arm()
    ground.say("work")
    await until(lambda: ground.arrived == 8)
    ground.say("work")

    await ground.dead()
    assert len(ground.kept) == 4
    await ground.end()


@pytest.mark.parametrize(("moment", "told"), [("before", 1), ("after", 2)])
async def test_a_node_dies_when_some_of_a_group_have_a_message_and_others_have_not(
    tmp_path: Path, moment: str, told: int
) -> None:
    house, broker = memory_house(tmp_path)
    stores = Options().names("store")
    for name in stores:
        broker.transport(name)
    stopper = TaskStopper()
    rule = Failpoint.parse(f"send:{WORK}@store-2:2:{moment}:kill")
    failpoints = Failpoints([rule], stopper, members=Options().members)

    def say(this: Puppet, envelope: Envelope) -> None:
        this.send(Group.STORES, "to all")

    host = house.host("learner-1", {"say": say}, interceptor=failpoints)
    task = asyncio.create_task(host.run())
    stopper.watch(task)
    await host.ready()

    inject(broker, "learner-1", note("say"))
    inject(broker, "learner-1", note("say"))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), 5)

    came = [len(broker.lanes(name)[0].ready) for name in stores]
    assert came == [2] * told + [1] * (3 - told)
    host._journal.close()


async def test_a_message_is_known_by_the_kind_of_its_value(tmp_path: Path) -> None:
    house, broker = memory_house(tmp_path)
    broker.transport("proposer-1")
    stopper = TaskStopper()
    rule = Failpoint.parse("send:log.propose.abort:1:before:kill")
    failpoints = Failpoints([rule], stopper)
    abort = Abort(slot=7, commands=(0,), epoch=0, reason="")
    view = View(epoch=1, coordinator="", coordinator_disk="", coordinator_incarnation=0, stores=())

    def say(this: Puppet, envelope: Envelope) -> None:
        this.send("proposer-1", ProposeValue(value=view))
        this.send("proposer-1", ProposeValue(value=abort))

    host = house.host("learner-1", {"say": say}, interceptor=failpoints)
    task = asyncio.create_task(host.run())
    stopper.watch(task)
    await host.ready()

    inject(broker, "learner-1", note("say"))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), 5)

    assert len(broker.lanes("proposer-1")[0].ready) == 1
    host._journal.close()


def test_a_rule_for_a_node_that_is_not_there_is_refused() -> None:
    rule = Failpoint.parse("send:txn.prepare@store-9:1:before:kill")

    with pytest.raises(BadFailpoint, match=r"store-9 is none of .*store-3"):
        Failpoints([rule], members=Options().members)


def test_a_rule_is_written_as_it_is_read() -> None:
    for text in (
        "send:txn.vote:1:after:kill",
        "receive:txn.prepare:12:before:pause",
        "send:log.propose.abort:1:after:kill",
        "send:txn.prepare@store-2:1:before:kill",
    ):
        assert str(Failpoint.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("send:txn.vote:1:after", "is not WHEN:TYPE:N:"),
        ("sent:txn.vote:1:after:kill", "begins with 'sent'"),
        ("send:txn.vot:1:after:kill", "unknown type 'txn.vot'; similar types are txn.vote"),
        ("send:paxos.aksept:1:after:kill", "similar types are paxos.accept"),
        ("send:xyz:1:after:kill", "the types are audit.page, "),
        ("send:txn.vote:0:after:kill", "has the number '0'"),
        ("send:txn.vote:one:after:kill", "has the number 'one'"),
        ("send:txn.vote:1:during:kill", "has the moment 'during'"),
        ("send:txn.vote:1:after:stop", "has the action 'stop'"),
        ("send:txn.vote:1:after:error", "only `receive`"),
        ("receive:txn.vote@store-2:1:after:kill", "only `send` may name a node"),
        ("send:txn.prepare@:1:after:kill", "only `send` may name a node"),
        ("send:log.propose.batch:1:after:kill", "similar types are log.propose"),
    ],
)
def test_a_bad_rule_is_explained(text: str, says: str) -> None:
    with pytest.raises(BadFailpoint) as refused:
        Failpoint.parse(text)

    assert says in str(refused.value)
    assert text in str(refused.value)


# -- real processes over RabbitMQ ----------------------------------------------------------------


FIRST_ASKED = Options().members[0]


class Census:
    """acceptor-1 in a process of its own: it asks every node for a census until all have answered.

    The test holds the place of the first that it asks, and counts what arrives there.
    """

    def __init__(self, folder: Path, url: str, rule: str, *, armed: bool = True) -> None:
        description = Description.mint(broker=url)
        self.topology = Topology(description.cluster)
        self.url = url
        self.cluster = LocalCluster(folder, description)
        self.rule = rule
        self.armed = armed

    @property
    def node(self) -> Daemon:
        return self.cluster.nodes["acceptor-1"]

    async def __aenter__(self) -> "Census":
        self._connection = await aio_pika.connect(self.url)
        channel = await self._connection.channel()
        nodes = self.topology.nodes
        await channel.declare_exchange(nodes, aio_pika.ExchangeType.DIRECT, durable=True)
        self._queue = await channel.declare_queue(exclusive=True)
        await self._queue.bind(nodes, FIRST_ASKED)
        self.cluster.start_node("acceptor-1", failpoints=[self.rule], armed=self.armed)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.cluster.stop)
        await self._connection.close()

    async def arrives(self, count: int) -> None:
        """Wait until so many more have come."""
        async with asyncio.timeout(20):
            while count > 0:
                count -= await self.arrived()
                await asyncio.sleep(0.02)

    async def arrived(self) -> int:
        """How many have come since the last look."""
        found = 0
        while (message := await self._queue.get(no_ack=True, fail=False)) is not None:
            found += message.type == "genesis.census"
        return found

    def state(self) -> str:
        stat = Path(f"/proc/{self.cluster.process_id('acceptor-1')}/stat")
        return stat.read_text().rpartition(")")[2].split()[0]


@pytest.mark.rabbitmq
@pytest.mark.parametrize(("moment", "arrived"), [("before", 0), ("after", 1)])
async def test_a_process_kills_itself_before_or_after_a_message_has_left(
    tmp_path: Path, amqp_url: str, moment: str, arrived: int
) -> None:
    rule = f"send:genesis.census:1:{moment}:kill"
    async with Census(tmp_path, amqp_url, rule) as census:
        code = await asyncio.to_thread(census.node.wait_end, 20.0)

        assert code == -signal.SIGKILL
        assert f"failpoint {rule} strikes" in census.node.last_words()
        assert await census.arrived() == arrived


@pytest.mark.rabbitmq
async def test_a_process_pauses_itself_once_it_is_armed(tmp_path: Path, amqp_url: str) -> None:
    rule = "send:genesis.census:1:before:pause"
    async with Census(tmp_path, amqp_url, rule, armed=False) as census:
        await census.arrives(2)

        census.cluster.arm("acceptor-1")

        await asyncio.to_thread(
            wait_until, lambda: census.state() == "T", "it is stopped", timeout_s=20.0
        )
        assert f"failpoints count from now on: {rule}" in census.node.last_words()
        await census.arrived()
        census.cluster.resume("acceptor-1")
        await census.arrives(1)
