"""The replicated state machine: files, directories, sessions, idempotency keys.

Learners and stores run this same class on the same slots in the same order, so they hold the same
state (state machine replication: Schneider 1990). It keeps metadata only; contents are chunks
named by their SHA-256. Exactly-once results per `(session, sequence)` follow Raft's dissertation,
section 6.3, with results kept for every sequence that the client has not acknowledged.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from pydantic import TypeAdapter, ValidationError

from actors.budget import Budget, Refused, size_of
from actors.effects import Record
from actors.errors import InvariantViolation, JournalUnreadable
from actors.tree import Undo, check, copy_entry, move_entry, transact
from actors.values import (
    NO_ROOM,
    AnyOperation,
    AnyStep,
    AnyValue,
    Batch,
    Check,
    Chunked,
    CloseSession,
    Command,
    Constants,
    CopyEntry,
    DeleteFile,
    DirectoryEntry,
    FileEntry,
    Frozen,
    Genesis,
    Indirect,
    MakeDirectory,
    MoveEntry,
    OpenSession,
    Outcome,
    Precondition,
    PutFile,
    Refusal,
    RemoveDirectory,
    Status,
    Transaction,
    View,
    stored,
)

_ENTRY: TypeAdapter[FileEntry | DirectoryEntry] = TypeAdapter(FileEntry | DirectoryEntry)
_EXPIRY_STEP_MS = 60_000

STATE_ROWS = ("entry", "session", "result", "key")
"""The kinds of the state's rows, each with a slash and a name after it; `state` has neither."""


class SessionRow(Frozen):
    """What a replica keeps of a session beside its results."""

    acknowledged: int
    last_log_time_ms: int
    closed: bool = False


class KeyRow(Frozen):
    """An idempotency key: the request it stood for, and its result."""

    fingerprint: str
    outcome: Outcome
    log_time_ms: int


class StateRow(Frozen):
    """The end of the applied prefix, its log time, the hash chained over it and the view there."""

    applied: int
    log_time_ms: int
    expiry_checked_ms: int = 0
    state_hash: str
    view: View | None
    view_slot: int


@dataclass(slots=True)
class Session:
    """A session, and its results above the acknowledged mark."""

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


