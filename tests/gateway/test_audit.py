"""The audit over HTTP and on the command line, and what a gateway refused."""

import asyncio
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from actors.values import DeleteFile, Members, Principal, Roster, Settled
from gateway.http import audit
from gateway.http.app import GatewayApp
from gateway.http.refusals import ADDRESS_BURST, ALL_BURST, KEPT, Refusals
from gateway.passwords import Passwords
from gateway.settings import Settings
from synod.audit import Chain, ChainBroken, check_export, hash_of
from tests.gateway.fake import CHEAP, FakeCluster
from tests.gateway.problems import problem_of
from tests.gateway.test_cli import Shell, synod
from tests.worlds import founding_acceptors

__all__ = ["synod"]

ROOT = "a-token-of-the-tests-0123"
HEADERS = {"authorization": f"Bearer {ROOT}"}


@pytest.fixture
def app(cluster: FakeCluster) -> GatewayApp:
    return GatewayApp(cluster, Settings(token=SecretStr(ROOT)), passwords=Passwords(CHEAP))


@pytest.fixture
def http(app: GatewayApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=HEADERS)


async def page_of(http: httpx.AsyncClient, query: str = "", **headers: str) -> Any:
    answer = await http.get(f"/v1/audit?{query}", headers=headers or None)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def bearer(http: httpx.AsyncClient, *grants: tuple[str, str]) -> tuple[str, dict[str, str]]:
    """A new token's id, and the header of who bears it."""
    listed = [{"role": role, "path": path} for role, path in grants]
    made = (await http.post("/v1/tokens", json={"label": "secret-label", "grants": listed})).json()
    return made["id"], {"authorization": f"Bearer {made['token']}"}


# -- /v1/audit -------------------------------------------------------------------------------------


async def test_it_shows_who_did_what_and_its_chain_can_be_checked(http: httpx.AsyncClient) -> None:
    await http.put("/v1/files/a/f", content=b"the contents")
    id, with_it = await bearer(http, ("write", "a"), ("read", "b"))
    await http.put("/v1/files/b/f", content=b"1", headers=with_it)
    await http.post("/v1/move", json={"source": "a/f", "target": "a/g"}, headers=with_it)
    page = await page_of(http, "order=oldest")
    told = [
        (one["principal"], one["operation"], one.get("path"), one["result"])
        for one in page["records"]
    ]
    assert told == [
        (None, "open_session", None, "done"),
        (None, "put_file", "a/f", "done"),
        (None, "create_token", None, "done"),
        (id, "move", "a/g", "done"),
    ]
    chain = Chain(1, page["previous"])
    for record in page["records"]:
        chain.add(record)
    chain.end(page["count"], page["head"])
    text = json.dumps(page)
    assert "secret-label" not in text
    assert "contents" not in text


