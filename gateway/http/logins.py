"""`/v1/login`, `/v1/logout`, `/v1/sessions`: who has a password or a token gets a session.

The session is a row of the replicated state, so it can be revoked everywhere at once. Only the
setting `token` of this gateway gets a cookie of the gateway's own (`gateway.http.auth`), which
needs no cluster.
"""

import secrets
from collections import OrderedDict
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from actors.messages import ReadRequest, TokenInfo, UserInfo
from actors.principals import (
    TOKEN_ID_CHARS_MAX,
    CreateLogin,
    RevokeLogin,
)
from gateway.callers import ADMINISTRATOR, CHALLENGE, caller_of, note_login
from gateway.cluster import Cluster
from gateway.http.account_bodies import Login
from gateway.http.auth import Authenticator, address_of
from gateway.http.auth_limits import TokenAttemptLimits
from gateway.http.credentials import PREFIX, Credentials, NewToken, new_token
from gateway.http.files import run_write, written_headers
from gateway.http.headers import header_fields, query_fields
from gateway.http.idempotency import RunningKeys
from gateway.http.parameters import SESSIONS_AFTER, SESSIONS_LIMIT
from gateway.http.problems import (
    INVALID_REQUEST,
    NOT_FOUND,
    NOT_JSON,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    Problem,
)
from gateway.http.schemas import LoggedIn, SessionItem, SessionPage
from gateway.http.small_bodies import media_type, read_small_body
from gateway.passwords import Passwords

IDLE_MS = 24 * 3_600_000
EXPIRES_AFTER_MS = 14 * 24 * 3_600_000
"""A session ends a day after its last use, give or take 1/16, and two weeks after its beginning."""

FORM = "application/x-www-form-urlencoded"
_NO_STORE = {"cache-control": "no-store"}
_KNOWN_MAX = 4_096


