"""The errors of the client library: one class for each case that callers may handle differently."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

TYPE_PREFIX = "urn:synod:problem:"
"""The prefix of the `type` of every problem of a gateway."""


class SynodError(Exception):
    """A request failed. `problem` is the server's problem+json, if it sent one.

    `again`: the same request, with the same Idempotency-Key, may succeed if it is sent again.
    `undecided`: it was a write that may have happened, or may still happen.
    """

    again: ClassVar[bool] = False

    def __init__(self, message: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.problem = dict(problem or {})
        self.undecided = False

    @property
    def kind(self) -> str:
        """The last part of the problem's type, such as `aborted`; empty without one."""
        return str(self.problem.get("type", "")).removeprefix(TYPE_PREFIX)


class Unreachable(SynodError):
    """No answer came. A write may have happened if `undecided` is set."""

    again = True


class NotSent(Unreachable):
    """There was no connection, so nothing of the request was sent."""


class Misconfigured(SynodError):
    """An address, a token, a proxy or a certificate can't be used; nothing was sent."""


class SourceChanged(SynodError):
    """The source changed while it was read, so the client withheld its end: nothing was written."""


class InvalidRequest(SynodError):
    """The server refuses the request as it is."""


class Unauthorized(SynodError):
    """The gateway requires a token, or another one: see `SYNOD_TOKEN`."""


class Forbidden(SynodError):
    """The token lacks the right to do this; the message names it. Nothing was changed."""


class NotFound(SynodError):
    """There is no such file, directory or request."""


class Conflict(SynodError):
    """The path holds a file where a directory is needed, or the reverse, or is not empty; or the
    members can't be changed now.
    """


class PreconditionFailed(SynodError):
    """If-Match or If-None-Match does not hold; nothing was changed."""


class TooLarge(SynodError):
    """The file, or the request, is larger than the cluster accepts."""


class Unavailable(SynodError):
    """Not accepted, or aborted: it did not happen and never will."""

    again = True


class DiskFull(SynodError):
    """A store's disk is full: it did not happen and never will."""


class StillRunning(SynodError):
    """The first request with this Idempotency-Key is still in progress."""

    again = True


class OutcomeUnknown(SynodError):
    """Whether the write happened is not known yet."""

    again = True


class ServerFailure(SynodError):
    """The gateway failed, or the server that answered is no gateway of Synod."""


class Damaged(SynodError):
    """The received bytes don't match their digest, or end too early."""


_BY_STATUS: dict[int, type[SynodError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    412: PreconditionFailed,
    413: TooLarge,
    429: Unavailable,
    503: Unavailable,
    504: OutcomeUnknown,
    507: DiskFull,
}


def error_of(status: int, body: bytes) -> SynodError:
    """The error for a gateway's response with `status`."""
    problem = _problem_of(body) or {}
    detail = str(problem.get("detail") or f"the server answered {status} without saying why")
    if problem.get("type") == f"{TYPE_PREFIX}running":
        return StillRunning(detail, problem)
    return _class_of(status)(detail, problem)


def refusal(status: int, media_type: str, body: bytes | None) -> SynodError:
    """The error for a response that may come from any server; a response to HEAD has no body.

    Only a gateway's own problem proves that a file is absent, or that a write did not happen: a
    proxy, or another server at this address, knows neither.
    """
    if body is None and media_type.partition(";")[0].strip() == "application/problem+json":
        return _class_of(status)(f"the gateway answered {status}")
    if body is not None and str((_problem_of(body) or {}).get("type")).startswith(TYPE_PREFIX):
        return error_of(status, body)
    if status in (401, 403, 407):
        return Unauthorized(f"something before the gateway answered {status}: it asks for rights")
    if status in (502, 503, 504):
        return Unreachable(f"something before the gateway answered {status}: it has no gateway")
    return ServerFailure(
        f"what answered {status} is no gateway of Synod: see --url, SYNOD_URL and the proxies"
    )


def _problem_of(body: bytes) -> dict[str, Any] | None:
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return problem if isinstance(problem, dict) else None


def _class_of(status: int) -> type[SynodError]:
    return _BY_STATUS.get(status, InvalidRequest if 400 <= status < 500 else ServerFailure)
