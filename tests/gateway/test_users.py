"""Users, groups and sessions over HTTP: made, logged in, changed, revoked."""

import asyncio
import threading
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from actors.calls import Read
from actors.values import Batch, Command, OpenSession
from gateway.http import credentials
from gateway.http.app import GatewayApp
from gateway.http.auth import COOKIE, TLS_COOKIE
from gateway.http.auth_limits import BURST
from gateway.http.logins import EXPIRES_AFTER_MS, IDLE_MS
from gateway.http.problems import Problem
from gateway.passwords import AT_ONCE, WAITING_MAX, Passwords
from gateway.settings import Settings
from tests.gateway.fake import CHEAP, SESSION, FakeCluster
from tests.gateway.problems import problem_of

ROOT = "a-token-of-the-tests-0123"
PASSWORD = "correct horse battery"


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def grants(*given: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "path": path} for role, path in given]


@pytest.fixture
def app(cluster: FakeCluster) -> GatewayApp:
    settings = Settings(token=SecretStr(ROOT))
    return GatewayApp(cluster, settings, passwords=Passwords(CHEAP))


@pytest.fixture
def root(app: GatewayApp) -> httpx.AsyncClient:
    """The administrator."""
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=bearing(ROOT)
    )


@pytest.fixture
def browser(app: GatewayApp) -> httpx.AsyncClient:
    """A browser, which keeps cookies."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def make_user(root: httpx.AsyncClient, name: str, *given: tuple[str, str]) -> None:
    body = {"name": name, "password": PASSWORD, "grants": grants(*given)}
    answer = await root.post("/v1/users", json=body)
    assert answer.status_code == 201, answer.text


async def log_in(http: httpx.AsyncClient, user: str = "alice", password: str = PASSWORD) -> Any:
    return await http.post("/v1/login", json={"user": user, "password": password})


async def bearer_of(http: httpx.AsyncClient, user: str = "alice") -> Any:
    body = {"user": user, "password": PASSWORD, "bearer": True, "label": "here"}
    answer = await http.post("/v1/login", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def elapse(cluster: FakeCluster, elapsed_ms: int) -> None:
    """Let log time advance."""
    command = Command(
        session=SESSION,
        sequence=cluster._sequence,
        acknowledged=0,
        reply_to="gateway-1",
        operation=OpenSession(),
    )
    cluster._sequence += 1
    batch = Batch(commands=(command,), elapsed_ms=elapsed_ms)
    cluster.state.apply(cluster.state.applied + 1, batch, ())


async def test_a_user_logs_in_does_what_it_may_and_logs_out(
    root: httpx.AsyncClient, browser: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    await make_user(root, "alice", ("write", "a"))
    page = await browser.get("/", headers={"accept": "text/html"})
    assert (page.status_code, 'name="password"' in page.text) == (401, True)

    wrong = await browser.post("/v1/login", data={"user": "alice", "password": "no"})
    assert (wrong.status_code, "wrong user or password" in wrong.text) == (401, True)
    entered = await browser.post("/v1/login", data={"user": "alice", "password": PASSWORD})
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "syn_"))

    reads = len(cluster.calls)
    for file in ("/", "/static/js/app.js"):
        assert (await browser.get(file)).status_code == 200
    assert not [call for call in cluster.calls[reads + 1 :] if isinstance(call, Read)]
    me = (await browser.get("/v1/whoami")).json()
    assert (me["administrator"], me["token"], me["user"]["name"]) == (False, None, "alice")
    assert me["user"]["grants"] == grants(("write", "a"))
    assert (await browser.put("/v1/files/a/1", content=b"1")).status_code == 201
    refused = problem_of(await browser.put("/v1/files/b", content=b"1"))
    assert "'write' on /b" in refused["detail"]

    kept = browser.cookies[COOKIE]
    assert (await browser.post("/v1/logout")).status_code == 204
    assert COOKIE not in browser.cookies
    for again in ({"cookie": f"{COOKIE}={kept}"}, bearing(kept)):
        assert (await browser.get("/v1/whoami", headers=again)).status_code == 401
    rows = str([row.to_json() for _, row in cluster.state.rows()]) + str(cluster.calls)
    assert PASSWORD not in rows
    assert kept.rpartition("_")[2] not in rows


async def test_rights_are_those_of_now_also_where_a_gateway_remembers_others(
    root: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    await make_user(root, "alice")
    await root.post("/v1/groups", json={"name": "devs", "grants": grants(("write", "a"))})
    await log_in(browser)

    async def put(status: int) -> None:
        assert (await browser.put("/v1/files/a/1", content=b"1")).status_code == status

    async def change(kind: str, name: str, **what: Any) -> None:
        answer = await root.patch(f"/v1/{kind}/{name}", json=what)
        assert answer.status_code == 204, answer.text

    await put(403)
    await change("users", "alice", join=["devs"])
    await put(201)
    await change("groups", "devs", revoke=grants(("write", "a")))
    await put(403)
    await change("users", "alice", grant=grants(("write", "a/1")))
    await put(200)
    await change("users", "alice", revoke=grants(("write", "a/1")), leave=["devs"])
    await put(403)
    await change("users", "alice", grant=grants(("operate", "")))
    assert (await browser.get("/v1/cluster")).status_code == 200
    assert [one["path"] for one in (await browser.get("/v1/requests")).json()["requests"]]
    await change("users", "alice", revoke=grants(("operate", "")))
    assert (await browser.get("/v1/cluster")).status_code == 403


async def test_what_may_be_read_no_more_is_hidden_at_once_where_a_gateway_remembers_it(
    root: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    await make_user(root, "alice", ("operate", ""), ("read", ""))
    await root.put("/v1/files/secret", content=b"1")
    await log_in(browser)
    assert "secret" in (await browser.get("/v1/requests")).text
    await root.patch("/v1/users/alice", json={"revoke": grants(("read", ""))})
    assert "secret" not in (await browser.get("/v1/requests")).text


@pytest.mark.parametrize("tls", [False, True])
async def test_a_page_of_another_origin_does_nothing_by_a_session(
    root: httpx.AsyncClient, cluster: FakeCluster, *, tls: bool
) -> None:
    """Given a browser that has logged in, then pages of others change nothing, even if its cookie
    is sent with their requests; and under TLS it is for https and for this host alone.
    """
    await make_user(root, "alice", ("admin", ""))
    settings = Settings(token=SecretStr(ROOT), tls_proxy=tls)
    transport = httpx.ASGITransport(GatewayApp(cluster, settings, passwords=Passwords(CHEAP)))
    base = "https://localhost" if tls else "http://localhost"
    async with httpx.AsyncClient(transport=transport, base_url=base) as browser:
        cookie = (await log_in(browser)).headers["set-cookie"]
        assert cookie.startswith(f"{TLS_COOKIE if tls else COOKIE}=syn_")
        assert ("Secure" in cookie, "Path=/;" in cookie) == (tls, True)
        assert (await browser.put("/v1/files/a", content=b"1")).status_code == 201
        calls = len(cluster.submitted())
        for method, path in (
            ("PUT", "/v1/files/a"),
            ("POST", "/v1/users"),
            ("PATCH", "/v1/users/alice"),
            ("PUT", "/v1/users/alice/password"),
            ("POST", "/v1/login"),
            ("POST", "/v1/logout"),
        ):
            for page in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
                answer = await browser.request(method, path, headers=page, json={"name": "eve"})
                assert problem_of(answer)["type"] == "urn:synod:problem:foreign-origin", path
        assert len(cluster.submitted()) == calls
        assert (await browser.get("/v1/whoami")).status_code == 200


async def test_a_new_password_and_a_removal_end_all_sessions(
    root: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    await make_user(root, "alice", ("read", ""))
    one, two = [bearing((await bearer_of(browser))["token"]) for _ in range(2)]

    async def alive(*sessions: dict[str, str]) -> list[int]:
        asked = [await root.get("/v1/whoami", headers=headers) for headers in sessions]
        return [answer.status_code for answer in asked]

    async def set_password(headers: dict[str, str], **body: str) -> int:
        answer = await root.put("/v1/users/alice/password", json=body, headers=headers)
        return answer.status_code

    new = "another long password"
    assert await set_password(one, password=new) == 400
    assert await set_password(one, password=new, current="wrong") == 403
    assert await set_password(one, password="short", current=PASSWORD) == 400
    assert await alive(one, two) == [200, 200]
    assert await set_password(one, password=new, current=PASSWORD) == 204
    assert await alive(one, two) == [401, 401]
    assert (await log_in(browser)).status_code == 401
    assert (await log_in(browser, password=new)).status_code == 204
    assert await set_password({}, password=PASSWORD) == 204
    assert (await browser.get("/v1/whoami")).status_code == 401

    session = bearing((await bearer_of(browser))["token"])
    assert (await root.delete("/v1/users/alice")).status_code == 204
    assert await alive(session) == [401]
    await make_user(root, "alice", ("write", ""))
    assert await alive(session) == [401]


async def test_users_see_and_end_their_own_sessions_and_administrators_all(
    root: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    for name in ("alice", "bob"):
        await make_user(root, name)
    one, two = await bearer_of(browser), await bearer_of(browser)
    other = await bearer_of(browser, "bob")
    mine = bearing(one["token"])

    shown = (await browser.get("/v1/sessions", headers=mine)).json()["sessions"]
    assert {session["id"]: session["current"] for session in shown} == {
        one["id"]: True,
        two["id"]: False,
    }
    assert {session["label"] for session in shown} == {"here"}
    everybodys = (await root.get("/v1/sessions")).json()["sessions"]
    assert sorted(session["user"] for session in everybodys) == ["alice", "alice", "bob"]
    for id, status in ((other["id"], 404), ("x" * 99, 404), (two["id"], 204)):
        answer = await browser.delete(f"/v1/sessions/{id}", headers=mine)
        assert answer.status_code == status
    ended = await browser.get("/v1/whoami", headers=bearing(two["token"]))
    assert ended.status_code == 401
    assert (await root.delete(f"/v1/sessions/{other['id']}")).status_code == 204


async def test_a_token_logs_in_for_a_session_that_ends_with_it(
    root: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    body = {"label": "ci", "grants": grants(("write", "a"))}
    token = (await root.post("/v1/tokens", json=body)).json()
    entered = await browser.post("/v1/login", data={"token": token["token"]})
    assert entered.status_code == 303
    assert token["token"] not in entered.headers["set-cookie"]
    assert (await browser.put("/v1/files/a/1", content=b"1")).status_code == 201
    me = (await browser.get("/v1/whoami")).json()
    assert (me["user"]["name"], me["session"]["token"]) == (None, token["id"])
    # The token itself is no cookie, and a session makes no session.
    planted = {"cookie": f"{COOKIE}={token['token']}"}
    transport = browser._transport
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as other:
        assert (await other.get("/v1/whoami", headers=planted)).status_code == 401
    again = await browser.post("/v1/login", json={"token": browser.cookies[COOKIE]})
    assert again.status_code == 401

    await root.delete(f"/v1/tokens/{token['id']}")
    assert (await browser.get("/v1/whoami")).status_code == 401
    page = await browser.get("/", headers={"accept": "text/html"})
    assert (page.status_code, "/v1/login" in page.text) == (401, True)


async def test_all_sessions_of_a_user_or_a_token_count_as_one_against_floods(
    root: httpx.AsyncClient,
    browser: httpx.AsyncClient,
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await make_user(root, "alice", ("read", ""))
    token = (await root.post("/v1/tokens", json={"grants": grants(("read", ""))})).json()["token"]
    of_user = [await bearer_of(browser) for _ in range(2)]
    asked = {"token": token, "bearer": True}
    of_token = [(await browser.post("/v1/login", json=asked)).json() for _ in range(2)]
    monkeypatch.setattr("gateway.http.admission.REQUESTS_OF_TOKEN_MAX", 1)
    for first, second in (of_user, of_token, ({"token": token}, of_token[0])):
        known = [bearing(session["token"]) for session in (first, second)]
        for headers in known:  # From now on the gateway asks nobody who they are.
            assert (await browser.get("/v1/files/a", headers=headers)).status_code == 404
        cluster.hold = go_on = asyncio.Event()
        cluster.called = asyncio.Event()
        running = asyncio.ensure_future(browser.get("/v1/files/a", headers=known[0]))
        await cluster.called.wait()
        cluster.hold = None  # Only the first one waits.
        refused = problem_of(await browser.get("/v1/files/a", headers=known[1]))
        assert refused["type"] == "urn:synod:problem:too-many-requests"
        go_on.set()
        assert (await running).status_code == 404


async def test_a_session_lives_while_it_is_used_and_no_request_but_a_few_write_to_the_log(
    root: httpx.AsyncClient,
    browser: httpx.AsyncClient,
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await make_user(root, "alice", ("read", ""))
    await log_in(browser)
    now_s = [1000.0]
    monkeypatch.setattr("gateway.http.credentials.time.monotonic", lambda: now_s[0])

    def refreshes() -> int:
        return [call.operation.kind for call in cluster.submitted()].count("refresh_login")

    async def use(after_ms: int) -> int:
        elapse(cluster, after_ms)
        now_s[0] += after_ms / 1000
        return (await browser.get("/v1/whoami")).status_code

    step_ms = IDLE_MS // credentials.REFRESHES
    assert [await use(0) for _ in range(5)] == [200] * 5
    assert refreshes() == 0
    assert await use(step_ms + 1) == 200
    assert [await use(0) for _ in range(5)] == [200] * 5
    assert refreshes() == 1
    steps = EXPIRES_AFTER_MS // (IDLE_MS // 2) - 2
    assert [await use(IDLE_MS // 2) for _ in range(steps)] == [200] * steps
    assert [await use(IDLE_MS // 2) for _ in range(4)][-1] == 401

    await log_in(browser)
    assert await use(step_ms) == 200
    assert await use(IDLE_MS) == 401


async def test_guesses_are_limited_by_address_and_by_user(
    root: httpx.AsyncClient, app: GatewayApp, cluster: FakeCluster
) -> None:
    await make_user(root, "alice")
    await make_user(root, "bob")

    def at(address: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, client=(address, 1))
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")

    home, one = at("10.0.0.9"), at("10.0.0.1")
    assert (await log_in(home)).status_code == 204
    statuses = [(await log_in(one, password="wrong")).status_code for _ in range(BURST)]
    assert statuses == [401] * BURST
    crowded = await log_in(one)
    assert (crowded.status_code, int(crowded.headers["retry-after"]) > 0) == (429, True)
    assert (await log_in(one, "bob")).status_code == 429
    # Whoever guesses from elsewhere, alice still logs in from where she has been.
    assert (await log_in(at("10.0.0.2"))).status_code == 429
    assert (await log_in(at("10.0.0.2"), "bob")).status_code == 204
    assert (await log_in(home)).status_code == 204
    reads = len(cluster.calls)
    assert (await log_in(one)).status_code == 429
    assert len(cluster.calls) == reads


async def test_an_unknown_user_costs_as_much_and_is_answered_alike(
    root: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    """Given a user, one without a password and none, then a wrong password has the same answer, and
    the same work is done for it.
    """
    work = 0

    class Counting(PasswordHasher):
        def hash(self, *args: Any, **more: Any) -> str:
            nonlocal work
            work += 1
            return super().hash(*args, **more)

        def verify(self, *args: Any, **more: Any) -> Any:
            nonlocal work
            work += 1
            return super().verify(*args, **more)

    await make_user(root, "alice")
    await root.post("/v1/users", json={"name": "bare"})
    counting = Passwords(Counting(time_cost=1, memory_cost=8, parallelism=1))
    app = GatewayApp(cluster, Settings(token=SecretStr(ROOT)), passwords=counting)
    transport = httpx.ASGITransport(app)
    said = []
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as browser:
        for user in ("alice", "bare", "nobody", "Not-A-Name"):
            answer = await log_in(browser, user, "wrong")
            said.append((answer.status_code, answer.json()["detail"], work))
    assert said == [(401, "wrong user or password", number) for number in range(1, 5)]


async def test_only_so_many_passwords_are_checked_at_a_time() -> None:
    """Given more checks than may wait, then the others are refused at once, and one that its client
    gave up makes no room.
    """
    go_on, all_run = threading.Event(), threading.Event()
    running = set()

    class Slow(PasswordHasher):
        def verify(self, *args: Any, **more: Any) -> Any:
            running.add(threading.get_ident())
            if len(running) == AT_ONCE:
                all_run.set()
            assert go_on.wait(60)
            return super().verify(*args, **more)

    passwords = Passwords(Slow(time_cost=1, memory_cost=8, parallelism=1))
    hashed = await passwords.hash(PASSWORD)
    assert hashed.startswith("$argon2id$")
    tries = [asyncio.ensure_future(passwords.fits(hashed, PASSWORD)) for _ in range(40)]
    for _ in range(3):
        await asyncio.sleep(0)
    tries[0].cancel()
    tries.append(asyncio.ensure_future(passwords.fits(hashed, PASSWORD)))
    await asyncio.wait(tries[-1:], timeout=1.0)
    assert await asyncio.to_thread(all_run.wait, 30)
    go_on.set()
    answers = await asyncio.gather(*tries, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Problem)]
    assert {problem.kind.status for problem in refused} == {429}
    assert len(refused) == 41 - AT_ONCE - WAITING_MAX
    assert len(running) == AT_ONCE
    passwords = Passwords(CHEAP)
    assert await passwords.fits(hashed, PASSWORD)
    assert not await passwords.fits("", PASSWORD)
    assert not await passwords.fits("no hash", PASSWORD)
    # The same characters, composed otherwise.
    assert await passwords.fits(await passwords.hash("A\u030angström"), "\u00c5ngström")


def test_the_parameters_are_those_of_rfc_9106() -> None:
    hasher = Passwords()._hasher
    assert (hasher.memory_cost, hasher.time_cost, hasher.parallelism) == (65_536, 3, 4)
    assert hasher.type.name == "ID"


async def test_bodies_that_are_none_are_refused(
    root: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    for path, body in (
        ("/v1/login", {"user": "a"}),
        ("/v1/login", {"user": "a", "password": "b", "token": "c"}),
        ("/v1/login", {}),
        ("/v1/login", {"token": ROOT, "bearer": True}),
        ("/v1/users", {"name": "A"}),
        ("/v1/users", {"name": "a", "password": "short"}),
        ("/v1/users", {"name": "a", "grants": grants(("operate", "x"))}),
        ("/v1/users", {"name": "a", "other": 1}),
        ("/v1/groups", {"name": "-"}),
        ("/v1/tokens", {"label": "none"}),
    ):
        answer = await root.post(path, json=body)
        assert answer.status_code == 400, (path, body, answer.text)
    await make_user(root, "a")
    assert (await root.post("/v1/users", json={"name": "a"})).status_code == 409
    assert (await root.patch("/v1/users/a", json={})).status_code == 409
    assert (await root.patch("/v1/users/b", json={"join": ["c"]})).status_code == 404
    assert (await root.delete(f"/v1/users/{'u' * 99}")).status_code == 404


async def test_a_group_is_a_tokens_too(root: httpx.AsyncClient) -> None:
    await root.post("/v1/groups", json={"name": "ci", "grants": grants(("write", "a"))})
    made = (await root.post("/v1/tokens", json={"groups": ["ci"]})).json()
    with_it = bearing(made["token"])
    assert (await root.put("/v1/files/a/1", content=b"1", headers=with_it)).status_code == 201
    me = (await root.get("/v1/whoami", headers=with_it)).json()["token"]
    assert (me["groups"], me["grants"]) == (["ci"], grants(("write", "a")))
    await root.delete("/v1/groups/ci")
    assert (await root.put("/v1/files/a/1", content=b"2", headers=with_it)).status_code == 403


async def test_without_the_setting_a_browser_is_the_administrator_until_it_logs_in(
    cluster: FakeCluster,
) -> None:
    app = GatewayApp(cluster, Settings(), passwords=Passwords(CHEAP))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        await make_user(http, "alice", ("read", "a"))
        await log_in(http)
        assert (await http.put("/v1/files/b", content=b"1")).status_code == 403
        await http.post("/v1/logout")
        assert (await http.put("/v1/files/b", content=b"1")).status_code == 201
