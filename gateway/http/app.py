"""The HTTP application: routes, errors and measurements around one `ClusterPort`."""

import functools
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Message, Receive, Scope, Send

from gateway.callers import caller_of, who_sent
from gateway.cluster import Cluster, ClusterPort
from gateway.http.admission import Admission
from gateway.http.audit import AuditEndpoints
from gateway.http.auth import Authenticator
from gateway.http.auth_limits import TokenAttemptLimits
from gateway.http.backup_endpoints import BackupEndpoints
from gateway.http.chunk_keeping import first_error
from gateway.http.contents import ContentTransfer
from gateway.http.diagnostics import DiagnosticsEndpoints, no_broker
from gateway.http.directories import DirectoryEndpoints
from gateway.http.files import FileEndpoints, NotModified, ResponseCutOff
from gateway.http.idempotency import RunningKeys
from gateway.http.live_events import LiveEvents
from gateway.http.logins import LoginEndpoints, PasswordChecks, login_routes
from gateway.http.members import MemberEndpoints
from gateway.http.openapi import openapi
from gateway.http.origins import is_loopback_name
from gateway.http.problems import (
    INCOMPLETE_BODY,
    INTERNAL,
    INVALID_REQUEST,
    UNAUTHORIZED,
    Problem,
)
from gateway.http.quotas import QuotaEndpoints
from gateway.http.refusals import Refusals
from gateway.http.request_log import RequestLog, RequestRecord
from gateway.http.routing import PathRoute, method_not_allowed, no_such_route
from gateway.http.server import ADMITTED
from gateway.http.static_files import StaticFiles
from gateway.http.system import StatusEndpoints
from gateway.http.tokens import TokenEndpoints
from gateway.http.transactions import TransactionEndpoints
from gateway.http.users import UserEndpoints, user_routes
from gateway.http.watch import WatchEndpoint
from gateway.passwords import Passwords
from gateway.settings import Settings
from gateway.trace_events import TraceCommand, Tracing
from observability.logs import Throttle
from observability.metrics import HttpMetrics

_log = logging.getLogger("synod.gateway")

_failures = logging.getLogger("synod.gateway.failures")
_failures.addFilter(Throttle(lines_per_s=5))

_mistakes = logging.getLogger("synod.gateway.mistakes")
_mistakes.addFilter(Throttle(lines_per_s=1))

_clients = logging.getLogger("synod.gateway.clients")
_clients.addFilter(Throttle(lines_per_s=5))

_HEADERS_OF_ALL = (
    (b"x-content-type-options", b"nosniff"),
    # A page of another origin may not embed responses that it can't read.
    (b"cross-origin-resource-policy", b"same-origin"),
)

_STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")
"""Browsers use https only for this host from now on, at all its ports. They ignore it for
addresses, and it is not sent for loopback names, at which other programs serve plain HTTP.
"""

_PROBLEM = "synod.problem"
"""Where a request's scope holds the type of the problem that ended it."""

_ABOUT_FILES = frozenset(("files", "directories", "move", "copy", "transactions"))


