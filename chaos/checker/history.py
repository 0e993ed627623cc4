"""A history: the operations of clients and their outcomes, in the order in which they happened.

One JSON object a line, in real-time order (CONTRACTS, "History format")::

    {"op": 7, "process": 3, "type": "invoke", "f": "write", "path": "/a", "value": 5, "time_ns": 1}
    {"op": 7, "process": 3, "type": "ok", "f": "write", "path": "/a", "value": 5, "time_ns": 9}

An **event** is one line; an **operation** is an `invoke` with the event that ended it. `op` names
the operation, so both its events carry the same. What the fields mean:

- `type`: `ok`, it happened; `fail`, it certainly did not and never will; `info`, or no end at all,
  its outcome is unknown, and it may still happen later.
- `f` and `value`: `read` (the value that was read, in its `ok`), `write` (the value), `delete`,
  `cas` (`[expected, new]`), `txn` (`[["read"|"write"|"cas"|"delete", path, value], …]`, all or
  nothing, each step seeing the ones before it; it needs no `path`). `null` is "absent": a `cas`
  from `null` creates, one to `null` deletes. A `delete` of what is absent happens, too, and
  changes nothing.
- `error`: why it ended so. A `cas` that fails **without** one is also an observation: the value
  was not the expected one.
- A process does one operation at a time. After `info` its client goes on under a new number, as
  the unknown operation may still be running. `HistoryRecorder` ensures both.

Only the order of the lines counts for the verdict; `time_ns` is for people and pictures.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

EventType = Literal["invoke", "ok", "fail", "info"]
Function = Literal["read", "write", "cas", "delete", "txn"]
StepAction = Literal["read", "write", "cas", "delete"]
OperationOutcome = Literal["ok", "refused", "failed", "unknown"]

Json = Any
"""Any JSON value. `None` means absent."""


class HistoryError(ValueError):
    """A history that can't be read; the text names the line."""


class Event(BaseModel):
    """One line of a history. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, strict=True)

    op: int
    """Names the operation; unique in a history."""
    process: int
    type: EventType
    f: Function
    path: str | None = None
    value: Json = None
    time_ns: int
    error: Json = None

    def line(self) -> str:
        """This event as a line of JSON, without the newline."""
        fields: dict[str, Json] = {"op": self.op, "process": self.process, "type": self.type}
        fields |= {"f": self.f, "path": self.path, "value": self.value, "time_ns": self.time_ns}
        if self.error is not None:
            fields["error"] = self.error
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


class PathStep(NamedTuple):
    """What an operation does with one path: a whole operation has one, a `txn` one or more."""

    action: StepAction
    path: str
    value: Json
    """Read, written, or the new one of a `cas`; `None` for a delete."""
    expected: Json = None
    """The value that a `cas` expects."""


@dataclass(frozen=True, slots=True)
class RecordedOperation:
    """An invocation and its outcome."""

    op: int
    process: int
    f: Function
    steps: tuple[PathStep, ...]
    """They have the values that were read only if the outcome is `ok`."""
    outcome: OperationOutcome
    """`refused`: a `cas` that found another value than the expected one, and changed nothing."""
    invoked: int
    """The index of its first event; events are numbered from 0."""
    ended: int | None
    """The index of the event that ended it; `None` if the outcome is unknown."""
    invoked_ns: int
    ended_ns: int | None

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that it touches, each once, in its own order."""
        return tuple(dict.fromkeys(step.path for step in self.steps))


# -- reading and writing -------------------------------------------------------------------------


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """Parse lines of JSON; blank ones may follow the last event.

    Raises `HistoryError` that names the first line that is no event.
    """
    blank: int | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            blank = blank or number
            continue
        if blank is not None:
            raise HistoryError(f"line {blank} is blank, but more follows")
        try:
            yield Event.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            what = f"{where}: {first['msg']}" if where else first["msg"]
            raise HistoryError(f"line {number}: {what}") from None


def load_history(file: Path) -> list[Event]:
    """All events of a file.

    Raises `HistoryError` for a line that is no event, `OSError` if the file can't be read.
    """
    try:
        with file.open(encoding="utf-8") as lines:
            return list(read_events(lines))
    except UnicodeDecodeError as error:
        raise HistoryError(f"{file} is not UTF-8 text: {error}") from None


def write_events(events: Iterable[Event], to: IO[str]) -> None:
    """Write events as lines of JSON."""
    for event in events:
        to.write(event.line() + "\n")


