"""Live events of `/v1/events`: cluster changes as one gateway sees them, figures, and topics.

Once a second the gateway surveys its actor and compares the result with the previous survey. Each
topic that has a subscriber is computed once a second as well (`TopicSource`). An event is encoded
once, and all its subscribers receive the same bytes.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.calls import Surveyed
from gateway.cluster import Cluster
from gateway.http.problems import CROWDED, Problem
from gateway.http.schemas import Figures
from gateway.readiness import unknown_condition
from observability.safe_text import json_text

INTERVAL_S = 1.0
SILENT_HEARTBEATS = 3
"""A node that missed this many of its heartbeats is reported as silent."""

TopicSource = Callable[[], Awaitable[Mapping[str, object]]]
"""Returns a topic's current snapshot. May raise `Problem`, whose text is sent instead."""

FIGURES_KEPT = 300
"""The seconds of figures that a new subscriber receives, so that its charts don't begin empty."""

_WRITES = frozenset(("PUT", "DELETE", "POST"))
_CHANGES_KEPT = 256
_UNREAD_MAX = 64
SUBSCRIBERS_MAX = 128
"""Each holds a connection, and at most one unread snapshot of each topic."""


@dataclass(eq=False, slots=True)
class _Subscriber:
    """A client that receives `figures`, `change`, and the snapshots of some topics."""

    topics: frozenset[str]
    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(_UNREAD_MAX))


