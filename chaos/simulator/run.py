"""One run: founding, storm, calm, verdict. It depends on nothing but its `Plan`."""

import gc
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.options import Options
from chaos.simulator.accounts import AccountClients
from chaos.simulator.audit import AuditReader, is_copied
from chaos.simulator.fault_injector import FaultInjector
from chaos.simulator.faults import (
    FaultScript,
    draw_fault_script,
    draw_options,
    renewals_arrive,
    shape_of_seed,
)
from chaos.simulator.invariants import Invariants
from chaos.simulator.large_files import LargeFiles
from chaos.simulator.quotas import QuotaClient
from chaos.simulator.random_streams import random_stream
from chaos.simulator.recoveries import Recoveries
from chaos.simulator.rights import TokenClients
from chaos.simulator.schedule import US_PER_MS
from chaos.simulator.service_check import ServiceCheck
from chaos.simulator.trace import TraceSink
from chaos.simulator.verdict import (
    check_history,
    check_log,
    check_states,
    read_all,
    resolve_unknown,
)
from chaos.simulator.violation import Violation
from chaos.simulator.workload import Workload
from chaos.simulator.world import World

STORM_MS = 60_000
ACKNOWLEDGED_LEAST = 300
_CALM_MS_MAX = 240_000
_HEALS_MS = 20_000
"""How long a gateway may serve nothing once the cluster is whole: its calls may be backing off."""
_SERVES_MS = 10_000
"""How long the service check of a gateway may take once all is healed."""
_RESTARTED_MS = 5_000
"""From so long after the storm on, every renewal of a chunk's time arrives soon enough."""
_NEVER_US = 1 << 62
_RECOVERIES = 2
"""How many times in a storm a recovery from the disks is checked."""
_SMALL_PER_LARGE = 4
"""So many clients with small files are there for each one with large files."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run depends on. `incidents` names the incidents that happen; `None`: all."""

    seed: int
    faults: tuple[str, ...] = ("all",)
    storm_ms: int = STORM_MS
    processes: int = 8
    gateways: int = 2
    acknowledged: int = ACKNOWLEDGED_LEAST
    """The clients go on in the calm until so many operations are acknowledged."""
    incidents: tuple[str, ...] | None = None

    @property
    def command(self) -> str:
        """The command line that repeats this run."""
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
    """The result of a run."""

    plan: Plan
    faults: tuple[str, ...]
    invariant: str = ""
    """The invariant that was violated; empty if none was."""
    detail: str = ""
    at_ms: int = 0
    """When it was violated, or when the run ended; in simulated time."""
    simulated_ms: int = 0
    core_s: float = 0.0
    """The processor time of the run."""
    deliveries: int = 0
    acknowledged: int = 0
    elections: int = 0
    digest: str = ""
    """A hash over the whole run: two runs of the same plan have the same one."""
    counters: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    incidents: tuple[str, ...] = ()
    """The names of the incidents that happened."""

    @property
    def passed(self) -> bool:
        """Whether no invariant was violated."""
        return not self.invariant


