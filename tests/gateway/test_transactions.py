"""Move, copy and transactions over HTTP: their effects, refusals and messages."""

import base64
import os
from typing import Any

import httpx
import pytest

from actors.values import Inline, PutFile, Transaction
from gateway.http.transactions import BODY_BYTES_MAX
from tests.gateway.fake import FakeCluster
from tests.gateway.problems import refused_as


async def _put(client: httpx.AsyncClient, path: str, data: bytes = b"x") -> str:
    answer = await client.put(f"/v1/files/{path}", content=data)
    assert answer.status_code in (200, 201)
    return answer.headers["etag"].strip('"')


async def _names(client: httpx.AsyncClient, path: str) -> list[str]:
    answer = await client.get(f"/v1/directories/{path}")
    return [entry["name"] for entry in answer.json()["entries"]]


async def test_a_directory_moves_whole_and_the_answer_names_slot_and_tag(
    client: httpx.AsyncClient,
) -> None:
    await _put(client, "a/b/1")
    await _put(client, "a/2")

    answer = await client.post("/v1/move", json={"source": "a", "target": "x/y"})

    assert answer.status_code == 200
    body = answer.json()
    assert (body["source"], body["target"], body["created"]) == ("a", "x/y", True)
    assert answer.headers["synod-request-id"] == body["request"]
    assert answer.headers["synod-slot"] == str(body["slot"])
    assert await _names(client, "") == ["x"]
    moved = await client.head("/v1/files/x/y/b/1")
    assert moved.headers["etag"] == f'"{body["etag"]}"'


async def test_a_copy_shares_contents_and_keeps_the_source(client: httpx.AsyncClient) -> None:
    await _put(client, "a", b"hello")

    await client.post("/v1/copy", json={"source": "a", "target": "b"})

    assert (await client.get("/v1/files/b")).content == b"hello"
    assert await _names(client, "") == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "says"),
    [
        ({"source": "no", "target": "z"}, 404, "not-found", "'no' does not exist"),
        ({"source": "a", "target": "b"}, 409, "conflict", "'b' exists already"),
        ({"source": "d", "target": "d/in"}, 409, "conflict", "lies inside"),
        ({"source": "a", "target": "d", "overwrite": True}, 409, "conflict", "is a directory"),
        ({"source": "e", "target": "d", "overwrite": True}, 409, "not-empty", "'d' is not empty"),
        ({"source": "", "target": "z"}, 409, "conflict", "the root"),
        ({"source": "a", "target": "z", "if_match": "9-9"}, 412, "precondition-failed", "'a'"),
        ({"source": "a", "target": "../z"}, 400, "invalid-path", "'..'"),
        ({"source": "a"}, 400, "invalid-request", "target"),
        ({"source": "a", "target": "z", "force": True}, 400, "invalid-request", "force"),
        ({"source": "a", "target": "z", "overwrite": "yes"}, 400, "invalid-request", "overwrite"),
    ],
)
async def test_moves_that_are_refused(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, kind: str, says: str
) -> None:
    for path in ("a", "b", "d/in", "e/in"):
        await _put(client, path)

    answer = await client.post("/v1/move", json=body)

    problem = refused_as(answer, status, kind)
    assert says in problem["detail"]
    assert await _names(client, "") == ["a", "b", "d", "e"]


async def test_conditions_hold_for_either_end(client: httpx.AsyncClient) -> None:
    first, second = await _put(client, "a"), await _put(client, "b", b"y")
    about = {"source": "a", "target": "b", "overwrite": True}

    stale = await client.post("/v1/move", json={**about, "target_if_match": first})
    fresh = await client.post(
        "/v1/move", json={**about, "if_match": [first], "target_if_match": f'"{second}"'}
    )

    problem = refused_as(stale, 412, "precondition-failed")
    assert (problem["path"], problem["current_etag"]) == ("b", second)
    assert (fresh.status_code, fresh.json()["created"]) == (200, False)


async def test_a_condition_in_a_header_is_refused_rather_than_ignored(
    client: httpx.AsyncClient,
) -> None:
    await _put(client, "a")

    answer = await client.post(
        "/v1/move", json={"source": "a", "target": "b"}, headers={"if-match": '"1-0"'}
    )

    refused_as(answer, 400, "invalid-header")


async def test_other_pages_can_not_post_without_asking(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/move",
        content=b'{"source": "a", "target": "b"}',
        headers={"content-type": "text/plain"},
    )

    refused_as(answer, 415, "not-json")


async def test_a_move_with_a_key_is_applied_once(client: httpx.AsyncClient) -> None:
    await _put(client, "a")
    about = {"json": {"source": "a", "target": "b"}, "headers": {"idempotency-key": "k"}}

    first = await client.post("/v1/move", **about)  # type: ignore[arg-type]
    again = await client.post("/v1/move", **about)  # type: ignore[arg-type]
    other = await client.post("/v1/copy", **about)  # type: ignore[arg-type]

    assert first.status_code == again.status_code == 200
    assert first.json()["slot"] == again.json()["slot"]
    refused_as(other, 422, "key-reused")


