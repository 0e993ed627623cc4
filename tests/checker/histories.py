"""Histories written by hand, drawn at random, and made by a correct register."""

import json
import random
from collections.abc import Sequence
from itertools import count
from typing import Any

from chaos.checker.history import (
    Event,
    Function,
    HistoryRecorder,
    RecordedClient,
    RecordedOperation,
    operations_of,
)
from chaos.checker.linearizability import CheckResult, check


def events_of(*lines: str) -> list[Event]:
    """A history from short lines: `1 invoke write /a 5`, `1 ok`, `2 fail timeout`.

    A line is the process, the type, then function, path (but for a txn) and value in JSON for an
    invocation; the value that was read, or the error, for an end.
    """
    events: list[Event] = []
    open_events: dict[int, Event] = {}
    for index, line in enumerate(lines):
        process, kind, *rest = line.split(" ", 2)
        if kind == "invoke":
            f, _, after = rest[0].partition(" ")
            path, _, value = after.partition(" ") if f != "txn" else (None, "", after)
            event = _event(index, int(process), kind, f, path, json.loads(value or "null"))
            open_events[int(process)] = event
        else:
            begun = open_events.pop(int(process))
            result = json.loads(rest[0]) if rest and kind == "ok" else None
            if begun.f != "read" and result is None:
                result = begun.value
            event = begun.model_copy(
                update={
                    "type": kind,
                    "value": result,
                    "time_ns": index,
                    "error": rest[0] if rest and kind != "ok" else None,
                }
            )
            event = Event.model_validate_json(event.line())
        events.append(event)
    return events


def _event(index: int, process: int, kind: str, f: str, path: str | None, value: Any) -> Event:
    fields = {"op": index, "process": process, "type": kind, "f": f, "path": path}
    return Event.model_validate({**fields, "value": value, "time_ns": index})


def judge(*lines: str) -> CheckResult:
    return check(operations_of(events_of(*lines)))


class Truth:
    """A file system in memory, which applies one operation at a time."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}

    def apply(self, f: Function, path: str | None, value: Any) -> tuple[bool, Any]:
        """Whether the operation happened, and the value of its `ok`."""
        steps = value if f == "txn" else [[f, path, value]]
        files = dict(self.files)
        steps_done = []
        for action, where, what in steps:
            if action == "read":
                steps_done.append([action, where, files.get(where)])
                continue
            steps_done.append([action, where, what])
            if action == "cas":
                if files.get(where) != what[0]:
                    return False, None
                what = what[1]
            files[where] = None if action == "delete" else what
        self.files = files
        return True, steps_done if f == "txn" else steps_done[0][2]


def simulated(
    seed: int,
    *,
    operations: int,
    processes: int,
    paths: Sequence[str],
    values: int | None = None,
    unknown_part: float = 0.0,
    txn_part: float = 0.0,
    pause_part: float = 0.5,
) -> list[Event]:
    """The history of clients of a correct register: each operation takes effect between its
    beginning and its end. `values=None` makes every value unique.
    """
    chance = random.Random(seed)
    clock = count()
    recorder = HistoryRecorder(lambda: next(clock))
    clients: list[RecordedClient] = [recorder.client() for _ in range(processes)]
    under_way: dict[int, tuple[Any, ...]] = {}
    truth = Truth()
    unique = count(1)
    begun = 0

    def value() -> Any:
        return next(unique) if values is None else chance.randrange(values)

    def choose() -> tuple[Any, ...]:
        path = chance.choice(paths)
        if chance.random() < txn_part and len(paths) > 1:
            to = chance.choice([other for other in paths if other != path])
            moved = truth.files.get(path)
            return "txn", None, [["cas", path, [moved, None]], ["write", to, moved]]
        f = chance.choices(["read", "write", "cas", "delete"], [10, 6, 3, 1])[0]
        if f == "cas":
            return f, path, [truth.files.get(path), value()]
        return f, path, value() if f == "write" else None

    while begun < operations or under_way:
        number = chance.randrange(processes)
        client = clients[number]
        if number not in under_way:
            if begun < operations:
                begun += 1
                work = choose()
                client.invoke(*work)
                under_way[number] = (work, None)
            continue
        work, done = under_way[number]
        if done is None:
            if chance.random() < unknown_part:
                late = chance.random() < 0.5
                client.unknown()
                del under_way[number]
                if late:
                    truth.apply(*work)
            elif chance.random() < pause_part:
                under_way[number] = (work, truth.apply(*work))
            continue
        happened, what = done
        del under_way[number]
        if happened:
            client.ok(what)
        else:
            client.fail("refused" if work[0] == "txn" else None)
    return recorder.events


def linearizable_by_force(operations: Sequence[RecordedOperation]) -> bool:
    """Try every order, without any optimization that could be wrong."""

    def fits(operation: RecordedOperation, files: dict[str, Any]) -> dict[str, Any] | None:
        after = dict(files)
        for step in operation.steps:
            now = json.dumps(after.get(step.path), sort_keys=True)
            if operation.outcome == "refused":
                return after if now != json.dumps(step.expected, sort_keys=True) else None
            if step.action == "read":
                if operation.outcome == "ok" and now != json.dumps(step.value, sort_keys=True):
                    return None
                continue
            if step.action == "cas" and now != json.dumps(step.expected, sort_keys=True):
                return None
            after[step.path] = step.value
        return after

    def search(left: tuple[RecordedOperation, ...], files: dict[str, Any]) -> bool:
        if all(operation.ended is None for operation in left):
            return True
        first_end = min(one.ended for one in left if one.ended is not None)
        for operation in left:
            if operation.invoked < first_end:
                after = fits(operation, files)
                rest = tuple(one for one in left if one is not operation)
                if after is not None and search(rest, after):
                    return True
        return False

    return search(tuple(one for one in operations if one.outcome != "failed"), {})
