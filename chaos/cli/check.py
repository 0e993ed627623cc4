"""The command `synod check`: decides whether a history is linearizable."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from chaos.checker.counterexample_page import describe, headline, lines_of, render
from chaos.checker.history import HistoryError, load_history, operations_of, read_events
from chaos.checker.linearizability import TIME_LIMIT_S, CheckResult, check
from chaos.checker.window import Window, smallest_window
from gateway.cli.console import note, out, print_json

EXIT_CODES = {"linearizable": 0, "not linearizable": 1, "undecided": 3}
UNREADABLE = 2


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("check")(check_command)


def check_command(
    history: Annotated[
        Path, typer.Argument(help="Events, a line of JSON each; - is standard input.")
    ],
    time_limit: Annotated[
        float, typer.Option(help="Seconds after which the verdict is undecided.", min=0.0)
    ] = TIME_LIMIT_S,
    picture: Annotated[
        Path | None,
        typer.Option(help="The file for the picture of a violation.  [default: HISTORY.html]"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a history for linearizability. Exit code 0: it is; 1: it is not; 3: undecided."""
    standard_input = str(history) == "-"
    try:
        events = list(read_events(sys.stdin)) if standard_input else load_history(history)
        operations = operations_of(events)
    except HistoryError as error:
        note(f"synod: {history}: {error}")
        raise typer.Exit(UNREADABLE) from None
    except OSError as error:
        note(f"synod: {history}: {error.strerror or error}")
        raise typer.Exit(UNREADABLE) from None
    result = check(operations, time_limit)
    window: Window | None = None
    if result.verdict == "not linearizable":
        window = smallest_window(result.of("not linearizable")[0].component)
        if picture is None:
            picture = Path("history.html") if standard_input else history.with_suffix(".html")
        try:
            picture.write_text(render(window, history.name), encoding="utf-8")
        except OSError as error:  # The verdict stands without it.
            note(f"synod: {picture}: {error.strerror or error}; the picture was not written")
            picture = None
    if json:
        print_json(summary(result, window, picture))
    else:
        _print(result, window, picture)
    raise typer.Exit(EXIT_CODES[result.verdict])


def summary(result: CheckResult, window: Window | None, picture: Path | None) -> dict[str, Any]:
    """A verdict as JSON."""
    found: dict[str, Any] = {
        "verdict": result.verdict,
        "operations": result.operations,
        "unknown": result.unknown,
        "dropped": result.dropped,
        "components": len(result.components),
        "states": sum(one.states for one in result.components),
        "seconds": round(result.seconds, 3),
        "not_linearizable": [list(one.component.paths) for one in result.of("not linearizable")],
        "undecided": [list(one.component.paths) for one in result.of("undecided")],
    }
    if window is not None:
        found["window"] = {
            "sentence": headline(window),
            "operations": [
                {
                    "op": one.op,
                    "process": one.process,
                    "says": describe(one),
                    "first_line": one.invoked + 1,
                    "last_line": None if one.ended is None else one.ended + 1,
                }
                for one in window.operations
            ],
            "order": [one.op for one in window.order],
            "unplaced": [one.op for one in window.unplaced],
            "picture": None if picture is None else str(picture),
        }
    return found


def _print(result: CheckResult, window: Window | None, picture: Path | None) -> None:
    states = sum(one.states for one in result.components)
    out().print(
        f"{result.verdict}: {result.operations} operations ({result.unknown} of unknown outcome), "
        f"paths: {sum(len(one.component.paths) for one in result.components)}, "
        f"situations searched: {states}, {result.seconds:.2f} s"
    )
    for one in result.of("undecided"):
        count = len(one.component.operations)
        out().print(f"not decided: {', '.join(one.component.paths[:5])} ({count} operations)")
    if window is None:
        return
    out().print()
    out().print(headline(window), markup=False)
    place = {operation.op: str(at) for at, operation in enumerate(window.order, start=1)}
    unplaced = {operation.op for operation in window.unplaced}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("place", "operation", "process", "in the file"):
        table.add_column(heading)
    for operation in window.operations:
        stuck = operation.op in unplaced
        table.add_row(
            Text("none" if stuck else place.get(operation.op, "")),
            Text(describe(operation)),
            Text(str(operation.process)),
            Text(lines_of(operation)),
            style="red" if stuck else "",
        )
    out().print(table)
    if picture is not None:
        out().print(f"Picture: {picture}", markup=False)
