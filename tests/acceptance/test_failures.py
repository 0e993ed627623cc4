"""Nodes and the broker die while files are being written; nothing acknowledged is lost."""

import asyncio
import statistics
import time

import pytest

from chaos.cluster.local import LocalCluster
from chaos.load.writers import UNKNOWN, Load
from tests.acceptance.conftest import Figure, Length
from tests.long import LONG

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(300)]

OUTAGE_S = 5.0 if LONG else 3.0
"""Longer than every timeout that a dead node causes."""

ANSWER_S = 20.0
"""A request's deadline, the gateway's grace after it, and a reserve for a busy machine."""


async def new_incarnation(cluster: LocalCluster, name: str, former: int) -> None:
    """Wait until the gateway knows a later start of a node."""
    await asyncio.to_thread(
        cluster.wait_until,
        lambda: incarnation(cluster, name) > former,
        f"{name} sends heartbeats again",
    )


def incarnation(cluster: LocalCluster, name: str) -> int:
    nodes = {node["name"]: node for node in cluster.survey()["nodes"]}
    return int(nodes[name].get("incarnation", 0))


def living_leader(cluster: LocalCluster) -> str:
    """Wait for a leader whose process runs."""

    def leads() -> bool:
        leader = cluster.leader()
        return leader is not None and cluster.nodes[leader].runs and cluster.ready()

    cluster.wait_until(leads, "a proposer that runs leads")
    leader = cluster.leader()
    assert leader is not None
    return leader


async def outage(cluster: LocalCluster, load: Load, *names: str) -> float:
    """Kill nodes, start them again after a while; return the seconds until a write was done."""
    former = {name: await asyncio.to_thread(incarnation, cluster, name) for name in names}
    for name in names:
        await asyncio.to_thread(cluster.kill, name)
    killed_ns = time.monotonic_ns()
    resumed = await load.acknowledged_since(killed_ns)
    left_s = OUTAGE_S - (time.monotonic_ns() - killed_ns) / 1e9
    await asyncio.sleep(max(0.0, left_s))
    for name in names:
        cluster.start_node(name)
    for name in names:
        await new_incarnation(cluster, name, former[name])
    await load.count(20)
    return (resumed.ended_ns - killed_ns) / 1e9


async def judge(load: Load) -> None:
    """Resolve what is open, then compare the cluster with what it acknowledged."""
    await load.resolve()
    faults = await load.verify()
    assert faults == []
    assert load.under_way == []
    open_ones = [attempt for attempt in load.attempts if attempt.fate == UNKNOWN]
    assert open_ones == []


async def test_nothing_acknowledged_is_lost_while_nodes_die(
    cluster: LocalCluster, figure: Figure
) -> None:
    # Given eight clients that write,
    async with Load(cluster.url, clients=8, shared=True, paths=16) as load:
        await load.count(20)

        # when the leader dies, then two acceptors, then the learner that does not coordinate,
        leader = await asyncio.to_thread(living_leader, cluster)
        leader_s = await outage(cluster, load, leader)
        acceptors_s = await outage(cluster, load, "acceptor-2", "acceptor-4")
        coordinator = await asyncio.to_thread(cluster.coordinator)
        other = next(name for name in ("learner-1", "learner-2") if name != coordinator)
        learner_s = await outage(cluster, load, other)

    # then each write is there once, and each path holds the last one.
    await judge(load)
    figure(
        f"writes went on {leader_s:.2f} s after the leader's death, {acceptors_s:.2f} s after "
        f"two acceptors', {learner_s:.2f} s after the learner's; {load.summary()}"
    )


async def test_writes_resume_soon_after_the_leaders_death(
    cluster: LocalCluster, figure: Figure, length: Length
) -> None:
    # Given eight clients that write to paths of their own,
    resumed_s = []
    async with Load(cluster.url, clients=8) as load:
        await load.count(20)

        # when one leader after the other is killed,
        for _ in range(length.pick(3, 10)):
            leader = await asyncio.to_thread(living_leader, cluster)
            resumed_s.append(await outage(cluster, load, leader))

    # then writes resume within three seconds, in the median,
    figure(f"resumed after {', '.join(f'{seconds:.2f}' for seconds in resumed_s)} s")
    assert statistics.median(resumed_s) <= 3.0

    # and nothing was lost or applied twice.
    await judge(load)


