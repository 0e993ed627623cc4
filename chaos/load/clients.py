"""Clients that use a cluster through its public HTTP API, and record its answers as a history.

They share a few paths in pairs, `in-3` and `out-3`: all of them read, write, compare-and-set and
delete, and move what is in `in-3` to `out-3`. Every value is written once, and none ever comes
back to a path that it left, so a refused precondition proves that another value was there.
"""

import asyncio
import json
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from chaos.checker.history import HistoryRecorder, RecordedClient
from chaos.load.http1 import Connection, Disconnected, Reply
from chaos.load.writers import content_of, longest_gap_s

Fate = Literal["done", "refused", "aborted", "unavailable", "failed", "unknown"]

CLIENTS = 8
PAIRS = 8
LARGE_BYTES = 20_000
"""More than travels inside a command: such contents cross the bulk lane as chunks."""

_PAUSE_S = (0.0, 0.03)
_PAUSE_AFTER_REFUSAL_S = 0.05
_RESOLVE_PATIENCE_S = 30.0
_READ_PATIENCE_S = 30.0
_CHANCES = {"read": 40, "write": 22, "cas": 20, "delete": 4, "remove": 4, "move": 10}


@dataclass(slots=True, eq=False)
class Asked:
    """One operation: the request, its answer, and when they were sent and received (monotonic)."""

    op: int
    f: str
    effects: dict[str, str | None]
    """What each path holds if the operation happens; empty for a read."""
    begun_ns: int
    ended_ns: int = 0
    status: int = 0
    """The HTTP status; 0 if no answer came."""
    fate: Fate = "unknown"
    problem: str = ""
    request: str = ""
    slot: int = 0
    resolved: str = ""
    """The result or state in `/v1/requests/{id}` afterwards; empty if the fleet did not ask."""
    index: int = -1

    @property
    def changes(self) -> bool:
        """Whether it was meant to change something."""
        return bool(self.effects)

    @property
    def happened(self) -> bool:
        """Whether it certainly changed what it was meant to change."""
        return self.changes and (self.fate == "done" or self.resolved == "done")


@dataclass(slots=True)
class _Work:
    """One operation as an HTTP request and as an entry of the history."""

    f: Any
    path: str | None
    value: Any
    method: str
    target: str
    body: bytes = b""
    headers: str = ""
    effects: dict[str, str | None] = field(default_factory=dict)
    refused: tuple[int, ...] = ()
    """The HTTP statuses that prove that the path did not hold the expected value."""


