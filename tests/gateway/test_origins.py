"""A web page that a user of this machine opens can neither read nor change the cluster."""

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from gateway.http.app import GatewayApp
from gateway.http.auth import Authenticator, AuthMiddleware
from gateway.http.node_endpoints import node_app
from gateway.settings import Settings
from tests.gateway.fake import FakeCluster
from tests.gateway.problems import problem_of

TOKEN = "a-token-of-the-tests-0123"
BEARING = {"authorization": f"Bearer {TOKEN}"}
JSON = {"content-type": "application/json"}

LOOPBACK = [
    "localhost",
    "LocalHost:8080",
    "localhost.",
    "synod.localhost:80",
    "127.0.0.1",
    "127.8.9.10:65535",
    "[::1]",
    "[::1]:8080",
    "[::ffff:127.0.0.1]:80",
]
FOREIGN_NAMES = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "evil-localhost",
    "127.0.0.1.evil.example",
    "127.0.0.1@evil.example",
    "localhost:8080@evil.example",
    "localhost:x",
    "128.0.0.1",
    "0.0.0.0:8080",
    "10.0.0.7",
    "[::2]",
    "[::1",
    "[::1]evil",
    "",
    "localhost, evil.example",
    "l" * 20_000,
]
CHANGES = [
    ("PUT", "/v1/files/a", {}),
    ("DELETE", "/v1/files/a", {}),
    ("PUT", "/v1/directories/d", {}),
    ("DELETE", "/v1/directories/d", {}),
    ("POST", "/v1/move", JSON),
    ("POST", "/v1/copy", JSON),
    ("POST", "/v1/transactions", JSON),
    ("POST", "/v1/traces", JSON),
    ("POST", "/v1/backup", {}),
    ("POST", "/v1/login", JSON),
    ("POST", "/v1/logout", {}),
    ("PATCH", "/v1/files/a", {}),
]
FOREIGN_PAGES = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:3000"},
    {"origin": "http://localhost.evil.example"},
    {"origin": "http://"},
    {"origin": "file://"},
    {"origin": "chrome-extension://localhost"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "Cross-Site"},
    {"sec-fetch-site": "whatever"},
    {"origin": "http://localhost", "sec-fetch-site": "same-site"},
    {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
]
OWN_PAGES = [
    {"origin": "http://localhost"},
    {"origin": "http://LOCALHOST:80"},
    {"origin": "https://localhost"},
    {"origin": "http://localhost", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "none"},
    {},
]


@pytest.fixture
def guarded(cluster: FakeCluster) -> httpx.AsyncClient:
    """A gateway with a token."""
    transport = httpx.ASGITransport(GatewayApp(cluster, Settings(token=SecretStr(TOKEN))))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=BEARING)


@pytest.mark.parametrize("host", LOOPBACK)
async def test_without_a_token_loopback_names_are_served(
    client: httpx.AsyncClient, host: str
) -> None:
    assert (await client.get("/v1/cluster", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", FOREIGN_NAMES)
async def test_without_a_token_no_other_name_is(
    client: httpx.AsyncClient, cluster: FakeCluster, host: str
) -> None:
    for method, path in (("GET", "/v1/files/a"), ("PUT", "/v1/files/a"), ("GET", "/healthz")):
        answer = await client.request(method, path, headers={"host": host})
        assert (answer.status_code, problem_of(answer)["type"]) == (
            421,
            "urn:synod:problem:misdirected",
        )
        assert len(answer.content) < 1_000
    assert cluster.calls == []


async def test_http_of_other_nodes_is_the_same() -> None:
    open_door = AuthMiddleware(
        node_app("store-1", CollectorRegistry(), lambda: ""), Authenticator(None)
    )
    transport = httpx.ASGITransport(open_door)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9100") as client:
        for path in ("/metrics", "/healthz"):
            assert (await client.get(path)).status_code == 200
            rebound = await client.get(path, headers={"host": "evil.example:9100"})
            assert rebound.status_code == 421


async def test_with_a_token_any_name_is_served(guarded: httpx.AsyncClient) -> None:
    """Prometheus asks for `store-1:9100`, a proxy for whatever its own name is."""
    answer = await guarded.get("/v1/cluster", headers={"host": "synod.example"})
    assert answer.status_code == 200


@pytest.mark.parametrize("page", FOREIGN_PAGES, ids=str)
async def test_a_page_of_another_origin_changes_nothing(
    client: httpx.AsyncClient,
    guarded: httpx.AsyncClient,
    cluster: FakeCluster,
    page: dict[str, str],
) -> None:
    for api in (client, guarded):
        for method, path, headers in CHANGES:
            answer = await api.request(method, path, headers={**headers, **page}, content=b"{}")
            assert (answer.status_code, problem_of(answer)["type"]) == (
                403,
                "urn:synod:problem:foreign-origin",
            )
            assert "set-cookie" not in answer.headers
    assert cluster.calls == []


@pytest.mark.parametrize("page", OWN_PAGES, ids=str)
async def test_the_gateways_own_pages_do(
    client: httpx.AsyncClient, guarded: httpx.AsyncClient, page: dict[str, str]
) -> None:
    for api in (client, guarded):
        assert (await api.put("/v1/files/a", headers=page)).status_code in (200, 201)
    behind_a_proxy = {"host": "synod.example:8443", "origin": "https://synod.example:8443"}
    assert (await guarded.put("/v1/files/a", headers=behind_a_proxy)).status_code == 200


async def test_a_link_on_another_page_leads_here(client: httpx.AsyncClient) -> None:
    clicked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await client.get("/", headers=clicked)).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/move", "/v1/copy", "/v1/transactions", "/v1/traces", "/v1/login"]
)
@pytest.mark.parametrize("kind", [None, "text/plain", "text/plain;application/json", "multipart/x"])
async def test_routes_of_json_want_json(
    client: httpx.AsyncClient, cluster: FakeCluster, path: str, kind: str | None
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = await client.post(path, content=b"{}", headers=headers)
    assert (answer.status_code, problem_of(answer)["type"]) == (415, "urn:synod:problem:not-json")
    named = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await client.post(path, content=b"[", headers=named)).status_code == 400
    assert cluster.submitted() == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_stored_page_is_no_page_of_the_gateway(
    client: httpx.AsyncClient, method: str
) -> None:
    html = {"content-type": "text/html"}
    await client.put("/v1/files/page.html", content=b"<script>alert()</script>", headers=html)

    answer = await client.request(method, "/v1/files/page.html")

    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert "allow" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_every_answer_says_that_it_is_for_its_own_origin(
    client: httpx.AsyncClient, guarded: httpx.AsyncClient
) -> None:
    del guarded.headers["authorization"]
    page = {"accept": "text/html"}
    answers = [
        await client.get("/"),
        await client.get("/static/app.css"),
        await client.get("/v1/directories/"),
        await client.get("/v1/cluster"),
        await client.get("/metrics"),
        await client.get("/nothing"),
        await client.get("/v1/files/%2F"),
        await client.get("/v1/cluster", headers={"host": "evil.example"}),
        await guarded.get("/v1/cluster"),
        await guarded.get("/", headers=page),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff", answer
        assert answer.headers["cross-origin-resource-policy"] == "same-origin", answer
        assert "access-control-allow-origin" not in answer.headers, answer
    login = answers[-1]
    assert "script-src" not in login.headers["content-security-policy"]
    assert "default-src 'none'" in login.headers["content-security-policy"]
    assert "'self'" in answers[0].headers["content-security-policy"]