class LiveEvents:
    """Surveys, compares, notifies. Subscribers that don't keep up lose the oldest events."""

    def __init__(self, cluster: Cluster, heartbeat_ms: int) -> None:
        self._cluster = cluster
        self.topic_sources: dict[str, TopicSource] = {}
        """By topic; the owner of this object fills it in."""
        self._silent_ms = SILENT_HEARTBEATS * heartbeat_ms
        self._subscribers: set[_Subscriber] = set()
        self._figures: deque[Figures] = deque(maxlen=FIGURES_KEPT)
        self._topic_events: dict[str, bytes] = {}
        """The latest event of each topic that has a subscriber."""
        self._changes: deque[tuple[int, bytes]] = deque(maxlen=_CHANGES_KEPT)
        # Ids rise across restarts of the gateway, so that a Last-Event-ID stays in the past.
        self._last_id = time.time_ns() // 1_000_000
        self._state: dict[str, Any] = {}
        self._silent: dict[str, bool] = {}
        self._halted: set[str] = set()
        self._writes_s: list[float] = []
        self._reads = 0
        self._in_flight = 0
        self._figures_s = time.monotonic()

    # -- reports from the gateway ----------------------------------------------------------------

    def request_began(self) -> None:
        """A request about files began."""
        self._in_flight += 1

    def request_ended(self, method: str, status: int, seconds: float) -> None:
        """A request about files ended."""
        self._in_flight -= 1
        if 200 <= status < 300:
            if method in _WRITES:
                self._writes_s.append(seconds)
            else:
                self._reads += 1

    async def run(self) -> None:
        """Survey the cluster and compute the topics once a second until cancelled."""
        async with asyncio.TaskGroup() as group:
            # Separate tasks: a topic may have to wait for the cluster, the figures never.
            group.create_task(self._each_second(self.publish_changes), name="cluster changes")
            group.create_task(self._each_second(self.publish_topics), name="topics")

    async def _each_second(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            await work()

    def end(self) -> None:
        """End the streams of all subscribers."""
        for subscriber in self._subscribers:
            _enqueue(subscriber.queue, None)

    # -- topics ----------------------------------------------------------------------------------

    async def publish_topics(self) -> None:
        """Compute the topics that have subscribers, and send those that changed."""
        wanted = frozenset[str]().union(*(subscriber.topics for subscriber in self._subscribers))
        for topic in self._topic_events.keys() - wanted:
            del self._topic_events[topic]
        for topic in sorted(wanted):
            try:
                status: Mapping[str, object] = await self.topic_sources[topic]()
            except Problem as problem:
                status = {"problem": problem.detail}
            event = _event(topic, status)
            if event != self._topic_events.get(topic):
                self._topic_events[topic] = event
                self._publish(event, topic)

    # -- changes and figures ---------------------------------------------------------------------

    async def publish_changes(self) -> None:
        """Compare with the previous survey, and send the changes and the figures."""
        try:
            survey: Surveyed | None = await self._cluster.survey()
        except Problem:
            # The actor is restarting or stuck; the figures continue, and /readyz says why.
            survey = None
        if survey is not None:
            self._compare(survey)
        self._publish_figures(survey)

    def _compare(self, survey: Surveyed) -> None:
        view = survey.view
        condition = self._cluster.condition(survey)
        state: dict[str, Any] = {
            "leader": survey.leader,
            "view": None if view is None else (view.epoch, tuple(m.name for m in view.stores)),
            "coordinator": None if view is None else view.coordinator,
            "ready": condition.writes,
        }
        former, self._state = self._state or state, state
        if state["leader"] != former["leader"]:
            leader = state["leader"]
            text = f"{leader} leads" if leader else f"{former['leader']} no longer leads"
            self._publish_change("leader", leader, text, former=former["leader"])
        if state["view"] != former["view"] and view is not None:
            stores = ", ".join(m.name for m in view.stores)
            self._publish_change("view", None, f"view {view.epoch}: {stores}", epoch=view.epoch)
        if state["coordinator"] != former["coordinator"]:
            name = state["coordinator"]
            self._publish_change(
                "coordinator", name, f"{name} coordinates", former=former["coordinator"]
            )
        if state["ready"] != former["ready"]:
            kind = "ready" if condition.ready else "not_ready"
            text = "writes are taken"
            if condition.writes == "unknown":
                text = f"whether writes are taken is not known: {condition.text}"
            elif not condition.ready:
                text = f"writes are not taken: {condition.text}"
            self._publish_change(kind, None, text)
        for name, seen in sorted(survey.nodes.items()):
            self._compare_node(name, seen.age_ms, seen.heartbeat.halted)

    def _compare_node(self, name: str, age_ms: int, halted: str) -> None:
        silent = age_ms > self._silent_ms
        if silent and self._silent.get(name) is False:
            self._publish_change(
                "node_silent", name, f"{name} was not heard for {age_ms / 1000:.1f} s"
            )
        elif not silent and self._silent.get(name):
            self._publish_change("node_back", name, f"{name} is heard again")
        self._silent[name] = silent
        if halted and name not in self._halted:
            self._halted.add(name)
            self._publish_change("node_halted", name, f"{name} halted: {halted}")
        elif not halted:
            self._halted.discard(name)

    def _publish_figures(self, survey: Surveyed | None) -> None:
        now_s = time.monotonic()
        elapsed_s = max(now_s - self._figures_s, 1e-3)
        self._figures_s = now_s
        times_s = sorted(self._writes_s)
        why_not = "the gateway's own actor does not answer"
        condition = self._cluster.condition(survey) if survey else unknown_condition(why_not)
        figures: Figures = {
            "time_us": time.time_ns() // 1000,
            "writes_per_s": round(len(times_s) / elapsed_s, 1),
            "reads_per_s": round(self._reads / elapsed_s, 1),
            "write_p50_ms": _percentile_ms(times_s, 0.50),
            "write_p99_ms": _percentile_ms(times_s, 0.99),
            "in_flight": self._in_flight,
            "writes": condition.writes,
            "why": condition.text or None,
            "leader": survey.leader if survey else None,
            "epoch": survey.view.epoch if survey and survey.view else None,
        }
        self._writes_s = []
        self._reads = 0
        self._figures.append(figures)
        if self._subscribers:
            self._publish(_event("figures", figures))

    def _publish_change(self, kind: str, node: str | None, summary: str, **more: Any) -> None:
        self._last_id += 1
        data = {"time_us": time.time_ns() // 1000, "kind": kind, "node": node, "summary": summary}
        event = _event("change", {**data, **more}, self._last_id)
        self._changes.append((self._last_id, event))
        self._publish(event)

    def _publish(self, event: bytes, topic: str | None = None) -> None:
        for subscriber in self._subscribers:
            if topic is None or topic in subscriber.topics:
                _enqueue(subscriber.queue, event)

    # -- subscribers -----------------------------------------------------------------------------

    def check_capacity(self) -> None:
        """Raise `Problem` if there are as many subscribers as allowed."""
        if len(self._subscribers) >= SUBSCRIBERS_MAX:
            raise Problem(
                CROWDED,
                f"{SUBSCRIBERS_MAX} clients listen to this gateway's events already",
                headers={"retry-after": "5"},
            )

    async def subscribe(
        self,
        after: int | None,
        topics: frozenset[str] = frozenset(),
        figures_after_us: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The subscriber's events in the form of `text/event-stream`, as they happen.

        They begin with the changes after the id `after`, if it is given. `topics` are names in
        `topic_sources`. With `figures_after_us`, the figures since that time come first, as one
        event `history`.
        """
        subscriber = _Subscriber(topics)
        self._subscribers.add(subscriber)
        for topic in topics:
            # It has not received the events that the others have.
            self._topic_events.pop(topic, None)
        try:
            # Sent at once, so that the client knows that it is connected.
            yield b"retry: 1000\n\n"
            if figures_after_us is not None:
                known = [one for one in self._figures if one["time_us"] > figures_after_us]
                yield _event("history", {"figures": known})
            for number, event in list(self._changes):
                if after is not None and number > after:
                    yield event
            while (event_or_end := await subscriber.queue.get()) is not None:
                yield event_or_end
        finally:
            self._subscribers.discard(subscriber)


def _enqueue(queue: asyncio.Queue[bytes | None], event: bytes | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)


def _event(kind: str, data: Mapping[str, object], number: int | None = None) -> bytes:
    head = f"event: {kind}\n" + (f"id: {number}\n" if number is not None else "")
    return f"{head}data: {json_text(data)}\n\n".encode()


def _percentile_ms(sorted_s: list[float], share: float) -> float | None:
    if not sorted_s:
        return None
    return round(sorted_s[min(len(sorted_s) - 1, int(share * len(sorted_s)))] * 1000, 2)
