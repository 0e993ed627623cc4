"""A whole run: starts the stores, measures them in turn, round by round, and ends them."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiormq

from broker.addresses import split_urls
from chaos.bench.cases import CLIENTS_MAX, LoadCase, size_name
from chaos.bench.loops import StoreSession, run_load
from chaos.bench.machine import busy_cores
from chaos.bench.probes import BrokerProbe, ProbeResult, commit_times
from chaos.bench.recording import LoadResult
from chaos.bench.references import REFERENCES, BareStarlette, NotInstalled
from chaos.bench.stores import MeasuredStore
from chaos.bench.synod_stores import LocalSynod, MemorySynod, RunningSynod
from gateway.hosting import fast_event_loop
from gateway.settings import load_settings

MEMORY_BROKER = "memory://"

KEYS_MAX = 1000
"""How many files of one size there are; see `keys_of`."""

_KEYS_BYTES_MAX = 64 * 1024 * 1024
_FILLING_CLIENTS = 16
_DESCRIPTORS_SPARE = 256


class BenchFailed(RuntimeError):
    """A store or broker did not do what a measurement needs; the text says what."""


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What to measure. All times are seconds."""

    cases: Sequence[LoadCase]
    rounds: int = 3
    seconds: float = 3.0
    """How long each case of each store counts, in each round."""
    probe_s: float = 1.0
    """How long each limit is probed, in each round."""
    url: str = ""
    """A running cluster; empty for one of its own."""
    broker: str = ""
    """The broker of its own cluster, or the one to probe beside `url`; empty for a private one."""
    beside: Sequence[str] = ()
    """The names of the references in `REFERENCES` that have to run."""
    also: Sequence[str] = ()
    """Those that run if they are installed."""
    folder: Path | None = None
    """Where the data of all stores is, and what the disk's probe writes; `None`: a temporary one,
    and none of the disk beside `url`."""
    seed: int = 0

    @property
    def clients_max(self) -> int:
        """The most clients of any case."""
        return max(case.clients for case in self.cases)

    def is_bare(self, case: LoadCase) -> bool:
        """Whether a bare Starlette is measured, too: in the closed loop of the most clients."""
        alike = [
            other.clients
            for other in self.cases
            if other.rate is None and (other.mix, other.size_bytes) == (case.mix, case.size_bytes)
        ]
        return case.rate is None and case.clients == max(alike)


@dataclass(slots=True)
class BenchOutcome:
    """All results, round by round."""

    plan: BenchPlan
    stores: dict[str, str] = field(default_factory=dict)
    """What each store is, by its name; Synod is the first one."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why something was not measured."""
    broker: str = ""
    """The broker's product and version."""
    busy_before_cores: float = 0.0
    """What the machine did before anything was started."""
    busy_between_cores: list[float] = field(default_factory=list)
    """What it did at the beginning of each round, with all stores at rest."""
    results: dict[tuple[LoadCase, str], list[LoadResult]] = field(default_factory=dict)
    probes: dict[str, list[ProbeResult]] = field(default_factory=dict)
    """`commit`, `hop` and `messages`."""
    seconds: float = 0.0

    @property
    def fault(self) -> str:
        """Why the figures are no measurement of Synod; empty if they are."""
        for (case, store), rounds in self.results.items():
            if not any(one.done for one in rounds):
                what = "; ".join(sorted({text for one in rounds for text in one.problems}))
                return f"{store}: no operation was done ({case.name}, {case.clients} clients)" + (
                    f": {what}" if what else ""
                )
        return ""


class BenchProgress:
    """What a run says while it lasts. This one says nothing."""

    def expect(self, steps: int) -> None:
        """There are so many steps."""

    def step(self, text: str) -> None:
        """The next step begins."""


def run_bench(
    plan: BenchPlan, progress: BenchProgress, tell: Callable[[str], None] = lambda text: None
) -> BenchOutcome:
    """Run it all; blocks. Whatever was started has ended when it returns or raises.

    Raises `BenchFailed`, `ProcessFailed`, `BrokerFailedError`, `NotInstalled` or `SynodError`.
    """
    began_s = time.monotonic()
    outcome = BenchOutcome(plan, busy_before_cores=round(busy_cores(), 2))
    with ExitStack() as stack:
        home = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="synod-bench-", dir=plan.folder, ignore_cleanup_errors=True
                )
            )
        )
        references = list(_references(plan, home, outcome))
        progress.expect(2 + (1 + len(references)) * (2 + plan.rounds * len(plan.cases)))
        progress.step("starting Synod")
        synod = stack.enter_context(_synod(plan, home, tell))
        stores: list[MeasuredStore] = [synod]
        for reference in references:
            progress.step(f"starting {reference.name}")
            stores.append(stack.enter_context(reference))
        bare = None
        if any(map(plan.is_bare, plan.cases)):
            bare = stack.enter_context(BareStarlette(home))
        for store in (*stores, *([] if bare is None else [bare])):
            outcome.stores[store.name] = store.about
        if plan.url and plan.folder is None:
            outcome.left_out["commit"] = "the data of a running cluster is elsewhere; see --data"
        data = synod.data if isinstance(synod, LocalSynod | MemorySynod) else home
        broker = synod.broker_url if isinstance(synod, LocalSynod) else plan.broker
        run = _Run(plan, outcome, progress, stores, bare, data, broker)
        with asyncio.Runner(loop_factory=fast_event_loop) as runner:
            runner.run(run.measure())
    outcome.seconds = round(time.monotonic() - began_s, 1)
    return outcome


