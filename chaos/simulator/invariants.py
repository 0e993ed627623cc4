"""All invariants of a run: passes every step to those that check it, and sums up counters."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from actors.effects import Blob, Envelope, Record, Send, SendBlob
from actors.messages import (
    Accept,
    Accepted,
    AuditPage,
    ChunkStored,
    LearnerProgress,
    LeaseGranted,
    NodeHeartbeat,
    Prepare,
    Promise,
    ProposeValue,
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
from chaos.simulator.audit import AuditInvariants
from chaos.simulator.invariants_chunks import OBSERVED_MESSAGES, ChunkInvariants
from chaos.simulator.invariants_commit import CommitInvariants
from chaos.simulator.invariants_members import MemberInvariants
from chaos.simulator.invariants_paxos import PaxosInvariants
from chaos.simulator.invariants_settings import SettingsInvariants
from chaos.simulator.machine import Machine, MachineObserver, counters_of
from chaos.simulator.quotas import QuotaInvariants
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.rights import RightsInvariants
from chaos.simulator.violation import Violation

_PROMISES = frozenset((Promise, Accepted, LeaseGranted))
_EPOCH_ANSWERS = frozenset((TxnVote, TxnState))

MessageCheck = Callable[[Machine, Any], None]


class Invariants(MachineObserver):
    """All invariants of one run. Raises `Violation` at the step that breaks one."""

    observed_messages = OBSERVED_MESSAGES

    def __init__(self) -> None:
        self.log = ReferenceLog()
        self.paxos = PaxosInvariants(self.log)
        self.commit = CommitInvariants(self.log)
        self.chunks = ChunkInvariants()
        self.members = MemberInvariants(self.log)
        self.settings = SettingsInvariants()
        self.rights = RightsInvariants()
        self.audit = AuditInvariants()
        self.quotas = QuotaInvariants()
        self.log.on_chosen = self.commit.slot_chosen
        self.on_chunk: Callable[[str, str, bool], None] = lambda disk, name, stored: None
        """A store has committed a chunk, or has deleted a sound one."""
        self.counters: Counter[str] = Counter()
        """The counters of processes that have ended; `total` adds the running ones."""
        self._at_publication: dict[type, tuple[MessageCheck, ...]] = {
            Promise: (self.paxos.promise_sent,),
            Accepted: (self.paxos.promise_sent, self.paxos.accepted_sent),
            LeaseGranted: (self.paxos.promise_sent,),
            Prepare: (self.paxos.ballot_used, self.members.prepare_sent),
            ProposeValue: (self.members.value_asked_for,),
            Accept: (self.paxos.ballot_used, self.paxos.accept_sent),
            TxnPrepare: (self.commit.coordinator_message_sent,),
            TxnDecision: (self.commit.coordinator_message_sent, self.commit.decision_sent),
            TxnInquiry: (self.commit.coordinator_message_sent,),
            TxnVote: (self.commit.vote_sent,),
            TxnState: (self.commit.state_sent,),
            NodeHeartbeat: (self.commit.heartbeat_sent, self.commit.mark_sent),
            LearnerProgress: (self.commit.mark_sent,),
            Result: (self.commit.result_sent,),
            Truncate: (self.commit.truncation_sent,),
            ReadRequest: (self.commit.read_sent, self.rights.read_sent),
            ChunkStored: (self.chunks.stored_sent,),
            AuditPage: (self.audit.page_sent,),
        }

    def total(self, machines: list[Machine]) -> Counter[str]:
        """The counters of the whole run, by role and name."""
        total = self.counters + self.settings.counters + self.rights.counters
        total.update(self.members.counters)
        total.update(self.audit.counters + self.quotas.counters)
        total["store.chunks_kept"] += self.chunks.kept
        for machine in machines:
            total.update(_named(machine))
        return total

    # -- what machines report --------------------------------------------------------------------

    def started(self, machine: Machine) -> None:
        self.chunks.started(machine)
        if machine.changed_setting is not None:
            self.settings.started(machine)
        self.members.started(machine)
        if machine.role in ("learner", "store"):
            self.commit.replica_started(machine)

    def stopped(self, machine: Machine) -> None:
        self.counters.update(_named(machine))
        if machine.role == "proposer":
            self.paxos.proposer_stopped(machine)

    def receiving(self, machine: Machine, envelope: Envelope) -> None:
        self.chunks.receiving(machine, envelope)

    def stepped(self, machine: Machine, sends: list[Send | SendBlob]) -> None:
        role = machine.role
        if machine.changed_setting is not None:
            self.settings.stepped(machine)
        if role == "proposer":
            self.paxos.proposer_stepped(machine)
            self.members.stepped(machine)
        elif role == "acceptor":
            messages = _of(sends, _PROMISES)
            if messages:
                self.paxos.promises_in_order(machine, messages)
                for message in messages:
                    self.paxos.lease_respected(machine, message)
        elif role == "learner":
            self.commit.learner_stepped(machine)
            self.members.stepped(machine)
            self.commit.replica_stepped(machine)
        elif role == "store":
            self.commit.replica_stepped(machine)
            if sends:
                self.commit.epochs_in_order(machine, _of(sends, _EPOCH_ANSWERS))
                for send in sends:
                    if isinstance(send, Send) and type(send.message) is ReadReply:
                        self._read_served(machine, send.to, send.message)

    def _read_served(self, machine: Machine, to: str, message: ReadReply) -> None:
        self.rights.read_served(machine, to, message)
        if self.commit.is_linearizable(to, message):
            self.paxos.lease_in_force(machine)
            self.commit.read_served(machine, message)

    def committed(self, machine: Machine, records: list[Record], blobs: list[Blob]) -> None:
        if machine.role == "acceptor":
            self.paxos.acceptor_committed(machine, records)
        elif machine.role in ("learner", "store"):
            self.commit.replica_committed(machine, records)
            self.chunks.committed(machine, blobs)
            for name, data in blobs:
                if data is not None or name not in machine.disk.ever_rotten:
                    self.on_chunk(machine.disk.identity, name, data is not None)

    def published(self, machine: Machine, to: str, message: Any) -> None:
        checks = self._at_publication.get(type(message))
        if checks is not None:
            for check in checks:
                check(machine, message)

    def halted(self, machine: Machine, reason: str) -> None:
        if self.members.may_halt(machine, reason):
            return
        if machine.changed_setting is not None:
            self.settings.halted(machine, reason)
            return
        raise Violation("nobody_halts", f"{machine.name}: {reason}")


def _named(machine: Machine) -> dict[str, int]:
    return {f"{machine.role}.{name}": n for name, n in counters_of(machine).items()}


def _of(sends: list[Send | SendBlob], kinds: frozenset[type]) -> list[Any]:
    """The messages of these types, in the order in which the actor sent them."""
    return [s.message for s in sends if isinstance(s, Send) and type(s.message) in kinds]
