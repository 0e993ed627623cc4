"""The error with which a run fails."""


class Violation(AssertionError):
    """A named invariant does not hold; `detail` has the values that show it."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant
        self.detail = detail
