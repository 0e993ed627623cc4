"""`POST /v1/move`, `/v1/copy`, `/v1/transactions`: changes of several paths, all or nothing."""

import base64
import json
import time
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.calls import WriteDecided
from actors.state.rights import Need
from actors.values import (
    ALWAYS,
    AnyStep,
    Check,
    CopyEntry,
    DeleteFile,
    MakeDirectory,
    MoveEntry,
    PutFile,
    RemoveDirectory,
    Transaction,
)
from gateway.callers import Caller, caller_of
from gateway.cluster import Cluster
from gateway.http.chunk_keeping import KeptChunks
from gateway.http.conditional import precondition_of_members, refuse_conditions
from gateway.http.contents import TEXT_BYTES_MAX, ContentTransfer
from gateway.http.files import run_write, written_headers
from gateway.http.headers import header_fields
from gateway.http.idempotency import RunningKeys, idempotency_key
from gateway.http.metadata import stored_meta
from gateway.http.parameters import RETRY
from gateway.http.problems import INVALID_PATH, INVALID_REQUEST, TOO_LARGE, Problem
from gateway.http.small_bodies import check_json
from synod.metadata import (
    CONTENT_TYPE_BYTES_MAX,
    DEFAULT_CONTENT_TYPE,
    MODIFIED_MS_MAX,
    MODIFIED_MS_MIN,
    InvalidMetadata,
    checked,
)
from synod.paths import InvalidPath, checked_path
from synod.tags import Tags

BODY_BYTES_MAX = TEXT_BYTES_MAX
"""The largest body; clients put larger contents to a path of their own first and move them."""

STEPS_MAX = 1000
_CONDITIONS = ("if-match", "if-none-match", "if-unmodified-since")

_Body = TypeVar("_Body", bound="Strict")


