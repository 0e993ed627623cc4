"""What should not be on the broker: it goes to quarantine, and the cluster lives on."""

import asyncio
from typing import Any

import pytest

from broker.topology import Topology
from chaos.cluster.local import Description, LocalCluster
from chaos.load.http1 import Connection
from chaos.load.writers import Load
from chaos.measure.idle import delay_queues, node_queues, waiting
from tests.acceptance.broker import (
    Foul,
    publish_foul,
    quarantined,
    wait_for_quarantine,
)
from tests.acceptance.conftest import MIB, Figure

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(300)]

OVERSIZED_BYTES = 17 * MIB


def fouls(cluster: LocalCluster) -> list[Foul]:
    """Messages of which no node can make sense, from nobody and from a member."""
    survey = cluster.survey()
    store = next(store for store in survey["view"]["stores"] if store["name"] == "store-1")
    seen = next(node for node in survey["nodes"] if node["name"] == "store-1")
    headers: dict[str, Any] = {
        "cluster": survey["cluster"],
        "disk": store["disk"],
        "incarnation": seen["incarnation"],
    }

    def member(name: str, body: bytes, type: str = "paxos.accept") -> Foul:
        return Foul(name, body, type, "store-1", headers=headers)

    strange: dict[str, Any] = {"a": {"b": [1.5, None]}, "c": bytearray(1), "d": -(2**62)}
    huge = b'[{"type": "node.heartbeat", "role": "store", "applied": 1%b}]' % (b"0" * 5000)
    absurd = b'[{"type":"paxos.accepted","ballot":[1,"proposer-1"],"slot":10000000000000000000}]'
    chunk = b'[{"type": "chunk.put", "sha256": "", "manifest": false, "data": ""}]'
    accept = (
        b'[{"type":"paxos.accept","ballot":[9,"proposer-1"],"slot":999999,"learner":"learner-1",'
        b'"value":{"kind":"batch","elapsed_ms":1,"garbage":1}}]'
    )
    return [
        Foul("nothing at all", b"", content_type=""),
        Foul("bytes", bytes(range(256)), content_type="application/octet-stream"),
        Foul("text", b"hello"),
        Foul("wrong headers", b"[]", "paxos.accept", "store-1", headers={"disk": 7}),
        Foul("strange headers", b"[]", headers=strange),
        member("no list", b'{"type": "paxos.accept"}'),
        member("unknown type", b'[{"type": "paxos.frobnicate", "slot": 1}]', "paxos.frobnicate"),
        member("no type", b'[{"slot": 1}]'),
        member("wrong field", b'[{"type": "learn.pull", "from": "here"}]'),
        member("huge number", huge),
        member("slot of twenty digits", absurd),
        member("deep", b"[" * 100_000),
        member("timers", b'[["tick"]]', "timer"),
        member("contents as JSON", chunk),
        # As a node writes it, but for what it votes on: no acceptor may keep that, nor any other.
        member("batch without commands", accept),
    ]


async def test_malformed_messages_go_to_quarantine(cluster: LocalCluster, figure: Figure) -> None:
    # Given clients that write,
    processes = {name: cluster.process_id(name) for name in cluster.nodes}
    before = await quarantined(cluster)
    foul = await asyncio.to_thread(fouls, cluster)
    queues = node_queues(cluster)
    async with Load(cluster.url, clients=4) as load:
        await load.count(20)

        # when messages that mean nothing are published straight into every queue,
        taken = await publish_foul(cluster, queues, foul)
        assert taken == len(queues) * len(foul)
        await publish_foul(cluster, delay_queues(cluster), foul[:3])
        await load.count(20)

    # then they go to quarantine, but for a node's own words, which it does not listen to,
    topology = Topology(cluster.name)
    own = {topology.node_queue("store-1"), topology.bulk_queue("store-1")}
    unheard = len(own) * sum(message.app_id == "store-1" for message in foul)
    await wait_for_quarantine(cluster, before + taken - unheard)

    # and the cluster lives on as it was.
    assert {name: cluster.process_id(name) for name in cluster.nodes} == processes
    assert await load.resolve() == 0
    assert await load.verify() == []
    figure(f"{taken} foul messages into {len(queues)} queues")


async def test_oversized_messages_do_no_harm(cluster: LocalCluster) -> None:
    processes = {name: cluster.process_id(name) for name in cluster.nodes}
    before = await quarantined(cluster)
    queues = node_queues(cluster)
    async with Load(cluster.url, clients=2) as load:
        await load.count(5)
        taken = await publish_foul(cluster, queues, [Foul("oversized", b"[" * OVERSIZED_BYTES)])
        await load.count(5)
    await wait_for_quarantine(cluster, before + taken)
    assert {name: cluster.process_id(name) for name in cluster.nodes} == processes
    await load.resolve()
    assert await load.verify() == []


async def test_a_new_cluster_is_not_harmed_by_the_last_ones_messages(
    tmp_path_factory: pytest.TempPathFactory, figure: Figure
) -> None:
    # Given a cluster that died under load, with messages in its queues and on their way,
    folder = tmp_path_factory.mktemp("again")
    counts = {"proposers": 2, "acceptors": 3, "learners": 2, "stores": 2}
    former = LocalCluster(folder, Description.mint(counts=counts))
    assert former.broker is not None
    try:
        await asyncio.to_thread(former.start)
        first_id = former.survey()["cluster"]
        async with Load(former.url, clients=16, folder="former") as load:
            await load.count(50)
            for name in former.nodes:
                former.pause(name)
            for name in former.nodes:
                if name != "gateway-1":
                    await asyncio.to_thread(former.kill, name)
            former.resume("gateway-1")
            # It goes on asking those who are gone, and fills their queues.
            await load.refused(16)
        await asyncio.to_thread(former.kill, "gateway-1")
        left = await waiting(former, [*node_queues(former), *delay_queues(former)])
        assert sum(left.values()) > 0

        # when all its data is removed and a cluster of the same name starts on the same broker,
        former.data.rename(folder / "former-data")
        await asyncio.to_thread(former.start)

        # then that is another one, without the former's files, and it serves.
        assert former.survey()["cluster"] != first_id
        connection = Connection.to(former.url)
        assert (await connection.request("GET", "/v1/directories/former")).status == 404
        async with Load(former.url, clients=8) as load:
            await load.count(100)
        await load.resolve()
        assert await load.verify() == []
        figure(f"{sum(left.values())} messages of the former cluster")

        # And one of the former's members among them is told that it does not belong here.
        await asyncio.to_thread(former.kill, "acceptor-3")
        (former.data / "acceptor-3").rename(folder / "kept")
        (folder / "former-data" / "acceptor-3").rename(former.data / "acceptor-3")
        former.start_node("acceptor-3")
        code = await asyncio.to_thread(former.nodes["acceptor-3"].wait_end, 30.0)
        said = former.nodes["acceptor-3"].last_words()
        assert (code, f"belongs to cluster {first_id}" in said) == (1, True), said
        assert (await connection.request("PUT", "/v1/files/alive", b"")).status == 201
        connection.close()
    finally:
        await asyncio.to_thread(former.stop)
