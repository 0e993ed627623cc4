"""The command `synod check`, its exit codes, what it prints and the picture it draws."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chaos.checker.counterexample_page import Layout, render
from chaos.checker.history import HistoryRecorder, operations_of, write_events
from chaos.checker.linearizability import check
from chaos.checker.window import Window, smallest_window
from gateway.cli.main import run
from tests.checker.histories import events_of, simulated

STALE = [
    *("1 invoke write /a 1", "1 ok", "1 invoke write /a 2", "2 invoke read /a", "2 ok 2"),
    *("3 invoke cas /a [7,8]", "2 invoke read /a", "3 info", "2 ok 1", "1 ok"),
]


def _file(folder: Path, *lines: str) -> Path:
    file = folder / "history.jsonl"
    with file.open("w", encoding="utf-8") as to:
        write_events(events_of(*lines), to)
    return file


def _window(*lines: str) -> Window:
    return smallest_window(
        check(operations_of(events_of(*lines))).of("not linearizable")[0].component
    )


def test_linearizable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _file(tmp_path, "1 invoke write /a 1", "1 ok", "2 invoke read /a", "2 ok 1")

    assert run(["check", str(file)]) == 0
    assert capsys.readouterr().out.startswith("linearizable: 2 operations (0 of unknown outcome)")
    assert list(tmp_path.iterdir()) == [file]


def test_not_linearizable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _file(tmp_path, *STALE)

    assert run(["check", str(file)]) == 1

    shown = capsys.readouterr().out
    assert "3 operations on /a have no order, whatever was there before." in shown
    rows = [re.sub(" {2,}", "  ", line).strip() for line in shown.splitlines()]
    assert "2  write /a = 2  1  lines 3–10" in rows
    assert "1  read /a → 2  2  lines 4–5" in rows
    assert "none  read /a → 1  2  lines 7–9" in rows
    assert "write /a = 1" not in shown
    assert (tmp_path / "history.html").is_file()


def test_not_linearizable_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, picture = _file(tmp_path, *STALE), tmp_path / "elsewhere.html"

    assert run(["check", str(file), "--json", "--picture", str(picture)]) == 1

    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "not linearizable"
    assert found["not_linearizable"] == [["/a"]]
    assert [one["says"] for one in found["window"]["operations"]] == [
        "write /a = 2",
        "read /a → 2",
        "read /a → 1",
    ]
    assert found["window"]["picture"] == str(picture)
    assert picture.is_file()


def test_a_picture_that_can_not_be_written_does_not_hide_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["check", str(_file(tmp_path, *STALE)), "--picture", str(tmp_path)])

    shown = capsys.readouterr()
    assert (code, "not linearizable" in shown.out) == (1, True)
    assert "the picture was not written" in shown.err


def test_undecided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(_file(tmp_path, *STALE)), "--time-limit", "0"]) == 3
    assert "not decided: /a" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["nonsense\n", '{"op": 1}\n', "\xff"])
def test_what_can_not_be_read_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    file = tmp_path / "history.jsonl"
    file.write_bytes(text.encode("latin-1"))

    assert run(["check", str(file)]) == 2
    assert run(["check", str(tmp_path / "absent")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "No such file" in shown.err


# -- the window ----------------------------------------------------------------------------------


def test_a_window_leaves_out_former_and_unrelated_operations() -> None:
    recorder = HistoryRecorder(lambda: 0)
    busy = simulated(3, operations=300, processes=5, paths=["/a"])
    client = recorder.client()
    for value in ("old", "new"):
        client.invoke("write", "/a", value)
        client.ok()
    client.invoke("read", "/a")
    client.ok("old")
    late = [event.model_copy(update={"op": event.op + 1000}) for event in recorder.events]
    late = [event.model_copy(update={"process": 1000}) for event in late]
    result = check(operations_of([*busy, *late]))

    window = smallest_window(result.of("not linearizable")[0].component)

    assert [(one.f, one.steps[0].value) for one in window.operations] == [
        ("write", "new"),
        ("read", "old"),
    ]
    assert not window.from_start


def test_a_window_that_needs_the_initial_absence_begins_at_the_start() -> None:
    window = _window("1 invoke read /a", "1 ok 7", "1 invoke write /a 8", "1 ok")

    assert window.from_start
    assert [one.f for one in window.operations] == ["read"]
    assert window.unplaced == window.operations


def test_a_window_keeps_an_unknown_write_that_was_read() -> None:
    window = _window(
        *("1 invoke write /a 1", "1 info", "2 invoke read /a", "2 ok 1"),
        *("2 invoke write /a 2", "2 ok", "2 invoke read /a", "2 ok 1"),
    )

    assert {one.f for one in window.operations} == {"read", "write"}
    assert window.operations[-1].steps[0].value == 1


# -- the picture ---------------------------------------------------------------------------------


class _Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_picture_shows_lanes_bars_and_the_longest_order() -> None:
    page = _Page(render(_window(*STALE), "<b>&"))

    kinds = [attributes.get("class") or "" for _, attributes in page.tags]
    assert kinds.count("lane") == len({"process 1", "process 2"})
    assert kinds.count("bar unplaced") == 1
    assert kinds.count("point") == 2
    assert "<b>&: not linearizable" in page.words
    assert "process 1" in page.words
    assert "read /a → 1" in page.words


def test_the_picture_is_self_contained() -> None:
    text = render(_window(*STALE), "x")

    assert "prefers-color-scheme: dark" in text
    assert not [tag for tag, _ in _Page(text).tags if tag in ("script", "link", "img", "iframe")]
    assert not re.search(r"https?:|src=|@import|url\((?!#)", text)


def test_points_stand_inside_their_bars_and_in_order() -> None:
    lines = [
        *("1 invoke write /a 1", "2 invoke write /a 2", "3 invoke read /a", "3 ok 2"),
        *("3 invoke read /a", "3 ok 1", "1 ok", "2 ok", "3 invoke read /a", "3 ok 2"),
    ]
    window = _window(*lines)
    plan = Layout(window)
    points = plan.points(window)

    assert len(points) == len(window.order) >= 3
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    for (x, _), operation in zip(points, window.order, strict=True):
        assert plan.x(operation.invoked) < x < plan.x(operation.ended)
