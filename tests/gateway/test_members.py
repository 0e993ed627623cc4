"""Members are shown, replaced, added and removed: over HTTP, and on the command line."""

from collections import deque
from typing import Any

import httpx
import pytest

from actors.calls import (
    AcceptorsReport,
    ChangeBegun,
    ChangeNotBegun,
    MemberChange,
    MemberReport,
    MembersReport,
    NodeReport,
    NotDone,
)
from actors.messages import Action, NodeHeartbeat
from actors.options import Options, role_of
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
NAMES = ("proposer-1", "acceptor-1", "acceptor-2", "acceptor-3", "learner-1", "store-1", "store-2")

Stage = tuple[AcceptorsReport, MembersReport]


def stage(
    acceptors: Membership = FOUNDED,
    durable: int = 0,
    *reports: MemberReport,
    version: int = 0,
    slot: int = 0,
    without: str = "",
) -> Stage:
    """What a gateway has heard: `reports` of members that are not just that."""
    told = {report.name: report for report in reports}
    disks = {one.name: one.disk for one in acceptors.newest.acceptors}
    names = [*(name for name in NAMES if name != without), *(n for n in told if n not in NAMES)]
    members = [
        told.get(name) or MemberReport(name, role_of(name), "member", disks.get(name, ""))
        for name in names
    ]
    roster = MembersReport(version, slot, slot <= durable, tuple(members))
    return AcceptorsReport(acceptors, durable), roster


REPLACED = (
    stage(),
    stage(),  # Nobody has reported it yet.
    stage(AMID, 6),
    stage(ENDED, 8),
    stage(ENDED, 9),
)
CANDIDATE = MemberReport("store-4", "store", "newcomer", "", "disk-of-4", "to be added")
COPYING = MemberReport("store-4", "store", "joining", "disk-of-4", "disk-of-4", "it copies it all")
ADDED = (
    stage(FOUNDED, 5, CANDIDATE),
    stage(FOUNDED, 5, CANDIDATE),
    stage(FOUNDED, 5, COPYING, version=1, slot=6),
    stage(FOUNDED, 6, COPYING, version=1, slot=6),
    stage(FOUNDED, 6, MemberReport("store-4", "store", "member", "disk-of-4"), version=1, slot=6),
)
LEAVING = MemberReport("store-2", "store", "leaving", "", "d", "the view without it")
FOUR = Membership(
    active=(Configuration(version=1, named_slot=1, first_slot=3, acceptors=founding_acceptors(4)),),
    settled_slot=4,
)
THREE = Members(version=2, acceptors=founding_acceptors(3))
AMID_REMOVAL = FOUR.after(7, THREE, ALPHA)
AS_IF_NEVER = MemberReport("acceptor-4", "acceptor", "newcomer", "", "d", "to be added")
REMOVED_ACCEPTOR = (
    stage(FOUR, 5, MemberReport("acceptor-4", "acceptor", "member", "disk-4", "d")),
    stage(FOUR, 5, MemberReport("acceptor-4", "acceptor", "member", "disk-4", "d")),
    stage(AMID_REMOVAL, 6, MemberReport("acceptor-4", "acceptor", "leaving", "d", "d", "an end")),
    stage(AMID_REMOVAL.after(8, NOOP, ALPHA).after(9, Settled(version=2), ALPHA), 8, AS_IF_NEVER),
    stage(AMID_REMOVAL.after(8, NOOP, ALPHA).after(9, Settled(version=2), ALPHA), 9, AS_IF_NEVER),
)
REMOVED = (
    stage(FOUNDED, 5),
    stage(FOUNDED, 5),
    stage(FOUNDED, 6, LEAVING, version=1, slot=6),
    stage(FOUNDED, 6, MemberReport("store-2", "store", "removed"), version=1, slot=6),
)


def heartbeat(name: str, age_ms: int = 0, **vitals: Any) -> NodeReport:
    beat = NodeHeartbeat(role=role_of(name), journal_commits=1, chosen_through=90, **vitals)
    return NodeReport(age_ms, 1, beat)


