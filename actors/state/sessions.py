"""Sessions, their results, and idempotency keys, which let a retry be applied only once.

Exactly-once results per `(session, sequence)` follow Raft's dissertation, section 6.3, with results
kept for every sequence that the client has not acknowledged. They expire by log time, which is
replicated: the time for which leaders have held their leases.
"""

from dataclasses import dataclass, field

from actors.state.changed_rows import ChangedRows
from actors.values import Batch, Command, Constants, Frozen, Outcome

_EXPIRY_STEP_MS = 60_000


class SessionRow(Frozen):
    """A session's row in the journal, without its results."""

    acknowledged: int
    last_log_time_ms: int
    closed: bool = False


class KeyRow(Frozen):
    """An idempotency key's row: the request that used it, and its result."""

    fingerprint: str
    outcome: Outcome
    log_time_ms: int


@dataclass(slots=True)
class SessionState:
    """A session, and its results that are not acknowledged."""

    acknowledged: int
    last_log_time_ms: int
    closed: bool = False
    results: dict[int, Outcome] = field(default_factory=dict)

    @property
    def row(self) -> SessionRow:
        """Its journal row; the results have rows of their own."""
        return SessionRow(
            acknowledged=self.acknowledged,
            last_log_time_ms=self.last_log_time_ms,
            closed=self.closed,
        )


class Sessions:
    """All sessions and keys, and log time."""

    def __init__(self, changed_rows: ChangedRows) -> None:
        self.by_name: dict[str, SessionState] = {}
        self.keys: dict[str, KeyRow] = {}
        """In the order of the log."""
        self.log_time_ms = 0
        self.expiry_checked_ms = 0
        """The log time of the last check for expiry."""
        self.expired_slot = 0
        """The last slot at which a session expired."""
        self._changed_rows = changed_rows

    def may_open(self, after_slot: int) -> bool:
        """Whether a command to open a session that was sent after the outcome of `after_slot` was
        known can open one that is not known. No session that has expired is opened again: its
        results are forgotten, so a late copy of a command would be applied once more. Each copy of
        the command that opened it was sent before that session expired.
        """
        return after_slot >= self.expired_slot

    def known_or_new(self, name: str) -> SessionState:
        """The session of that name, a new one if it is not known."""
        session = self.by_name.get(name)
        if session is None:
            session = self.by_name[name] = SessionState(-1, self.log_time_ms)
        return session

    def close(self, name: str) -> None:
        """Close the session, so that none of its commands is applied any more. An unknown one is
        remembered as closed, so that a late command to open it is refused too.
        """
        session = self.known_or_new(name)
        session.closed = True
        self._touch(name, session)

    def keep_key(self, key: str, fingerprint: str, outcome: Outcome) -> None:
        """Keep the outcome of the request with that fingerprint under its key."""
        row = KeyRow(fingerprint=fingerprint, outcome=outcome, log_time_ms=self.log_time_ms)
        self.keys[key] = row
        self._changed_rows.note(f"key/{key}", fingerprint)

    def record(self, command: Command, session: SessionState, outcome: Outcome) -> None:
        """Keep the outcome of a command, and forget those that its client has acknowledged."""
        if command.acknowledged > session.acknowledged:  # Else they are forgotten already.
            for sequence in sorted(s for s in session.results if s <= command.acknowledged):
                del session.results[sequence]
                self._changed_rows.touch(result_key(command.session, sequence))
        session.results[command.sequence] = outcome
        key = result_key(command.session, command.sequence)
        self._changed_rows.note(key, f"{outcome.status} {outcome.slot}-{outcome.index}")
        session.acknowledged = max(session.acknowledged, command.acknowledged)
        self._touch(command.session, session)

    def _touch(self, name: str, session: SessionState) -> None:
        session.last_log_time_ms = self.log_time_ms
        self._changed_rows.touch(f"session/{name}")

    def advance(self, slot: int, batch: Batch, constants: Constants) -> bool:
        """Advance log time to that of `slot`; it never goes back. Now and then, remove what had
        already expired at the check before: so after one long step of log time, a copy of a command
        from before it still meets the first copy's result. Returns whether it checked that.
        """
        if batch.stamp_ms is not None:
            self.log_time_ms = max(self.log_time_ms, batch.stamp_ms)
        self.log_time_ms += max(0, batch.elapsed_ms)
        shortest_ms = min(constants.session_expiry_ms, constants.idempotency_expiry_ms)
        step_ms = min(_EXPIRY_STEP_MS, shortest_ms // 4)
        if self.log_time_ms - self.expiry_checked_ms < step_ms:
            return False
        former, self.expiry_checked_ms = self.expiry_checked_ms, self.log_time_ms
        for key in list(self.keys):
            age = former - self.keys[key].log_time_ms
            if age <= constants.idempotency_expiry_ms:
                break  # The keys are in the order of the log, so the rest are younger.
            del self.keys[key]
            self._changed_rows.note(f"key/{key}", "expired")
        for name in sorted(self.by_name):
            session = self.by_name[name]
            if former - session.last_log_time_ms > constants.session_expiry_ms:
                for sequence in sorted(session.results):
                    self._changed_rows.touch(result_key(name, sequence))
                self._changed_rows.note(f"session/{name}", "expired")
                del self.by_name[name]
                self.expired_slot = slot
        return True


def result_key(session: str, sequence: int) -> str:
    """The journal key of a result."""
    return f"result/{session}/{sequence:016x}"
