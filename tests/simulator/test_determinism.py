"""The same plan is the same run, event for event, in any process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.simulator.run import Plan, run_plan

PLAN = Plan(seed=7, storm_ms=12_000, acknowledged=40)


def traced(folder: Path, hash_seed: str) -> tuple[bytes, bytes]:
    """The trace and the history of one run in a process of its own."""
    trace, history = folder / f"trace-{hash_seed}", folder / f"history-{hash_seed}"
    arguments = [*PLAN.command.split()[1:], "--trace", str(trace), "--history", str(history)]
    subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", *arguments, "--json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        check=True,
        capture_output=True,
    )
    return trace.read_bytes(), history.read_bytes()


@pytest.mark.timeout(600)
def test_two_processes_write_the_same_trace_byte_for_byte(tmp_path: Path) -> None:
    """Given other hash seeds, then the event log is the same."""
    first, second = traced(tmp_path, "1"), traced(tmp_path, "4711")
    assert len(first[0]) > 100_000
    assert first == second
    lines = [json.loads(line) for line in first[0].splitlines()]
    messages = [line for line in lines if "type" in line]
    keys = {"time_ms", "sender", "receiver", "type", "slot", "ballot", "epoch", "request"}
    assert all(keys | {"lost", "duplicated", "message"} <= line.keys() for line in messages)
    assert any(line["lost"] for line in messages), "a storm loses something"


def test_another_seed_is_another_run() -> None:
    """Given the same plan twice and another seed once, then only the digests of the first agree."""
    plan = Plan(seed=1, storm_ms=4_000, acknowledged=10)
    assert run_plan(plan).digest == run_plan(plan).digest
    assert run_plan(plan).digest != run_plan(Plan(2, storm_ms=4_000, acknowledged=10)).digest