class HistoryRecorder:
    """Records the events of all clients in the order in which they happen.

    `now_ns` reads one monotonic clock for all clients. `to` gets each line at once, so that a
    history survives the death of its recorder; `events` has them, too.
    """

    def __init__(self, now_ns: Callable[[], int], to: IO[str] | None = None) -> None:
        self.events: list[Event] = []
        self.now_ns = now_ns
        self._to = to
        self._operations = 0
        self._processes = 0

    def client(self) -> "RecordedClient":
        """A new client, which does one operation at a time."""
        return RecordedClient(self)

    def new_process(self) -> int:
        """A process number that no client has used."""
        self._processes += 1
        return self._processes

    def new_operation(self) -> int:
        """A number for the next operation."""
        self._operations += 1
        return self._operations

    def append(self, event: Event) -> None:
        """Record an event that happens now."""
        self.events.append(event)
        if self._to is not None:
            self._to.write(event.line() + "\n")


class RecordedClient:
    """One client's part of a history. After `unknown` it goes on under a new process number."""

    def __init__(self, recorder: HistoryRecorder) -> None:
        self._recorder = recorder
        self._process = recorder.new_process()
        self._open: Event | None = None

    def invoke(self, f: Function, path: str | None, value: Json = None) -> int:
        """Record that an operation begins; its number.

        Raises `HistoryError` if another one of this client has not ended, or if it is malformed.
        """
        if self._open is not None:
            raise HistoryError(f"operation {self._open.op} of this client has not ended yet")
        recorder = self._recorder
        op = recorder.new_operation()
        event = Event(
            op=op,
            process=self._process,
            type="invoke",
            f=f,
            path=path,
            value=value,
            time_ns=recorder.now_ns(),
        )
        _steps_of(event)
        self._open = event
        recorder.append(event)
        return op

    def ok(self, value: Json = None) -> None:
        """Record that it happened. `value`: of a read, or the steps of a `txn` with their values.

        Raises `HistoryError` if a `txn` with reads comes without their values.
        """
        begun = self._begun()
        if begun.f == "txn":
            event = begun.model_copy(update={"type": "ok", "value": value})
            value = begun.value if value is None else value
            _steps_at_end(begun, event, _steps_of(begun))
        self._end("ok", value if begun.f in ("read", "txn") else begun.value)

    def fail(self, error: Json = None) -> None:
        """Record that it did not happen and never will. Without `error` a `cas` was refused."""
        self._end("fail", self._begun().value, error)

    def unknown(self, error: Json = None) -> None:
        """Record that its outcome is unknown: it may still happen."""
        self._end("info", self._begun().value, error)
        self._process = self._recorder.new_process()

    def _begun(self) -> Event:
        if self._open is None:
            raise HistoryError("no operation of this client is under way")
        return self._open

    def _end(self, kind: EventType, value: Json, error: Json = None) -> None:
        begun = self._begun()
        recorder = self._recorder
        event = Event(
            op=begun.op,
            process=begun.process,
            type=kind,
            f=begun.f,
            path=begun.path,
            value=value,
            time_ns=recorder.now_ns(),
            error=error,
        )
        self._open = None
        recorder.append(event)


# -- from events to operations -------------------------------------------------------------------


def operations_of(events: Iterable[Event]) -> list[RecordedOperation]:
    """Pair invocations with their ends; in the order of the invocations.

    Raises `HistoryError` for the first event (counted from 1, as lines are) that does not fit: an
    end without a beginning, a second end, a process with two operations at once or one after
    `info`, an end that contradicts its beginning, a value of the wrong shape.
    """
    open_events: dict[int, tuple[int, Event]] = {}
    """By process."""
    finished: list[RecordedOperation] = []
    seen: set[int] = set()
    ended_by_info: set[int] = set()
    for index, event in enumerate(events):
        try:
            if event.type == "invoke":
                _check_beginning(event, open_events, seen, ended_by_info)
                _steps_of(event)
                seen.add(event.op)
                open_events[event.process] = (index, event)
                continue
            begun = open_events.get(event.process)
            if begun is None or begun[1].op != event.op:
                what = "has ended already" if event.op in seen else "was never invoked"
                raise HistoryError(f"operation {event.op} of process {event.process} {what}")
            del open_events[event.process]
            if event.type == "info":
                ended_by_info.add(event.process)
            finished.append(_finished(begun[0], begun[1], index, event))
        except HistoryError as error:
            raise HistoryError(f"line {index + 1}: {error}") from None
    finished += [_finished(index, event, None, None) for index, event in open_events.values()]
    finished.sort(key=lambda operation: operation.invoked)
    return finished


