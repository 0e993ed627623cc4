"""The diagnostics endpoints: traces, requests, events, the log."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Literal

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from actors.messages import LogCommand, LogEntry, LogPage
from actors.state.rights import Need
from gateway.callers import ADMINISTRATOR, Caller, caller_of, forbidden
from gateway.cluster import Cluster
from gateway.http.headers import query_fields
from gateway.http.live_events import LiveEvents
from gateway.http.parameters import (
    EVENTS_AFTER,
    FIGURES_AFTER,
    LAST_EVENT_ID,
    LOG_BEFORE,
    LOG_COMMANDS,
    LOG_LIMIT,
    REQUESTS_LIMIT,
    TOPICS,
)
from gateway.http.problems import (
    INVALID_QUERY,
    INVALID_REQUEST,
    NOT_FOUND,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    UNAVAILABLE,
    Problem,
)
from gateway.http.request_log import HIDDEN, RequestLog
from gateway.http.schemas import Log, LogItem, Requests, SlotOutcome, TraceEvent, Traces
from gateway.http.small_bodies import check_json, read_small_body
from gateway.http.system import ballot_text
from gateway.trace_events import ALL_S_MAX, TraceCommand, Tracing

_NO_STORE = {"cache-control": "no-store"}
_COMMANDS_PER_S = 5
"""Each command makes a message to every node."""

_REQUEST_NAME_MAX = 200
_EVENT_ID_DIGITS = 19
_EVENT_ID_MAX = 2**63
_NEWEST_SLOTS = 30
_OF_ONE_PATH = frozenset(
    ("put_file", "delete_file", "make_directory", "remove_directory", "set_quota", "remove_quota")
)
_TOPICS_WITH_PATHS = frozenset(("log", "requests"))
_CHECK_S = 2.0
"""How often a stream of events checks that its caller still may have it."""

_NEWEST_REQUESTS = 100
"""How many a topic has, sent each second: more would scroll away unread."""


class DiagnosticsEndpoints:
    """The endpoints that show requests and messages; see `docs/api.md`."""

    def __init__(
        self,
        cluster: Cluster,
        tracing: Tracing,
        requests: RequestLog,
        live_events: LiveEvents,
        command: Callable[[TraceCommand], bool],
    ) -> None:
        self._cluster = cluster
        self.requests = requests
        self.live_events = live_events
        self._tracing = tracing
        self._commands_s: deque[float] = deque(maxlen=_COMMANDS_PER_S)
        self._send_command = command
        live_events.topic_sources["requests"] = self._requests_topic
        live_events.topic_sources["log"] = self._log_topic

    async def trace(self, request: Request) -> Response:
        """The trace of one request, message by message."""
        name = request.path_params["request"]
        collector = self._tracing.collector
        if len(name) > _REQUEST_NAME_MAX:
            raise Problem(NOT_FOUND, f"{name[:40]!a}… is too long for the id of a request")
        found = None if collector is None else collector.trace(name, self.requests.span(name))
        if found is None:
            raise Problem(
                NOT_FOUND,
                f"this gateway has no trace of the request {name!a}: it keeps the newest ones, of "
                "those that it answered or that were recorded while it ran",
            )
        if not caller_of(request.scope).rights.may("read", ""):
            found = {**found, "events": _without_contents(found["events"])}
        return JSONResponse(found, headers=_NO_STORE)

    async def traces(self, request: Request) -> Response:
        """The newest traced requests, and the newest messages that belong to none."""
        if request.method == "POST":
            return await self._switch(request)
        collector, switch = self._tracing.collector, self._tracing.switch
        now_us = time.time_ns() // 1000
        until_us = switch.all_until_us
        recent = collector.recent() if collector else {"requests": [], "events": []}
        events = recent["events"]
        if not caller_of(request.scope).rights.may("read", ""):
            events = _without_contents(events)
        body: Traces = {
            "mode": switch.current(now_us),
            "all_until_us": until_us if until_us > now_us else None,
            "requests": recent["requests"],
            "events": events,
            "dropped": self._tracing.dropped,
        }
        return JSONResponse(body, headers=_NO_STORE)

    async def _switch(self, request: Request) -> Response:
        """Order all nodes what to record."""
        check_json(request.scope)
        try:
            command = TraceCommand.model_validate_json(await read_small_body(request))
        except ValidationError:
            raise Problem(
                INVALID_REQUEST,
                f'the body must be {{"seconds": 30}} (0 to {ALL_S_MAX}) or {{"mode": "sampled"}} '
                "(off, sampled, all)",
            ) from None
        now_s = time.monotonic()
        if len(self._commands_s) == _COMMANDS_PER_S and now_s - self._commands_s[0] < 1:
            raise Problem(
                TOO_MANY_REQUESTS,
                f"the gateway sends at most {_COMMANDS_PER_S} such commands a second to the nodes",
                headers={"retry-after": "1"},
            )
        self._commands_s.append(now_s)
        if not self._send_command(command):
            raise Problem(
                UNAVAILABLE,
                "no node received the command: the gateway has no connection to RabbitMQ",
                headers={"retry-after": "1"},
            )
        return JSONResponse(
            command.model_dump(exclude_none=True), status_code=202, headers=_NO_STORE
        )

    async def requests_page(self, request: Request) -> Response:
        """The requests in progress and those answered lately, newest first."""
        limit = REQUESTS_LIMIT.of(query_fields(request.scope))
        requests = self.requests.newest(limit, caller_of(request.scope))
        return JSONResponse({"requests": requests}, headers=_NO_STORE)

    async def log(self, request: Request) -> Response:
        """The log, slot by slot, newest first."""
        query = query_fields(request.scope)
        page = await self._cluster.read_log(
            LOG_BEFORE.of(query), LOG_LIMIT.of(query), LOG_COMMANDS.of(query)
        )
        return JSONResponse(_log_json(page, caller_of(request.scope)), headers=_NO_STORE)

    async def _while_allowed(
        self, caller: Caller, events: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        """The events until the caller's token is revoked or expires."""
        loop = asyncio.get_running_loop()
        checked_s = loop.time()
        async with contextlib.aclosing(events):
            # There are figures each second, so the loop comes round in time.
            async for event in events:
                if loop.time() - checked_s >= _CHECK_S:
                    try:
                        await self._cluster.rights_of(caller)
                    except Problem as problem:
                        if problem.kind is UNAUTHORIZED:
                            return
                    checked_s = loop.time()
                yield event

    async def _log_topic(self) -> Log:
        page = await self._cluster.read_log(0, _NEWEST_SLOTS, commands_max=1)
        return _log_json(page, ADMINISTRATOR)

    async def _requests_topic(self) -> Requests:
        return {"requests": self.requests.newest(_NEWEST_REQUESTS, ADMINISTRATOR)}

    async def events(self, request: Request) -> Response:
        """Changes of the cluster, and figures every second, as server-sent events."""
        query = query_fields(request.scope)
        given = request.headers.get(LAST_EVENT_ID.key) or EVENTS_AFTER.of(query)
        number_like = given.isascii() and given.isdecimal() and len(given) <= _EVENT_ID_DIGITS
        known = number_like and int(given) < _EVENT_ID_MAX
        topics = frozenset(filter(None, TOPICS.of(query).split(",")))
        if strange := topics - self.live_events.topic_sources.keys():
            known_topics = ", ".join(sorted(self.live_events.topic_sources))
            raise Problem(
                INVALID_QUERY, f"topics may name {known_topics}, and not {min(strange)[:40]!r}"
            )
        figures_after_us = None
        if FIGURES_AFTER.key in query:
            figures_after_us = FIGURES_AFTER.of(query)
        caller = caller_of(request.scope)
        if topics & _TOPICS_WITH_PATHS and not caller.rights.may("read", ""):
            # A topic is made once for all its subscribers.
            raise forbidden(f"{min(topics & _TOPICS_WITH_PATHS)}: {Need('read', '').text}")
        self.live_events.check_capacity()
        events = self.live_events.subscribe(int(given) if known else None, topics, figures_after_us)
        return StreamingResponse(
            events if caller.principal is None else self._while_allowed(caller, events),
            media_type="text/event-stream",
            headers=_NO_STORE,
        )


