"""What a caller of the client library may conclude from a response that is no success."""

import pytest

from gateway.http import problems
from gateway.http.problems import Kind, Problem
from synod.errors import (
    Conflict,
    DiskFull,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    ServerFailure,
    StillRunning,
    SynodError,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreachable,
    error_of,
)


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        (problems.INVALID_PATH, InvalidRequest),
        (problems.UNAUTHORIZED, Unauthorized),
        (problems.NOT_FOUND, NotFound),
        (problems.CONFLICT, Conflict),
        (problems.NOT_EMPTY, Conflict),
        (problems.RUNNING, StillRunning),
        (problems.FORGOTTEN, NotFound),
        (problems.PRECONDITION_FAILED, PreconditionFailed),
        (problems.TOO_LARGE, TooLarge),
        (problems.KEY_REUSED, InvalidRequest),
        (problems.HEAD_TOO_LARGE, InvalidRequest),
        (problems.INTERNAL, ServerFailure),
        (problems.ABORTED, Unavailable),
        (problems.UNAVAILABLE, Unavailable),
        (problems.UNKNOWN, OutcomeUnknown),
        (problems.DISK_FULL, DiskFull),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else "",
)
def test_every_kind_of_problem_is_an_error_of_its_own(kind: Kind, raised: type[SynodError]) -> None:
    problem = Problem(kind, "the detail", fields={"slot": 7})

    error = error_of(kind.status, problem.body())

    assert type(error) is raised
    assert (str(error), error.kind, error.problem["slot"]) == ("the detail", kind.name, 7)


def test_again_is_said_only_where_the_same_key_makes_that_safe() -> None:
    """Undecided and aborted requests may be sent again; refused ones would be refused again."""
    may_be_sent_again = {error for error in SynodError.__subclasses__() if error.again}
    assert may_be_sent_again == {Unreachable, Unavailable, StillRunning, OutcomeUnknown}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"text"', b"null", b"{}", b"\xff"])
@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (399, ServerFailure),
        (400, InvalidRequest),
        (418, InvalidRequest),
        (499, InvalidRequest),
        (500, ServerFailure),
        (502, ServerFailure),
        (503, Unavailable),
        (504, OutcomeUnknown),
    ],
)
def test_what_comes_from_something_else_than_a_gateway_is_judged_by_its_status(
    body: bytes, status: int, raised: type[SynodError]
) -> None:
    error = error_of(status, body)

    assert type(error) is raised
    assert str(error) == f"the server answered {status} without saying why"
    assert (error.problem, error.kind) == ({}, "")
