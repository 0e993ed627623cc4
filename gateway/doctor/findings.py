"""What a check found, and what to change."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple, Self


class Grade(StrEnum):
    """How a check ended. `skipped`: it is not needed here, or could not be made."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    SKIPPED = "skipped"


class Diagnosis(NamedTuple):
    """The result of one check. `change` is what to change, if anything."""

    check: str
    status: Grade
    found: str
    change: str = ""

    @classmethod
    def ok(cls, check: str, found: str) -> Self:
        """Nothing has to be changed."""
        return cls(check, Grade.OK, found)

    @classmethod
    def warning(cls, check: str, found: str, change: str) -> Self:
        """A node runs, but something that it relies on is weaker than it should be."""
        return cls(check, Grade.WARNING, found, change)

    @classmethod
    def wrong(cls, check: str, found: str, change: str) -> Self:
        """A node can't run, or not for long."""
        return cls(check, Grade.WRONG, found, change)

    @classmethod
    def skipped(cls, check: str, found: str, change: str = "") -> Self:
        """The check is not needed here, or could not be made."""
        return cls(check, Grade.SKIPPED, found, change)


def worst(findings: Iterable[Diagnosis]) -> Grade:
    """The worst status: wrong, warning, or else ok."""
    found = {finding.status for finding in findings}
    return next((each for each in (Grade.WRONG, Grade.WARNING) if each in found), Grade.OK)
