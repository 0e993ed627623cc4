"""`/v1/files/{path}`: PUT, GET, HEAD, DELETE."""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from actors.calls import WriteDecided
from actors.messages import ReadRequest
from actors.state.rights import Need
from actors.values import DeleteFile, DirectoryEntry, FileEntry, Operation, PutFile
from gateway.callers import Caller, caller_of
from gateway.cluster import Cluster
from gateway.http.chunk_keeping import first_error
from gateway.http.client_timeouts import ClientTooSlow
from gateway.http.conditional import holds, precondition, refuse_conditions
from gateway.http.contents import ContentTransfer
from gateway.http.headers import header_fields, query_fields
from gateway.http.idempotency import RunningKeys, idempotency_key
from gateway.http.metadata import entry_headers, metadata, stored_meta
from gateway.http.parameters import AT_LEAST, CONSISTENCY, RETRY
from gateway.http.problems import (
    CONFLICT,
    DIGEST_MISMATCH,
    INVALID_HEADER,
    NOT_FOUND,
    PRECONDITION_FAILED,
    RANGE_NOT_SATISFIABLE,
    UNAVAILABLE,
    UNSUPPORTED_CODING,
    Problem,
)
from gateway.http.ranges import Unsatisfiable, byte_range, range_still_holds
from gateway.http.schemas import FileWritten
from synod.headers import InvalidDigest, digest_header, sha256_of_digest
from synod.paths import path_to_url

_DATES_ARE_WEAK = "modification times come from clients; use If-Match with an ETag"


class ResponseCutOff(Exception):
    """A download failed midway; the connection must be closed, so that the client notices."""


