"""API tokens over HTTP: made, used within their grants, revoked."""

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from actors.messages import LogCommand, LogEntry
from actors.state.rights import Rights
from actors.values import Batch, Command, Grant, OpenSession, Principal
from gateway.callers import ADMINISTRATOR, Caller
from gateway.cli.main import run
from gateway.http import admission, diagnostics
from gateway.http.app import GatewayApp
from gateway.http.auth_limits import BURST
from gateway.http.diagnostics import DiagnosticsEndpoints, entry_json
from gateway.http.watch import Position, _Watcher
from gateway.settings import Settings
from gateway.trace_events import Tracing
from tests.gateway.fake import SESSION, FakeCluster
from tests.gateway.problems import problem_of

ROOT = "a-token-of-the-tests-0123"


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def app(cluster: FakeCluster) -> GatewayApp:
    return GatewayApp(cluster, Settings(token=SecretStr(ROOT)))


@pytest.fixture
def http(app: GatewayApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=bearing(ROOT)
    )


async def made(http: httpx.AsyncClient, *grants: tuple[str, str], **more: Any) -> Any:
    """A token that the administrator has made."""
    listed = [{"role": role, "path": path} for role, path in grants]
    answer = await http.post("/v1/tokens", json={"label": "ci", "grants": listed, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_token_opens_what_it_was_made_for_and_nothing_else(
    http: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    for path in ("a/b/mine", "a/bc", "z/x"):
        assert (await http.put(f"/v1/files/{path}", content=b"1")).status_code == 201
    token = await made(http, ("write", "a/b"))
    with_it = bearing(token["token"])

    assert (await http.get("/v1/files/a/b/mine", headers=with_it)).content == b"1"
    assert (await http.put("/v1/files/a/b/new", content=b"2", headers=with_it)).status_code == 201
    for method, target, path in (
        ("GET", "files/a/bc", "a/bc"),
        ("GET", "files/a/nothing", "a/nothing"),
        ("PUT", "files/a/bc", "a/bc"),
        ("DELETE", "files/z/x", "z/x"),
        ("GET", "directories/z", "z"),
    ):
        answer = await http.request(method, f"/v1/{target}", headers=with_it)
        assert problem_of(answer)["type"] == "urn:synod:problem:forbidden"
        assert f"/{path}" in problem_of(answer)["detail"]
    assert token["token"] not in str(cluster.calls)
    assert token["token"].rpartition("_")[2] not in str(
        [r.to_json() for _, r in cluster.state.rows()]
    )


async def test_a_listing_shows_what_leads_to_what_may_be_read(http: httpx.AsyncClient) -> None:
    for path in ("a/b/mine", "a/bc", "z/x"):
        await http.put(f"/v1/files/{path}", content=b"1")
    with_it = bearing((await made(http, ("read", "a/b")))["token"])

    async def names(path: str) -> list[str]:
        answer = await http.get(f"/v1/directories/{path}", headers=with_it)
        return [entry["name"] for entry in answer.json()["entries"]]

    assert (await names(""), await names("a"), await names("a/b")) == (["a"], ["b"], ["mine"])


async def test_a_revoked_token_is_refused_at_once_also_where_a_gateway_remembers_it(
    http: httpx.AsyncClient,
) -> None:
    await http.put("/v1/files/a", content=b"1")
    token = await made(http, ("write", ""), ("operate", ""))
    with_it = bearing(token["token"])
    assert (await http.get("/v1/whoami", headers=with_it)).json()["token"]["id"] == token["id"]

    assert (await http.delete(f"/v1/tokens/{token['id']}")).status_code == 204

    for method, path in (
        ("GET", "/v1/files/a"),
        ("PUT", "/v1/files/a"),
        ("GET", "/v1/whoami"),
        ("GET", "/v1/cluster"),
        ("GET", "/v1/watch"),
        ("GET", "/v1/nothing"),
    ):
        answer = await http.request(method, path, headers=with_it)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (await http.delete(f"/v1/tokens/{token['id']}")).status_code == 404


async def test_a_token_expires_by_the_clusters_time(
    http: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    token = await made(http, ("write", "a"), expires_after_ms=60_000)
    with_it = bearing(token["token"])
    assert (await http.put("/v1/files/a/1", headers=with_it)).status_code == 201

    for elapsed_ms, status in ((59_999, 200), (1, 401)):
        refresh = Command(
            session=SESSION,
            sequence=cluster._sequence,
            acknowledged=0,
            reply_to="gateway-1",
            operation=OpenSession(),
        )
        cluster._sequence += 1
        batch = Batch(commands=(refresh,), elapsed_ms=elapsed_ms)
        cluster.state.apply(cluster.state.applied + 1, batch, ())
        assert (await http.put("/v1/files/a/1", headers=with_it)).status_code == status
        assert (await http.get("/v1/files/a/1", headers=with_it)).status_code == status


async def test_a_token_that_expires_keeps_log_time_going_also_if_it_only_reads(
    http: httpx.AsyncClient, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given tokens with and without an end, then a read with the former makes a command now and
    then, which is all that advances the time by which it ends.
    """
    lasting = bearing((await made(http, ("read", "")))["token"])
    ending = bearing((await made(http, ("read", ""), expires_after_ms=60_000))["token"])

    async def commands(headers: dict[str, str]) -> int:
        former = cluster.state.applied
        for _ in range(3):
            assert (await http.get("/v1/directories/", headers=headers)).status_code == 200
        return cluster.state.applied - former

    assert (await commands(lasting), await commands(ending), await commands(ending)) == (0, 1, 0)
    monkeypatch.setattr(admission, "REFRESH_S", 0.0)
    assert await commands(ending) == 3


async def test_nobody_grants_more_than_he_has(http: httpx.AsyncClient) -> None:
    admin = bearing((await made(http, ("admin", "a")))["token"])
    other = await made(http, ("read", "z"))

    for role, path, status in (
        ("write", "a/b", 201),
        ("admin", "a", 201),
        ("read", "ab", 403),
        ("read", "", 403),
        ("operate", "", 403),
        ("backup", "a", 400),
        ("read", "a//b", 400),
    ):
        body = {"grants": [{"role": role, "path": path}]}
        answer = await http.post("/v1/tokens", json=body, headers=admin)
        assert answer.status_code == status, answer.text
    seen = (await http.get("/v1/tokens", headers=admin)).json()["tokens"]
    assert len(seen) == 3
    assert other["id"] not in [one["id"] for one in seen]
    assert (await http.delete(f"/v1/tokens/{other['id']}", headers=admin)).status_code == 404
    assert "sha256" not in str(seen)


async def test_a_result_and_a_key_are_their_principals(http: httpx.AsyncClient) -> None:
    one, other = [bearing((await made(http, ("write", "a")))["token"]) for _ in range(2)]
    key = {"idempotency-key": "k"}
    first = await http.put("/v1/files/a/1", content=b"1", headers={**one, **key})
    again = await http.put("/v1/files/a/1", content=b"1", headers={**one, **key})
    theirs = await http.put("/v1/files/a/2", content=b"2", headers={**other, **key})

    assert (first.status_code, again.json()["etag"]) == (201, first.json()["etag"])
    assert theirs.status_code == 201
    result = f"/v1/requests/{first.json()['request']}"
    assert (await http.get(result, headers=one)).json()["result"] == "done"
    assert (await http.get(result)).json()["result"] == "done"
    assert (await http.get(result, headers=other)).status_code == 404


async def test_requests_show_no_path_that_may_not_be_read(http: httpx.AsyncClient) -> None:
    for path in ("a/shown", "secret"):
        await http.put(f"/v1/files/{path}", content=b"1")
    with_it = bearing((await made(http, ("operate", ""), ("read", "a")))["token"])
    text = (await http.get("/v1/requests", headers=with_it)).text
    assert "a/shown" in text
    assert "secret" not in text
    assert "secret" in (await http.get("/v1/requests")).text
    for topic in ("requests", "log"):
        refused = await http.get(f"/v1/events?topics={topic}", headers=with_it)
        assert refused.status_code == 403


async def test_guesses_are_limited_and_right_tokens_pass(http: httpx.AsyncClient) -> None:
    known = bearing((await made(http, ("read", "")))["token"])
    new = bearing((await made(http, ("read", "")))["token"])
    assert (await http.get("/v1/whoami", headers=known)).status_code == 200

    wrong = [f"syn_{'a' * 16}_{number:064x}" for number in range(BURST + 3)]
    answers = [await http.get("/v1/whoami", headers=bearing(one)) for one in wrong]

    assert [answer.status_code for answer in answers] == [401] * BURST + [429] * 3
    assert int(answers[-1].headers["retry-after"]) > 0
    for right in (known, new, bearing(ROOT)):
        assert (await http.get("/v1/whoami", headers=right)).status_code == 200
    for odd in ("syn_", "syn_x_y", f"syn_{'a' * 16}_{'g' * 64}"):
        assert (await http.get("/v1/whoami", headers=bearing(odd))).status_code == 429


async def test_a_token_has_so_many_requests_at_a_time(
    http: httpx.AsyncClient, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "REQUESTS_OF_TOKEN_MAX", 0)
    with_it = bearing((await made(http, ("read", "")))["token"])
    refused = await http.get("/v1/whoami", headers=with_it)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert (await http.get("/v1/whoami")).json()["administrator"]


async def test_a_page_of_another_origin_changes_nothing_with_a_token(
    http: httpx.AsyncClient,
) -> None:
    with_it = bearing((await made(http, ("write", "")))["token"])
    foreign = {**with_it, "origin": "https://evil.example"}
    answer = await http.put("/v1/files/a", headers=foreign)
    assert problem_of(answer)["type"] == "urn:synod:problem:foreign-origin"


async def test_without_a_token_setting_a_request_that_bears_one_acts_as_it(
    client: httpx.AsyncClient,
) -> None:
    token = await made(client, ("read", "a"))
    assert (await client.put("/v1/files/b", headers=bearing(token["token"]))).status_code == 403
    assert (await client.put("/v1/files/b")).status_code == 201


async def test_a_watch_shows_what_may_be_read_and_ends_when_its_token_is_revoked(
    http: httpx.AsyncClient, app: GatewayApp, cluster: FakeCluster
) -> None:
    token = await made(http, ("read", "a"))
    caller = await app._admission.credentials.caller_of(token["token"], "")
    newest = cluster.state.applied
    events = app.watch._events(caller, "", Position(newest, 0), newest, _Watcher())
    heard = b""
    ended = False
    await http.put("/v1/files/z/secret", content=b"1")
    await http.put("/v1/files/a/shown", content=b"1")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            async for piece in events:
                heard += piece
                if b"shown" in piece:
                    await http.delete(f"/v1/tokens/{token['id']}")
                    await http.put("/v1/files/a/later", content=b"1")
            ended = True
    assert ended
    assert b"shown" in heard
    assert b"secret" not in heard
    assert b"later" not in heard


async def test_events_end_when_their_token_is_revoked(
    http: httpx.AsyncClient, app: GatewayApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "_CHECK_S", 0.0)
    token = await made(http, ("operate", ""))
    caller = await app._admission.credentials.caller_of(token["token"], "")
    endpoints = DiagnosticsEndpoints(
        app._admission._cluster, Tracing("off"), app.requests, app.live_events, lambda _: False
    )
    heard = 0
    async with asyncio.timeout(20):
        async for _ in endpoints._while_allowed(caller, app.live_events.subscribe(None)):
            heard += 1
            if heard == 2:
                await http.delete(f"/v1/tokens/{token['id']}")
            await app.live_events.publish_changes()
    assert heard == 2


async def test_tokens_on_the_command_line(
    port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def synod(*words: str) -> tuple[int, str, str]:
        command = [*words, "--url", f"http://127.0.0.1:{port}"]
        code = await asyncio.to_thread(run, command)
        said = capsys.readouterr()
        return code, said.out, said.err

    assert await synod("whoami") == (0, "the administrator: everything\n", "")
    _, text, _ = await synod("token", "create", "ci", "-g", "write:/a/b", "--expires", "2h")
    monkeypatch.setenv("SYNOD_TOKEN", text.strip())
    id = text.split("_")[1]
    assert await synod("whoami") == (0, f"token {id} (ci): write:/a/b; expires: 2.0 h\n", "")
    code, _, error = await synod("mkdir", "/z")
    assert (code, error) == (7, "synod: this needs the role 'write' on /z\n")
    code, listed, _ = await synod("token", "ls", "--json")
    assert (code, [one["id"] for one in json.loads(listed)]) == (0, [id])
    assert (await synod("token", "create", "x", "-g", "write:/a", "--expires", "soon"))[0] == 2
    assert (await synod("token", "create", "x", "-g", "write:/a"))[0] == 7
    assert await synod("token", "revoke", id) == (0, "", "")
    assert (await synod("whoami"))[0] == 7


def _reader_of(path: str) -> Caller:
    return Caller(Principal(token="t", policy_slot=1), Rights([Grant(role="read", path=path)]))


def test_the_log_shows_no_path_that_may_not_be_read() -> None:
    about = (("put_file", "a/b"), ("put_file", "ab"), ("move", "a/x → a/y"), ("create_token", ""))
    entry = LogEntry(
        slot=1,
        kind="batch",
        epoch=0,
        ballot=None,
        accepted_by=(),
        commands=tuple(LogCommand(request="r", operation=o, path=p) for o, p in about),
        commands_count=4,
        aborted=(),
        text="4 commands",
    )

    def paths(caller: Caller) -> list[str]:
        return [one["path"] for one in entry_json(entry, caller)["commands"]]

    assert paths(_reader_of("a")) == ["a/b", "…", "…", "…"]
    assert paths(_reader_of("")) == paths(ADMINISTRATOR) == [path for _, path in about]


async def test_a_trace_shows_no_contents_to_who_may_not_read_all(cluster: FakeCluster) -> None:
    event = {"type": "client.submit", "kind": "sent", "summary": "put secret", "content": {"p": 1}}

    class Collector:
        def trace(self, name: str, span: object) -> dict[str, Any]:
            return {"request": name, "events": [event]}

        def recent(self) -> dict[str, Any]:
            return {"requests": [], "events": [event]}

        dropped = 0

    tracing = Tracing("off")
    tracing.collector = Collector()  # type: ignore[assignment]
    transport = httpx.ASGITransport(GatewayApp(cluster, Settings(), tracing=tracing))
    http = httpx.AsyncClient(transport=transport, base_url="http://localhost")
    some = bearing((await made(http, ("operate", ""), ("read", "a")))["token"])
    whole = bearing((await made(http, ("operate", ""), ("read", "")))["token"])
    for path in ("/v1/traces", "/v1/traces/r"):
        (shown,) = (await http.get(path, headers=some)).json()["events"]
        assert (shown["summary"], shown["content"]) == ("client.submit", {})
        assert (await http.get(path, headers=whole)).json()["events"] == [event]


def test_the_administrators_token_is_none_of_the_clusters() -> None:
    with pytest.raises(ValueError, match="must not begin with syn_"):
        Settings(token=SecretStr("syn_0123456789abcdef"))
