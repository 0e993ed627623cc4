"""Roles × routes × prefixes: what each token may do is what the routes declare, and no more.

The routes are the router's own. A route without a request here, or without a declared need, fails.
The cluster is faked but for its state machine and its reads, which are those of the replicas.
"""

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.routing import Route

from gateway.http.app import GatewayApp
from gateway.http.operations import ApiOperation, operation_of
from gateway.http.routing import PathRoute
from gateway.settings import Settings
from tests.gateway.fake import FakeCluster

ROLES = ("read", "write", "admin", "operate", "backup")
PREFIXES = ("", "a", "a/b", "a/bc", "z")
"""The requests concern `a/b/f`, and `a/b/g` or `a/b/d` as a target."""

_HIDDEN = ("tokens/", "requests/", "sessions/")
"""What others have is not known to exist."""

INCLUDED = {
    "read": {"read", "write", "admin"},
    "write": {"write", "admin"},
    "admin": {"admin"},
    "operate": {"operate", "admin"},
    "backup": {"backup", "admin"},
}

_MOVE = {"source": "a/b/f", "target": "a/b/g"}
_STEPS = {"steps": [{"op": "check", "path": "a/b/f", "if_match": "*"}]}
_GRANT = {"grants": [{"role": "read", "path": "a/b"}]}
_CHANGE = {"grant": [{"role": "read", "path": "a/b"}]}
_PASSWORD = {"password": "long enough for the tests"}


class Ask(NamedTuple):
    """A request to a route, the role that it needs on `a/b/f`, and its status if that is given."""

    target: str
    role: str
    status: int
    body: Any = None
    anywhere: bool = False
    """Whether a role on any path is enough."""


