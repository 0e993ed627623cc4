"""`make mutants-survey`: make many small changes by machine, and print those that no test notices.

The catalogue holds bugs that its authors thought of; the survey looks for others. mutmut makes the
changes and runs, for each, the tests that reach the changed function. A seed selects the changes to
try, so that a survey can be repeated and ends in time. A survivor is a question, not a failure:
many changes have no effect that matters.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from chaos.mutants.hunt import copy_tree
from chaos.mutants.mutating import SHOW_ALL
from gateway.cli.console import out

_ROOT = Path(__file__).parents[2]
_ACTORS = ("tests/actors", "tests/scenarios")
_ENDPOINTS = tuple(
    f"tests/gateway/test_{name}.py"
    for name in ("cluster", "transactions", "conditional", "directories", "files", "watch")
)
_TESTS = {
    "broker/journal_blobs.py": ("tests/broker/test_journal.py",),
    "broker/codec.py": ("tests/broker/test_codec.py", "tests/broker/test_batch_text.py"),
    "broker/journal.py": ("tests/broker/test_journal.py",),
    "broker/timers.py": ("tests/broker/test_timers.py", "tests/broker/test_runtime.py"),
    "gateway/backup/take.py": ("tests/gateway/test_backup_folder.py", "tests/replication"),
    "gateway/backup/folder.py": (
        "tests/gateway/test_backup_folder.py",
        "tests/gateway/test_restore.py",
    ),
    "gateway/backup/restore.py": ("tests/gateway/test_restore.py",),
    "gateway/backup/new_cluster.py": ("tests/gateway/test_restore.py",),
}
"""The tests that may notice a change of a file, if they are not those of its package."""

_DEFAULT = tuple(
    f"actors/{name}.py"
    for name in (
        "paxos/acceptor",
        "paxos/proposer",
        "learner/chosen_log",
        "paxos/quorum",
        "learner/coordinator",
        "store/store",
        "state/namespace",
        "state/tree",
        "state/snapshots",
        "store/rejoin",
        "learner/view_change",
        "founding",
        "gateway/write_session",
        "store/reads",
    )
)
_NO_RULE = (r"self\.counters\[", r"turn\.counters\[")
"""Lines that only count events."""

_STILL = ("not checked", "skipped", "killed", "timeout", "suspicious", "segfault")
_GRACE_S = 60.0
_PREPARED_S = 1_800.0


class SurveyBroken(Exception):
    """No change could be tried: usually because a test fails without any."""


@dataclass(frozen=True, slots=True)
class MutationSurvey:
    """Files that share the tests which may notice a change, in a throw-away copy of the tree."""

    tree: Path
    files: tuple[str, ...]
    tests: tuple[str, ...]

    def prepare(self) -> list[str]:
        """Make all changes and check that the tests pass without any; the changes' names."""
        place = self.tree / "pyproject.toml"
        place.write_text(place.read_text(encoding="utf-8") + self.settings(), encoding="utf-8")
        # With a pattern that fits no change, mutmut makes all, times the tests, and gives up.
        made = self._mutmut("run", "--max-children", "1", "none.at.all*", seconds=_PREPARED_S)
        names = sorted(name for name, _ in self.results())
        if not names or not (self.tree / "mutants/mutmut-stats.json").is_file():
            raise SurveyBroken((made.stdout + made.stderr)[-4000:])
        return names

    def settings(self) -> str:
        """The lines to add to `pyproject.toml`."""
        packages = sorted({file.partition("/")[0] for file in self.files})
        settings = {
            "source_paths": packages,
            "only_mutate": self.files,
            "also_copy": sorted({path.name for path in self.tree.iterdir()} - set(packages)),
            "do_not_mutate_patterns": _NO_RULE,
            "pytest_add_cli_args": ["-p", "no:cacheprovider", "--hypothesis-seed=0"],
            "pytest_add_cli_args_test_selection": self.tests,
        }
        # JSON's list of strings is valid TOML, too.
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        return "\n".join(["", "[tool.mutmut]", *lines, ""])

    def attempt(self, names: list[str], seconds: float) -> None:
        """Try these changes; those that are not tried in time stay `not checked`."""
        with subprocess.Popen(
            self._command("run", "--max-children", "1", *names),
            cwd=self.tree,
            env=self._environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as running:
            try:
                running.wait(seconds)
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGINT)
                try:
                    running.wait(_GRACE_S)
                except subprocess.TimeoutExpired:
                    os.killpg(running.pid, signal.SIGKILL)

    def results(self) -> Iterator[tuple[str, str]]:
        """Each change and its result."""
        for line in self._mutmut("results", "--all", "true").stdout.splitlines():
            name, _, status = line.strip().partition(": ")
            if status:
                yield name, status

    def diffs(self, names: list[str]) -> dict[str, str]:
        """The lines that each change removes and adds."""
        found: dict[str, list[str]] = {}
        lines: list[str] = []
        for line in self._mutmut(*SHOW_ALL, *names).stdout.splitlines():
            if line.startswith("# "):
                lines = found.setdefault(line[2:].partition(": ")[0], [])
            elif line.startswith(("+", "-")) and not line.startswith(("+++", "---")):
                lines.append(line)
        return {name: "\n".join(lines) for name, lines in found.items()}

    def _mutmut(self, *arguments: str, seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments),
            cwd=self.tree,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "chaos.mutants.mutating", *arguments]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1"}


