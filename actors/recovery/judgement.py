"""What the journals of a lost cluster prove, and what is made of the slots that they leave open.

A client was told of a write only after all stores with a vote had journalled its slot, and after
everything before it was decided (design 4.1, 4.2). So the most advanced state, and what is prepared
beyond it, holds everything acknowledged, if one of the given stores is in the last view. What is
prepared and not decided may have been acknowledged, so it is applied, unless the journals prove
that it was not (docs/decisions/0032-recovery.md has the proofs):

- a store that has a vote has not prepared the slot, or has refused the command;
- the coordinator proposed to abort it, and so did not commit it in that epoch (design 4.3);
- the log itself aborts it, since its view names too few stores (decision 21).

Each of these counts only if no given store has answered an epoch in which others may have decided.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from actors.paxos.membership import Key, Membership
from actors.paxos.votes import learned
from actors.recovery.evidence import OldNode
from actors.state.namespace import Namespace
from actors.values import (
    NOOP,
    Abort,
    AnyValue,
    Batch,
    CloseSession,
    Command,
    Genesis,
    OpenSession,
    Outcome,
    Refusal,
    View,
)

_NAMED_MOST = 5


class Unrecoverable(Exception):
    """The journals don't fit together, or hold no state; nothing is made of them."""


Standing = Literal["member", "joining", "dropped", "outside", "diverged"]
"""Where a store stands, by the latest view in the journals: a member that has caught up; named by
the view, and not caught up; a former member; no member at its own slot, so that it was dropped
before or is still copying; known to differ from the coordinator.
"""


@dataclass(frozen=True, slots=True)
class OpenCommand:
    """A command of a slot that no given journal has as decided; `left_out` says why it is not
    applied, and is empty if it is. `outcome` is its result in the recovered state.
    """

    slot: int
    index: int
    command: Command
    outcome: Outcome
    left_out: str


@dataclass(slots=True)
class Judgement:
    """The recovered state, and what the journals don't show."""

    genesis: Genesis
    base: OldNode
    """The replica whose state is the most advanced one."""
    base_slot: int
    state: Namespace
    """The state after `through`."""
    through: int
    """The last slot that is known to be chosen."""
    view: View
    """The latest view that the journals prove."""
    membership: Membership
    """The acceptors at `through`, as far as known."""
    epoch: int
    """The highest epoch that a given store has answered."""
    standings: dict[Key, Standing]
    absent: tuple[str, ...]
    """The stores of `view` whose journals are not given."""
    open: list[OpenCommand] = field(default_factory=list)
    """The commands beyond `base_slot`, in order."""
    unknown: list[int] = field(default_factory=list)
    """Chosen slots whose values no journal proves: no command that was acknowledged."""
    accepted_through: dict[str, int] = field(default_factory=dict)
    """The acceptors that accepted something beyond `through`, and up to which slot."""
    compared: dict[Key, str] = field(default_factory=dict)
    """How each other replica's state was compared with the recovered one."""
    acceptors: tuple[Key, ...] = ()
    """The given acceptors that count."""

    @property
    def members(self) -> list[str]:
        """The given stores that are members of `view` and have caught up."""
        return [name for (name, _), known in self.standings.items() if known == "member"]

    @property
    def is_later_view_known(self) -> bool:
        """Whether a given store has answered an epoch whose View no journal proves."""
        return self.epoch > self.view.epoch

    @property
    def has_quorum(self) -> bool:
        """Whether the given acceptors could go on as the old cluster."""
        return self.membership.are_quorums(self.acceptors)