@pytest.fixture(autouse=True)
def _stages(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.stages = deque(REPLACED)
    cluster.nodes = {name: heartbeat(name) for name in (*NAMES, "store-4")}
    monkeypatch.setattr("gateway.cli.membership._POLL_S", 0.01)


@pytest.mark.parametrize(
    ("method", "target", "action", "name"),
    [
        ("POST", "/v1/members/acceptor-3/replace", "replace", "acceptor-3"),
        ("PUT", "/v1/members/store-4", "add", "store-4"),
        ("DELETE", "/v1/members/learner-1", "remove", "learner-1"),
    ],
)
async def test_a_change_is_asked_of_the_leader(
    client: httpx.AsyncClient,
    cluster: FakeCluster,
    method: str,
    target: str,
    action: Action,
    name: str,
) -> None:
    begun = await client.request(method, target)
    assert (begun.status_code, begun.json()) == (
        202,
        {"name": name, "action": action, "version": 1},
    )
    assert cluster.calls[-1] == MemberChange(token=1, action=action, name=name)
    for nobody in ("gateway-1", "referee-1", "store-01", "store"):
        unknown = await client.request(method, target.replace(name, nobody))
        assert problem_of(unknown)["type"] == "urn:synod:problem:not-found"


@pytest.mark.parametrize(
    ("answer", "says", "again"),
    [
        (ChangeNotBegun("one at a time", False), "one at a time", False),
        (ChangeNotBegun("no proposer leads", True), "leads", True),
        (TimeoutError(), "it may have begun", True),
    ],
)
async def test_a_refusal_says_why_and_whether_to_ask_again(
    client: httpx.AsyncClient, cluster: FakeCluster, answer: object, says: str, again: bool
) -> None:
    for method, target in (
        ("POST", "/v1/members/acceptor-3/replace"),
        ("PUT", "/v1/members/store-4"),
        ("DELETE", "/v1/members/store-2"),
    ):
        cluster.answers.append(answer)
        problem = problem_of(await client.request(method, target))
        assert (problem["status"], problem["type"]) == (409, "urn:synod:problem:change-refused")
        assert (says in problem["detail"], problem["again"]) == (True, again)


async def test_a_problem_of_the_gateway_is_none_of_the_change(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    cluster.answers.append(NotDone("the gateway's session is not open", "nothing was sent"))
    problem = problem_of(await client.post("/v1/members/acceptor-3/replace"))
    assert problem["type"] == "urn:synod:problem:unavailable"
    cluster.stages.clear()
    early = problem_of(await client.get("/v1/members"))
    assert early["type"] == "urn:synod:problem:unavailable"


async def test_the_cluster_shows_a_change_and_whether_the_former_disk_is_needed(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    seen = []
    cluster.changed = "acceptor-3"
    for _ in REPLACED[1:]:
        whole = (await client.get("/v1/cluster")).json()
        seen.append(whole["acceptors"])
        part = (await client.get("/v1/members")).json() if len(cluster.stages) == 1 else whole
        assert part["members"] == whole["members"]
    founded, amid, ended, durable = seen
    assert (founded["version"], founded["change"], founded["former_needed"]) == (0, None, False)
    assert (amid["version"], amid["newest"], amid["former_needed"]) == (0, 1, True)
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
    assert "slot 9, to be durable everywhere" in ended["waits_for"]
    assert (durable["durable_through"], durable["former_needed"]) == (9, False)
    assert durable["waits_for"] is None


@pytest.mark.parametrize(
    ("name", "node", "waits_for"),
    [
        ("store-1", None, "it to be heard"),
        ("proposer-1", heartbeat("proposer-1", 9_000), "it has been silent for 9 s"),
        ("acceptor-1", heartbeat("acceptor-1", halted="its disk is corrupt"), "disk is corrupt"),
        ("learner-1", heartbeat("learner-1"), "it to catch up: slot 90 of 91"),
        (
            "learner-1",
            heartbeat("learner-1", installing=True, rows_left=7),
            "it to copy what it lacks: 7 rows of the state, 0 contents",
        ),
        ("store-1", heartbeat("store-1", chunks_missing=3), "it to copy what it lacks"),
        ("store-1", heartbeat("store-1", durable=4), "it to catch up: slot 4 of 9"),
        ("store-1", heartbeat("store-1", durable=9), None),
        ("store-2", heartbeat("store-2"), None),
    ],
)
async def test_a_member_that_can_not_do_its_part_says_what_it_waits_for(
    client: httpx.AsyncClient,
    cluster: FakeCluster,
    name: str,
    node: NodeReport | None,
    waits_for: str | None,
) -> None:
    cluster.stages = deque([stage(FOUNDED, 91)])
    cluster.added_slot = 9
    del cluster.nodes[name]
    if node is not None:
        cluster.nodes[name] = node
    members = (await client.get("/v1/members")).json()["members"]
    (shown,) = (member for member in members if member["name"] == name)
    assert shown["standing"] == "member"
    assert (waits_for or "") in (shown["waits_for"] or "")
    assert (shown["waits_for"] is None) == (waits_for is None)


async def test_a_removed_node_and_a_newcomer_that_is_gone_are_no_part_of_the_picture(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    gone = MemberReport("store-2", "store", "removed")
    cluster.stages = deque([stage(FOUNDED, 5, CANDIDATE, gone)])

    async def shown() -> tuple[list[str], list[str]]:
        answer = (await client.get("/v1/cluster")).json()
        stores = ("store-2", "store-4")
        nodes = [one["name"] for one in answer["nodes"] if one["name"] in stores]
        return nodes, [one["name"] for one in answer["members"] if one["name"] in stores]

    cluster.options = Options(stores=1)
    assert await shown() == (["store-4"], ["store-2", "store-4"])
    cluster.nodes["store-4"] = heartbeat("store-4", 60_000)
    assert await shown() == ([], ["store-2"])


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
        "waits for the acceptors of version 1, which begin with slot 9 (everything is durable "
        "through slot 6)",
        "waits for the end of the change, slot 9, to be durable everywhere (everything is through "
        "slot 8)",
    ]


async def test_a_store_that_is_added_is_waited_for_until_it_is_whole(
    synod: Shell, cluster: FakeCluster
) -> None:
    cluster.stages = deque(ADDED)
    ran = await synod("add", "store-4", "--wait")
    assert (ran.code, ran.out.strip()) == (0, "Done: it is a member"), ran
    assert [line.removeprefix("synod: waits for ") for line in ran.err.splitlines()] == [
        "slot 6, which names them, to be durable everywhere",
        "it copies it all",
    ]


async def test_a_store_that_is_removed_is_waited_for_until_it_is_not_needed(
    synod: Shell, cluster: FakeCluster
) -> None:
    cluster.stages = deque(REMOVED)
    ran = await synod("remove", "store-2", "--wait")
    assert (ran.code, ran.out.strip()) == (0, "Done: the old machine may be switched off"), ran
    assert [line.removeprefix("synod: waits for ") for line in ran.err.splitlines()] == [
        "the view without it",
    ]


async def test_an_acceptor_that_was_added_once_is_removed_when_the_end_is_durable(
    synod: Shell, cluster: FakeCluster
) -> None:
    cluster.stages = deque(REMOVED_ACCEPTOR)
    cluster.answers.append(ChangeBegun(2))
    cluster.changed = "acceptor-4"
    cluster.nodes["acceptor-4"] = heartbeat("acceptor-4")  # It runs on, and votes for nothing.
    ran = await synod("remove", "acceptor-4", "--wait", "--timeout", "30")
    assert (ran.code, ran.out.strip()) == (0, "Done: the old machine may be switched off"), ran
    assert "slot 9, to be durable everywhere" in ran.err


async def test_a_replaced_store_is_done_only_when_it_was_heard_after_the_request(
    synod: Shell, cluster: FakeCluster
) -> None:
    """Given a gateway whose last heartbeat of the store is of the disk that it lost, then the
    command waits for another one, although the store is a member as before.
    """
    cluster.stages = deque([stage()])
    cluster.answers.extend([ChangeBegun(0), ChangeBegun(0)])  # The roster stays as it is.
    cluster.nodes["store-1"] = heartbeat("store-1", 5_000)
    late = await synod("replace", "store-1", "--wait", "--timeout", "0.2")
    assert (late.code, "Done" in late.out) == (6, False), late
    assert "its next heartbeat" in late.err
    cluster.nodes["store-1"] = heartbeat("store-1", -1)
    assert (await synod("replace", "store-1", "--wait")).code == 0


@pytest.mark.parametrize("action", ["replace", "add", "remove"])
async def test_without_wait_the_command_does_not_say_that_it_is_done(
    synod: Shell, action: str
) -> None:
    ran = await synod(action, "acceptor-3")
    assert (ran.code, "Done" in ran.out) == (0, False)
    assert "synod members" in ran.out


async def test_the_command_reports_a_refusal_and_a_wait_that_is_too_long(
    synod: Shell, cluster: FakeCluster
) -> None:
    cluster.answers.append(ChangeNotBegun("fewer than a quorum would be alive", False))
    refused = await synod("replace", "acceptor-3", "--wait")
    assert (refused.code, "fewer than a quorum" in refused.err) == (1, True)
    assert (await synod("add", "gateway-3")).code == 4

    cluster.stages = deque(REPLACED[:3])
    late = await synod("replace", "acceptor-3", "--wait", "--timeout", "0.3")
    assert (late.code, "Done" in late.out) == (6, False)
    assert "It goes on by itself" in late.err


@pytest.mark.parametrize(
    ("action", "name", "stages"),
    [
        ("replace", "acceptor-3", (REPLACED[0], REPLACED[-1])),
        ("add", "store-4", (ADDED[0], ADDED[-1])),
        ("remove", "store-2", (REMOVED[0], REMOVED[-1])),
        ("remove", "store-2", (REMOVED[0], stage(FOUNDED, 6, version=1, without="store-2"))),
    ],
)
async def test_a_lost_answer_does_not_hide_that_the_change_has_begun(
    synod: Shell, cluster: FakeCluster, action: str, name: str, stages: tuple[Stage, Stage]
) -> None:
    """Given a change whose begin was not answered, and that is over meanwhile, then the command
    sees it in the cluster's state instead of failing.
    """
    cluster.answers.append(ChangeNotBegun("the leader did not answer; it may have begun", True))
    cluster.answers.append(ChangeNotBegun("not heard from another disk", False))
    cluster.stages = deque(stages)

    class Answering(deque[object]):
        def popleft(self) -> object:
            cluster.changed = name
            return super().popleft()

    cluster.answers = Answering(cluster.answers)
    ran = await synod(action, name, "--wait")
    assert (ran.code, "Done" in ran.out) == (0, True), ran


async def test_what_was_so_before_is_refused_and_not_taken_for_a_change(
    synod: Shell, cluster: FakeCluster
) -> None:
    cluster.stages = deque([stage()])
    cluster.answers.append(ChangeNotBegun("store-1 is a member", False))
    ran = await synod("add", "store-1", "--wait")
    assert (ran.code, "is a member" in ran.err, "Done" in ran.out) == (1, True, False), ran


async def test_the_status_shows_the_configuration_and_a_change(
    synod: Shell, cluster: FakeCluster
) -> None:
    founded = " ".join((await synod("status")).out.split())
    assert "version 0: acceptor-1, acceptor-2, acceptor-3" in founded
    assert "roster version 0: 1 proposers, 1 learners, 2 stores" in founded
    assert "change" not in founded
    cluster.stages = deque((REPLACED[2],))
    amid = " ".join((await synod("status")).out.split())
    assert "to version 1: with another disk for acceptor-3" in amid
    assert "the acceptors wait for the acceptors of version 1" in amid
    cluster.stages = deque((REPLACED[3],))
    ended = " ".join((await synod("status")).out.split())
    assert "wait for the end of the change, slot 9" in ended
    cluster.stages = deque((ADDED[2],))
    joining = " ".join((await synod("status")).out.split())
    assert "store-4 is joining; waits for it copies it all" in joining
    cluster.stages = deque((REPLACED[4],))
    assert "change" not in (await synod("status")).out


async def test_the_members_are_listed_with_role_disk_and_state(
    synod: Shell, cluster: FakeCluster
) -> None:
    on_another = MemberReport(
        "acceptor-2", "acceptor", "uncounted", "disk-2", "0123456789ab", "to be replaced"
    )
    gone = MemberReport("store-2", "store", "removed")
    cluster.stages = deque([stage(FOUNDED, 5, CANDIDATE, on_another, gone)])
    ran = await synod("members")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in ran.out.splitlines() if line}
    assert ran.code == 0
    assert lines["acceptor-1"] == "acceptor disk-1 member"
    assert lines["acceptor-2"] == (
        "acceptor disk-2 does not vote on disk 01234567, waits for: synod replace acceptor-2"
    )
    assert lines["store-1"] == "store member"
    assert lines["store-2"] == "store removed: it may be switched off"
    assert lines["store-4"] == "store disk-of- no member, waits for: synod add store-4"
    assert lines["acceptors:"].startswith("version 0")