async def test_a_command_that_the_log_refused_is_in_it(
    http: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    cluster.store(DeleteFile(path="a"), None, Principal(token="gone", policy_slot=0))
    (newest,) = (await page_of(http, "limit=1"))["records"]
    assert (newest["principal"], newest["result"]) == ("gone", "unauthenticated")


async def test_pages_and_filters(http: httpx.AsyncClient) -> None:
    for number in range(5):
        await http.put(f"/v1/files/{'ab'[number % 2]}/{number}", content=b"1")
    await http.delete("/v1/files/a/0")
    newest = await page_of(http, "limit=2")
    assert [one["number"] for one in newest["records"]] == [7, 6]
    assert (newest["more"], newest["through"], newest["previous"]) == (True, 6, None)
    below = await page_of(http, f"before={newest['through']}&limit=2")
    assert [one["number"] for one in below["records"]] == [5, 4]
    for query, numbers in (
        ("prefix=a", [2, 4, 6, 7]),
        ("prefix=/a/0/", [2, 7]),
        ("operation=delete_file", [7]),
        ("result=not_found", []),
        ("principal=administrator", [1, 2, 3, 4, 5, 6, 7]),
        ("principal=no", []),
        ("after=5", [6, 7]),
    ):
        page = await page_of(http, f"order=oldest&{query}")
        assert [one["number"] for one in page["records"]] == numbers, query


async def test_times_are_log_times(http: httpx.AsyncClient, cluster: FakeCluster) -> None:
    for number in range(3):
        cluster.state.sessions.log_time_ms += 1_000
        await http.put(f"/v1/files/{number}", content=b"1")
    page = await page_of(http, "order=oldest&since_ms=1000&until_ms=2999")
    assert [one["path"] for one in page["records"]] == ["0", "1"]
    assert page["log_time_ms"] == 3_000


async def test_only_who_may_administer_the_prefix_reads_it(http: httpx.AsyncClient) -> None:
    for path in ("a/f", "b/f"):
        await http.put(f"/v1/files/{path}", content=b"1")
    await http.post("/v1/move", json={"source": "a/f", "target": "b/g"})
    _, reader = await bearer(http, ("write", "a"), ("operate", ""))
    refused = await http.get("/v1/audit?prefix=a", headers=reader)
    assert problem_of(refused)["detail"] == "this needs the role 'admin' on /a"
    id, admin = await bearer(http, ("admin", "a"))
    assert (await http.get("/v1/audit", headers=admin)).status_code == 403
    assert (await http.get("/v1/audit?prefix=ab", headers=admin)).status_code == 403

    page = await page_of(http, "prefix=a&order=oldest", **admin)
    shown = [(one["operation"], one.get("path"), one.get("source")) for one in page["records"]]
    assert shown == [
        ("put_file", "a/f", None),
        ("move", "…", "a/f"),
        ("create_token", None, None),
        ("create_token", None, None),
    ]
    assert [one["hash"] is None for one in page["records"]] == [False, True, True, False]
    assert page["previous"] is None

    await http.delete(f"/v1/tokens/{id}")
    assert (await http.get("/v1/audit?prefix=a", headers=admin)).status_code == 401


async def test_it_follows(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_POLL_S", 0.01)
    through = (await page_of(http, "order=oldest"))["through"]
    waiting = asyncio.create_task(page_of(http, f"order=oldest&after={through}&wait_s=20"))
    while not waiting.done():
        await http.put("/v1/files/a", content=b"1")
        await asyncio.sleep(0.01)
    assert (await waiting)["records"][0]["path"] == "a"


async def test_waiting_ends(
    app: GatewayApp, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_POLL_S", 0.01)
    assert (await page_of(http, "order=oldest&after=2&wait_s=1"))["records"] == []
    monkeypatch.setattr(audit, "_WAITING_MAX", 0)
    full = await http.get("/v1/audit?order=oldest&after=2&wait_s=20")
    assert problem_of(full)["type"] == "urn:synod:problem:too-many-requests"
    monkeypatch.setattr(audit, "_WAITING_MAX", 1)
    waiting = asyncio.create_task(http.get("/v1/audit?order=oldest&after=9&wait_s=20"))
    watched = asyncio.create_task(http.get("/v1/audit?order=oldest&after=9&wait_s=20"))
    app.audit.end()
    assert {(await one).status_code for one in (waiting, watched)} <= {200, 429}


async def test_a_reader_whose_token_is_revoked_waits_no_longer(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_POLL_S", 0.01)
    id, admin = await bearer(http, ("admin", "a"))
    query = "prefix=a&operation=copy&order=oldest&wait_s=20"
    waiting = asyncio.create_task(http.get(f"/v1/audit?{query}", headers=admin))
    await asyncio.sleep(0.05)
    await http.delete(f"/v1/tokens/{id}")
    assert (await waiting).status_code == 401


@pytest.mark.parametrize(
    "query", ["learner=store-1", "learner=learner-0", "order=x", "limit=0", "result=" + "x" * 65]
)
async def test_wrong_queries(http: httpx.AsyncClient, query: str) -> None:
    assert problem_of(await http.get(f"/v1/audit?{query}"))["status"] == 400


# -- refusals --------------------------------------------------------------------------------------


async def test_refusals_and_logins_are_kept_and_logged_and_not_in_the_log(
    http: httpx.AsyncClient, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    id, with_it = await bearer(http, ("read", "a"))
    slot = cluster.state.applied
    caplog.set_level("INFO", "synod.gateway.audit")
    caplog.clear()
    wrong = f"syn_{id}_{'0' * 64}"
    await http.get("/v1/files/x", headers={"authorization": "Bearer a wrong-secret"})
    await http.get("/v1/files/x", headers={"authorization": f"Bearer {wrong}"})
    await http.put("/v1/files/b", content=b"1", headers=with_it)
    await http.post("/v1/login", json={"token": "a wrong-secret"})
    await http.post("/v1/login", json={"token": ROOT})
    await http.post("/v1/logout")
    await http.get("/v1/files/x")

    assert cluster.state.applied == slot
    page = (await http.get("/v1/audit/refusals")).json()
    kept = [
        (one["kind"], one["status"], one["reason"], one["path"], one["token"])
        for one in page["refusals"]
    ]
    assert kept[::-1] == [
        ("refused", 401, "unauthorized", "/v1/files/x", None),
        ("refused", 401, "unauthorized", "/v1/files/x", id),
        ("refused", 403, "forbidden", "/v1/files/b", id),
        ("refused", 401, "unauthorized", "/v1/login", None),
        ("login", 204, None, "/v1/login", None),
        ("logout", 204, None, "/v1/logout", None),
    ]
    assert page["suppressed"] == 0
    logged = [vars(record)["audit"] for record in caplog.records]
    assert [one["kind"] for one in logged] == [one[0] for one in kept[::-1]]
    everything = json.dumps(page) + str(logged)
    for secret in (ROOT, "wrong-secret", "0" * 64, with_it["authorization"][-64:]):
        assert secret not in everything
    for one in page["refusals"]:
        assert one["address"] == "127.0.0.1"
        assert one["time"].endswith("+00:00")


async def test_users_are_named_where_they_log_in_and_in_what_they_do(
    app: GatewayApp, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    id, with_it = await bearer(http, ("read", "a"))
    secrets = ("correct horse battery", "incorrect.horse", "new horse battery", "typed.too.early")
    right, wrong, new, early = secrets
    alice = {"name": "alice", "password": right, "grants": [{"role": "write", "path": "a"}]}
    await http.post("/v1/users", json=alice)
    caplog.set_level("INFO", "synod.gateway.audit")
    caplog.clear()
    browser = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")

    await browser.post("/v1/login", json={"user": "alice", "password": wrong})
    await browser.post("/v1/login", json={"user": early, "password": wrong})
    await browser.post("/v1/login", json={"user": "alice", "password": right})
    await browser.put("/v1/files/a/1", content=b"1")
    await browser.put("/v1/files/b/1", content=b"1")
    own = {"password": new, "current": right}
    assert (await browser.put("/v1/users/alice/password", json=own)).status_code == 204
    await browser.post("/v1/login", data={"user": "alice", "password": new})
    await browser.post("/v1/logout")
    await browser.post("/v1/login", json={"token": with_it["authorization"].split()[1]})

    refusals = (await http.get("/v1/audit/refusals")).json()["refusals"]
    kept = [(one["kind"], one["status"], one["path"], one["token"]) for one in refusals]
    assert kept[::-1] == [
        ("refused", 401, "/v1/login", "@alice"),
        ("refused", 401, "/v1/login", None),
        ("login", 204, "/v1/login", "@alice"),
        ("refused", 403, "/v1/files/b/1", "@alice"),
        ("login", 303, "/v1/login", "@alice"),
        ("logout", 204, "/v1/logout", "@alice"),
        ("login", 204, "/v1/login", id),
    ]
    page = await page_of(http, "order=oldest&after=2")
    # The gateway itself opens a session, so that log time goes on.
    records = [one for one in page["records"] if one["operation"] != "open_session"]
    assert [(one["principal"], one["operation"]) for one in records] == [
        (None, "create_user"),
        (None, "create_login"),
        ("@alice", "put_file"),
        ("@alice", "change_user"),
        (None, "create_login"),
        ("@alice", "revoke_login"),
        (None, "create_login"),
    ]
    created, first, _, changed, second, ended, of_token = records
    assert (created["user"], created["grants"]) == ("alice", [["write", "a"]])
    assert (changed["user"], changed["new_password"]) == ("alice", True)
    assert (first["user"], second["user"], of_token["token"]) == ("alice", "alice", id)
    assert ended["login"] == second["login"] != first["login"]
    everything = json.dumps([page, refusals]) + str([vars(one) for one in caplog.records])
    for secret in (*secrets, "$argon2id$", with_it["authorization"][-64:]):
        assert secret not in everything
    longest = "@" + "u" * 64
    assert (await page_of(http, f"principal={longest}"))["records"] == []


async def test_only_the_administrator_of_all_reads_refusals(http: httpx.AsyncClient) -> None:
    for grants, status in (((("admin", "a"), ("operate", "")), 403), ((("admin", ""),), 200)):
        _, with_it = await bearer(http, *grants)
        answer = await http.get("/v1/audit/refusals", headers=with_it)
        assert answer.status_code == status


def _scope(address: str, path: str = "/v1/files/x") -> Any:
    return {"client": (address, 1), "path": path, "method": "GET", "headers": []}


def test_a_flood_is_throttled_and_counted_and_pushes_out_nobody_else() -> None:
    now_s = 100.0
    refusals = Refusals(lambda: now_s)
    refusals.answered(_scope("10.0.0.2"), 403, token="t", reason="forbidden")
    for _ in range(5_000):
        refusals.answered(_scope("10.0.0.1"), 401, token="", reason="unauthorized")
    assert refusals.suppressed == 5_000 - ADDRESS_BURST
    newest = refusals.newest(KEPT)
    assert newest[-1]["address"] == "10.0.0.2"
    now_s += 1
    refusals.answered(_scope("10.0.0.1"), 401, token="", reason="unauthorized")
    (last,) = refusals.newest(1)
    assert last["suppressed_before"] == refusals.suppressed

    for number in range(5_000):
        refusals.answered(_scope(f"10.1.{number // 250}.{number % 250}"), 429, token="", reason="x")
    assert len(refusals.newest(KEPT)) <= ALL_BURST + ADDRESS_BURST + 1
    assert len(refusals._by_address) <= 1_024


def test_what_is_kept_is_bounded() -> None:
    time_s = itertools.count(0, 1)
    refusals = Refusals(lambda: float(next(time_s)))
    for _ in range(2 * KEPT):
        refusals.answered(_scope("10.0.0.1", "/" + "p" * 9_000), 403, token="", reason="x")
    kept = refusals.newest(10 * KEPT)
    assert len(kept) == KEPT
    assert max(len(one["path"]) for one in kept) < 500


# -- the command -----------------------------------------------------------------------------------


async def _filled(synod: Shell, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    for number in range(3):
        assert (await synod("put", str(tmp_path / "f"), f"d/{number}")).code == 0
    assert (await synod("mv", "d/0", "e/0")).code == 0


async def test_the_command_lists_and_filters(synod: Shell, tmp_path: Path) -> None:
    await _filled(synod, tmp_path)
    ran = await synod("audit", "--limit", "2")
    assert [line.split()[3:] for line in ran.out.splitlines()] == [
        ["s", "administrator", "put_file", "d/2", "done"],
        ["s", "administrator", "move", "d/0", "→", "e/0", "done"],
    ]
    found = (await synod("audit", "--json", "--prefix", "/d/1", "--since", "1h")).json()
    assert [one["path"] for one in found] == ["d/1"]
    assert (await synod("audit", "--since", "soon")).code == 2
    assert (await synod("audit", "--json", "--refusals")).json() == {
        "refusals": [],
        "suppressed": 0,
    }
    async with httpx.AsyncClient() as http:
        await http.put(f"{synod.url}/v1/files/x", headers={"authorization": "Bearer syn_x"})
    (line,) = (await synod("audit", "--refusals")).out.splitlines()
    assert line.split()[1:] == [
        *("refused", "401", "127.0.0.1", "no", "token", "PUT", "/v1/files/x", "unauthorized")
    ]


async def test_changes_of_the_members_are_listed_with_who_asked(
    synod: Shell, cluster: FakeCluster
) -> None:
    audit = cluster.state.audit
    names = ("proposer-1", "learner-1", "learner-2", "store-4")
    acceptors = founding_acceptors(3)
    audit.note_members(3, 7, Roster(version=1, members=names, principal="@alice"))
    audit.note_members(4, 8, Members(version=1, acceptors=acceptors))
    audit.note_members(5, 9, Settled(version=1))
    ran = await synod("audit", "--limit", "3")
    assert [line.split("s  ", 1)[1] for line in ran.out.splitlines()] == [
        f"@alice  change_roster version 1: {', '.join(names)}  done",
        "administrator  change_acceptors version 1: acceptor-1, acceptor-2, acceptor-3  done",
        "administrator  settle_acceptors version 1  done",
    ]


async def test_an_export_can_be_checked_without_a_server(synod: Shell, tmp_path: Path) -> None:
    await _filled(synod, tmp_path)
    file = tmp_path / "audit.jsonl"
    assert (await synod("audit", "export", str(file))).code == 0
    online = (await synod("audit", "verify", "--json")).json()
    os.environ["SYNOD_URL"] = "http://127.0.0.1:9"
    offline = await synod("audit", "verify", str(file), "--json")
    assert offline.json() == online
    assert online["whole"]
    assert (online["first"], online["last"]) == (1, len(file.read_text().splitlines()) - 1)

    lines = file.read_text().splitlines()
    changed = [*lines]
    changed[2] = changed[2].replace("d/1", "d/x")
    for forged, number, why in (
        (changed, 3, "record 3 (slot 3, index 0) is wrong"),
        ([*lines[:3], *lines[4:]], 4, "record 4 is missing: 5 stands in its place"),
        (lines[:-1], None, "cut off"),
        ([*lines[:-2], lines[-1]], 5, "record 5 is missing, of 5"),
        ([*lines, "{}"], None, "behind the end"),
        (["x", *lines], None, "line 1 is no record"),
    ):
        file.write_text("\n".join(forged))
        found = await synod("audit", "verify", str(file), "--json")
        assert found.code == 1
        assert (found.json()["whole"], found.json()["record"]) == (False, number)
        assert why in found.json()["detail"]

    # One that computes the whole chain anew is found by a hash that was noted before.
    records = [json.loads(line) for line in changed[:-1]]
    head = ""
    for record in records:
        head = record["hash"] = hash_of(head, record)
    end = {"end": {**json.loads(lines[-1])["end"], "head": head}}
    file.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in [*records, end]))
    assert (await synod("audit", "verify", str(file))).code == 0
    noted = await synod("audit", "verify", str(file), "--head", online["head"])
    assert noted.code == 1
    assert "does not have the hash" in noted.err


async def test_a_part_can_be_exported_and_checked(synod: Shell, tmp_path: Path) -> None:
    await _filled(synod, tmp_path)
    ran = await synod("audit", "export", "--after", "3")
    chain = check_export(ran.out.encode().splitlines())
    assert (chain.first, chain.count) == (4, 5)
    with pytest.raises(ChainBroken):
        check_export(ran.out.replace('"previous":"', '"previous":"0').encode().splitlines())


async def test_verify_finds_what_a_learner_shows_wrongly(
    synod: Shell, tmp_path: Path, cluster: FakeCluster
) -> None:
    """Given a record that was changed on the disk of one learner, then it is named."""
    await _filled(synod, tmp_path)
    assert (await synod("audit", "verify")).code == 0
    (part,) = cluster.audit.parts
    changed = part.model_copy(update={"data": part.data.replace(b"d/1", b"d/x")})
    cluster.shown_by["learner-2"] = changed
    ran = await synod("audit", "verify", "--json")
    assert (ran.code, ran.json()["record"]) == (1, 3)
    assert "another one at learner-2 than at learner-1" in ran.json()["detail"]
    assert (await synod("audit", "verify", "--learner", "learner-1")).code == 0
    assert (await synod("audit", "verify", "--learner", "learner-2")).code == 1


async def test_the_command_follows(
    port: int, tmp_path: Path, synod: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _filled(synod, tmp_path)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "synod", "audit", "-f", "--json", "-n", "1", "--url", url]
    folder = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=folder
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert json.loads(await process.stdout.readline())["operation"] == "move"
            await synod("rm", "e/0")
            assert json.loads(await process.stdout.readline())["operation"] == "delete_file"
    finally:
        process.terminate()
        await process.wait()