class Fleet:
    """Clients that work from `__aenter__` until `__aexit__`.

    They use the first of `urls`, and the next one if it takes no connections.
    """

    def __init__(
        self,
        urls: Sequence[str],
        recorder: HistoryRecorder,
        *,
        clients: int = CLIENTS,
        pairs: int = PAIRS,
        token: str = "",
        seed: int = 0,
    ) -> None:
        self.asked: list[Asked] = []
        """All operations that have ended, in the order of their ends."""
        self.moves = False
        """Whether the cluster offers moves; see `look_for_moves`."""
        self.clients = clients
        self._urls = tuple(urls)
        self._recorder = recorder
        folder = f"chaos-{secrets.token_hex(4)}"
        self.pairs = [(f"{folder}/in-{n}", f"{folder}/out-{n}") for n in range(pairs)]
        self._headers = f"authorization: Bearer {token}\r\n" if token else ""
        self._chance = random.Random(seed)
        self._known: dict[str, tuple[str, str] | None] = {}
        """The value and ETag that any client saw last at a path; `None`: absent."""
        self._values = 0
        self._running = 0
        self._may_begin = asyncio.Event()
        self._may_begin.set()
        self._idle = asyncio.Event()
        self._news = asyncio.Event()
        self._stopped = False
        self._tasks: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        for _ in range(self.clients):
            self._tasks.create_task(self._work_on())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped = True
        self._may_begin.set()
        assert self._tasks is not None
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def paths(self) -> list[str]:
        """All paths, without a slash in front."""
        return [path for pair in self.pairs for path in pair]

    async def look_for_moves(self) -> None:
        """Find out whether the gateway offers `POST /v1/move`."""
        connection = Connection.to(*self._urls)
        try:
            reply = await connection.request("POST", "/v1/move", b"{}", self._headers)
        finally:
            connection.close()
        self.moves = reply.status not in (404, 405)

    # -- working ---------------------------------------------------------------------------------

    def read_elsewhere(self, url: str, clients: int) -> None:
        """Let more clients read from another gateway, until the end."""
        assert self._tasks is not None
        self.clients += clients
        for _ in range(clients):
            self._tasks.create_task(self._work_on(url))

    async def read_at_once(self, url: str, paths: Sequence[str], patience_s: float) -> int:
        """Let one more client for each of `paths` read it once from another gateway.

        Returns how many have no answer yet, once half of them have one or `patience_s` is over.
        """
        assert self._tasks is not None
        reading = {self._tasks.create_task(self._read_once(url, path)) for path in paths}
        deadline_s = time.monotonic() + patience_s
        while len(reading) * 2 > len(paths) and (left_s := deadline_s - time.monotonic()) > 0:
            _, reading = await asyncio.wait(
                reading, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
        return len(reading)

    async def _read_once(self, url: str, path: str) -> None:
        connection = Connection.to(url)
        try:
            asked = await self._ask(connection, self._recorder.client(), _read(path))
        finally:
            connection.close()
        self.asked.append(asked)
        self._news.set()

    async def _work_on(self, read_at: str = "") -> None:
        connection = Connection.to(*([read_at] if read_at else self._urls))
        client = self._recorder.client()
        try:
            while True:
                await asyncio.sleep(self._chance.uniform(*_PAUSE_S))
                await self._may_begin.wait()
                if self._stopped:
                    return
                self._running += 1
                self._idle.clear()
                try:
                    work = self._choose_read() if read_at else self._choose()
                    asked = await self._ask(connection, client, work)
                finally:
                    self._running -= 1
                    if not self._running:
                        self._idle.set()
                self.asked.append(asked)
                self._news.set()
                if asked.fate not in ("done", "refused"):
                    await asyncio.sleep(_PAUSE_AFTER_REFUSAL_S)
        finally:
            connection.close()

    def _choose(self) -> _Work:
        chances = _CHANCES if self.moves else _CHANCES | {"move": 0}
        [verb] = self._chance.choices(list(chances), list(chances.values()))
        source, target = self._chance.choice(self.pairs)
        path = source if self._chance.random() < 0.6 else target
        known = self._known.get(path)
        if verb == "cas":
            return self._cas(path, known)
        if verb == "remove" and known is not None:
            value, tag = known
            headers = f"if-match: {tag}\r\n"
            work = _Work("cas", f"/{path}", [value, None], "DELETE", _target(path), b"", headers)
            work.effects, work.refused = {path: None}, (404, 412)
            return work
        if verb == "delete":
            return _Work("delete", f"/{path}", None, "DELETE", _target(path), effects={path: None})
        if verb == "move" and (moved := self._known.get(source)) is not None:
            return _move(source, target, *moved)
        if verb == "write":
            value = self._new_value()
            body = self._body(value)
            return _Work(
                "write", f"/{path}", value, "PUT", _target(path), body, effects={path: value}
            )
        return _read(path)

    def _choose_read(self) -> _Work:
        return _read(self._chance.choice(self.paths))

    def _cas(self, path: str, known: tuple[str, str] | None) -> _Work:
        value = self._new_value()
        expected = None if known is None else known[0]
        headers = "if-none-match: *\r\n" if known is None else f"if-match: {known[1]}\r\n"
        return _Work(
            f="cas",
            path=f"/{path}",
            value=[expected, value],
            method="PUT",
            target=_target(path),
            body=self._body(value),
            headers=headers,
            effects={path: value},
            refused=(412,),
        )

    def _new_value(self) -> str:
        self._values += 1
        return f"v{self._values}"

    def _body(self, value: str) -> bytes:
        return content_of(value, LARGE_BYTES if self._chance.random() < 0.05 else 0)

    async def _ask(self, connection: Connection, client: RecordedClient, work: _Work) -> Asked:
        op = client.invoke(work.f, work.path, work.value)
        asked = Asked(op, work.f, work.effects, time.monotonic_ns())
        # A retry by the gateway would hide the outcome of the first try.
        headers = f"{self._headers}synod-retry: 0\r\n{work.headers}"
        if work.method == "POST":
            headers += "content-type: application/json\r\n"
        try:
            reply = await connection.request(work.method, work.target, work.body, headers)
        except Disconnected as error:
            asked.problem = f"{error}"
        except ConnectionError as error:
            asked.problem, asked.fate = f"{error}", "unavailable"
        else:
            self._take_answer(asked, work, reply)
        if asked.fate == "unknown" and work.f == "read":
            asked.fate = "failed"  # A read has no effect that could still follow.
        asked.ended_ns = time.monotonic_ns()
        if asked.fate == "done":
            client.ok(self._known_value(work.path) if work.f == "read" else None)
        elif asked.fate == "unknown":
            client.unknown(asked.problem or f"status {asked.status}")
        elif asked.fate == "refused":
            client.fail()
        else:
            client.fail(asked.problem or f"status {asked.status}")
        return asked

    def _known_value(self, path: str | None) -> str | None:
        known = self._known[(path or "")[1:]]
        return None if known is None else known[0]

    def _take_answer(self, asked: Asked, work: _Work, reply: Reply) -> None:
        asked.status = reply.status
        asked.request = reply.header("synod-request-id")
        slot = reply.header("synod-slot")
        asked.slot = int(slot) if slot.isdecimal() else 0
        path = (work.path or "")[1:]
        if work.f == "read" and reply.status in (200, 404):
            asked.fate = "done"
            found = None if reply.status == 404 else (_value_of(reply), reply.header("etag"))
            self._known[path] = found
        elif reply.status in (200, 201, 204):
            asked.fate = "done"
            tag = reply.header("etag")
            for changed, value in work.effects.items():
                self._known[changed] = None if value is None or not tag else (value, tag)
        else:
            asked.problem = _problem(reply)
            asked.fate = _fate(reply.status, asked.problem, work.refused)
            if asked.fate == "refused":
                self._known.pop(path, None)

    # -- watching --------------------------------------------------------------------------------

    async def hold(self) -> None:
        """Let no client begin an operation, and wait until those under way have ended."""
        self._may_begin.clear()
        if self._running:
            await self._idle.wait()

    def release(self) -> None:
        """Let the clients go on after `hold`."""
        self._may_begin.set()

    async def first(self, fits: Callable[[Asked], bool], timeout_s: float) -> Asked | None:
        """The first operation that fits, past or future; `None` after `timeout_s` without one."""
        seen = 0
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    for asked in self.asked[seen:]:
                        if fits(asked):
                            return asked
                    seen = len(self.asked)
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return None

    def done_since(self, since_ns: int) -> int:
        """How many operations were acknowledged since a moment."""
        count = 0
        for asked in reversed(self.asked):
            if asked.ended_ns < since_ns:
                break
            count += asked.fate == "done"
        return count

    def gap_s(self, since_ns: int, until_ns: int) -> float:
        """The longest time between two moments in which no change was acknowledged."""
        ends = (one.ended_ns for one in self.asked if one.changes and one.fate == "done")
        return longest_gap_s(ends, since_ns, until_ns)

    def changed_since(self, since_ns: int) -> set[str]:
        """The paths at which a change that began since a moment was acknowledged."""
        return {
            path
            for asked in self.asked
            if asked.fate == "done" and asked.begun_ns >= since_ns
            for path in asked.effects
        }

    # -- afterwards ------------------------------------------------------------------------------

    async def resolve(self) -> None:
        """Ask the cluster for the outcome of every write that was unknown or aborted."""
        connection = Connection.to(*self._urls)
        try:
            for asked in self.asked:
                if asked.request and asked.fate in ("unknown", "aborted"):
                    await self._resolve(connection, asked)
        finally:
            connection.close()

    async def order(self, close: list[Asked]) -> None:
        """Find out the index of these operations in their slots."""
        connection = Connection.to(*self._urls)
        try:
            for asked in close:
                if asked.index < 0 and asked.request:
                    await self._resolve(connection, asked)
        finally:
            connection.close()

    async def _resolve(self, connection: Connection, asked: Asked) -> None:
        deadline_s = time.monotonic() + _RESOLVE_PATIENCE_S
        while time.monotonic() < deadline_s:
            try:
                reply = await connection.request(
                    "GET", f"/v1/requests/{asked.request}", headers=self._headers
                )
            except ConnectionError as error:
                asked.resolved = f"{error}"
            else:
                found = json.loads(reply.body) if reply.body else {}
                asked.resolved = str(found.get("result") or found.get("state") or reply.status)
                if found.get("state") == "decided":
                    asked.slot, asked.index = int(found["slot"]), int(found["index"])
                if reply.status in (200, 404, 410) and asked.resolved != "running":
                    return
            await asyncio.sleep(0.1)

    async def read_all(self) -> dict[str, str | None]:
        """What each path holds in the end, by linearizable reads that are part of the history.

        Raises `TimeoutError` if a path can't be read.
        """
        connection = Connection.to(*self._urls)
        client = self._recorder.client()
        found: dict[str, str | None] = {}
        try:
            async with asyncio.timeout(_READ_PATIENCE_S):
                for path in self.paths:
                    while path not in found:
                        asked = await self._ask(connection, client, _read(path))
                        if asked.fate == "done":
                            found[path] = self._known_value(f"/{path}")
                        else:
                            await asyncio.sleep(_PAUSE_AFTER_REFUSAL_S)
        finally:
            connection.close()
        return found


def _target(path: str) -> str:
    return f"/v1/files/{path}"


def _read(path: str) -> _Work:
    return _Work("read", f"/{path}", None, "GET", _target(path))


def _move(source: str, target: str, value: str, tag: str) -> _Work:
    body = {"source": source, "target": target, "overwrite": True, "if_match": tag}
    steps = [["cas", f"/{source}", [value, None]], ["write", f"/{target}", value]]
    return _Work(
        f="txn",
        path=None,
        value=steps,
        method="POST",
        target="/v1/move",
        body=json.dumps(body).encode(),
        effects={source: None, target: value},
    )


def _value_of(reply: Reply) -> str:
    """The value that a content stands for; damaged content is a value that no client wrote."""
    value = reply.body.split(b"\n", 1)[0].decode("utf-8", "replace")
    if reply.body == content_of(value, len(reply.body)):
        return value
    return f"damaged content: {reply.body[:60]!r}… of {len(reply.body)} bytes"


def _problem(reply: Reply) -> str:
    try:
        return str(json.loads(reply.body)["type"]).rpartition(":")[2]
    except (ValueError, KeyError, TypeError):
        return f"status {reply.status}"


def _fate(status: int, problem: str, refused: tuple[int, ...]) -> Fate:
    if status in refused:
        return "refused"
    if status == 503:
        return "aborted" if problem == "aborted" else "unavailable"
    if status >= 500 and status != 507:
        return "unknown"
    return "failed"
