"""Random histories: the checker against one that tries every order, and its speed on long ones."""

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from chaos.checker.history import Event, RecordedOperation, operations_of
from chaos.checker.linearizability import check
from chaos.checker.window import smallest_window
from tests.checker.histories import events_of, linearizable_by_force, simulated

SMALL = st.sampled_from([None, 1, 2])


@st.composite
def any_operations(draw: st.DrawFn) -> list[RecordedOperation]:
    """A few operations at arbitrary times with arbitrary outcomes."""
    count = draw(st.integers(1, 6))
    times = draw(st.permutations(range(2 * count)))
    operations = []
    for number in range(count):
        begun, ended = sorted(times[2 * number : 2 * number + 2])
        f = draw(st.sampled_from(["read", "write", "cas", "delete", "txn"]))
        kinds = ["ok", "ok", "info", "fail"]
        kind = draw(st.sampled_from(kinds))
        fields: dict[str, Any] = {"op": number, "process": number, "f": f, "path": "/a"}
        if f == "txn":
            fields["value"] = [_step(draw, path) for path in draw(st.permutations(["/a", "/b"]))]
        elif f == "cas":
            fields["value"] = [draw(SMALL), draw(SMALL)]
        else:
            fields["path"] = draw(st.sampled_from(["/a", "/b"]))
            fields["value"] = None if f == "delete" else draw(SMALL)
        events = [
            Event.model_validate({**fields, "type": kind_, "time_ns": at})
            for kind_, at in (("invoke", begun), (kind, ended))
        ]
        [operation] = operations_of(events)
        known = operation.ended is not None
        operations.append(replace(operation, invoked=begun, ended=ended if known else None))
    return sorted(operations, key=lambda operation: operation.invoked)


def _step(draw: st.DrawFn, path: str) -> list[Any]:
    action = draw(st.sampled_from(["read", "write", "cas", "delete"]))
    if action == "cas":
        return [action, path, [draw(SMALL), draw(SMALL)]]
    return [action, path, None if action == "delete" else draw(SMALL)]


@given(any_operations())
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_same_verdict_as_trying_every_order(operations: list[RecordedOperation]) -> None:
    expected = "linearizable" if linearizable_by_force(operations) else "not linearizable"
    event(expected)

    result = check(operations)

    assert result.verdict == expected
    for one in result.components:
        if one.verdict == "linearizable":
            placed = {operation.op for operation in one.order}
            assert {o.op for o in one.component.operations if o.ended is not None} <= placed
        else:
            window = smallest_window(one.component)
            assert not linearizable_by_force(window.operations) or not window.from_start
            assert window.unplaced


@given(
    seed=st.integers(0, 2**32),
    values=st.sampled_from([None, 2, 3]),
    unknown_part=st.sampled_from([0.0, 0.2, 0.5]),
    txn_part=st.sampled_from([0.0, 0.4, 0.9]),
    swap=st.tuples(st.integers(0, 200), st.integers(0, 200)),
)
@settings(max_examples=400, deadline=None)
def test_a_real_register_passes_and_swapped_reads_get_the_same_verdict_as_by_force(
    seed: int,
    values: int | None,
    unknown_part: float,
    txn_part: float,
    swap: tuple[int, int],
) -> None:
    events = simulated(
        seed,
        operations=8,
        processes=3,
        paths=["/a", "/b", "/c"],
        values=values,
        unknown_part=unknown_part,
        txn_part=txn_part,
    )
    operations = operations_of(events)
    assert check(operations).verdict == "linearizable"

    reads = [i for i, one in enumerate(operations) if one.f == "read" and one.outcome == "ok"]
    if len(reads) < 2:
        return
    first, second = (operations[reads[at % len(reads)]] for at in swap)
    mixed = [
        replace(one, steps=second.steps)
        if one is first
        else (replace(one, steps=first.steps) if one is second else one)
        for one in operations
    ]
    expected = "linearizable" if linearizable_by_force(mixed) else "not linearizable"
    event(expected)
    assert check(mixed).verdict == expected


pytestmark = pytest.mark.timeout(300)

MANY = {"operations": 10_000, "processes": 10, "paths": [f"/{number}" for number in range(100)]}
ONE_PATH = {"operations": 2_000, "processes": 10, "paths": ["/a"]}

LONG: dict[str, dict[str, Any]] = {
    "10,000 over 100 paths": MANY,
    "10,000 over 100 paths, tied by moves": MANY | {"txn_part": 0.1},
    "2,000 on one path": ONE_PATH,
    "2,000 on one path, five values": ONE_PATH | {"values": 5},
    "2,000 on one path, long overlaps": ONE_PATH | {"values": 5, "pause_part": 0.1},
    "2,000 on one path, many unknown": ONE_PATH | {"unknown_part": 0.05},
}


@pytest.mark.parametrize("stale", [False, True], ids=["as it was", "one stale read"])
@pytest.mark.parametrize("name", LONG)
def test_long_histories_take_less_than_ten_seconds(name: str, stale: bool) -> None:
    operations = operations_of(simulated(7, **LONG[name]))
    if stale:
        operations = _with_stale_read(operations)
    began_s = time.process_time()

    result = check(operations)

    assert result.verdict == ("not linearizable" if stale else "linearizable")
    assert time.process_time() - began_s < 10


def _with_stale_read(operations: list[RecordedOperation]) -> list[RecordedOperation]:
    """Let a late read return a value that was deleted before all other operations began."""
    reads = [i for i, one in enumerate(operations) if one.f == "read" and one.outcome == "ok"]
    late = reads[len(reads) * 9 // 10]
    path = operations[late].steps[0].path
    first = operations_of(
        events_of(f'0 invoke write {path} "old"', "0 ok", f"0 invoke delete {path}", "0 ok")
    )
    later = [
        replace(one, invoked=one.invoked + 4, ended=None if one.ended is None else one.ended + 4)
        for one in operations
    ]
    later[late] = replace(later[late], steps=(later[late].steps[0]._replace(value="old"),))
    return [*first, *later]
