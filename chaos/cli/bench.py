"""The command `synod bench`: throughput and latency beside the limits below, in the same run."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from chaos.bench.cases import CLIENTS_MAX, SIZE_BYTES_MAX, LoadCase, Mix, parse_size, size_name
from chaos.bench.plot import draw
from chaos.bench.references import REFERENCES, NotInstalled
from chaos.bench.report import as_json, limits_table, ratios_table, remarks, results_table
from chaos.bench.runner import (
    MEMORY_BROKER,
    BenchFailed,
    BenchOutcome,
    BenchPlan,
    BenchProgress,
    run_bench,
)
from chaos.cluster.processes import ProcessFailed
from chaos.cluster.rabbitmq import BrokerFailedError
from gateway.cli.console import err, note, out, print_json
from gateway.cli.signals import ended_by_signals
from observability.safe_text import json_text

T = TypeVar("T")

_FAILED, _MISUSED = 1, 2
_CLIENTS, _SIZES = "1,64,256", "1KiB"
_MIXES = ("write", "read")
_INSTALLED = "installed"
_NONE = "none"
_TABLE_COLUMNS_MAX = 500


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("bench")(bench_command)


def bench_command(
    url: Annotated[
        str,
        typer.Option(
            envvar="SYNOD_URL",
            help="A running cluster, loaded below a folder that is removed afterwards. "
            "Without it: a local cluster of its own.",
            metavar="URL",
        ),
    ] = "",
    broker: Annotated[
        str,
        typer.Option(
            help="The broker of its own cluster, or memory:// (one process); with --url the one "
            "to measure beside it. Without it: a private RabbitMQ.",
            metavar="URL",
        ),
    ] = "",
    clients: Annotated[
        str, typer.Option(help=f"How many, 1 to {CLIENTS_MAX}, each in turn.", metavar="N,N,…")
    ] = _CLIENTS,
    size: Annotated[
        str,
        typer.Option(
            help=f"Bytes of a file, 100 to {size_name(SIZE_BYTES_MAX)}, each in turn.",
            metavar="SIZE,SIZE,…",
        ),
    ] = _SIZES,
    mix: Annotated[
        list[str] | None,
        typer.Option(
            help="write, read, or weights such as read=80,write=20; may be repeated.  "
            f"[default: {', '.join(_MIXES)}]",
            metavar="MIX",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Open loop: so many requests are due a second, and a latency counts from then. "
            "Without it: closed loop.",
            metavar="R",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="How often each is measured.")] = 3,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="How long each takes.", metavar="S")
    ] = 3.0,
    beside: Annotated[
        str,
        typer.Option(
            help=f"What runs beside Synod: {', '.join(REFERENCES)}, {_INSTALLED} or {_NONE}.  "
            f"[default: {_INSTALLED}; {_NONE} with --url]",
            metavar="NAME,NAME,…",
            show_default=False,
        ),
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder on the disk to measure; with --url the one that has the cluster's data.",
            metavar="DIR",
        ),
    ] = None,
    json: Annotated[
        str, typer.Option("--json", help="Write JSON; - is standard output.", metavar="FILE")
    ] = "",
    plot: Annotated[
        Path | None, typer.Option(help="Draw rate and latency as SVG.", metavar="FILE")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the clients' choices.")] = 0,
) -> None:
    """Measure throughput and latency beside etcd, NATS, the broker and the disk, in one run."""
    must, may = _beside(beside or (_NONE if url else _INSTALLED))
    plan = BenchPlan(
        cases=_cases(mix or list(_MIXES), size, clients, rate),
        rounds=rounds,
        seconds=seconds,
        probe_s=min(1.0, seconds),
        url=url,
        broker=broker,
        beside=must,
        also=may,
        folder=_existing(data),
        seed=seed,
    )
    if url and broker == MEMORY_BROKER:
        raise typer.BadParameter("is no broker that can be measured", param_hint="--broker")
    _allow_connections(plan.clients_max)
    with ended_by_signals():
        try:
            with _progress() as progress:
                outcome = run_bench(plan, progress, lambda text: note(f"synod: {text}"))
        except NotInstalled as error:
            note(f"synod: {error}")
            raise typer.Exit(_MISUSED) from None
        except (BenchFailed, ProcessFailed, BrokerFailedError, TimeoutError) as error:
            note(f"synod: {error}")
            raise typer.Exit(_FAILED) from None
    _give(outcome, json, plot)


def _give(outcome: BenchOutcome, json: str, plot: Path | None) -> None:
    """Print and write the results."""
    if json == "-":
        print_json(as_json(outcome))
    else:
        console = out()
        tables = (results_table(outcome), ratios_table(outcome), limits_table(outcome))
        wide = console.options.update(width=_TABLE_COLUMNS_MAX)
        # A narrow terminal wraps the lines, which hides less than cut cells do.
        console.width = max(
            console.width, *(console.measure(table, options=wide).maximum for table in tables)
        )
        for table in tables:
            if table.row_count:
                console.print(table)
                console.print()
        for line in remarks(outcome):
            console.print(line, markup=False)
    if json not in ("", "-"):
        Path(json).write_text(json_text(as_json(outcome), indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        plot.write_text(draw(outcome), encoding="utf-8")
    if outcome.fault:
        note(f"synod: {outcome.fault}")
        raise typer.Exit(_FAILED)


def _cases(mixes: list[str], sizes: str, clients: str, rate: float | None) -> list[LoadCase]:
    parsed_mixes = [_parsed(Mix.parse, text, "--mix") for text in mixes]
    parsed_sizes = [_parsed(parse_size, text, "--size") for text in sizes.split(",")]
    counts = [_parsed(int, text, "--clients") for text in clients.split(",")]
    cases = []
    for mix in parsed_mixes:
        for size in parsed_sizes:
            for count in counts:
                try:
                    cases.append(LoadCase(mix, size, count, rate))
                except ValueError as error:
                    raise typer.BadParameter(f"{error}") from None
    return list(dict.fromkeys(cases))


def _parsed(parse: Callable[[str], T], text: str, option: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}", param_hint=option) from None


def _beside(text: str) -> tuple[list[str], list[str]]:
    """The references that have to run, and those that run if they are installed."""
    names = [name.strip().lower() for name in text.split(",")]
    if names == [_INSTALLED]:
        return [], list(REFERENCES)
    if names == [_NONE]:
        return [], []
    for name in names:
        if name not in REFERENCES:
            known = ", ".join((*REFERENCES, _INSTALLED, _NONE))
            raise typer.BadParameter(f"{name!r} is none of {known}", param_hint="--beside")
    return names, []


def _existing(folder: Path | None) -> Path | None:
    if folder is not None and not folder.is_dir():
        raise typer.BadParameter(f"{folder} is no folder", param_hint="--data")
    return None if folder is None else folder.absolute()


def _allow_connections(clients: int) -> None:
    """Raise this process's limit of open files, which its nodes inherit, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 4 * clients + 1024
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class _Bar(BenchProgress):
    """A bar on standard error, or without a terminal a line for each round."""

    def __init__(self, bars: Any, shown: bool) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None)
        self._shown = shown
        self._begun = 0
        self._told = ""

    def expect(self, steps: int) -> None:
        self._bars.update(self._task, total=steps)

    def step(self, text: str) -> None:
        self._bars.update(self._task, description=text, completed=self._begun)
        self._begun += 1
        part = text.partition(":")[0]
        if not self._shown and part != self._told:
            self._told = part
            note(part)


@contextmanager
def _progress() -> Iterator[_Bar]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = err()
    bars = Progress(
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        refresh_per_second=2,  # It shares the machine with what is measured.
    )
    with bars:
        yield _Bar(bars, console.is_terminal)
