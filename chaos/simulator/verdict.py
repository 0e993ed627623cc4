"""The checks at the end of a run: the log, the replicas and the clients' answers agree."""

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
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.violation import Violation
from chaos.simulator.workload import LARGE_PATHS, PATHS, Acknowledged, Process, Workload
from chaos.simulator.world import World

_HISTORY_S = 240.0
"""Nearly all histories take milliseconds; one with a hundred unknown outcomes may take a minute."""
_VALUE: TypeAdapter[Any] = TypeAdapter(Value)


def check_log(world: World, log: ReferenceLog, workload: Workload) -> None:
    """`acknowledged_is_in_the_log`, `refused_never_happened`, `contents_are_whole`."""
    done = _commands(log)
    for write in workload.outcomes.acknowledged:
        _check_acknowledged(write, done)
    for machine in world.up("store"):
        for path, entry in machine.actor.state.entries.items():
            if not isinstance(entry, FileEntry):
                continue
            value = workload.value_of(entry)
            if value in workload.outcomes.refused:
                raise Violation(
                    "refused_never_happened",
                    f"{machine.name} has {value!r} at {path!r}; its writer got the answer that it "
                    "certainly did not happen",
                )
            _check_contents(machine, path, entry.content)


def _check_contents(machine: Machine, path: str, content: Chunked | Indirect) -> None:
    """`contents_are_whole`: all chunks are there and sound, and together they are the file."""
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


def check_states(world: World) -> None:
    """`namespaces_equal`, row by row.

    The hash over the log covers what each slot changed; it does not show that a copied or restored
    state is complete.
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


def _commands(log: ReferenceLog) -> dict[tuple[int, int], Any]:
    """All commands of the log that no abort names."""
    found = {}
    for slot in range(1, log.chosen_through + 1):
        row = log.chosen[slot]
        if row.startswith(b'{"kind":"batch"'):
            batch = _VALUE.validate_json(row)
            assert isinstance(batch, Batch)
            aborted = log.aborts.get(slot, ())
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


def check_history(workload: Workload, counts: Counter[str]) -> None:
    """`history_is_linearizable`, of all operations of the clients.

    `history_is_decided`: a history that the checker can't decide has not passed.
    """
    result = check(operations_of(workload.recorder.events), _HISTORY_S)
    counts[f"history {result.verdict}"] += 1
    for wrong in result.of("not linearizable"):
        window = smallest_window(wrong.component)
        operations = "; ".join(
            f"process {one.process} {one.outcome} {' '.join(map(str, one.steps))}"
            for one in window.operations
        )
        raise Violation(
            "history_is_linearizable",
            f"these operations on {', '.join(window.paths)} have no order: {operations}",
        )
    if result.verdict == "undecided":
        raise Violation(
            "history_is_decided", f"the checker has not decided within {_HISTORY_S} s of wall time"
        )


def resolve_unknown(
    world: World,
    requests: Iterable[tuple[str, str]],
    results: Mapping[tuple[str, int], tuple[str, int, int]],
) -> None:
    """`every_request_is_answered`: requests of unknown outcome have a known one in the end.

    `absent_never_happened`: no store answers `absent` for a write that is done according to
    `results`, which coordinators have sent.
    """
    tokens: dict[str, int] = {}
    for request, gateway in requests:
        session, _, sequence = request.rpartition("-")
        query = ReadRequest(number=0, what="result", session=session, sequence=int(sequence))
        tokens[request] = world.call(
            lambda token, query=query: Read(token=token, request=query),  # type: ignore[misc]
            gateway,
        )
    world.run_until(
        lambda: all(token in world.answers for token in tokens.values()),
        30_000,
        what="an answer about every unknown request",
    )
    for request, token in tokens.items():
        answer = world.answers.pop(token)
        if not isinstance(answer, ReadDone) or answer.reply.status == "running":
            raise Violation(
                "every_request_is_answered", f"{request} is not known in the end: {answer!r}"
            )
        session, _, sequence = request.rpartition("-")
        result = results.get((session, int(sequence)))
        if answer.reply.status == "absent" and result is not None and result[0] == "done":
            raise Violation(
                "absent_never_happened",
                f"{answer.store} answers that {request} never happened; it is done at {result[1:]}",
            )


def read_all(world: World, workload: Workload) -> None:
    """Read every path through every gateway, as the last part of the history."""
    for process in workload.processes[:2]:
        for path in (*PATHS, *LARGE_PATHS):
            _read_once(world, workload, process, path)


def _read_once(world: World, workload: Workload, process: Process, path: str) -> None:
    workload.read_last(process, path)
    world.run_until(
        lambda: process.busy_since_us is None, 20_000, what=f"the last read of {path!r}"
    )