def _synod(
    plan: BenchPlan, home: Path, tell: Callable[[str], None]
) -> LocalSynod | MemorySynod | RunningSynod:
    if plan.url:
        return RunningSynod(plan.url, tell)
    if plan.broker == MEMORY_BROKER:
        return MemorySynod(home)
    return LocalSynod(home, plan.broker, plan.clients_max)


def _references(plan: BenchPlan, home: Path, outcome: BenchOutcome) -> Iterator[MeasuredStore]:
    """Those that are wanted and installed. Raises `NotInstalled` for one that has to run."""
    for name, kind in REFERENCES.items():
        if name in plan.beside:
            yield kind(home)
        elif name in plan.also:
            try:
                yield kind(home)
            except NotInstalled as error:
                outcome.left_out[name] = f"{error}"


class _Run:
    """The measurements of one run, in their order."""

    def __init__(
        self,
        plan: BenchPlan,
        outcome: BenchOutcome,
        progress: BenchProgress,
        stores: Sequence[MeasuredStore],
        bare: MeasuredStore | None,
        data: Path,
        broker: str,
    ) -> None:
        self._plan = plan
        self._outcome = outcome
        self._progress = progress
        self._stores = stores
        self._bare = bare
        self._data = data
        self._broker = broker

    async def measure(self) -> None:
        """All rounds."""
        try:
            for store in self._stores:
                self._progress.step(f"filling {store.name}")
                for size_bytes in sorted({case.size_bytes for case in self._plan.cases}):
                    if size_bytes <= store.value_bytes_max:
                        await self._fill(store, size_bytes)
            for number in range(1, self._plan.rounds + 1):
                await self._round(number)
        finally:
            for store in self._stores:
                await store.disconnect()

    async def _round(self, number: int) -> None:
        name = f"round {number} of {self._plan.rounds}"
        self._progress.step(f"{name}: limits")
        busy = await asyncio.to_thread(busy_cores)
        self._outcome.busy_between_cores.append(round(busy, 2))
        await self._probe()
        for case in self._plan.cases:
            stores = [*self._stores]
            if self._bare is not None and self._plan.is_bare(case):
                stores.append(self._bare)
            # Neighbours change places, so that none always follows the same one.
            for store in stores if number % 2 else reversed(stores):
                if case.size_bytes > store.value_bytes_max:
                    reason = f"takes no values of {size_name(case.size_bytes)}"
                    self._outcome.left_out[f"{store.name}, {case.name}"] = reason
                    continue
                self._progress.step(f"{name}: {store.name}, {case.name}, {case.clients} clients")
                result = await self._load(store, case, number)
                self._outcome.results.setdefault((case, store.name), []).append(result)

    async def _load(self, store: MeasuredStore, case: LoadCase, number: int) -> LoadResult:
        sessions = await store.open(case.size_bytes, case.clients)
        before = store.cpu_seconds()
        try:
            result = await run_load(
                sessions,
                case,
                keys_of(case.size_bytes),
                self._plan.seconds,
                # Contents differ from round to round: nothing that was stored is written again.
                seed=self._plan.seed + number * CLIENTS_MAX,
            )
        finally:
            close_all(sessions)
        after = store.cpu_seconds()
        if result.operations:
            result.cpu_ms = {
                kind: round((after[kind] - before.get(kind, 0.0)) * 1000 / result.operations, 4)
                for kind in after
            }
        return result

    async def _fill(self, store: MeasuredStore, size_bytes: int) -> None:
        """Write every key once, so that reads find a value and writes replace one."""
        keys = keys_of(size_bytes)
        sessions = await store.open(size_bytes, min(_FILLING_CLIENTS, len(keys)))
        left = iter(keys)
        content = bytes(size_bytes)

        async def write(session: StoreSession) -> None:
            for key in left:
                end = await session.write(key, content)
                if end.fate == "refused":
                    await asyncio.sleep(0.5)
                    end = await session.write(key, content)
                if end.fate != "done":
                    raise BenchFailed(f"{store.name} does not take a first value: {end.problem}")

        try:
            async with asyncio.TaskGroup() as group:
                for session in sessions:
                    group.create_task(write(session))
        except* BenchFailed as failures:
            raise failures.exceptions[0] from None
        finally:
            close_all(sessions)

    async def _probe(self) -> None:
        seconds, probes = self._plan.probe_s, self._outcome.probes
        if "commit" not in self._outcome.left_out:
            commits = await asyncio.to_thread(commit_times, self._data, seconds)
            probes.setdefault("commit", []).append(commits)
        if not self._broker or self._broker == MEMORY_BROKER:
            reason = "there is none" if self._broker else "not known; see --broker"
            self._outcome.left_out["hop"] = self._outcome.left_out["messages"] = reason
            return
        try:
            probe = await BrokerProbe.open(split_urls(self._broker)[0], load_settings().broker_tls)
            try:
                self._outcome.broker = probe.server
                probes.setdefault("hop", []).append(await probe.hops(seconds))
                probes.setdefault("messages", []).append(await probe.throughput(seconds))
            finally:
                await probe.close()
        except (OSError, TimeoutError, aiormq.AMQPError) as error:
            raise BenchFailed(f"the broker can't be measured: {error!r}") from error


def close_all(sessions: Sequence[StoreSession]) -> None:
    """Close all of them."""
    for session in sessions:
        session.close()


def keys_of(size_bytes: int) -> list[str]:
    """The keys of values of one size: many, but not more than take a little space."""
    count = max(2, min(KEYS_MAX, _KEYS_BYTES_MAX // size_bytes))
    return [f"{size_bytes}/{number:04d}" for number in range(count)]
