"""The command `synod sim`."""

import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from chaos.simulator.batch import COVERAGE_GOALS, Summary, run_batch
from chaos.simulator.faults import KNOWN, parse_faults
from chaos.simulator.run import ACKNOWLEDGED_LEAST, STORM_MS, Plan, Report, run_plan
from chaos.simulator.shrink import shrink
from chaos.simulator.trace import RecentEvents, TraceWriter
from gateway.cli.console import note, out, print_json

_FAILED = 1


def register(cli: typer.Typer) -> None:
    """Add the command; the entry point of the group `synod.commands`."""
    cli.command("sim")(sim)


def sim(
    seeds: Annotated[str, typer.Option(metavar="A:B", help="Seeds from A to B, without B.")],
    faults: Annotated[
        str,
        typer.Option(
            metavar="all|none|LIST", help=f"LIST: separated by commas, of {', '.join(KNOWN)}."
        ),
    ] = "all",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Write every message of the one seed as JSON lines.")
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="Write the history of the one seed's clients.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Processes to use; one for each core by default.")
    ] = None,
    shrinks: Annotated[
        bool, typer.Option("--shrink", help="Make a failing run smaller before it is printed.")
    ] = False,
    storm_ms: Annotated[
        int, typer.Option(help="How long faults are injected, in simulated milliseconds.")
    ] = STORM_MS,
    processes: Annotated[int, typer.Option(help="How many clients work at once.")] = 8,
    gateways: Annotated[int, typer.Option(help="How many gateways they use.")] = 2,
    acknowledged: Annotated[
        int, typer.Option(help="Go on in the calm until so many operations are acknowledged.")
    ] = ACKNOWLEDGED_LEAST,
    incidents: Annotated[
        str | None, typer.Option(metavar="LIST", help="Inject only these of the storm's incidents.")
    ] = None,
) -> None:
    """Run the whole cluster on virtual time, with faults drawn from each seed, and judge it."""
    first, last = _seeds(seeds)
    try:
        names = parse_faults(faults)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--faults") from None
    keep = None if incidents is None else tuple(n for n in incidents.split(",") if n != "none")
    plans = [
        Plan(seed, names, storm_ms, processes, gateways, acknowledged, keep)
        for seed in range(first, last)
    ]
    if trace is not None or history is not None:
        if len(plans) != 1:
            raise typer.BadParameter("one seed only, such as 7:8", param_hint="--trace, --history")
        _write_files(plans[0], trace, history)
    summary = _run(plans, jobs or os.cpu_count() or 1, quiet=json)
    failures = [_describe(report, shrinks) for report in summary.failures]
    vacuous = summary.vacuous() if names == ("all",) and not failures else []
    if json:
        print_json(_as_json(summary, failures, vacuous))
    else:
        _print(summary, failures, vacuous)
    if failures or vacuous:
        raise typer.Exit(_FAILED)


def _seeds(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise typer.BadParameter("two numbers A:B with A < B, such as 0:100", param_hint="--seeds")
    return int(first), int(last)


def _run(plans: list[Plan], jobs: int, quiet: bool) -> Summary:
    jobs = min(jobs, len(plans))
    if quiet or len(plans) == 1:
        return run_batch(plans, jobs)
    with Progress(transient=True) as progress:
        task = progress.add_task("Simulating", total=len(plans))
        return run_batch(plans, jobs, lambda report: progress.advance(task))


def _write_files(plan: Plan, trace: Path | None, history: Path | None) -> None:
    from chaos.checker.history import write_events
    from chaos.simulator.run import Simulation

    if trace is not None:
        with trace.open("w", encoding="utf-8") as file:
            Simulation(plan, TraceWriter(file)).run()
        note(f"wrote {trace}")
    if history is not None:
        simulation = Simulation(plan)
        simulation.run()
        with history.open("w", encoding="utf-8") as file:
            write_events(simulation.workload.recorder.events, file)
        note(f"wrote {history}")


# -- failures -------------------------------------------------------------------------------------


def _describe(report: Report, shrinks: bool) -> dict[str, Any]:
    """A failure with its last events; shrunk first with `--shrink`."""
    if shrinks:
        report = shrink(report, run_plan)
    recent = RecentEvents()
    again = run_plan(report.plan, recent)
    return {
        "seed": report.plan.seed,
        "commit": commit(),
        "invariant": report.invariant,
        "detail": report.detail,
        "time_ms": report.at_ms,
        "faults": list(report.faults),
        "incidents": list(report.incidents),
        "story": recent.lines(),
        "replay": report.plan.command,
        "replays": (again.invariant, again.digest) == (report.invariant, report.digest),
    }


def commit() -> str:
    """The commit of the source tree; `unknown` outside a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return answer.stdout.strip() or "unknown"


# -- printing -------------------------------------------------------------------------------------


def _as_json(
    summary: Summary, failures: list[dict[str, Any]], vacuous: list[str]
) -> dict[str, Any]:
    return {
        "passed": not failures and not vacuous,
        "runs": summary.runs,
        "failures": failures,
        "vacuous": vacuous,
        "deliveries": summary.deliveries,
        "deliveries_per_s": round(summary.deliveries_per_s),
        "simulated_s": round(summary.simulated_ms / 1000, 1),
        "simulated_s_least": summary.simulated_ms_least / 1000,
        "simulated_s_per_s": round(summary.simulated_per_s, 1),
        "wall_s": round(summary.wall_s, 2),
        "acknowledged": summary.acknowledged,
        "acknowledged_least": summary.acknowledged_least,
        "runs_with_two_elections": summary.with_elections,
        "happened": {goal.name: goal.count(summary.counters) for goal in COVERAGE_GOALS},
        "operations": _sorted(summary.operations),
        "counters": _sorted(summary.counters),
    }


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _print(summary: Summary, failures: list[dict[str, Any]], vacuous: list[str]) -> None:
    print_line = out().print
    print_line(
        f"{summary.runs} runs, {summary.simulated_ms / 1000:,.0f} simulated seconds, "
        f"{summary.acknowledged:,} acknowledged operations (at least "
        f"{summary.acknowledged_least} in a run), {summary.with_elections} runs with two or more "
        "elections",
        highlight=False,
    )
    print_line(
        f"{summary.deliveries:,} deliveries; on one core {summary.deliveries_per_s:,.0f} "
        f"deliveries and {summary.simulated_per_s:,.0f} simulated seconds a second; "
        f"{summary.wall_s:.1f} s in all",
        highlight=False,
    )
    for goal in COVERAGE_GOALS:
        print_line(f"  {goal.count(summary.counters):>9,}  {goal.name}", highlight=False)
    for failure in failures:
        _print_failure(failure)
    for what in vacuous:
        note(f"vacuous: {what}")
    if not failures and not vacuous:
        print_line("no violation", highlight=False)


def _print_failure(failure: dict[str, Any]) -> None:
    lines = [
        "",
        f"seed {failure['seed']}, commit {failure['commit']}: {failure['invariant']} is violated "
        f"after {failure['time_ms'] / 1000:.3f} s",
        f"  {failure['detail']}",
        f"  faults: {', '.join(failure['faults']) or 'none'}; "
        f"incidents: {', '.join(failure['incidents']) or 'none'}",
        "the last events:",
        *(f"  {line}" for line in failure["story"]),
        f"again: {failure['replay']}",
    ]
    for line in lines:
        out().print(line, markup=False, highlight=False, soft_wrap=True)
