"""The description is the whole API and nothing else; `test_openapi_requests.py` sends requests
made from it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import httpx
import jsonschema_rs
import pytest
from starlette.datastructures import Headers
from starlette.routing import Route

from gateway.http import (
    audit,
    backup_endpoints,
    diagnostics,
    directories,
    files,
    logins,
    problems,
    quotas,
    system,
    tokens,
    transactions,
    users,
    watch,
)
from gateway.http.app import GatewayApp
from gateway.http.openapi import document
from gateway.http.operations import OF_NO_OPERATION, OPERATIONS
from gateway.http.parameters import META
from gateway.http.problems import Kind
from gateway.http.routing import PathRoute
from gateway.settings import Settings
from synod.errors import TYPE_PREFIX
from tests.gateway.fake import FakeCluster
from tests.gateway.problems import problem_of

_METHODS = ("get", "head", "put", "post", "patch", "delete")


def _served(app: GatewayApp) -> Iterator[tuple[str, str]]:
    """Each method of each route, as the description names them."""
    for route in app.routes:
        assert isinstance(route, Route | PathRoute), (
            "teach this test how the new kind of route is named"
        )
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for method in route.methods or ():
            yield method.lower(), path


def _described() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for one in part.values():
            yield from _references(one)
    elif isinstance(part, list):
        for one in part:
            yield from _references(one)


def test_every_route_and_method_is_described_and_no_other(
    cluster: FakeCluster, settings: Settings
) -> None:
    app = GatewayApp(cluster, settings)
    assert {(method, path) for method, path, _ in _described()} == set(_served(app))


def test_every_problem_is_described() -> None:
    kinds = {kind for kind in vars(problems).values() if isinstance(kind, Kind)}
    described = set(re.findall(f'"{TYPE_PREFIX}([a-z-]+)"', json.dumps(document())))
    # For a new kind, `gateway.http.operations` must say which operations respond with it.
    assert described == {kind.name for kind in kinds.difference(OF_NO_OPERATION)}


def test_the_description_holds_together() -> None:
    whole = document()
    schemas = whole["components"]["schemas"]
    assert set(_references(whole)) == {f"#/components/schemas/{name}" for name in schemas}
    for schema in schemas.values():
        jsonschema_rs.meta.validate(
            {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
        )
    operations = list(_described())
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(names) == len(set(names))
    assert {tag["name"] for tag in whole["tags"]} == {
        tag for _, _, operation in operations for tag in operation["tags"]
    }
    for method, path, operation in operations:
        assert method in _METHODS
        named = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"]
        assert named == re.findall(r"\{(\w+)\}", path)


class _Noting(dict[str, str]):
    """A request's fields; it records which ones are read."""

    def __init__(self, given: Mapping[str, str], asked: set[str]) -> None:
        super().__init__(given)
        self.asked = asked

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


_REFUSED = {"content-encoding", "content-range", "if-unmodified-since"}
"""What would not be kept, so that no operation takes it. Directories and bodies know no If-…"""

_OF_THE_BODY = {"content-type", "content-length"}

