"""Messages that no node sends: nodes put them into quarantine, and the cluster goes on."""

import asyncio
from typing import Any

import pytest

from broker.codec import WIRE_VERSION
from broker.topology import Topology
from chaos.cluster.local import Description, LocalCluster
from chaos.load.http1 import Connection
from chaos.load.writers import Load
from chaos.measure.idle import delay_queues, node_queues, waiting
from tests.acceptance.broker import (
    Malformed,
    publish_malformed,
    quarantined,
    wait_for_quarantine,
)
from tests.acceptance.conftest import MIB, Figure

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(300)]

OVERSIZED_BYTES = 17 * MIB


def malformed_messages(cluster: LocalCluster) -> list[Malformed]:
    """Messages that no node can interpret, without a sender and from a member."""
    survey = cluster.survey()
    store = next(store for store in survey["view"]["stores"] if store["name"] == "store-1")
    seen = next(node for node in survey["nodes"] if node["name"] == "store-1")
    headers: dict[str, Any] = {
        "wire": WIRE_VERSION,
        "cluster": survey["cluster"],
        "disk": store["disk"],
        "incarnation": seen["incarnation"],
    }

    def member(name: str, body: bytes, type: str = "paxos.accept") -> Malformed:
        return Malformed(name, body, type, "store-1", headers=headers)

    strange: dict[str, Any] = {"a": {"b": [1.5, None]}, "c": bytearray(1), "d": -(2**62)}
    huge = b'[{"type": "node.heartbeat", "role": "store", "applied": 1%b}]' % (b"0" * 5000)
    absurd = b'[{"type":"paxos.accepted","ballot":[1,"proposer-1"],"slot":10000000000000000000}]'
    chunk = b'[{"type": "chunk.put", "sha256": "", "manifest": false, "data": ""}]'
    accept = (
        b'[{"type":"paxos.accept","ballot":[9,"proposer-1"],"slot":999999,"learner":"learner-1",'
        b'"value":{"kind":"batch","elapsed_ms":1,"garbage":}}]'
    )
    return [
        Malformed("nothing at all", b"", content_type=""),
        Malformed("bytes", bytes(range(256)), content_type="application/octet-stream"),
        Malformed("text", b"hello"),
        Malformed("wrong headers", b"[]", "paxos.accept", "store-1", headers={"disk": 7}),
        Malformed("strange headers", b"[]", headers=strange),
        member("no list", b'{"type": "paxos.accept"}'),
        member("unknown type", b'[{"type": "paxos.frobnicate", "slot": 1}]', "paxos.frobnicate"),
        member("no type", b'[{"slot": 1}]'),
        member("wrong field", b'[{"type": "learn.pull", "from": "here"}]'),
        member("huge number", huge),
        member("slot of twenty digits", absurd),
        member("deep", b"[" * 100_000),
        member("timers", b'[["tick"]]', "timer"),
        member("contents as JSON", chunk),
        # Like a node's message but for the value, which is not even JSON.
        member("half a batch", accept),
    ]


async def test_malformed_messages_go_to_quarantine(cluster: LocalCluster, figure: Figure) -> None:
    # Given clients that write,
    processes = {name: cluster.process_id(name) for name in cluster.nodes}
    before = await quarantined(cluster)
    malformed = await asyncio.to_thread(malformed_messages, cluster)
    queues = node_queues(cluster)
    async with Load(cluster.url, clients=4) as load:
        await load.count(20)

        # when malformed messages are published directly into every queue,
        taken = await publish_malformed(cluster, queues, malformed)
        assert taken == len(queues) * len(malformed)
        await publish_malformed(cluster, delay_queues(cluster), malformed[:3])
        await load.count(20)

    # then they go to quarantine, but for messages in a node's own name, which it ignores,
    topology = Topology(cluster.name)
    own = {topology.node_queue("store-1"), topology.bulk_queue("store-1")}
    unheard = len(own) * sum(message.app_id == "store-1" for message in malformed)
    await wait_for_quarantine(cluster, before + taken - unheard)

    # and the cluster goes on as before.
    assert {name: cluster.process_id(name) for name in cluster.nodes} == processes
    assert await load.resolve() == 0
    assert await load.verify() == []
    figure(f"{taken} malformed messages into {len(queues)} queues")


async def test_oversized_messages_do_no_harm(cluster: LocalCluster) -> None:
    processes = {name: cluster.process_id(name) for name in cluster.nodes}
    before = await quarantined(cluster)
    queues = node_queues(cluster)
    async with Load(cluster.url, clients=2) as load:
        await load.count(5)
        taken = await publish_malformed(
            cluster, queues, [Malformed("oversized", b"[" * OVERSIZED_BYTES)]
        )
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
            # It goes on sending to the dead nodes, and fills their queues.
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

        # And a former member that starts among them refuses, as it is of another cluster.
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