ASKED: dict[tuple[str, str], Ask] = {
    ("GET", "/v1/files/{path}"): Ask("/v1/files/a/b/f", "read", 200),
    ("HEAD", "/v1/files/{path}"): Ask("/v1/files/a/b/f", "read", 200),
    ("PUT", "/v1/files/{path}"): Ask("/v1/files/a/b/f", "write", 200),
    ("DELETE", "/v1/files/{path}"): Ask("/v1/files/a/b/f", "write", 204),
    ("GET", "/v1/directories/{path}"): Ask("/v1/directories/a/b/d", "read", 200),
    ("HEAD", "/v1/directories/{path}"): Ask("/v1/directories/a/b/d", "read", 200),
    ("PUT", "/v1/directories/{path}"): Ask("/v1/directories/a/b/d", "write", 200),
    ("DELETE", "/v1/directories/{path}"): Ask("/v1/directories/a/b/d", "write", 204),
    ("POST", "/v1/move"): Ask("/v1/move", "write", 200, _MOVE),
    ("POST", "/v1/copy"): Ask("/v1/copy", "write", 200, _MOVE),
    ("POST", "/v1/transactions"): Ask("/v1/transactions", "read", 200, _STEPS),
    ("GET", "/v1/watch"): Ask("/v1/watch?prefix=a/b", "read", 200, anywhere=True),
    ("GET", "/v1/requests/{request}"): Ask("/v1/requests/{put}", "all", 200),
    ("GET", "/v1/tokens"): Ask("/v1/tokens", "", 200),
    ("POST", "/v1/tokens"): Ask("/v1/tokens", "admin", 201, _GRANT),
    ("DELETE", "/v1/tokens/{token}"): Ask("/v1/tokens/{other}", "admin", 204),
    ("GET", "/v1/quotas/{path}"): Ask("/v1/quotas/a/b", "admin", 200),
    ("PUT", "/v1/quotas/{path}"): Ask("/v1/quotas/a/b/d", "admin", 200, {"entries": 9}),
    ("DELETE", "/v1/quotas/{path}"): Ask("/v1/quotas/a/b/d", "admin", 204),
    ("GET", "/v1/audit"): Ask("/v1/audit?prefix=a/b", "admin", 200),
    ("GET", "/v1/audit/refusals"): Ask("/v1/audit/refusals", "root", 200),
    ("GET", "/v1/users"): Ask("/v1/users", "", 200),
    ("POST", "/v1/users"): Ask("/v1/users", "root", 201, {"name": "new"}),
    ("PATCH", "/v1/users/{user}"): Ask("/v1/users/alice", "admin", 204, _CHANGE),
    ("DELETE", "/v1/users/{user}"): Ask("/v1/users/alice", "root", 204),
    ("PUT", "/v1/users/{user}/password"): Ask("/v1/users/alice/password", "root", 204, _PASSWORD),
    ("GET", "/v1/groups"): Ask("/v1/groups", "", 200),
    ("POST", "/v1/groups"): Ask("/v1/groups", "root", 201, {"name": "new"}),
    ("PATCH", "/v1/groups/{group}"): Ask("/v1/groups/devs", "admin", 204, _CHANGE),
    ("DELETE", "/v1/groups/{group}"): Ask("/v1/groups/devs", "root", 204),
    ("GET", "/v1/sessions"): Ask("/v1/sessions", "", 200),
    ("DELETE", "/v1/sessions/{session}"): Ask("/v1/sessions/{session}", "root", 204),
    ("GET", "/v1/backup/rows"): Ask("/v1/backup/rows", "backup", 503),
    ("POST", "/v1/backup"): Ask("/v1/backup", "backup", 200),
    ("GET", "/v1/chunks/{sha256}"): Ask(f"/v1/chunks/{'0' * 64}", "backup", 404),
    ("GET", "/v1/requests"): Ask("/v1/requests", "operate", 200),
    ("GET", "/v1/traces"): Ask("/v1/traces", "operate", 200),
    ("POST", "/v1/traces"): Ask("/v1/traces", "operate", 503, {"seconds": 1}),
    ("GET", "/v1/traces/{request}"): Ask("/v1/traces/no", "operate", 404),
    ("GET", "/v1/events"): Ask("/v1/events", "operate", 200),
    ("GET", "/v1/log"): Ask("/v1/log", "operate", 200),
    ("GET", "/v1/cluster"): Ask("/v1/cluster", "operate", 200),
    ("GET", "/v1/members"): Ask("/v1/members", "operate", 503),
    ("PUT", "/v1/members/{name}"): Ask("/v1/members/store-4", "operate", 202),
    ("DELETE", "/v1/members/{name}"): Ask("/v1/members/store-3", "operate", 202),
    ("POST", "/v1/members/{name}/replace"): Ask("/v1/members/acceptor-3/replace", "operate", 202),
    ("GET", "/metrics"): Ask("/metrics", "operate", 200),
    ("GET", "/healthz"): Ask("/healthz", "", 200),
    ("GET", "/readyz"): Ask("/readyz", "", 200),
    ("GET", "/v1/whoami"): Ask("/v1/whoami", "", 200),
    ("POST", "/v1/login"): Ask("/v1/login", "", 204, {"token": "x"}),
    ("POST", "/v1/logout"): Ask("/v1/logout", "", 204),
    ("GET", "/"): Ask("/", "", 200),
    ("GET", "/static/{name:path}"): Ask("/static/none", "", 404),
    ("GET", "/docs"): Ask("/docs", "", 200),
    ("GET", "/openapi.json"): Ask("/openapi.json", "", 200),
}


def served() -> Iterator[tuple[str, str, ApiOperation | None]]:
    """Each method of each route of the router, with its description."""
    for route in GatewayApp(FakeCluster(), Settings()).routes:
        assert isinstance(route, Route | PathRoute), route
        for method in sorted(route.methods or ()):
            yield method, route.path, operation_of(method, route.path)


def allowed(role: str, prefix: str, ask: Ask) -> bool:
    """Whether a grant of `role` on `prefix` is enough, by an arithmetic of this test's own."""
    if not ask.role:
        return True
    if ask.role == "all":
        return role in INCLUDED["read"] and prefix == ""
    if ask.role == "root":
        return role == "admin" and prefix == ""
    if role not in INCLUDED[ask.role]:
        return False
    if ask.role in ("operate", "backup"):
        return prefix == ""
    return ask.anywhere or prefix in ("", "a", "a/b")


