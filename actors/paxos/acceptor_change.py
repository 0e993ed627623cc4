"""When a leader may begin a change of the acceptors, and when it may end one (decision 26, rules 10
and 11). Here is what is asked and answered; the proposer acts.
"""

from collections.abc import Container, Mapping

from actors.messages import Action, ChangeMember
from actors.numbers import Milliseconds
from actors.paxos.membership import Configuration, Key, Membership
from actors.values import ACCEPTORS_LEAST, FoundingMember, Members


class ChangeRefused(Exception):
    """The change can't begin now; the text says why, and what to do."""


class NotYet(ChangeRefused):
    """What is missing may come by itself: ask again in a moment."""


def is_begun(membership: Membership, action: Action, name: str) -> bool:
    """Whether the change that is under way is the one that was asked for."""
    old = {one.name: one.disk for one in membership.active[0].acceptors}
    new = {one.name: one.disk for one in membership.newest.acceptors}
    match action:
        case "replace":
            return name in old and name in new and old[name] != new[name]
        case "add":
            return name not in old and name in new
        case "remove":
            return name in old and name not in new


def is_newcomer(acceptor: Key, membership: Membership, founded: Membership) -> bool:
    """Whether an acceptor's disk may be put in the place of another one: it does not count, and is
    none of the founding, which was replaced then. Nobody can have meant to bring that one back.
    """
    return not (membership.has_active(acceptor) or founded.has_active(acceptor))


def next_members(membership: Membership, request: ChangeMember, disk: str | None) -> Members:
    """The acceptors with another disk under the requested name, with one more, or with one less.
    `disk` is the last one that does not count and that a process under the name runs on. Raises
    `ChangeRefused`.
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
    names = sorted(acceptor.name for acceptor in newest.acceptors)
    if request.action == "add" and name in names:
        raise ChangeRefused(f"{name} is an acceptor already")
    if request.action != "add" and name not in names:
        raise ChangeRefused(f"{name} is no acceptor; these are: {', '.join(names)}")
    acceptors = [acceptor for acceptor in newest.acceptors if acceptor.name != name]
    if request.action == "remove":
        if len(acceptors) < ACCEPTORS_LEAST:
            raise ChangeRefused(f"{ACCEPTORS_LEAST} acceptors have to stay: add another one first")
    elif disk is None or (name, disk) in newest.voters:
        raise NotYet(
            f"{name} has not been heard from another disk than the one that counts: start it on an "
            "empty folder"
        )
    else:
        # In the place of the former one, if there is one: the order is part of the log.
        places = [acceptor.name for acceptor in newest.acceptors]
        place = places.index(name) if name in places else len(places)
        acceptors.insert(place, FoundingMember(name=name, disk=disk))
    return Members(
        version=newest.version + 1, acceptors=tuple(acceptors), principal=request.principal
    )


def check_all_alive(
    former: Configuration, granted: Mapping[Key, Milliseconds], since: Milliseconds
) -> None:
    """Check that no acceptor is silent when one is added: four of which one is dead tolerate no
    further loss. Raises `ChangeRefused`.
    """
    silent = [key[0] for key in _keys(former) if granted.get(key, since) <= since]
    if silent:
        raise ChangeRefused(
            f"{', '.join(silent)} did not answer within a lease: bring it back, or replace or "
            "remove it first"
        )


def _keys(configuration: Configuration) -> list[Key]:
    return [(acceptor.name, acceptor.disk) for acceptor in configuration.acceptors]


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
