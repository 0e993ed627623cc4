"""What the client library raises: one class for each thing that a caller may want to tell apart."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.problems import TYPE_PREFIX


class SynodError(Exception):
    """A request did not do what it should. `problem` is the server's problem+json, if it sent one.

    `again` tells that the same request, with the same Idempotency-Key, may be sent again.
    """

    again: ClassVar[bool] = False

    def __init__(self, message: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.problem = dict(problem or {})

    @property
    def kind(self) -> str:
        """The last part of the problem's type, such as `aborted`; empty without one."""
        return str(self.problem.get("type", "")).removeprefix(TYPE_PREFIX)


class Unreachable(SynodError):
    """No answer came: whether a write happened is not known."""

    again = True


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
    """The gateway failed, or something answered that is no gateway."""


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
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    detail = str(problem.get("detail") or f"the server answered {status} without saying why")
    if problem.get("type") == f"{TYPE_PREFIX}running":
        return StillRunning(detail, problem)
    fallback = InvalidRequest if 400 <= status < 500 else ServerFailure
    return _BY_STATUS.get(status, fallback)(detail, problem)
