"""Which requests a gateway admits, and for whom: the administrator, the holder of an API token, or
a user that has logged in.

What a route needs stands in its description (`gateway.http.operations`). A role of the cluster is
checked here, against the state of a store; rights on paths are checked by the replicas, with the
command or the read itself.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from actors.state.rights import Need
from actors.values import OpenSession
from gateway.callers import ADMINISTRATOR, Caller, forbidden, note_caller
from gateway.cluster import Cluster
from gateway.http.auth import PUBLIC_PATHS, Authenticator, address_of
from gateway.http.auth_limits import TokenAttemptLimits
from gateway.http.credentials import Credentials, api_token_in
from gateway.http.operations import operation_of
from gateway.http.problems import TOO_MANY_REQUESTS, UNAUTHORIZED, Problem

REFRESH_S = 30.0
"""How often a gateway brings log time up to date while tokens that expire are in use: only commands
advance it, so else a token that is only read with would outlive its time while nobody writes.
"""

REQUESTS_OF_TOKEN_MAX = 128
"""How many requests of one token or user a gateway serves at a time, streams among them: in all of
its sessions together.
"""


class Admission:
    """Admits requests."""

    def __init__(
        self,
        cluster: Cluster,
        authenticator: Authenticator,
        limits: TokenAttemptLimits,
        rejected: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._authenticator = authenticator
        self._rejected = rejected
        self.credentials = Credentials(cluster, limits, rejected)
        self._running: dict[str, int] = {}
        self._refreshed_s = -REFRESH_S

    async def check(self, scope: Scope, routes: Sequence[BaseRoute]) -> Response | None:
        """Admit a request, whose caller `caller_of` then knows; or return the login page for a
        browser. Raises `Problem`.
        """
        if scope["path"] not in PUBLIC_PATHS:
            text = api_token_in(scope)
            if text is not None:
                self._authenticator.check_source(scope)
                await self._admit(text, scope, routes, only_login=False)
                return None
            session = self._authenticator.session_in(scope)
            if session is not None:
                self._authenticator.check_source(scope)
                try:
                    await self._admit(session, scope, routes, only_login=True)
                except Problem as problem:
                    if problem.kind is not UNAUTHORIZED:
                        raise
                    # A browser whose session has ended is one without a session.
                else:
                    return None
        rejection = self._authenticator.check(scope)
        note_caller(scope, ADMINISTRATOR)
        return rejection

    async def _admit(
        self, text: str, scope: Scope, routes: Sequence[BaseRoute], *, only_login: bool
    ) -> None:
        """Admit a request that bears a token or a session. Raises `Problem`."""
        address = address_of(scope)
        caller = await self.credentials.caller_of(text, address, only_login=only_login)
        note_caller(scope, caller)
        if caller.expires:
            await self._refresh_log_time()
        try:
            if caller.by_login:
                await self._refresh(caller)
            await self._check_route(caller, scope, routes)
        except Problem as problem:
            if problem.kind is UNAUTHORIZED:
                self.credentials.forget(caller)
            raise

    async def _refresh(self, caller: Caller) -> None:
        """Keep a session from being idle. Raises `Problem` if it has ended."""
        try:
            await self.credentials.refresh(caller)
        except Problem as problem:
            # Where no command can be done, reads go on until the session ends.
            if problem.kind is UNAUTHORIZED:
                raise

    async def _check_route(self, caller: Caller, scope: Scope, routes: Sequence[BaseRoute]) -> None:
        """Check what the route needs of the cluster, and note the caller's rights if they were read
        for that. Raises `Problem`.
        """
        path = next((_path(route) for route in routes if _matches(route, scope)), None)
        operation = None if path is None else operation_of(scope["method"], path)
        needs = "credentials" if operation is None else operation.needs
        if needs == "paths":
            return  # The replicas decide, with the command or the read itself.
        if needs == "credentials" and operation is not None and operation.tag == "pages":
            # The page itself is no secret: it must open when the cluster answers no reads.
            return
        rights = await self._cluster.rights_of(caller)
        note_caller(scope, replace(caller, rights=rights))
        if needs in ("operate", "backup") and not rights.may(needs, ""):
            raise forbidden(Need(needs, "").text)

    async def _refresh_log_time(self) -> None:
        now_s = time.monotonic()
        if now_s - self._refreshed_s < REFRESH_S:
            return
        self._refreshed_s = now_s
        # Where no command can be done, log time stands, and reads go on by the time that it is.
        with contextlib.suppress(Problem):
            await self._cluster.write(ADMINISTRATOR, OpenSession(), None, retry_aborted=False)

    def began(self, caller: Caller) -> None:
        """Count a request that is served until `ended`. Raises `Problem` if its holder has too
        many.
        """
        holder = caller.holder
        if holder and self._running.get(holder, 0) >= REQUESTS_OF_TOKEN_MAX:
            self._rejected("flood")
            raise Problem(
                TOO_MANY_REQUESTS,
                f"{REQUESTS_OF_TOKEN_MAX} requests of this token or user are being served",
                headers={"retry-after": "1"},
            )
        self._running[holder] = self._running.get(holder, 0) + 1

    def ended(self, caller: Caller) -> None:
        """A request that `began` has counted is served."""
        holder = caller.holder
        left = self._running[holder] - 1
        if left:
            self._running[holder] = left
        else:
            del self._running[holder]


def _matches(route: BaseRoute, scope: Scope) -> bool:
    return route.matches(scope)[0] is not Match.NONE


def _path(route: BaseRoute) -> str:
    path: str = getattr(route, "path", "")
    return path
