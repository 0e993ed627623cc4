"""Requests leave no garbage that only a collection frees: it would keep memory until then, and
collections visit everything that was made since the last one, in the middle of other requests.
"""

import asyncio
import gc
from collections import deque

import pytest
from starlette.types import Message

from gateway.http.app import GatewayApp
from gateway.settings import Settings
from tests.gateway.fake import FakeCluster

_TIMES = 20

REQUESTS: dict[str, tuple[int, str, str, dict[str, str], bytes]] = {
    "write": (200, "PUT", "files/a", {}, b"small"),
    "read": (200, "GET", "files/a", {}, b""),
    "list": (200, "GET", "directories/", {}, b""),
    "read of nothing": (404, "GET", "files/none", {}, b""),
    "refused write": (412, "PUT", "files/a", {"if-none-match": "*"}, b"small"),
    "invalid digest": (400, "PUT", "files/a", {"repr-digest": "sha-256=::"}, b"small"),
    "write of chunks": (200, "PUT", "files/large", {}, b"x" * 200_000),
    "read of chunks": (200, "GET", "files/large", {}, b""),
    "refused write of chunks": (412, "PUT", "files/large", {"if-none-match": "*"}, b"x" * 200_000),
    "invalid JSON": (400, "POST", "transactions", {"content-type": "application/json"}, b"{"),
}
"""The status, the method, what follows `/v1/`, the headers and the body of each kind."""


def test_cyclic_garbage_is_noticed() -> None:
    gc.collect()
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1


async def request(
    app: GatewayApp, method: str, target: str, headers: dict[str, str], body: bytes
) -> int:
    """A request without a client library, which would leave garbage of its own; its status."""
    status = 0
    parts = deque([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        if not parts:
            await asyncio.Event().wait()  # The client stays.
        return parts.popleft()

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    path = f"/v1/{target}"
    fields = {"host": "localhost", "content-length": str(len(body)), **headers}
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode()}
    scope |= {"query_string": b"", "headers": raw, "client": ("127.0.0.1", 1), "root_path": ""}
    await app(scope, receive, send)
    return status


@pytest.mark.parametrize("kind", REQUESTS)
async def test_a_request_leaves_no_cyclic_garbage(
    kind: str, cluster: FakeCluster, settings: Settings
) -> None:
    app = GatewayApp(cluster, settings)
    for name, size in (("a", 5), ("large", 200_000)):
        assert await request(app, "PUT", f"files/{name}", {}, b"x" * size) == 201
    expected, method, target, headers, body = REQUESTS[kind]

    # What is made once for all requests is made by the first one.
    assert await request(app, method, target, headers, body) == expected
    gc.collect()
    gc.disable()
    try:
        for _ in range(_TIMES):
            await request(app, method, target, headers, body)
        found = gc.collect()
    finally:
        gc.enable()
    assert found < _TIMES  # A cycle of one request has at least one object.