def judge(nodes: Sequence[OldNode]) -> Judgement:
    """Judge the journals of one cluster, and apply what has to be applied to the most advanced
    state, which it changes.

    Raises `Unrecoverable`: the journals are of several clusters, hold no state, or contradict each
    other.
    """
    genesis = _genesis_of(nodes)
    replicas = [n for n in nodes if n.role in ("store", "learner") and not n.has_diverged]
    replicas = [replica for replica in replicas if replica.state.view is not None]
    if not replicas:
        raise Unrecoverable("no store or learner is given whose state may be used")
    # Among equal ones a member of the view: it has contents, too.
    base = max(
        replicas,
        key=lambda one: (one.applied, one.member_of(one.state.view) is not None, one.name),
    )
    if not base.applied and base.member_of(base.state.view) is None:
        raise Unrecoverable(f"the state of {base.name} is empty: it had copied nothing yet")
    base_slot = base.applied
    tail = _Tail(nodes, base, genesis)
    standings = {(s.name, s.disk): _standing(s, tail.view) for s in _stores(nodes)}
    for one in _stores(nodes):
        _check_current(one, base)
    compared = _compare(base, replicas)
    judged = Judgement(
        genesis=genesis,
        base=base,
        base_slot=base_slot,
        state=base.state,
        through=tail.through,
        view=tail.view,
        membership=tail.membership,
        epoch=tail.epoch,
        standings=standings,
        absent=tuple(
            member.name
            for member in tail.view.stores
            if (member.name, member.disk) not in standings
        ),
        compared=compared,
        acceptors=tuple((n.name, n.disk) for n in nodes if n.role == "acceptor" and n.genesis),
    )
    tail.apply(judged)
    for node in nodes:
        highest = max(node.accepted, default=0)
        if highest > tail.through:
            judged.accepted_through[node.name] = highest
    return judged


def _stores(nodes: Iterable[OldNode]) -> list[OldNode]:
    return [node for node in nodes if node.role == "store"]


def _genesis_of(nodes: Sequence[OldNode]) -> Genesis:
    known = {node.genesis.cluster: node.genesis for node in nodes if node.genesis is not None}
    if not known:
        raise Unrecoverable("none of the folders belongs to a cluster that was founded")
    if len(known) > 1:
        of = ", ".join(f"{n.name} to {n.genesis.cluster}" for n in nodes if n.genesis is not None)
        raise Unrecoverable(f"the folders belong to several clusters: {of}")
    disks = [node.disk for node in nodes]
    for node in nodes:
        if disks.count(node.disk) > 1:
            raise Unrecoverable(
                f"there are two copies of the disk {node.disk} of {node.name}: leave out the older"
            )
    (genesis,) = known.values()
    return genesis


def _standing(store: OldNode, view: View) -> Standing:
    if store.has_diverged:
        return "diverged"
    member = store.member_of(view)
    if member is not None:
        return "member" if (member.added_slot or 0) <= store.applied else "joining"
    own = store.member_of(store.state.view)
    return "dropped" if own is not None and (own.added_slot or 0) <= store.applied else "outside"


# -- whether the replicas agree -------------------------------------------------------------------


def _compare(base: OldNode, replicas: Sequence[OldNode]) -> dict[Key, str]:
    """Compare all states with the most advanced one. Raises `Unrecoverable` if one contradicts it.

    States of one slot are compared by the hash that replicas chain over the slots. An older one is
    compared by it where a learner's journal has the slots in between; in any case each file and
    directory that the newer state has from before must be in the older one. It changes the older
    ones' states.
    """
    decided = {slot: one for node in replicas for slot, one in node.log.items()}
    compared: dict[Key, str] = {}
    for other in replicas:
        if other is base:
            continue
        slot = other.applied
        differing = _differing(other.state, base.state)
        between = range(slot + 1, base.applied + 1)
        is_replayed = slot > 0 and all(one in decided for one in between)
        if is_replayed:
            for one in between:
                other.state.apply(one, decided[one].value, decided[one].aborted)
                other.state.tree.dropped.clear()
                other.state.tree.gained.clear()
        if is_replayed and other.state.state_hash != base.state.state_hash:
            differing = differing or ["the hash over all slots"]
        if differing:
            raise Unrecoverable(
                f"{other.name} (slot {slot}) and {base.name} (slot {base.applied}) have diverged: "
                f"they differ in {', '.join(differing[:_NAMED_MOST])}. One of the two is wrong, "
                "and nothing here proves which: look at both, and leave one out"
            )
        way = "the same hash" if is_replayed else "the same files from before its slot"
        compared[other.name, other.disk] = way
    return compared


def _check_current(store: OldNode, base: OldNode) -> None:
    """Raise `Unrecoverable` if the folder is an older copy: the disk had a vote on a slot that was
    committed, so it had prepared it, and neither that nor the slot's outcome is there.
    """
    member = store.member_of(base.state.view)
    if member is None or member.added_slot is None:
        return
    first = max(store.applied, member.added_slot) + 1
    for entry in base.state.entries.values():
        if first <= entry.slot <= base.applied and entry.slot not in store.prepared:
            raise Unrecoverable(
                f"the folder of {store.name} (slot {store.applied}) is an older copy of that disk, "
                f"which had prepared slot {entry.slot}: give the newest one, or leave it out"
            )


