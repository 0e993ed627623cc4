"""Ballots: the numbers under which proposers compete (Paxos Made Simple, section 2.2)."""

from typing import NamedTuple

from actors.numbers import ROUNDS_AHEAD_MAX, Count


class Ballot(NamedTuple):
    """`(round, proposer)`, compared field by field; two proposers never share one.

    `round` is a count that its proposer journals before it uses it and never uses twice.
    """

    round: Count
    proposer: str

    def __str__(self) -> str:
        return f"{self.round}.{self.proposer}"

    def is_plausible_after(self, known: "Ballot") -> bool:
        """Whether candidates can have reached it since `known`, counting up by one each time."""
        return self.round <= known.round + ROUNDS_AHEAD_MAX


NO_BALLOT = Ballot(0, "")
"""Below every ballot that a proposer may use."""