class Strict(BaseModel):
    """A part of a request's body; unknown members are refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Transfer(Strict):
    """The body of a move or a copy, and such a step of a transaction."""

    source: str
    target: str
    overwrite: bool = False
    if_match: Tags = None
    if_none_match: Tags = None
    target_if_match: Tags = None
    target_if_none_match: Tags = None

    def operation(self, kind: type[MoveEntry] | type[CopyEntry]) -> MoveEntry | CopyEntry:
        """The operation for the log. Raises `Problem`."""
        return kind(
            source=_path(self.source),
            target=_path(self.target),
            overwrite=self.overwrite,
            when=precondition_of_members(self.if_match, self.if_none_match),
            target_when=precondition_of_members(
                self.target_if_match, self.target_if_none_match, "target_"
            ),
        )


class MoveStep(Transfer):
    """A step that moves."""

    op: Literal["move"]


class CopyStep(Transfer):
    """A step that copies."""

    op: Literal["copy"]


class PutStep(Strict):
    """A step that writes a file, of `text` or of `base64`."""

    op: Literal["put"]
    path: str
    text: str | None = None
    base64: str | None = None
    content_type: str = Field(DEFAULT_CONTENT_TYPE, max_length=CONTENT_TYPE_BYTES_MAX)
    modified_ms: int | None = Field(None, ge=MODIFIED_MS_MIN, le=MODIFIED_MS_MAX)
    executable: bool = False
    meta: dict[str, str] = Field(default_factory=dict)
    if_match: Tags = None
    if_none_match: Tags = None

    def data(self) -> bytes:
        """The contents. Raises `ValueError`."""
        if (self.text is None) == (self.base64 is None):
            raise ValueError("give either text or base64")
        if self.text is not None:
            return self.text.encode()
        return base64.b64decode(self.base64 or "", validate=True)


class DeleteStep(Strict):
    """A step that removes a file."""

    op: Literal["delete"]
    path: str
    if_match: Tags = None
    if_none_match: Tags = None


class MakeDirectoryStep(Strict):
    """A step that makes a directory."""

    op: Literal["mkdir"]
    path: str


class RemoveDirectoryStep(Strict):
    """A step that removes a directory."""

    op: Literal["rmdir"]
    path: str
    recursive: bool = False


class CheckStep(Strict):
    """A step that only checks a condition."""

    op: Literal["check"]
    path: str
    if_match: Tags = None
    if_none_match: Tags = None


AnyStepBody = Annotated[
    MoveStep
    | CopyStep
    | PutStep
    | DeleteStep
    | MakeDirectoryStep
    | RemoveDirectoryStep
    | CheckStep,
    Field(discriminator="op"),
]


class Steps(Strict):
    """The body of a transaction."""

    steps: list[AnyStepBody] = Field(min_length=1, max_length=STEPS_MAX)


class TransactionEndpoints:
    """The endpoints."""

    def __init__(self, cluster: Cluster, contents: ContentTransfer, keys: RunningKeys) -> None:
        self._cluster = cluster
        self._contents = contents
        self._keys = keys

    async def move(self, request: Request) -> Response:
        """Move a file or a directory."""
        return await self._transfer(request, MoveEntry)

    async def copy(self, request: Request) -> Response:
        """Copy a file or a directory."""
        return await self._transfer(request, CopyEntry)

    async def _transfer(
        self, request: Request, kind: type[MoveEntry] | type[CopyEntry]
    ) -> Response:
        fields = header_fields(request.scope)
        body, _ = await _read(request, fields, self._contents, Transfer)
        operation = body.operation(kind)
        target = json.dumps(operation.model_dump(mode="json"))
        method = f"POST/{operation.kind}"
        decided = await run_write(
            self._cluster,
            caller_of(request.scope),
            self._keys,
            method,
            target,
            fields,
            operation,
        )
        about = {"source": operation.source, "target": operation.target}
        return _answer(decided, {**about, "created": decided.outcome.created})

    async def transaction(self, request: Request) -> Response:
        """Run several steps, all or none."""
        fields = header_fields(request.scope)
        retry = RETRY.of(fields)
        body, digest = await _read(request, fields, self._contents, Steps)
        caller = caller_of(request.scope)
        with self._keys.claim(fields, caller) as key:
            async with self._contents.uploading() as kept:
                steps = [
                    await self._step(caller, n, step, kept) for n, step in enumerate(body.steps)
                ]
                named = idempotency_key(key, "POST/transactions", digest, fields)
                decided = await self._cluster.write(
                    caller, Transaction(steps=tuple(steps)), named, retry_aborted=retry
                )
        return _answer(decided, {"steps": len(steps)})

    async def _step(
        self, caller: Caller, number: int, step: AnyStepBody, kept: KeptChunks
    ) -> AnyStep:
        try:
            return await self._operation(caller, step, kept)
        except Problem as problem:
            raise Problem(
                problem.kind,
                f"step {number}: {problem.detail}",
                headers=problem.headers,
                fields={**problem.fields, "step": number},
            ) from None

    async def _operation(self, caller: Caller, step: AnyStepBody, kept: KeptChunks) -> AnyStep:
        match step:
            case MoveStep():
                return step.operation(MoveEntry)
            case CopyStep():
                return step.operation(CopyEntry)
            case PutStep():
                return await self._put(caller, step, kept)
            case MakeDirectoryStep():
                return MakeDirectory(path=_path(step.path))
            case RemoveDirectoryStep():
                return RemoveDirectory(path=_path(step.path), recursive=step.recursive)
            case DeleteStep():
                when = precondition_of_members(step.if_match, step.if_none_match)
                return DeleteFile(path=_path(step.path), when=when)
            case CheckStep():
                when = precondition_of_members(step.if_match, step.if_none_match)
                if when is ALWAYS:
                    raise Problem(INVALID_REQUEST, "a check needs if_match or if_none_match")
                return Check(path=_path(step.path), when=when)

    async def _put(self, caller: Caller, step: PutStep, kept: KeptChunks) -> PutFile:
        path = _path(step.path)
        await self._cluster.refuse_unless_may(caller, (Need("write", path),))
        try:
            data = step.data()
        except ValueError as error:
            raise Problem(INVALID_REQUEST, f"{path!r}: {error}") from None
        try:
            said = checked(step.content_type, step.modified_ms, step.executable, step.meta.items())
        except InvalidMetadata as error:
            raise Problem(INVALID_REQUEST, f"{path!r}: {error}") from None
        modified_ms = said.modified_ms
        return PutFile(
            path=path,
            content=await self._contents.keep(data, kept),
            content_type=said.content_type,
            modified_ms=time.time_ns() // 1_000_000 if modified_ms is None else modified_ms,
            executable=said.executable,
            meta=stored_meta(said),
            when=precondition_of_members(step.if_match, step.if_none_match),
        )


def _answer(decided: WriteDecided, about: dict[str, Any]) -> Response:
    body = {
        **about,
        "etag": decided.outcome.etag,
        "request": decided.request,
        "slot": decided.outcome.slot,
        "retried": decided.retried,
    }
    return JSONResponse(body, headers=written_headers(decided))


async def _read(
    request: Request, fields: dict[str, str], contents: ContentTransfer, kind: type[_Body]
) -> tuple[_Body, str]:
    """The body, and its text for the fingerprint. Raises `Problem`."""
    refuse_conditions(fields, _CONDITIONS, "conditions are members of the body")
    check_json(request.scope)
    body = await contents.text(fields, request.receive, BODY_BYTES_MAX, _too_large)
    try:
        read = kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Problem(INVALID_REQUEST, f"{where}: {first['msg']}") from None
    return read, read.model_dump_json()


def _too_large() -> Problem:
    return Problem(
        TOO_LARGE,
        f"the body has more than {BODY_BYTES_MAX} bytes; put large contents to a path of their own "
        "first, and move them in the transaction",
    )


def _path(text: str) -> str:
    try:
        return checked_path(text)
    except InvalidPath as error:
        raise Problem(INVALID_PATH, f"{error}") from None