class PasswordChecks:
    """Checks passwords of users, as often as guesses are allowed."""

    def __init__(
        self, cluster: Cluster, limits: TokenAttemptLimits, rejected: Any, passwords: Passwords
    ) -> None:
        self._cluster = cluster
        self.passwords = passwords
        self._limits = limits
        self._of_user = TokenAttemptLimits()
        """Wrong passwords by user, from whatever address."""
        self._rejected = rejected
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Users with addresses from which they have logged in: who guesses from elsewhere doesn't
        lock them out.
        """

    async def check(self, user: str, password: str, scope: Scope) -> UserInfo:
        """The user, if this is its password, for a request. Raises `Problem`."""
        address = address_of(scope)
        waits = [self._limits.wait_s(address)]
        if (user, address) not in self._known:
            waits.append(self._of_user.wait_s(user))
        if wait_s := max(waits):
            self._rejected("guesses")
            raise Problem(
                TOO_MANY_REQUESTS,
                "too many wrong passwords or tokens came from this address, or for this user; wait "
                f"{wait_s} s",
                headers={"retry-after": str(wait_s)},
            )
        request = ReadRequest(number=0, what="credential", path=f"@{user}")
        reply = (await self._cluster.read(ADMINISTRATOR, request)).reply
        hashed = reply.users[0].password if reply.users else ""
        if reply.users:  # Any other name may be a password that was typed too early.
            note_login(scope, f"@{user}")
        if not await self.passwords.fits(hashed, password):
            # Each try costs a hash, so the same wrong password counts again.
            self._limits.wrong(address, secrets.token_bytes(16))
            self._of_user.wrong(user, secrets.token_bytes(16))
            self._rejected("password")
            raise Problem(UNAUTHORIZED, "wrong user or password", headers=CHALLENGE)
        self._known[user, address] = None
        self._known.move_to_end((user, address))
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return reply.users[0]


class LoginEndpoints:
    """The endpoints."""

    def __init__(
        self,
        cluster: Cluster,
        keys: RunningKeys,
        authenticator: Authenticator,
        credentials: Credentials,
        checks: PasswordChecks,
        rejected: Any,
    ) -> None:
        self._cluster = cluster
        self._keys = keys
        self._authenticator = authenticator
        self._credentials = credentials
        self._checks = checks
        self._rejected = rejected

    async def login(self, request: Request) -> Response:
        """Exchange a password or a token for a session: a cookie, or a bearer token if the body
        asks for one. JSON gets 204 or 201, a form a redirect. Raises `Problem`.
        """
        kind = media_type(request.scope)
        if kind not in (FORM, "application/json"):
            raise Problem(
                NOT_JSON,
                'Content-Type must be application/json, for {"user": "…", "password": "…"} or '
                f'{{"token": "…"}}, or {FORM}',
            )
        form = kind == FORM
        try:
            with self._authenticator.login_slot(address_of(request.scope)):
                asked = _parsed(await read_small_body(request), form=form)
                made = await self._begin(asked, request.scope)
        except Problem as problem:
            if form and problem.kind in (UNAUTHORIZED, TOO_MANY_REQUESTS):
                status, headers = problem.kind.status, problem.headers
                return self._authenticator.page(problem.detail, status, headers)
            raise
        if made is not None and asked.bearer:
            body: LoggedIn = {
                "id": made.id,
                "token": made.text,
                "user": asked.user,
                "idle_ms": IDLE_MS,
                "expires_in_ms": EXPIRES_AFTER_MS,
            }
            return JSONResponse(body, status_code=HTTPStatus.CREATED, headers=_NO_STORE)
        response = (
            Response(status_code=303, headers={"location": "/"})
            if form
            else Response(status_code=204)
        )
        if made is None:
            self._authenticator.set_cookie(response)
        else:
            self._authenticator.set_cookie(response, made.text, EXPIRES_AFTER_MS // 1000)
        return response

    async def _begin(self, asked: Login, scope: Scope) -> NewToken | None:
        """Make a session, unless it is the administrator who logs in. Raises `Problem`."""
        address = address_of(scope)
        user: str | None = None
        token: str | None = None
        if asked.user is not None and asked.password is not None:
            user = asked.user
            checked = (await self._checks.check(user, asked.password, scope)).password_set
        elif asked.token is not None and asked.token.startswith(PREFIX):
            caller = await self._credentials.caller_of(asked.token, address)
            if caller.by_login:
                raise Problem(UNAUTHORIZED, "a session makes no other one", headers=CHALLENGE)
            token = caller.token
            note_login(scope, token)
            checked = await self._credentials.version_of(caller)
        else:
            if not self._authenticator.admits(asked.token or "", address):
                self._rejected("token")
                raise Problem(UNAUTHORIZED, "that is not the token", headers=CHALLENGE)
            if asked.bearer:
                raise Problem(
                    INVALID_REQUEST,
                    "the setting token (SYNOD_TOKEN) begins no session: send it with each request, "
                    "or log in as a user or with an API token",
                )
            return None
        made = new_token()
        operation = CreateLogin(
            login=made.id,
            sha256=made.sha256,
            label=asked.label,
            user=user,
            token=token,
            checked=checked,
            idle_ms=IDLE_MS,
            expires_after_ms=EXPIRES_AFTER_MS,
        )
        await self._cluster.write(ADMINISTRATOR, operation, None, retry_aborted=True)
        return made

    async def logout(self, request: Request) -> Response:
        """End the session, everywhere, and delete the browser's cookie."""
        caller = caller_of(request.scope)
        if caller.by_login:
            operation = RevokeLogin(login=caller.token)
            await self._cluster.write(caller, operation, None, retry_aborted=True)
        response = Response(status_code=204)
        self._authenticator.delete_cookie(response)
        return response

    async def sessions(self, request: Request) -> Response:
        """The sessions that the caller may see."""
        query = query_fields(request.scope)
        asked = ReadRequest(
            number=0,
            what="logins",
            after=SESSIONS_AFTER.of(query),
            limit=SESSIONS_LIMIT.of(query),
        )
        caller = caller_of(request.scope)
        reply = (await self._cluster.read(caller, asked)).reply
        found = [session_item(info, caller.token) for info in reply.tokens]
        following = found[-1]["id"] if reply.more and found else None
        body: SessionPage = {"sessions": found, "next": following}
        return JSONResponse(body, headers=_NO_STORE)

    async def revoke(self, request: Request) -> Response:
        """End a session."""
        id: str = request.path_params["session"]
        if len(id) > TOKEN_ID_CHARS_MAX:
            raise Problem(NOT_FOUND, f"there is no session {id[:40]!a} that may be revoked")
        decided = await run_write(
            self._cluster,
            caller_of(request.scope),
            self._keys,
            "DELETE/sessions",
            id,
            header_fields(request.scope),
            RevokeLogin(login=id),
        )
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=written_headers(decided))


def session_item(info: TokenInfo, own: str) -> SessionItem:
    """A session for JSON; `own` is the id of the caller's."""
    login = info.login
    assert login is not None
    return {
        "id": info.token,
        "label": info.label,
        "user": login.user,
        "token": login.token,
        "slot": info.slot,
        "idle_expires_in_ms": login.idle_left_ms,
        "expires_in_ms": info.left_ms or 0,
        "current": info.token == own,
    }


def _parsed(body: bytes, *, form: bool) -> Login:
    """The body of a login. Raises `Problem`."""
    try:
        if form:
            fields = parse_qs(body.decode())
            return Login.model_validate({name: values[0] for name, values in fields.items()})
        return Login.model_validate_json(body, strict=True)
    except (ValidationError, ValueError):
        raise Problem(
            INVALID_REQUEST,
            'the body must be {"user": "…", "password": "…"} or {"token": "…"}',
        ) from None


def login_routes(endpoints: LoginEndpoints) -> list[Route]:
    """The routes of logins."""
    return [
        Route("/v1/login", endpoints.login, methods=["POST"], name="login"),
        Route("/v1/logout", endpoints.logout, methods=["POST"], name="logout"),
        Route("/v1/sessions", endpoints.sessions, name="sessions"),
        Route("/v1/sessions/{session}", endpoints.revoke, methods=["DELETE"], name="session"),
    ]
