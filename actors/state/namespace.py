"""The replicated state machine: files, directories, sessions, idempotency keys.

Learners and stores run this same class on the same slots in the same order, so they hold the same
state (state machine replication: Schneider 1990). It keeps metadata only; contents are chunks named
by their SHA-256. `actors.state.operations` executes commands on the tree, `actors.state.sessions`
has each applied at most once, and `actors.state.policy` says for whom.
"""

import hashlib
from collections.abc import Iterable

from pydantic import Field, TypeAdapter, ValidationError

from actors.effects import Record
from actors.errors import InvariantViolation, JournalUnreadable
from actors.paxos.membership import Membership
from actors.state import accounts
from actors.state.audit import AuditChain, AuditMark
from actors.state.budget import Refused
from actors.state.changed_rows import ChangedRows
from actors.state.operations import operate
from actors.state.policy import Policy
from actors.state.policy_rows import POLICY_ROWS, LogPosition
from actors.state.quotas import QuotaRow, Quotas
from actors.state.sessions import KeyRow, SessionRow, Sessions, result_key
from actors.state.tree import Tree
from actors.values import (
    NO_ROOM,
    AccountChange,
    AnyValue,
    Batch,
    CloseSession,
    Command,
    Constants,
    CreateToken,
    DirectoryEntry,
    FileEntry,
    Frozen,
    Genesis,
    Members,
    OpenSession,
    Outcome,
    Refusal,
    RemoveQuota,
    RevokeToken,
    Roster,
    SetQuota,
    Settled,
    Status,
    View,
)

_ENTRY: TypeAdapter[FileEntry | DirectoryEntry] = TypeAdapter(FileEntry | DirectoryEntry)

STATE_ROWS = ("entry", "session", "result", "key", *POLICY_ROWS, "quota")
"""The kinds of the state's rows, each with a slash and a name after it; `state` has neither."""

_NOT_EXECUTED = frozenset(("busy", "denied", "unauthenticated"))
"""Outcomes that an idempotency key does not remember: the request may be sent again with it."""


class StateRow(Frozen):
    """The end of the applied prefix, its log time, the hash chained over it and the view there.
    `audit` is the end of the chain of the commands in it, if there is any.
    """

    applied: int
    log_time_ms: int
    expiry_checked_ms: int = 0
    expired_slot: int = 0
    state_hash: str
    view: View | None
    view_slot: int
    audit: AuditMark | None = Field(None, exclude_if=lambda audit: audit is None)
    membership: Membership | None = Field(None, exclude_if=lambda membership: membership is None)
    """The members there, once they have changed."""