class Simulation:
    """One run and its parts."""

    def __init__(
        self, plan: Plan, trace: TraceSink | None = None, options: Options | None = None
    ) -> None:
        self.plan = plan

        def stream(name: str) -> random.Random:
            return random_stream(plan.seed, name)

        self.shape = shape_of_seed(plan.faults, stream)
        self.options = options or draw_options(plan.faults, stream)
        self.invariants = Invariants()
        self.world = World(plan.seed, self.options, plan.gateways, self.invariants, trace)
        self.script: FaultScript = draw_fault_script(
            plan.faults, self.world.names, plan.storm_ms, self.world.stream
        )
        keep = None if plan.incidents is None else frozenset(plan.incidents)
        self.fault_injector = FaultInjector(self.world, self.script, self.invariants.log, keep)
        self.workload = Workload(self.world, plan.processes, plan.gateways)
        self.large_files = LargeFiles(
            self.world,
            self.workload,
            self.invariants.log,
            max(1, plan.processes // _SMALL_PER_LARGE),
            self.script.pause_ms_max,
        )
        self.token_clients = TokenClients(self.world, self.workload)
        AuditReader(self.world, self.workload)
        QuotaClient(self.world, self.workload)
        self.account_clients = AccountClients(self.world, self.workload)
        self.recoveries = Recoveries(self.world, self.invariants.log, self.invariants.commit)
        if "slow-clients" in self.script.faults and not renewals_arrive(self.script.faults):
            self.large_files.checked_from_us = _NEVER_US
        self.invariants.on_chunk = self.large_files.chunk_changed

    def run(self) -> Report:
        """Run to the end, or to the first violation."""
        report = Report(plan=self.plan, faults=self.script.faults)
        collecting = gc.isenabled()
        gc.disable()
        began = time.process_time()
        try:
            self._simulate()
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

    # -- the phases ------------------------------------------------------------------------------

    def _simulate(self) -> None:
        world, workload = self.world, self.workload
        if self.script.from_the_start:
            self.fault_injector.begin()
            world.start()
        else:
            self.fault_injector.begin_conditions()
            world.start()
            for number in range(1, self.plan.gateways + 1):
                world.ready(f"gateway-{number}")
            self.fault_injector.begin()
        workload.begin()
        began_us = world.now_us
        for part in range(1, _RECOVERIES + 1):
            world.schedule.run_to_us(
                began_us + self.plan.storm_ms * US_PER_MS * part // _RECOVERIES
            )
            self.recoveries.check()
        self._check_patience()
        self.fault_injector.end()
        restarted_us = world.now_us + _RESTARTED_MS * US_PER_MS
        large_files = self.large_files
        large_files.checked_from_us = min(large_files.checked_from_us, restarted_us)
        self._calm()

    def _calm(self) -> None:
        """Check liveness after healing, then the log, the replicas and the history."""
        world, workload = self.world, self.workload
        healing = self._begin_service_check("while it heals")
        self._wait(
            lambda: workload.acknowledged >= self.plan.acknowledged,
            _CALM_MS_MAX,
            "progress_after_healing",
            f"{self.plan.acknowledged} acknowledged operations",
        )
        workload.stop()
        patience_ms = 60_000 + 4 * self.script.pause_ms_max
        self._wait(lambda: workload.idle, patience_ms, "every_request_is_answered", "all answers")
        self._wait_until_healed()
        self._wait_for(healing, _HEALS_MS)
        self._wait_for(self._begin_service_check("healed"), _SERVES_MS)
        resolve_unknown(world, workload.outcomes.unknown, self.invariants.commit.results)
        read_all(world, workload)
        self._wait_until_healed()
        check_log(world, self.invariants.log, workload)
        check_states(world)
        self._wait(lambda: is_copied(world), 60_000, "audit_is_got_back", "whole audit")
        self.invariants.audit.check(world, self.invariants.log)
        self.invariants.quotas.check(world, self.invariants.log)
        done = [*self.token_clients.done, *self.account_clients.done]
        self.invariants.rights.check(self.invariants.log, done)
        check_history(workload, workload.counts)

    def _wait_until_healed(self) -> None:
        self._wait(self._is_up, 120_000, "settled_after_healing", "every process running")
        settled = self.world.is_settled
        self._wait(settled, 60_000, "settled_after_healing", "equal replicas, no doubt")
        replaced = self.fault_injector.replacements.are_over
        self._wait(replaced, 120_000, "changes_end_after_healing", "end of a change of acceptors")
        changed = self.fault_injector.operator.are_over
        self._wait(changed, 120_000, "changes_end_after_healing", "end of a change of members")
        whole = self.fault_injector.disk_faults.is_whole
        self._wait(whole, 120_000, "whole_after_healing", "view of all stores, all of them whole")
        self._wait(self._is_idle, 60_000, "settled_after_healing", "gateway without pending ones")
        self._wait(settled, 60_000, "settled_after_healing", "equal replicas, no doubt")

    def _begin_service_check(self, name: str) -> ServiceCheck:
        check = ServiceCheck(self.world, self.workload)
        check.begin(name, self.plan.gateways)
        return check

    def _wait_for(self, check: ServiceCheck, within_ms: int) -> None:
        end_us = self.world.now_us + within_ms * US_PER_MS
        while not check.is_done and self.world.now_us < end_us:
            self.world.run(50)
        check.raise_if_unfinished()

    def _is_up(self) -> bool:
        return all(machine.is_up for machine in self.world.machines.values())

    def _is_idle(self) -> bool:
        return not any(machine.actor.writes.unresolved for machine in self.world.up("gateway"))

    def _wait(
        self, condition: Callable[[], bool], within_ms: int, invariant: str, what: str
    ) -> None:
        end_us = self.world.now_us + within_ms * US_PER_MS
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
        report.counters = self.invariants.total(machines)
        disk_faults = self.fault_injector.disk_faults
        report.counters.update(disk_faults.counters)
        report.counters.update(self.recoveries.counters)
        report.counters.update(self.fault_injector.replacements.counters)
        report.counters.update(self.fault_injector.operator.counters)
        report.counters["disk.newcomers_joined"] += disk_faults.newcomers()
        report.counters[f"shape.{self.shape.name}"] += 1
        report.counters["broker.blocked"] += world.network.blocked_publications
        report.elections = report.counters["proposer.led"]
        report.operations = Counter(self.workload.counts)
        report.incidents = tuple(self.fault_injector.happened)
        digest = hashlib.blake2b(digest_size=12)
        for event in self.workload.recorder.events:
            digest.update(event.line().encode())
        for machine in machines:
            digest.update(f"{machine.name} {machine.disk.commits} {machine.serial}".encode())
        digest.update(f"{world.now_us} {report.deliveries} {world.rng.random()}".encode())
        report.digest = digest.hexdigest()


def run_plan(plan: Plan, trace: TraceSink | None = None) -> Report:
    """Run one plan."""
    return Simulation(plan, trace).run()


def _where(error: Exception) -> str:
    """The error, and the innermost lines of its traceback."""
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return f"{error!r} at {' < '.join(reversed(frames[-4:]))}"
