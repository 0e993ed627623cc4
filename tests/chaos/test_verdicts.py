"""The verdict can fail: nodes with deliberate bugs, on real processes, are found by the rule."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from chaos.cluster.target import LocalTarget, Target
from chaos.scenarios import catalogue
from chaos.scenarios.runner import run_scenario
from chaos.scenarios.scenario import Scenario
from tests.chaos import patched
from tests.chaos.cases import together
from tests.long import only_long

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(400)]


async def _run(folder: Path, scenario: Scenario, bugs: Mapping[str, str]) -> dict[str, Any]:
    def make(home: Path, brokers: int, network: bool) -> Target:
        programs = {node: (str(patched.__file__), bug) for node, bug in bugs.items()}
        return LocalTarget(home / "cluster", brokers=brokers, programs=programs)

    assert set(bugs.values()) <= set(patched.BUGS)
    return await run_scenario(scenario, make, folder, tell=print)


def _wrong(report: dict[str, Any]) -> set[str]:
    return {finding["name"] for finding in report["findings"] if not finding["holds"]}


@only_long
async def test_stores_that_vote_too_early_or_read_without_a_lease_are_found_out(
    tmp_path: Path,
) -> None:
    """Two bugs in two stores. The early vote loses nothing while two other stores hold the write,
    so only the reads make the history wrong.
    """
    bugs = {"store-3": "vote_before_commit", "store-2": "read_without_lease"}

    report = await _run(
        tmp_path, together(("store-crash", "granted"), ("cut-off", "gateway")), bugs
    )

    assert (report["verdict"], report["void"]) == ("failed", "")
    assert "the dead store's journal holds what it voted for" in _wrong(report)
    assert "the clients' history is linearizable" in _wrong(report)
    assert "not linearizable" in (tmp_path / "violation.html").read_text()
    assert (tmp_path / "logs" / "store-3.log").is_file()
    assert (tmp_path / "logs" / "rabbitmq.log").is_file()


@only_long
async def test_a_coordinator_that_commits_with_two_votes_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It never aborts a pending write, so more attempts would not help.
    monkeypatch.setattr(catalogue, "ATTEMPTS", 1)
    bugs = dict.fromkeys(("learner-1", "learner-2"), "commit_with_two_votes")

    report = await _run(tmp_path, together(("store-crash", "pending"), ("cut-off", "store")), bugs)

    assert (report["verdict"], report["void"]) == ("failed", "")
    assert {
        "the pending transaction was aborted, and its client was notified",
        "the clients' history is linearizable",
    } <= _wrong(report)
