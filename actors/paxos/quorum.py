"""Majority quorums: any two of them share a member (The Part-Time Parliament, section 2.1)."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

Voter = TypeVar("Voter", bound=Hashable)


def majority(members: int) -> int:
    """The least number of `members` such that any two groups of that size intersect."""
    return members // 2 + 1


class Voters(Generic[Voter]):
    """The voters, of whom any majority is a quorum. Answers of other nodes don't count."""

    __slots__ = ("_majority", "_names")

    def __init__(self, names: Iterable[Voter]) -> None:
        self._names = frozenset(names)
        self._majority = majority(len(self._names))

    def __contains__(self, voter: object) -> bool:
        return voter in self._names

    def are_quorum(self, answers: Iterable[Voter]) -> bool:
        """Whether the distinct voters in `answers` are a majority of all voters."""
        return len(self._names.intersection(answers)) >= self._majority

    def can_do_without(self, lacking: Iterable[Voter]) -> bool:
        """Whether the voters that are not in `lacking` are still a majority of all voters."""
        return len(self._names.difference(lacking)) >= self._majority

    def reached_by_quorum(self, values: Mapping[Voter, int]) -> int | None:
        """The highest value that a majority of the voters has reached, or `None`.

        `values` holds the value of each voter that has one.
        """
        reached = sorted((values[name] for name in values if name in self._names), reverse=True)
        return reached[self._majority - 1] if len(reached) >= self._majority else None
