"""The threat table of `docs/security.md` is true: it is complete, and each test it names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/security.md"
COLUMNS = ["who", "wants", "what stops it", "shown by"]
ROWS_MIN = 20
_NAMED = re.compile(r"`(?P<file>tests/[\w./]+\.py|…)(?:::(?P<test>\w+))?`")


def rows(text: str) -> list[list[str]]:
    """The cells of each row of all tables with these columns."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells == COLUMNS:
            inside = True
        elif inside and not re.fullmatch(r"[|\-: ]+", line):
            found.append(cells)
    return found


def named(cell: str) -> list[tuple[str, str]]:
    """The files and tests of a cell; `…` stands for the file before."""
    found: list[tuple[str, str]] = []
    for match in _NAMED.finditer(cell):
        file = found[-1][0] if match["file"] == "…" and found else match["file"]
        found.append((file, match["test"] or ""))
    return found


def names_in(path: Path) -> set[str]:
    """The names of a file's tests."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
    }


def missing(text: str) -> list[str]:
    """What is wrong with the table, a line each."""
    wrong = []
    for cells in rows(text):
        if len(cells) != len(COLUMNS) or not all(cells):
            wrong.append(f"not {len(COLUMNS)} cells: {cells}")
            continue
        tests = named(cells[3])
        if not tests or _NAMED.sub("", cells[3]).strip(" ,;"):
            wrong.append(f"names something else than tests: {cells[3]}")
        for file, test in tests:
            path = ROOT / file
            if not path.is_file():
                wrong.append(f"no such file: {file}")
            elif test and test not in names_in(path):
                wrong.append(f"no such test: {file}::{test}")
    return wrong


def test_each_threat_names_tests_that_exist() -> None:
    text = DOCUMENT.read_text()
    assert missing(text) == []
    assert len(rows(text)) >= ROWS_MIN
    whole = [tuple(cells) for cells in rows(text)]
    assert len(whole) == len(set(whole))


@pytest.mark.parametrize(
    "row",
    [
        "| a | b | c | `tests/house/test_threats.py::test_that_is_not_there` |",
        "| a | b | c | `tests/house/test_none.py` |",
        "| a | b | c | `tests/house/test_threats.py::rows` |",
        "| a | b | c | `tests/house/test_threats.py`, `…::test_none` |",
        "| a | b | c | some day |",
        "| a | b | c | `tests/house/test_threats.py` and more |",
        "| a | b | c |  |",
        "| a | b | `tests/house/test_threats.py` |",
    ],
)
def test_a_row_that_shows_nothing_is_found(row: str) -> None:
    head = "| who | wants | what stops it | shown by |\n|---|---|---|---|\n"
    good = "| a | b | c | `tests/house/test_threats.py::test_a_row_that_shows_nothing_is_found` |\n"
    assert missing(head + good) == []
    assert len(missing(head + good + row)) == 1
