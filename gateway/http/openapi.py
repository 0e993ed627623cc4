"""`/openapi.json`: the API as OpenAPI 3.1, made from `gateway.http.operations`."""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Literal

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from gateway.http.auth import COOKIE
from gateway.http.operation_shapes import HTML, JSON, Needs
from gateway.http.operations import (
    EVERYWHERE,
    OPERATIONS,
    RESPONSE_HEADERS,
    ApiOperation,
    ApiResponse,
)
from gateway.http.parameters import Parameter, Text
from gateway.http.problems import Kind
from gateway.http.schemas import ProblemDocument
from synod.errors import TYPE_PREFIX

PROBLEM_JSON = "application/problem+json"

_ABOUT = """Files that are replicated by consensus: what is acknowledged is on every store.

Each error is `application/problem+json` with a `type` that stays. `aborted`, `unavailable` and
`disk-full` are final: it did not happen and never will. `unknown` is the only one that leaves a
write open: ask `/v1/requests/{request}`, or send it again with the same `Idempotency-Key`.

With a token configured, requests bear it, or the cookie that a browser got for it.
"""

_TAGS = {
    "files": "Contents by path.",
    "directories": "Names below a path.",
    "changes": "Changes of several paths, and watching changes.",
    "observation": "The state of the cluster, and the traces of requests.",
    "quotas": "How much may lie below a path.",
    "audit": "Who did what, and what was refused.",
    "tokens": "API tokens, and what their holders may do.",
    "users": "Who may log in.",
    "groups": "Grants that several users and tokens share.",
    "sessions": "Logging in and out.",
    "membership": "The members of all roles, and their changes.",
    "backup": "The routes of `synod backup`.",
    "pages": "For browsers.",
}

_NEEDS: dict[Needs, str] = {
    "nothing": "",
    "credentials": "Needs a token or a session.",
    "operate": "Needs the role `operate`.",
    "backup": "Needs the role `backup`.",
    "paths": "Needs rights on what the request names.",
}

_RETRY_AFTER = ("How many seconds to wait.", {"type": "string"})

Mode = Literal["validation", "serialization"]


async def openapi(request: Request) -> Response:
    """The endpoint. The document is made at the first request, and kept."""
    body, headers = _encoded()
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body, headers=headers, media_type=JSON)


@cache
def _encoded() -> tuple[bytes, dict[str, str]]:
    body = json.dumps(document(), ensure_ascii=False, separators=(",", ":")).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return body, {"etag": etag, "cache-control": "no-cache"}


@cache
def document() -> dict[str, Any]:
    """The whole description. It does not depend on settings."""
    shapes = _Shapes(OPERATIONS.values())
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in OPERATIONS.items():
        item = paths.setdefault(path, {})
        item[method.lower()] = _operation_json(operation, shapes, head=method == "HEAD")
        if operation.head:
            item["head"] = _operation_json(operation, shapes, head=True)
            item["head"]["operationId"] = f"{operation.name}Head"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Synod",
            "version": version("synod"),
            "summary": "A strongly consistent, replicated file system",
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"bearer": []}, {"cookie": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": shapes.definitions,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The setting `token`, an API token or a session.",
                },
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": "What `/v1/login` sets; it is not the token.",
                },
            },
        },
    }


class _Shapes:
    """The schemas of all bodies, each type once under its own name."""

    def __init__(self, operations: Iterable[ApiOperation]) -> None:
        wanted: dict[tuple[str, Mode], Any] = {}

        def want(shape: Any, mode: Mode) -> None:
            if shape is not None:
                wanted[repr(shape), mode] = shape

        want(ProblemDocument, "serialization")
        for operation in operations:
            for answer in operation.answers:
                want(answer.shape, "serialization")
            for shape in operation.events.values():
                want(shape, "serialization")
            for shape in operation.body.media.values() if operation.body else ():
                want(shape, "validation")
        self._schemas, found = TypeAdapter.json_schemas(
            [(key, key[1], TypeAdapter(shape)) for key, shape in wanted.items()],
            ref_template="#/components/schemas/{model}",
        )
        self.definitions: dict[str, Any] = found.get("$defs", {})

    def of(self, shape: Any, mode: Mode) -> dict[str, Any]:
        """The schema of `shape`: usually a reference to `definitions`."""
        return dict(self._schemas[(repr(shape), mode), mode])


def _operation_json(operation: ApiOperation, shapes: _Shapes, *, head: bool) -> dict[str, Any]:
    about: dict[str, Any] = {
        "tags": [operation.tag],
        "operationId": operation.name,
        "summary": operation.summary,
    }
    about["description"] = f"{operation.description} {_NEEDS[operation.needs]}".strip()
    if operation.parameters:
        about["parameters"] = [_parameter_json(one) for one in operation.parameters]
    if operation.body is not None:
        about["requestBody"] = {
            "description": operation.body.description,
            "required": any(operation.body.media.values()),
            "content": {
                media: {} if model is None else {"schema": shapes.of(model, "validation")}
                for media, model in operation.body.media.items()
            },
        }
    about["responses"] = {
        str(answer.status): _answer_json(answer, operation, shapes, head=head)
        for answer in operation.answers
    } | _problems_json((*operation.problems, *EVERYWHERE), shapes, head=head)
    if operation.open:
        about["security"] = []
    return about


def _parameter_json(parameter: Parameter) -> dict[str, Any]:
    about: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": parameter.schema(),
    }
    # Pages that send requests fill in every example, so only required parameters have one.
    if parameter.place == "path" and isinstance(parameter, Text) and parameter.examples:
        about["examples"] = {value: {"value": value} for value in parameter.examples}
    return about


def _answer_json(
    answer: ApiResponse, operation: ApiOperation, shapes: _Shapes, *, head: bool
) -> dict[str, Any]:
    about: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        about["headers"] = _headers_json({name: RESPONSE_HEADERS[name] for name in answer.headers})
    if head:
        return about
    if answer.shape is not None:
        about["content"] = {JSON: {"schema": shapes.of(answer.shape, "serialization")}}
    elif answer.media is not None:
        about["content"] = {answer.media: {}}
    if operation.events:
        # OpenAPI 3.1 can't describe the events of a stream.
        data = {name: shapes.of(shape, "serialization") for name, shape in operation.events.items()}
        about["content"] = {answer.media: {"schema": {"type": "string"}, "x-events": data}}
    return about


def _problems_json(kinds: Iterable[Kind], shapes: _Shapes, *, head: bool) -> dict[str, Any]:
    by_status: dict[int, list[Kind]] = {}
    for kind in dict.fromkeys(kinds):
        by_status.setdefault(kind.status, []).append(kind)
    found: dict[str, Any] = {}
    for status, those in sorted(by_status.items()):
        about = found[str(status)] = {
            "description": "\n".join(f"- `{kind.name}`: {kind.title}." for kind in those),
        }
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            about["headers"] = _headers_json({"Retry-After": _RETRY_AFTER})
        if head:
            continue
        types = {"properties": {"type": {"enum": [TYPE_PREFIX + kind.name for kind in those]}}}
        problem = shapes.of(ProblemDocument, "serialization")
        about["content"] = {PROBLEM_JSON: {"schema": {"allOf": [problem, types]}}}
        if status == HTTPStatus.UNAUTHORIZED:
            about["content"][HTML] = {}  # A browser gets the login page.
    return found


def _headers_json(headers: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    return {
        name: {"description": text, "schema": schema} for name, (text, schema) in headers.items()
    }