class FileEndpoints:
    """The endpoints for files."""

    def __init__(self, cluster: Cluster, contents: ContentTransfer, keys: RunningKeys) -> None:
        self._cluster = cluster
        self._contents = contents
        self._keys = keys

    async def put(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Create or replace a file."""
        fields = header_fields(scope)
        caller = caller_of(scope)
        await self._cluster.refuse_unless_may(caller, (Need("write", path),))
        _refuse_root(path)
        _refuse_unsupported_headers(fields)
        when = precondition(fields)
        described = metadata(fields)
        retry = RETRY.of(fields)
        with self._keys.claim(fields, caller) as key:
            async with self._contents.uploading() as kept:
                content = await self._contents.store_body(fields, receive, kept)
                _check_digest(fields, content.sha256)
                modified_ms = described.modified_ms
                operation = PutFile(
                    path=path,
                    content=content,
                    content_type=described.content_type,
                    modified_ms=time.time_ns() // 1_000_000 if modified_ms is None else modified_ms,
                    executable=described.executable,
                    meta=stored_meta(described),
                    when=when,
                )
                named = idempotency_key(key, "PUT", path, fields, content.sha256)
                decided = await self._cluster.write(caller, operation, named, retry_aborted=retry)
        outcome = decided.outcome
        written: FileWritten = {
            "path": path,
            "created": outcome.created,
            "etag": outcome.etag,
            "sha256": content.sha256,
            "request": decided.request,
            "slot": outcome.slot,
            "retried": decided.retried,
        }
        body = to_json(written)
        headers = written_headers(decided)
        headers["content-type"] = "application/json"
        headers["content-length"] = str(len(body))
        headers["etag"] = f'"{outcome.etag}"'
        headers["repr-digest"] = digest_header(content.sha256)
        if outcome.created:
            headers["location"] = f"/v1/files/{path_to_url(path)}"
        await send_head(send, 201 if outcome.created else 200, headers)
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def delete(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Remove a file."""
        fields = header_fields(scope)
        _refuse_root(path)
        refuse_conditions(fields, ("if-unmodified-since",), _DATES_ARE_WEAK)
        operation = DeleteFile(path=path, when=precondition(fields))
        decided = await run_write(
            self._cluster, caller_of(scope), self._keys, "DELETE", path, fields, operation
        )
        response = Response(status_code=HTTPStatus.NO_CONTENT, headers=written_headers(decided))
        await response(scope, receive, send)

    async def get(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond with a file's contents, or the part of it that Range requests."""
        fields = header_fields(scope)
        entry, headers = await self._current(path, scope, fields)
        size = entry.content.size
        status, start, stop = HTTPStatus.OK, 0, size
        if range_still_holds(fields.get("if-range"), entry.etag):
            try:
                wanted = byte_range(fields.get("range"), size)
            except Unsatisfiable as error:
                raise Problem(
                    RANGE_NOT_SATISFIABLE,
                    f"{error} lies outside of the file's {size} bytes",
                    headers={"content-range": f"bytes */{size}"},
                ) from None
            if wanted is not None:
                start, stop = wanted
                status = HTTPStatus.PARTIAL_CONTENT
                headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
        headers["content-length"] = str(stop - start)
        whole = await self._contents.small(entry.content)
        if whole is not None:
            body = whole if len(whole) == stop - start else whole[start:stop]
            await send_head(send, status, headers)
            await send({"type": "http.response.body", "body": body, "more_body": False})
            return
        async with self._contents.downloading() as kept:
            names = await self._contents.chunk_names(entry.content, kept)
            if (start, stop) != (0, size):
                names, start_in_chunk = await self._contents.chunks_of_range(names, start, stop)
            else:
                start_in_chunk = 0
            download = _Download(self._contents, int(status), headers, names, size)
            await download.run(start_in_chunk, stop - start, receive, send)

    async def head(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond as to GET, without the contents."""
        entry, headers = await self._current(path, scope, header_fields(scope))
        headers["content-length"] = str(entry.content.size)
        await send_head(send, HTTPStatus.OK, headers)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _current(
        self, path: str, scope: Scope, fields: dict[str, str]
    ) -> tuple[FileEntry, dict[str, str]]:
        """The file as it is now, if the conditions hold. Raises `Problem`."""
        when = precondition(fields)
        request = read_request(path, "entry", query_fields(scope))
        done = await self._cluster.read(caller_of(scope), request)
        state = {"synod-slot": str(done.reply.applied), "synod-store": done.store}
        entry = done.reply.entry
        if entry is None:
            if when.if_match is not None:
                raise Problem(PRECONDITION_FAILED, "the file does not exist", headers=state)
            raise Problem(NOT_FOUND, f"there is no file {path!r}", headers=state)
        if isinstance(entry, DirectoryEntry):
            raise Problem(
                CONFLICT,
                f"{path!r} is a directory; list it at /v1/directories/{path_to_url(path)}",
                headers=state,
                fields={"found": "directory"},
            )
        if when.if_match is not None and not holds(when.if_match, entry.etag):
            raise Problem(
                PRECONDITION_FAILED, f'the current version is "{entry.etag}"', headers=state
            )
        headers = {**entry_headers(entry), **state}
        if when.if_none_match is not None and holds(when.if_none_match, entry.etag):
            raise NotModified(headers)
        return entry, headers


class NotModified(Exception):
    """304: the client has the current version. An exception, because it ends a request anywhere."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__()
        kept = ("etag", "cache-control", "last-modified", "synod-slot", "synod-store")
        self.headers = {name: headers[name] for name in kept}

    def response(self) -> Response:
        """The response to the client."""
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=self.headers)


class _Download:
    """One response with contents. Its head is sent with the first bytes, not before."""

    def __init__(
        self,
        contents: ContentTransfer,
        status: int,
        headers: dict[str, str],
        names: tuple[str, ...],
        size: int,
    ) -> None:
        self._contents = contents
        self._size = size
        self._status = status
        self._headers = headers
        self._names = names
        self._started = False

    async def run(self, start: int, length: int, receive: Receive, send: Send) -> None:
        left = length

        async def sink(piece: bytes) -> None:
            nonlocal left
            left -= len(piece)
            await self._begin(send)
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})

        if length == 0:
            await sink(b"")
            return
        try:
            if len(self._names) == 1:
                await self._contents.send_chunks(self._names, self._size, start, length, sink)
            else:
                async with asyncio.TaskGroup() as group:
                    watch = group.create_task(_until_gone(receive, lambda: left == 0))
                    await self._contents.send_chunks(self._names, self._size, start, length, sink)
                    watch.cancel()
        except Exception as error:
            first = first_error(error)
            if self._started or isinstance(first, ClientTooSlow):
                raise ResponseCutOff(f"{type(first).__name__}: {first}") from error
            raise first from None
        if left and not self._started:
            raise Problem(
                UNAVAILABLE,
                f"The file can't be read: its chunks hold {left} bytes less than its size says.",
                headers={"retry-after": "1"},
            )
        if left:
            raise ResponseCutOff(f"the chunks hold {left} bytes less than the file")

    async def _begin(self, send: Send) -> None:
        if not self._started:
            self._started = True
            await send_head(send, self._status, self._headers)


