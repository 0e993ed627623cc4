"""Majority quorums: any two of them share a member (The Part-Time Parliament, section 2.1)."""

from collections.abc import Iterable, Mapping


def majority(members: int) -> int:
    """The least number of `members` such that any two groups of that size intersect."""
    return members // 2 + 1


def nth_highest_by_quorum(values: Iterable[int], members: int) -> int | None:
    """The highest value that a majority of `members` has reached, or `None` if no majority has one.

    `values` holds at most one value for each member.
    """
    ranked = sorted(values, reverse=True)
    needed = majority(members)
    return ranked[needed - 1] if len(ranked) >= needed else None


def has_quorum(answers: Mapping[str, object] | frozenset[str] | set[str], members: int) -> bool:
    """Whether the distinct members in `answers` are a majority of `members`."""
    return len(answers) >= majority(members)
