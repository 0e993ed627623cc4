"""The cost of an idle cluster and the throughput of a busy one. Loose bounds: machines differ.

The strict forms are `python -m chaos.measure.idle --seconds 600` and `synod bench`.
"""

import pytest

from chaos.cluster.local import LocalCluster
from chaos.load.writers import Load, run_for
from chaos.measure.idle import measure
from tests.acceptance.conftest import Figure, Length

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow]

PART_OF_A_CORE_MAX = 0.5
WRITES_PER_SECOND_MIN = 30
ONE_CLIENT_P50_MS_MAX = 500


@pytest.mark.timeout(700)
async def test_an_idle_cluster_rests(cluster: LocalCluster, length: Length, figure: Figure) -> None:
    idle = await measure(cluster, length.pick(10, 600))
    figure(
        f"{idle.part_of_a_core:.1%} of a core for all nodes, {idle.broker_part_of_a_core:.1%} "
        f"for the broker, over {idle.seconds:.0f} s"
    )
    assert [fault for fault in idle.faults if "grew" in fault] == []
    assert idle.part_of_a_core < (0.25 if length.long else PART_OF_A_CORE_MAX)


@pytest.mark.timeout(120)
async def test_many_clients_at_once(cluster: LocalCluster, length: Length, figure: Figure) -> None:
    many = await run_for(Load(cluster.url, clients=64), length.pick(5, 15))
    figure(f"{many}")
    assert many["faults"] == []
    assert many["per_second"] >= WRITES_PER_SECOND_MIN


@pytest.mark.timeout(120)
async def test_one_client_alone(cluster: LocalCluster, length: Length, figure: Figure) -> None:
    one = await run_for(Load(cluster.url, clients=1), length.pick(5, 15))
    figure(f"{one}")
    assert one["faults"] == []
    assert one["latency_ms"]["p50"] <= ONE_CLIENT_P50_MS_MAX
