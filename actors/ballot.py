"""Ballots: the numbers under which proposers compete (Paxos Made Simple, section 2.2)."""

from typing import NamedTuple

from actors.numbers import Count


class Ballot(NamedTuple):
    """`(round, proposer)`, compared field by field; two proposers never share one.

    `round` is a count that its proposer journals before it uses it and never uses twice.
    """

    round: Count
    proposer: str

    def __str__(self) -> str:
        return f"{self.round}.{self.proposer}"


NO_BALLOT = Ballot(0, "")
"""Below every ballot that a proposer may use."""
