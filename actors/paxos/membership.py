"""Which acceptors choose which slot, and who the other members are: a pure function of the chosen
prefix (decision 26, rules 1-3 and 19).

`Members` begins a change and `Settled` ends it. In between, the old and the new configuration are
both active: elections and leases take a majority of each, and a slot that of its own. Here is which
configuration counts for what; who asks is in the roles.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Self

from pydantic import Field

from actors.errors import InvariantViolation
from actors.frozen import is_none
from actors.numbers import Count
from actors.paxos.quorum import Voters
from actors.values import (
    FoundingMember,
    Frozen,
    Genesis,
    Members,
    Roster,
    RosterNames,
    Settled,
)

Key = tuple[str, str]
"""An acceptor and its disk: one that lost its disk is another one."""


class Configuration(Frozen):
    """The acceptors that choose the slots from `first_slot` on, until the next one begins."""

    version: Count
    named_slot: Count
    """The slot of its Members; 0: the genesis."""
    first_slot: Count
    acceptors: tuple[FoundingMember, ...]

    @cached_property
    def voters(self) -> Voters[Key]:
        """The acceptors by name and disk. A disk counts, not a name: an acceptor that lost its disk
        is not the member that it was.
        """
        return Voters((acceptor.name, acceptor.disk) for acceptor in self.acceptors)


class CountedRoster(Frozen):
    """The proposers, learners and stores that the Roster in `slot` names. `removed` are the disks
    on which others were when they were removed.
    """

    version: Count
    slot: Count
    members: RosterNames
    removed: tuple[FoundingMember, ...] = ()

    def names(self, role: str) -> tuple[str, ...]:
        """The members of a role."""
        return tuple(name for name in self.members if name.startswith(f"{role}-"))

    def after(self, slot: int, value: Roster) -> "CountedRoster":
        """The next roster, in `slot`. Of each name that it lacks the disks are kept on which it was
        when it was removed last.
        """
        named = {one.name for one in value.removed}.union(value.members)
        kept = [one for one in self.removed if one.name not in named]
        new = [one for one in value.removed if one.name not in value.members]
        return CountedRoster(
            version=value.version,
            slot=slot,
            members=value.members,
            removed=tuple(sorted((*kept, *new), key=lambda one: (one.name, one.disk))),
        )


class Membership(Frozen):
    """The active configurations at the end of a chosen prefix, oldest first: one, or two amid a
    change. Retired ones are forgotten: whoever knows a Settled knows all slots that they chose.

    The other roles vote on no slot, so a roster of their names is enough.
    """

    active: tuple[Configuration, ...]
    settled_slot: Count = 0
    """The slot of the Settled that ended the last change; 0: there was none."""
    roster: CountedRoster | None = Field(None, exclude_if=is_none)
    """`None`: as in the genesis."""

    @classmethod
    def founded(cls, genesis: Genesis) -> Self:
        """The membership before slot 1."""
        acceptors = tuple(m for m in genesis.members if m.name.startswith("acceptor-"))
        first = Configuration(version=0, named_slot=0, first_slot=1, acceptors=acceptors)
        return cls(active=(first,))

    @property
    def is_founding(self) -> bool:
        """Whether no member ever changed: the row and the fields are not written then."""
        return self.newest.version == 0 and self.roster is None

    @property
    def newest(self) -> Configuration:
        """The configuration that was named last."""
        return self.active[-1]

    @property
    def is_settled(self) -> bool:
        """Whether no change is under way."""
        return len(self.active) == 1

    def names(self, role: str, genesis: Genesis) -> tuple[str, ...]:
        """The proposers, the learners or the stores; of acceptors those that were named last."""
        if role == "acceptor":
            return tuple(acceptor.name for acceptor in self.newest.acceptors)
        return genesis.names(role) if self.roster is None else self.roster.names(role)

    @property
    def roster_version(self) -> int:
        """The version of the roster; 0: the genesis's."""
        return 0 if self.roster is None else self.roster.version

    def is_removed(self, name: str, disk: str, genesis: Genesis) -> bool:
        """Whether this disk was a proposer's, a learner's or a store's that was removed since."""
        if self.roster is None or name in self.roster.members:
            return False
        one = FoundingMember(name=name, disk=disk)
        return one in self.roster.removed or one in genesis.members

    def stores_needed(self, genesis: Genesis) -> int:
        """The number of whole stores that a new write needs: never more than there are."""
        return min(genesis.stores_needed, len(self.names("store", genesis)))

    def has_active(self, key: Key) -> bool:
        """Whether this disk is an acceptor of an active configuration."""
        return any(key in configuration.voters for configuration in self.active)

    def after(self, slot: int, value: object, alpha: int) -> "Membership":
        """The membership once `slot`, the next of the prefix, is known to hold `value`.

        A value that does not count changes nothing, so all replicas agree whatever was proposed.
        """
        version = self.newest.version
        if isinstance(value, Members) and self.is_settled and value.version == version + 1:
            new = Configuration(
                version=value.version,
                named_slot=slot,
                first_slot=slot + alpha,
                acceptors=value.acceptors,
            )
            return self.model_copy(update={"active": (self.newest, new)})
        ends = isinstance(value, Settled) and not self.is_settled and value.version == version
        if ends and slot >= self.newest.first_slot:
            return self.model_copy(update={"active": (self.newest,), "settled_slot": slot})
        if isinstance(value, Roster) and value.version == self.roster_version + 1:
            former = self.roster or CountedRoster(version=0, slot=0, members=value.members)
            return self.model_copy(update={"roster": former.after(slot, value)})
        return self

    def at(self, slot: int) -> Configuration:
        """The configuration that chooses `slot`, which is known through `alpha` slots beyond the
        prefix. Raises `InvariantViolation` for a slot of a retired one.
        """
        for configuration in reversed(self.active):
            if configuration.first_slot <= slot:
                return configuration
        raise InvariantViolation(
            f"slot {slot} is below {self.active[0].first_slot}, the first slot of the oldest "
            f"active configuration (version {self.active[0].version})"
        )

    def are_quorums(self, voters: Iterable[Key]) -> bool:
        """Whether `voters` hold a majority of every active configuration: they elect."""
        held = set(voters)
        return all(configuration.voters.are_quorum(held) for configuration in self.active)

    def can_do_without(self, lacking: Iterable[Key]) -> bool:
        """Whether the others hold a majority of every active configuration."""
        gone = set(lacking)
        return all(configuration.voters.can_do_without(gone) for configuration in self.active)

    def reached_by_quorums(self, values: Mapping[Key, int]) -> int | None:
        """The highest value that a majority of every active configuration has reached, or `None`:
        they grant the lease.
        """
        reached = [configuration.voters.reached_by_quorum(values) for configuration in self.active]
        known = [value for value in reached if value is not None]
        return min(known) if len(known) == len(reached) else None

    def version_at(self, durable: int, answered: int = 0) -> int:
        """The newest version whose Members is durable for certain, if `durable` is the durable
        mark, and an acceptor has answered a message that named version `answered`: the version that
        messages may name (rule 12). The oldest active one always is: its Settled was proposed only
        after it had been named.
        """
        named = [c.version for c in self.active if c.named_slot <= durable or c.version <= answered]
        return max([self.active[0].version, *named])
