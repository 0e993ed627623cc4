"""The exit codes of the command line; `docs/operations.md` has them as a table."""

from synod.errors import (
    Forbidden,
    Misconfigured,
    NotFound,
    PreconditionFailed,
    SynodError,
    Unauthorized,
    Unavailable,
    Unreachable,
)

DONE = 0
FAILED = 1
MISUSED = 2
UNDECIDED = 3
NOT_FOUND = 4
PRECONDITION = 5
UNAVAILABLE = 6
NOT_ALLOWED = 7
SIGNALLED = 128
"""Plus the number of the signal that ended the command."""

_CODES: tuple[tuple[type[SynodError], int], ...] = (
    (Misconfigured, MISUSED),
    (NotFound, NOT_FOUND),
    (PreconditionFailed, PRECONDITION),
    (Unavailable, UNAVAILABLE),
    (Unreachable, UNAVAILABLE),
    (Unauthorized, NOT_ALLOWED),
    (Forbidden, NOT_ALLOWED),
)


def exit_code_of(error: SynodError) -> int:
    """The code for an error; a write that may have happened is undecided, whatever its error."""
    if error.undecided:
        return UNDECIDED
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