class Namespace:
    """The state after `applied` slots."""

    def __init__(
        self, constants: Constants | None = None, founding_membership: Membership | None = None
    ) -> None:
        self.constants = constants
        """The constants of the genesis; set by the owner before the first slot (`begin`)."""
        self.applied = 0
        self.state_hash = ""
        self.view: View | None = None
        """The view in force at `applied`; set by the owner before the first slot (`begin`)."""
        self.view_slot = 0
        """The slot of the View that began the epoch."""
        self.founding_membership = founding_membership
        """The acceptors of the genesis; set by the owner before the first slot (`begin`)."""
        self._changed_membership: Membership | None = None
        self._changed_rows = ChangedRows()
        self.tree = Tree(self._changed_rows)
        self.sessions = Sessions(self._changed_rows)
        self.policy = Policy(self._changed_rows)
        self.quotas = Quotas(self._changed_rows)
        self.audit = AuditChain()
        self._journalled_results: set[str] = set()
        """The keys of the results in the journal; most results are forgotten before that."""

    @property
    def entries(self) -> dict[str, FileEntry | DirectoryEntry]:
        """All files and directories, by path."""
        return self.tree.entries

    @property
    def membership(self) -> Membership | None:
        """The members as of `applied`, once the genesis is known."""
        return self._changed_membership or self.founding_membership

    @property
    def log_time_ms(self) -> int:
        """Log time, in milliseconds: the time for which leaders have held their leases."""
        return self.sessions.log_time_ms

    # -- journal ---------------------------------------------------------------------------------

    def begin(self, genesis: Genesis) -> None:
        """Take the constants of the genesis, and its view unless the journal held a later one."""
        self.constants = genesis.constants
        self.founding_membership = Membership.founded(genesis)
        if self.view is None:
            self.view = genesis.view

    def restore(self, record: Record) -> bool:
        """Restore a journal row if it is one of the state's; whether it is."""
        kind, _, rest = record.key.partition("/")
        value = record.value or b""
        try:
            match kind:
                case "entry":
                    self.tree.keep(_ENTRY.validate_json(value))
                case "session":
                    row = SessionRow.model_validate_json(value)
                    session = self.sessions.known_or_new(rest)
                    session.acknowledged = row.acknowledged
                    session.last_log_time_ms = row.last_log_time_ms
                    session.closed = row.closed
                case "result":
                    name, _, sequence = rest.rpartition("/")
                    outcome = Outcome.model_validate_json(value)
                    self.sessions.known_or_new(name).results[int(sequence, 16)] = outcome
                    self._journalled_results.add(record.key)
                case "key":
                    self.sessions.keys[rest] = KeyRow.model_validate_json(value)
                case "quota":
                    self.quotas.rows[rest] = QuotaRow.model_validate_json(value)
                case _ if kind in POLICY_ROWS:
                    self.policy.restore(kind, rest, value)
                case "state":
                    state = StateRow.model_validate_json(value)
                    self.applied = state.applied
                    self.sessions.log_time_ms = state.log_time_ms
                    self.sessions.expiry_checked_ms = state.expiry_checked_ms
                    self.sessions.expired_slot = state.expired_slot
                    self.state_hash = state.state_hash
                    self.view, self.view_slot = state.view, state.view_slot
                    self.audit.restore(state.audit)
                    self._changed_membership = state.membership
                case _:
                    return False
        except (ValidationError, ValueError) as error:
            raise JournalUnreadable(f"record {record.key!r} can't be read: {error}") from error
        return True

    def restored(self) -> None:
        """Finish restoring: sort the keys into the order of the log."""
        ordered = sorted(
            self.sessions.keys.items(), key=lambda kv: (kv[1].outcome.slot, kv[1].outcome.index)
        )
        self.sessions.keys = dict(ordered)

    def take_rows(self) -> list[tuple[str, bytes | None]]:
        """The rows that changed since the last call; `None` removes one."""
        rows: list[tuple[str, bytes | None]] = []
        for key in self._changed_rows.keys:
            row = self.row(key)
            if key.startswith("result/"):
                if row is not None:
                    self._journalled_results.add(key)
                elif key in self._journalled_results:
                    self._journalled_results.discard(key)
                else:
                    continue
            rows.append((key, None if row is None else row.to_json()))
        self._changed_rows.keys.clear()
        rows.append(("state", self._state_row().to_json()))
        return rows

    def rows(self) -> list[tuple[str, Frozen]]:
        """The whole state as rows of a journal; they don't change, as all values are immutable."""
        found: list[tuple[str, Frozen]] = [("state", self._state_row())]
        for name, session in self.sessions.by_name.items():
            found.append((f"session/{name}", session.row))
            for sequence, outcome in session.results.items():
                found.append((result_key(name, sequence), outcome))
        found.extend((f"key/{key}", row) for key, row in self.sessions.keys.items())
        found.extend(self.policy.rows())
        found.extend((f"quota/{path}", row) for path, row in self.quotas.rows.items())
        found.extend((f"entry/{path}", entry) for path, entry in self.tree.entries.items())
        return found

    def replace(self, rows: Iterable[Record]) -> list[tuple[str, bytes | None]]:
        """Become the state in `rows`; returns the changes to the journal that this needs.

        Raises `JournalUnreadable` if a row can't be read, and leaves this state as it was.
        """
        other = Namespace(self.constants, self.founding_membership)
        other.audit.kept = None if self.audit.kept is None else []
        changes: dict[str, bytes | None] = {key: None for key, _ in self.rows()}
        changes.update(dict.fromkeys((*self._changed_rows.keys, *self._journalled_results)))
        for row in rows:
            if not other.restore(row):
                raise JournalUnreadable(f"a snapshot has a row {row.key!r}")
            changes[row.key] = row.value
        other.restored()
        self.__dict__.update(other.__dict__)
        return list(changes.items())

    def _state_row(self) -> StateRow:
        return StateRow(
            applied=self.applied,
            log_time_ms=self.sessions.log_time_ms,
            expiry_checked_ms=self.sessions.expiry_checked_ms,
            expired_slot=self.sessions.expired_slot,
            state_hash=self.state_hash,
            view=self.view,
            view_slot=self.view_slot,
            audit=self.audit.mark,
            membership=self._changed_membership,
        )

    def row(self, key: str) -> Frozen | None:
        """The row for the journal under `key`, as of now."""
        if key == "state":
            return self._state_row()
        kind, _, rest = key.partition("/")
        if kind == "entry":
            return self.tree.entries.get(rest)
        if kind == "session":
            session = self.sessions.by_name.get(rest)
            return session.row if session else None
        if kind == "result":
            name, _, sequence = rest.rpartition("/")
            session = self.sessions.by_name.get(name)
            return session.results.get(int(sequence, 16)) if session else None
        if kind in POLICY_ROWS:
            return self.policy.row(kind, rest)
        if kind == "quota":
            return self.quotas.rows.get(rest)
        return self.sessions.keys.get(rest)

    # -- the log ---------------------------------------------------------------------------------

    def apply(self, slot: int, value: AnyValue, aborted: tuple[Refusal, ...]) -> list[Outcome]:
        """Apply the next slot; the outcomes of its commands, in order."""
        if slot != self.applied + 1:
            raise InvariantViolation(f"slot {slot} applied on top of slot {self.applied}")
        outcomes: list[Outcome] = []
        if isinstance(value, Batch):
            assert self.constants is not None, "a slot was applied before the genesis was known"
            if self.sessions.advance(slot, value, self.constants):
                self.policy.forget_expired(self.log_time_ms)
            self.tree.begin_slot(self.constants)
            reasons = {refusal.index: refusal.reason for refusal in aborted}
            for index, command in enumerate(value.commands):
                outcomes.append(self._run(slot, index, command, reasons.get(index)))
            if self.constants.audit:
                self.audit.note(slot, self.log_time_ms, value, outcomes)
                self._changed_rows.summary.append(f"audit {self.audit.head}")
        elif isinstance(value, View) and self.view and value.epoch == self.view.epoch + 1:
            self.view, self.view_slot = value.in_force_at(slot), slot
            self._changed_rows.summary.append(f"epoch {value.epoch}")
        elif isinstance(value, Members | Settled | Roster):
            self._change_members(slot, value)
        self.tree.end_slot()
        self.applied = slot
        summary = "\n".join((self.state_hash, str(slot), *self._changed_rows.summary))
        self._changed_rows.summary.clear()
        self.state_hash = hashlib.blake2b(summary.encode(), digest_size=16).hexdigest()
        return outcomes

    def found_anew(self, slot: int, view: View) -> None:
        """Let the state be that of a new cluster after `slot`, with a view and members of its
        own: those of the cluster that the state is from are no part of it.
        """
        self.applied, self.view, self.view_slot = slot, view, slot
        self._changed_membership = None

    def _change_members(self, slot: int, value: Members | Settled | Roster) -> None:
        """Change the members, or begin or end it, if the value counts in this slot."""
        assert self.constants is not None, "a slot was applied before the genesis was known"
        assert self.membership is not None
        after = self.membership.after(slot, value, self.constants.alpha)
        if after is not self.membership:
            self._changed_membership = after
            self._changed_rows.summary.append(value.to_json().decode())
            if self.constants.audit:
                self.audit.note_members(slot, self.log_time_ms, value)
                self._changed_rows.summary.append(f"audit {self.audit.head}")

    def _run(self, slot: int, index: int, command: Command, abort: str | None) -> Outcome:
        """Run one command; `abort` is the reason of the log's abort, if there is one."""
        session = self.sessions.by_name.get(command.session)
        # Only its first command opens a session. If a later one opened it again after it has
        # expired, with its results forgotten, a retry would be applied twice.
        match command.operation:
            case OpenSession(after_slot=after_slot) if command.sequence == 0 and abort is None:
                if session is None and self.sessions.may_open(after_slot):
                    session = self.sessions.known_or_new(command.session)
        if session is None:
            return self._outcome("unknown_session", slot, index, "the session is not open")
        known = session.results.get(command.sequence)
        if known is not None:
            return known
        if command.sequence <= session.acknowledged:
            return self._outcome("forgotten", slot, index, "the client has acknowledged it")
        if session.closed:
            return self._outcome("unknown_session", slot, index, "the session was closed")
        if abort is not None:
            full = abort.startswith(NO_ROOM)
            outcome = self._outcome("no_room" if full else "aborted", slot, index, abort)
        else:
            outcome = self._once_per_key(slot, index, command)
        if command.principal is not None and outcome.token is None:
            outcome = outcome.model_copy(update={"token": command.principal.owner})
        self.sessions.record(command, session, outcome)
        return outcome

    def has_result(self, command: Command) -> bool:
        """Whether the command is a retry whose result this replica has, as far as it has applied
        the log: applying it changes nothing.
        """
        session = self.sessions.by_name.get(command.session)
        if session is not None and command.sequence in session.results:
            return True
        return _key_of(command) in self.sessions.keys

    def _once_per_key(self, slot: int, index: int, command: Command) -> Outcome:
        idempotency = command.idempotency
        if idempotency is None:
            return self._operate_whole(slot, index, command)
        key = _key_of(command)
        known = self.sessions.keys.get(key)
        if known is not None:
            if known.fingerprint == idempotency.fingerprint:
                return known.outcome
            return self._outcome("key_reused", slot, index, "the key was used for another request")
        outcome = self._operate_whole(slot, index, command)
        if outcome.status in _NOT_EXECUTED:
            return outcome
        self.sessions.keep_key(key, idempotency.fingerprint, outcome)
        return outcome

    def _operate_whole(self, slot: int, index: int, command: Command) -> Outcome:
        """Execute the operation as a whole, or not at all, and only if its principal may."""
        self.tree.begin_command()
        used = self.quotas.used(self.tree)
        try:
            outcome = self._permitted(slot, index, command)
            if used and outcome.status == "done":
                self.quotas.check(self.tree, used)
        except Refused as refused:
            outcome = Outcome(
                status=refused.status,
                slot=slot,
                index=index,
                detail=refused.detail,
                step=refused.step,
                path=refused.path,
            )
        self.tree.end_command(is_refused=outcome.status != "done")
        return outcome

    def _permitted(self, slot: int, index: int, command: Command) -> Outcome:
        """Execute the operation if the principal may. Raises `Refused`."""
        budget = self.tree.budget
        assert budget is not None
        rights = self.policy.check(command, budget, self.log_time_ms)
        at = LogPosition(slot, index, self.log_time_ms)
        match command.operation:
            case OpenSession():
                pass
            case CloseSession(target=target):
                self.sessions.close(target)
            case CreateToken() | RevokeToken() as change:
                self.policy.operate(at, command.principal, change, rights, budget)
            case SetQuota() | RemoveQuota() as change:
                self.quotas.operate(slot, change, budget)
            case change if isinstance(change, AccountChange):
                accounts.operate(self.policy, at, command.principal, change, rights, budget)
            case operation:
                return operate(self.tree, slot, index, operation)
        return self._outcome("done", slot, index)

    def _outcome(self, status: Status, slot: int, index: int, detail: str = "") -> Outcome:
        return Outcome(status=status, slot=slot, index=index, detail=detail)


def _key_of(command: Command) -> str:
    """The name of the command's idempotency key: each owner has its own. Keys hold no space."""
    key = "" if command.idempotency is None else command.idempotency.key
    return key if command.principal is None else f"{command.principal.owner} {key}"
