"""Changes of the members, as the leader carries them out (decision 26, rules 10 and 11).

Here is who runs on which disk, from heartbeats, and what a leader may propose when a gateway asks
for a change. The proposer asks for the promises that are missing, and proposes.
"""

from actors.messages import ChangeMember, NodeHeartbeat
from actors.messages.permissions import role_in
from actors.numbers import Milliseconds
from actors.options import MEMBER_ROLES
from actors.paxos import acceptor_change as change
from actors.paxos.acceptor_change import ChangeRefused, NotYet
from actors.paxos.membership import Membership
from actors.paxos.phases import Leading
from actors.paxos.roster_change import (
    Heard,
    Surroundings,
    check_replacement,
    next_roster,
    version_reached,
)
from actors.turn import Turn
from actors.values import NOOP, Members, NoOp, Roster, Settled, View

_SILENT_BEATS = 3
"""A node that has missed so many of its heartbeats is silent."""


class MemberChanges:
    """What one proposer knows of the nodes that are members, or may become members."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.newcomers: dict[str, str] = {}
        """For each name of an acceptor, the last other disk that a process under it runs on."""
        self.heard: dict[str, Heard] = {}
        """The last heartbeat of each other node that may be a member, unless it said that it has
        halted.
        """

    def note_heartbeat(
        self, sender: str, message: NodeHeartbeat, membership: Membership, founded: Membership
    ) -> None:
        """Note that a node lives, and on which disk."""
        key = (sender, self._turn.sender_disk)
        if message.role == "acceptor" and change.is_newcomer(key, membership, founded):
            self.newcomers[sender] = key[1]
        elif message.role in MEMBER_ROLES and not message.halted:
            is_sound = not message.installing and not message.chunks_missing
            self.heard[sender] = Heard(self._turn.now, key[1], message.durable, is_sound)

    def version_begun(self, request: ChangeMember, membership: Membership) -> int | None:
        """The version that a request asks for, if its change is under way or came about. Raises
        `ChangeRefused` for a name that no member can have.
        """
        role = role_in(request.name)
        if role not in MEMBER_ROLES:
            raise ChangeRefused(f"{request.name[:80]!r} is no name of a member")
        if role != "acceptor":
            return version_reached(request, membership, self._turn.genesis)
        is_begun = change.is_begun(membership, request.action, request.name)
        return membership.newest.version if is_begun else None

    def plan(
        self,
        request: ChangeMember,
        phase: Leading,
        membership: Membership,
        view: View | None,
        durable_mark: int,
    ) -> Members | Roster | None:
        """What to propose; `None`: nothing, a node joins by itself. Raises `ChangeRefused`."""
        turn, role = self._turn, role_in(request.name)
        if phase.changes_members:
            raise NotYet("a change of the members is in flight")
        if turn.now - phase.elected_at < turn.constants.lease_ms:
            raise NotYet(f"{turn.name} was just elected and has not heard all acceptors yet")
        roster = membership.roster
        if roster is not None and roster.slot > durable_mark:
            raise NotYet(f"the roster of version {roster.version} is not durable everywhere yet")
        if role == "acceptor":
            return change.next_members(membership, request, self.newcomers.get(request.name))
        # Whoever leads is alive, and hears no heartbeat of its own.
        heard = {**self.heard, turn.name: Heard(turn.now, turn.identity.disk)}
        since = turn.now - _SILENT_BEATS * turn.options.heartbeat_ms
        known = Surroundings(membership, turn.genesis, view, heard, since)
        if request.action == "replace":
            check_replacement(request, known)
            return None
        if not membership.is_settled:
            raise NotYet("a change of the acceptors is under way: one at a time")
        return next_roster(request, known)

    def check(
        self, request: ChangeMember, members: Members, phase: Leading, membership: Membership
    ) -> None:
        """Check rule 10 for acceptors that have been asked for their promises. Raises
        `ChangeRefused`.
        """
        since = self._turn.now - self._turn.constants.lease_ms
        if request.action == "add":
            change.check_all_alive(membership.newest, phase.granted, since)
        change.check_alive(members, membership.newest, phase.granted, since)
        change.check_promised(members, membership.newest, phase.promises.complete)


def next_value(
    phase: Leading, membership: Membership, durable_mark: int, lease_until: Milliseconds
) -> NoOp | Settled | None:
    """What the leader of a change proposes next, to end it: it fills the slots before the new
    acceptors' first one, and then waits for rule 11.
    """
    new = membership.newest
    if phase.next_slot < new.first_slot:
        return None if phase.queue else NOOP
    read_leases_until = max(phase.read_grants.values(), default=0)
    may_settle = change.may_settle(
        membership, phase.answered, durable_mark, lease_until, read_leases_until
    )
    return Settled(version=new.version) if may_settle else None