async def test_without_a_quorum_writes_are_refused_and_go_on_by_themselves(
    cluster: LocalCluster, figure: Figure
) -> None:
    # Given eight clients that write,
    async with Load(cluster.url, clients=8) as load:
        await load.count(20)

        # when three acceptors are dead,
        dead = ("acceptor-1", "acceptor-3", "acceptor-5")
        for name in dead:
            await asyncio.to_thread(cluster.kill, name)
        killed_ns = time.monotonic_ns()

        # then each client gets an answer in bounded time, whether its write was under way or not,
        await load.refused(5 * load.clients, timeout_s=5 * ANSWER_S)
        answered = [attempt for attempt in load.attempts if attempt.ended_ns > killed_ns]
        slowest_s = max(attempt.ended_ns - attempt.begun_ns for attempt in answered) / 1e9
        assert slowest_s < ANSWER_S
        late = [attempt for attempt in answered if attempt.begun_ns > killed_ns + 3e9]
        assert late
        assert {(attempt.status, attempt.problem) for attempt in late} == {(503, "unavailable")}
        unknown = [attempt for attempt in answered if attempt.status == 504]
        assert len(unknown) <= load.clients

        # and when one acceptor is back, writes go on.
        back_ns = time.monotonic_ns()
        cluster.start_node("acceptor-3")
        resumed = await load.acknowledged_since(back_ns)
        await load.count(20)

    for name in dead:
        cluster.start_node(name)
    await judge(load)
    figure(
        f"refused after at most {slowest_s:.2f} s, {len(unknown)} unknown, went on "
        f"{(resumed.ended_ns - back_ns) / 1e9:.2f} s after the start of an acceptor's process"
    )


async def test_the_broker_is_killed_under_load(cluster: LocalCluster, figure: Figure) -> None:
    # Given eight clients that write,
    assert cluster.broker is not None
    processes = {name: cluster.process_id(name) for name in cluster.nodes}
    async with Load(cluster.url, clients=8) as load:
        await load.count(50)

        # when the broker is killed under load and comes back five seconds later,
        await asyncio.to_thread(cluster.broker.kill)
        await asyncio.sleep(OUTAGE_S)
        await asyncio.to_thread(cluster.broker.start)
        back_ns = time.monotonic_ns()
        cluster.check_alive()

        # then the cluster goes on by itself within ten seconds,
        resumed = await load.acknowledged_since(back_ns)
        resumed_s = (resumed.ended_ns - back_ns) / 1e9
        await load.count(50)
    figure(f"went on {resumed_s:.2f} s after the broker's return; {load.summary()}")
    assert resumed_s <= 10.0

    # with the same processes, and nothing lost.
    assert {name: cluster.process_id(name) for name in cluster.nodes} == processes
    await judge(load)


async def whole_again(cluster: LocalCluster) -> None:
    """Wait until every store is in the view again."""

    def whole() -> bool:
        nodes = cluster.survey()["nodes"]
        return all(node["in_view"] for node in nodes if node["role"] == "store")

    await asyncio.to_thread(cluster.wait_until, whole, "all stores are in the view")


async def test_writes_resume_soon_after_a_stores_death(
    cluster: LocalCluster, figure: Figure, length: Length
) -> None:
    # Given eight clients that write to paths of their own,
    resumed_s = []
    async with Load(cluster.url, clients=8) as load:
        await load.count(20)

        # when one store after the other is killed, and comes back,
        for turn in range(length.pick(3, 10)):
            resumed_s.append(await outage(cluster, load, f"store-{turn % 3 + 1}"))
            await whole_again(cluster)

    # then writes resume in a median of two and a half seconds and four at most,
    figure(f"resumed after {', '.join(f'{seconds:.2f}' for seconds in resumed_s)} s")
    assert statistics.median(resumed_s) <= 2.5
    assert max(resumed_s) <= 4.0

    # and nothing was lost or applied twice.
    await judge(load)


async def test_writes_resume_soon_after_the_coordinators_death(
    cluster: LocalCluster, figure: Figure, length: Length
) -> None:
    # Given eight clients that write to paths of their own,
    resumed_s = []
    async with Load(cluster.url, clients=8) as load:
        await load.count(20)

        # when the coordinator is killed, and comes back,
        for _ in range(length.pick(3, 10)):
            coordinator = await asyncio.to_thread(cluster.coordinator)
            assert coordinator is not None
            resumed_s.append(await outage(cluster, load, coordinator))

    # then the other learner has taken over within three seconds, in the median,
    figure(f"resumed after {', '.join(f'{seconds:.2f}' for seconds in resumed_s)} s")
    assert statistics.median(resumed_s) <= 3.0

    # and nothing was lost or applied twice.
    await judge(load)
