"""The writes of one gateway: a session of its own, in which each command is applied at most once.

The session numbers commands and sends each to the leader, repeatedly under the same `(session,
sequence)`, until the outcome is known; the replicated session makes that exactly once (Ongaro 2014,
section 6.3). The answer is `Unknown` only if a copy may still be proposed: each copy names the
ballot that it is meant for, and a ballot that was given up for good can't propose it (design 3.1).
"""

from dataclasses import dataclass, field

from pydantic import TypeAdapter

from actors.adaptive_timeout import Estimator
from actors.calls import GiveUp, NotDone, Unknown, Write, WriteDecided
from actors.gateway.cluster_state import ClusterState
from actors.messages import Redirect, Result, Submit
from actors.numbers import Milliseconds
from actors.paxos.ballot import Ballot
from actors.turn import Turn
from actors.values import AnyOperation, CloseSession, Command, OpenSession, Outcome

TICK_MS = 100
"""How often the waiting commands and requests are checked."""

_UNRESOLVED_COMMANDS = 4_096
_BACKGROUND_MS = 2_000
_RESOLVED_KEPT = 10_000
_NAME = TypeAdapter(str)


@dataclass(slots=True)
class Pending:
    """A command whose outcome is not known yet."""

    command: Command
    token: int | None
    """The call to answer; `None` for the actor's own commands and once `answered_unknown`."""
    began_at: Milliseconds
    retry_aborted: bool
    retried: bool = False
    answered_unknown: bool = False
    sent_at: Milliseconds = 0
    open_ballots: set[Ballot] = field(default_factory=set)
    """The ballots that a copy was sent under and that may have proposed it, or may yet."""


