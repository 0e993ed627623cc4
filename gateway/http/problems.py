"""Errors as `application/problem+json` (RFC 9457), with stable types.

A problem whose type is `aborted` or `unavailable` is final: the request did not happen and never
will, and the problem's `fact` names the durable reason. `unknown` is the only type that leaves a
write undecided.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from synod.errors import TYPE_PREFIX

if TYPE_CHECKING:
    from starlette.responses import Response

DETAIL_MAX = 1_000
"""Characters; a detail may quote what a client sent."""


class Kind(NamedTuple):
    """A type of problem: the last part of its URN, its status, its title."""

    name: str
    status: int
    title: str


INVALID_PATH = Kind("invalid-path", 400, "The path breaks a rule for names")
INVALID_HEADER = Kind("invalid-header", 400, "A header is invalid")
INVALID_QUERY = Kind("invalid-query", 400, "A query parameter is invalid")
INVALID_REQUEST = Kind("invalid-request", 400, "The request is not valid HTTP")
INCOMPLETE_BODY = Kind("incomplete-body", 400, "The body was cut off; nothing was written")
DIGEST_MISMATCH = Kind("digest-mismatch", 400, "The body does not match its digest")
UNAUTHORIZED = Kind("unauthorized", 401, "The request bears no token that is known")
FORBIDDEN = Kind("forbidden", 403, "The caller lacks the right to do this")
FOREIGN_ORIGIN = Kind("foreign-origin", 403, "A page of another origin can't change anything")
NOT_FOUND = Kind("not-found", 404, "Not found")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "The method is not allowed here")
BODY_TIMEOUT = Kind("body-timeout", 408, "The body did not arrive in time; nothing was written")
HEAD_TIMEOUT = Kind("head-timeout", 408, "The head of the request did not arrive in time")
CONFLICT = Kind("conflict", 409, "The path conflicts with an existing file or directory")
NOT_EMPTY = Kind("not-empty", 409, "The directory is not empty")
CHANGE_REFUSED = Kind("change-refused", 409, "The members can't be changed now")
RUNNING = Kind("running", 409, "A request with this Idempotency-Key is still running")
FORGOTTEN = Kind("forgotten", 410, "The result of the request is no longer kept")
PRECONDITION_FAILED = Kind("precondition-failed", 412, "A precondition does not hold")
TOO_LARGE = Kind("too-large", 413, "The content is too large")
REQUEST_TOO_LARGE = Kind("request-too-large", 413, "The request exceeds the limits of one request")
NOT_JSON = Kind("not-json", 415, "The media type of the body is not supported")
UNSUPPORTED_CODING = Kind("unsupported-coding", 415, "Content codings are not supported")
RANGE_NOT_SATISFIABLE = Kind("range-not-satisfiable", 416, "The range lies outside of the file")
MISDIRECTED = Kind("misdirected", 421, "This gateway does not serve that host name")
KEY_REUSED = Kind("key-reused", 422, "The Idempotency-Key was used for another request")
TOO_MANY_REQUESTS = Kind("too-many-requests", 429, "Too many requests of this kind")
HEAD_TOO_LARGE = Kind("head-too-large", 431, "The URL and headers are too large")
INTERNAL = Kind("internal", 500, "Internal error of the gateway")
BUSY = Kind("busy", 503, "The cluster is busy with other large requests")
CROWDED = Kind("crowded", 503, "The gateway serves as many clients as it can")
ABORTED = Kind("aborted", 503, "The write was aborted; it did not happen and never will")
UNAVAILABLE = Kind("unavailable", 503, "The request was not accepted")
UNKNOWN = Kind("unknown", 504, "It is not known yet whether the write happened")
OVER_QUOTA = Kind("over-quota", 507, "The cluster's quota is used up")
DISK_FULL = Kind("disk-full", 507, "A store's disk is full; it did not happen and never will")


class Problem(Exception):
    """Ends a request with an error response. `fields` are members beyond those of RFC 9457."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        if len(detail) > DETAIL_MAX:
            detail = detail[:DETAIL_MAX] + "…"
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.fields = dict(fields or {})

    def body(self) -> bytes:
        """The problem as JSON."""
        return json.dumps(
            {
                "type": TYPE_PREFIX + self.kind.name,
                "title": self.kind.title,
                "status": self.kind.status,
                "detail": self.detail,
                **self.fields,
            },
            ensure_ascii=False,
        ).encode(errors="replace")

    def response(self) -> "Response":
        """The response to the client."""
        from starlette.responses import Response

        return Response(
            self.body(),
            status_code=self.kind.status,
            headers={**self.headers, "cache-control": "no-store"},
            media_type="application/problem+json",
        )
