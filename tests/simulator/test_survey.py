"""The survey finds changes that no test notices, and prints them."""

import tomllib
from pathlib import Path

import libcst as cst
import pytest

from chaos.mutants import mutating, survey
from chaos.mutants.survey import MutationSurvey, SurveyBroken

ROOT = Path(__file__).parents[2]


def test_every_file_and_test_that_a_survey_names_exists() -> None:
    named = [*survey._DEFAULT, *survey._TESTS, *survey._ACTORS, *survey._ENDPOINTS]
    named += [test for tests in survey._TESTS.values() for test in tests]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_settings_are_those_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "actors").mkdir()
    (tmp_path / "tests").mkdir()

    made = MutationSurvey(
        tmp_path, ("actors/state/tree.py", "actors/store/reads.py"), ("tests/actors",)
    ).settings()

    settings = tomllib.loads(made)["tool"]["mutmut"]
    assert settings["source_paths"] == ["actors"]
    assert settings["only_mutate"] == ["actors/state/tree.py", "actors/store/reads.py"]
    assert settings["also_copy"] == ["tests"]
    assert settings["do_not_mutate_patterns"] == list(survey._NO_RULE)
    assert settings["pytest_add_cli_args_test_selection"] == ["tests/actors"]


def test_a_seed_draws_the_same_changes_of_each_file() -> None:
    names = sorted(f"actors.{name}.x_f__mutmut_{n}" for name in ("a", "b") for n in range(50))
    drawn = survey.draw(names, 7, seed=3)
    assert drawn == survey.draw(names, 7, seed=3) != survey.draw(names, 7, seed=4)
    assert [sum(f".{name}." in one for one in set(drawn)) for name in ("a", "b")] == [7, 7]
    assert sorted(survey.draw(names, 0, seed=3)) == sorted(survey.draw(names, 60, seed=3)) == names


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        (mutating.left_out, "f(1)", ["pass"]),
        (mutating.left_out, "await f(1)", ["pass"]),
        (mutating.left_out, "'a docstring'", []),
        (mutating.not_raised, "raise KeyError", ["pass"]),
        (mutating.forced, "if a:\n    f()\n", ["if True:\n    f()\n", "if False:\n    f()\n"]),
    ],
)
def test_the_kinds_of_change_that_are_added(kind: object, before: str, after: list[str]) -> None:
    statement = cst.parse_module(before).body[0]
    node = statement if isinstance(statement, cst.If) else statement.body[0]  # type: ignore[index]
    changed = kind(node)  # type: ignore[operator]
    assert [cst.Module([]).code_for_node(one) for one in changed] == after


def tiny(folder: Path, test: str) -> MutationSurvey:
    """A tree with one function and one test."""
    for name, text in (
        ("actors/__init__.py", ""),
        ("actors/sign.py", "def is_positive(n):\n    return n > 0\n"),
        ("tests/actors/test_sign.py", f"from actors.sign import is_positive\n\n{test}"),
        ("pyproject.toml", '[tool.pytest.ini_options]\naddopts = ["--import-mode=importlib"]\n'),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return MutationSurvey(folder, ("actors/sign.py",), ("tests/actors",))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_change_that_no_test_notices_survives_and_is_printed(tmp_path: Path) -> None:
    test = "def test_sign():\n    assert is_positive(1)\n    assert not is_positive(-1)\n"
    looked = tiny(tmp_path, test)
    names = looked.prepare()

    looked.attempt(names, 120)

    status = dict(looked.results())
    found = {diff: status[name] for name, diff in looked.diffs(names).items()}
    assert found == {
        "-    return n > 0\n+    return n >= 0": "survived",
        "-    return n > 0\n+    return n > 1": "killed",
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_test_that_fails_without_any_change_ends_a_survey(tmp_path: Path) -> None:
    looked = tiny(tmp_path, "def test_sign():\n    assert is_positive(-1)\n")
    with pytest.raises(SurveyBroken, match="test_sign"):
        looked.prepare()
