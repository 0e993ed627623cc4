"""What a description of a route is made of, and what many of them share; see
`gateway.http.operations`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from gateway.http import parameters
from gateway.http import problems as p
from gateway.http.parameters import Parameter
from gateway.http.problems import Kind

JSON = "application/json"
BYTES = "application/octet-stream"
EVENTS = "text/event-stream"
HTML = "text/html"

Method = str
Kinds = tuple[Kind, ...]


class ApiResponse(NamedTuple):
    """A response that is no problem. `shape` is a type, whose JSON is sent, or `None`.

    `media` without a shape is bytes or text. `headers` are names in `RESPONSE_HEADERS`.
    """

    status: int
    description: str
    shape: Any = None
    media: str | None = None
    headers: tuple[str, ...] = ()


class ApiBody(NamedTuple):
    """The body of a request: by media type a model, or `None` for any bytes."""

    description: str
    media: dict[str, Any]


Needs = Literal["nothing", "credentials", "operate", "backup", "paths"]
"""What a caller needs for an operation: nothing; to be known; a role of the cluster, which the
gateway checks; or rights on what the request names, which the replicas check when they carry it
out (`actors.state.rights`).
"""


@dataclass(frozen=True, kw_only=True)
class ApiOperation:
    """One method of one route."""

    tag: str
    name: str
    summary: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: ApiBody | None = None
    answers: tuple[ApiResponse, ...]
    problems: Kinds = ()
    needs: Needs
    open: bool = False
    """Served without the token."""
    head: bool = False
    """A GET route that responds to HEAD in the same way, without a body."""
    events: dict[str, Any] = field(default_factory=dict)
    """For a stream: the shape of each event's data."""


RESPONSE_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Synod-Request-Id": (
        "The write's id, for `/v1/requests/{request}`.",
        {"type": "string"},
    ),
    "Synod-Slot": (
        "The slot of the log that the write has, or that the store had applied.",
        {"type": "integer"},
    ),
    "Synod-Store": ("The store that answered.", {"type": "string"}),
    "Location": ("The URL of the created file.", {"type": "string", "format": "uri-reference"}),
    "ETag": ("The version's strong tag, made from slot and index.", {"type": "string"}),
    "Repr-Digest": ("`sha-256=:BASE64:` of the whole file (RFC 9530).", {"type": "string"}),
    "Last-Modified": ("The modification time, in whole seconds.", {"type": "string"}),
    "Synod-Modified": ("The same in milliseconds since 1970.", {"type": "integer"}),
    "Synod-Version": ("How many versions the file has had.", {"type": "integer"}),
    "Synod-Executable": ("`1` if the file is executable.", {"type": "string"}),
    "Synod-Meta-NAME": ("The file's metadata.", {"type": "string"}),
    "Accept-Ranges": ("`bytes`", {"type": "string"}),
    "Content-Range": ("The part that is sent, and the whole size.", {"type": "string"}),
    "Link": ('The next page: `<…>; rel="next"`.', {"type": "string"}),
}
"""Headers that are not in every response of a status are not marked as required."""

WRITTEN = ("Synod-Request-Id", "Synod-Slot")
READ = ("Synod-Slot", "Synod-Store")
ABOUT_FILE = (
    "ETag",
    "Repr-Digest",
    "Last-Modified",
    "Synod-Modified",
    "Synod-Version",
    "Synod-Executable",
    "Synod-Meta-NAME",
    "Accept-Ranges",
    *READ,
)

EVERYWHERE: Kinds = (
    p.INVALID_REQUEST,
    p.UNAUTHORIZED,
    p.FORBIDDEN,
    p.FOREIGN_ORIGIN,
    p.HEAD_TIMEOUT,
    p.MISDIRECTED,
    p.TOO_MANY_REQUESTS,
    p.HEAD_TOO_LARGE,
    p.INTERNAL,
    p.CROWDED,
)
"""Problems before a request reaches an endpoint, or by an internal error in one."""

OF_NO_OPERATION: Kinds = (p.METHOD_NOT_ALLOWED,)
"""The problem of a method that a route does not have."""

READING: Kinds = (p.INVALID_QUERY, p.UNAVAILABLE)
WRITING: Kinds = (
    p.INVALID_HEADER,
    p.INVALID_PATH,
    p.NOT_FOUND,
    p.CONFLICT,
    p.RUNNING,
    p.PRECONDITION_FAILED,
    p.REQUEST_TOO_LARGE,
    p.KEY_REUSED,
    p.BUSY,
    p.ABORTED,
    p.UNAVAILABLE,
    p.UNKNOWN,
    p.OVER_QUOTA,
    p.DISK_FULL,
)
SENDING: Kinds = (p.INCOMPLETE_BODY, p.BODY_TIMEOUT, p.TOO_LARGE)

HOW_TO_READ = (parameters.CONSISTENCY, parameters.AT_LEAST)
HOW_TO_WRITE = (parameters.IDEMPOTENCY_KEY, parameters.RETRY)
CONDITIONS = (parameters.IF_MATCH, parameters.IF_NONE_MATCH)

NO_CONTENT = ApiResponse(204, "Done.", headers=WRITTEN)
NOT_MODIFIED = ApiResponse(
    304, "The client has the current version.", headers=("ETag", "Last-Modified", *READ)
)
