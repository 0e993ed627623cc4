"""Invariants of views, two-phase commit and reads (design 4), checked from the outside."""

import json
from collections.abc import Iterable

from actors.effects import Record
from actors.messages import (
    NodeHeartbeat,
    ReadReply,
    ReadRequest,
    Result,
    Truncate,
    TxnDecision,
    TxnInquiry,
    TxnPrepare,
    TxnState,
    TxnVote,
)
from actors.values import Refusal
from chaos.simulator.faults import BEYOND_MARGIN
from chaos.simulator.interfaces import Host
from chaos.simulator.machine import Machine
from chaos.simulator.truth import Truth
from chaos.simulator.violation import Violation

_NO_REFUSAL = b'"refused":[]'
_APPLIED = b'{"applied":'


class CommitInvariants:
    """Looks at learners and stores."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._durable: dict[str, int] = {}
        """How far each disk of a replica is, by the disk's identity."""
        self._chosen_through: dict[str, int] = {}
        self._decided: dict[str, int] = {}
        self._applied: dict[str, int] = {}
        self._hashes: dict[int, tuple[str, str]] = {}
        """For each slot the state hash after it, and who had it first."""
        self._outcomes: dict[int, tuple[tuple[int, ...], str]] = {}
        """For each decided slot its aborted commands, and who said so first."""
        self.results: dict[tuple[str, int], tuple[str, int, int]] = {}
        self._told_epoch: dict[str, int] = {}
        """For each store's disk the highest epoch that it has answered."""
        self._reads: dict[tuple[str, int], set[str]] = {}

    # -- replicas --------------------------------------------------------------------------------

    def replica_started(self, machine: Machine) -> None:
        """A restarted learner reads the log again from what was durable."""
        actor = machine.actor
        self._applied[machine.name] = -1
        if machine.role == "learner":
            self._chosen_through[machine.name] = actor.chosen_through
            self._decided[machine.name] = actor.decided

    def replica_committed(self, machine: Machine, records: Iterable[Record]) -> None:
        """Note how far the disk is."""
        for key, value in records:
            if key == "state" and value is not None:
                self._durable[machine.disk.identity] = int(value[len(_APPLIED) : value.index(b",")])

    def replica_stepped(self, machine: Machine) -> None:
        """`namespaces_equal`: whoever has applied the same slots has the same state.

        `log_time_is_no_faster_than_time`: else what a client relies on would expire too early.
        """
        state = machine.actor.state
        if state.applied == self._applied.get(machine.name):
            return
        if state.log_time_ms > machine.world.now * (1 + BEYOND_MARGIN):
            raise Violation(
                "log_time_is_no_faster_than_time",
                f"{machine.world.now} ms after the founding began, log time is "
                f"{state.log_time_ms} ms at {machine.name}",
            )
        self._applied[machine.name] = state.applied
        known = self._hashes.setdefault(state.applied, (state.state_hash, machine.name))
        if known[0] != state.state_hash:
            raise Violation(
                "namespaces_equal",
                f"after slot {state.applied} {machine.name} has the state {state.state_hash}, "
                f"and {known[1]} had {known[0]}",
            )

    def learner_stepped(self, machine: Machine) -> None:
        """`learned_is_chosen`, and `outcomes_agree` for what was decided in this turn."""
        learner = machine.actor
        name = machine.name
        for slot in range(self._chosen_through.get(name, 0) + 1, learner.chosen_through + 1):
            known = learner.log.known.get(slot)
            chosen = self._truth.chosen.get(slot)
            if chosen is None or (known is not None and known.value.to_json() != chosen):
                raise Violation(
                    "learned_is_chosen",
                    f"{name} takes {known!r} as chosen for slot {slot}; on the acceptors' disks "
                    f"it is {chosen!r}",
                )
        self._chosen_through[name] = learner.chosen_through
        for slot in range(self._decided.get(name, 0) + 1, learner.decided + 1):
            known = learner.log.known.get(slot)
            if known is not None:
                self._check_outcome(slot, indices(known.aborted or ()), name)
        self._decided[name] = learner.decided

    # -- outcomes --------------------------------------------------------------------------------

    def decision_told(self, machine: Machine, message: TxnDecision) -> None:
        """`outcomes_agree`."""
        self._check_outcome(message.slot, indices(message.aborted), machine.name)

    def _check_outcome(self, slot: int, aborted: tuple[int, ...], who: str) -> None:
        known = self._outcomes.setdefault(slot, (aborted, who))
        if known[0] != aborted:
            raise Violation(
                "outcomes_agree",
                f"{who} says that {aborted} of slot {slot} are aborted, {known[1]} said {known[0]}",
            )
        in_log = self._truth.aborted(slot)
        if slot > self._truth.chosen_through or in_log != aborted:
            raise Violation(
                "outcomes_agree",
                f"{who} says that {aborted} of slot {slot} are aborted; the log up to slot "
                f"{self._truth.chosen_through} says {in_log}",
            )

    def slot_chosen(self, slot: int) -> None:
        """`outcomes_agree`: an abort that counts can't come after the slot was decided."""
        value = self._truth.chosen[slot]
        if not value.startswith(b'{"kind":"abort"'):
            return
        for decided, (aborted, who) in self._outcomes.items():
            if self._truth.aborted(decided) != aborted:
                raise Violation(
                    "outcomes_agree",
                    f"slot {slot} aborts {self._truth.aborted(decided)} of slot {decided}, but "
                    f"{who} had decided {aborted} before",
                )

    def result_told(self, machine: Machine, message: Result) -> None:
        """`applied_once`, and `acknowledged_is_on_every_store`."""
        outcome = message.outcome
        if outcome.status in ("forgotten", "unknown_session"):
            return
        told = (outcome.status, outcome.slot, outcome.index)
        known = self.results.setdefault((message.session, message.sequence), told)
        if known != told:
            raise Violation(
                "applied_once",
                f"{message.request} is {told} according to {machine.name}, and was {known}",
            )
        if outcome.slot > self._truth.chosen_through:
            raise Violation("outcomes_agree", f"{message.request} was told before it was chosen")
        if outcome.status in ("aborted", "no_room"):
            if outcome.index not in self._truth.aborted(outcome.slot):
                raise Violation(
                    "outcomes_agree", f"{message.request} is told as aborted; the log has no abort"
                )
        else:
            self._check_everywhere(machine.world, message)

    def _check_everywhere(self, world: Host, message: Result) -> None:
        """Nw = all: a survivor of the view has the slot on disk before anybody is told.

        `refusal_stands`: and none of them has refused the command there.
        """
        slot = message.outcome.slot
        assert self._truth.view is not None
        for store in self._truth.view.stores:
            if store.added_slot is None or store.added_slot >= slot:
                continue
            disk = world.machines[store.name].disk
            if disk.identity != store.disk:
                continue
            prepared = disk.records.get(f"prepared/{slot:016x}")
            if prepared is not None and _NO_REFUSAL not in prepared:
                refused = {refusal["index"] for refusal in json.loads(prepared)["refused"]}
                if message.outcome.index in refused:
                    raise Violation(
                        "refusal_stands",
                        f"{message.request} is told as {message.outcome.status} in slot {slot}; "
                        f"{store.name} of the view has refused it",
                    )
            if prepared is None and self._durable.get(store.disk, 0) < slot:
                raise Violation(
                    "acknowledged_is_on_every_store",
                    f"{message.request} is told as {message.outcome.status} in slot {slot}, which "
                    f"{store.name} has not journalled",
                )

    # -- who may say what ------------------------------------------------------------------------

    def coordinator_spoke(
        self, machine: Machine, message: TxnPrepare | TxnDecision | TxnInquiry
    ) -> None:
        """`one_coordinator_per_epoch`: the one that the View in the log names."""
        epoch = message.view.epoch if isinstance(message, TxnInquiry) else message.epoch
        me = (machine.name, machine.disk.identity, machine.disk.incarnation)
        named = self._truth.coordinators.get(epoch)
        if named != me:
            raise Violation(
                "one_coordinator_per_epoch",
                f"{me} sends {message.type} in epoch {epoch}, whose coordinator is {named}",
            )

    def vote_told(self, machine: Machine, message: TxnVote) -> None:
        """`journal_before_answer` for the prepared slot."""
        disk = machine.disk
        if (
            f"prepared/{message.slot:016x}" not in disk.records
            and self._durable.get(machine.disk.identity, 0) < message.slot
        ):
            raise Violation(
                "journal_before_answer",
                f"{machine.name} votes on slot {message.slot} and has not journalled it",
            )
        self._note_epoch(machine, message.epoch)

    def state_told(self, machine: Machine, message: TxnState) -> None:
        """`journal_before_answer` for the fence."""
        if int(machine.disk.records.get("fence", b"0")) < message.epoch:
            raise Violation(
                "journal_before_answer",
                f"{machine.name} answers epoch {message.epoch} and has not journalled the fence",
            )
        self._note_epoch(machine, message.epoch)

    def _note_epoch(self, machine: Machine, epoch: int) -> None:
        disk = machine.disk.identity
        self._told_epoch[disk] = max(epoch, self._told_epoch.get(disk, 0))

    def epochs_in_order(self, machine: Machine, messages: Iterable[TxnVote | TxnState]) -> None:
        """`fence_holds`: having answered an epoch, a store serves no older one."""
        highest = self._told_epoch.get(machine.disk.identity, 0)
        for message in messages:
            if message.epoch < highest:
                raise Violation(
                    "fence_holds",
                    f"{machine.name} has answered epoch {highest} and sends {message.type} in "
                    f"epoch {message.epoch}",
                )
            highest = message.epoch

    def heartbeat_told(self, machine: Machine, message: NodeHeartbeat) -> None:
        """`journal_before_answer` for what a replica calls durable."""
        if message.durable > self._durable.get(machine.disk.identity, 0):
            raise Violation(
                "journal_before_answer",
                f"{machine.name} says that {message.durable} slots are durable; its disk has "
                f"{self._durable.get(machine.disk.identity, 0)}",
            )

    def truncation_told(self, machine: Machine, message: Truncate) -> None:
        """`truncated_is_durable`: at the coordinator and at every store of its view.

        A store that was added later has copied what it needs, or copies it from the others.
        """
        holders = {machine.name: machine.disk.identity}
        holders |= {
            store.name: store.disk
            for store in machine.actor.view.stores
            if store.added_slot is not None and store.added_slot < message.below
        }
        for name, disk in holders.items():
            if self._durable.get(disk, 0) < message.below - 1:
                raise Violation(
                    "truncated_is_durable",
                    f"{machine.name} truncates below {message.below}, but the disk of {name} ends "
                    f"at {self._durable.get(disk, 0)}",
                )

    # -- reads -----------------------------------------------------------------------------------

    def read_asked(self, machine: Machine, message: ReadRequest) -> None:
        """Remember what kind of read a number stands for."""
        key = (machine.name, message.number)
        self._reads.setdefault(key, set()).add(message.consistency)

    def is_linearizable(self, to: str, message: ReadReply) -> bool:
        """Whether it answers a linearizable read."""
        served = message.status != "not_served"
        return served and self._reads.get((to, message.number)) == {"linearizable"}

    def read_served(self, machine: Machine, message: ReadReply) -> None:
        """`reads_in_the_view`: a store outside it, or not yet in it, serves no linearizable read.

        Checked when the store serves it: its lease must outlive its membership.
        """
        if self._truth.view is None:
            return
        member = next((m for m in self._truth.view.stores if m.name == machine.name), None)
        fits = member is not None and member.disk == machine.disk.identity
        if not fits or member is None or message.applied < (member.added_slot or 0):
            raise Violation(
                "reads_in_the_view",
                f"{machine.name} serves a linearizable read at slot {message.applied}; the view "
                f"of epoch {self._truth.view.epoch} has {self._truth.view.stores}",
            )


def indices(aborted: Iterable[Refusal]) -> tuple[int, ...]:
    """Which commands of a slot are aborted, whatever the reasons."""
    return tuple(refusal.index for refusal in aborted)
