"""Makes a failing run smaller: shorter, with fewer incidents, fewer faults and fewer clients.

Each step changes the plan, runs it again and keeps the change if it violates the same invariant.
Incidents are left out by halves, then quarters and so on (Zeller and Hildebrandt, Simplifying and
Isolating Failure-Inducing Input, 2002).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from chaos.simulator.run import Plan, Report

Runner = Callable[[Plan], Report]


def shrink(failure: Report, run: Runner, budget_s: float = 60.0) -> Report:
    """The smallest violation of the same invariant that was found within the budget."""
    shrinking = _Shrinking(failure, run, time.monotonic() + budget_s)
    shrinking.shorten()
    shrinking.fix_faults()
    shrinking.fewer_incidents()
    shrinking.fewer_faults()
    shrinking.fewer_clients()
    shrinking.shorten()
    return shrinking.best


class _Shrinking:
    def __init__(self, failure: Report, run: Runner, end_s: float) -> None:
        self.best = failure
        self._run = run
        self._end_s = end_s

    def _fails(self, plan: Plan) -> bool:
        """Whether `plan` violates the same invariant; then it is the best so far."""
        if time.monotonic() > self._end_s or plan == self.best.plan:
            return False
        report = self._run(plan)
        if report.invariant != self.best.invariant:
            return False
        self.best = report
        return True

    def shorten(self) -> None:
        """End the storm right after the violation, if it came in the storm."""
        plan = self.best.plan
        if self.best.at_ms < plan.storm_ms:
            self._fails(replace(plan, storm_ms=self.best.at_ms + 1, acknowledged=1))
        elif plan.acknowledged > 1:
            self._fails(replace(plan, acknowledged=1))

    def fix_faults(self) -> None:
        """Name the seed's own mixture instead of `all`, so that parts of it can be left out."""
        self._fails(replace(self.best.plan, faults=self.best.faults))

    def fewer_incidents(self) -> None:
        kept = self.best.incidents
        if not self._fails(replace(self.best.plan, incidents=kept)):
            return
        size = max(1, len(kept) // 2)
        while size >= 1 and kept:
            for part in list(_parts(kept, size)):
                rest = tuple(name for name in kept if name not in part)
                if len(rest) < len(kept) and self._fails(replace(self.best.plan, incidents=rest)):
                    kept = rest
            if size == 1:
                return
            size //= 2

    def fewer_faults(self) -> None:
        for fault in self.best.plan.faults:
            rest = tuple(name for name in self.best.plan.faults if name != fault)
            self._fails(replace(self.best.plan, faults=rest))

    def fewer_clients(self) -> None:
        for processes in (1, 2, 4):
            if processes < self.best.plan.processes and self._fails(
                replace(self.best.plan, processes=processes)
            ):
                break
        if self.best.plan.gateways > 1:
            self._fails(replace(self.best.plan, gateways=1))


def _parts(names: tuple[str, ...], size: int) -> Iterator[frozenset[str]]:
    for start in range(0, len(names), size):
        yield frozenset(names[start : start + size])
