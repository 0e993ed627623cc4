"""One run: founding, storm, calm, verdict. What a `Plan` says is all that it depends on."""

import gc
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.options import Options
from chaos.simulator.fault_injector import Weather
from chaos.simulator.faults import (
    Storm,
    draw_options,
    draw_storm,
    renewals_arrive,
    shape_of_seed,
)
from chaos.simulator.interfaces import Trace
from chaos.simulator.invariants import Judge
from chaos.simulator.large_files import LargeFiles
from chaos.simulator.service_check import Service
from chaos.simulator.verdict import (
    ask_unknown,
    judge_history,
    judge_log,
    judge_states,
    read_all,
)
from chaos.simulator.violation import Violation
from chaos.simulator.workload import Workload
from chaos.simulator.world import US, World, stream_of

STORM_MS = 60_000
ACKNOWLEDGED_LEAST = 300
_CALM_MS_MAX = 240_000
_HEALS_MS = 20_000
"""How long a gateway may be of no use once the cluster is whole; it has its patience to lose."""
_SERVES_MS = 10_000
"""How long all that a gateway is asked for may take when nothing is wrong any more."""
_RESTARTED_MS = 5_000
"""From so long after the storm on every renewal of what is kept is heard in time."""
_NEVER_US = 1 << 62
_USUAL_CLIENTS_EACH = 4
"""So many clients with small files are there for each one with large files."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides a run. `incidents` keeps only those of the storm's incidents."""

    seed: int
    faults: tuple[str, ...] = ("all",)
    storm_ms: int = STORM_MS
    processes: int = 8
    gateways: int = 2
    acknowledged: int = ACKNOWLEDGED_LEAST
    """The calm part goes on until so many operations were acknowledged."""
    incidents: tuple[str, ...] | None = None

    @property
    def command(self) -> str:
        """The command line that runs just this again."""
        parts = [f"synod sim --seeds {self.seed}:{self.seed + 1}"]
        parts.append(f"--faults {','.join(self.faults) or 'none'}")
        usual = Plan(self.seed)
        if self.storm_ms != usual.storm_ms:
            parts.append(f"--storm-ms {self.storm_ms}")
        if self.processes != usual.processes:
            parts.append(f"--processes {self.processes}")
        if self.gateways != usual.gateways:
            parts.append(f"--gateways {self.gateways}")
        if self.acknowledged != usual.acknowledged:
            parts.append(f"--acknowledged {self.acknowledged}")
        if self.incidents is not None:
            parts.append(f"--incidents {','.join(self.incidents) or 'none'}")
        return " ".join(parts)


@dataclass(slots=True)
class Report:
    """What came of a run."""

    plan: Plan
    faults: tuple[str, ...]
    invariant: str = ""
    """The rule that was broken; empty if none was."""
    detail: str = ""
    at_ms: int = 0
    """When it was broken, or when the run ended; in simulated time."""
    simulated_ms: int = 0
    core_s: float = 0.0
    """How long one core was busy with it."""
    deliveries: int = 0
    acknowledged: int = 0
    elections: int = 0
    digest: str = ""
    """Of all that happened: two runs of the same plan have the same."""
    counters: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    incidents: tuple[str, ...] = ()
    """The names of the incidents that came to pass."""

    @property
    def passed(self) -> bool:
        """Whether no rule was broken."""
        return not self.invariant