async def _until_gone(receive: Receive, complete: Callable[[], bool]) -> None:
    """Raise if the client disconnects; the server also reports that after the last byte."""
    while (await receive())["type"] != "http.disconnect":
        pass
    if not complete():
        raise ResponseCutOff("the client went away")


async def run_write(
    cluster: Cluster,
    caller: Caller,
    keys: RunningKeys,
    method: str,
    target: str,
    fields: dict[str, str],
    operation: Operation,
    digest: str = "",
) -> WriteDecided:
    """A write of `caller` without contents; `digest` is that of the request's body. Raises
    `Problem`.
    """
    retry = RETRY.of(fields)
    with keys.claim(fields, caller) as key:
        named = idempotency_key(key, method, target, fields, digest)
        return await cluster.write(caller, operation, named, retry_aborted=retry)


def written_headers(decided: WriteDecided) -> dict[str, str]:
    """The headers of every response to a write."""
    return {"synod-request-id": decided.request, "synod-slot": str(decided.outcome.slot)}


def read_request(path: str, what: Any, query: dict[str, str], **rest: Any) -> ReadRequest:
    """A read request with the parameters `?consistency=` and `?at_least=`. Raises `Problem`."""
    stale = CONSISTENCY.of(query) == "stale"
    return ReadRequest(
        number=0,
        what=what,
        path=path,
        consistency="stale" if stale else "linearizable",
        at_least=AT_LEAST.of(query),
        **rest,
    )


async def send_head(send: Send, status: int, headers: dict[str, str]) -> None:
    """Start a response whose body follows."""
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": int(status), "headers": raw})


def _refuse_root(path: str) -> None:
    if not path:
        raise Problem(
            CONFLICT, "the root is a directory, not a file", fields={"found": "directory"}
        )


def _refuse_unsupported_headers(fields: dict[str, str]) -> None:
    """Refuse a PUT of which a part would be lost: it must not seem to succeed (RFC 9110)."""
    refuse_conditions(fields, ("if-unmodified-since",), _DATES_ARE_WEAK)
    coding = fields.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise Problem(UNSUPPORTED_CODING, f"Content-Encoding: {coding[:40]} would not be kept")
    if "content-range" in fields:
        raise Problem(INVALID_HEADER, "Content-Range: parts of a file can't be written")


def _check_digest(fields: dict[str, str], sha256: str) -> None:
    for name in ("repr-digest", "content-digest"):
        try:
            claimed = sha256_of_digest(fields.get(name), name)
        except InvalidDigest as error:
            raise Problem(INVALID_HEADER, f"{error}") from None
        if claimed is not None and claimed != sha256:
            raise Problem(
                DIGEST_MISMATCH,
                f"{name} says {claimed}, the body that came has {sha256}; nothing was written",
            )
