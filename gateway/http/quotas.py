"""`/v1/quotas/{path}`: how much may lie below a path, and how much does."""

from http import HTTPStatus

from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from actors.messages import QuotaInfo, ReadRequest
from actors.numbers import COUNT_MAX
from actors.state.rights import Need
from actors.values import RemoveQuota, SetQuota
from gateway.callers import Caller, caller_of, forbidden
from gateway.cluster import Cluster
from gateway.http.files import run_write, written_headers
from gateway.http.headers import header_fields
from gateway.http.idempotency import RunningKeys
from gateway.http.problems import INVALID_REQUEST, Problem
from gateway.http.schemas import QuotaItem, QuotaList, QuotaSet
from gateway.http.small_bodies import check_json, read_small_body
from gateway.http.transactions import Strict

_NO_STORE = {"cache-control": "no-store"}


class QuotaBody(Strict):
    """The body that sets a quota: the most entries and bytes of contents; `null`: any number."""

    entries: int | None = Field(None, ge=0, le=COUNT_MAX)
    bytes: int | None = Field(None, ge=0, le=COUNT_MAX)


class QuotaEndpoints:
    """The endpoints."""

    def __init__(self, cluster: Cluster, keys: RunningKeys) -> None:
        self._cluster = cluster
        self._keys = keys

    async def get(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """The quotas at and below a path, and what is used of each."""
        asked = ReadRequest(number=0, what="quotas", path=path)
        reply = (await self._cluster.read(caller_of(scope), asked)).reply
        body: QuotaList = {"quotas": [_item(info) for info in reply.quotas]}
        await JSONResponse(body, headers=_NO_STORE)(scope, receive, send)

    async def put(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Set the quota of a path. Raises `Problem`."""
        check_json(scope)
        caller = caller_of(scope)
        _refuse_early(caller, path)
        try:
            asked = QuotaBody.model_validate_json(await read_small_body(Request(scope, receive)))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the body"
            raise Problem(INVALID_REQUEST, f"{where}: {first['msg']}") from None
        if asked.entries is None and asked.bytes is None:
            raise Problem(INVALID_REQUEST, "the body bounds entries, bytes or both")
        operation = SetQuota(path=path, entries_max=asked.entries, bytes_max=asked.bytes)
        method = f"PUT/quotas/{asked.entries}/{asked.bytes}"
        decided = await run_write(
            self._cluster, caller, self._keys, method, path, header_fields(scope), operation
        )
        body: QuotaSet = {
            "path": path,
            "entries": asked.entries,
            "bytes": asked.bytes,
            "request": decided.request,
            "slot": decided.outcome.slot,
        }
        await JSONResponse(body, headers=written_headers(decided))(scope, receive, send)

    async def delete(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Remove the quota of a path. Raises `Problem`."""
        caller = caller_of(scope)
        _refuse_early(caller, path)
        operation = RemoveQuota(path=path)
        fields = header_fields(scope)
        decided = await run_write(
            self._cluster, caller, self._keys, "DELETE/quotas", path, fields, operation
        )
        response = Response(status_code=HTTPStatus.NO_CONTENT, headers=written_headers(decided))
        await response(scope, receive, send)


def _refuse_early(caller: Caller, path: str) -> None:
    """Raise `Problem` if the log would refuse the caller."""
    above = path.rpartition("/")[0]
    if not caller.rights.may("admin", above):
        raise forbidden(Need("admin", above).text)


def _item(info: QuotaInfo) -> QuotaItem:
    return {
        "path": info.path,
        "entries": info.entries_max,
        "bytes": info.bytes_max,
        "used_entries": info.entries,
        "used_bytes": info.bytes,
        "slot": info.slot,
    }
