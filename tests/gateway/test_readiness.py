"""The reported condition of the cluster rests on received messages and their age."""

from dataclasses import replace
from typing import Any

import pytest

from actors.calls import AcceptorsReport, LeaseReport, NodeReport, Surveyed
from actors.messages import NodeHeartbeat
from actors.options import Options, role_of
from actors.paxos.ballot import Ballot
from actors.paxos.membership import Configuration, Membership
from actors.values import FoundingMember, StoreMember, View
from gateway.readiness import Condition, condition_of

OPTIONS = Options()
ROLES = ("proposer", "acceptor", "learner", "store")
BALLOT = Ballot(1, "proposer-1")


def seen(name: str, age_ms: int = 500, **vitals: Any) -> NodeReport:
    heartbeat = NodeHeartbeat(role=role_of(name), journal_commits=1, **vitals)
    return NodeReport(age_ms, 1, heartbeat)


def healthy(**update: Any) -> Surveyed:
    """A whole cluster, heard for a minute."""
    view = View(
        epoch=0,
        coordinator="learner-1",
        coordinator_disk="d",
        coordinator_incarnation=1,
        stores=tuple(StoreMember(name=f"store-{n}", disk="", added_slot=0) for n in (1, 2, 3)),
    )
    survey = Surveyed(
        cluster="c",
        leader="proposer-1",
        ready=True,
        view=view,
        session="s",
        nodes={name: seen(name) for name in OPTIONS.members},
        expected={role: OPTIONS.names(role) for role in ROLES},
        leases=LeaseReport(100, BALLOT, 900, {"store-1": 900}),
        stores_needed=2,
        heard_ms=100,
        listening_ms=60_000,
        silent_ms=6_000,
    )
    return replace(survey, **update)


def without(survey: Surveyed, *names: str, **update: Any) -> Surveyed:
    """As `survey`, but those nodes were last heard 8 s ago."""
    silent = {name: replace(survey.nodes[name], age_ms=8_000) for name in names}
    return replace(survey, nodes={**survey.nodes, **silent}, **update)


def summary(condition: Condition) -> tuple[str, str, list[str]]:
    return condition.writes, condition.reads, [reason.code for reason in condition.reasons]


def test_a_whole_cluster_takes_writes_and_nothing_is_amiss() -> None:
    condition = condition_of(healthy(), "")

    assert condition == Condition("taken", "served", heard_ms=100)
    assert condition.ready


@pytest.mark.parametrize(
    ("survey", "broker_outage", "expected", "says"),
    [
        (
            healthy(),
            "the gateway has no connection to RabbitMQ",
            ("refused", "refused", ["broker"]),
            "no connection to RabbitMQ",
        ),
        (
            healthy(leases=LeaseReport(1_300, BALLOT, 900, {})),
            "",
            ("unknown", "unknown", ["lease_lapsed"]),
            "the lease of proposer-1, last heard of 1.3 s ago, has lapsed",
        ),
        (
            healthy(leases=LeaseReport(1_300, BALLOT, 900, {"store-1": 1_500})),
            "",
            ("unknown", "served", ["lease_lapsed"]),
            "has lapsed",
        ),
        (
            healthy(heard_ms=7_000),
            "",
            ("unknown", "unknown", ["unheard"]),
            "has heard no node for 7.0 s",
        ),
        (
            healthy(heard_ms=None, nodes={}),
            "",
            ("unknown", "unknown", ["unheard"]),
            "has heard no node yet",
        ),
        (
            healthy(view_heard=False),
            "",
            ("unknown", "served", ["no_view"]),
            "no learner has told this gateway of the view",
        ),
        (
            without(healthy(), "store-2", "store-3"),
            "",
            ("refused", "served", ["too_few_stores"]),
            "writes need 2 whole stores, but the view has 1 (store-1); store-2: not heard for "
            "8.0 s, store-3: not heard for 8.0 s",
        ),
        (
            without(healthy(), "learner-1", "learner-2"),
            "",
            ("refused", "served", ["no_learner"]),
            "no learner is left to coordinate",
        ),
        (
            without(healthy(leader=None, ready=False), "acceptor-1", "acceptor-2", "acceptor-3"),
            "",
            ("refused", "served", ["no_leader", "too_few_acceptors"]),
            "2 of 5 acceptors can be counted on and 3 are needed",
        ),
        (
            healthy(session=None, ready=False),
            "",
            ("refused", "served", ["no_session"]),
            "session is not open yet",
        ),
        (
            healthy(cluster="", view=None, leader=None, session=None, ready=False, nodes={}),
            "",
            ("refused", "refused", ["not_founded"]),
            "does not know its cluster yet",
        ),
    ],
    ids=lambda given: given[:24] if isinstance(given, str) else "",
)
def test_what_is_missing_is_named(
    survey: Surveyed, broker_outage: str, expected: tuple[str, str, list[str]], says: str
) -> None:
    condition = condition_of(survey, broker_outage)

    assert summary(condition) == expected
    assert says in condition.text
    assert not condition.ready


def test_a_full_disk_or_a_halted_or_a_copying_store_is_no_store_to_write_to() -> None:
    survey = healthy()
    full = replace(survey, nodes={**survey.nodes, "store-2": seen("store-2", disk_full=True)})
    assert summary(condition_of(full, "")) == ("refused", "served", ["disk_full"])

    poor = {
        "store-2": seen("store-2", halted="its disk is an older copy"),
        "store-3": seen("store-3", installing=True),
    }
    condition = condition_of(replace(survey, nodes={**survey.nodes, **poor}), "")
    assert summary(condition) == ("refused", "served", ["too_few_stores"])
    assert "store-2: halted: its disk is an older copy" in condition.text
    assert "store-3: still copies what it lacks" in condition.text


def test_one_silent_node_is_a_warning_and_the_gateways_own_absence_is_none() -> None:
    condition = condition_of(without(healthy(), "store-3"), "")
    assert summary(condition) == ("taken", "served", [])
    assert [warning.detail for warning in condition.warnings] == [
        "store-3: not heard for 8.0 s",
        "writes wait until the view is without store-3",
    ]

    # It was suspended for a minute: the others only seemed silent.
    away = without(healthy(listening_ms=200), *OPTIONS.members)
    assert condition_of(away, "") == Condition("taken", "served", heard_ms=100)


def test_an_acceptor_on_a_disk_that_does_not_count_is_none_that_can_be_counted_on() -> None:
    """Given acceptors on empty disks, then each is a warning that names the remedy, and without a
    quorum on disks that count nobody leads.
    """
    voters = tuple(FoundingMember(name=n, disk="d") for n in OPTIONS.names("acceptor"))
    first = Configuration(version=0, named_slot=0, first_slot=1, acceptors=voters)
    known = AcceptorsReport(Membership(active=(first,)), 0)
    survey = healthy(acceptors=known)
    nodes = {name: replace(report, disk="d") for name, report in survey.nodes.items()}
    assert condition_of(replace(survey, nodes=nodes), "").warnings == ()

    for name in ("acceptor-1", "acceptor-2", "acceptor-3"):
        nodes[name] = replace(nodes[name], disk="empty")
    poor = condition_of(replace(survey, nodes=nodes, leader=None, ready=False), "")
    assert [warning.code for warning in poor.warnings] == ["uncounted"] * 3
    assert "synod replace acceptor-1" in poor.warnings[0].detail
    assert "too_few_acceptors" in [reason.code for reason in poor.reasons]
