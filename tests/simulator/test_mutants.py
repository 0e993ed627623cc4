"""The catalogue of deliberate bugs fits the source, and only the named rule or test catches one."""

import ast
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from chaos.mutants.catalogue import CatalogueWrong, Mutant, load
from chaos.mutants.hunt import Hunter

ROOT = Path(__file__).parents[2]
RULES = {
    *(f"3.{n}" for n in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13)),
    *(f"4.{n}" for n in range(1, 16)),
}
SAFE = "tests/scenarios/test_safety.py::test_the_state_hash_chains"


@pytest.mark.parametrize("mutant", load(), ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_source_and_is_still_python(mutant: Mutant, tmp_path: Path) -> None:
    path = tmp_path / mutant.file
    path.parent.mkdir(parents=True)
    shutil.copy2(ROOT / mutant.file, path)
    mutant.apply(tmp_path)
    ast.parse(path.read_text(encoding="utf-8"))
    if mutant.test:
        file, _, test = mutant.test.partition("::")
        function = test.partition("[")[0]
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8")


def test_a_mutant_uses_no_name_that_is_not_defined(tmp_path: Path) -> None:
    """One that names what was renamed since fails wherever it is reached, and proves nothing."""
    for mutant in load():
        path = tmp_path / mutant.name / mutant.file
        path.parent.mkdir(parents=True)
        shutil.copy2(ROOT / mutant.file, path)
        mutant.apply(tmp_path / mutant.name)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_rule_has_two_mutants() -> None:
    counts = Counter(mutant.rule for mutant in load())
    assert {rule for rule, count in counts.items() if count >= 2} == RULES


def test_the_rules_that_catch_have_these_names() -> None:
    """A rule that no check raises would let a mutant survive for a wrong reason."""
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "chaos/simulator").glob("*.py"))
    for mutant in load():
        for name in mutant.caught_by:
            assert f'"{name}"' in source, (mutant.name, name)


def test_a_mutant_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("a = 1\na = 1\n", encoding="utf-8")
    for old in ("b = 1", "a = 1"):
        mutant = Mutant("m", "3.1", "", "file.py", old, "c = 2", ("nobody_halts",))
        with pytest.raises(CatalogueWrong, match="times, not once"):
            mutant.apply(tmp_path)


def _hash_mutant(new: str) -> Mutant:
    (known,) = [m for m in load() if m.name == "hash-does-not-chain"]
    return Mutant("m", "4.10", "", known.file, known.old, new, test=SAFE)


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_only_the_tests_own_assertion_counts() -> None:
    """Given a bug, harmless text and a crash in the same place, then only the bug is caught."""
    hunter = Hunter(ROOT)
    (known,) = [m for m in load() if m.name == "hash-does-not-chain"]
    bug = hunter.hunt(known)
    harmless = hunter.hunt(_hash_mutant(known.old + "  # nothing"))
    crash = hunter.hunt(_hash_mutant("summary = None + 1"))
    assert (bug.caught, bug.by) == (True, SAFE)
    assert (harmless.caught, harmless.by) == (False, "nothing")
    assert not crash.caught
    assert "TypeError" in crash.by


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_rule_of_the_simulator_catches_what_it_is_there_for() -> None:
    (mutant,) = [m for m in load() if m.name == "round-not-journalled"]
    result = Hunter(ROOT).hunt(mutant)
    assert (result.caught, result.by, result.seeds) == (True, "journal_before_answer", 1)
    assert result.replay.startswith("synod sim --seeds 0:1")
