"""When a leader may begin a change of the acceptors, and when it may end one (decision 26, rules 10
and 11). Here is what is asked and answered; the proposer acts.
"""

from collections.abc import Container, Mapping

from actors.messages import ChangeMember
from actors.numbers import Milliseconds
from actors.paxos.membership import Configuration, Key, Membership
from actors.values import FoundingMember, Members


class ChangeRefused(Exception):
    """The change can't begin now; the text says why, and what to do."""


class NotYet(ChangeRefused):
    """What is missing may come by itself: ask again in a moment."""


def is_replaced(membership: Membership, name: str) -> bool:
    """Whether the change that is under way puts another disk in the place of that acceptor's."""
    old, new = membership.active[0].acceptors, membership.newest.acceptors
    is_named = [any(acceptor.name == name for acceptor in ones) for ones in (old, new)]
    return all(is_named) and any(a.name == name and a not in old for a in new)


def is_newcomer(acceptor: Key, membership: Membership, founded: Membership) -> bool:
    """Whether an acceptor's disk may be put in the place of another one: it does not count, and is
    none of the founding, which was replaced then. Nobody can have meant to bring that one back.
    """
    return not (membership.has_active(acceptor) or founded.has_active(acceptor))


def replacement(membership: Membership, request: ChangeMember, disk: str | None) -> Members:
    """The acceptors with another disk under the requested name: `disk`, the last other one that a
    process under it runs on. Raises `ChangeRefused`.
    """
    name = request.name
    if not membership.is_settled:
        raise ChangeRefused(
            f"the change to version {membership.newest.version} of the acceptors is under way: "
            "one at a time"
        )
    newest = membership.newest
    if request.version != newest.version:
        raise NotYet(
            f"the acceptors are of version {newest.version}, and version {request.version} was to "
            "be changed"
        )
    if name not in {acceptor.name for acceptor in newest.acceptors}:
        names = ", ".join(sorted(acceptor.name for acceptor in newest.acceptors))
        raise ChangeRefused(f"{name} is no acceptor; these are: {names}")
    if disk is None or (name, disk) in newest.voters:
        raise NotYet(
            f"{name} has not been heard from another disk than the one that counts: start it on an "
            "empty folder"
        )
    acceptors = tuple(
        FoundingMember(name=name, disk=disk) if acceptor.name == name else acceptor
        for acceptor in newest.acceptors
    )
    return Members(version=newest.version + 1, acceptors=acceptors, principal=request.principal)


def check_promised(members: Members, former: Configuration, promised: Container[Key]) -> None:
    """Check that a majority of the new acceptors has promised the leader's ballot, which safety
    needs, and each one that is new, which progress needs. Raises `ChangeRefused`.
    """
    planned = planned_configuration(members)
    missing = [
        acceptor.name
        for acceptor in planned.acceptors
        if (acceptor.name, acceptor.disk) not in promised
    ]
    if set(missing) & _new_names(members, former) or not planned.voters.can_do_without(
        (a.name, a.disk) for a in planned.acceptors if a.name in missing
    ):
        raise NotYet(f"no promise yet of {', '.join(missing)}: they are asked now")


def check_alive(
    members: Members,
    former: Configuration,
    granted: Mapping[Key, Milliseconds],
    since: Milliseconds,
) -> None:
    """Check that a majority of the new acceptors, and each one that is new, has granted a heartbeat
    sent after `since`. Raises `ChangeRefused`: fewer than a quorum would be alive, or the change
    would make nothing better.
    """
    planned = planned_configuration(members)
    silent = [
        (acceptor.name, acceptor.disk)
        for acceptor in planned.acceptors
        if granted.get((acceptor.name, acceptor.disk), since) <= since
    ]
    names = [name for name, _ in silent]
    if not planned.voters.can_do_without(silent):
        raise ChangeRefused(
            f"fewer than a quorum of the new acceptors would be alive: {', '.join(names)} did not "
            "answer within a lease. Bring them back first"
        )
    if are_new := sorted(set(names) & _new_names(members, former)):
        raise NotYet(f"{', '.join(are_new)} did not answer within a lease; is it running?")


def _new_names(members: Members, former: Configuration) -> set[str]:
    """The acceptors on disks that did not count before."""
    return {a.name for a in members.acceptors if (a.name, a.disk) not in former.voters}


def planned_configuration(members: Members) -> Configuration:
    """The acceptors of a `Members` that has no slot yet."""
    return Configuration(
        version=members.version, named_slot=0, first_slot=0, acceptors=members.acceptors
    )


def may_settle(
    membership: Membership,
    answered: Mapping[Key, int],
    durable_mark: int,
    lease_until: Milliseconds,
    read_leases_until: Milliseconds,
) -> bool:
    """Whether the leader of a change may end it (rule 11).

    (i) A majority of the old acceptors has answered a message that named the new version, so it is
    fenced; (ii) every slot that they chose is durable; (iii) no read lease that the old ones
    covered outlives the lease, which is of both.
    """
    old, new = membership.active
    fenced = [key for key, version in answered.items() if version >= new.version]
    return (
        old.voters.are_quorum(fenced)
        and durable_mark >= new.first_slot - 1
        and lease_until >= read_leases_until
    )
