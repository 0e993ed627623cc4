"""The history format: what is written can be read, and an error names its line."""

import io
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from chaos.checker.history import (
    HistoryError,
    HistoryRecorder,
    PathStep,
    load_history,
    operations_of,
    read_events,
    write_events,
)


def _line(**fields: Any) -> str:
    return json.dumps({"op": 1, "process": 1, "f": "write", "path": "/a", "time_ns": 0} | fields)


def test_what_is_recorded_can_be_read_again() -> None:
    clock = count(100)
    written = io.StringIO()
    recorder = HistoryRecorder(lambda: next(clock), written)
    one, two = recorder.client(), recorder.client()

    one.invoke("write", "/é", "x")
    two.invoke("read", "/é")
    one.ok()
    two.ok("x")
    one.invoke("txn", None, [["read", "/é", None], ["write", "/b", 2]])
    one.ok([["read", "/é", "x"], ["write", "/b", 2]])
    two.invoke("cas", "/b", [1, 2])
    two.fail()
    one.invoke("delete", "/b")
    one.unknown("504")
    one.invoke("read", "/b")
    one.ok(None)

    assert list(read_events(io.StringIO(written.getvalue()))) == recorder.events
    operations = operations_of(recorder.events)
    assert [(one.process, one.f, one.outcome) for one in operations] == [
        (1, "write", "ok"),
        (2, "read", "ok"),
        (1, "txn", "ok"),
        (2, "cas", "refused"),
        (1, "delete", "unknown"),
        (3, "read", "ok"),
    ]
    assert operations[2].steps == (PathStep("read", "/é", "x"), PathStep("write", "/b", 2))
    assert operations[3].steps == (PathStep("cas", "/b", 2, expected=1),)
    assert (operations[4].ended, operations[4].ended_ns) == (None, None)
    assert (operations[5].invoked, operations[5].ended, operations[5].invoked_ns) == (10, 11, 110)


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    recorder = HistoryRecorder(lambda: 5)
    client = recorder.client()
    client.invoke("write", "/a", {"any": ["json", None, 1.5]})
    client.fail({"status": 503})
    file = tmp_path / "history.jsonl"

    with file.open("w", encoding="utf-8") as to:
        write_events(recorder.events, to)
        to.write("\n\n")

    assert load_history(file) == recorder.events
    [operation] = operations_of(recorder.events)
    assert operation.outcome == "failed"


def test_a_recorder_refuses_what_a_process_can_not_do() -> None:
    recorder = HistoryRecorder(lambda: 0)
    client = recorder.client()

    with pytest.raises(HistoryError, match="no operation of this client is under way"):
        client.ok()
    with pytest.raises(HistoryError, match="is not a list of steps"):
        client.invoke("txn", None, 5)
    assert recorder.events == []
    client.invoke("txn", None, [["read", "/a", None]])
    with pytest.raises(HistoryError, match="operation 2 of this client has not ended"):
        client.invoke("read", "/a")
    with pytest.raises(HistoryError, match=r"began with .* and ends with"):
        client.ok([["read", "/b", 1]])
    assert len(recorder.events) == 1


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["{"], "line 1: Invalid JSON"),
        (["[]"], "line 1: Input should be an object"),
        ([_line(type="invoke"), "", _line(type="ok")], "line 2 is blank"),
        ([_line()], "line 1: type: Field required"),
        ([_line(type="begin")], "line 1: type: Input should be 'invoke', 'ok', 'fail' or 'info'"),
        ([_line(type="invoke", op="7")], "line 1: op: Input should be a valid integer"),
        ([_line(type="invoke", f="append")], "line 1: f: Input should be"),
        ([_line(type="invoke", path=None)], "line 1: operation 1 has no path"),
        ([_line(type="invoke", f="cas", value=5)], r"line 1: .* is not \[expected, new\]"),
        ([_line(type="invoke", f="txn", value=[])], "line 1: .* is not a list of steps"),
        ([_line(type="invoke", f="txn", value=[["move", "/a", 1]])], "line 1: .* a step is"),
        ([_line(type="invoke", f="txn", value=[["cas", "/a", 1]])], "line 1: .* is not"),
        ([_line(type="ok")], "line 1: operation 1 of process 1 was never invoked"),
        (
            [_line(type="invoke"), _line(type="ok"), _line(type="fail")],
            "line 3: operation 1 of process 1 has ended already",
        ),
        ([_line(type="invoke"), _line(type="ok", process=2)], "line 2: .* process 2 has ended"),
        (
            [_line(type="invoke"), _line(type="invoke", op=2)],
            "line 2: process 1 invokes operation 2 while its operation 1 is under way",
        ),
        (
            [_line(type="invoke"), _line(type="invoke", process=2)],
            "line 2: operation 1 was invoked before",
        ),
        (
            [_line(type="invoke"), _line(type="info"), _line(type="invoke", op=2)],
            "line 3: process 1 goes on after an unknown outcome",
        ),
        ([_line(type="invoke"), _line(type="ok", f="read")], "line 2: .* ends as read"),
        ([_line(type="invoke"), _line(type="ok", path="/b")], "line 2: .* ends on /b"),
        (
            [_line(type="invoke", value=1), _line(type="ok", value=2)],
            "line 2: operation 1 began with 1 and ends with 2",
        ),
        (
            [_line(type="invoke", f="read"), _line(type="ok", f="read")],
            "line 2: the ok of read 1 has no value",
        ),
    ],
)
def test_an_error_names_its_line(lines: list[str], says: str) -> None:
    with pytest.raises(HistoryError, match=says):
        operations_of(read_events(lines))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(HistoryError, match="is not UTF-8"):
        load_history(file)
