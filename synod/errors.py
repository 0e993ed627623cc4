"""What the client library raises: one class for each thing that a caller may want to tell apart."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

TYPE_PREFIX = "urn:synod:problem:"
"""What the `type` of every problem of a gateway begins with."""


class SynodError(Exception):
    """A request did not do what it should. `problem` is the server's problem+json, if it sent one.

    `again` tells that the same request, with the same Idempotency-Key, may be sent again;
    `undecided`, that it was a write which may have happened, or may still happen.
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
    """No answer came. Whether a write happened is not known where `undecided` says so."""

    again = True


class NotSent(Unreachable):
    """There was no connection, so nothing of the request was sent."""


class Misconfigured(SynodError):
    """An address, a token, a proxy or a certificate can't be used; nothing was sent."""


class SourceChanged(SynodError):
    """What was to be sent changed while it was read, so its end was withheld: nothing happened."""


class InvalidRequest(SynodError):
    """The server refuses the request as it is."""


class Unauthorized(SynodError):
    """The gateway wants a token, or another one: see `SYNOD_TOKEN`."""


class NotFound(SynodError):
    """There is no such file, directory or request."""


class Conflict(SynodError):
    """The path is in the way: a file where a directory is meant, or the reverse, or not empty."""


class PreconditionFailed(SynodError):
    """If-Match or If-None-Match does not hold; nothing was changed."""


class TooLarge(SynodError):
    """The file is larger than the cluster takes."""


class Unavailable(SynodError):
    """Not accepted, or aborted: it did not happen and never will."""

    again = True


class DiskFull(SynodError):
    """A store's disk is full: it did not happen and never will."""


class StillRunning(SynodError):
    """The first request with this Idempotency-Key is still being worked on."""

    again = True


class OutcomeUnknown(SynodError):
    """Whether the write happened is not known yet."""

    again = True


class ServerFailure(SynodError):
    """The gateway failed, or something answered that is no gateway of Synod."""


class Damaged(SynodError):
    """What arrived is not what its digest says, or stopped before its end."""


_BY_STATUS: dict[int, type[SynodError]] = {
    401: Unauthorized,
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
    """The error that an answer with `status` stands for."""
    problem = _problem_of(body) or {}
    detail = str(problem.get("detail") or f"the server answered {status} without saying why")
    if problem.get("type") == f"{TYPE_PREFIX}running":
        return StillRunning(detail, problem)
    return _class_of(status)(detail, problem)


def refusal(status: int, media_type: str, body: bytes | None) -> SynodError:
    """The error that an answer stands for, whoever gave it; one to HEAD has no body.

    Only a gateway's own problem says that a thing is absent, or that a write did not happen: a
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