class GatewayApp:
    """The ASGI application of one gateway.

    It replaces Starlette's own application class around Starlette's router, with one layer for
    both errors and metrics: at a thousand requests a second each layer counts.
    """

    def __init__(
        self,
        port: ClusterPort,
        settings: Settings,
        *,
        node: str = "gateway-1",
        registry: CollectorRegistry | None = None,
        broker_outage: Callable[[], str] = lambda: "",
        tracing: Tracing | None = None,
        command: Callable[[TraceCommand], bool] = no_broker,
        passwords: Passwords | None = None,
    ) -> None:
        registry = CollectorRegistry() if registry is None else registry
        cluster = Cluster(port, settings.request_deadline_ms, broker_outage)
        keys = RunningKeys()
        self.contents = contents = ContentTransfer(cluster, settings)
        files = FileEndpoints(cluster, contents, keys)
        transactions = TransactionEndpoints(cluster, contents, keys)
        self.watch = WatchEndpoint(cluster)
        directories = DirectoryEndpoints(cluster, keys)
        backup = BackupEndpoints(cluster, contents, settings)
        pages = StaticFiles()
        system = StatusEndpoints(cluster, settings, registry, node)
        self._metrics = HttpMetrics(registry)
        self.rejected = self._metrics.rejected
        self._tls = settings.cookies_need_tls
        limits = TokenAttemptLimits()
        self._auth = Authenticator(settings.token, self.rejected, limits, tls=self._tls)
        self._admission = Admission(cluster, self._auth, limits, self.rejected)
        tokens = TokenEndpoints(cluster, keys)
        self.refusals = Refusals()
        self.audit = AuditEndpoints(cluster, self.refusals)
        checks = PasswordChecks(cluster, limits, self.rejected, passwords or Passwords())
        logins = LoginEndpoints(
            cluster, keys, self._auth, self._admission.credentials, checks, self.rejected
        )
        users = UserEndpoints(cluster, keys, checks)
        self.requests = RequestLog()
        self.live_events = LiveEvents(cluster, settings.heartbeat_ms)
        tracing = Tracing("off") if tracing is None else tracing
        self.live_events.topic_sources["cluster"] = system.status
        diagnostics = DiagnosticsEndpoints(
            cluster, tracing, self.requests, self.live_events, command
        )
        quotas = QuotaEndpoints(cluster, keys)
        members = MemberEndpoints(cluster)
        self._router = Router(
            [
                PathRoute(
                    "/v1/files",
                    {
                        "GET": files.get,
                        "HEAD": files.head,
                        "PUT": files.put,
                        "DELETE": files.delete,
                    },
                    "files",
                ),
                PathRoute(
                    "/v1/directories",
                    {
                        "GET": directories.get,
                        "HEAD": directories.get,  # uvicorn sends no body for it.
                        "PUT": directories.put,
                        "DELETE": directories.delete,
                    },
                    "directories",
                ),
                Route("/v1/requests", diagnostics.requests_page, name="requests"),
                Route("/v1/requests/{request}", system.result, name="request"),
                Route("/v1/traces", diagnostics.traces, methods=["GET", "POST"], name="traces"),
                Route("/v1/traces/{request}", diagnostics.trace, name="trace"),
                Route("/v1/events", _stream(diagnostics.events), name="events"),
                Route("/v1/log", diagnostics.log, name="log"),
                *login_routes(logins),
                *user_routes(users),
                Route("/v1/move", transactions.move, methods=["POST"], name="move"),
                Route("/v1/copy", transactions.copy, methods=["POST"], name="copy"),
                Route(
                    "/v1/transactions",
                    transactions.transaction,
                    methods=["POST"],
                    name="transactions",
                ),
                Route("/v1/watch", _stream(self.watch.watch), name="watch"),
                Route("/v1/whoami", tokens.whoami, name="whoami"),
                Route("/v1/tokens", tokens.tokens, methods=["GET", "POST"], name="tokens"),
                Route("/v1/tokens/{token}", tokens.revoke, methods=["DELETE"], name="token"),
                PathRoute(
                    "/v1/quotas",
                    {"GET": quotas.get, "PUT": quotas.put, "DELETE": quotas.delete},
                    "quotas",
                ),
                Route("/v1/audit", self.audit.audit, name="audit"),
                Route("/v1/audit/refusals", self.audit.refusals, name="refusals"),
                Route("/v1/members", members.members, name="members"),
                Route(
                    "/v1/members/{name}", members.member, methods=["PUT", "DELETE"], name="member"
                ),
                Route(
                    "/v1/members/{name}/replace",
                    members.replace,
                    methods=["POST"],
                    name="replacement",
                ),
                Route("/v1/backup", backup.begin, methods=["POST"], name="backup"),
                Route("/v1/backup/rows", backup.rows, name="rows"),
                Route("/v1/chunks/{sha256}", backup.chunk, name="chunk"),
                Route("/v1/cluster", system.cluster, name="cluster"),
                Route("/healthz", system.healthz, name="healthz"),
                Route("/readyz", system.readyz, name="readyz"),
                Route("/metrics", system.metrics, name="metrics"),
                Route("/openapi.json", openapi, name="openapi"),
                Route("/docs", pages.docs, name="docs"),
                Route("/", pages.index, name="index"),
                Route("/static/{name:path}", pages.static, name="static"),
            ],
            redirect_slashes=False,
        )

    @property
    def routes(self) -> list[BaseRoute]:
        """All routes of the gateway."""
        return self._router.routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of ASGI."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        scope["app"] = self  # Tells Starlette's router to raise instead of answering in text.
        try:
            rejection = await self._admission.check(scope, self._router.routes)
            if rejection is None:
                caller = caller_of(scope)
                self._admission.began(caller)
                try:
                    scope[ADMITTED] = True
                    await self._admitted(scope, receive, send)
                finally:
                    self._admission.ended(caller)
                return
        except Problem as problem:
            rejection = problem.response()
            scope[_PROBLEM] = problem.kind.name
        if rejection is not None:
            # The request is counted, and nothing of its contents is kept.
            self._metrics.answered("none", scope["method"], rejection.status_code, 0.0, 0)
            self._note_refusal(scope, rejection.status_code)
            rejection.raw_headers.extend(self._headers_of_all(scope))
            await rejection(scope, receive, send)

    def _headers_of_all(self, scope: Scope) -> tuple[tuple[bytes, bytes], ...]:
        if self._tls:
            host = next((value for name, value in scope["headers"] if name == b"host"), b"")
            if host and not is_loopback_name(host.decode("latin-1")):
                return (*_HEADERS_OF_ALL, _STRICT_TRANSPORT)
        return _HEADERS_OF_ALL

    def _note_refusal(self, scope: Scope, status: int) -> None:
        reason = scope.get(_PROBLEM, UNAUTHORIZED.name if status == 401 else "")
        self.refusals.answered(scope, status, token=who_sent(scope), reason=reason)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0
        sent_bytes = 0
        method: str = scope["method"]
        seen = self.requests.begin(method, scope["path"], caller_of(scope).owner)
        about_files = seen.route in _ABOUT_FILES
        headers_of_all = self._headers_of_all(scope)

        async def count(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                seen.request = _request_id(message["headers"])
                message["headers"] = [*message["headers"], *headers_of_all]
            elif method != "HEAD":
                sent_bytes += len(message.get("body", b""))
            await send(message)

        began = time.perf_counter()
        self._metrics.in_flight += 1
        if about_files:
            self.live_events.request_began()
        try:
            answer = await self._serve(scope, receive, count)
            if answer is not None:
                if status:
                    _clients.info("%s: an error came after the response's head", method)
                    return
                await answer(scope, receive, count)
        finally:
            seconds = time.perf_counter() - began
            self._metrics.in_flight -= 1
            self._metrics.answered(_route_name(scope), method, status, seconds, sent_bytes)
            self.requests.end(seen, status)
            self._note_refusal(scope, status)
            if status >= 500:
                _log_failure(seen, method, status, seconds)
            if about_files:
                self.live_events.request_ended(method, status, seconds)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Run the endpoint; returns the response that is still to be sent, if any."""
        try:
            await self._router(scope, receive, send)
        except Exception as error:
            return self._failed(error, scope)
        return None

    def _failed(self, error: Exception, scope: Scope) -> Response | None:
        """The response to a request that ended with `error`.

        In a frame of its own, which is not in the error's traceback and so is no cycle with it.
        """
        first = first_error(error)
        if isinstance(first, Problem):
            scope[_PROBLEM] = first.kind.name
        if isinstance(first, Problem) and first.kind is UNAUTHORIZED:
            self._admission.credentials.forget(caller_of(scope))
        return _response_to(first, scope)


def _response_to(error: Exception, scope: Scope) -> Response | None:
    """The response to a request that ended with `error`; errors by clients are logged as info."""
    match error:
        case Problem():
            if error.kind is INCOMPLETE_BODY:
                _clients.info("%s: %s", scope["method"], error.detail)
            return error.response()
        case NotModified():
            return error.response()
        case ClientDisconnect():
            _clients.info("%s: the client went away before the body's end", scope["method"])
            return Problem(INCOMPLETE_BODY, "the body was cut off; nothing was written").response()
        case ResponseCutOff():
            # Nothing more is sent, so the server closes the connection before the announced length
            # is reached: a client can't take the part for the whole.
            _clients.info("a download was cut: %s", error)
            return None
        case HTTPException():
            return _from_starlette(error, scope).response()
        case _:
            _mistakes.error("%s failed", scope["method"], exc_info=error)
            detail = f"{type(error).__name__}; the gateway's log has more"
            return Problem(INTERNAL, detail).response()


def _stream(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint whose response never ends; to HEAD it sends only the head of that response."""

    @functools.wraps(endpoint)
    async def answer(request: Request) -> Response:
        response = await endpoint(request)
        if request.method != "HEAD" or not isinstance(response, StreamingResponse):
            return response
        if isinstance(response.body_iterator, AsyncGenerator):
            await response.body_iterator.aclose()
        head = Response(status_code=response.status_code)
        # No length: a GET's would have none.
        head.raw_headers = response.raw_headers
        return head

    return answer


def _log_failure(seen: RequestRecord, method: str, status: int, seconds: float) -> None:
    fields = {"status": status, "milliseconds": round(seconds * 1000), "request": seen.request}
    known = {name: value for name, value in fields.items() if value is not None}
    _failures.info("%s %s was answered %d", method, seen.path, status, extra=known)


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"synod-request-id":
            return value.decode("latin-1")
    return None


def _route_name(scope: Scope) -> str:
    endpoint: Any = scope.get("endpoint")
    if endpoint is None:
        return "none"
    return endpoint if isinstance(endpoint, str) else str(endpoint.__name__)


def _from_starlette(error: HTTPException, scope: Scope) -> Problem:
    if error.status_code == 405:
        return method_not_allowed(scope["method"], (error.headers or {}).get("Allow", "GET"))
    if error.status_code == 404:
        return no_such_route(scope["path"])
    return Problem(INVALID_REQUEST, error.detail)
