"""The delay levels and the names on the broker."""

import itertools

import pytest

from actors.effects import Group
from broker.delay_levels import DELAYS_MS, delay_level_ms
from broker.topology import Topology


def test_delay_levels_rise_by_about_fifteen_percent() -> None:
    assert DELAYS_MS[0] == 10
    assert DELAYS_MS[-1] == 60_000
    for lower, upper in itertools.pairwise(DELAYS_MS):
        assert lower < upper <= lower * 1.2


def test_a_delay_is_rounded_up_to_its_level() -> None:
    for delay in (1, 9, 10, 11, 299, 300, 1199, 1200, 59_999, 60_000):
        level = delay_level_ms(delay)
        assert delay <= level
        assert level == 10 or level <= delay * 1.2
    assert delay_level_ms(3_600_000) == 60_000


def test_names_are_of_the_cluster() -> None:
    topology = Topology("prod")
    assert topology.node_queue("store-1") == "synod.prod.store-1"
    assert topology.bulk_queue("store-1") == "synod.prod.store-1.bulk"
    assert topology.delay(300) == "synod.prod.delay.300"
    assert topology.exchanges == {
        "synod.prod.nodes": "direct",
        "synod.prod.acceptors": "fanout",
        "synod.prod.learners": "fanout",
        "synod.prod.stores": "fanout",
        "synod.prod.heartbeats": "fanout",
        "synod.prod.phase2": "fanout",
        "synod.prod.events": "topic",
        "synod.prod.quarantine": "fanout",
    }
    assert topology.group(Group.STORES) == "synod.prod.stores"


@pytest.mark.parametrize(
    ("cluster", "kind"), [("", "named"), ("c", "stream"), ("x" * 200, "quorum")]
)
def test_settings_without_meaning_are_refused(cluster: str, kind: str) -> None:
    with pytest.raises(ValueError, match=r"must be|has 1 to"):
        Topology(cluster, queues=kind)  # type: ignore[arg-type]
