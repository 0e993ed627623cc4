"""The trial of one mutant in a throw-away copy of the tree that has the bug.

A failure counts only if a rule that the catalogue names failed, and only if the same seed (or test)
passes on a copy without the bug: else something failed, but the bug was not caught.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from chaos.mutants.catalogue import Mutant

_COPIED = (
    "actors",
    "broker",
    "gateway",
    "observability",
    "chaos",
    "synod",
    "tests",
    "pyproject.toml",
)
_ASSERTED = re.compile(r"(assert |AssertionError|Failed: DID NOT RAISE)")
_TEST_S = 240.0


@dataclass(frozen=True, slots=True)
class MutantResult:
    """The result for a mutant; it survived unless `caught`."""

    mutant: Mutant
    caught: bool
    by: str
    """The rule or test that failed, or the reason why nothing counts."""
    seeds: int
    seconds: float
    detail: str = ""
    replay: str = ""


class TrialBroken(Exception):
    """A trial did not run as it should, so it has no result."""


class Hunter:
    """Tries mutants of the tree at `root`. Safe to use from several threads."""

    def __init__(self, root: Path, seconds_per_seed: float = 90.0) -> None:
        self._root = root
        self._seconds_per_seed = seconds_per_seed
        self._guard = Lock()
        self._passes: dict[tuple[str, str], bool] = {}
        """Whether a seed of some faults, or a test, passes without the bug."""

    def hunt(self, mutant: Mutant) -> MutantResult:
        """Try it. Raises `CatalogueWrong` if it does not fit, `TrialBroken` if nothing ran."""
        began = time.perf_counter()
        with _copy(self._root) as tree:
            mutant.apply(tree)
            if mutant.test:
                more: dict[str, Any] = {}
                by, seeds = self._test(tree, mutant.test), 0
                caught = by == mutant.test
            else:
                caught, by, seeds, more = self._simulate(tree, mutant)
        if caught and not self._passes_without(mutant, more):
            caught, by = False, f"{by}, which fails without the bug, too"
        seconds = time.perf_counter() - began
        return MutantResult(
            mutant, caught, by, seeds, seconds, more.get("detail", ""), more.get("replay", "")
        )

    # -- simulation ------------------------------------------------------------------------------

    def _simulate(self, tree: Path, mutant: Mutant) -> tuple[bool, str, int, dict[str, Any]]:
        try:
            result = self._trial(tree, 0, mutant.seeds, mutant.faults)
        except subprocess.TimeoutExpired:
            return False, "nothing: it hung", mutant.seeds, {}
        by = result["invariant"]
        if by in mutant.caught_by:
            return True, by, result["seeds"], result
        return False, f"nothing that counts: {by}" if by else "nothing", result["seeds"], result

    def _trial(self, tree: Path, first: int, seeds: int, faults: str) -> dict[str, Any]:
        arguments = ["-m", "chaos.mutants.trial", str(first), str(seeds), faults]
        ended = _python(tree, arguments, seeds * self._seconds_per_seed)
        if ended.returncode:
            raise TrialBroken(ended.stderr[-2000:])
        result: dict[str, Any] = json.loads(ended.stdout)
        if Path(result["actors"]) != tree / "actors":
            raise TrialBroken(f"ran the actors of {result['actors']}, not of {tree}")
        return result

    # -- tests -----------------------------------------------------------------------------------

    def _test(self, tree: Path, test: str) -> str:
        """`test` if its own assertion failed; else a description of what happened instead."""
        options = ["-q", "-rf", "--tb=no", "-p", "no:cacheprovider", "--color=no"]
        try:
            ended = _python(tree, ["-m", "pytest", *options, test], _TEST_S)
        except subprocess.TimeoutExpired:
            return "nothing: it hung"
        if ended.returncode == 0:
            return "nothing"
        failed = [line for line in ended.stdout.splitlines() if line.startswith("FAILED ")]
        if ended.returncode != 1 or not failed:
            raise TrialBroken((ended.stdout + ended.stderr)[-2000:])
        reasons = [line.partition(" - ")[2] for line in failed]
        asserted = [reason for reason in reasons if _ASSERTED.match(reason)]
        return test if asserted else f"nothing that counts: {reasons[0]}"

    # -- the proof of the opposite ---------------------------------------------------------------

    def _passes_without(self, mutant: Mutant, result: dict[str, Any]) -> bool:
        key = ("test", mutant.test) if mutant.test else (mutant.faults, str(result["seed"]))
        with self._guard:
            if key not in self._passes:
                with _copy(self._root) as tree:
                    if mutant.test:
                        passes = self._test(tree, mutant.test) == "nothing"
                    else:
                        trial = self._trial(tree, result["seed"], 1, mutant.faults)
                        passes = not trial["invariant"]
                self._passes[key] = passes
            return self._passes[key]


def copy_tree(root: Path, tree: Path) -> None:
    """Make `tree` a copy of what the tests of `root` need."""
    tree.mkdir()
    for name in _COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, tree / name)
        else:
            shutil.copy2(source, tree / name)


@contextmanager
def _copy(root: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="synod-mutant-") as folder:
        tree = Path(folder).resolve() / "tree"
        copy_tree(root, tree)
        yield tree


def _python(tree: Path, arguments: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run Python on the copy: its folder comes before whatever is installed."""
    # A fixed terminal width keeps the reasons of failed tests on their lines, unabridged.
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "1000",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
