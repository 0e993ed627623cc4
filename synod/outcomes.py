"""What is certain about a write after the last of its attempts."""

from synod.errors import (
    DiskFull,
    NotSent,
    OutcomeUnknown,
    ServerFailure,
    StillRunning,
    SynodError,
    Unavailable,
    Unreachable,
)


class OutcomeTracker:
    """What is certain about a write after all its attempts under one Idempotency-Key."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._undecided = False

    def failed(self, error: SynodError, *, whole: bool) -> None:
        """An attempt failed with `error`; `whole`: the end of its body was sent."""
        if isinstance(error, OutcomeUnknown | StillRunning):
            self._undecided = True
        elif isinstance(error, Unreachable | ServerFailure):
            self._undecided = self._undecided or (whole and not isinstance(error, NotSent))
        elif "slot" in error.problem and not isinstance(error, Unavailable | DiskFull):
            # The log's result for this key, which holds for earlier attempts as well.
            self._undecided = False

    def told(self, error: SynodError, *, repeatable: bool) -> SynodError:
        """The error to raise after the last attempt: `error`, extended by what is certain."""
        said = [f"{error}".rstrip(".")]
        if self._undecided:
            said.append(
                "Whether the write happened is not known: read the file, or send the same again "
                f"with the Idempotency-Key {self._key}"
            )
        elif isinstance(error, NotSent):
            said.append("Nothing was sent")
        elif isinstance(error, Unreachable | ServerFailure):
            said.append("The end of the body was not sent, so nothing was written")
        if error.again and not repeatable:
            said.append("The body came from a stream whose beginning is no longer available")
        told = error if len(said) == 1 else type(error)(". ".join(said), error.problem)
        told.undecided = self._undecided
        return told
