"""Ballots: the numbers under which proposers compete (Paxos Made Simple, section 2.2)."""

from typing import NamedTuple

from actors.numbers import ROUNDS_AHEAD_MAX, Count

_DISK = "/"
"""Stands between a proposer's name and its disk; no node's name has one."""


class Ballot(NamedTuple):
    """`(round, proposer)`, compared field by field; two proposers never share one, and neither do
    two disks of one proposer.

    `round` is a count that its proposer journals before it uses it and never uses twice. `proposer`
    is its name on the founding disk, and its name and its disk on any other (`proposer_on`).
    """

    round: Count
    proposer: str

    @property
    def node(self) -> str:
        """The name of its proposer, to which messages are sent."""
        return self.proposer.partition(_DISK)[0]

    def __str__(self) -> str:
        return f"{self.round}.{self.proposer}"

    def is_plausible_after(self, known: "Ballot") -> bool:
        """Whether candidates can have reached it since `known`, counting up by one each time."""
        return self.round <= known.round + ROUNDS_AHEAD_MAX


def proposer_on(name: str, disk: str, is_founding: bool) -> str:
    """What stands for a proposer in its ballots. A disk that is not of the founding knows nothing
    of the rounds that the founding one has used, so it names itself.
    """
    return name if is_founding else f"{name}{_DISK}{disk}"


NO_BALLOT = Ballot(0, "")
"""Below every ballot that a proposer may use."""
