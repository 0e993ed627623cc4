"""`/v1/backup`, `/v1/chunks`: all that the cluster holds, for whoever takes a copy of it.

`POST /v1/backup` begins or goes on: for `hold_ms` no store deletes a chunk, so that what is
replaced meanwhile stays readable; it is sent again in time. Rows come page by page, each with its
digest, and chunks one at a time, so that the gateway's memory grows with neither.
"""

import asyncio
import re
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from actors.messages import HOLD_MS_MAX, ReadRequest
from gateway.answers import BackupBegun, BackupRows
from gateway.cluster import Cluster
from gateway.fields import query_fields
from gateway.files import GaveUp
from gateway.metadata import digest_header
from gateway.parameters import ROWS_AT_LEAST, ROWS_PAGE, ROWS_SLOT, ROWS_SOURCE
from gateway.problems import NOT_FOUND, Problem
from gateway.settings import Settings

_NO_STORE = {"cache-control": "no-store"}
_SHA256 = re.compile("[0-9a-f]{64}")


class Replicating:
    """The endpoints that a backup is taken through."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._timeout_s = settings.body_timeout_ms / 1000
        permits = max(4, settings.upload_memory_bytes // settings.chunk_bytes)
        self._permits = asyncio.Semaphore(permits)

    async def begin(self, request: Request) -> Response:
        """Hold the chunks, and say how far a copy must reach to hold all that anybody was told."""
        await self._cluster.hold_chunks(HOLD_MS_MAX)
        # A linearizable read of the root waits for every write that was acknowledged before it.
        done = await self._cluster.read(ReadRequest(number=0, what="entry", path=""))
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
        """A page of the state's rows; page 0 of another state where the one named is gone."""
        query = query_fields(request.scope)
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
        return JSONResponse(body, headers=_NO_STORE)

    async def chunk(self, request: Request) -> Response:
        """The bytes of that SHA-256, from any store."""
        name: str = request.path_params["sha256"]
        if not _SHA256.fullmatch(name):
            raise Problem(NOT_FOUND, f"{name!a} is no SHA-256 in lower-case hexadecimal")
        await self._permits.acquire()
        try:
            data = await self._cluster.fetch(name)
            if data is None:
                raise Problem(NOT_FOUND, f"no store of the view holds a chunk {name}")
        except BaseException:
            self._permits.release()
            raise
        return _Bounded(name, data, self._permits, self._timeout_s)


class _Bounded(Response):
    """A chunk on its way out, which gives its permit back when it is gone."""

    media_type = "application/octet-stream"

    def __init__(
        self, name: str, data: bytes, permits: asyncio.Semaphore, timeout_s: float
    ) -> None:
        headers = {
            "etag": f'"{name}"',
            "repr-digest": digest_header(name),
            "cache-control": "private, immutable, max-age=31536000",
        }
        super().__init__(data, status_code=HTTPStatus.OK, headers=headers)
        self._permits = permits
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, to a reader who takes it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            raise GaveUp(f"a chunk was not taken within {self._timeout_s:g} s") from None
        finally:
            self._permits.release()