class WriteSession:
    """The session of one incarnation of a gateway, and the commands whose outcome is open."""

    def __init__(self, turn: Turn, cluster: ClusterState) -> None:
        self._turn = turn
        self._cluster = cluster
        self.name = f"{turn.name}.{turn.identity.fresh_id[:16]}"
        self.is_open = False
        self._former: list[str] = []
        self._lost = 0
        """How many sessions of this incarnation have expired; a name is never used again."""
        self._decided_slot = 0
        """The last slot from which this gateway received an outcome."""
        self._next_sequence = 1
        self._pending: dict[int, Pending] = {}
        self._waiting: dict[int, tuple[Write, Milliseconds]] = {}
        """By token, writes that came before the session was open, and until when each waits."""
        self._acknowledged_through = 0
        self.resolved: dict[str, Outcome] = {}
        """The outcomes of requests whose callers were answered `Unknown`; the latest ones."""
        self._write_time = Estimator(least_ms=300, most_ms=2_000)

    @property
    def busy(self) -> bool:
        """Whether any command waits for its outcome."""
        return bool(self._pending or self._waiting)

    @property
    def unresolved(self) -> int:
        """The number of commands whose outcome is not known, whether sent yet or not."""
        return len(self._pending)

    # -- the journal -----------------------------------------------------------------------------

    def restore_former(self, session: str) -> None:
        """Restore the name of a former incarnation's session."""
        self._former.append(session)

    def row(self, name: str) -> bytes | None:
        """The journal's row for the session `name`, if it is known."""
        return _NAME.dump_json(name) if name == self.name or name in self._former else None

    # -- the session -----------------------------------------------------------------------------

    def start(self) -> None:
        """Open a session for this incarnation; former ones are closed, so that their ends are
        final.
        """
        self._turn.journal(f"session/{self.name}", _NAME.dump_json(self.name))
        self._open()

    def _open(self) -> None:
        opening = OpenSession(after_slot=self._decided_slot)
        self._submit(opening, token=None, retry_aborted=False, sequence=0)
        self._turn.set_timer("session", 3_600_000, 3_700_000)

    def refresh(self) -> None:
        """Send a command if the session is open, because an idle session expires."""
        if self.is_open:
            self._submit(OpenSession(), token=None, retry_aborted=False)
        self._turn.set_timer("session", 3_600_000, 3_700_000)

    def _opened(self) -> None:
        self.is_open = True
        for session in self._former:
            self._submit(CloseSession(target=session), token=None, retry_aborted=False)
        waiting, self._waiting = self._waiting, {}
        for call, _ in waiting.values():
            self.write(call)

    def _expired(self) -> None:
        """The session expired, so the cluster refuses its open commands: open another session."""
        self._turn.counters["sessions_lost"] += 1
        lost = [self._pending[sequence] for sequence in sorted(self._pending)]
        self._pending.clear()
        self._lost += 1
        self.name = f"{self.name.partition('+')[0]}+{self._lost}"
        self._next_sequence = 1
        self._acknowledged_through = 0
        self.is_open = False
        self._turn.journal(f"session/{self.name}", _NAME.dump_json(self.name))
        self._open()
        for pending in lost:
            if pending.token is not None:
                # Another copy may have been applied before the session expired.
                self._turn.answer(pending.token, Unknown(pending.command.request))

    def _refuse(self, token: int, reason: str, fact: str) -> None:
        self._turn.answer(token, NotDone(reason, fact))

    # -- writes ----------------------------------------------------------------------------------

    def write(self, call: Write) -> None:
        if not self.is_open:
            until = self._turn.now + self._turn.options.request_deadline_ms // 2
            self._waiting[call.token] = (call, until)
        elif self._next_sequence - self._acknowledged_through > _UNRESOLVED_COMMANDS:
            self._refuse(
                call.token,
                "too many commands of this gateway wait for their outcome",
                "nothing was sent",
            )
        else:
            self._submit(call.operation, call.token, call.retry_aborted, call=call)

    def _submit(
        self,
        operation: AnyOperation,
        token: int | None,
        retry_aborted: bool,
        sequence: int | None = None,
        call: Write | None = None,
        retried: bool = False,
    ) -> None:
        if sequence is None:
            sequence = self._next_sequence
            self._next_sequence += 1
        command = Command(
            session=self.name,
            sequence=sequence,
            acknowledged=self._acknowledged_through if sequence else -1,
            reply_to=self._turn.name,
            operation=operation,
            idempotency=call.idempotency if call else None,
            principal=call.principal if call else None,
        )
        pending = Pending(
            command=command,
            token=token,
            began_at=self._turn.now,
            retry_aborted=retry_aborted,
            retried=retried,
        )
        self._pending[sequence] = pending
        self._send_command(pending)
        self._turn.arm("tick", TICK_MS, TICK_MS)

    def _send_command(self, pending: Pending) -> None:
        if not self._cluster.has_leader:
            return
        pending.sent_at = self._turn.now
        pending.open_ballots.add(self._cluster.leader)
        self._turn.send(
            self._cluster.leader.node,
            Submit(ballot=self._cluster.leader, command=pending.command),
        )

    def resend(self) -> None:
        """Send all pending commands to a new leader."""
        for sequence in sorted(self._pending):
            self._send_command(self._pending[sequence])

    def on_redirect(self, message: Redirect) -> None:
        """The ballot no longer leads. Its copy is void only if it was never proposed under it."""
        pending = self._pending.get(message.sequence)
        if pending is None or message.session != self.name:
            return
        if message.never_proposed:
            pending.open_ballots.discard(message.ballot)
        if message.ballot == self._cluster.leader:
            self._cluster.leader_ready = False
        elif self._cluster.leader not in pending.open_ballots:
            self._send_command(pending)

    def on_result(self, message: Result) -> None:
        if message.session != self.name:
            return
        pending = self._pending.pop(message.sequence, None)
        if pending is None:
            return
        self._write_time.observe(self._turn.now - pending.began_at)
        self._raise_acknowledged()
        self._conclude(pending, message.outcome)

    def _conclude(self, pending: Pending, outcome: Outcome) -> None:
        command = pending.command
        self._decided_slot = max(self._decided_slot, outcome.slot)
        match command.operation:
            case OpenSession() if command.sequence == 0:
                if outcome.status == "done":
                    self._opened()
                else:
                    self._open()
                return
            case CloseSession(target=target) if outcome.status == "done":
                self._turn.journal(f"session/{target}", None)
                if target in self._former:
                    self._former.remove(target)
            case CloseSession() if outcome.status != "unknown_session":
                # Until the session is closed, its requests without a result are not final.
                self._submit(command.operation, token=None, retry_aborted=False)
        if outcome.status in ("unknown_session", "forgotten"):
            if pending.token is not None:
                # This is no outcome of the command: an earlier copy may have been applied.
                request = Unknown(command.request)
                self._turn.answer(pending.token, request)
            if outcome.status == "unknown_session" and self.is_open:
                self._expired()
        elif pending.answered_unknown:
            # Queries for this request get this outcome, so it must not be retried.
            self._keep_resolved(command.request, outcome)
        elif outcome.status in ("aborted", "busy") and pending.retry_aborted:
            # The outcome of that sequence is final; the retry uses a new one.
            self._turn.counters["retried_aborts"] += 1
            self._retry(pending)
        elif pending.token is not None:
            self._turn.answer(
                pending.token, WriteDecided(command.request, outcome, pending.retried)
            )

    def _keep_resolved(self, request: str, outcome: Outcome) -> None:
        """Keep an outcome that its caller does not know yet: the cluster soon forgets it."""
        self.resolved[request] = outcome
        self._turn.journal(f"resolved/{request}", outcome)
        if len(self.resolved) > _RESOLVED_KEPT:
            oldest = next(iter(self.resolved))
            del self.resolved[oldest]
            self._turn.journal(f"resolved/{oldest}", None)

    def _retry(self, pending: Pending) -> None:
        former = pending.command
        sequence = self._next_sequence
        self._next_sequence += 1
        update = {"sequence": sequence, "acknowledged": self._acknowledged_through}
        again = Pending(
            command=former.model_copy(update=update),
            token=pending.token,
            began_at=self._turn.now,
            retry_aborted=False,
            retried=True,
        )
        self._pending[sequence] = again
        self._send_command(again)

    def _raise_acknowledged(self) -> None:
        """Raise the mark up to which all outcomes are known and the cluster may forget them."""
        lowest = min(self._pending, default=self._next_sequence)
        self._acknowledged_through = max(self._acknowledged_through, lowest - 1)

    # -- patience --------------------------------------------------------------------------------

    def tick(self) -> None:
        """Send again what was lost; answer the callers whose wait is over."""
        now = self._turn.now
        for sequence in sorted(self._pending):
            self._tick_pending(self._pending[sequence])
        for token in [t for t, (_, until) in self._waiting.items() if now >= until]:
            del self._waiting[token]
            reason = "no session yet" if self._cluster.has_leader else "no leader is known"
            self._refuse(token, reason, "the command was never sent to a proposer")

    def _tick_pending(self, pending: Pending) -> None:
        """Send the command again if it was lost; answer its caller if the wait is over."""
        lost = self._turn.now - pending.sent_at >= self._write_time.timeout_ms
        if pending.token is None and pending.command.sequence:
            lost = self._turn.now - pending.sent_at >= _BACKGROUND_MS
        if lost:
            self._send_command(pending)
        unsent = not pending.open_ballots
        patience = self._turn.options.request_deadline_ms // (2 if unsent else 1)
        if pending.token is not None and self._turn.now >= pending.began_at + patience:
            self._end_wait(pending, pending.token)

    def give_up(self, call: GiveUp) -> None:
        if self._waiting.pop(call.write, None) is not None:
            self._refuse(call.token, "no session yet", "the command was never sent")
            return
        for pending in self._pending.values():
            if pending.token == call.write:
                self._end_wait(pending, call.token)
                return
        self._turn.answer(call.token, Unknown(""))

    def _end_wait(self, pending: Pending, token: int) -> None:
        """Answer what is certain: that the command will never be applied, or nothing."""
        pending.token = None
        if not pending.open_ballots:
            # Its sequence is not used again, and no ballot that was sent a copy can propose it.
            del self._pending[pending.command.sequence]
            self._raise_acknowledged()
            self._refuse(
                token,
                "no leader has a quorum of acceptors",
                "no ballot that was sent a copy can still propose it",
            )
        else:
            self._turn.counters["unknown"] += 1
            pending.answered_unknown = True
            self._turn.answer(token, Unknown(pending.command.request))
