"""ModelMembership as a pure function of the chosen prefix (rules 1 to 3), and quorums of disks."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations

NOTHING = 0
"""No value. A command is the number of the ballot that proposed it first."""
_MEMBERS = 100
_SETTLED = 200


def members(version: int) -> int:
    """The value that names the configuration `version`."""
    return _MEMBERS + version


def settled(version: int) -> int:
    """The value that ends the change to the configuration `version`."""
    return _SETTLED + version


def is_members(value: int) -> bool:
    """Whether `value` names a configuration."""
    return _MEMBERS < value < _SETTLED


def named(value: int) -> str:
    """The value for a reader."""
    if value >= _SETTLED:
        return f"Settled({value - _SETTLED})"
    if value >= _MEMBERS:
        return f"Members({value - _MEMBERS})"
    return f"the command of ballot {value}"


@dataclass(frozen=True)
class ModelMembership:
    """The configurations that a chosen prefix has named, oldest first; version 0 is genesis."""

    firsts: tuple[int, ...] = (1,)
    """The first slot of each."""
    named_at: tuple[int, ...] = (0,)
    """The slot of each one's Members."""
    oldest: int = 0
    """The oldest active one. All after it are active."""
    settled_at: tuple[int, ...] = (0,)
    """For each active or retired version, the slot that settled it."""

    @property
    def newest(self) -> int:
        return len(self.firsts) - 1

    @cached_property
    def active(self) -> tuple[int, ...]:
        return tuple(range(self.oldest, len(self.firsts)))

    def at(self, slot: int) -> int:
        """The version whose majority chooses `slot`."""
        return max(v for v, first in enumerate(self.firsts) if first <= slot)

    def version_at(self, slot: int) -> int:
        """The newest version that is durable for certain, if `slot` is the durable mark. So is that
        of a Settled which is known: no leader proposes it before that version was named (rule 11).
        """
        return max(self.oldest, *(v for v, at in enumerate(self.named_at) if at <= slot))


@cache
def membership(values: tuple[int, ...], alpha: int, mutants: frozenset[str]) -> ModelMembership:
    """The membership at the end of the prefix `values`, whose first value is that of slot 1."""
    if not values:
        return ModelMembership()
    before = membership(values[:-1], alpha, mutants)
    slot, value = len(values), values[-1]
    is_one = before.oldest == before.newest
    if value == members(before.newest + 1) and (is_one or "two_at_once" in mutants):
        first = slot + (1 if "at_once" in mutants else alpha)
        return ModelMembership(
            (*before.firsts, first),
            (*before.named_at, slot),
            before.newest,
            before.settled_at,
        )
    counts = slot >= before.firsts[-1] or "settled_before_e" in mutants
    if value == settled(before.newest) and not is_one and counts:
        return ModelMembership(
            before.firsts, before.named_at, before.newest, (*before.settled_at, slot)
        )
    if "retire_implicit" in mutants and not is_one and slot >= before.firsts[-1] - 1:
        return ModelMembership(
            before.firsts, before.named_at, before.newest, (*before.settled_at, slot)
        )
    return before


class Disks:
    """The acceptors' disks as bits, and which of them are a majority of a configuration."""

    def __init__(
        self, configurations: tuple[int, ...], names: tuple[str, ...], by_name: bool
    ) -> None:
        self._counted = tuple(
            self._by_name(mask, names) if by_name else mask for mask in configurations
        )
        self._name_bits = [
            1 << min(j for j, other in enumerate(names) if other == name) for name in names
        ]
        self._counts_names = by_name
        self._majorities = [self._count(mask) // 2 + 1 for mask in configurations]
        self._quorums: dict[tuple[int, tuple[int, ...]], tuple[int, ...]] = {}
        self.voters = self._counted
        """For each version, the disks to which its leader sends proposals."""

    @staticmethod
    def _by_name(mask: int, names: tuple[str, ...]) -> int:
        held = {name for i, name in enumerate(names) if mask >> i & 1}
        return sum(1 << i for i, name in enumerate(names) if name in held)

    def _count(self, mask: int) -> int:
        if not self._counts_names:
            return mask.bit_count()
        return len({bit for i, bit in enumerate(self._name_bits) if mask >> i & 1})

    def are_quorum(self, mask: int, version: int) -> bool:
        """Whether the disks in `mask` hold a majority of that configuration."""
        return self._count(mask & self._counted[version]) >= self._majorities[version]

    def are_quorums(self, mask: int, versions: Iterable[int]) -> bool:
        """Whether the disks in `mask` hold a majority of each of those configurations."""
        return all(self.are_quorum(mask, version) for version in versions)

    def quorums_in(self, mask: int, versions: tuple[int, ...]) -> tuple[int, ...]:
        """The least sets of disks in `mask` that hold a majority of each configuration."""
        known = self._quorums.get((mask, versions))
        if known is None:
            known = self._quorums[mask, versions] = self._least_quorums(mask, versions)
        return known

    def _least_quorums(self, mask: int, versions: tuple[int, ...]) -> tuple[int, ...]:
        bits = [1 << i for i in range(len(self._name_bits)) if mask >> i & 1]
        found: list[int] = []
        for size in range(len(bits) + 1):
            for chosen in combinations(bits, size):
                candidate = sum(chosen)
                if any(other & candidate == other for other in found):
                    continue
                if self.are_quorums(candidate, versions):
                    found.append(candidate)
        return tuple(found)
