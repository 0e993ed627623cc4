"""A load of writes: many clients, unique values, and the recorded fate of every write.

It runs during faults, and `verify` finds out afterwards whether the cluster holds what it
acknowledged: each path at the version that its writes add up to, with the last one's contents. What
a cluster takes is measured by `synod bench`, which keeps no record of each write.
"""

import asyncio
import json
import math
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from chaos.load.http1 import Connection, Disconnected, Reply

PAUSE_AFTER_REFUSAL_S = 0.05
RESOLVE_PATIENCE_S = 60.0

ACKNOWLEDGED = "acknowledged"
REFUSED = "refused"
UNKNOWN = "unknown"


@dataclass(slots=True, eq=False)
class Attempt:
    """One write and its fate."""

    path: str
    value: str
    """Names the content; `content_of` makes it."""
    begun_ns: int
    ended_ns: int = 0
    status: int = 0
    """The HTTP status; 0 if no answer came."""
    fate: str = UNKNOWN
    request: str = ""
    etag: str = ""
    problem: str = ""

    @property
    def order(self) -> tuple[int, int]:
        """The slot and index at which it was decided, which its ETag is made from."""
        slot, _, index = self.etag.strip('"').partition("-")
        return int(slot), int(index)


def content_of(value: str, size_bytes: int) -> bytes:
    """The content that `value` names."""
    seed = value.encode() + b"\n"
    return (seed * (size_bytes // len(seed) + 1))[: max(size_bytes, len(seed))]


@dataclass(slots=True)
class Load:
    """Clients that write files from `__aenter__` until `__aexit__`.

    Each client writes to `paths` of its own or, with `shared`, all write to the same ones. `keys`
    sends an Idempotency-Key with each write, which resolves a write without an answer.
    """

    url: str
    clients: int = 8
    size_bytes: int = 1024
    paths: int = 4
    shared: bool = False
    keys: bool = False
    folder: str = field(default_factory=lambda: f"load-{secrets.token_hex(4)}")
    timeout_s: float = 30.0
    attempts: list[Attempt] = field(default_factory=list)
    under_way: list[Attempt] = field(default_factory=list)
    _tasks: asyncio.TaskGroup | None = None
    _stopped: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _begun_ns: int = 0
    _ended_ns: int = 0

    async def __aenter__(self) -> Self:
        self._begun_ns = time.monotonic_ns()
        self._tasks = await asyncio.TaskGroup().__aenter__()
        for number in range(self.clients):
            self._tasks.create_task(self._write_on(number))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped = True
        assert self._tasks is not None
        await self._tasks.__aexit__(kind, error, trace)
        self._ended_ns = time.monotonic_ns()

    # ── Writing ───────────────────────────────────────────────────────────────

    async def _write_on(self, number: int) -> None:
        connection = Connection.to(self.url)
        count = 0
        try:
            while not self._stopped:
                owner = "all" if self.shared else str(number)
                path = f"{self.folder}/{owner}-{count % self.paths}"
                attempt = Attempt(path, f"{number}.{count}.{path}", time.monotonic_ns())
                count += 1
                self.under_way.append(attempt)
                await self._write(connection, attempt)
                self.under_way.remove(attempt)
                self.attempts.append(attempt)
                self._news.set()
                if attempt.fate != ACKNOWLEDGED and not self._stopped:
                    await asyncio.sleep(PAUSE_AFTER_REFUSAL_S)
        finally:
            connection.close()

    async def _write(self, connection: Connection, attempt: Attempt) -> None:
        try:
            reply = await connection.request(
                "PUT",
                f"/v1/files/{attempt.path}",
                content_of(attempt.value, self.size_bytes),
                f"idempotency-key: {attempt.value}\r\n" if self.keys else "",
                timeout_s=self.timeout_s,
            )
        except Disconnected as error:
            attempt.problem = f"{error}"
        except ConnectionError as error:
            attempt.problem, attempt.fate = f"{error}", REFUSED
        else:
            _note(attempt, reply)
        attempt.ended_ns = time.monotonic_ns()

    # ── Watching ──────────────────────────────────────────────────────────────

    async def acknowledged_since(self, began_ns: int, *, timeout_s: float = 60.0) -> Attempt:
        """Wait for a write that began after `began_ns` and was acknowledged."""
        return await self._first(
            lambda one: one.fate == ACKNOWLEDGED and one.begun_ns >= began_ns, 1, 0, timeout_s
        )

    async def refused(self, number: int, *, timeout_s: float = 60.0) -> None:
        """Wait until so many more attempts ended without success."""
        await self._first(
            lambda one: one.fate != ACKNOWLEDGED, number, len(self.attempts), timeout_s
        )

    async def count(self, number: int, *, timeout_s: float = 60.0) -> None:
        """Wait until so many more writes were acknowledged."""
        await self._first(
            lambda one: one.fate == ACKNOWLEDGED, number, len(self.attempts), timeout_s
        )

    async def _first(
        self, fits: Callable[[Attempt], bool], number: int, seen: int, timeout_s: float
    ) -> Attempt:
        """Wait until `number` attempts that end from the place `seen` on fit; return the last."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    for attempt in self.attempts[seen:]:
                        number -= fits(attempt)
                        if number <= 0:
                            return attempt
                    seen = len(self.attempts)
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"not within {timeout_s:g} s; {self.summary()}") from None

    # ── Judging ───────────────────────────────────────────────────────────────

    async def resolve(self, patience_s: float = RESOLVE_PATIENCE_S) -> int:
        """Ask for the outcomes of the writes without a clear answer; return how many there were.

        Writes that stay open, or that the cluster has forgotten, keep the fate `unknown`.
        """
        unknown = [attempt for attempt in self.attempts if attempt.fate == UNKNOWN]
        connection = Connection.to(self.url)
        deadline = time.monotonic() + patience_s
        for attempt in unknown:
            resolved = await self._resolved(connection, attempt)
            while not resolved and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                resolved = await self._resolved(connection, attempt)
        connection.close()
        return len(unknown)

    async def _resolved(self, connection: Connection, attempt: Attempt) -> bool:
        try:
            if attempt.request:
                reply = await connection.request("GET", f"/v1/requests/{attempt.request}")
                if reply.status != 200:
                    attempt.problem = f"its request answers {reply.status}"
                    return reply.status == 410
                found = json.loads(reply.body)
                if found["state"] == "running":
                    return False
                done = found["result"] == "done"
                attempt.fate = ACKNOWLEDGED if done else REFUSED
                attempt.etag = found.get("etag", "")
                return True
            if not self.keys:
                return True  # Without a request id or a key there is nothing to ask for.
            await self._write(connection, attempt)
        except ConnectionError:
            return False
        return attempt.fate != UNKNOWN

    async def verify(self) -> list[str]:
        """Compare what the cluster holds with what was written; return the differences."""
        by_path: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in self.attempts:
            by_path[attempt.path].append(attempt)
        connection = Connection.to(self.url)
        try:
            return [
                fault
                for path, attempts in sorted(by_path.items())
                for fault in await self._faults_of(connection, path, attempts)
            ]
        finally:
            connection.close()

    async def _faults_of(
        self, connection: Connection, path: str, attempts: Iterable[Attempt]
    ) -> list[str]:
        done = [attempt for attempt in attempts if attempt.fate == ACKNOWLEDGED]
        unknown = [attempt for attempt in attempts if attempt.fate == UNKNOWN]
        reply = await self._read(connection, path)
        if reply.status == 404:
            return [f"{path} is missing after {len(done)} acknowledged writes"] if done else []
        if reply.status != 200:
            return [f"{path} can't be read: {reply.status} {reply.body[:300]!r}"]
        version, etag = int(reply.header("synod-version")), reply.header("etag").strip('"')
        faults = []
        if not len(done) <= version <= len(done) + len(unknown):
            faults.append(
                f"{path} is at version {version} after {len(done)} acknowledged writes and "
                f"{len(unknown)} that stayed unknown"
            )
        last = max(done, key=lambda attempt: attempt.order, default=None)
        possible = [*unknown, *([last] if last else [])]
        contents = [content_of(attempt.value, self.size_bytes) for attempt in possible]
        if reply.body not in contents:
            faults.append(f"{path} holds {reply.body[:60]!r}…, which was not written last")
        elif last and not unknown and etag != last.etag.strip('"'):
            faults.append(f"{path} has the ETag {etag}, but its last write got {last.etag}")
        orders = Counter(attempt.order for attempt in done)
        faults += [
            f"{path}: slot and index {at} were acknowledged for two writes"
            for at, n in orders.items()
            if n > 1
        ]
        return faults

    async def _read(self, connection: Connection, path: str) -> Reply:
        deadline = time.monotonic() + RESOLVE_PATIENCE_S
        while True:
            reply = await connection.request("GET", f"/v1/files/{path}")
            if reply.status != 503 or time.monotonic() > deadline:
                return reply
            await asyncio.sleep(0.1)

    def of_fate(self, fate: str) -> list[Attempt]:
        """The finished attempts with this fate."""
        return [attempt for attempt in self.attempts if attempt.fate == fate]

    def gap_s(self, since_ns: int) -> float:
        """The longest time since then in which no write was acknowledged."""
        ends = (one.ended_ns for one in self.of_fate(ACKNOWLEDGED))
        return longest_gap_s(ends, since_ns, time.monotonic_ns())

    def summary(self) -> dict[str, Any]:
        """Figures: throughput, latencies of acknowledged writes in ms, the longest gap, fates."""
        ended_ns = self._ended_ns or time.monotonic_ns()
        seconds = (ended_ns - self._begun_ns) / 1e9
        done = self.of_fate(ACKNOWLEDGED)
        latencies = sorted((one.ended_ns - one.begun_ns) / 1e6 for one in done)
        ends = [self._begun_ns, *sorted(one.ended_ns for one in done), ended_ns]
        others = Counter(
            f"{one.status} {one.problem}" for one in self.attempts if one.fate != ACKNOWLEDGED
        )
        return {
            "clients": self.clients,
            "bytes": self.size_bytes,
            "seconds": round(seconds, 3),
            "acknowledged": len(done),
            "per_second": round(len(done) / seconds, 1) if seconds else 0.0,
            "latency_ms": {
                name: round(percentile(latencies, part), 2)
                for name, part in (("p50", 50), ("p95", 95), ("p99", 99), ("max", 100))
            },
            "longest_gap_ms": round(max(b - a for a, b in pairwise(ends)) / 1e6, 1),
            "other": dict(others.most_common()),
        }


def longest_gap_s(ends_ns: Iterable[int], since_ns: int, until_ns: int) -> float:
    """The longest time from `since_ns` to `until_ns` in which nothing ended."""
    within = sorted(end for end in ends_ns if since_ns < end < until_ns)
    return max(b - a for a, b in pairwise([since_ns, *within, until_ns])) / 1e9


def percentile(ordered: Sequence[float], part: float) -> float:
    """The smallest of the `ordered` values that at least `part` percent do not exceed."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * part / 100) - 1)]


def _note(attempt: Attempt, reply: Reply) -> None:
    attempt.status = reply.status
    attempt.request = reply.header("synod-request-id")
    if reply.status in (200, 201):
        attempt.fate = ACKNOWLEDGED
        attempt.etag = reply.header("etag")
        return
    try:
        problem = json.loads(reply.body)
    except ValueError:
        problem = {}
    attempt.problem = str(problem.get("type", "")).rpartition(":")[2]
    running = reply.status == 409 and attempt.problem == "running"
    attempt.fate = UNKNOWN if reply.status in (500, 504) or running else REFUSED


async def run_for(load: Load, seconds: float) -> dict[str, Any]:
    """Run a load for a time; its summary, with what `verify` returned under `faults`."""
    async with load:
        await asyncio.sleep(seconds)
    summary = load.summary()
    unknown = await load.resolve()
    return {**summary, "unknown": unknown, "faults": await load.verify()}