def main(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Such as actors/paxos/acceptor.py; usually the actors."),
    ] = None,
    minutes: Annotated[float, typer.Option(help="About how many minutes to run.")] = 20.0,
    count: Annotated[int, typer.Option(help="How many changes of each file; 0 is all.")] = 30,
    seed: Annotated[int, typer.Option(help="The seed that selects the changes.")] = 1,
) -> None:
    """Change the files in many small ways, and print the changes that no test notices."""
    ends = time.monotonic() + minutes * 60
    chosen = files or list(_DEFAULT)
    if missing := [file for file in chosen if not (_ROOT / file).is_file()]:
        raise typer.BadParameter(f"there is no {', '.join(missing)}")
    groups: dict[tuple[str, ...], list[str]] = {}
    for file in chosen:
        groups.setdefault(tests_of(file), []).append(file)
    counts: Counter[str] = Counter()
    for number, (tests, members) in enumerate(groups.items()):
        left_s = (ends - time.monotonic()) / (len(groups) - number)
        counts += _survey(tuple(members), tests, left_s, count, seed)
    out().print(_figures(counts))


def tests_of(file: str) -> tuple[str, ...]:
    """The tests that may notice a change of `file`."""
    return _TESTS.get(file, _ACTORS if file.startswith("actors/") else _ENDPOINTS)


def draw(names: list[str], count: int, seed: int) -> list[str]:
    """`count` changes of each module (0: all), the same for the same seed."""
    modules: dict[str, list[str]] = {}
    for name in names:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    chance = random.Random(seed)
    return [
        name
        for _, of_module in sorted(modules.items())
        for name in chance.sample(of_module, min(count or len(of_module), len(of_module)))
    ]


def _survey(
    files: tuple[str, ...], tests: tuple[str, ...], seconds: float, count: int, seed: int
) -> Counter[str]:
    """Survey some files for about `seconds`; the number of changes with each result."""
    ends = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="synod-survey-") as folder:
        tree = Path(folder).resolve() / "tree"
        copy_tree(_ROOT, tree)
        survey = MutationSurvey(tree, files, tests)
        drawn = set(draw(survey.prepare(), count, seed))
        survey.attempt(sorted(drawn), max(1.0, ends - time.monotonic()))
        results = {name: status for name, status in survey.results() if name in drawn}
        counts = Counter(results.values())
        out().print(f"{', '.join(files)}: {_figures(counts)}")
        alive = [name for name, status in sorted(results.items()) if status not in _STILL]
        for name, diff in survey.diffs(alive).items() if alive else ():
            out().print(f"{name}: {results[name]}\n{diff}", markup=False)
    return counts


def _figures(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))


if __name__ == "__main__":
    typer.run(main)
