"""`/v1/log`: a learner's log as JSON."""

import httpx
import pytest

from actors.calls import NotDone, ReadLog
from actors.messages import LogCommand, LogEntry, LogPage
from actors.paxos.ballot import Ballot
from tests.gateway.fake import FakeCluster
from tests.gateway.problems import problem_of


def entry(slot: int, aborted: tuple[int, ...] | None) -> LogEntry:
    commands = tuple(
        LogCommand(request=f"s-{index}", operation="put_file", path="a") for index in (0, 1)
    )
    return LogEntry(
        slot=slot,
        kind="batch",
        epoch=1,
        ballot=Ballot(2, "proposer-1"),
        accepted_by=("acceptor-1", "acceptor-3"),
        commands=commands,
        commands_count=2,
        aborted=aborted,
        text="2 commands",
    )


async def test_a_page_of_the_log(client: httpx.AsyncClient, cluster: FakeCluster) -> None:
    entries = (entry(9, None), entry(8, (0, 1)), entry(7, (1,)), entry(6, ()))
    cluster.answers.append(LogPage(number=1, entries=entries, decided=8, first_kept=5))

    page = (await client.get("/v1/log?before=10&limit=4&commands=1")).json()

    (call,) = [call for call in cluster.calls if isinstance(call, ReadLog)]
    assert (call.before, call.limit, call.commands_max) == (10, 4, 1)
    assert (page["decided"], page["first_kept"], page["next"]) == (8, 5, 6)
    assert [(e["slot"], e["outcome"]) for e in page["entries"]] == [
        (9, "undecided"),
        (8, "aborted"),
        (7, "partly aborted"),
        (6, "committed"),
    ]
    assert page["entries"][2] == {
        "slot": 7,
        "epoch": 1,
        "ballot": "2.proposer-1",
        "accepted_by": ["acceptor-1", "acceptor-3"],
        "kind": "batch",
        "outcome": "partly aborted",
        "commands": [
            {"request": "s-0", "operation": "put_file", "path": "a", "outcome": "decided"},
            {"request": "s-1", "operation": "put_file", "path": "a", "outcome": "aborted"},
        ],
        "commands_count": 2,
        "summary": "2 commands",
    }


async def test_the_last_page_has_no_next(client: httpx.AsyncClient, cluster: FakeCluster) -> None:
    cluster.answers.append(LogPage(number=1, entries=(entry(5, ()),), decided=5, first_kept=5))
    cluster.answers.append(LogPage(number=1, entries=(), decided=5, first_kept=5))

    assert (await client.get("/v1/log")).json()["next"] is None
    assert (await client.get("/v1/log?before=5")).json()["next"] is None


@pytest.mark.parametrize("query", ["before=x", "limit=0", "limit=501", "before=-1"])
async def test_what_can_not_be_asked(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/v1/log?{query}")).status_code == 400


async def test_no_learner_answers(client: httpx.AsyncClient, cluster: FakeCluster) -> None:
    cluster.answers.append(NotDone("no learner told of the log", "a read changes nothing"))
    assert problem_of(await client.get("/v1/log"))["type"].endswith(":unavailable")
