"""`/v1/tokens` and `/v1/whoami`: API tokens, and what the caller may do."""

from http import HTTPStatus

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.messages import ReadRequest, TokenInfo
from actors.state.rights import needs_of
from actors.values import TOKEN_ID_CHARS_MAX, CreateToken, Grant, RevokeToken
from gateway.callers import caller_of
from gateway.cluster import Cluster
from gateway.http.credentials import new_token
from gateway.http.files import run_write, written_headers
from gateway.http.headers import header_fields, query_fields
from gateway.http.idempotency import RunningKeys
from gateway.http.logins import session_item
from gateway.http.parameters import TOKENS_AFTER, TOKENS_LIMIT
from gateway.http.problems import INVALID_REQUEST, NOT_FOUND, Problem
from gateway.http.schemas import GrantItem, TokenCreated, TokenItem, TokenPage, WhoAmI
from gateway.http.small_bodies import check_json, read_small_body
from gateway.http.token_bodies import NewTokenBody

_NO_STORE = {"cache-control": "no-store"}


class TokenEndpoints:
    """The endpoints."""

    def __init__(self, cluster: Cluster, keys: RunningKeys) -> None:
        self._cluster = cluster
        self._keys = keys

    async def whoami(self, request: Request) -> Response:
        """What the caller may do."""
        caller = caller_of(request.scope)
        body: WhoAmI = {
            "administrator": caller.principal is None,
            "token": None,
            "user": None,
            "session": None,
        }
        if caller.principal is not None:
            info = await self._cluster.access_of(caller)
            if info.login is None:
                body["token"] = _item(info)
            else:
                body["session"] = session_item(info, info.token)
                body["user"] = {
                    "name": info.login.user,
                    "grants": [grant_item(grant) for grant in info.grants],
                    "groups": list(info.groups),
                }
        return JSONResponse(body, headers=_NO_STORE)

    async def tokens(self, request: Request) -> Response:
        """The tokens that the caller may see, or a new one."""
        if request.method == "POST":
            return await self._create(request)
        query = query_fields(request.scope)
        asked = ReadRequest(
            number=0,
            what="tokens",
            after=TOKENS_AFTER.of(query),
            limit=TOKENS_LIMIT.of(query),
        )
        reply = (await self._cluster.read(caller_of(request.scope), asked)).reply
        found = [_item(info) for info in reply.tokens]
        following = found[-1]["id"] if reply.more and found else None
        body: TokenPage = {"tokens": found, "next": following}
        return JSONResponse(body, headers=_NO_STORE)

    async def _create(self, request: Request) -> Response:
        caller = caller_of(request.scope)
        check_json(request.scope)
        try:
            asked = NewTokenBody.model_validate_json(await read_small_body(request))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the body"
            raise Problem(INVALID_REQUEST, f"{where}: {first['msg']}") from None
        grants = tuple(one.grant() for one in asked.grants)
        new = new_token()
        operation = CreateToken(
            token=new.id,
            sha256=new.sha256,
            label=asked.label,
            grants=grants,
            expires_after_ms=asked.expires_after_ms,
            groups=tuple(asked.groups),
        )
        await self._cluster.refuse_unless_may(caller, needs_of(operation))
        decided = await self._cluster.write(caller, operation, None, retry_aborted=True)
        body: TokenCreated = {
            "id": new.id,
            "token": new.text,
            "label": asked.label,
            "grants": [grant_item(grant) for grant in grants],
            "groups": list(operation.groups),
            "expires_in_ms": asked.expires_after_ms,
            "request": decided.request,
            "slot": decided.outcome.slot,
        }
        headers = {**written_headers(decided), **_NO_STORE}
        return JSONResponse(body, status_code=HTTPStatus.CREATED, headers=headers)

    async def revoke(self, request: Request) -> Response:
        """Revoke a token."""
        id: str = request.path_params["token"]
        if len(id) > TOKEN_ID_CHARS_MAX:
            raise Problem(NOT_FOUND, f"there is no token {id[:40]!a} that may be revoked")
        operation = RevokeToken(token=id)
        caller = caller_of(request.scope)
        fields = header_fields(request.scope)
        decided = await run_write(
            self._cluster, caller, self._keys, "DELETE/tokens", id, fields, operation
        )
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=written_headers(decided))


def _item(info: TokenInfo) -> TokenItem:
    return {
        "id": info.token,
        "label": info.label,
        "grants": [grant_item(grant) for grant in info.grants],
        "groups": list(info.groups),
        "created_by": info.created_by or None,
        "slot": info.slot,
        "expires_in_ms": info.left_ms,
    }


def grant_item(grant: Grant) -> GrantItem:
    """A grant for JSON."""
    return {"role": grant.role, "path": grant.path}