def _differing(older: Namespace, newer: Namespace) -> list[str]:
    """The paths that the newer state has from slots up to the older one's, and the older one has
    not, or otherwise. If both are of one slot, also those that only the older one has.
    """
    found = [
        repr(path)
        for path, entry in newer.entries.items()
        if entry.slot <= older.applied and older.entries.get(path) != entry
    ]
    if older.applied == newer.applied:
        found += [repr(path) for path in older.entries if path not in newer.entries]
    return sorted(found)


# -- the slots beyond the most advanced state ------------------------------------------------------


class _Tail:
    """The chosen slots beyond the most advanced state, none of which a journal has as decided."""

    def __init__(self, nodes: Sequence[OldNode], base: OldNode, genesis: Genesis) -> None:
        assert base.state.view is not None
        assert base.state.membership is not None
        self._nodes = nodes
        self._stores = _stores(nodes)
        self._genesis = genesis
        self._base_slot = base.applied
        self._base_epoch = base.state.view.epoch
        self.epoch = max((store.fence for store in self._stores), default=0)
        self.view = base.state.view
        self.membership = base.state.membership
        self._values: dict[int, AnyValue | None] = {}
        """The value of each slot; `None` where no journal proves it."""
        self._exact_through = base.applied
        """Up to this slot every value is proven, and so are views and aborts."""
        self._aborts: dict[int, dict[int, str]] = {}
        """For each slot the commands that certainly did not commit, and why."""
        self.through = self._walk()
        self._take_proposed_aborts()

    # -- what is chosen --------------------------------------------------------------------------

    def _walk(self) -> int:
        """Collect the values of the chosen slots, in order; the last of them.

        A prepare is sent only for the chosen prefix, so it proves that its slot and all before it
        are chosen. A value that no store has is proven by a quorum of the slot's acceptors.
        """
        prepared_through = max((max(s.prepared, default=0) for s in self._stores), default=0)
        slot, is_exact = self._base_slot, True
        while True:
            value = self._value_of(slot + 1)
            if value is None and slot >= prepared_through:
                return slot
            slot += 1
            is_exact = is_exact and value is not None
            if is_exact:
                self._exact_through = slot
                self._take_in_force(slot, value)
            elif isinstance(value, View):
                value = None  # Whether it takes effect depends on an earlier slot.
            if value is not None:
                alpha = self._genesis.constants.alpha
                self.membership = self.membership.after(slot, value, alpha)
            self._values[slot] = value

    def _value_of(self, slot: int) -> AnyValue | None:
        found = [store.prepared[slot].batch for store in self._stores if slot in store.prepared]
        if len({batch.digest for batch in found}) > 1:
            names = ", ".join(store.name for store in self._stores if slot in store.prepared)
            raise Unrecoverable(f"{names} have prepared different commands for slot {slot}")
        return found[0] if found else self._accepted_by_quorum(slot)

    def _accepted_by_quorum(self, slot: int) -> AnyValue | None:
        votes: dict[object, set[Key]] = {}
        voters = self.membership.at(slot).voters
        for node in self._nodes:
            accepted = node.accepted.get(slot)
            if accepted is not None:
                votes.setdefault(accepted.ballot, set()).add((node.name, node.disk))
                if voters.are_quorum(votes[accepted.ballot]):
                    return learned(accepted.value)
        return None

    def _take_in_force(self, slot: int, value: AnyValue | None) -> None:
        """Views and Aborts in the chosen prefix, as learners take them (design 4.3)."""
        if isinstance(value, View) and value.epoch == self.view.epoch + 1:
            self.view = value.in_force_at(slot)
        elif isinstance(value, Abort) and value.epoch == self.view.epoch:
            self._abort(value)

    def _take_proposed_aborts(self) -> None:
        """An `Abort` that an acceptor accepted was proposed by the coordinator of its epoch, which
        then did not commit those commands in it, chosen or not. Later epochs need a store's answer.
        """
        least = max(self.epoch, self._base_epoch)
        for node in self._nodes:
            for accepted in node.accepted.values():
                abort = accepted.value
                if isinstance(abort, Abort) and abort.epoch >= least:
                    self._abort(abort)

    def _abort(self, abort: Abort) -> None:
        for index in abort.commands:
            # As learners do, since the reason tells which result a client gets.
            self._aborts.setdefault(abort.slot, {}).setdefault(index, abort.reason)

    # -- what is applied -------------------------------------------------------------------------

    def apply(self, judged: Judgement) -> None:
        """Apply the slots in order, as far as they may have been acknowledged."""
        state = judged.state
        for slot, value in self._values.items():
            if value is None:
                judged.unknown.append(slot)
            if not isinstance(value, Batch):
                state.apply(slot, NOOP if value is None else value, ())
                continue
            reasons = self._left_out(slot, value, state)
            aborted = tuple(Refusal(index=i, reason=reasons[i]) for i in sorted(reasons))
            outcomes = state.apply(slot, value, aborted)
            state.tree.dropped.clear()
            state.tree.gained.clear()
            judged.open += [
                OpenCommand(slot, index, command, outcome, reasons.get(index, ""))
                for index, (command, outcome) in enumerate(
                    zip(value.commands, outcomes, strict=True)
                )
            ]

    def _left_out(self, slot: int, batch: Batch, state: Namespace) -> dict[int, str]:
        """The commands that can't have been acknowledged as done, and why."""
        reasons = dict(self._aborts.get(slot, {}))
        shortage = self._shortage(slot, state)
        every = range(len(batch.commands))
        for index, why in (
            *((index, shortage) for index in _new_writes(batch) if shortage),
            *((index, self._not_prepared(slot)) for index in every),
            *self._refused(slot, batch),
        ):
            if why:
                reasons.setdefault(index, why)
        return reasons

    @property
    def _votes_count(self) -> bool:
        """Whether a missing vote proves anything: no given store has answered a later epoch, in
        which the others may have committed without it.
        """
        return self.epoch <= self.view.epoch

    def _voters(self, slot: int) -> list[OldNode]:
        """The given stores that have a vote on `slot`: a View before it added them, and none since
        has dropped them.
        """
        return [
            store
            for store in self._stores
            if (member := store.member_of(self.view)) is not None
            and member.added_slot is not None
            and member.added_slot < slot
        ]

    def _not_prepared(self, slot: int) -> str:
        voters = self._voters(slot)
        lacking = [store.name for store in voters if slot not in store.prepared]
        is_prepared = any(slot in store.prepared for store in self._stores)
        if not is_prepared and (voters or not self._votes_count):
            return "no given store has prepared it"
        if lacking and self._votes_count:
            return f"{', '.join(lacking)} had not prepared it"
        return ""

    def _refused(self, slot: int, batch: Batch) -> list[tuple[int, str]]:
        refusals = {
            store.disk: {one.index: one.reason for one in store.prepared[slot].refused}
            for store in self._stores
            if slot in store.prepared
        }
        voters = [s.disk for s in self._voters(slot) if self._votes_count and s.disk in refusals]
        return [
            (index, reason)
            for index in range(len(batch.commands))
            if (reason := _refusal(index, refusals, voters))
        ]

    def _shortage(self, slot: int, state: Namespace) -> str:
        """Why the log itself aborts the slot's new writes, if it certainly does (decision 21)."""
        assert state.view is not None
        is_in_force = slot <= self._exact_through + 1 or self.epoch <= state.view.epoch
        stores = [store.name for store in state.view.stores]
        needed = self._stores_needed(slot, state)
        return self._genesis.shortage(stores, needed) if is_in_force else ""

    def _stores_needed(self, slot: int, state: Namespace) -> int:
        """The least number of stores that a new write in `slot` can have needed: each slot before
        it whose value is unknown may have removed one from the roster.
        """
        assert state.membership is not None
        unknown = sum(value is None for one, value in self._values.items() if one < slot)
        members = len(state.membership.names("store", self._genesis))
        return min(state.membership.stores_needed(self._genesis), max(1, members - unknown))


def _refusal(index: int, refusals: Mapping[str, Mapping[int, str]], voters: Sequence[str]) -> str:
    """Why a command was refused: by one of the voters, or by every store that prepared it. The
    stores go by their disks.
    """
    for disk in voters:
        if index in refusals[disk]:
            return refusals[disk][index]
    if refusals and all(index in refused for refused in refusals.values()):
        return next(iter(refusals.values()))[index]
    return ""


def _new_writes(batch: Batch) -> list[int]:
    """The commands that need a number of stores."""
    return [
        index
        for index, command in enumerate(batch.commands)
        if not isinstance(command.operation, OpenSession | CloseSession)
    ]
