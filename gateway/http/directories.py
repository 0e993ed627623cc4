"""`/v1/directories/{path}`: GET a page of names, PUT, DELETE."""

from http import HTTPStatus
from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from actors.values import DirectoryEntry, FileEntry, MakeDirectory, RemoveDirectory
from gateway.callers import caller_of
from gateway.cluster import Cluster
from gateway.http.conditional import refuse_conditions
from gateway.http.files import read_request, run_write, written_headers
from gateway.http.headers import header_fields, query_fields
from gateway.http.idempotency import RunningKeys
from gateway.http.metadata import served
from gateway.http.parameters import LISTING_AFTER, LISTING_LIMIT, RECURSIVE
from gateway.http.problems import CONFLICT, NOT_FOUND, Problem
from gateway.http.schemas import DirectoryItem, DirectoryMade, FileItem, Listing
from synod.paths import path_to_url

_CONDITIONS = ("if-match", "if-none-match", "if-unmodified-since")
_NO_TAGS = "directories have no ETag"


class DirectoryEndpoints:
    """The endpoints for directories."""

    def __init__(self, cluster: Cluster, keys: RunningKeys) -> None:
        self._cluster = cluster
        self._keys = keys

    async def get(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """A page of a directory's entries, in the order of their names."""
        query = query_fields(scope)
        limit = LISTING_LIMIT.of(query)
        request = read_request(path, "list", query, after=LISTING_AFTER.of(query), limit=limit)
        done = await self._cluster.read(caller_of(scope), request)
        reply = done.reply
        headers = {"synod-slot": str(reply.applied), "synod-store": done.store}
        if isinstance(reply.entry, FileEntry):
            raise Problem(
                CONFLICT, f"{path!r} is a file", headers=headers, fields={"found": "file"}
            )
        if reply.status != "found":
            raise Problem(NOT_FOUND, f"there is no directory {path!r}", headers=headers)
        entries = [entry_json(child) for child in reply.children]
        following = entries[-1]["name"] if reply.more and entries else None
        if following is not None:
            query["after"] = following
            link = f"/v1/directories/{path_to_url(path)}?{urlencode(query)}"
            headers["link"] = f'<{link}>; rel="next"'
        page: Listing = {
            "path": path,
            "slot": reply.applied,
            "entries": entries,
            "next": following,
        }
        await JSONResponse(page, headers=headers)(scope, receive, send)

    async def put(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Make a directory and its missing parents."""
        fields = header_fields(scope)
        refuse_conditions(fields, _CONDITIONS, _NO_TAGS)
        operation = MakeDirectory(path=path)
        decided = await run_write(
            self._cluster, caller_of(scope), self._keys, "PUT/", path, fields, operation
        )
        headers = written_headers(decided)
        created = decided.outcome.created
        if created:
            headers["location"] = f"/v1/directories/{path_to_url(path)}"
        made: DirectoryMade = {
            "path": path,
            "created": created,
            "request": decided.request,
            "slot": decided.outcome.slot,
        }
        status = HTTPStatus.CREATED if created else HTTPStatus.OK
        response = JSONResponse(made, status_code=status, headers=headers)
        await response(scope, receive, send)

    async def delete(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Remove a directory; with `?recursive=true` everything below it, too."""
        fields = header_fields(scope)
        refuse_conditions(fields, _CONDITIONS, _NO_TAGS)
        if not path:
            raise Problem(CONFLICT, "the root can't be removed")
        recursive = RECURSIVE.of(query_fields(scope)) == "true"
        operation = RemoveDirectory(path=path, recursive=recursive)
        method = f"DELETE/{recursive}"
        decided = await run_write(
            self._cluster, caller_of(scope), self._keys, method, path, fields, operation
        )
        response = Response(status_code=HTTPStatus.NO_CONTENT, headers=written_headers(decided))
        await response(scope, receive, send)


def entry_json(entry: FileEntry | DirectoryEntry) -> FileItem | DirectoryItem:
    """An entry as listings show it."""
    name = entry.path.rpartition("/")[2]
    if isinstance(entry, DirectoryEntry):
        return {"kind": "directory", "name": name, "path": entry.path, "slot": entry.slot}
    shown = served(entry)
    return {
        "kind": "file",
        "name": name,
        "path": entry.path,
        "slot": entry.slot,
        "etag": entry.etag,
        "version": entry.version,
        "size": entry.content.size,
        "sha256": shown.sha256,
        "content_type": shown.content_type,
        "modified_ms": shown.modified_ms,
        "executable": entry.executable,
        "meta": dict(shown.meta),
    }
