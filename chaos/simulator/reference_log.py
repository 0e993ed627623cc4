"""The reference log: what is chosen, read from the acceptors' disks alone.

A value is chosen once a majority of the slot's own acceptors has the same slot and ballot on disk
(design 3.4); `Members` and `Settled` in the log say which disks these are, and `Roster` who else is
a member.
Views and aborts are applied in slot order, as every learner must apply them. All invariants that
concern the log compare the nodes with this one.
"""

import json
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from actors.paxos.ballot import Ballot
from actors.values import NOOP, Abort, AnyValue, Genesis, Value, View
from chaos.simulator.violation import Violation

_VALUE: TypeAdapter[AnyValue] = TypeAdapter(Value)
_MARK = b',"value":'
_KIND = b'{"kind":"'


def ballot_of(row: bytes) -> Ballot:
    """The ballot of an acceptor's row. Its value may be anything."""
    return Ballot(*json.loads(row[: row.index(_MARK)] + b"}")["ballot"])


def _is_value(text: bytes) -> bool:
    try:
        _VALUE.validate_json(text)
    except ValidationError:
        return False
    return True


class ReferenceLog:
    """The log as it stands on the acceptors' disks."""

    def __init__(self) -> None:
        # An arithmetic of its own: one shared with the actors would share their bugs.
        self._votes: dict[int, dict[bytes, set[str]]] = {}
        """For each slot and row the disks that hold it."""
        self._configurations: list[tuple[int, frozenset[str]]] = []
        """For each version the first slot that its acceptors choose, and their disks."""
        self.acceptors: dict[str, str] = {}
        """The disk of each acceptor of the newest version."""
        self.changing = False
        """Whether a change of the acceptors has begun and not ended."""
        self.changes: dict[int, dict[str, Any]] = {}
        """The Members, Settled and Rosters that count, by slot."""
        self.rosters: list[tuple[int, tuple[str, ...]]] = []
        """For each version of the roster the slot from which it counts, and the names."""
        self.removed: dict[str, set[str]] = {}
        """For each name the disks on which it was when it was removed."""
        self.settled_slot = 0
        """The slot of the Settled that ended the last change."""
        self.chosen: dict[int, bytes] = {}
        """For each slot the chosen value, as the journals write it; a no-op for what is none."""
        self.chosen_texts: dict[int, bytes] = {}
        """The same, whether it is a value or not."""
        self.ballots: dict[int, Ballot] = {}
        """For each chosen slot the lowest ballot under which a majority was seen."""
        self.chosen_through = 0
        """Every slot up to this one is chosen."""
        self.genesis: Genesis | None = None
        self.view: View | None = None
        """The view in force after `chosen_through`, with every `added_slot` filled in."""
        self.coordinators: dict[int, tuple[str, str, int]] = {}
        """For each epoch its coordinator, with that node's disk and incarnation."""
        self.aborts: dict[int, set[int]] = {}
        """For each slot the commands that a chosen abort of the right epoch names."""
        self._full: set[tuple[int, int]] = set()
        """The commands, by slot and index, whose first chosen abort says that a disk was full."""
        self._short: dict[int, set[int]] = {}
        """For each slot the writes that abort because the view in force had too few stores."""
        self.on_chosen: Callable[[int], None] = lambda slot: None
        """Called for each slot in order, once all slots up to it are chosen."""

    def founded(self, genesis: Genesis) -> None:
        """An acceptor has committed the genesis, which is slot 0."""
        if self.genesis is not None:
            if self.genesis.cluster != genesis.cluster:
                raise Violation(
                    "one_cluster", f"{self.genesis.cluster} and {genesis.cluster} were founded"
                )
            return
        self.genesis = genesis
        named = {m.name: m.disk for m in genesis.members if m.name.startswith("acceptor-")}
        self._begin_version(1, named)
        others = tuple(m.name for m in genesis.members if m.name not in named)
        self.rosters.append((0, others))
        self._install(genesis.view)

    def _begin_version(self, first_slot: int, acceptors: dict[str, str]) -> None:
        self.acceptors = acceptors
        self._configurations.append((first_slot, frozenset(acceptors.values())))

    @property
    def version(self) -> int:
        """The newest version of the acceptors."""
        return len(self._configurations) - 1

    @property
    def roster(self) -> tuple[str, ...]:
        """The proposers, learners and stores."""
        return self.rosters[-1][1] if self.rosters else ()

    def roster_at(self, slot: int) -> tuple[str, ...]:
        """The proposers, learners and stores after a slot."""
        return next(names for first, names in reversed(self.rosters) if first <= slot)

    def names(self, role: str) -> list[str]:
        """The members of a role; of acceptors the newest ones."""
        names = self.acceptors if role == "acceptor" else self.roster
        return [name for name in names if name.rpartition("-")[0] == role]

    def _disks_of(self, slot: int) -> frozenset[str]:
        return next(disks for first, disks in reversed(self._configurations) if first <= slot)

    def are_leased(self, disks: set[str]) -> bool:
        """Whether these disks are a majority of the oldest acceptors that are not retired."""
        oldest = self._configurations[-2 if self.changing else -1][1]
        return len(disks & oldest) > len(oldest) // 2

    def accepted(self, disk: str, slot: int, row: bytes) -> None:
        """An acceptor has committed the row of a slot: slot, ballot and value as JSON."""
        value = row[row.index(_MARK) + len(_MARK) : -1]
        if self.chosen_texts.get(slot) == value:
            return
        self._votes.setdefault(slot, {}).setdefault(row, set()).add(disk)
        self._count(slot)
        while self.chosen_through + 1 in self.chosen:
            self.chosen_through += 1
            self._apply(self.chosen_through, self.chosen[self.chosen_through])
            self._count(self.chosen_through + self._alpha)
            self.on_chosen(self.chosen_through)

    @property
    def _alpha(self) -> int:
        assert self.genesis is not None
        return self.genesis.constants.alpha

    def _count(self, slot: int) -> None:
        """Count the votes on a slot, if its acceptors are known by now."""
        if slot > self.chosen_through + self._alpha:
            return
        voters = self._disks_of(slot)
        for row, disks in self._votes.get(slot, {}).items():
            if len(disks & voters) > len(voters) // 2:
                self._choose(slot, row)

    def _choose(self, slot: int, row: bytes) -> None:
        value = row[row.index(_MARK) + len(_MARK) : -1]
        former = self.chosen_texts.get(slot)
        if former == value:
            return
        if former is not None:
            raise Violation(
                "one_value_per_slot",
                f"slot {slot}: {former[:200]!r} was chosen, and then {value[:200]!r}",
            )
        self.chosen_texts[slot] = value
        self.chosen[slot] = value if _is_value(value) else NOOP.to_json()
        self.ballots[slot] = ballot_of(row)

    def _apply(self, slot: int, value: bytes) -> None:
        if value.startswith(b"batch", len(_KIND)):
            if self.genesis is not None and self.view is not None:
                self._abort_below_min_stores(slot, value, self.genesis, self.view)
            return
        if value.startswith(b"view", len(_KIND)):
            view = View.model_validate_json(value)
            if self.view is not None and view.epoch == self.view.epoch + 1:
                self._install(view.in_force_at(slot))
        elif value.startswith(b"abort", len(_KIND)):
            abort = Abort.model_validate_json(value)
            if self.view is not None and abort.epoch == self.view.epoch:
                new = set(abort.commands) - self.aborts.get(abort.slot, set())
                if abort.reason.startswith("no room"):
                    self._full |= {(abort.slot, index) for index in new}
                self.aborts.setdefault(abort.slot, set()).update(abort.commands)
        elif value.startswith(b"members", len(_KIND)):
            read = json.loads(value)
            if not self.changing and read["version"] == self.version + 1:
                named = {acceptor["name"]: acceptor["disk"] for acceptor in read["acceptors"]}
                self._begin_version(slot + self._alpha, named)
                self.changing = True
                self.changes[slot] = read
        elif value.startswith(b"roster", len(_KIND)):
            read = json.loads(value)
            if read["version"] == len(self.rosters):
                self.rosters.append((slot, tuple(read["members"])))
                for one in read["removed"]:
                    self.removed.setdefault(one["name"], set()).add(one["disk"])
                self.changes[slot] = read
        elif value.startswith(b"settled", len(_KIND)) and self.changing:
            read = json.loads(value)
            if read["version"] == self.version and slot >= self._configurations[-1][0]:
                self.changing, self.settled_slot = False, slot
                self.changes[slot] = read

    def _abort_below_min_stores(
        self, slot: int, value: bytes, genesis: Genesis, view: View
    ) -> None:
        """Note the writes of a slot whose view has too few stores, by an arithmetic of its own."""
        founders = sum(member.name.startswith("store-") for member in genesis.members)
        stores = min(founders, len(self.names("store")))
        constants = genesis.constants
        needed = stores if constants.rowa == "strict" else min(constants.min_stores, stores)
        if len(view.stores) < needed:
            self._short[slot] = {
                index
                for index, command in enumerate(json.loads(value)["commands"])
                if command["operation"]["kind"] not in ("open_session", "close_session")
            }

    def _install(self, view: View) -> None:
        self.view = view
        self.coordinators[view.epoch] = (
            view.coordinator,
            view.coordinator_disk,
            view.coordinator_incarnation,
        )

    def aborted(self, slot: int) -> tuple[int, ...]:
        """The aborted commands of a slot: those that an abort names, or its view aborts."""
        return tuple(sorted(self.aborts.get(slot, set()) | self._short.get(slot, set())))

    def is_full(self, slot: int, index: int) -> bool:
        """Whether a command is aborted because a disk was full."""
        return (slot, index) in self._full and index not in self._short.get(slot, set())
