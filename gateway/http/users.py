"""`/v1/users` and `/v1/groups`: who may log in, and the grants that several share."""

import hashlib
from http import HTTPStatus
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from actors.messages import GroupInfo, ReadRequest, UserInfo
from actors.principals import (
    NAME_CHARS_MAX,
    ChangeGroup,
    ChangeUser,
    CreateGroup,
    CreateUser,
    RemoveGroup,
    RemoveUser,
)
from actors.state.rights import Need, needs_of
from actors.values import Operation
from gateway.callers import Caller, caller_of
from gateway.cluster import Cluster
from gateway.http.account_bodies import (
    GroupChangeBody,
    NewGroupBody,
    NewUserBody,
    PasswordBody,
    UserChangeBody,
)
from gateway.http.files import run_write, written_headers
from gateway.http.headers import header_fields, query_fields
from gateway.http.idempotency import RunningKeys
from gateway.http.logins import PasswordChecks
from gateway.http.parameters import NAMES_AFTER, NAMES_LIMIT
from gateway.http.problems import FORBIDDEN, INVALID_REQUEST, NOT_FOUND, Problem
from gateway.http.schemas import Changed, GroupItem, GroupPage, UserItem, UserPage
from gateway.http.small_bodies import check_json, read_small_body
from gateway.http.tokens import grant_item

_NO_STORE = {"cache-control": "no-store"}
_Body = TypeVar("_Body", bound=BaseModel)
_ADMIN = (Need("admin", ""),)


class UserEndpoints:
    """The endpoints."""

    def __init__(self, cluster: Cluster, keys: RunningKeys, checks: PasswordChecks) -> None:
        self._cluster = cluster
        self._keys = keys
        self._checks = checks

    # -- users -----------------------------------------------------------------------------------

    async def users(self, request: Request) -> Response:
        """The users that the caller may see, or a new one."""
        if request.method == "POST":
            return await self._create_user(request)
        query = query_fields(request.scope)
        asked = ReadRequest(
            number=0, what="users", after=NAMES_AFTER.of(query), limit=NAMES_LIMIT.of(query)
        )
        reply = (await self._cluster.read(caller_of(request.scope), asked)).reply
        found = [_user_item(info) for info in reply.users]
        following = found[-1]["name"] if reply.more and found else None
        body: UserPage = {"users": found, "next": following}
        return JSONResponse(body, headers=_NO_STORE)

    async def _create_user(self, request: Request) -> Response:
        asked = await _body(request, NewUserBody)
        caller = caller_of(request.scope)
        await self._cluster.refuse_unless_may(caller, _ADMIN)  # Before the hash costs anything.
        hashed = None
        if asked.password is not None:
            hashed = await self._checks.passwords.hash(asked.password)
        operation = CreateUser(
            user=asked.name,
            password=hashed,
            grants=tuple(one.grant() for one in asked.grants),
            groups=tuple(asked.groups),
        )
        return await self._created(caller, operation, f"/v1/users/{asked.name}")

    async def user(self, request: Request) -> Response:
        """Change or remove a user."""
        name = _name(request, "user")
        if request.method == "DELETE":
            return await self._change(request, "DELETE/users", name, RemoveUser(user=name))
        asked = await _body(request, UserChangeBody)
        operation = ChangeUser(
            user=name,
            grant=tuple(one.grant() for one in asked.grant),
            revoke=tuple(one.grant() for one in asked.revoke),
            join=tuple(asked.join),
            leave=tuple(asked.leave),
        )
        return await self._change(request, "PATCH/users", name, operation)

    async def password(self, request: Request) -> Response:
        """Set a user's password, which ends its sessions."""
        name = _name(request, "user")
        asked = await _body(request, PasswordBody)
        caller = caller_of(request.scope)
        if caller.principal is not None and caller.principal.user == name:
            if asked.current is None:
                raise Problem(INVALID_REQUEST, "to set your own password give the current one")
            await self._current(name, asked.current, request.scope)
        else:
            await self._cluster.refuse_unless_may(caller, _ADMIN)
        hashed = await self._checks.passwords.hash(asked.password)
        operation = ChangeUser(user=name, password=hashed)
        decided = await self._cluster.write(caller, operation, None, retry_aborted=True)
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=written_headers(decided))

    async def _current(self, user: str, password: str, scope: Scope) -> None:
        """Check the current password of the caller itself. Raises `Problem`."""
        try:
            await self._checks.check(user, password, scope)
        except Problem as problem:
            if problem.kind.status == HTTPStatus.UNAUTHORIZED:
                # The session is as good as before.
                raise Problem(FORBIDDEN, "that is not the current password") from None
            raise

    # -- groups ----------------------------------------------------------------------------------

    async def groups(self, request: Request) -> Response:
        """The groups that the caller may see, or a new one."""
        if request.method == "POST":
            asked_for = await _body(request, NewGroupBody)
            grants = tuple(one.grant() for one in asked_for.grants)
            operation = CreateGroup(group=asked_for.name, grants=grants)
            where = f"/v1/groups/{asked_for.name}"
            return await self._created(caller_of(request.scope), operation, where)
        query = query_fields(request.scope)
        asked = ReadRequest(
            number=0, what="groups", after=NAMES_AFTER.of(query), limit=NAMES_LIMIT.of(query)
        )
        reply = (await self._cluster.read(caller_of(request.scope), asked)).reply
        found = [_group_item(info) for info in reply.groups]
        following = found[-1]["name"] if reply.more and found else None
        body: GroupPage = {"groups": found, "next": following}
        return JSONResponse(body, headers=_NO_STORE)

    async def group(self, request: Request) -> Response:
        """Change or remove a group."""
        name = _name(request, "group")
        if request.method == "DELETE":
            return await self._change(request, "DELETE/groups", name, RemoveGroup(group=name))
        asked = await _body(request, GroupChangeBody)
        operation = ChangeGroup(
            group=name,
            grant=tuple(one.grant() for one in asked.grant),
            revoke=tuple(one.grant() for one in asked.revoke),
        )
        return await self._change(request, "PATCH/groups", name, operation)

    # -- both ------------------------------------------------------------------------------------

    async def _created(self, caller: Caller, operation: Operation, where: str) -> Response:
        await self._cluster.refuse_unless_may(caller, needs_of(operation))
        decided = await self._cluster.write(caller, operation, None, retry_aborted=True)
        body: Changed = {"request": decided.request, "slot": decided.outcome.slot}
        headers = {**written_headers(decided), **_NO_STORE, "location": where}
        return JSONResponse(body, status_code=HTTPStatus.CREATED, headers=headers)

    async def _change(
        self,
        request: Request,
        method: str,
        name: str,
        operation: ChangeUser | RemoveUser | ChangeGroup | RemoveGroup,
    ) -> Response:
        decided = await run_write(
            self._cluster,
            caller_of(request.scope),
            self._keys,
            method,
            name,
            header_fields(request.scope),
            operation,
            hashlib.sha256(operation.to_json()).hexdigest(),
        )
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=written_headers(decided))