_ASK: dict[tuple[str, str], tuple[str, bytes]] = {
    ("PUT", "/v1/files/{path}"): ("/v1/files/a", b"1"),
    ("GET", "/v1/files/{path}"): ("/v1/files/a", b""),
    ("HEAD", "/v1/files/{path}"): ("/v1/files/a", b""),
    ("DELETE", "/v1/files/{path}"): ("/v1/files/a", b""),
    ("PUT", "/v1/directories/{path}"): ("/v1/directories/d", b""),
    ("GET", "/v1/directories/{path}"): ("/v1/directories/d", b""),
    ("DELETE", "/v1/directories/{path}"): ("/v1/directories/d", b""),
    ("POST", "/v1/move"): ("/v1/move", b'{"source": "a", "target": "b"}'),
    ("POST", "/v1/copy"): ("/v1/copy", b'{"source": "a", "target": "b"}'),
    ("POST", "/v1/transactions"): (
        "/v1/transactions",
        b'{"steps": [{"op": "mkdir", "path": "e"}]}',
    ),
    ("GET", "/v1/watch"): ("/v1/watch?after=no", b""),
    ("GET", "/v1/events"): ("/v1/events?figures_after=no", b""),
    ("GET", "/v1/requests"): ("/v1/requests", b""),
    ("GET", "/v1/log"): ("/v1/log", b""),
    ("GET", "/readyz"): ("/readyz", b""),
    ("GET", "/v1/tokens"): ("/v1/tokens", b""),
    ("DELETE", "/v1/tokens/{token}"): ("/v1/tokens/a", b""),
    ("PUT", "/v1/quotas/{path}"): ("/v1/quotas/a", b'{"entries": 9}'),
    ("DELETE", "/v1/quotas/{path}"): ("/v1/quotas/a", b""),
    ("GET", "/v1/audit"): ("/v1/audit", b""),
    ("GET", "/v1/audit/refusals"): ("/v1/audit/refusals", b""),
    ("GET", "/v1/users"): ("/v1/users", b""),
    ("PATCH", "/v1/users/{user}"): ("/v1/users/a", b"{}"),
    ("DELETE", "/v1/users/{user}"): ("/v1/users/a", b""),
    ("GET", "/v1/groups"): ("/v1/groups", b""),
    ("PATCH", "/v1/groups/{group}"): ("/v1/groups/a", b"{}"),
    ("DELETE", "/v1/groups/{group}"): ("/v1/groups/a", b""),
    ("GET", "/v1/sessions"): ("/v1/sessions", b""),
    ("DELETE", "/v1/sessions/{session}"): ("/v1/sessions/a", b""),
    ("GET", "/v1/backup/rows"): ("/v1/backup/rows", b""),
}
"""A request for each operation with parameters beside the path. Those for streams are refused."""


async def test_what_an_endpoint_reads_of_a_request_is_described(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()
    for module in (
        transactions,
        audit,
        quotas,
        directories,
        files,
        diagnostics,
        backup_endpoints,
        system,
        tokens,
        users,
        logins,
        watch,
    ):
        for name in ("header_fields", "query_fields"):
            if (reads := getattr(module, name, None)) is not None:
                noting = partial(lambda reads, scope: _Noting(reads(scope), asked), reads)
                monkeypatch.setattr(module, name, noting)
    item = Headers.__getitem__

    def note(self: Headers, name: str) -> str:
        asked.add(name)
        return item(self, name)

    monkeypatch.setattr(Headers, "__getitem__", note)
    described = {
        key: {one.key for one in operation.parameters if one.place != "path"} - {META.key}
        for key, operation in OPERATIONS.items()
    }
    assert _ASK.keys() == {key for key, names in described.items() if names}
    read = {}
    for (method, path), (target, body) in _ASK.items():
        asked.clear()
        kind = {"content-type": "application/json"}
        await client.request(method, target, content=body, headers=kind)
        conditions = {"if-match", "if-none-match"} - described[method, path]
        read[method, path] = asked - _REFUSED - _OF_THE_BODY - conditions
    assert read == {key: described[key] for key in _ASK}


async def test_it_is_served_once_and_then_not_modified(client: httpx.AsyncClient) -> None:
    answer = await client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == document()

    again = await client.get("/openapi.json", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_the_page_obeys_the_policy_of_the_others(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for name in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        assert (await client.get(name)).status_code == 200, name
    assert not re.search(r"<script>|<style|style=|https?:", page.text)


async def test_both_want_the_token_as_all_pages_do(cluster: FakeCluster) -> None:
    app = GatewayApp(cluster, Settings(token="0123456789abcdef"))  # type: ignore[arg-type]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost"
    ) as client:
        problem = problem_of(await client.get("/openapi.json"))
        assert problem["type"] == "urn:synod:problem:unauthorized"

        asked = await client.get("/docs", headers={"accept": "text/html"})
        assert (asked.status_code, 'action="/v1/login"' in asked.text) == (401, True)
