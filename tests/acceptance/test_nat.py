"""A node needs one outbound connection only: a store behind a NAT, which restarts under load."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from chaos.cluster.local import Description, LocalCluster
from chaos.cluster.network_namespaces import NatNetwork
from chaos.cluster.processes import ProcessFailed
from chaos.cluster.rabbitmq import BrokerFailedError
from chaos.load.writers import Load
from tests.acceptance.conftest import Figure
from tests.acceptance.test_failures import judge, whole_again
from tests.chaos.networks import need_network_namespaces
from tests.long import only_long

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(300), only_long]

STORE = "store-2"

GAP_MAX_S = 10.0
"""What a busy machine may make of the two seconds after which the view drops a silent store."""

RETURN_MAX_S = 18.0
"""The store gives its silent session up after 10 s, and by then the broker has missed two
heartbeats and hands the queue over to the next session. Heartbeats alone would take 20 s.
"""


@dataclass(frozen=True)
class Behind:
    """A cluster with one store behind a NAT."""

    cluster: LocalCluster
    nat: NatNetwork


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    need_network_namespaces()
    with NatNetwork() as nat:
        cluster = LocalCluster(
            tmp_path_factory.mktemp("nat"),
            Description.mint(counts={"proposers": 2, "acceptors": 3}),
            hosts={"rabbitmq": nat.outside, STORE: nat.inside},
        )
        try:
            cluster.start()
            yield Behind(cluster, nat)
        except (BrokerFailedError, ProcessFailed) as error:
            pytest.fail(str(error), pytrace=False)
        finally:
            cluster.stop()


@pytest.mark.parametrize("resets", [False, True])
async def test_a_store_behind_a_nat_outlives_its_restart(
    behind: Behind, figure: Figure, resets: bool
) -> None:
    """Given a store that reaches the broker through a NAT only, and clients that write, when the
    NAT stops for a while and comes back without the connection of the store, whose packets it drops
    without a word or resets, then the cluster goes on without the store, which returns by itself,
    and nothing that was acknowledged is lost.
    """
    cluster, nat = behind.cluster, behind.nat
    await whole_again(cluster)
    process = cluster.process_id(STORE)
    async with Load(cluster.url, clients=8) as load:
        await load.count(50)
        stopped_ns = time.monotonic_ns()
        await asyncio.to_thread(nat.stop)
        await asyncio.to_thread(
            cluster.wait_until,
            lambda: STORE not in in_view(cluster),
            "the view is without the store",
        )
        await load.count(20)
        await asyncio.to_thread(nat.start, resets=resets)
        back_ns = time.monotonic_ns()
        await asyncio.to_thread(
            cluster.wait_until,
            lambda: STORE in in_view(cluster),
            "the store is in the view",
            timeout_s=3 * RETURN_MAX_S,
        )
        returned_s = (time.monotonic_ns() - back_ns) / 1e9
        await load.count(50)
        gap_s = load.gap_s(stopped_ns)

    figure(
        f"{STORE} was back {returned_s:.2f} s after the NAT, the longest gap was {gap_s:.2f} s; "
        f"{load.summary()}"
    )
    assert cluster.process_id(STORE) == process
    await judge(load)
    assert gap_s < GAP_MAX_S
    assert returned_s < RETURN_MAX_S


def in_view(cluster: LocalCluster) -> set[str]:
    """The stores in the view, according to the gateway."""
    view = cluster.survey()["view"]
    return set() if view is None else {store["name"] for store in view["stores"]}
