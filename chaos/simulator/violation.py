"""What a run fails with: a rule that has a name."""


class Violation(AssertionError):
    """`invariant` names the rule that was broken; the text carries the values that show it."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant
        self.detail = detail