async def _body(request: Request, shape: type[_Body]) -> _Body:
    """The body of a request. Raises `Problem`."""
    check_json(request.scope)
    try:
        return shape.model_validate_json(await read_small_body(request))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Problem(INVALID_REQUEST, f"{where}: {first['msg']}") from None


def _name(request: Request, kind: str) -> str:
    name: str = request.path_params[kind]
    if len(name) > NAME_CHARS_MAX:
        raise Problem(NOT_FOUND, f"there is no {kind} {name[:40]!a}")
    return name


def _user_item(info: UserInfo) -> UserItem:
    return {
        "name": info.user,
        "grants": [grant_item(grant) for grant in info.grants],
        "groups": list(info.groups),
        "has_password": info.has_password,
        "created_by": info.created_by or None,
        "slot": info.slot,
    }


def _group_item(info: GroupInfo) -> GroupItem:
    return {
        "name": info.group,
        "grants": [grant_item(grant) for grant in info.grants],
        "created_by": info.created_by or None,
        "slot": info.slot,
    }


def user_routes(endpoints: UserEndpoints) -> list[Route]:
    """The routes of users and groups."""
    both, changes = ["GET", "POST"], ["PATCH", "DELETE"]
    return [
        Route("/v1/users", endpoints.users, methods=both, name="users"),
        Route("/v1/users/{user}", endpoints.user, methods=changes, name="user"),
        Route("/v1/users/{user}/password", endpoints.password, methods=["PUT"], name="password"),
        Route("/v1/groups", endpoints.groups, methods=both, name="groups"),
        Route("/v1/groups/{group}", endpoints.group, methods=changes, name="group"),
    ]
