"""The values that the client library returns, and how it reads them from responses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synod.headers import sha256_of_digest
from synod.metadata import META_PREFIX
from synod.tags import current_tag

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class Written:
    """A write that was done: its request id, the slot of the log that decided it, the new tag."""

    request: str
    slot: int
    created: bool = False
    """Whether the path did not exist before."""
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a directory; a directory has a path and nothing else."""

    path: str
    is_directory: bool
    size: int = 0
    etag: str = ""
    sha256: str = ""
    version: int = 0
    content_type: str = ""
    modified_ms: int = 0
    executable: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Change:
    """An event of a watch. `kind` is `put`, `delete`, `make_directory`, `remove_directory`, `move`,
    `copy`, or `reset`: some changes may have been missed, so read the files again.

    A watch `after` this `id` continues here. A move or a copy has a `source` and covers all below.
    """

    id: str
    kind: str
    slot: int
    path: str = ""
    source: str = ""
    etag: str = ""
    size: int = 0


def change_of(id: str, event: str, data: str) -> Change | None:
    """The change that an event reports; `None` for other events."""
    if event not in ("change", "reset"):
        return None
    item = json.loads(data)
    return Change(
        id=id,
        kind=item.get("kind", "reset"),
        slot=item["slot"],
        path=item.get("path", ""),
        source=item.get("source", ""),
        etag=item.get("etag", ""),
        size=item.get("size", 0),
    )


def written_of_json(response: "httpx.Response") -> Written:
    """The result in the response to a move, a copy or a transaction."""
    item = response.json()
    return Written(
        request=item["request"],
        slot=item["slot"],
        created=item.get("created", False),
        etag=item["etag"],
    )


def written_of(response: "httpx.Response") -> Written:
    """The result in the headers of the response to a write."""
    headers = response.headers
    return Written(
        request=headers.get("synod-request-id", ""),
        slot=int(headers.get("synod-slot", 0)),
        created=response.status_code == 201,
        etag=current_tag(headers.get("etag", "")),
    )


def entry_of_headers(path: str, headers: "httpx.Headers") -> Entry:
    """The file that the response to a GET or HEAD describes."""
    # httpx decodes all headers as Latin-1 if a single one, from a proxy perhaps, is not UTF-8.
    texts = {
        name.decode("latin-1").lower(): value.decode(errors="replace")
        for name, value in headers.raw
    }
    length = headers.get("content-range", "").rpartition("/")[2] or headers["content-length"]
    return Entry(
        path=path,
        is_directory=False,
        size=int(length),
        etag=current_tag(headers["etag"]),
        sha256=sha256_of_digest(headers.get("repr-digest"), "Repr-Digest") or "",
        version=int(headers["synod-version"]),
        content_type=texts["content-type"],
        modified_ms=int(headers["synod-modified"]),
        executable=headers.get("synod-executable") == "1",
        meta={
            name.removeprefix(META_PREFIX): value
            for name, value in texts.items()
            if name.startswith(META_PREFIX)
        },
    )


def entry_of_json(item: Mapping[str, Any]) -> Entry:
    """An entry of a listing."""
    if item["kind"] == "directory":
        return Entry(item["path"], is_directory=True)
    return Entry(
        path=item["path"],
        is_directory=False,
        size=item["size"],
        etag=item["etag"],
        sha256=item["sha256"],
        version=item["version"],
        content_type=item["content_type"],
        modified_ms=item["modified_ms"],
        executable=item["executable"],
        meta=item["meta"],
    )
