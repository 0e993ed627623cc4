"""Invariants of views, two-phase commit and reads (design 4), checked from the outside."""

import json
from collections.abc import Iterable

from actors.effects import Record
from actors.messages import (
    LearnerProgress,
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
from chaos.simulator.machine import Machine
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.violation import Violation

_NO_REFUSAL = b'"refused":[]'
_APPLIED = b'{"applied":'


class CommitInvariants:
    """Checks learners and stores."""

    def __init__(self, log: ReferenceLog) -> None:
        self._log = log
        self._replicas: dict[str, Machine] = {}
        self._durable: dict[str, int] = {}
        """The last slot that is durable on each replica's disk, by the disk's identity."""
        self._chosen_through: dict[str, int] = {}
        self._decided: dict[str, int] = {}
        self._applied: dict[str, int] = {}
        self._hashes: dict[int, tuple[str, str]] = {}
        """For each slot the state hash after it, and the replica that had it first."""
        self._outcomes: dict[int, tuple[tuple[int, ...], str]] = {}
        """For each decided slot its aborted commands, and the node that decided it first."""
        self.results: dict[tuple[str, int], tuple[str, int, int]] = {}
        """For each session and sequence the status, slot and index that a coordinator sent."""
        self._answered_epoch: dict[str, int] = {}
        """For each store's disk the highest epoch that it has answered."""
        self._reads: dict[tuple[str, int], set[str]] = {}

    # -- replicas --------------------------------------------------------------------------------

    def replica_started(self, machine: Machine) -> None:
        """A restarted learner learns the log again from what is durable."""
        actor = machine.actor
        self._replicas[machine.name] = machine
        self._applied[machine.name] = -1
        if machine.role == "learner":
            self._chosen_through[machine.name] = actor.chosen_through
            self._decided[machine.name] = actor.decided

    def replica_committed(self, machine: Machine, records: Iterable[Record]) -> None:
        """Note the last durable slot."""
        for key, value in records:
            if key == "state" and value is not None:
                self._durable[machine.disk.identity] = int(value[len(_APPLIED) : value.index(b",")])

    def replica_stepped(self, machine: Machine) -> None:
        """`namespaces_equal`: replicas that have applied the same slots have the same state.

        `log_time_is_no_faster_than_time`: else sessions and keys would expire too early.
        """
        state = machine.actor.state
        if state.applied == self._applied.get(machine.name):
            return
        if state.log_time_ms > machine.true_ms * (1 + BEYOND_MARGIN):
            raise Violation(
                "log_time_is_no_faster_than_time",
                f"{machine.true_ms} ms after the founding began, log time is "
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
            chosen = self._log.chosen.get(slot)
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

    def decision_sent(self, machine: Machine, message: TxnDecision) -> None:
        """`outcomes_agree`."""
        self._check_outcome(message.slot, indices(message.aborted), machine.name)

    def _check_outcome(self, slot: int, aborted: tuple[int, ...], who: str) -> None:
        known = self._outcomes.setdefault(slot, (aborted, who))
        if known[0] != aborted:
            raise Violation(
                "outcomes_agree",
                f"{who} has {aborted} of slot {slot} aborted, and {known[1]} had {known[0]}",
            )
        in_log = self._log.aborted(slot)
        if slot > self._log.chosen_through or in_log != aborted:
            raise Violation(
                "outcomes_agree",
                f"{who} has {aborted} of slot {slot} aborted; the log up to slot "
                f"{self._log.chosen_through} has {in_log}",
            )

    def slot_chosen(self, slot: int) -> None:
        """`outcomes_agree`: no abort may be chosen that changes a slot that is decided."""
        value = self._log.chosen[slot]
        if not value.startswith(b'{"kind":"abort"'):
            return
        for decided, (aborted, who) in self._outcomes.items():
            if self._log.aborted(decided) != aborted:
                raise Violation(
                    "outcomes_agree",
                    f"slot {slot} aborts {self._log.aborted(decided)} of slot {decided}, but "
                    f"{who} had decided {aborted} before",
                )

    def result_sent(self, machine: Machine, message: Result) -> None:
        """`applied_once`, and `acknowledged_is_on_every_store`."""
        outcome = message.outcome
        if outcome.status in ("forgotten", "unknown_session"):
            return
        result = (outcome.status, outcome.slot, outcome.index)
        known = self.results.setdefault((message.session, message.sequence), result)
        if known != result:
            raise Violation(
                "applied_once",
                f"{message.request} is {result} according to {machine.name}, and was {known}",
            )
        if outcome.slot > self._log.chosen_through:
            raise Violation("outcomes_agree", f"{message.request} has a result before it is chosen")
        if outcome.status in ("aborted", "no_room"):
            if outcome.index not in self._log.aborted(outcome.slot):
                raise Violation(
                    "outcomes_agree", f"{message.request} is sent as aborted; the log has no abort"
                )
        else:
            self._check_stores(message)

    def _check_stores(self, message: Result) -> None:
        """`acknowledged_is_on_every_store` of the view that votes on the slot, on its disk.

        `refusal_stands`: none of them has refused the command there.
        """
        slot = message.outcome.slot
        assert self._log.view is not None
        for store in self._log.view.stores:
            if store.added_slot is None or store.added_slot >= slot:
                continue
            disk = self._replicas[store.name].disk
            if disk.identity != store.disk:
                continue
            prepared = disk.records.get(f"prepared/{slot:016x}")
            if prepared is not None and _NO_REFUSAL not in prepared:
                refused = {refusal["index"] for refusal in json.loads(prepared)["refused"]}
                if message.outcome.index in refused:
                    raise Violation(
                        "refusal_stands",
                        f"{message.request} is sent as {message.outcome.status} in slot {slot}; "
                        f"{store.name} of the view has refused it",
                    )
            if prepared is None and self._durable.get(store.disk, 0) < slot:
                raise Violation(
                    "acknowledged_is_on_every_store",
                    f"{message.request} is sent as {message.outcome.status} in slot {slot}, which "
                    f"{store.name} has not journalled",
                )

    # -- messages --------------------------------------------------------------------------------

    def coordinator_message_sent(
        self, machine: Machine, message: TxnPrepare | TxnDecision | TxnInquiry
    ) -> None:
        """`one_coordinator_per_epoch`: the sender is the one that the View in the log names."""
        epoch = message.view.epoch if isinstance(message, TxnInquiry) else message.epoch
        me = (machine.name, machine.disk.identity, machine.disk.incarnation)
        named = self._log.coordinators.get(epoch)
        if named != me:
            raise Violation(
                "one_coordinator_per_epoch",
                f"{me} sends {message.type} in epoch {epoch}, whose coordinator is {named}",
            )

    def vote_sent(self, machine: Machine, message: TxnVote) -> None:
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

    def state_sent(self, machine: Machine, message: TxnState) -> None:
        """`journal_before_answer` for the fence."""
        if int(machine.disk.records.get("fence", b"0")) < message.epoch:
            raise Violation(
                "journal_before_answer",
                f"{machine.name} answers epoch {message.epoch} and has not journalled the fence",
            )
        self._note_epoch(machine, message.epoch)

    def _note_epoch(self, machine: Machine, epoch: int) -> None:
        disk = machine.disk.identity
        self._answered_epoch[disk] = max(epoch, self._answered_epoch.get(disk, 0))

    def epochs_in_order(self, machine: Machine, messages: Iterable[TxnVote | TxnState]) -> None:
        """`fence_holds`: having answered an epoch, a store serves no older one."""
        highest = self._answered_epoch.get(machine.disk.identity, 0)
        for message in messages:
            if message.epoch < highest:
                raise Violation(
                    "fence_holds",
                    f"{machine.name} has answered epoch {highest} and sends {message.type} in "
                    f"epoch {message.epoch}",
                )
            highest = message.epoch

    def heartbeat_sent(self, machine: Machine, message: NodeHeartbeat) -> None:
        """`journal_before_answer` for the slots that a replica reports as durable."""
        if message.durable > self._durable.get(machine.disk.identity, 0):
            raise Violation(
                "journal_before_answer",
                f"{machine.name} reports {message.durable} durable slots; its disk has "
                f"{self._durable.get(machine.disk.identity, 0)}",
            )

    def truncation_sent(self, machine: Machine, message: Truncate) -> None:
        """`truncated_is_durable`: at the coordinator and at every store of its view.

        A store that was added later has copied what it needs, or copies it from the others.
        """
        self._check_durable(machine, message.below)

    def mark_sent(self, machine: Machine, message: LearnerProgress | NodeHeartbeat) -> None:
        """`truncated_is_durable` for the durable mark, by which acceptors are changed."""
        if message.durable_mark:
            self._check_durable(machine, message.durable_mark + 1)

    def _check_durable(self, machine: Machine, below: int) -> None:
        holders = {machine.name: machine.disk.identity}
        holders |= {
            store.name: store.disk
            for store in machine.actor.view.stores
            if store.added_slot is not None and store.added_slot < below
        }
        for name, disk in holders.items():
            if self._durable.get(disk, 0) < below - 1:
                raise Violation(
                    "truncated_is_durable",
                    f"{machine.name} truncates below {below}, but the disk of {name} ends "
                    f"at {self._durable.get(disk, 0)}",
                )

    # -- reads -----------------------------------------------------------------------------------

    def read_sent(self, machine: Machine, message: ReadRequest) -> None:
        """Remember the consistency that a numbered read asks for."""
        key = (machine.name, message.number)
        self._reads.setdefault(key, set()).add(message.consistency)

    def is_linearizable(self, to: str, message: ReadReply) -> bool:
        """Whether a reply serves a linearizable read."""
        served = message.status != "not_served"
        return served and self._reads.get((to, message.number)) == {"linearizable"}

    def read_served(self, machine: Machine, message: ReadReply) -> None:
        """`reads_in_the_view`: only a member of the view serves linearizable reads.

        Checked when the store serves the read: its lease must end before its membership does.
        """
        if self._log.view is None:
            return
        member = next((m for m in self._log.view.stores if m.name == machine.name), None)
        fits = member is not None and member.disk == machine.disk.identity
        if not fits or member is None or message.applied < (member.added_slot or 0):
            raise Violation(
                "reads_in_the_view",
                f"{machine.name} serves a linearizable read at slot {message.applied}; the view "
                f"of epoch {self._log.view.epoch} has {self._log.view.stores}",
            )


def indices(aborted: Iterable[Refusal]) -> tuple[int, ...]:
    """Which commands of a slot are aborted, whatever the reasons."""
    return tuple(refusal.index for refusal in aborted)
