"""What replicas compute is what the release computed that recorded the history."""

import dis
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, get_args

import pytest

from actors.state import (
    accounts,
    audit,
    budget,
    namespace,
    operations,
    policy,
    policy_rows,
    quotas,
    rights,
    sessions,
    tree,
)
from actors.values import Status
from tests.actors import history

ADVICE = (
    "This version computes another result from a log than the release that recorded it, so "
    "replicas of both would diverge during an upgrade. Take the change back, or let it depend on "
    "the log (docs/decisions/0024-versions.md, 'When the rules have to change'). Record the "
    "history anew only if it was extended: no line that is there may change."
)

JOURNAL_ONLY = (
    *("restore", "restored", "take_rows", "rows", "replace", "row", "log_time_ms", "has_result"),
    *("entries", "_state_row", "list_directory", "leads_on", "may_reach", "visible"),
    *("read_row", "_is_visible", "groups_of_holder", "found_anew"),
)
"""Functions that compute nothing from the log: journals, snapshots, restored backups and reads."""


def recorded() -> list[str]:
    return history.RECORD.read_text(encoding="utf-8").splitlines()


def test_the_recorded_log_gives_what_it_gave() -> None:
    """Given the log of a former release, then this one reads and writes the same bytes, and
    computes the same outcomes, rows and hashes, slot by slot.
    """
    for line, now in zip(recorded(), history.repeated(recorded()), strict=True):
        assert now == line, ADVICE


def test_the_record_holds_the_whole_history() -> None:
    assert list(history.record()) == recorded(), "python -m tests.actors.history records it"


def test_every_status_is_in_the_record() -> None:
    text = "".join(recorded())
    assert [status for status in get_args(Status) if f'"status":"{status}"' not in text] == []


def test_the_history_runs_every_line_of_the_rules() -> None:
    """Otherwise a change of a line that it does not run would go unnoticed."""
    modules = (
        *(accounts, audit, budget, namespace, operations),
        *(policy, policy_rows, quotas, rights, sessions, tree),
    )
    wanted = {line for module in modules for line in _lines_of(module)}

    ran = _lines_run(lambda: list(history.record()), {line[0] for line in wanted})

    missing = sorted(f"{path.rpartition('/')[2]}:{line}" for path, line in wanted - ran)
    assert missing == []


def _lines_of(module: types.ModuleType) -> Iterator[tuple[str, int]]:
    """The lines of the functions of a module that compute something from the log."""
    text = inspect.getsource(module).splitlines()
    for code in _codes(compile("\n".join(text), str(module.__file__), "exec")):
        if not code.co_flags & inspect.CO_NEWLOCALS or code.co_name in JOURNAL_ONLY:
            continue
        for _, line in dis.findlinestarts(code):
            if not line or line == code.co_firstlineno:
                continue
            if "raise InvariantViolation" not in text[line - 1]:
                yield code.co_filename, line


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and constant.co_name not in JOURNAL_ONLY:
            yield from _codes(constant)


def _lines_run(work: Callable[[], object], files: set[str]) -> set[tuple[str, int]]:
    """The lines of these files that `work` runs."""
    ran: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            ran.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(former)
    return ran


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (sessions, "_EXPIRY_STEP_MS"),
        (budget, "_ENTRY_BYTES"),
        (policy_rows, "_ROW_BYTES"),
    ],
)
def test_a_changed_rule_is_noticed(
    module: types.ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, getattr(module, name) + 1)
    assert list(history.repeated(recorded())) != recorded()
