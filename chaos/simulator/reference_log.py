"""The reference log: what is chosen, read from the acceptors' disks alone.

A value is chosen once a majority of acceptors has the same slot and ballot on disk (design 3.4).
Views and aborts are applied in slot order, as every learner must apply them. All invariants that
concern the log compare the nodes with this one.
"""

import json
from collections.abc import Callable

from pydantic import TypeAdapter

from actors.paxos.ballot import Ballot
from actors.values import Abort, AcceptedValue, Genesis, View
from chaos.simulator.violation import Violation

ACCEPTED = TypeAdapter(AcceptedValue)
_MARK = b',"value":'
_KIND = b'{"kind":"'


class ReferenceLog:
    """The log as it stands on the acceptors' disks."""

    def __init__(self, acceptors: int) -> None:
        # An arithmetic of its own: one shared with the actors would share their bugs.
        self._needed = acceptors // 2 + 1
        self._votes: dict[tuple[int, bytes], set[str]] = {}
        self.chosen: dict[int, bytes] = {}
        """For each slot the chosen value, as the journals write it."""
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
        self._install(genesis.view)

    def accepted(self, acceptor: str, slot: int, row: bytes) -> None:
        """An acceptor has committed the row of a slot: slot, ballot and value as JSON."""
        value = row[row.index(_MARK) + len(_MARK) : -1]
        if self.chosen.get(slot) == value:
            return
        votes = self._votes.setdefault((slot, row), set())
        votes.add(acceptor)
        if len(votes) < self._needed:
            return
        former = self.chosen.get(slot)
        if former is not None:
            raise Violation(
                "one_value_per_slot",
                f"slot {slot}: {former[:200]!r} was chosen, and then {value[:200]!r}",
            )
        self.chosen[slot] = value
        self.ballots[slot] = ACCEPTED.validate_json(row).ballot
        while self.chosen_through + 1 in self.chosen:
            self.chosen_through += 1
            self._apply(self.chosen_through, self.chosen[self.chosen_through])
            self.on_chosen(self.chosen_through)

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

    def _abort_below_min_stores(
        self, slot: int, value: bytes, genesis: Genesis, view: View
    ) -> None:
        """Note the writes of a slot whose view has too few stores, by an arithmetic of its own."""
        stores = sum(member.name.startswith("store-") for member in genesis.members)
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
