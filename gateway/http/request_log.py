"""The requests that a gateway is processing or has answered lately, for diagnostics."""

import time
from collections import OrderedDict, deque
from dataclasses import dataclass

from gateway.callers import Caller
from gateway.http.schemas import RequestItem
from observability.traces import Span

_KEPT = 2_000
_PATH_MAX = 400
"""Characters of a path that are kept; a URL may have as many as a head has bytes."""

_ROUTE_MAX = 20
_PREFIX = "/v1/"
HIDDEN = "…"
"""In place of a path that the caller may not read."""

_NOT_LISTED = (
    "audit",
    "cluster",
    "events",
    "groups",
    "log",
    "login",
    "logout",
    "quotas",
    "requests",
    "sessions",
    "tokens",
    "traces",
    "users",
    "whoami",
)
"""Diagnostics and logins are not recorded: they would displace the other requests."""


@dataclass(slots=True)
class RequestRecord:
    """One request; `request` is its id in the cluster, known with the answer of a write.

    `route` is the first name after `/v1/`.
    """

    number: int
    method: str
    route: str
    path: str
    started_us: int
    request: str | None = None
    status: int | None = None
    ended_us: int | None = None
    owner: str = ""

    def as_json(self, now_us: int, caller: Caller) -> RequestItem:
        """The JSON for `/v1/requests`; without the path, if the caller may not read there."""
        own = self.owner == caller.owner
        shown = own or caller.rights.may("read", "") or _may_read(caller, self.path)
        return {
            "number": self.number,
            "request": self.request,
            "method": self.method,
            "route": self.route,
            "path": self.path if shown else HIDDEN,
            "status": self.status,
            "started_us": self.started_us,
            "duration_us": (self.ended_us or now_us) - self.started_us,
        }


class RequestLog:
    """A bounded log of requests, without the oldest."""

    def __init__(self) -> None:
        self._number = 0
        self._running: dict[int, RequestRecord] = {}
        self._answered: deque[RequestRecord] = deque(maxlen=_KEPT)
        self._by_request: OrderedDict[str, RequestRecord] = OrderedDict()

    def begin(self, method: str, path: str, owner: str = "") -> RequestRecord:
        """A request began, of a token, a user or the administrator."""
        self._number += 1
        route = path.removeprefix(_PREFIX).partition("/")[0] if path.startswith(_PREFIX) else ""
        if len(path) > _PATH_MAX:
            path = path[:_PATH_MAX] + "…"
        seen = RequestRecord(self._number, method, route[:_ROUTE_MAX], path, time.time_ns() // 1000)
        seen.owner = owner
        if route and route not in _NOT_LISTED:
            self._running[self._number] = seen
        return seen

    def end(self, seen: RequestRecord, status: int) -> None:
        """The request was answered, or its client disconnected (status 0)."""
        seen.status = status
        seen.ended_us = time.time_ns() // 1000
        if self._running.pop(seen.number, None) is None:
            return
        self._answered.append(seen)
        if seen.request is not None:
            self._by_request[seen.request] = seen
            if len(self._by_request) > _KEPT:
                self._by_request.popitem(last=False)

    def span(self, request: str) -> Span | None:
        """When this gateway began and finished processing `request`."""
        seen = self._by_request.get(request)
        return None if seen is None else Span(seen.started_us, seen.ended_us)

    def newest(self, limit: int, caller: Caller) -> list[RequestItem]:
        """The requests in progress and those answered, newest first, as the caller may see them."""
        now_us = time.time_ns() // 1000
        found = [*self._running.values(), *list(self._answered)[-limit:]]
        found.sort(key=lambda seen: seen.number, reverse=True)
        return [seen.as_json(now_us, caller) for seen in found[:limit]]


def _may_read(caller: Caller, url_path: str) -> bool:
    """Whether the caller may read the file or directory that the URL names in full."""
    for prefix in ("/v1/files/", "/v1/directories/"):
        if url_path.startswith(prefix) and len(url_path) <= _PATH_MAX:
            return caller.rights.may("read", url_path.removeprefix(prefix))
    return False