async def test_a_transaction_does_everything_at_one_slot(client: httpx.AsyncClient) -> None:
    tag = await _put(client, "current", b"old")
    large = os.urandom(100_000)
    steps = [
        {"op": "check", "path": "current", "if_match": tag},
        {"op": "check", "path": "lock", "if_none_match": "*"},
        {"op": "copy", "source": "current", "target": "backup/current"},
        {"op": "put", "path": "current", "text": "new", "content_type": "text/plain"},
        {"op": "put", "path": "blob", "base64": base64.b64encode(large).decode()},
        {"op": "mkdir", "path": "empty"},
        {"op": "move", "source": "blob", "target": "data/blob"},
    ]

    answer = await client.post("/v1/transactions", json={"steps": steps})

    assert answer.status_code == 200
    assert answer.json()["steps"] == len(steps)
    assert await _names(client, "") == ["backup", "current", "data", "empty"]
    assert (await client.get("/v1/files/backup/current")).content == b"old"
    assert (await client.get("/v1/files/data/blob")).content == large
    current = await client.get("/v1/files/current")
    assert (current.text, current.headers["content-type"]) == ("new", "text/plain")
    assert current.headers["synod-slot"] == answer.headers["synod-slot"]


async def test_a_step_that_is_refused_is_named_and_nothing_happens(
    client: httpx.AsyncClient,
) -> None:
    steps = [
        {"op": "put", "path": "a", "text": "1"},
        {"op": "delete", "path": "b"},
    ]

    answer = await client.post("/v1/transactions", json={"steps": steps})

    problem = refused_as(answer, 404, "not-found")
    assert problem["step"] == 1
    assert problem["detail"] == "step 1: 'b' does not exist"
    assert await _names(client, "") == []


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([], "steps"),
        ([{"op": "put", "path": "a"}], "step 0: 'a': give either text or base64"),
        ([{"op": "put", "path": "a", "base64": "%"}], "step 0"),
        ([{"op": "put", "path": "a", "text": "1", "meta": {"x": "a\nb"}}], "step 0"),
        ([{"op": "check", "path": "a"}], "step 0: a check needs"),
        ([{"op": "put", "path": "a", "text": "1"}, {"op": "delete", "path": "/a"}], "step 1"),
        ([{"op": "burn", "path": "a"}], "steps.0"),
        ([{"op": "mkdir", "path": "a", "recursive": True}], "steps.0"),
    ],
)
async def test_steps_that_can_not_be_understood_are_named(
    client: httpx.AsyncClient, cluster: FakeCluster, steps: list[Any], says: str
) -> None:
    answer = await client.post("/v1/transactions", json={"steps": steps})

    assert answer.status_code == 400
    assert says in answer.json()["detail"]
    assert cluster.submitted() == []


async def test_small_contents_travel_in_the_command(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    await client.post("/v1/transactions", json={"steps": [{"op": "put", "path": "a", "text": "ü"}]})

    operation = cluster.submitted()[-1].operation
    assert isinstance(operation, Transaction)
    assert isinstance(operation.steps[0], PutFile)
    assert isinstance(operation.steps[0].content, Inline)
    assert operation.steps[0].content.data == "ü".encode()


async def test_a_body_that_is_too_large_says_what_to_do(client: httpx.AsyncClient) -> None:
    steps = [{"op": "put", "path": "a", "text": "x" * BODY_BYTES_MAX}]

    answer = await client.post("/v1/transactions", json={"steps": steps})

    assert "move them" in refused_as(answer, 413, "too-large")["detail"]


@pytest.mark.parametrize(
    ("given", "happens"),
    [
        ('W/"{}"', False),
        ('"{}"', False),
        ("{}", False),
        (["1-1", 'W/"{}"'], False),
        ('"1-1", W/"{}"', False),
        ("*", False),
        (["*"], False),
        ('"*"', True),
        ('W/"*"', True),
        (["1-1"], True),
    ],
)
async def test_no_form_of_a_tag_loses_an_update(
    client: httpx.AsyncClient, given: str | list[str], happens: bool
) -> None:
    """A write that must not meet the current version does not replace it, however it says so."""
    tag = (await client.put("/v1/files/a", content=b"1")).headers["etag"].strip('"')
    texts = given.format(tag) if isinstance(given, str) else [one.format(tag) for one in given]
    step = {"op": "put", "path": "a", "text": "2", "if_none_match": texts}

    answer = await client.post("/v1/transactions", json={"steps": [step]})

    assert answer.status_code == (200 if happens else 412)
    assert (await client.get("/v1/files/a")).text == ("2" if happens else "1")


@pytest.mark.parametrize("given", [[], "", [""], ["*", "1-0"], "1-0 2-0", "'1-0'", "W/1-0", '"1-0'])
async def test_what_names_no_tag_is_refused_in_a_body(
    client: httpx.AsyncClient, given: str | list[str]
) -> None:
    for about in ({"if_match": given}, {"if_none_match": given}):
        step = {"op": "put", "path": "a", "text": "2", **about}
        answer = await client.post("/v1/transactions", json={"steps": [step]})

        refused_as(answer, 400, "invalid-request")
    answer = await client.post(
        "/v1/move", json={"source": "a", "target": "b", "target_if_match": given}
    )
    assert "target_if_match" in refused_as(answer, 400, "invalid-request")["detail"]
