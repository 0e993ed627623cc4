"""Changes of the members, as the leader carries them out (decision 26, rules 10 and 11).

Here is who runs on which disk, from heartbeats, and what a leader may propose when a gateway asks
for a change. The proposer asks for the promises that are missing, and proposes.
"""

from actors.messages import ChangeMember
from actors.paxos import acceptor_change as change
from actors.paxos.acceptor_change import NotYet
from actors.paxos.membership import Key, Membership
from actors.paxos.phases import Leading
from actors.turn import Turn
from actors.values import Members


class MemberChanges:
    """What one proposer knows of the nodes that may become members."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.newcomers: dict[str, str] = {}
        """For each name of an acceptor, the last other disk that a process under it runs on."""

    def note_acceptor(self, acceptor: Key, membership: Membership, founded: Membership) -> None:
        """Note the disk that an acceptor runs on."""
        if change.is_newcomer(acceptor, membership, founded):
            self.newcomers[acceptor[0]] = acceptor[1]

    def version_begun(self, request: ChangeMember, membership: Membership) -> int | None:
        """The version that a request asks for, if its change is under way."""
        is_begun = change.is_replaced(membership, request.name)
        return membership.newest.version if is_begun else None

    def plan(self, request: ChangeMember, phase: Leading, membership: Membership) -> Members:
        """The acceptors with another disk under a name. Raises `ChangeRefused`."""
        turn = self._turn
        if phase.changes_acceptors:
            raise NotYet("a change of the acceptors is in flight")
        if turn.now - phase.elected_at < turn.constants.lease_ms:
            raise NotYet(f"{turn.name} was just elected and has not heard all acceptors yet")
        return change.replacement(membership, request, self.newcomers.get(request.name))

    def check(self, members: Members, phase: Leading, membership: Membership) -> None:
        """Check rule 10 for acceptors that have been asked for their promises. Raises
        `ChangeRefused`.
        """
        since = self._turn.now - self._turn.constants.lease_ms
        change.check_alive(members, membership.newest, phase.granted, since)
        change.check_promised(members, membership.newest, phase.promises.complete)
