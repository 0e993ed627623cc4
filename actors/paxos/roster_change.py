"""When a leader may change the roster: who proposes, learns and stores (decision 26, rule 20).

These roles vote on no slot, so nothing here is for safety: it refuses what would leave too few.
Here is what is asked and answered; the proposer acts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from actors.messages import ChangeMember
from actors.numbers import Milliseconds
from actors.options import MEMBER_NUMBER_MAX, MEMBER_ROLES, may_be_added, number_of, role_of
from actors.paxos.acceptor_change import ChangeRefused, NotYet
from actors.paxos.membership import Membership
from actors.values import LEARNERS_LEAST, FoundingMember, Genesis, Roster, View


class Heard(NamedTuple):
    """The last heartbeat of a node: when it came, from which disk, and what it said."""

    at: Milliseconds
    disk: str
    durable: int = 0
    is_sound: bool = True
    """Whether it neither copies a state nor lacks contents, or records of the audit."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the leader knows when it is asked: the members, the view, and who was heard since
    `alive_since`.
    """

    membership: Membership
    genesis: Genesis
    view: View | None
    heard: Mapping[str, Heard]
    alive_since: Milliseconds

    def alive(self, name: str) -> Heard | None:
        """The last heartbeat of a node, unless it is silent."""
        heard = self.heard.get(name)
        return heard if heard is not None and heard.at > self.alive_since else None

    def others(self, request: ChangeMember) -> list[str]:
        """The members of its role but the one that a request names."""
        members = self.membership.names(role_of(request.name), self.genesis)
        return [name for name in members if name != request.name]

    def whole_stores(self) -> list[str]:
        """The stores of the view that are whole, and are to stay."""
        members = self.membership.names("store", self.genesis)
        whole: list[str] = []
        for store in self.view.stores if self.view is not None else ():
            heard = self.alive(store.name)
            if heard is None or heard.disk != store.disk or not heard.is_sound:
                continue
            if store.added_slot is not None and heard.durable >= store.added_slot:
                whole.append(store.name)
        return [name for name in whole if name in members]

    def disks_of(self, name: str) -> set[str]:
        """The disks of a member: that of the view, and the one on which it was heard last, which
        may be another one that has not joined yet.
        """
        store = self.view.member(name) if self.view is not None else None
        return {one.disk for one in (store, self.heard.get(name)) if one is not None}

    def founding_disk(self, name: str) -> str | None:
        """The disk that the genesis names."""
        return next((one.disk for one in self.genesis.members if one.name == name), None)


def version_reached(request: ChangeMember, membership: Membership, genesis: Genesis) -> int | None:
    """The present version, if it is the one that the request asked for: it came twice."""
    is_member = request.name in membership.names(role_of(request.name), genesis)
    is_next = membership.roster_version == request.version + 1
    fits = {"add": is_member, "remove": not is_member}.get(request.action, False)
    return membership.roster_version if fits and is_next else None


def next_roster(request: ChangeMember, known: Surroundings) -> Roster:
    """The roster with or without a member. Raises `ChangeRefused`."""
    membership, name = known.membership, request.name
    if request.version != membership.roster_version:
        raise NotYet(
            f"the roster is of version {membership.roster_version}, and version {request.version} "
            "was to be changed"
        )
    members = [one for role in MEMBER_ROLES for one in membership.names(role, known.genesis)]
    members = [one for one in members if role_of(one) != "acceptor"]
    if request.action == "add":
        _check_addition(request, known)
        members.append(name)
        disks: set[str] = set()
    else:
        _check_removal(request, known)
        members.remove(name)
        disks = known.disks_of(name)
    members.sort(key=lambda one: (MEMBER_ROLES.index(role_of(one)), number_of(one)))
    return Roster(
        version=request.version + 1,
        members=tuple(members),
        removed=tuple(FoundingMember(name=name, disk=disk) for disk in sorted(disks)),
        principal=request.principal,
    )


def check_replacement(request: ChangeMember, known: Surroundings) -> None:
    """Check that a process runs on another disk under a member's name: it joins by itself, and the
    log does not change. Raises `ChangeRefused`.
    """
    _check_member(request, known)
    heard = known.alive(request.name)
    if heard is None or heard.disk == known.founding_disk(request.name):
        raise NotYet(
            f"{request.name} has not been heard from another disk than that of the founding: start "
            "it on an empty folder"
        )


def _check_member(request: ChangeMember, known: Surroundings) -> None:
    role = role_of(request.name)
    members = known.membership.names(role, known.genesis)
    if request.name not in members:
        raise ChangeRefused(f"{request.name} is no member; of its role are: {', '.join(members)}")


def _check_addition(request: ChangeMember, known: Surroundings) -> None:
    """A name that is free, and a living node of it on a disk that was not removed."""
    name, membership = request.name, known.membership
    if name in membership.names(role_of(name), known.genesis):
        raise ChangeRefused(f"{name} is a member already")
    if known.founding_disk(name) is None and not may_be_added(name):
        raise ChangeRefused(f"{name} can't be added: numbers go up to {MEMBER_NUMBER_MAX}")
    heard = known.alive(name)
    if heard is None:
        raise NotYet(f"{name} has not been heard: start it on an empty folder")
    if membership.is_removed(name, heard.disk, known.genesis):
        raise NotYet(f"{name} runs on the disk that was removed: start it on an empty folder")


def _check_removal(request: ChangeMember, known: Surroundings) -> None:
    """Those that stay are enough, and live."""
    _check_member(request, known)
    name, others = request.name, known.others(request)
    role = role_of(name)
    if role == "learner" and len(others) < LEARNERS_LEAST:
        raise ChangeRefused(f"{LEARNERS_LEAST} learners have to stay: add another one first")
    if not others:
        raise ChangeRefused(f"{name} is the only {role}: add another one first")
    alive = [heard for other in others if (heard := known.alive(other)) is not None]
    if role != "store":
        if not alive:
            raise ChangeRefused(f"none of the others is alive: {', '.join(others)}")
        if role == "learner" and not any(one.is_sound and one.durable for one in alive):
            raise NotYet(f"the others still copy states or the audit: {', '.join(others)}")
        return
    genesis = known.genesis
    after = min(genesis.stores_needed, len(others))
    least = min(genesis.constants.min_stores, len(genesis.names("store")))
    whole = [store for store in known.whole_stores() if store != name]
    if len(whole) < max(after, least):
        raise ChangeRefused(
            f"without {name} the view would have {len(whole)} whole stores "
            f"({', '.join(whole) or 'none'}), and writes need {max(after, least)}: add another one "
            "first, or wait until the others are whole"
        )
