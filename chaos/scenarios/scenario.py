"""The frame of every scenario: a cluster under load, faults one after the other, and a verdict.

A scenario is a list of cases. Each case waits until the load is steady (else the run is void: a
fault without load proves nothing), injects a fault, waits until writes are acknowledged again, and
repairs what it broke. It records what it finds as `Finding`s; at the end
`chaos.scenarios.judgement` adds what must hold of the history and of the cluster as a whole.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chaos.checker.history import HistoryRecorder
from chaos.cluster.target import Target, all_serve, survey
from chaos.load.clients import Asked, Fleet
from chaos.load.http1 import Connection
from synod.membership import REQUESTS, Action

STEADY_S = 2.0
STEADY_PATIENCE_S = 90.0
FLOOR_PER_S = 10
"""Fewer acknowledged operations a second before a fault make the run void."""

DEATH_PATIENCE_S = 20.0
ATTEMPTS = 5
"""How often a fault is tried that a slow machine may miss the moment for."""

AFTER_S = 3.0
"""How long the load goes on after service is back, before anything is repaired."""

WHOLE_PATIENCE_S = 120.0
RESUME_PATIENCE_S = 60.0
_LOOK_S = 0.2

MomentKind = Literal["note", "fault", "heal", "change"]


class RunVoid(RuntimeError):
    """The run says nothing about the cluster; the text says why."""


@dataclass(frozen=True, slots=True)
class Moment:
    """An event of the run and its time, in nanoseconds of the monotonic clock."""

    at_ns: int
    kind: MomentKind
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must hold, whether it does, and the evidence."""

    name: str
    holds: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class Outage:
    """How long writes were not served after a fault, at most, and how long that may be."""

    fault: str
    since_ns: int
    seconds: float | None
    """`None`: they did not come back within the run's patience."""
    limit_s: float


