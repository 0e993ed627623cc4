"""Changes of the cluster, and figures every second, as a subscriber receives them."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from actors.calls import NodeReport, Surveyed
from actors.messages import NodeHeartbeat
from actors.values import StoreMember, View
from broker.local_calls import CallOutcomeUnknown
from gateway.cluster import Cluster
from gateway.http.live_events import FIGURES_KEPT, LiveEvents
from gateway.http.problems import UNAVAILABLE, Problem


class Changing:
    """A cluster port that returns the survey that the test set, or fails."""

    fails: Exception | None = None

    def __init__(self) -> None:
        stores = tuple(StoreMember(name=f"store-{n}", disk="", added_slot=0) for n in (1, 2, 3))
        view = View(
            epoch=0,
            coordinator="learner-1",
            coordinator_disk="d",
            coordinator_incarnation=1,
            stores=stores,
        )
        heartbeat = NodeHeartbeat(role="store", journal_commits=1)
        seen = {store.name: NodeReport(100, 1, heartbeat) for store in stores}
        self.survey = Surveyed("c", "proposer-1", True, view, "s", seen)

    async def call(self, make: Any, timeout_s: float | None = None) -> Any:
        if self.fails is not None:
            raise self.fails
        return self.survey

    def hear(self, name: str, age_ms: int, halted: str = "") -> None:
        heartbeat = NodeHeartbeat(role="store", journal_commits=1, halted=halted)
        nodes = {**self.survey.nodes, name: NodeReport(age_ms, 1, heartbeat)}
        self.survey = replace(self.survey, nodes=nodes)


def _read(event: bytes) -> tuple[str, dict[str, Any]]:
    lines = dict(line.split(": ", 1) for line in event.decode().strip().splitlines())
    return lines["event"], json.loads(lines["data"])


async def _take(events: AsyncIterator[bytes], count: int) -> list[tuple[str, dict[str, Any]]]:
    async with asyncio.timeout(5):
        return [_read(await anext(events)) for _ in range(count)]


async def test_each_change_is_sent_once_and_the_figures_after_each_survey() -> None:
    port = Changing()
    live_events = LiveEvents(Cluster(port, 5_000), heartbeat_ms=2_000)
    await live_events.publish_changes()
    events = live_events.subscribe(None)
    assert (await anext(events)).startswith(b"retry:")

    async def changes_of(**update: Any) -> list[tuple[str, str | None]]:
        port.survey = replace(port.survey, **update)
        await live_events.publish_changes()
        await live_events.publish_changes()
        found = []
        figures = 0
        while figures < 2:
            ((kind, data),) = await _take(events, 1)
            if kind == "figures":
                figures += 1
            else:
                found.append((data["kind"], data["node"]))
        return found

    assert await changes_of() == []
    assert await changes_of(leader=None, ready=False) == [("leader", None), ("not_ready", None)]
    assert await changes_of(leader="proposer-2", ready=True) == [
        ("leader", "proposer-2"),
        ("ready", None),
    ]
    view = port.survey.view
    assert view is not None
    moved = view.model_copy(update={"epoch": 1, "coordinator": "learner-2"})
    assert await changes_of(view=moved) == [("view", None), ("coordinator", "learner-2")]
    port.hear("store-3", 6_500)
    assert await changes_of() == [("node_silent", "store-3")]
    port.hear("store-3", 100)
    assert await changes_of() == [("node_back", "store-3")]
    port.hear("store-2", 100, "its disk is older than what it reported")
    assert await changes_of() == [("node_halted", "store-2")]


async def test_the_figures_are_those_of_the_last_second() -> None:
    live_events = LiveEvents(Cluster(Changing(), 5_000), heartbeat_ms=2_000)
    events = live_events.subscribe(None)
    await anext(events)
    for milliseconds in range(1, 101):
        live_events.request_began()
        live_events.request_ended("PUT", 200, milliseconds / 1000)
    live_events.request_began()
    live_events.request_ended("GET", 404, 1.0)
    live_events.request_began()
    await live_events.publish_changes()
    await live_events.publish_changes()

    (_, first), (_, second) = await _take(events, 2)

    assert (first["write_p50_ms"], first["write_p99_ms"]) == (51.0, 100.0)
    assert first["writes_per_s"] > 0
    assert (first["reads_per_s"], first["in_flight"], first["leader"]) == (0, 1, "proposer-1")
    assert (second["writes_per_s"], second["write_p50_ms"]) == (0, None)


async def test_a_subscriber_that_reconnects_receives_the_changes_that_it_missed() -> None:
    port = Changing()
    live_events = LiveEvents(Cluster(port, 5_000), heartbeat_ms=2_000)
    await live_events.publish_changes()
    for leader in ("proposer-2", "proposer-3"):
        port.survey = replace(port.survey, leader=leader)
        await live_events.publish_changes()
    events = live_events.subscribe(0)
    await anext(events)
    first = await anext(events)
    number = int(dict(line.split(": ", 1) for line in first.decode().splitlines() if line)["id"])

    later = live_events.subscribe(number)
    await anext(later)

    assert _read(first)[1]["node"] == "proposer-2"
    assert (await _take(later, 1))[0][1]["node"] == "proposer-3"


async def test_a_subscriber_that_does_not_read_loses_the_oldest_events_and_can_be_ended() -> None:
    live_events = LiveEvents(Cluster(Changing(), 5_000), heartbeat_ms=2_000)
    events = live_events.subscribe(None)
    await anext(events)
    for _ in range(200):
        await live_events.publish_changes()
    live_events.end()

    told = [event async for event in events]

    assert len(told) < 100


async def test_a_topic_is_computed_once_for_all_and_only_while_it_has_subscribers() -> None:
    live_events = LiveEvents(Cluster(Changing(), 5_000), heartbeat_ms=2_000)
    drawn = 0
    shown = "a"

    async def log_topic() -> dict[str, Any]:
        nonlocal drawn
        drawn += 1
        return {"shown": shown}

    live_events.topic_sources["log"] = log_topic
    await live_events.publish_topics()
    assert drawn == 0

    first, second = (live_events.subscribe(None, frozenset({"log"})) for _ in range(2))
    other = live_events.subscribe(None)
    for subscriber in (first, second, other):
        await anext(subscriber)
    await live_events.publish_topics()
    bytes_of_first, bytes_of_second = await anext(first), await anext(second)
    assert _read(bytes_of_first) == ("log", {"shown": "a"})
    assert bytes_of_first is bytes_of_second

    await live_events.publish_topics()  # The snapshot is unchanged, so it is not sent.
    shown = "b"
    await live_events.publish_topics()
    assert _read(await anext(first)) == ("log", {"shown": "b"})
    await live_events.publish_changes()
    assert (await _take(other, 1))[0][0] == "figures"

    assert drawn == 3
    for subscriber in (first, second):
        await subscriber.aclose()
    await live_events.publish_topics()
    assert drawn == 3


async def test_the_figures_tell_whether_writes_are_taken_and_what_is_not_known() -> None:
    port = Changing()
    silent = Cluster(port, 5_000, lambda: "the gateway has no connection to RabbitMQ")
    for cluster, fails, expected in (
        (Cluster(port, 5_000), None, ("taken", None)),
        (Cluster(port, 5_000), CallOutcomeUnknown("rebuilt"), ("unknown", "does not answer")),
        (silent, None, ("refused", "no connection to RabbitMQ")),
    ):
        port.fails = fails
        live_events = LiveEvents(cluster, heartbeat_ms=2_000)
        events = live_events.subscribe(None)
        await anext(events)
        await live_events.publish_changes()
        ((kind, figures),) = await _take(events, 1)
        assert (kind, figures["writes"]) == ("figures", expected[0])
        assert (expected[1] or "") in (figures["why"] or "")


async def test_a_topic_that_can_not_be_computed_is_sent_with_the_reason() -> None:
    live_events = LiveEvents(Cluster(Changing(), 5_000), heartbeat_ms=2_000)

    async def log_topic() -> dict[str, Any]:
        raise Problem(UNAVAILABLE, "no learner told of the log")

    live_events.topic_sources["log"] = log_topic
    events = live_events.subscribe(None, frozenset({"log"}))
    await anext(events)
    await live_events.publish_topics()

    assert await _take(events, 1) == [("log", {"problem": "no learner told of the log"})]


async def test_a_new_subscriber_receives_the_figures_of_the_last_minutes_at_once() -> None:
    live_events = LiveEvents(Cluster(Changing(), 5_000), heartbeat_ms=2_000)
    for _ in range(FIGURES_KEPT + 10):
        await live_events.publish_changes()
    events = live_events.subscribe(None, figures_after_us=0)
    await anext(events)

    ((kind, data),) = await _take(events, 1)

    assert (kind, len(data["figures"])) == ("history", FIGURES_KEPT)
    moments = [one["time_us"] for one in data["figures"]]
    assert moments == sorted(moments)
    later = live_events.subscribe(None, figures_after_us=moments[-2])
    await anext(later)
    ((_, rest),) = await _take(later, 1)
    assert [one["time_us"] for one in rest["figures"]] == moments[-1:]


@pytest.mark.parametrize("given", ["9" * 19, "9" * 20_000, "-1", "1e3", "x", "²", "%00", ""])
async def test_an_absurd_id_is_none_at_all(client: httpx.AsyncClient, given: str) -> None:
    header = {"last-event-id": given} if given.isascii() else {}
    answer = await client.head(f"/v1/events?after={given}", headers=header)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "figures_after=x",
        "figures_after=" + "9" * 5_000,
        "topics=all",
        "topics=" + "x," * 9_000,
        "topics=%ff",
        "&".join(["a=b"] * 100),
    ],
)
async def test_an_absurd_query_is_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/v1/events?{query}")
    assert answer.status_code == 400
    assert len(answer.content) < 2_000
