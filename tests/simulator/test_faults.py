"""Every fault alone, in short storms: each does what its name says, and violates nothing."""

import random
from dataclasses import replace

import pytest

from chaos.simulator.faults import ALL, INCIDENTS, draw_fault_script, parse_faults
from chaos.simulator.run import Plan, Simulation

SHORT = Plan(seed=3, storm_ms=15_000, acknowledged=60)


@pytest.mark.parametrize("fault", ALL)
def test_one_fault_alone_violates_nothing(fault: str) -> None:
    """Given one kind of fault, then nothing is violated and the incidents came to pass."""
    simulation = Simulation(replace(SHORT, faults=(fault,)))
    report = simulation.run()
    assert report.passed, f"{report.plan.command}\n{report.invariant}: {report.detail}"
    assert report.acknowledged >= 60
    assert bool(report.incidents) == (fault in INCIDENTS)


def test_without_faults_nothing_happens() -> None:
    """Given no fault, then the leader never changes and nothing is aborted."""
    report = Simulation(replace(SHORT, faults=())).run()
    assert report.passed, report.detail
    assert report.elections == 1
    assert (report.counters["learner.aborted"], report.counters["learner.views"]) == (0, 0)


def test_leaving_a_fault_out_leaves_the_others_as_they_are() -> None:
    """Given a storm with and without one fault, then the incidents of the others are the same."""

    def stream(name: str) -> random.Random:
        return random.Random(f"9/{name}")

    names = ("acceptor-1", "store-1", "store-2")
    whole = draw_fault_script(ALL, names, 60_000, stream)
    rest = draw_fault_script(tuple(f for f in ALL if f != "crash"), names, 60_000, stream)
    assert [i for i in whole.incidents if i.fault != "crash"] == list(rest.incidents)
    assert any(i.fault == "crash" for i in whole.incidents)


@pytest.mark.parametrize("text", ["crsh", "loss,,nope", ""])
def test_a_fault_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no such fault"):
        parse_faults(text)


def test_lists_of_faults() -> None:
    assert parse_faults("all") == ("all",)
    assert parse_faults("none") == ()
    assert parse_faults("loss, crash,loss") == ("loss", "crash")


def test_no_fault_acts_after_the_storm() -> None:
    """Given a coordinator that is to die in its next commit, and a storm that ends before that,
    then every process runs in the calm.
    """
    plan = Plan(seed=21, storm_ms=4_000, acknowledged=40, faults=("half-told", "usurper"))
    report = Simulation(plan).run()
    assert report.passed, f"{report.invariant}: {report.detail}"
    assert any(name.startswith("half-told") for name in report.incidents)
