"""The command: what it prints and its exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.store.reads import Reads
from gateway.cli.main import run

QUICK = ["--storm-ms", "5000", "--acknowledged", "20", "--jobs", "1"]


def test_a_batch_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Given two seeds, then the JSON has the speed and what happened."""
    assert run(["sim", "--seeds", "0:2", "--json", *QUICK]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["passed"], report["runs"], report["failures"]) == (True, 2, [])
    assert report["acknowledged_least"] >= 20
    assert report["deliveries_per_s"] > 0
    assert report["simulated_s_per_s"] > 0
    assert report["happened"]["leader changes"] >= 2


def test_a_batch_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "--seeds", "5:6", "--faults", "none", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "1 runs" in printed
    assert "deliveries" in printed
    assert "no violation" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seeds", "5"],
        ["--seeds", "5:5"],
        ["--seeds", "1:2", "--faults", "earthquake"],
        ["--seeds", "1:3", "--trace", "unused"],
    ],
)
def test_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", *arguments]) == 2
    assert "Invalid value" in capsys.readouterr().err


@pytest.fixture
def broken_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_obstacle(self: Reads, read: Any) -> None:
        return None

    monkeypatch.setattr(Reads, "_obstacle", no_obstacle)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("broken_reads")
def test_a_failure_names_all_that_is_needed_to_reproduce_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Given stores that read without waiting, then the failure is printed, shrunk, and replays."""
    arguments = ["sim", "--seeds", "0:30", "--jobs", "1", "--acknowledged", "40"]
    assert run([*arguments, "--json", "--shrink"]) == 1
    (failure,) = json.loads(capsys.readouterr().out)["failures"]
    assert failure["invariant"] in ("reads_are_fresh", "reads_in_the_view", "reads_under_a_lease")
    assert failure["commit"]
    assert failure["replays"] is True
    assert failure["story"]
    replay = failure["replay"].split()
    assert replay[:2] == ["synod", "sim"]
    assert run([*replay[1:], "--jobs", "1"]) == 1
    printed = capsys.readouterr().out
    assert f"seed {failure['seed']}" in printed
    assert failure["invariant"] in printed
    assert failure["replay"] in printed


def test_a_history_is_written(tmp_path: Path) -> None:
    """Given one seed, then its history has the form that the checker reads."""
    file = tmp_path / "history.jsonl"
    assert run(["sim", "--seeds", "1:2", "--history", str(file), *QUICK]) == 0
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert {event["type"] for event in events} >= {"invoke", "ok"}
    assert {event["f"] for event in events} >= {"read", "write", "cas"}
