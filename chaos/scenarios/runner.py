"""Runs a scenario from the start of its cluster to its verdict, and leaves nothing behind."""

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from broker.journal_folder import PRIVATE_FOLDER, make_private
from chaos.checker import counterexample_page
from chaos.checker.history import write_events
from chaos.checker.linearizability import CheckResult
from chaos.cluster.network_namespaces import SiteNetwork, network_obstacle
from chaos.cluster.processes import ProcessFailed
from chaos.cluster.rabbitmq import BrokerFailedError
from chaos.cluster.sites import SITE_NAMES
from chaos.cluster.target import LocalTarget, Target
from chaos.scenarios import report_page
from chaos.scenarios.judgement import judge
from chaos.scenarios.report import summarize
from chaos.scenarios.scenario import Run, RunVoid, Scenario, under_load

MakeTarget = Callable[[Path, int, bool], Target]
"""Makes a target in a folder, with so many RabbitMQ nodes, and with a network of its own or not."""


async def run_scenario(
    scenario: Scenario,
    make_target: MakeTarget,
    folder: Path,
    *,
    brokers: int = 1,
    seed: int = 0,
    command: str = "",
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run it, write its report into `folder`, and return the report.

    The cluster has as many RabbitMQ nodes as the scenario needs, and at least `brokers`.

    Everything that it starts is ended, also if it is cancelled. In `folder`: `report.json`,
    `report.html`, `history.jsonl`; for a failure also the nodes' logs, and `violation.html`, the
    picture of the operations that can't be ordered.
    """
    began_s = time.monotonic()
    # Private, because the history holds what clients wrote.
    await asyncio.to_thread(make_private, folder)
    await asyncio.to_thread(folder.chmod, PRIVATE_FOLDER)
    home = Path(tempfile.mkdtemp(prefix="synod-chaos-"))
    target: Target | None = None
    try:
        result, void = None, network_obstacle() if scenario.network else ""
        target = make_target(home, max(brokers, scenario.brokers), scenario.network and not void)
        if not void:
            tell("starting the cluster")
            await target.start(scenario.first_failpoints)
        run = Run(scenario, target, seed, tell)
        if not void:
            result, void = await _run_cases(run, folder)
        seconds = time.monotonic() - began_s
        report = summarize(run, result, void=void, command=command, seconds=seconds)
        with (folder / "history.jsonl").open("w", encoding="utf-8") as to:
            write_events(run.recorder.events, to)
        (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        (folder / "report.html").write_text(report_page.render(report))
        if report["verdict"] != "passed":
            await target.logs(folder / "logs")
        return report
    finally:
        if target is not None:
            await target.stop()
        shutil.rmtree(home, ignore_errors=True)


async def _run_cases(run: Run, folder: Path) -> tuple[CheckResult | None, str]:
    """The checker's result, and why the run is void if it is."""
    reasons: list[str] = []
    result, window = None, None
    try:
        async with under_load(run):
            for case in run.scenario.cases:
                run.note(f"case {case.name}: {case.says}")
                await case.steps(run)
            run.note("the load ends")
        result, window = await judge(run)
        await run.fetch_traces()
    except* (RunVoid, BrokerFailedError, ProcessFailed) as failures:
        reasons += [str(error) for error in _leaves(failures)]
    if window is not None:
        (folder / "violation.html").write_text(
            counterexample_page.render(window, run.scenario.name)
        )
    return result, "; ".join(reasons)


def _leaves(failures: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in failures.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def only(scenario: Scenario, names: Sequence[str]) -> Scenario:
    """The scenario with some of its cases. Raises `ValueError` for a case that it does not have."""
    known = {case.name: case for case in scenario.cases}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"{scenario.name} has no case {', '.join(unknown)}; it has {', '.join(known)}"
        )
    return replace(scenario, cases=tuple(known[name] for name in known if name in names))


def local(home: Path, brokers: int = 1, network: bool = False) -> Target:
    """A cluster of processes, made for this run alone."""
    return LocalTarget(
        home / "cluster", brokers=brokers, network=SiteNetwork(SITE_NAMES) if network else None
    )


def run_until_done(
    scenario: Scenario, make_target: MakeTarget, folder: Path, **options: Any
) -> dict[str, Any]:
    """`run_scenario` from a thread without an event loop. Ctrl-C and SIGTERM end it in order."""
    with asyncio.Runner() as runner, _sigterm_as_interrupt():
        return runner.run(run_scenario(scenario, make_target, folder, **options))


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    former = {
        signal.SIGTERM: signal.signal(
            signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT)
        ),
        # A shell starts background commands with SIGINT ignored, and asyncio replaces only Python's
        # own handler.
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
