"""Which acceptors choose which slot: a pure function of the chosen prefix (decision 26, rules 1-3).

`Members` begins a change and `Settled` ends it. In between, the old and the new configuration are
both active: elections and leases take a majority of each, and a slot that of its own. Nothing uses
this yet; the decision lists the steps.
"""

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import model_validator

from actors.errors import InvariantViolation
from actors.numbers import Count
from actors.paxos.quorum import majority
from actors.values import FoundingMember, Frozen, Genesis

ACCEPTORS_LEAST = 3
"""With fewer, no acceptor could fail."""


class Members(Frozen):
    """A value of the log: these acceptors, by node and disk, are configuration `version`."""

    kind: Literal["members"] = "members"
    version: Count
    acceptors: tuple[FoundingMember, ...]

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        count = len(self.acceptors)
        if count < ACCEPTORS_LEAST:
            raise ValueError(f"{count} acceptors; {ACCEPTORS_LEAST} at least")
        for one in ("name", "disk"):
            if len({getattr(acceptor, one) for acceptor in self.acceptors}) < count:
                raise ValueError(f"two acceptors have the same {one}")
        return self


class Settled(Frozen):
    """A value of the log: the change to configuration `version` ends."""

    kind: Literal["settled"] = "settled"
    version: Count


class Configuration(Frozen):
    """The acceptors that choose the slots from `first_slot` on, until the next one begins."""

    version: Count
    named_slot: Count
    """The slot of its Members; 0: the genesis."""
    first_slot: Count
    acceptors: tuple[FoundingMember, ...]

    def are_quorum(self, voters: Iterable[tuple[str, str]]) -> bool:
        """Whether the distinct `(name, disk)` in `voters` hold a majority. A disk counts, not a
        name: an acceptor that lost its disk is not the member that it was.
        """
        held = {(acceptor.name, acceptor.disk) for acceptor in self.acceptors}
        return len(held.intersection(voters)) >= majority(len(held))


class Membership(Frozen):
    """The active configurations at the end of a chosen prefix, oldest first: one, or two amid a
    change. Retired ones are forgotten: whoever knows a Settled knows all slots that they chose.
    """

    active: tuple[Configuration, ...]

    @classmethod
    def founded(cls, genesis: Genesis) -> Self:
        """The membership before slot 1."""
        acceptors = tuple(m for m in genesis.members if m.name.startswith("acceptor-"))
        first = Configuration(version=0, named_slot=0, first_slot=1, acceptors=acceptors)
        return cls(active=(first,))

    @property
    def newest(self) -> Configuration:
        """The configuration that was named last."""
        return self.active[-1]

    @property
    def is_settled(self) -> bool:
        """Whether no change is under way."""
        return len(self.active) == 1

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
            return Membership(active=(self.newest, new))
        if isinstance(value, Settled) and not self.is_settled and value.version == version:
            return Membership(active=(self.newest,)) if slot >= self.newest.first_slot else self
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

    def are_quorums(self, voters: Iterable[tuple[str, str]]) -> bool:
        """Whether `voters` hold a majority of every active configuration: they elect, and grant
        the lease.
        """
        held = set(voters)
        return all(configuration.are_quorum(held) for configuration in self.active)

    def version_at(self, durable: int) -> int:
        """The newest version whose Members is durable for certain, if `durable` is the durable
        mark: the version that messages may name (rule 12). The oldest active one always is: its
        Settled was proposed only after it had been named.
        """
        named = [c.version for c in self.active if c.named_slot <= durable]
        return max([self.active[0].version, *named])