CaseSteps = Callable[["Run"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """One fault and what must hold during and after it."""

    name: str
    says: str
    steps: CaseSteps
    failpoint: str = ""
    """The failpoint of the node whose turn it is, if nodes take turns; see `Scenario`."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Cases on one cluster. Its nodes start with their `failpoints`, which are not armed.

    Of two nodes that take `turns` the first one dies in the first case, the other in the second,
    and so on; each comes back with the failpoint of its next case.
    """

    name: str
    says: str
    cases: tuple[Case, ...]
    failpoints: Mapping[str, str] = field(default_factory=dict)
    turns: tuple[str, ...] = ()
    brokers: int = 1
    """How many RabbitMQ nodes it needs at least; with three the cluster is spread over sites."""
    network: bool = False
    """Whether it cuts the network between sites, which needs a local target, and root."""
    grows: bool = False
    """Whether it adds nodes, which needs a local target: compose files name their containers."""

    @property
    def needs_local(self) -> str:
        """What it does that is for a local target only; empty if nothing."""
        return "cuts the network" if self.network else "adds nodes" if self.grows else ""

    @property
    def first_failpoints(self) -> dict[str, str]:
        """The failpoint that each node starts with, for nodes that have one."""
        first = zip(self.turns, self.cases, strict=False)
        return {**self.failpoints, **{node: case.failpoint for node, case in first}}

    def next_failpoint(self, failpoint: str) -> str:
        """The failpoint with which a node that died of `failpoint` restarts."""
        rules = [case.failpoint for case in self.cases]
        following = rules[rules.index(failpoint) + len(self.turns) :]
        return following[0] if following else ""


class Run:
    """One run of a scenario: what its cases use, and what they find."""

    def __init__(self, scenario: Scenario, target: Target, seed: int, tell: Callable[[str], None]):
        self.scenario = scenario
        self.target = target
        self.recorder = HistoryRecorder(time.monotonic_ns)
        urls = (target.url, target.other_url)
        self.fleet = Fleet(urls, self.recorder, token=target.token, seed=seed)
        self.seed = seed
        self.began_ns = time.monotonic_ns()
        self.moments: list[Moment] = []
        self.findings: list[Finding] = []
        self.outages: list[Outage] = []
        self.shown: list[Asked] = []
        """Requests around the faults whose messages the report draws."""
        self.traces: dict[str, Any] = {}
        self.failpoints = scenario.first_failpoints
        """Each node's failpoint, unless it has struck already."""
        self.final: dict[str, str | None] = {}
        """What each path held in the end."""
        self._tell = tell
        self._leader: str | None = None
        self._view: tuple[int, str, tuple[str, ...]] | None = None

    # -- telling ---------------------------------------------------------------------------------

    def note(self, text: str, kind: MomentKind = "note") -> int:
        """Record an event that happens now; its time."""
        now_ns = time.monotonic_ns()
        self.moments.append(Moment(now_ns, kind, text))
        self._tell(f"{(now_ns - self.began_ns) / 1e9:7.2f} s  {text}")
        return now_ns

    def find(self, name: str, holds: bool, evidence: str) -> None:
        """Record a finding."""
        self.findings.append(Finding(name, holds, evidence))
        if not holds:
            self.note(f"WRONG: {name}: {evidence}")

    # -- the load --------------------------------------------------------------------------------

    async def steady(self) -> None:
        """Wait until the load has been above the floor for `STEADY_S`. Raises `RunVoid`."""
        deadline_s = time.monotonic() + STEADY_PATIENCE_S
        since_ns = time.monotonic_ns()
        rate = 0.0
        while time.monotonic() < deadline_s:
            await asyncio.sleep(_LOOK_S)
            now_ns = time.monotonic_ns()
            window_ns = min(now_ns - since_ns, int(STEADY_S * 1e9))
            if now_ns - since_ns < STEADY_S * 1e9:
                continue
            rate = self.fleet.done_since(now_ns - window_ns) / (window_ns / 1e9)
            if rate >= FLOOR_PER_S:
                self.note(f"steady at {rate:.0f} operations a second")
                return
        raise RunVoid(
            f"only {rate:.0f} operations a second were acknowledged before the fault, "
            f"fewer than {FLOOR_PER_S}"
        )

    async def back(self, fault: str, since_ns: int, limit_s: float) -> None:
        """Wait for a write that begins after `since_ns` and is acknowledged; judge the outage."""

        def resumes(asked: Asked) -> bool:
            return asked.changes and asked.fate == "done" and asked.begun_ns >= since_ns

        first = await self.fleet.first(resumes, RESUME_PATIENCE_S)
        seconds = None if first is None else (first.ended_ns - since_ns) / 1e9
        self.outages.append(Outage(fault, since_ns, seconds, limit_s))
        if first is not None:
            self.shown.append(first)
            self.note(f"writes are served again {seconds:.2f} s after: {fault}")
        self.find(
            f"service is back within {limit_s:g} s after: {fault}",
            seconds is not None and seconds <= limit_s,
            _not_back() if seconds is None else f"back after {seconds:.2f} s",
        )

    async def gap(self, fault: str, since_ns: int, limit_s: float) -> None:
        """Judge the longest time since a fault in which no write was acknowledged.

        It waits for a write that begins now, so that no gap is cut short. Unlike the first write
        that is served after the fault, it shows what else the fault interrupts.
        """
        now_ns = time.monotonic_ns()

        def served(asked: Asked) -> bool:
            return asked.changes and asked.fate == "done" and asked.begun_ns >= now_ns

        last = await self.fleet.first(served, RESUME_PATIENCE_S)
        seconds = None if last is None else self.fleet.gap_s(since_ns, last.ended_ns)
        self.outages.append(Outage(fault, since_ns, seconds, limit_s))
        if seconds is not None:
            self.note(f"the longest gap was {seconds:.2f} s after: {fault}")
        self.find(
            f"no gap over {limit_s:g} s after: {fault}",
            seconds is not None and seconds <= limit_s,
            _not_back() if seconds is None else f"the longest was {seconds:.2f} s",
        )

    async def linger(self, seconds: float) -> None:
        """Let the load go on for a while."""
        await asyncio.sleep(seconds)

    def since(self, at_ns: int, *fates: str) -> list[Asked]:
        """The changes that ended after a moment with one of these fates."""
        return [
            asked
            for asked in self.fleet.asked
            if asked.changes and asked.ended_ns >= at_ns and asked.fate in fates
        ]

    # -- the cluster -----------------------------------------------------------------------------

    async def ask(self) -> dict[str, Any]:
        """What the gateway knows of the cluster; waits until it knows something."""
        async with asyncio.timeout(WHOLE_PATIENCE_S):
            while True:
                with contextlib.suppress(ConnectionError, ValueError):
                    return await survey(self.target)
                await asyncio.sleep(_LOOK_S)

    async def leader(self) -> str:
        """The proposer that leads."""
        return str(await self._known("leader", lambda about: about["leader"]))

    async def coordinator(self) -> str:
        """The learner that coordinates."""
        view = await self._known("view", lambda about: about["view"])
        return str(view["coordinator"])

    async def _known(self, what: str, look: Callable[[dict[str, Any]], Any]) -> Any:
        deadline_s = time.monotonic() + WHOLE_PATIENCE_S
        while time.monotonic() < deadline_s:
            if (found := look(await self.ask())) is not None:
                return found
            await asyncio.sleep(_LOOK_S)
        raise RunVoid(f"the cluster has no {what}")

    async def dies(self, node: str) -> int:
        """Wait until an armed failpoint has killed its node; roughly when it did.

        Raises `RunVoid` if it does not strike.
        """
        if not await self.died(node, DEATH_PATIENCE_S):
            raise RunVoid(f"the failpoint of {node} did not strike: no message has reached it")
        return time.monotonic_ns()

    async def died(self, node: str, patience_s: float) -> bool:
        """Wait for the end of a node; whether it came in time."""
        deadline_s = time.monotonic() + patience_s
        while await self.target.runs(node):
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(0.01)
        self.failpoints.pop(node, None)
        return True

    async def restart(self, *nodes: str, failpoint: str = "") -> None:
        """Restart dead nodes, and wait until each sends heartbeats again."""
        former = await self._incarnations()
        for node in nodes:
            await self.target.restart(node, failpoint)
            self.failpoints.pop(node, None)
            if failpoint:
                self.failpoints[node] = failpoint
        self.note(f"{' and '.join(nodes)} started again", "heal")
        deadline_s = time.monotonic() + WHOLE_PATIENCE_S
        silent = list(nodes)
        while silent and time.monotonic() < deadline_s:
            await asyncio.sleep(_LOOK_S)
            now = await self._incarnations()
            silent = [node for node in silent if now.get(node, 0) <= former.get(node, 0)]
        if silent:
            self.find("nodes come back", False, f"no heartbeats again: {', '.join(silent)}")

    async def _incarnations(self) -> dict[str, int]:
        nodes = (await self.ask())["nodes"]
        return {node["name"]: int(node.get("incarnation", 0)) for node in nodes}

    async def whole(self) -> None:
        """Wait until every node sends heartbeats and every store is in the view and caught up."""
        deadline_s = time.monotonic() + WHOLE_PATIENCE_S
        missing: list[str] = []
        while time.monotonic() < deadline_s:
            missing = _missing(await self.ask())
            if not missing:
                return
            await asyncio.sleep(_LOOK_S)
        self.find("the cluster is whole again", False, f"missing: {', '.join(missing)}")

    async def gateways_serve(self) -> None:
        """Wait until each gateway would take a write. They send no heartbeats."""
        deadline_s = time.monotonic() + WHOLE_PATIENCE_S
        while time.monotonic() < deadline_s:
            if await all_serve(self.target):
                return
            await asyncio.sleep(_LOOK_S)
        self.find("every gateway serves again", False, "not all of them would take a write")

    async def mend(self, *nodes: str, failpoint: str = "") -> None:
        """Restart dead nodes, and wait until the cluster is whole."""
        await self.restart(*nodes, failpoint=failpoint)
        await self.whole()
        self.note("the cluster is whole")

    async def log_entry(self, slot: int) -> dict[str, Any] | None:
        """A slot's entry in the log, with its outcome; `None` if no node has it."""
        page = await self._request("GET", f"/v1/log?before={slot + 1}&limit=1")
        entries = [] if page is None else page["entries"]
        return next((entry for entry in entries if entry["slot"] == slot), None)

    async def change(self, action: Action, member: str) -> int | None:
        """Ask for a change of the members; the version that has begun, or `None` if it was refused,
        or not answered.
        """
        method, target = REQUESTS[action]
        answer = await self._request(method, target.format(name=member))
        return None if answer is None else int(answer["version"])

    async def members(self) -> dict[str, Any]:
        """What a gateway knows of the members; waits until it answers."""
        async with asyncio.timeout(WHOLE_PATIENCE_S):
            while True:
                if (known := await self._request("GET", "/v1/members")) is not None:
                    return dict(known)
                await asyncio.sleep(_LOOK_S)

    async def watch(self) -> None:
        """Record elections and views until it is cancelled."""
        while True:
            with contextlib.suppress(ConnectionError, ValueError, TimeoutError):
                self._compare(await survey(self.target))
            await asyncio.sleep(_LOOK_S)

    def _compare(self, about: dict[str, Any]) -> None:
        leader = about["leader"]
        if leader != self._leader:
            if self._leader is not None or leader is not None:
                self.note("there is no leader" if leader is None else f"{leader} leads", "change")
            self._leader = leader
        if (view := about["view"]) is not None:
            stores = tuple(member["name"] for member in view["stores"])
            now = int(view["epoch"]), str(view["coordinator"]), stores
            if now != self._view:
                self._view = now
                self.note(f"view {now[0]}: {now[1]} coordinates {', '.join(stores)}", "change")

    # -- traces ----------------------------------------------------------------------------------

    async def trace_all(self, seconds: int = 10) -> None:
        """Have every message recorded for a while, if the gateway offers that."""
        await self._request("POST", "/v1/traces", json.dumps({"seconds": seconds}).encode())

    async def fetch_traces(self, most: int = 8) -> None:
        """Get the messages of the requests that the report draws."""
        for asked in self.shown[:most]:
            if asked.request and asked.request not in self.traces:
                found = await self._request("GET", f"/v1/traces/{asked.request}")
                if found is not None and found.get("events"):
                    self.traces[asked.request] = found

    async def _request(self, method: str, target: str, body: bytes = b"") -> Any:
        connection = Connection.to(self.target.url, self.target.other_url)
        headers = "content-type: application/json\r\n"
        if self.target.token:
            headers += f"authorization: Bearer {self.target.token}\r\n"
        try:
            reply = await connection.request(method, target, body, headers, timeout_s=5.0)
            return json.loads(reply.body) if reply.status in (200, 202) and reply.body else None
        except (ConnectionError, ValueError):
            return None
        finally:
            connection.close()


def _not_back() -> str:
    return f"not back within {RESUME_PATIENCE_S:g} s"


def _missing(about: dict[str, Any]) -> list[str]:
    missing = []
    view = about["view"]
    for node in about["nodes"]:
        if node["role"] == "gateway":
            continue
        if not node["seen"] or node["age_ms"] > 5_000:
            missing.append(f"{node['name']} sends no heartbeats")
        elif node["halted"]:
            missing.append(f"{node['name']} halted")
        elif node["role"] == "store" and not node["in_view"]:
            missing.append(f"{node['name']} is not in the view")
        elif node["role"] == "store" and view is not None and node["epoch"] != view["epoch"]:
            missing.append(f"{node['name']} knows only view {node['epoch']}")
    if not about["ready"]:
        missing.append("no write could start")
    return missing


@contextlib.asynccontextmanager
async def under_load(run: Run) -> AsyncIterator[None]:
    """Run the clients, and record elections and views, for the length of a block."""
    await run.fleet.look_for_moves()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(run.watch())
        try:
            async with run.fleet:
                yield
        finally:
            watching.cancel()
