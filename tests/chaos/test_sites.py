"""Who is where in a cluster of three sites."""

import pytest

from actors.options import Options
from chaos.cluster.sites import sites_of

BROKERS = ("rabbitmq-1", "rabbitmq-2", "rabbitmq-3")
GATEWAYS = ("gateway-1", "gateway-2")


def test_the_usual_cluster_is_spread_so_that_any_site_can_be_lost() -> None:
    sites = sites_of((*Options().members, *GATEWAYS), BROKERS)

    assert {site: " ".join(members) for site, members in sites.items()} == {
        "site-1": "rabbitmq-1 proposer-1 proposer-4 acceptor-1 acceptor-4 learner-1 store-1",
        "site-2": "rabbitmq-2 proposer-2 proposer-5 acceptor-2 acceptor-5 learner-2 store-2 "
        "gateway-2",
        "site-3": "rabbitmq-3 proposer-3 acceptor-3 store-3 gateway-1",
    }


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        (("learner-1", "learner-4"), "site-1 can't be lost: it holds 2 of 2 learners"),
        (("acceptor-1", "acceptor-2", "acceptor-4"), "site-1 can't be lost: it holds 2 of 3"),
        (("store-2",), "site-2 can't be lost: it holds 1 of 1 stores"),
        (("gateway-1",), "site-3 can't be lost: it holds 1 of 1 gateways"),
    ],
)
def test_a_site_that_can_not_be_lost_is_refused(nodes: tuple[str, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sites_of(nodes, BROKERS)


def test_one_broker_makes_no_sites() -> None:
    assert sites_of(Options().members, ("rabbitmq",)) == {}
