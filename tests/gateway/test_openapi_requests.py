"""Requests made from `/openapi.json`, as it allows and as it forbids, to a cluster in one process.

Schemathesis makes them, the same ones each time; `SYNOD_EXAMPLES=500` makes many and other ones.
"""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from actors.numbers import COUNT_MAX
from gateway.http import parameters
from gateway.http.openapi import document
from gateway.http.parameters import Text
from tests.long import only_long

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
STREAMS = ("/v1/events", "/v1/watch")

_LONG = int(os.environ.get("SYNOD_EXAMPLES", "0"))
EXAMPLES = settings(
    max_examples=_LONG or 6,
    derandomize=not _LONG,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def _exact(described: dict[str, Any]) -> dict[str, Any]:
    """The description without leave to answer more than it tells, and with examples that hit."""
    whole = copy.deepcopy(described)
    for schema in whole["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    known = {
        (one.name, one.place): one.examples
        for one in vars(parameters).values()
        if isinstance(one, Text)
    }
    for path, item in whole["paths"].items():
        for operation in item.values():
            for one in operation.get("parameters", ()):
                examples = known.get((one["name"], one["in"]), ())
                one["examples"] = {text: {"value": text} for text in examples}
                if one["in"] == "path" and path.endswith("{path}"):
                    # Otherwise hardly two requests would be about one path.
                    one["schema"] = {"anyOf": [{"enum": ["a", "ü b", "c.txt"]}, one["schema"]]}
    return whole


DESCRIBED = _exact(document())
# Parameters that a route does not know are ignored, as by most of HTTP; bodies are not so lenient.
KNOWN_ONLY = SchemathesisConfig.from_dict({"generation": {"allow-extra-parameters": False}})
API = schemathesis.openapi.from_dict(DESCRIBED, config=KNOWN_ONLY)


def _without_waiting(case: Case[Any]) -> None:
    """A slot or a record that is not there yet would be waited for, in vain."""
    wait_s = str((case.query or {}).get("wait_s", ""))
    if wait_s.isdecimal() and int(wait_s) <= 20:
        case.query["wait_s"] = "0"
    slot = str((case.query or {}).get("at_least", ""))
    if slot.isdecimal() and int(slot) <= COUNT_MAX:
        case.query["at_least"] = str(int(slot) % 3)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of one process."""
    folder = tmp_path_factory.mktemp("described")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNOD_")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli.main", "up", "--port", "0", "--data", str(folder)],
            cwd=ROOT,
            env={**kept, "SYNOD_TOKEN": TOKEN},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"Synod is ready at (\S+)\n", line)
            assert found, line
            yield found[1]
        finally:
            process.kill()
            process.communicate()


# To HEAD Starlette answers as to GET, but where it is an endpoint of its own.
@API.exclude(path=list(STREAMS)).exclude(method="HEAD", path_regex="^(?!/v1/files/)").parametrize()
@EXAMPLES
def test_what_is_answered_is_described(case: Case[Any], url: str) -> None:
    _without_waiting(case)
    case.call_and_validate(base_url=url, headers=BEARER, checks=CHECKS)


@only_long
@API.exclude(path=["/healthz", "/readyz", "/v1/login"]).parametrize()
@settings(EXAMPLES, max_examples=_LONG or 2)
def test_without_credentials_every_request_is_refused_alike(case: Case[Any], url: str) -> None:
    """Given any request of the document, valid or not, then only that a token is needed is told."""
    case.headers.pop("Authorization", None)
    case.cookies.clear()
    answer = case.call(base_url=url)
    assert answer.status_code == 401, (case.method, case.path, answer.status_code)
    assert case.method == "HEAD" or answer.json()["type"].endswith("unauthorized")


def test_a_number_that_no_message_could_carry_is_refused(url: str) -> None:
    many = f"={2**53}"
    with httpx.Client(base_url=url, headers=BEARER) as client:
        for target, status in {
            f"/v1/files/a?at_least{many}": 400,
            f"/v1/directories/?at_least{many}": 400,
            f"/v1/log?before{many}": 400,
            f"/v1/log?commands{many}": 400,
            f"/v1/backup/rows?at_least{many}": 400,
            f"/v1/backup/rows?slot{many}": 400,
            f"/v1/backup/rows?page{many}": 400,
            f"/v1/requests/session-{2**53}": 404,
        }.items():
            answer = client.get(target)
            assert (target, answer.status_code) == (target, status)
            assert answer.headers["content-type"] == "application/problem+json"
        # An id that this stream never sent counts as none.
        with client.stream("GET", "/v1/events", headers={"Last-Event-ID": "9" * 5000}) as events:
            assert events.status_code == 200
        made_anew = r"^paxos_node_rebuilds_total\{.*\} (?!0)"
        assert re.search(made_anew, client.get("/metrics").text, re.MULTILINE) is None


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_begins_or_says_why_not(path: str, url: str) -> None:
    statuses = set()

    @EXAMPLES
    @given(case=API[path]["GET"].as_strategy())
    def ask(case: Case[Any]) -> None:
        sent = case.as_transport_kwargs(base_url=url, headers=BEARER)
        known = {name: sent[name] for name in ("params", "headers", "cookies") if name in sent}
        with httpx.stream(sent["method"], sent["url"], **known) as answer:
            statuses.add(answer.status_code)
            if answer.status_code == 200:
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert next(answer.iter_bytes()).startswith(b"retry: 1000\n\n")
                return
            answer.read()
            case.validate_response(answer, checks=CHECKS)

    ask()
    assert 200 in statuses


def _events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in answer.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def _hear(
    client: httpx.Client,
    path: str,
    query: dict[str, str],
    wanted: set[str],
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Subscribe until all `wanted` events came; each event must match its description."""
    responses = DESCRIBED["paths"][path]["get"]["responses"]
    shapes = responses["200"]["content"]["text/event-stream"]["x-events"]
    with client.stream("GET", path, params=query) as answer:
        events = _events(answer)
        missing = set(wanted)
        meanwhile()
        while missing:
            name, data = next(events)
            schema = {**shapes[name], "components": DESCRIBED["components"]}
            jsonschema_rs.validate(schema, data)
            missing -= {name, data.get("kind")}


def test_events_are_as_described(url: str) -> None:
    with httpx.Client(base_url=url, headers=BEARER, timeout=10) as client:

        def change() -> None:
            client.put("/v1/files/seen/a", content=b"1")
            client.put("/v1/directories/seen/b/c")
            client.post("/v1/move", json={"source": "seen/a", "target": "seen/b/a"})
            client.post("/v1/copy", json={"source": "seen/b", "target": "seen/d"})
            client.delete("/v1/files/seen/b/a")
            client.delete("/v1/directories/seen/b?recursive=true")

        kinds = {"put", "make_directory", "move", "copy", "delete", "remove_directory"}
        _hear(client, "/v1/watch", {"prefix": "seen/"}, {"ready", *kinds}, change)
        _hear(client, "/v1/watch", {"after": "999999999"}, {"reset"})
        topics = {"topics": "cluster,requests,log", "figures_after": "0", "after": "0"}
        told = {"history", "figures", "cluster", "requests", "log"}
        _hear(client, "/v1/events", topics, told)


def test_a_token_is_checked_by_the_replicas_of_a_cluster(url: str) -> None:
    """Given a token for one directory, then it opens that until it is revoked, and nothing else."""
    away = {"source": "granted/a", "target": "b"}
    grants = {"grants": [{"role": "write", "path": "granted"}], "expires_after_ms": 3_600_000}
    with httpx.Client(base_url=url, headers=BEARER) as root:
        made = root.post("/v1/tokens", json=grants).json()
        with_it = {"Authorization": f"Bearer {made['token']}"}
        with httpx.Client(base_url=url, headers=with_it) as client:

            def statuses() -> list[int]:
                return [
                    client.put("/v1/files/granted/a", content=b"x" * 40_000).status_code // 100,
                    client.get("/v1/files/granted/a").status_code,
                    client.put("/v1/files/elsewhere", content=b"1").status_code,
                    client.get("/v1/files/elsewhere").status_code,
                    client.post("/v1/move", json=away).status_code,
                    client.get("/v1/log").status_code,
                    client.get(f"/v1/chunks/{'0' * 64}").status_code,
                ]

            assert statuses() == [2, 200, 403, 403, 403, 403, 403]
            assert root.delete(f"/v1/tokens/{made['id']}").status_code == 204
            assert statuses() == [4, 401, 401, 401, 401, 401, 401]
