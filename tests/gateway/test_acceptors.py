"""Acceptors are replaced over HTTP and on the command line (decision 26)."""

from collections import deque

import httpx
import pytest

from actors.calls import AcceptorsReport, ChangeNotBegun, MemberChange, NotDone
from actors.paxos.membership import Configuration, Membership
from actors.values import NOOP, FoundingMember, Members, Settled
from tests.gateway.fake import FakeCluster
from tests.gateway.problems import problem_of
from tests.gateway.test_cli import Shell, synod
from tests.worlds import founding_acceptors

__all__ = ["synod"]

ALPHA = 2
FOUNDED = Membership(
    active=(Configuration(version=0, named_slot=0, first_slot=1, acceptors=founding_acceptors(3)),)
)
NAMED = Members(
    version=1, acceptors=(*founding_acceptors(2), FoundingMember(name="acceptor-3", disk="new"))
)
AMID = FOUNDED.after(7, NAMED, ALPHA)
ENDED = AMID.after(8, NOOP, ALPHA).after(9, Settled(version=1), ALPHA)
STAGES = (
    AcceptorsReport(FOUNDED, 0),
    AcceptorsReport(FOUNDED, 0),  # Nobody has reported it yet.
    AcceptorsReport(AMID, 6),
    AcceptorsReport(ENDED, 8),
    AcceptorsReport(ENDED, 9),
)


@pytest.fixture(autouse=True)
def _stages(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.acceptors = deque(STAGES)
    monkeypatch.setattr("gateway.cli.membership._POLL_S", 0.01)


async def test_a_replacement_is_asked_of_the_leader(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    begun = await client.post("/v1/acceptors/acceptor-3/replace")
    assert (begun.status_code, begun.json()) == (202, {"name": "acceptor-3", "version": 1})
    assert cluster.calls[-1] == MemberChange(token=1, action="replace", name="acceptor-3")
    unknown = await client.post("/v1/acceptors/store-3/replace")
    assert problem_of(unknown)["type"] == "urn:synod:problem:not-found"


@pytest.mark.parametrize(
    ("answer", "kind", "says", "again"),
    [
        (ChangeNotBegun("one at a time", False), "change-refused", "one at a time", False),
        (ChangeNotBegun("no proposer leads", True), "change-refused", "leads", True),
        (TimeoutError(), "change-refused", "it may have begun", True),
    ],
)
async def test_a_refusal_says_why_and_whether_to_ask_again(
    client: httpx.AsyncClient,
    cluster: FakeCluster,
    answer: object,
    kind: str,
    says: str,
    again: bool,
) -> None:
    cluster.answers.append(answer)
    problem = problem_of(await client.post("/v1/acceptors/acceptor-3/replace"))
    assert (problem["status"], problem["type"]) == (409, f"urn:synod:problem:{kind}")
    assert (says in problem["detail"], problem["again"]) == (True, again)


async def test_the_cluster_shows_a_change_and_whether_the_former_disk_is_needed(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    seen = []
    cluster.replaced = "acceptor-3"
    for _ in STAGES[1:]:
        seen.append((await client.get("/v1/cluster")).json()["acceptors"])
    founded, amid, ended, durable = seen
    assert (founded["version"], founded["change"], founded["former_needed"]) == (0, None, False)
    assert (amid["version"], amid["former_needed"]) == (0, True)
    assert amid["change"] == {
        "version": 1,
        "slot": 7,
        "first_slot": 9,
        "members": [
            {"name": "acceptor-1", "disk": "disk-1"},
            {"name": "acceptor-2", "disk": "disk-2"},
            {"name": "acceptor-3", "disk": "new"},
        ],
    }
    assert (ended["version"], ended["change"], ended["former_needed"]) == (1, None, True)
    assert (ended["settled_slot"], ended["durable_through"]) == (9, 8)
    assert (durable["durable_through"], durable["former_needed"]) == (9, False)


async def test_the_command_waits_until_the_end_can_not_be_forgotten(
    synod: Shell, cluster: FakeCluster
) -> None:
    """Given a leader that first lacks a promise, then the command tells that and asks again; it
    shows the progress, and says that it is done only after the end is durable.
    """
    cluster.answers.append(ChangeNotBegun("no promise yet of acceptor-3", True))
    ran = await synod("replace", "acceptor-3", "--wait")
    assert ran.code == 0, ran
    assert ran.out.strip() == "Done: the old machine may be switched off"
    said = [line.removeprefix("synod: ") for line in ran.err.splitlines()]
    assert said == [
        "not yet: no promise yet of acceptor-3",
        "the acceptors of version 1 begin with slot 9; everything is durable through slot 6",
        "the end of the change, slot 9, is not durable everywhere yet",
    ]


async def test_without_wait_the_command_does_not_say_that_it_is_done(
    synod: Shell, cluster: FakeCluster
) -> None:
    ran = await synod("replace", "acceptor-3")
    assert (ran.code, "Done" in ran.out) == (0, False)
    assert "synod status" in ran.out


async def test_the_command_reports_a_refusal_and_a_wait_that_is_too_long(
    synod: Shell, cluster: FakeCluster
) -> None:
    cluster.answers.append(ChangeNotBegun("fewer than a quorum would be alive", False))
    refused = await synod("replace", "acceptor-3", "--wait")
    assert (refused.code, "fewer than a quorum" in refused.err) == (1, True)

    cluster.acceptors = deque(STAGES[:3])
    late = await synod("replace", "acceptor-3", "--wait", "--timeout", "0.3")
    assert (late.code, "Done" in late.out) == (6, False)
    assert "It goes on by itself" in late.err


async def test_a_lost_answer_does_not_hide_that_the_change_has_begun(
    synod: Shell, cluster: FakeCluster
) -> None:
    """Given a change whose begin was not answered, and that is over meanwhile, then the command
    sees it in the cluster's state instead of failing.
    """
    cluster.answers.append(ChangeNotBegun("the leader did not answer; it may have begun", True))
    cluster.answers.append(ChangeNotBegun("not heard from another disk", False))
    cluster.acceptors = deque((STAGES[0], STAGES[-1]))

    class Answering(deque[object]):
        def popleft(self) -> object:
            cluster.replaced = "acceptor-3"
            return super().popleft()

    cluster.answers = Answering(cluster.answers)
    ran = await synod("replace", "acceptor-3", "--wait")
    assert (ran.code, "Done" in ran.out) == (0, True), ran


async def test_the_status_shows_the_acceptors_and_a_change(
    synod: Shell, cluster: FakeCluster
) -> None:
    assert "version 0: acceptor-1, acceptor-2, acceptor-3" in (await synod("status")).out
    cluster.acceptors = deque((STAGES[2],))
    amid = " ".join((await synod("status")).out.split())
    assert "to version 1, with another disk for acceptor-3: the acceptors of version 1" in amid
    cluster.acceptors = deque((STAGES[3],))
    ended = " ".join((await synod("status")).out.split())
    assert "the old disk is still needed" in ended
    cluster.acceptors = deque((STAGES[4],))
    assert "change" not in (await synod("status")).out


async def test_a_problem_of_the_gateway_is_none_of_the_change(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    cluster.answers.append(NotDone("the gateway's session is not open", "nothing was sent"))
    problem = problem_of(await client.post("/v1/acceptors/acceptor-3/replace"))
    assert problem["type"] == "urn:synod:problem:unavailable"