def _check_beginning(
    event: Event,
    open_events: dict[int, tuple[int, Event]],
    seen: set[int],
    ended_by_info: set[int],
) -> None:
    if event.op in seen:
        raise HistoryError(f"operation {event.op} was invoked before")
    if event.process in open_events:
        under_way = open_events[event.process][1].op
        raise HistoryError(
            f"process {event.process} invokes operation {event.op} while its operation {under_way} "
            "is under way; a process does one thing at a time"
        )
    if event.process in ended_by_info:
        raise HistoryError(
            f"process {event.process} goes on after an unknown outcome (info); "
            "its client needs a new process number"
        )


def _finished(
    invoked: int, begun: Event, ended: int | None, end: Event | None
) -> RecordedOperation:
    steps = _steps_of(begun)
    outcome: OperationOutcome = "unknown"
    if end is not None:
        _check_same(begun, end)
        if end.type == "ok":
            outcome = "ok"
            steps = _steps_at_end(begun, end, steps)
        elif end.type == "fail":
            outcome = "refused" if begun.f == "cas" and end.error is None else "failed"
    known = outcome != "unknown"
    return RecordedOperation(
        op=begun.op,
        process=begun.process,
        f=begun.f,
        steps=steps,
        outcome=outcome,
        invoked=invoked,
        ended=ended if known else None,
        invoked_ns=begun.time_ns,
        ended_ns=end.time_ns if end is not None and known else None,
    )


def _check_same(begun: Event, end: Event) -> None:
    if end.f != begun.f:
        raise HistoryError(f"operation {end.op} began as {begun.f} and ends as {end.f}")
    if begun.f != "txn" and end.path is not None and end.path != begun.path:
        raise HistoryError(f"operation {end.op} began on {begun.path} and ends on {end.path}")


def _steps_at_end(begun: Event, end: Event, steps: tuple[PathStep, ...]) -> tuple[PathStep, ...]:
    if begun.f == "read":
        if "value" not in end.model_fields_set:
            raise HistoryError(f"the ok of read {end.op} has no value; null means absent")
        return (steps[0]._replace(value=end.value),)
    if end.value is None and (begun.f != "txn" or all(step.action != "read" for step in steps)):
        return steps
    found = _steps_of(end)
    if _without_reads(found) != _without_reads(steps):
        raise HistoryError(
            f"operation {end.op} began with {json.dumps(begun.value, ensure_ascii=False)} "
            f"and ends with {json.dumps(end.value, ensure_ascii=False)}"
        )
    return found


def _without_reads(steps: tuple[PathStep, ...]) -> str:
    # As JSON, because 1, 1.0 and True are equal in Python.
    masked = [step._replace(value=None) if step.action == "read" else step for step in steps]
    return json.dumps(masked, sort_keys=True)


def _steps_of(event: Event) -> tuple[PathStep, ...]:
    """The steps of the operation that an event belongs to."""
    if event.f == "txn":
        if not isinstance(event.value, list) or not event.value:
            raise HistoryError(f"the value of txn {event.op} is not a list of steps")
        return tuple(_step_in_txn(event, item) for item in event.value)
    if event.path is None:
        raise HistoryError(f"operation {event.op} has no path")
    return (_step(event, event.f, event.path, event.value),)


def _step_in_txn(event: Event, item: Json) -> PathStep:
    match item:
        case [("read" | "write" | "cas" | "delete") as action, str(path), value]:
            return _step(event, action, path, value)
        case [("read" | "delete") as action, str(path)]:
            return _step(event, action, path, None)
    raise HistoryError(
        f"txn {event.op} has the step {json.dumps(item, ensure_ascii=False)}; a step is "
        '["read"|"write"|"cas"|"delete", path, value]'
    )


def _step(event: Event, action: StepAction, path: str, value: Json) -> PathStep:
    if action == "cas":
        if not isinstance(value, list) or len(value) != 2:
            raise HistoryError(f"the value of cas {event.op} is not [expected, new]")
        return PathStep("cas", path, value[1], value[0])
    return PathStep(action, path, None if action == "delete" else value)
