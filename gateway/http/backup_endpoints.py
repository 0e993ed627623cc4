"""`/v1/backup`, `/v1/chunks`: the whole state and all contents of the cluster, for a backup.

`POST /v1/backup` begins or prolongs a backup: for `hold_ms` no store deletes a chunk, so that
replaced contents stay readable; the client repeats it before that time ends. Rows come page by
page, each with its digest, and chunks one at a time, so the gateway's memory grows with neither.
"""

import json
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from actors.messages import HOLD_MS_MAX, ReadRequest
from actors.values import CHUNK_BYTES
from gateway.callers import ADMINISTRATOR
from gateway.cluster import Cluster
from gateway.http.client_timeouts import ClientTooSlow
from gateway.http.contents import ContentTransfer
from gateway.http.files import ResponseCutOff
from gateway.http.headers import query_fields
from gateway.http.memory_budget import TURN_TIMEOUT_S
from gateway.http.parameters import ROWS_AT_LEAST, ROWS_PAGE, ROWS_SLOT, ROWS_SOURCE
from gateway.http.problems import NOT_FOUND, Problem
from gateway.http.schemas import BackupBegun, BackupRows
from gateway.settings import Settings
from synod.headers import digest_header

_NO_STORE = {"cache-control": "no-store"}
_SHA256 = re.compile("[0-9a-f]{64}")


class BackupEndpoints:
    """The endpoints for backups."""

    def __init__(self, cluster: Cluster, contents: ContentTransfer, settings: Settings) -> None:
        self._cluster = cluster
        self._contents = contents
        self._settings = settings

    async def begin(self, request: Request) -> Response:
        """Hold the chunks, and return a slot that is not before any acknowledged write."""
        await self._cluster.hold_chunks(HOLD_MS_MAX)
        # A linearizable read of the root waits for every write that was acknowledged before it.
        done = await self._cluster.read(ADMINISTRATOR, ReadRequest(number=0, what="entry", path=""))
        survey = await self._cluster.survey()
        settings = self._settings
        body: BackupBegun = {
            "cluster": survey.cluster,
            "at_least": done.reply.applied,
            "hold_ms": HOLD_MS_MAX,
            "settings": {
                "proposers": settings.proposers,
                "acceptors": settings.acceptors,
                "learners": settings.learners,
                "stores": settings.stores,
                "lease_ms": settings.lease_ms,
            },
        }
        return JSONResponse(body, headers=_NO_STORE)

    async def rows(self, request: Request) -> Response:
        """A page of the state's rows; page 0 of another state if the named one is gone."""
        query = query_fields(request.scope)

        async def copy() -> bytes:
            return await self._page(query)

        return await self._bounded(copy, {"content-type": "application/json", **_NO_STORE})

    async def chunk(self, request: Request) -> Response:
        """The chunk with that SHA-256, from any store."""
        name: str = request.path_params["sha256"]
        if not _SHA256.fullmatch(name):
            raise Problem(NOT_FOUND, f"{name!a} is no SHA-256 in lower-case hexadecimal")

        async def fetch() -> bytes:
            data = await self._cluster.fetch(name)
            if data is None:
                raise Problem(NOT_FOUND, f"no store of the view holds a chunk {name}")
            return data

        headers = {
            "content-type": "application/octet-stream",
            "etag": f'"{name}"',
            "repr-digest": digest_header(name),
            "cache-control": "private, immutable, max-age=31536000",
        }
        return await self._bounded(fetch, headers)

    async def _bounded(
        self, get: Callable[[], Awaitable[bytes]], headers: dict[str, str]
    ) -> Response:
        """The result of `get`, about a chunk in size, within the memory of all downloads."""
        memory = self._contents.outgoing
        await memory.acquire(CHUNK_BYTES, TURN_TIMEOUT_S)
        try:
            return _BudgetedResponse(await get(), self._contents, headers)
        except BaseException:
            memory.release(CHUNK_BYTES)
            raise

    async def _page(self, query: dict[str, str]) -> bytes:
        copied = await self._cluster.copy_snapshot(
            at_least=ROWS_AT_LEAST.of(query),
            source=ROWS_SOURCE.of(query),
            slot=ROWS_SLOT.of(query),
            page=ROWS_PAGE.of(query),
        )
        page = copied.page
        body: BackupRows = {
            "source": copied.source,
            "slot": page.slot,
            "page": page.page,
            "rows_left": page.rows_left,
            "digest": page.digest,
            "rows": [[row.key, row.value] for row in page.rows],
        }
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


class _BudgetedResponse(Response):
    """A response whose bytes count against the memory of downloads until they are sent."""

    def __init__(self, data: bytes, contents: ContentTransfer, headers: dict[str, str]) -> None:
        headers["content-length"] = str(len(data))
        super().__init__(status_code=HTTPStatus.OK, headers=headers)
        self._data = data
        self._contents = contents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the bytes, unless the client reads too slowly."""
        left = size = len(self._data)
        head = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }

        async def sink(piece: bytes) -> None:
            nonlocal left
            if left == size:
                await send(head)
            left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})

        try:
            await self._contents.send_bytes(self._take(), CHUNK_BYTES, sink)
        except ClientTooSlow as error:
            raise ResponseCutOff(f"{error}") from None

    def _take(self) -> bytes:
        data, self._data = self._data, b""
        return data