class Simulation:
    """One run, with its parts to look at."""

    def __init__(
        self, plan: Plan, trace: Trace | None = None, options: Options | None = None
    ) -> None:
        self.plan = plan

        def stream(name: str) -> random.Random:
            return stream_of(plan.seed, name)

        self.shape = shape_of_seed(plan.faults, stream)
        self.options = options or draw_options(plan.faults, stream)
        self.judge = Judge(self.options.acceptors)
        self.world = World(plan.seed, self.options, plan.gateways, self.judge, trace)
        self.storm: Storm = draw_storm(
            plan.faults, self.world.names, plan.storm_ms, self.world.stream
        )
        keep = None if plan.incidents is None else frozenset(plan.incidents)
        self.weather = Weather(self.world, self.storm, self.judge.truth, keep)
        self.workload = Workload(self.world, plan.processes, plan.gateways)
        self.large_files = LargeFiles(
            self.world,
            self.workload,
            self.judge.truth,
            max(1, plan.processes // _USUAL_CLIENTS_EACH),
            self.storm.pause_ms_max,
        )
        if "slow-clients" in self.storm.faults and not renewals_arrive(self.storm.faults):
            self.large_files.judged_from_us = _NEVER_US
        self.judge.on_chunk = self.large_files.chunk_changed

    def run(self) -> Report:
        """Run to the end, or to the first violation."""
        report = Report(plan=self.plan, faults=self.storm.faults)
        collecting = gc.isenabled()
        gc.disable()
        began = time.process_time()
        try:
            self._live()
        except Violation as violation:
            report.invariant, report.detail = violation.invariant, violation.detail
        except Exception as error:
            report.invariant = "no_crash_of_an_actor"
            report.detail = _where(error)
        finally:
            report.core_s = time.process_time() - began
            if collecting:
                gc.enable()
        self._fill_in(report)
        return report

    # -- the parts -------------------------------------------------------------------------------

    def _live(self) -> None:
        world, workload = self.world, self.workload
        if self.storm.from_the_start:
            self.weather.begin()
            world.start()
        else:
            self.weather.begin_conditions()
            world.start()
            for number in range(1, self.plan.gateways + 1):
                world.ready(f"gateway-{number}")
            self.weather.begin()
        workload.begin()
        began_us = world.now_us
        world.run_to_us(began_us + self.plan.storm_ms * US)
        self._check_patience()
        self.weather.end()
        judged_us = self.large_files.judged_from_us
        self.large_files.judged_from_us = min(judged_us, world.now_us + _RESTARTED_MS * US)
        self._calm()

    def _calm(self) -> None:
        """Liveness after healing, then the verdict over all that was told."""
        world, workload = self.world, self.workload
        service = self._serve("while it heals")
        self._wait(
            lambda: workload.acknowledged >= self.plan.acknowledged,
            _CALM_MS_MAX,
            "progress_after_healing",
            f"{self.plan.acknowledged} acknowledged operations",
        )
        workload.stop()
        patience_ms = 60_000 + 4 * self.storm.pause_ms_max
        self._wait(lambda: workload.idle, patience_ms, "every_request_is_answered", "all answers")
        self._wait_until_healed()
        self._wait_for(service, _HEALS_MS)
        self._wait_for(self._serve("healed"), _SERVES_MS)
        ask_unknown(world, workload.told.unknown, self.judge.commit.results)
        read_all(world, workload)
        self._wait_until_healed()
        judge_log(world, self.judge.truth, workload)
        judge_states(world)
        judge_history(workload, workload.counts)

    def _wait_until_healed(self) -> None:
        settled = self.world.is_settled
        self._wait(settled, 60_000, "settled_after_healing", "equal replicas, no doubt")
        whole = self.weather.damage.is_whole
        self._wait(whole, 120_000, "whole_after_healing", "view of all stores, all of them whole")
        self._wait(self._is_idle, 60_000, "settled_after_healing", "gateway without pending ones")
        self._wait(settled, 60_000, "settled_after_healing", "equal replicas, no doubt")

    def _serve(self, name: str) -> Service:
        service = Service(self.world, self.workload)
        service.begin(name, self.plan.gateways)
        return service

    def _wait_for(self, service: Service, within_ms: int) -> None:
        end_us = self.world.now_us + within_ms * US
        while not service.is_done and self.world.now_us < end_us:
            self.world.run(50)
        service.check()

    def _is_idle(self) -> bool:
        return not any(machine.actor.writes.unresolved for machine in self.world.up("gateway"))

    def _wait(
        self, condition: Callable[[], bool], within_ms: int, invariant: str, what: str
    ) -> None:
        end_us = self.world.now_us + within_ms * US
        while not condition():
            if self.world.now_us > end_us:
                raise Violation(invariant, f"no {what} within {within_ms} ms of calm")
            self.world.run(50)
            self._check_patience()

    def _check_patience(self) -> None:
        overdue = self.workload.overdue()
        if overdue:
            waiting = ", ".join(f"process {p.number} ({p.doing})" for p in overdue)
            raise Violation("every_request_is_answered", f"still waiting: {waiting}")

    # -- the report ------------------------------------------------------------------------------

    def _fill_in(self, report: Report) -> None:
        world = self.world
        machines = list(world.machines.values())
        report.at_ms = report.simulated_ms = world.now
        report.deliveries = world.network.deliveries
        report.acknowledged = self.workload.acknowledged
        report.counters = self.judge.total(machines)
        damage = self.weather.damage
        report.counters.update(damage.counters)
        report.counters["disk.newcomers_joined"] += damage.newcomers()
        report.counters[f"shape.{self.shape.name}"] += 1
        report.counters["broker.blocked"] += world.network.blocked_publications
        report.elections = report.counters["proposer.led"]
        report.operations = Counter(self.workload.counts)
        report.incidents = tuple(self.weather.happened)
        digest = hashlib.blake2b(digest_size=12)
        for event in self.workload.recorder.events:
            digest.update(event.line().encode())
        for machine in machines:
            digest.update(f"{machine.name} {machine.disk.commits} {machine.serial}".encode())
        digest.update(f"{world.now_us} {report.deliveries} {world.chances.random()}".encode())
        report.digest = digest.hexdigest()


def run_plan(plan: Plan, trace: Trace | None = None) -> Report:
    """Run one plan."""
    return Simulation(plan, trace).run()


def _where(error: Exception) -> str:
    """The error and the innermost lines that it came from."""
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return f"{error!r} at {' < '.join(reversed(frames[-4:]))}"
