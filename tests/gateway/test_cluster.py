"""The cluster's answers as HTTP responses; a final one names its reason."""

import asyncio
import re

import httpx
import pytest

from actors.calls import NotDone, Read, ReadDone, Unknown
from actors.calls import WriteDecided as CallDecided
from actors.messages import ReadReply, ReadRequest, ReadStatus
from actors.values import Outcome, Status
from broker.local_calls import CallOutcomeUnknown, CallRefused
from broker.runtime import NodeHalted
from gateway.http.app import GatewayApp
from gateway.settings import Settings
from tests.gateway.fake import FakeCluster
from tests.gateway.problems import problem_of


async def test_aborted_is_final_and_names_the_fact(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    outcome = Outcome(status="aborted", slot=7, index=2, detail="store-2 is away")
    cluster.answers.append(CallDecided("s-4", outcome))

    answer = await client.put("/v1/files/a", content=b"x")

    problem = problem_of(answer)
    assert (answer.status_code, problem["type"]) == (503, "urn:synod:problem:aborted")
    assert answer.headers["retry-after"]
    assert answer.headers["synod-request-id"] == "s-4"
    assert answer.headers["synod-slot"] == "7"
    assert (problem["request"], problem["slot"]) == ("s-4", 7)
    assert problem["fact"] == (
        "an Abort of this request is chosen in the log; it was decided at slot 7"
    )
    assert problem["fact"] in problem["detail"]
    assert "store-2 is away" in problem["detail"]


async def test_unavailable_names_reason_and_fact(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    cluster.answers.extend([NotDone("no leader", "it was never sent to a proposer")] * 2)

    for answer in (
        await client.put("/v1/files/a", content=b"x"),
        await client.get("/v1/files/a"),
    ):
        problem = problem_of(answer)
        assert (answer.status_code, problem["type"]) == (503, "urn:synod:problem:unavailable")
        assert answer.headers["retry-after"]
        assert problem["reason"] == "no leader"
        assert problem["fact"] == "it was never sent to a proposer"


async def test_unknown_names_the_request(client: httpx.AsyncClient, cluster: FakeCluster) -> None:
    cluster.answers.append(Unknown("gateway-1.ab+5-9"))

    answer = await client.delete("/v1/files/a")

    problem = problem_of(answer)
    assert (answer.status_code, problem["type"]) == (504, "urn:synod:problem:unknown")
    assert answer.headers["synod-request-id"] == "gateway-1.ab+5-9"
    assert problem["request"] == "gateway-1.ab+5-9"
    assert problem["result"] == "/v1/requests/gateway-1.ab%2B5-9"
    assert "did not happen" not in problem["detail"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("precondition_failed", (412, "precondition-failed")),
        ("not_found", (404, "not-found")),
        ("conflict", (409, "conflict")),
        ("not_empty", (409, "not-empty")),
        ("key_reused", (422, "key-reused")),
        ("unknown_session", (504, "unknown")),
        ("forgotten", (504, "unknown")),
        ("aborted", (503, "aborted")),
    ],
)
async def test_every_outcome_has_a_status(
    client: httpx.AsyncClient, cluster: FakeCluster, status: Status, expected: tuple[int, str]
) -> None:
    cluster.answers.append(CallDecided("s-4", Outcome(status=status, slot=7, index=0)))

    answer = await client.put("/v1/files/a", content=b"x")

    problem = problem_of(answer)
    assert (answer.status_code, problem["type"]) == (
        expected[0],
        f"urn:synod:problem:{expected[1]}",
    )
    assert answer.headers["synod-slot"] == "7"


async def test_a_call_that_was_not_taken_did_not_happen_and_a_lost_one_may_have(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    cluster.answers.extend([CallRefused("full"), CallOutcomeUnknown("rebuilt"), NodeHalted("why")])

    answers = [await client.put("/v1/files/a", content=b"x") for _ in range(3)]

    kinds = [problem_of(answer)["type"].rpartition(":")[2] for answer in answers]
    assert kinds == ["unavailable", "unknown", "unknown"]


async def test_an_internal_error_of_the_gateway_is_a_problem_too(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    cluster.answers.append(ZeroDivisionError("secret"))

    answer = await client.get("/v1/files/a")

    assert problem_of(answer)["type"].endswith(":internal")
    assert "secret" not in answer.text


async def test_without_a_broker_nothing_is_submitted(cluster: FakeCluster) -> None:
    app = GatewayApp(cluster, Settings(), broker_outage=lambda: "the broker is away")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answers = [
            await client.put("/v1/files/a", content=b"x"),
            await client.put("/v1/files/a", content=b"x" * 100_000),
            await client.get("/v1/files/a"),
            await client.delete("/v1/directories/a"),
        ]
        assert cluster.calls == []
        not_ready = await client.get("/readyz")

    assert [problem_of(answer)["reason"] for answer in answers] == ["the broker is away"] * 4
    assert (not_ready.status_code, problem_of(not_ready)["detail"]) == (503, "the broker is away")


async def test_the_same_key_twice_at_once(client: httpx.AsyncClient, cluster: FakeCluster) -> None:
    cluster.hold = asyncio.Event()
    headers = {"idempotency-key": "k1"}
    async with asyncio.TaskGroup() as group:
        first = group.create_task(client.put("/v1/files/a", content=b"x", headers=headers))
        await cluster.called.wait()

        second = await client.put("/v1/files/a", content=b"x", headers=headers)
        other = group.create_task(client.put("/v1/files/b", content=b"x"))
        cluster.hold.set()

    assert problem_of(second)["type"].endswith(":running")
    assert (second.status_code, second.headers["retry-after"]) == (409, "1")
    assert (first.result().status_code, other.result().status_code) == (201, 201)
    third = await client.put("/v1/files/a", content=b"x", headers=headers)
    assert third.headers["etag"] == first.result().headers["etag"]


async def test_a_missing_chunk_is_reported_before_the_response_begins(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    await client.put("/v1/files/a", content=b"small")
    await client.put("/v1/files/b", content=b"x" * 300_000)
    cluster.missing = set(cluster.chunks)

    for name in ("a", "b"):
        answer = await client.get(f"/v1/files/{name}")
        assert problem_of(answer)["type"].endswith(":unavailable")
        assert problem_of(answer)["chunk"] in cluster.missing


async def test_results_of_requests(client: httpx.AsyncClient) -> None:
    written = await client.put("/v1/files/a", content=b"x")

    answer = await client.get(f"/v1/requests/{written.headers['synod-request-id']}")

    assert answer.json() == {
        "request": "fake-session-1",
        "state": "decided",
        "result": "done",
        "slot": 2,
        "index": 0,
        "created": True,
        "detail": "",
        "etag": "2-0",
    }
    assert (await client.get("/v1/requests/fake-session-9")).json()["state"] == "running"
    assert problem_of(await client.get("/v1/requests/other-1"))["status"] == 404
    assert problem_of(await client.get("/v1/requests/nonsense"))["status"] == 404
    forgotten = await client.get("/v1/requests/fake-session-0")
    assert problem_of(forgotten)["status"] == 410


@pytest.mark.parametrize(
    ("status", "expected", "says"),
    [
        ("running", 200, ""),
        ("forgotten", 410, "no longer kept"),
        ("absent", 404, "did not happen and never will: at slot 9 its session is closed"),
        ("unknown_session", 404, "what became of its requests is not known"),
    ],
)
async def test_only_of_a_closed_session_is_it_certain_that_a_request_never_happens(
    client: httpx.AsyncClient, cluster: FakeCluster, status: ReadStatus, expected: int, says: str
) -> None:
    cluster.answers.append(ReadDone("store-1", ReadReply(number=1, status=status, applied=9)))

    answer = await client.get("/v1/requests/gateway-1.ab+5-9")

    assert (answer.status_code, answer.headers["synod-slot"]) == (expected, "9")
    assert says in answer.json().get("detail", "")
    assert ("never" in answer.text) == (status == "absent")


async def test_what_became_of_a_request_is_never_a_stale_answer(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    await client.get("/v1/requests/gateway-1.ab+5-9", params={"consistency": "stale"})

    (read,) = [call for call in cluster.calls if isinstance(call, Read)]
    assert read.request == ReadRequest(
        number=0,
        what="result",
        session="gateway-1.ab+5",
        sequence=9,
        consistency="linearizable",
    )


async def test_the_cluster_and_its_probes(client: httpx.AsyncClient, cluster: FakeCluster) -> None:
    answer = (await client.get("/v1/cluster")).json()
    assert (answer["cluster"], answer["leader"], answer["ready"]) == ("c1", "proposer-2", True)
    assert answer["view"]["epoch"] == 3
    assert [node["name"] for node in answer["nodes"] if node["leader"]] == ["proposer-2"]
    assert len(answer["nodes"]) == 15
    assert answer["limits"]["greatest_file_bytes"] == 20 * 2**20
    assert (await client.get("/readyz")).status_code == 200

    cluster.ready = False
    not_ready = await client.get("/readyz")
    assert (not_ready.status_code, "quorum" in problem_of(not_ready)["detail"]) == (503, True)
    assert (await client.get("/healthz")).status_code == 200


async def test_the_page_and_what_is_not_there(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    assert len(loaded) > 5
    for name in loaded:
        part = await client.get(name)
        assert (part.status_code, part.headers["cache-control"]) == (200, "no-cache"), name
        again = await client.get(name, headers={"if-none-match": part.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert problem_of(await client.get("/static/../app.py"))["status"] == 404
    assert problem_of(await client.get("/static/nothing.js"))["status"] == 404
    for path in ("/v1/file/a", "/v1", "/v1/filesystem", "/v1/files%2Fa", "/nothing/"):
        assert problem_of(await client.get(path))["type"].endswith(":not-found")
    refused = await client.post("/v1/files/a", content=b"x")
    assert problem_of(refused)["type"].endswith(":method-not-allowed")
    assert refused.headers["allow"] == "DELETE, GET, HEAD, PUT"
    assert problem_of(await client.put("/v1/cluster", content=b""))["status"] == 405


async def test_every_part_of_the_page_tells_its_version(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    part = await client.get("/static/js/app.js")

    version = page.headers["synod-ui"]
    assert part.headers["synod-ui"] == version
    assert f'<meta name="synod-ui" content="{version}">' in page.text
    assert len(version) == 16


async def test_metrics_count_what_was_answered(client: httpx.AsyncClient) -> None:
    await client.put("/v1/files/a", content=b"x")
    await client.get("/v1/files/a")
    await client.get("/v1/files/b")
    await client.request("BREW", "/v1/files/b")

    text = (await client.get("/metrics")).text

    for line in (
        'paxos_gateway_requests_total{method="PUT",route="files",status="201"} 1.0',
        'paxos_gateway_requests_total{method="GET",route="files",status="200"} 1.0',
        'paxos_gateway_requests_total{method="GET",route="files",status="404"} 1.0',
        'paxos_gateway_requests_total{method="other",route="files",status="405"} 1.0',
        "paxos_gateway_requests_in_flight 1.0",
    ):
        assert line in text.splitlines()
