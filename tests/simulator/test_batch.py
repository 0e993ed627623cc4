"""The batch that every change must pass: fixed seeds, and new ones from the commit's hash."""

import hashlib
import os

import pytest

from chaos.cli.sim import commit
from chaos.simulator.batch import COVERAGE_GOALS, Summary, run_batch
from chaos.simulator.run import Plan

FIXED = range(25)
FRESH = 25


def fresh_seeds() -> range:
    """Seeds that no other commit has."""
    digest = hashlib.sha256(commit().encode()).digest()
    first = int.from_bytes(digest[:5], "big")
    return range(first, first + FRESH)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seeds", [FIXED, fresh_seeds()], ids=["fixed", "fresh"])
def test_seeds_with_all_faults(seeds: range) -> None:
    """Given storms of all faults, then nothing is violated and the batch is not vacuous."""
    summary = run_batch([Plan(seed) for seed in seeds], jobs=os.cpu_count() or 1)
    failures = [f"{r.plan.command}\n{r.invariant}: {r.detail}" for r in summary.failures]
    assert not failures, "\n".join(failures)
    assert summary.vacuous() == []
    assert summary.acknowledged_least >= 300
    assert summary.simulated_ms_least >= 60_000


def test_a_batch_in_which_nothing_happens_is_vacuous() -> None:
    """Given many runs without an incident, then the summary names what never happened."""
    summary = Summary(runs=500, with_elections=500)
    assert len(summary.vacuous()) == len(COVERAGE_GOALS)
    for goal in COVERAGE_GOALS:
        summary.counters[goal.counters[0]] = 1
    assert summary.vacuous() == []
    summary.with_elections = 449
    assert summary.vacuous() == ["only 449 of 500 runs had 2 elections"]
    assert Summary(runs=3).vacuous() == [], "three runs prove nothing"
