"""The command `synod chaos`: break a real cluster, and prove that nothing was lost."""

import secrets
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from chaos.cluster.compose import ComposeTarget, NotOurs
from chaos.cluster.processes import ProcessFailed
from chaos.cluster.rabbitmq import BrokerFailedError
from chaos.scenarios.catalogue import SCENARIOS
from chaos.scenarios.report import print_report, summary_line
from chaos.scenarios.runner import MakeTarget, local, only, run_until_done
from chaos.scenarios.scenario import Scenario
from gateway.cli.console import note, out, print_json

DEFAULT_REPORTS = Path("chaos-reports")


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("chaos")(chaos_command)


def chaos_command(
    scenario: Annotated[
        str, typer.Argument(help=f"{', '.join(SCENARIOS)}; or all.", metavar="SCENARIO")
    ],
    target: Annotated[
        str, typer.Option(help="local: processes of its own; compose: this folder's containers.")
    ] = "local",
    report: Annotated[
        Path, typer.Option(help="Where reports go, a folder for each scenario.", metavar="DIR")
    ] = DEFAULT_REPORTS,
    brokers: Annotated[
        int,
        typer.Option(
            min=1, help="How many RabbitMQ nodes the cluster has, if the scenario needs no more."
        ),
    ] = 1,
    case: Annotated[list[str] | None, typer.Option(help="Only this case; may be repeated.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the clients' operations; drawn if not given.")
    ] = None,
    break_running: Annotated[
        bool,
        typer.Option(
            "--break-running-cluster",
            help="With compose: kill and pause nodes of the cluster that runs already, "
            "and write files into it.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run real faults under load and print a verdict; exit code 1 if anything is wrong or void."""
    chosen = _chosen(scenario, target, case or [])
    make_target = _target(target, break_running=break_running)
    drawn = secrets.randbelow(2**31) if seed is None else seed
    reports: list[dict[str, Any]] = []
    for one in chosen:
        tell = note if not json else lambda text: None
        tell(f"{one.name}: {one.says}")
        try:
            found = run_until_done(
                one,
                make_target,
                report / one.name,
                brokers=brokers,
                seed=drawn,
                command=_command(one, target, brokers, case or [], drawn),
                tell=tell,
            )
        except KeyboardInterrupt:
            _tabulate(reports, json=json)
            note("synod: interrupted; every process and container of the run has been ended")
            raise typer.Exit(130) from None
        except NotOurs as error:
            note(f"synod: {error}")
            raise typer.Exit(2) from None
        except (ProcessFailed, BrokerFailedError) as error:
            note(f"synod: {error}")
            raise typer.Exit(1) from None
        reports.append(found)
        if not json:
            print_report(found)
            out().print(f"Report: {report / one.name / 'report.html'}", markup=False)
    _finish(reports, json=json)


def _chosen(name: str, target: str, cases: list[str]) -> list[Scenario]:
    if name == "all":
        if cases:
            raise typer.BadParameter("needs one scenario by name, not all", param_hint="--case")
        return [one for one in SCENARIOS.values() if target == "local" or not one.needs_local]
    if name not in SCENARIOS:
        raise typer.BadParameter(
            f"no such scenario: {name}; known are all, {', '.join(SCENARIOS)}",
            param_hint="SCENARIO",
        )
    if (does := SCENARIOS[name].needs_local) and target != "local":
        raise typer.BadParameter(
            f"{name} {does}, which is for --target local only", param_hint="--target"
        )
    if not cases:
        return [SCENARIOS[name]]
    try:
        return [only(SCENARIOS[name], cases)]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--case") from None


def _target(name: str, *, break_running: bool) -> MakeTarget:
    if name == "local":
        if break_running:
            raise typer.BadParameter(
                "with --target compose only; a local cluster is always the command's own",
                param_hint="--break-running-cluster",
            )
        return local
    if name == "compose":
        return lambda home, brokers, _: ComposeTarget(
            home, Path.cwd(), brokers=brokers, may_break=break_running
        )
    raise typer.BadParameter(f"{name!r} is neither local nor compose", param_hint="--target")


def _command(scenario: Scenario, target: str, brokers: int, cases: list[str], seed: int) -> str:
    words = ["synod", "chaos", scenario.name, "--target", target, "--seed", str(seed)]
    if brokers > 1:
        words += ["--brokers", str(brokers)]
    for case in cases:
        words += ["--case", case]
    return shlex.join(words)


def _finish(reports: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        print_json(reports[0] if len(reports) == 1 else reports)
    _tabulate(reports, json=json)
    if any(found["verdict"] != "passed" for found in reports):
        raise typer.Exit(1)


def _tabulate(reports: list[dict[str, Any]], *, json: bool) -> None:
    """One row for each scenario that came to a verdict, if there are several."""
    if not json and len(reports) > 1:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("scenario", "verdict", "operations", "longest outage", "took", "why"):
            table.add_column(heading)
        for found in reports:
            style = "" if found["verdict"] == "passed" else "red"
            table.add_row(*(Text(cell) for cell in summary_line(found)), style=style)
        out().print()
        out().print(table)