@dataclass(slots=True)
class Namespace:
    """The state after `applied` slots.

    What changed is noted by the key of its journal row, and the rows are made when they are taken:
    of a file that was written ten times since, only the last version ever reaches the disk.
    """

    constants: Constants | None = None
    """What the cluster computes with; set by the owner before the first slot (`begin`)."""
    applied: int = 0
    log_time_ms: int = 0
    expiry_checked_ms: int = 0
    """The log time at which expiry was looked at last."""
    state_hash: str = ""
    view: View | None = None
    """The view in force at `applied`; set by the owner before the first slot (`begin`)."""
    view_slot: int = 0
    """The slot of the View that began the epoch."""
    entries: dict[str, FileEntry | DirectoryEntry] = field(default_factory=dict)
    children: dict[str, set[str]] = field(default_factory=lambda: {"": set()})
    sessions: dict[str, Session] = field(default_factory=dict)
    keys: dict[str, KeyRow] = field(default_factory=dict)
    dropped: list[FileEntry] = field(default_factory=list)
    """Versions that ceased to be current; whoever keeps contents empties this list."""
    gained: list[FileEntry] = field(default_factory=list)
    """Versions that became current; whoever keeps contents empties this list, too."""
    tree_bytes: int = 0
    """What all entries take (`actors.budget.size_of`)."""
    budget: Budget | None = None
    """What the slot being applied may still cost; `None` between slots."""
    undo: Undo | None = None
    """What the command being applied has changed, while one is."""
    _changed: dict[str, None] = field(default_factory=dict)
    """The keys of the rows to be made, in order."""
    _journalled_results: set[str] = field(default_factory=set)
    """The keys of results that the journal holds; most are forgotten before they get there."""
    _summary: list[str] = field(default_factory=list)
    """What the slot being applied has done, for the state hash."""

    # -- journal ---------------------------------------------------------------------------------

    def begin(self, genesis: Genesis) -> None:
        """The constants of the genesis, and its view unless the journal knew a later one."""
        self.constants = genesis.constants
        if self.view is None:
            self.view = genesis.view

    def restore(self, record: Record) -> bool:
        """Take in a journal row if it is one of the state's."""
        kind, _, rest = record.key.partition("/")
        value = record.value or b""
        try:
            match kind:
                case "entry":
                    self._keep(_ENTRY.validate_json(value))
                case "session":
                    row = SessionRow.model_validate_json(value)
                    session = self._session_or_new(rest)
                    session.acknowledged = row.acknowledged
                    session.last_log_time_ms = row.last_log_time_ms
                    session.closed = row.closed
                case "result":
                    name, _, sequence = rest.rpartition("/")
                    outcome = Outcome.model_validate_json(value)
                    self._session_or_new(name).results[int(sequence, 16)] = outcome
                    self._journalled_results.add(record.key)
                case "key":
                    self.keys[rest] = KeyRow.model_validate_json(value)
                case "state":
                    state = StateRow.model_validate_json(value)
                    self.applied = state.applied
                    self.log_time_ms = state.log_time_ms
                    self.expiry_checked_ms = state.expiry_checked_ms
                    self.state_hash = state.state_hash
                    self.view, self.view_slot = state.view, state.view_slot
                case _:
                    return False
        except (ValidationError, ValueError) as error:
            raise JournalUnreadable(f"record {record.key!r} can't be read: {error}") from error
        return True

    def restored(self) -> None:
        """All rows are in: bring what depends on their order into the order of the log."""
        ordered = sorted(
            self.keys.items(), key=lambda kv: (kv[1].outcome.slot, kv[1].outcome.index)
        )
        self.keys = dict(ordered)

    def take_rows(self) -> list[tuple[str, bytes | None]]:
        """The rows that changed since the last call; `None` removes one."""
        rows: list[tuple[str, bytes | None]] = []
        for key in self._changed:
            row = self.row(key)
            if key.startswith("result/"):
                if row is not None:
                    self._journalled_results.add(key)
                elif key in self._journalled_results:
                    self._journalled_results.discard(key)
                else:
                    continue
            rows.append((key, None if row is None else row.to_json()))
        self._changed.clear()
        rows.append(("state", self._state_row().to_json()))
        return rows

    def rows(self) -> list[tuple[str, Frozen]]:
        """The whole state as the rows of a journal, held still: all values are immutable."""
        found: list[tuple[str, Frozen]] = [("state", self._state_row())]
        for name, session in self.sessions.items():
            found.append((f"session/{name}", session.row))
            for sequence, outcome in session.results.items():
                found.append((_result_key(name, sequence), outcome))
        found.extend((f"key/{key}", row) for key, row in self.keys.items())
        found.extend((f"entry/{path}", entry) for path, entry in self.entries.items())
        return found

    def replace(self, rows: Iterable[Record]) -> list[tuple[str, bytes | None]]:
        """Become the state that `rows` say; the changes to the journal that this takes.

        Raises `JournalUnreadable` if they mean nothing, and leaves this state as it was.
        """
        other = Namespace(self.constants)
        changes: dict[str, bytes | None] = {key: None for key, _ in self.rows()}
        changes.update(dict.fromkeys((*self._changed, *self._journalled_results)))
        for row in rows:
            if not other.restore(row):
                raise JournalUnreadable(f"a snapshot has a row {row.key!r}")
            changes[row.key] = row.value
        other.restored()
        for name in (part.name for part in fields(self)):
            setattr(self, name, getattr(other, name))
        return list(changes.items())

    def _state_row(self) -> StateRow:
        return StateRow(
            applied=self.applied,
            log_time_ms=self.log_time_ms,
            expiry_checked_ms=self.expiry_checked_ms,
            state_hash=self.state_hash,
            view=self.view,
            view_slot=self.view_slot,
        )

    def row(self, key: str) -> Frozen | None:
        """What the journal is to hold under `key` now."""
        if key == "state":
            return self._state_row()
        kind, _, rest = key.partition("/")
        if kind == "entry":
            return self.entries.get(rest)
        if kind == "session":
            session = self.sessions.get(rest)
            return session.row if session else None
        if kind == "result":
            name, _, sequence = rest.rpartition("/")
            session = self.sessions.get(name)
            return session.results.get(int(sequence, 16)) if session else None
        return self.keys.get(rest)

    # -- the log ---------------------------------------------------------------------------------

    def apply(self, slot: int, value: AnyValue, aborted: tuple[Refusal, ...]) -> list[Outcome]:
        """Apply the next slot; the outcomes of its commands, in order."""
        if slot != self.applied + 1:
            raise InvariantViolation(f"slot {slot} applied on top of slot {self.applied}")
        outcomes: list[Outcome] = []
        if isinstance(value, Batch):
            assert self.constants is not None, "a slot was applied before the genesis was known"
            self._advance_log_time(value, self.constants)
            self.budget = Budget.of_a_slot(self.constants)
            reasons = {refusal.index: refusal.reason for refusal in aborted}
            for index, command in enumerate(value.commands):
                outcomes.append(self._run(slot, index, command, reasons.get(index)))
        elif isinstance(value, View) and self.view and value.epoch == self.view.epoch + 1:
            self.view, self.view_slot = value.in_force_at(slot), slot
            self._summary.append(f"epoch {value.epoch}")
        self.budget = None
        self.applied = slot
        summary = "\n".join((self.state_hash, str(slot), *self._summary))
        self._summary.clear()
        self.state_hash = hashlib.blake2b(summary.encode(), digest_size=16).hexdigest()
        return outcomes

    def _run(self, slot: int, index: int, command: Command, abort: str | None) -> Outcome:
        """One command; `abort` is the reason of the log's abort, if it has one."""
        session = self.sessions.get(command.session)
        # Only the first command makes it known. Later ones keep a session from expiring; if they
        # brought back one that has expired, and with it what it forgot, a retry would happen twice.
        opens = isinstance(command.operation, OpenSession) and command.sequence == 0
        if session is None and opens and abort is None:
            session = self._session_or_new(command.session)
        if session is None:
            return self._outcome("unknown_session", slot, index, "the session was never opened")
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
        self._record_result(command, session, outcome)
        return outcome

    def _once_per_key(self, slot: int, index: int, command: Command) -> Outcome:
        idempotency = command.idempotency
        if idempotency is None:
            return self._operate_whole(slot, index, command.operation)
        known = self.keys.get(idempotency.key)
        if known is not None:
            if known.fingerprint == idempotency.fingerprint:
                return known.outcome
            return self._outcome("key_reused", slot, index, "the key stood for another request")
        outcome = self._operate_whole(slot, index, command.operation)
        if outcome.status == "busy":
            return outcome  # Nothing was decided about the request: it may be sent again.
        row = KeyRow(
            fingerprint=idempotency.fingerprint, outcome=outcome, log_time_ms=self.log_time_ms
        )
        self.keys[idempotency.key] = row
        self._note(f"key/{idempotency.key}", idempotency.fingerprint)
        return outcome

    def _operate_whole(self, slot: int, index: int, operation: AnyOperation) -> Outcome:
        """Change the tree as the command wants it, or not at all and say why."""
        assert self.budget is not None
        self.budget.begin()
        undo = self.undo = Undo(len(self.dropped), len(self.gained), len(self._summary))
        outcome = self.operate(slot, index, operation)
        if outcome.status != "done":
            undo.take_back(self)
        self.undo = None
        return outcome

    def operate(self, slot: int, index: int, operation: AnyOperation | AnyStep) -> Outcome:
        """One step of a command. What a refused one has changed is still to be taken back."""
        try:
            return self._operate(slot, index, operation)
        except Refused as refused:
            return self._outcome(refused.status, slot, index, refused.detail)

    def _operate(self, slot: int, index: int, operation: AnyOperation | AnyStep) -> Outcome:
        match operation:
            case OpenSession():
                return self._outcome("done", slot, index)
            case CloseSession():
                return self._close_session(slot, index, operation)
            case PutFile():
                return self._put_file(slot, index, operation)
            case DeleteFile():
                return self._delete_file(slot, index, operation)
            case MakeDirectory():
                return self._make_directory(slot, index, operation)
            case RemoveDirectory():
                return self._remove_directory(slot, index, operation)
            case MoveEntry():
                return move_entry(self, slot, index, operation)
            case CopyEntry():
                return copy_entry(self, slot, index, operation)
            case Check():
                return check(self, slot, index, operation)
            case Transaction():
                return transact(self, slot, index, operation)

    # -- operations ------------------------------------------------------------------------------

    def _put_file(self, slot: int, index: int, operation: PutFile) -> Outcome:
        former = self.entries.get(operation.path)
        if operation.path == "" or isinstance(former, DirectoryEntry):
            return self._outcome("conflict", slot, index, f"{operation.path!r} is a directory")
        obstacle = self._file_above(operation.path)
        if obstacle is not None:
            return self._outcome("conflict", slot, index, f"{obstacle!r} is a file")
        if not self._holds(operation.when, former):
            return self._precondition_failed(slot, index, former)
        self._make_parents(slot, index, operation.path)
        if former is not None:
            self.dropped.append(former)
        entry = FileEntry(
            path=operation.path,
            slot=slot,
            index=index,
            version=former.version + 1 if former else 1,
            content=stored(operation.content),
            content_type=operation.content_type,
            modified_ms=operation.modified_ms,
            executable=operation.executable,
            meta=operation.meta,
        )
        self._write(entry)
        return self._outcome("done", slot, index, created=former is None)

    def _delete_file(self, slot: int, index: int, operation: DeleteFile) -> Outcome:
        former = self.entries.get(operation.path)
        if isinstance(former, DirectoryEntry) or operation.path == "":
            return self._outcome("conflict", slot, index, f"{operation.path!r} is a directory")
        if not self._holds(operation.when, former):
            return self._precondition_failed(slot, index, former)
        if former is None:
            return self._outcome("not_found", slot, index, f"{operation.path!r} does not exist")
        self._erase(former)
        return self._outcome("done", slot, index)

    def _make_directory(self, slot: int, index: int, operation: MakeDirectory) -> Outcome:
        former = self.entries.get(operation.path)
        if operation.path == "" or isinstance(former, DirectoryEntry):
            return self._outcome("done", slot, index)
        if former is not None:
            return self._outcome("conflict", slot, index, f"{operation.path!r} is a file")
        obstacle = self._file_above(operation.path)
        if obstacle is not None:
            return self._outcome("conflict", slot, index, f"{obstacle!r} is a file")
        self._make_parents(slot, index, operation.path)
        self._write(DirectoryEntry(path=operation.path, slot=slot, index=index))
        return self._outcome("done", slot, index, created=True)

    def _remove_directory(self, slot: int, index: int, operation: RemoveDirectory) -> Outcome:
        former = self.entries.get(operation.path)
        if operation.path == "":
            return self._outcome("conflict", slot, index, "the root can't be removed")
        if former is None:
            return self._outcome("not_found", slot, index, f"{operation.path!r} does not exist")
        if isinstance(former, FileEntry):
            return self._outcome("conflict", slot, index, f"{operation.path!r} is a file")
        if self.children.get(operation.path) and not operation.recursive:
            return self._outcome("not_empty", slot, index, f"{operation.path!r} is not empty")
        for entry in self._subtree(operation.path):
            self._erase(entry)
        return self._outcome("done", slot, index)

    def _close_session(self, slot: int, index: int, operation: CloseSession) -> Outcome:
        session = self.sessions.get(operation.target)
        if session is None:
            # Remembered as closed, so that a late command of it that opens it is refused too.
            session = self._session_or_new(operation.target)
        session.closed = True
        self._touch(operation.target, session)
        return self._outcome("done", slot, index)

    # -- sessions and time -----------------------------------------------------------------------

    def _record_result(self, command: Command, session: Session, outcome: Outcome) -> None:
        if command.acknowledged > session.acknowledged:  # Else they are forgotten already.
            for sequence in sorted(s for s in session.results if s <= command.acknowledged):
                del session.results[sequence]
                self._changed[_result_key(command.session, sequence)] = None
        session.results[command.sequence] = outcome
        key = _result_key(command.session, command.sequence)
        self._note(key, f"{outcome.status} {outcome.slot}-{outcome.index}")
        session.acknowledged = max(session.acknowledged, command.acknowledged)
        self._touch(command.session, session)

    def _touch(self, name: str, session: Session) -> None:
        session.last_log_time_ms = self.log_time_ms
        self._changed[f"session/{name}"] = None

    def _note(self, key: str, what: str) -> None:
        """A row changed, in a way that every replica must agree on."""
        self._changed[key] = None
        self._summary.append(f"{key} {what}")

    def _session_or_new(self, name: str) -> Session:
        session = self.sessions.get(name)
        if session is None:
            session = self.sessions[name] = Session(-1, self.log_time_ms)
        return session

    def _advance_log_time(self, batch: Batch, constants: Constants) -> None:
        """Log time never goes back. Now and then, what was too old the last time expires: after a
        long silence, what was used just before it has that long left, in which a copy of a command
        is still met by the first one's result.
        """
        if batch.stamp_ms is not None:
            self.log_time_ms = max(self.log_time_ms, batch.stamp_ms)
        self.log_time_ms += max(0, batch.elapsed_ms)
        shortest_ms = min(constants.session_expiry_ms, constants.idempotency_expiry_ms)
        step_ms = min(_EXPIRY_STEP_MS, shortest_ms // 4)
        if self.log_time_ms - self.expiry_checked_ms < step_ms:
            return
        former, self.expiry_checked_ms = self.expiry_checked_ms, self.log_time_ms
        for key in list(self.keys):
            age = former - self.keys[key].log_time_ms
            if age <= constants.idempotency_expiry_ms:
                break  # Kept in the order of the log, so the rest is younger.
            del self.keys[key]
            self._note(f"key/{key}", "expired")
        for name in sorted(self.sessions):
            session = self.sessions[name]
            if former - session.last_log_time_ms > constants.session_expiry_ms:
                for sequence in sorted(session.results):
                    self._changed[_result_key(name, sequence)] = None
                self._note(f"session/{name}", "expired")
                del self.sessions[name]

    # -- the tree --------------------------------------------------------------------------------

    def list_directory(
        self, path: str, after: str, limit: int
    ) -> tuple[tuple[FileEntry | DirectoryEntry, ...], bool]:
        """The children of `path` after the name `after`, by name, and if there are more."""
        names = sorted(name for name in self.children.get(path, ()) if name > after)
        prefix = f"{path}/" if path else ""
        page = tuple(self.entries[prefix + name] for name in names[:limit])
        return page, len(names) > limit

    def lookup(self, path: str) -> FileEntry | DirectoryEntry | None:
        """The entry at `path`; the root is always a directory."""
        return DirectoryEntry(path="", slot=0, index=0) if path == "" else self.entries.get(path)

    def _file_above(self, path: str) -> str | None:
        """The nearest ancestor of `path` that is a file; it is about to be made."""
        assert self.budget is not None
        self.budget.check_depth(path)
        parent = _parent(path)
        while parent:
            if isinstance(self.entries.get(parent), FileEntry):
                return parent
            parent = _parent(parent)
        return None

    def _make_parents(self, slot: int, index: int, path: str) -> None:
        parent = _parent(path)
        missing: list[str] = []
        while parent and parent not in self.entries:
            missing.append(parent)
            parent = _parent(parent)
        for name in reversed(missing):
            self._write(DirectoryEntry(path=name, slot=slot, index=index))

    def _subtree(self, path: str) -> list[FileEntry | DirectoryEntry]:
        """`path` and all below it, children before their directory. Raises `Refused`."""
        assert self.budget is not None
        found: list[FileEntry | DirectoryEntry] = []
        todo = [path]
        while todo:
            here = todo.pop()
            self.budget.step()
            found.append(self.entries[here])
            todo.extend(f"{here}/{name}" for name in sorted(self.children.get(here, ())))
        return found[::-1]

    def _keep(self, entry: FileEntry | DirectoryEntry) -> None:
        parent, _, name = entry.path.rpartition("/")
        former = self.entries.get(entry.path)
        self.tree_bytes += size_of(entry) - (0 if former is None else size_of(former))
        self.entries[entry.path] = entry
        self.children.setdefault(parent, set()).add(name)

    def _forget(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        self.tree_bytes -= size_of(self.entries.pop(path))
        self.children.pop(path, None)
        self.children[parent].discard(name)

    def _write(self, entry: FileEntry | DirectoryEntry) -> None:
        """Make or replace an entry. Raises `Refused`."""
        assert self.budget is not None
        assert self.undo is not None
        self.budget.write(size_of(entry))
        former, former_bytes = self.entries.get(entry.path), self.tree_bytes
        self.undo.changed(entry.path, former)
        if isinstance(entry, FileEntry):
            self.gained.append(entry)
        self._keep(entry)
        if former is None or self.tree_bytes > former_bytes:
            self.budget.check_tree(len(self.entries), self.tree_bytes)
        what = entry.content.sha256 if isinstance(entry, FileEntry) else "directory"
        self._note(f"entry/{entry.path}", f"{entry.slot}-{entry.index} {what}")

    def _erase(self, entry: FileEntry | DirectoryEntry) -> None:
        assert self.undo is not None
        self.undo.changed(entry.path, entry)
        if isinstance(entry, FileEntry):
            self.dropped.append(entry)
        self._forget(entry.path)
        self._note(f"entry/{entry.path}", "gone")

    # -- results ---------------------------------------------------------------------------------

    def _holds(self, when: Precondition, former: FileEntry | DirectoryEntry | None) -> bool:
        """RFC 9110, section 13.2.2, for methods that change state."""
        if when.if_match is None and when.if_none_match is None:
            return True
        tag = former.etag if isinstance(former, FileEntry) else None
        if when.if_match is not None and (
            tag is None or ("*" not in when.if_match and tag not in when.if_match)
        ):
            return False
        return (
            when.if_none_match is None
            or tag is None
            or not ("*" in when.if_none_match or tag in when.if_none_match)
        )

    def _precondition_failed(
        self, slot: int, index: int, former: FileEntry | DirectoryEntry | None
    ) -> Outcome:
        current = former.etag if isinstance(former, FileEntry) else ""
        return self._outcome("precondition_failed", slot, index, current)

    def _outcome(
        self, status: Status, slot: int, index: int, detail: str = "", created: bool = False
    ) -> Outcome:
        return Outcome(status=status, slot=slot, index=index, detail=detail, created=created)


def chunks_of(content: Chunked | Indirect) -> tuple[str, ...]:
    """The chunks that `content` names itself; an `Indirect` one names its manifest."""
    return content.chunks if isinstance(content, Chunked) else (content.manifest,)


def _result_key(session: str, sequence: int) -> str:
    return f"result/{session}/{sequence:016x}"


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
