"""The scenarios happen as their files record; `--regenerate-scenarios` writes these anew."""

import difflib
import inspect
from pathlib import Path

import pytest

from tests.scenarios.stories import STORIES

_HERE = Path(__file__).parent


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str, request: pytest.FixtureRequest) -> None:
    story = STORIES[name]
    path = _HERE / f"{name}.txt"
    title = " ".join((inspect.getdoc(story) or "").split())
    text = f"# {title}\n\n{story().text}"
    if request.config.getoption("--regenerate-scenarios"):
        path.write_text(text, encoding="utf-8")
        return
    expected = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text != expected:
        lines = difflib.unified_diff(
            expected.splitlines(), text.splitlines(), path.name, "what happened", lineterm=""
        )
        pytest.fail("another exchange of messages:\n" + "\n".join(lines), pytrace=False)


def test_every_file_has_its_story() -> None:
    assert {path.stem for path in _HERE.glob("*.txt")} == set(STORIES)
