"""Many seeds on several cores, and whether they covered what a batch must cover."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from chaos.simulator.cluster_shapes import SHAPES
from chaos.simulator.run import Plan, Report, run_plan

ELECTIONS_LEAST = 2
ELECTIONS_SHARE_LEAST = 0.9


@dataclass(frozen=True, slots=True)
class CoverageGoal:
    """Something that must happen at least once in a batch, else the batch is vacuous.

    `counters` are named by role and name, as the actors count them. The goal applies to batches of
    at least `per_seeds` seeds with all faults.
    """

    name: str
    counters: tuple[str, ...]
    per_seeds: int = 20

    def count(self, counters: Counter[str]) -> int:
        """How often it has happened."""
        return sum(counters[name] for name in self.counters)


COVERAGE_GOALS = (
    CoverageGoal("leader changes", ("proposer.led",), 5),
    CoverageGoal("leaders that stepped down", ("proposer.stepped_down",)),
    CoverageGoal("gaps filled", ("proposer.gaps_filled",), 200),
    CoverageGoal("promises of several pages", ("proposer.promise_pages",)),
    CoverageGoal("retransmissions", ("proposer.retransmissions",)),
    CoverageGoal("aborts", ("learner.aborted",)),
    CoverageGoal("view changes", ("learner.views",)),
    CoverageGoal("stores dropped", ("learner.stores_dropped",)),
    CoverageGoal("stores added again", ("learner.stores_added",)),
    CoverageGoal("takeovers by another learner", ("learner.takeovers_proposed",)),
    CoverageGoal("in-doubt slots resolved", ("learner.in_doubt_resolved",)),
    CoverageGoal("undecided results recovered", ("recoveries.open_results",)),
    CoverageGoal("values of former epochs refused", ("learner.void_by_epoch",)),
    CoverageGoal("fenced coordinators", ("store.fenced",)),
    CoverageGoal(
        "snapshots installed", ("learner.snapshots_installed", "store.snapshots_installed"), 20
    ),
    CoverageGoal(
        "snapshots of several pages", ("learner.snapshot_pages", "store.snapshot_pages"), 60
    ),
    CoverageGoal("disks lost", ("disk.lost",), 20),
    CoverageGoal("newcomers joined", ("disk.newcomers_joined",), 20),
    CoverageGoal("acceptors replaced", ("acceptors.replaced",), 20),
    CoverageGoal("votes and proposals that are no batch", ("learner.unreadable",), 5),
    CoverageGoal("members added", ("members.add done",), 20),
    CoverageGoal("members removed", ("members.remove done",), 20),
    CoverageGoal("proposers on empty disks", ("members.proposers_replaced",), 20),
    *(
        CoverageGoal(f"{role}s switched off", (f"members.switched_off {role}",), 100)
        for role in ("proposer", "acceptor", "learner", "store")
    ),
    CoverageGoal("removed disks that came back", ("members.ghosts",), 100),
    CoverageGoal("turns without room", ("disk.waited_for_room",)),
    CoverageGoal("rotten blobs found", ("store.chunks_rotten",)),
    CoverageGoal("rotten rows rewritten", ("store.rows_rotten", "learner.rows_rotten")),
    CoverageGoal("rotten disks refused", ("disk.refused",), 60),
    CoverageGoal("snapshots disturbed", ("disk.copies_disturbed",), 100),
    CoverageGoal("reads refused", ("store.reads_refused",)),
    CoverageGoal("former incarnations refused", ("learner.dropped_former_incarnation",), 60),
    CoverageGoal("unknown outcomes", ("gateway.unknown",)),
    CoverageGoal("publications that the broker did not take", ("broker.blocked",)),
    CoverageGoal("unused chunks asked to be kept", ("store.chunks_kept",)),
    CoverageGoal("unused chunks deleted", ("store.chunks_deleted",)),
    CoverageGoal("commands of tokens applied", ("rights.tokens_commands_allowed",), 5),
    CoverageGoal("commands of tokens refused", ("rights.tokens_commands_refused",), 5),
    CoverageGoal("reads of tokens served", ("rights.tokens_reads_allowed",), 5),
    CoverageGoal("reads of tokens refused", ("rights.tokens_reads_refused",), 5),
    CoverageGoal("commands of users applied", ("rights.users_commands_allowed",), 5),
    CoverageGoal("commands of users refused", ("rights.users_commands_refused",), 5),
    CoverageGoal("reads of users served", ("rights.users_reads_allowed",), 5),
    CoverageGoal("reads of users refused", ("rights.users_reads_refused",), 5),
    CoverageGoal("logins by a secret in force", ("rights.logins_allowed",), 5),
    CoverageGoal("logins by a former secret", ("rights.logins_refused",), 20),
    CoverageGoal("records of the audit sent", ("audit.records_sent",), 5),
    CoverageGoal("records of the audit that a learner got back", ("learner.audit_gaps_filled",)),
    CoverageGoal("slots judged by quotas", ("quotas.judged",), 5),
    CoverageGoal("commands refused by quotas", ("quotas.refused",), 5),
    CoverageGoal("changed settings refused", ("settings.refused",)),
    CoverageGoal("changed settings tolerated", ("settings.borne",)),
    *(
        CoverageGoal(f"clusters of the shape {shape.name!r}", (f"shape.{shape.name}",), 250)
        for shape in SHAPES
    ),
)


@dataclass(slots=True)
class Summary:
    """All runs of a batch together."""

    runs: int = 0
    failures: list[Report] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    deliveries: int = 0
    simulated_ms: int = 0
    simulated_ms_least: int = 0
    acknowledged: int = 0
    acknowledged_least: int = 0
    with_elections: int = 0
    """Runs with two or more elections."""
    core_s: float = 0.0
    """The processor time of all runs."""
    wall_s: float = 0.0

    def add(self, report: Report) -> None:
        """Count one run."""
        first = self.runs == 0
        self.runs += 1
        self.counters.update(report.counters)
        self.operations.update(report.operations)
        self.deliveries += report.deliveries
        self.simulated_ms += report.simulated_ms
        self.core_s += report.core_s
        self.acknowledged += report.acknowledged
        if not report.passed:
            self.failures.append(report)
            return
        least = report.simulated_ms if first else self.simulated_ms_least
        self.simulated_ms_least = min(least, report.simulated_ms)
        least = report.acknowledged if first else self.acknowledged_least
        self.acknowledged_least = min(least, report.acknowledged)
        self.with_elections += report.elections >= ELECTIONS_LEAST

    def vacuous(self) -> list[str]:
        """The coverage goals that the batch should have met and has not."""
        missing = [
            f"{goal.name} never happened in {self.runs} runs"
            for goal in COVERAGE_GOALS
            if self.runs >= goal.per_seeds and not goal.count(self.counters)
        ]
        passed = self.runs - len(self.failures)
        if self.runs >= 20 and self.with_elections < passed * ELECTIONS_SHARE_LEAST:
            missing.append(
                f"only {self.with_elections} of {passed} runs had {ELECTIONS_LEAST} elections"
            )
        return missing

    @property
    def deliveries_per_s(self) -> float:
        """Message deliveries in a second of one core."""
        return self.deliveries / self.core_s if self.core_s else 0.0

    @property
    def simulated_per_s(self) -> float:
        """Simulated seconds in a second of one core."""
        return self.simulated_ms / 1000 / self.core_s if self.core_s else 0.0


def run_batch(
    plans: Iterable[Plan],
    jobs: int,
    each: Callable[[Report], None] = lambda report: None,
    failures_max: int = 1,
) -> Summary:
    """Run the plans, and report them in order; stop after `failures_max` failures."""
    summary = Summary()
    began = time.perf_counter()
    for report in _reports(plans, jobs):
        summary.add(report)
        each(report)
        if len(summary.failures) >= failures_max:
            break
    summary.wall_s = time.perf_counter() - began
    return summary


def _reports(plans: Iterable[Plan], jobs: int) -> Iterator[Report]:
    if jobs <= 1:
        yield from map(run_plan, plans)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(run_plan, plans, chunksize=1)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
