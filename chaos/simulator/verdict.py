"""What is judged once, when all is calm: the log, the replicas and the clients' answers agree."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter

from actors.calls import Read, ReadDone
from actors.messages import ReadRequest
from actors.store.chunks import read_manifest
from actors.values import Batch, Chunked, FileEntry, Indirect, Value
from chaos.checker.history import operations_of
from chaos.checker.linearizability import check
from chaos.checker.window import smallest_window
from chaos.simulator.machine import Machine
from chaos.simulator.truth import Truth
from chaos.simulator.violation import Violation
from chaos.simulator.workload import LARGE_PATHS, PATHS, Acknowledged, Process, Workload
from chaos.simulator.world import World

_HISTORY_S = 240.0
"""Nearly all take milliseconds; one with a hundred unknown outcomes may take a minute."""
_VALUE: TypeAdapter[Any] = TypeAdapter(Value)


def judge_log(world: World, truth: Truth, workload: Workload) -> None:
    """`acknowledged_is_in_the_log`, `refused_never_happened`, `contents_are_whole`."""
    done = _commands(truth)
    for write in workload.told.acknowledged:
        _check_acknowledged(write, done)
    for machine in world.up("store"):
        for path, entry in machine.actor.state.entries.items():
            if not isinstance(entry, FileEntry):
                continue
            value = workload.value_of(entry)
            if value in workload.told.refused:
                raise Violation(
                    "refused_never_happened",
                    f"{machine.name} has {value!r} at {path!r}; its writer was told that it "
                    "certainly did not happen",
                )
            _check_contents(machine, path, entry.content)


def _check_contents(machine: Machine, path: str, content: Chunked | Indirect) -> None:
    """Every chunk is there and sound, and all together they are what was written."""
    disk = machine.disk

    def chunk(name: str) -> bytes:
        if name not in disk.blobs or name in disk.rotten_blobs:
            raise Violation("contents_are_whole", f"{machine.name} lacks {name} of {path!r}")
        return disk.blobs[name]

    if isinstance(content, Indirect):
        manifest = read_manifest(chunk(content.manifest))
        names = manifest.names if manifest is not None else ()
    else:
        names = content.chunks
    whole = b"".join(map(chunk, names))
    if (len(whole), hashlib.sha256(whole).hexdigest()) != (content.size, content.sha256):
        raise Violation("contents_are_whole", f"{machine.name} has {len(whole)} B for {path!r}")


def judge_states(world: World) -> None:
    """`namespaces_equal`, of every row: the hash that is chained over the log says what each slot
    has changed, but not whether a copied or restored state is all that these changes made.
    """
    first, *others = world.up("store", "learner")
    expected = _rows(first)
    for machine in others:
        rows = _rows(machine)
        wrong = sorted(k for k in expected.keys() | rows.keys() if expected.get(k) != rows.get(k))
        if wrong:
            raise Violation(
                "namespaces_equal",
                f"in the end {machine.name} has {rows.get(wrong[0])!r} under {wrong[0]!r}, and "
                f"{first.name} has {expected.get(wrong[0])!r}; {len(wrong)} rows differ",
            )


def _rows(machine: Machine) -> dict[str, bytes]:
    return {key: row.to_json() for key, row in machine.actor.state.rows()}


def _commands(truth: Truth) -> dict[tuple[int, int], Any]:
    """All commands of the log that no abort has given up."""
    found = {}
    for slot in range(1, truth.chosen_through + 1):
        row = truth.chosen[slot]
        if row.startswith(b'{"kind":"batch"'):
            batch = _VALUE.validate_json(row)
            assert isinstance(batch, Batch)
            aborted = truth.aborts.get(slot, ())
            for index, command in enumerate(batch.commands):
                if index not in aborted:
                    found[(slot, index)] = command
    return found


def _check_acknowledged(write: Acknowledged, done: dict[tuple[int, int], Any]) -> None:
    command = done.get((write.slot, write.index))
    if command is None or command.operation != write.operation:
        raise Violation(
            "acknowledged_is_in_the_log",
            f"{write.request} was acknowledged in slot {write.slot}, index {write.index}, where "
            f"the log has {command!r}",
        )


def judge_history(workload: Workload, counts: Counter[str]) -> None:
    """`history_is_linearizable`: all that the clients were told fits one order.

    `history_is_decided`: what could not be decided has not passed.
    """
    result = check(operations_of(workload.recorder.events), _HISTORY_S)
    counts[f"history {result.verdict}"] += 1
    for wrong in result.of("not linearizable"):
        window = smallest_window(wrong.component)
        told = "; ".join(
            f"process {one.process} {one.outcome} {' '.join(map(str, one.steps))}"
            for one in window.operations
        )
        raise Violation(
            "history_is_linearizable",
            f"no order explains what happened to {', '.join(window.paths)}: {told}",
        )
    if result.verdict == "undecided":
        raise Violation(
            "history_is_decided", f"the checker could not tell within {_HISTORY_S} s of wall time"
        )


def ask_unknown(
    world: World,
    requests: Iterable[tuple[str, str]],
    told: Mapping[tuple[str, int], tuple[str, int, int]],
) -> None:
    """`every_request_is_answered`: also those that were unknown are known in the end.

    `absent_never_happened`: of `told`, the results of coordinators, none is a write that was done.
    """
    asked: dict[str, int] = {}
    for request, gateway in requests:
        session, _, sequence = request.rpartition("-")
        question = ReadRequest(number=0, what="result", session=session, sequence=int(sequence))
        asked[request] = world.call(
            lambda token, question=question: Read(token=token, request=question),  # type: ignore[misc]
            gateway,
        )
    world.run_until(
        lambda: all(token in world.answers for token in asked.values()),
        30_000,
        what="an answer about every unknown request",
    )
    for request, token in asked.items():
        answer = world.answers.pop(token)
        if not isinstance(answer, ReadDone) or answer.reply.status == "running":
            raise Violation(
                "every_request_is_answered", f"{request} is not known in the end: {answer!r}"
            )
        session, _, sequence = request.rpartition("-")
        result = told.get((session, int(sequence)))
        if answer.reply.status == "absent" and result is not None and result[0] == "done":
            raise Violation(
                "absent_never_happened",
                f"{answer.store} says that {request} never happened; it was done at {result[1:]}",
            )


def read_all(world: World, workload: Workload) -> None:
    """Every path once more through every gateway, as the last part of the history."""
    for process in workload.processes[:2]:
        for path in (*PATHS, *LARGE_PATHS):
            _read_once(world, workload, process, path)


def _read_once(world: World, workload: Workload, process: Process, path: str) -> None:
    workload.read_last(process, path)
    world.run_until(
        lambda: process.busy_since_us is None, 20_000, what=f"the last read of {path!r}"
    )