def _without_contents(events: list[TraceEvent]) -> list[TraceEvent]:
    """The events without what they say about files."""
    bare: list[TraceEvent] = []
    for event in events:
        kind = event["type"] or event["kind"]
        bare.append({**event, "summary": kind, "content": {}})
    return bare


def _log_json(page: LogPage, caller: Caller) -> Log:
    lowest = page.entries[-1].slot if page.entries else None
    return {
        "entries": [entry_json(entry, caller) for entry in page.entries],
        "decided": page.decided,
        "first_kept": page.first_kept,
        "next": lowest if lowest is not None and lowest > page.first_kept else None,
    }


def _shown_path(command: LogCommand, caller: Caller) -> str:
    """The path of a command, if the caller may read there; of several paths, if it may read all."""
    about = command.path if command.operation in _OF_ONE_PATH else ""
    return command.path if caller.rights.may("read", about) else HIDDEN


def entry_json(entry: LogEntry, caller: Caller) -> LogItem:
    """A slot as `/v1/log` shows it to the caller."""
    aborted = entry.aborted
    outcome: SlotOutcome = "undecided" if aborted is None else "committed"
    if aborted:
        outcome = "aborted" if len(aborted) == entry.commands_count else "partly aborted"
    return {
        "slot": entry.slot,
        "epoch": entry.epoch,
        "ballot": None if entry.ballot is None else ballot_text(entry.ballot),
        "accepted_by": list(entry.accepted_by),
        "kind": entry.kind,
        "outcome": outcome,
        "commands": [
            {
                "request": command.request,
                "operation": command.operation,
                "path": _shown_path(command, caller),
                "outcome": None if aborted is None else _outcome(index, aborted),
            }
            for index, command in enumerate(entry.commands)
        ],
        "commands_count": entry.commands_count,
        "summary": entry.text,
    }


def _outcome(index: int, aborted: tuple[int, ...]) -> Literal["aborted", "decided"]:
    return "aborted" if index in aborted else "decided"


def no_broker(command: TraceCommand) -> bool:
    """The `command` of a gateway without a broker, which reaches no node."""
    return False