def test_every_route_declares_what_it_needs_and_is_asked_here() -> None:
    for method, path, operation in served():
        assert operation is not None, f"{method} {path} is not described"
        ask = ASKED.get((method, path)) or ASKED.get(("GET", path))
        assert ask is not None, f"add {method} {path} to the matrix"
        of_cluster = {"operate", "backup"} & {ask.role}
        assert operation.needs == (
            of_cluster.pop() if of_cluster else operation.needs if not ask.role else "paths"
        ), f"{method} {path}"


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(GatewayApp(FakeCluster(), Settings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http


async def _status(http: httpx.AsyncClient, method: str, ask: Ask, **more: Any) -> int:
    """The status of the answer, of which a stream is not read."""
    if ask.target.startswith(("/v1/watch", "/v1/events")):
        method = "HEAD"  # Its answer is that of GET, and ends.
    return (await http.request(method, ask.target, json=ask.body, **more)).status_code


@pytest.mark.parametrize(
    ("role", "prefix"),
    [(r, p) for r, p in itertools.product(ROLES, PREFIXES) if not p or r not in ROLES[3:]],
)
async def test_a_grant_opens_what_it_says(http: httpx.AsyncClient, role: str, prefix: str) -> None:
    async def token(*grants: dict[str, str]) -> dict[str, Any]:
        answer = await http.post("/v1/tokens", json={"grants": grants})
        made: dict[str, Any] = answer.json()
        return made

    mine = await token({"role": role, "path": prefix})
    headers = {"authorization": f"Bearer {mine['token']}"}
    wrong, asked = [], 0
    for method, path, _ in served():
        ask = ASKED.get((method, path)) or ASKED["GET", path]
        await http.put("/v1/directories/a/b/d")
        await http.delete("/v1/files/a/b/g")
        await http.put("/v1/quotas/a/b/d", json={"entries": 99})
        put = (await http.put("/v1/files/a/b/f", content=b"1")).json()["request"]
        ask = ask._replace(target=ask.target.replace("{put}", put))
        if "{other}" in ask.target:
            other = await token({"role": "read", "path": "a/b"})
            ask = ask._replace(target=ask.target.format(other=other["id"]))
        if "{session}" in ask.target:
            login = {"token": (await token({"role": "read", "path": "a/b"}))["token"]}
            session = await http.post("/v1/login", json={**login, "bearer": True})
            ask = ask._replace(target=ask.target.format(session=session.json()["id"]))
        if path.startswith(("/v1/users", "/v1/groups")):
            for kind, name in (("users", "alice"), ("groups", "devs")):
                await http.delete(f"/v1/{kind}/new")
                await http.delete(f"/v1/{kind}/{name}")
                assert (await http.post(f"/v1/{kind}", json={"name": name})).status_code == 201
        status = await _status(http, method, ask, headers=headers)
        refused = 404 if any(word in ask.target for word in _HIDDEN) else 403
        expected = ask.status if allowed(role, prefix, ask) else refused
        asked += 1
        if status != expected:
            wrong.append(f"{method} {path}: {status}, not {expected}")
    assert wrong == []
    assert asked > 40


@pytest.mark.parametrize(
    ("source", "target"), list(itertools.product(("", "read", "write"), repeat=2))
)
async def test_a_move_and_a_copy_need_rights_on_both_ends_and_each_step_is_checked(
    http: httpx.AsyncClient, source: str, target: str
) -> None:
    grants = [{"role": "read", "path": "x"}]
    grants += [{"role": r, "path": p} for r, p in ((source, "s"), (target, "t")) if r]
    made = (await http.post("/v1/tokens", json={"grants": grants})).json()
    headers = {"authorization": f"Bearer {made['token']}"}
    for verb, enough in (
        ("move", source == "write" and target == "write"),
        ("copy", source in ("read", "write") and target == "write"),
    ):
        await http.put("/v1/files/s/f", content=b"1")
        await http.put("/v1/files/x", content=b"1")
        about = {"source": "s/f", "target": "t/f", "overwrite": True}
        steps = [{"op": "check", "path": "x", "if_match": "*"}, {"op": verb, **about}]
        whole = await http.post("/v1/transactions", json={"steps": steps}, headers=headers)
        await http.put("/v1/files/s/f", content=b"1")
        alone = await http.post(f"/v1/{verb}", json=about, headers=headers)
        assert alone.status_code == whole.status_code == (200 if enough else 403)
        if not enough:
            assert whole.json()["step"] == 1
            assert (await http.get("/v1/files/t/f")).status_code == 404
