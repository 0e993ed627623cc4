"""The verdict can fail: nodes with deliberate bugs, on real processes, are found out by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from chaos.runner import only, run_scenario
from chaos.scenarios import SCENARIOS
from chaos.target import LocalTarget, Target
from tests.chaos import patched

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(400)]


async def _run(folder: Path, scenario: str, case: str, bugs: Mapping[str, str]) -> dict[str, Any]:
    def make(home: Path) -> Target:
        programs = {node: (str(patched.__file__), bug) for node, bug in bugs.items()}
        return LocalTarget(home / "cluster", programs=programs)

    assert set(bugs.values()) <= set(patched.BUGS)
    return await run_scenario(only(SCENARIOS[scenario], [case]), make, folder, tell=print)


def _wrong(report: dict[str, Any]) -> set[str]:
    return {finding["name"] for finding in report["findings"] if not finding["holds"]}


async def test_a_store_that_votes_before_its_commit_is_found_out(tmp_path: Path) -> None:
    report = await _run(tmp_path, "store-crash", "granted", {"store-3": "vote_before_commit"})

    assert report["verdict"] == "failed"
    assert "the dead store's journal holds what it voted for" in _wrong(report)
    assert (tmp_path / "logs" / "store-3.log").is_file()


async def test_a_store_that_reads_without_a_lease_is_found_out(tmp_path: Path) -> None:
    report = await _run(tmp_path, "cut-off", "gateway", {"store-2": "read_without_lease"})

    assert report["verdict"] == "failed"
    assert "what clients were told is linearizable" in _wrong(report)
    assert "not linearizable" in (tmp_path / "violation.html").read_text()


@pytest.mark.parametrize(
    ("scenario", "case", "wrong"),
    [
        (
            "store-crash",
            "pending",
            "the pending transaction was aborted, and its client was told",
        ),
        ("cut-off", "store", "what clients were told is linearizable"),
    ],
)
async def test_a_coordinator_that_commits_with_two_votes_is_found_out(
    tmp_path: Path, scenario: str, case: str, wrong: str
) -> None:
    bugs = dict.fromkeys(("learner-1", "learner-2"), "commit_with_two_votes")

    report = await _run(tmp_path, scenario, case, bugs)

    assert report["verdict"] == "failed"
    assert wrong in _wrong(report)
