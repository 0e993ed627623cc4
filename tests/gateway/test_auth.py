"""Requests without the token are refused, in the form that their client understands."""

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from gateway.http.app import GatewayApp
from gateway.http.auth import COOKIE, Authenticator, AuthMiddleware
from gateway.http.node_endpoints import node_app
from gateway.settings import Settings, effective, load_settings
from synod.client import AsyncClient
from synod.errors import Unauthorized
from tests.gateway.fake import FakeCluster
from tests.gateway.problems import problem_of

TOKEN = "a-token-of-the-tests-0123"
GUARDED = [
    ("GET", "/v1/cluster"),
    ("GET", "/v1/files/a"),
    ("PUT", "/v1/files/a"),
    ("DELETE", "/v1/files/a"),
    ("GET", "/v1/directories/"),
    ("GET", "/v1/requests"),
    ("GET", "/v1/traces"),
    ("POST", "/v1/traces"),
    ("GET", "/v1/events"),
    ("POST", "/v1/logout"),
    ("GET", "/metrics"),
    ("GET", "/"),
    ("GET", "/nothing"),
    ("GET", "/healthz/"),
    ("GET", "//healthz"),
]


@pytest.fixture
def guarded(cluster: FakeCluster) -> httpx.AsyncClient:
    app = GatewayApp(cluster, Settings(token=SecretStr(TOKEN)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


JSON = {"content-type": "application/json"}


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_nothing_is_served_without_the_token(
    guarded: httpx.AsyncClient, cluster: FakeCluster, method: str, path: str
) -> None:
    wrong: tuple[dict[str, str], ...] = (
        {},
        bearing(TOKEN[:-1]),
        bearing(TOKEN + "x"),
        bearing(""),
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": f"{COOKIE}={TOKEN}"},
        {"cookie": f"{COOKIE}="},
        {"cookie": "{not a cookie"},
    )
    for headers in wrong:
        answer = await guarded.request(method, path, headers=headers)
        problem = problem_of(answer)
        assert (answer.status_code, problem["type"]) == (401, "urn:synod:problem:unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN not in answer.text
    assert cluster.calls == []


async def test_health_is_served_without_a_token(guarded: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await guarded.get(path)).status_code == 200


async def test_the_token_opens(guarded: httpx.AsyncClient) -> None:
    for scheme in ("Bearer", "bearer"):
        headers = {"authorization": f"{scheme} {TOKEN}"}
        assert (await guarded.get("/v1/cluster", headers=headers)).status_code == 200


async def test_a_browser_is_asked_once_and_gets_a_cookie_that_scripts_can_not_read(
    guarded: httpx.AsyncClient,
) -> None:
    page = await guarded.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.status_code == 401
    assert 'action="/v1/login"' in page.text

    wrong = await guarded.post("/v1/login", data={"token": "wrong"})
    assert (wrong.status_code, COOKIE in wrong.cookies) == (401, False)
    assert "not the token" in wrong.text

    entered = await guarded.post("/v1/login", data={"token": TOKEN})
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert (await guarded.get("/")).status_code == 200
    assert (await guarded.get("/v1/cluster")).status_code == 200

    await guarded.post("/v1/logout")
    assert (await guarded.get("/v1/cluster")).status_code == 401


async def test_a_script_may_log_in_with_json(guarded: httpx.AsyncClient) -> None:
    deep, lone = b"[" * 4_000, b'{"token": "\\ud800"}'
    for body in (b"", b"[]", b'{"token": 1}', b"\xff", deep, lone):
        answer = await guarded.post("/v1/login", content=body, headers=JSON)
        assert answer.status_code == 400
    assert (await guarded.post("/v1/login", json={"token": "wrong"})).status_code == 401
    assert (await guarded.post("/v1/login", json={"token": TOKEN})).status_code == 204
    assert (await guarded.get("/v1/cluster")).status_code == 200


async def test_another_token_ends_the_cookies_of_the_first() -> None:
    first, second = Authenticator(SecretStr(TOKEN)), Authenticator(SecretStr(TOKEN + "2"))
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"cookie", f"{COOKIE}={first._cookie}".encode())],
    }
    assert first.check(scope) is None
    with pytest.raises(Exception, match="requires its token"):
        second.check(scope)


async def test_without_a_token_requests_are_admitted(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/cluster")).status_code == 200
    assert (await client.post("/v1/login", json={"token": "any"})).status_code == 204


async def test_http_of_a_node_that_is_no_gateway_is_the_same() -> None:
    unhealthy_reason = ["store-1 has no connection to the broker: refused"]
    app = node_app(
        "store-1", CollectorRegistry(), lambda: unhealthy_reason[0] if unhealthy_reason else ""
    )
    guarded = AuthMiddleware(app, Authenticator(SecretStr(TOKEN)))
    transport = httpx.ASGITransport(guarded)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers=bearing(TOKEN))).status_code == 200
        ill = await client.get("/healthz")
        assert (ill.status_code, problem_of(ill)["detail"]) == (503, unhealthy_reason[0])
        unhealthy_reason.clear()
        assert (await client.get("/healthz")).json() == {"status": "ok", "node": "store-1"}


async def test_the_client_library_bears_it(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = httpx.ASGITransport(GatewayApp(cluster, Settings(token=SecretStr(TOKEN))))

    async def ask(token: str | None = None) -> None:
        async with AsyncClient("http://localhost", token=token, transport=transport) as synod:
            await synod.cluster()
            async with synod.sibling() as sibling:
                await sibling.cluster()

    with pytest.raises(Unauthorized, match="SYNOD_TOKEN"):
        await ask()
    await ask(TOKEN)
    monkeypatch.setenv("SYNOD_TOKEN", TOKEN)
    await ask()
    with pytest.raises(Unauthorized):
        await ask("")


def test_with_a_token_any_address_may_be_served_and_the_token_is_masked() -> None:
    settings = load_settings(token=TOKEN, host="0.0.0.0", metrics_host="::", insecure=True)
    assert TOKEN not in str(effective(settings))
    assert Settings(token=SecretStr("")).token is None
