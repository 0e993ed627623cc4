"""`synod trace`: the trace of a request in the terminal."""

import asyncio
import time
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gateway.cli.console import note, out, print_json
from gateway.cli.sessions import token_for
from gateway.cli.status import Json, Url
from gateway.cli.tls_options import tls_options
from synod.client import DEFAULT_URL, AsyncClient
from synod.errors import SynodError

_PATIENCE_S = 2.0
"""The records of a request that has just ended take a moment to arrive."""

_STYLES = {
    "queue": "cyan",
    "journal": "yellow",
    "quorum": "green",
    "vote": "magenta",
    "answer": "blue",
}
_SIGNS = {"sent": "→", "received": "←", "committed": "■", "timer": "◷"}
_BAR_CELLS = 60


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("trace")(tls_options(trace))


def trace(
    request: Annotated[
        str | None,
        typer.Argument(help="A request's id, as Synod-Request-Id says it. None: what is recent."),
    ] = None,
    everything: Annotated[
        int | None,
        typer.Option("--all", help="Have every node record everything for so long.", metavar="S"),
    ] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show the life of a request: its stages, and every message with its time."""
    if everything is not None:
        answer = asyncio.run(_record(url, {"seconds": everything}))
        if json:
            print_json(answer)
        else:
            note(f"Every node records everything for {everything} s")
        return
    if request is None:
        recent = asyncio.run(_recent(url))
        if json:
            print_json(recent)
        else:
            _print_recent(recent)
        return
    found = asyncio.run(_trace(url, request))
    if json:
        print_json(found)
    else:
        _print_trace(found)
    if not found["complete"]:
        raise typer.Exit(1)


async def _record(url: str, order: dict[str, Any]) -> dict[str, Any]:
    async with AsyncClient(url, token=token_for(url), patience_s=5) as synod:
        return await synod.record(order)


async def _recent(url: str) -> dict[str, Any]:
    async with AsyncClient(url, token=token_for(url), patience_s=5) as synod:
        return await synod.traces()


async def _trace(url: str, request: str) -> dict[str, Any]:
    """The trace once it is complete, or the incomplete one after a moment."""
    until = time.monotonic() + _PATIENCE_S
    async with AsyncClient(url, token=token_for(url), patience_s=5) as synod:
        while True:
            error: SynodError | None = None
            found: dict[str, Any] = {}
            try:
                found = await synod.trace(request)
            except SynodError as why:
                error = why
            if found.get("complete") or time.monotonic() > until:
                if error is not None:
                    raise error
                return found
            await asyncio.sleep(0.1)


def _print_trace(found: dict[str, Any]) -> None:
    console = out()
    duration_us = found["duration_us"]
    slot = "no slot yet" if found["slot"] is None else f"slot {found['slot']}"
    took = "" if duration_us is None else f", {duration_us / 1000:.1f} ms"
    console.print(Text(f"{found['request']}: {slot}{took}", style="bold"))
    if not found["complete"]:
        why = (
            "the request is not through, or records of it were lost"
            if found["traced"]
            else "its slot was not among those that were recorded; see `synod trace --all 30`"
        )
        console.print(Text(f"not complete: {why}", style="red"))
    if duration_us:
        console.print(_bar(found["stages"], duration_us))
        console.print(_stage_table(found["stages"], duration_us))
    console.print()
    began_us = found["started_us"] or min((e["time_us"] for e in found["events"]), default=0)
    # Lines, not a table: lines may be wider than the terminal, and a pipe keeps them whole.
    for event in found["events"]:
        style = _style_at(event["time_us"], found["stages"])
        with_whom = event["to"] if event["kind"] == "sent" else event["from"]
        took = f" ({event['duration_us'] / 1000:.1f} ms)" if event["duration_us"] else ""
        line = Text(f"{(event['time_us'] - began_us) / 1000:9.2f}  {event['node']:12}")
        sign = _SIGNS.get(event["kind"], "?")
        line.append(f" {sign} {event['type']:16} ", style=style)
        line.append(f"{with_whom or '':12} {event['summary']}{took}")
        console.print(line)


def _bar(stages: list[dict[str, Any]], duration_us: int) -> Text:
    bar = Text()
    for stage in stages:
        share = (stage["end_us"] - stage["start_us"]) / duration_us
        bar.append("█" * round(share * _BAR_CELLS), style=_STYLES[stage["name"]])
    return bar


def _stage_table(stages: list[dict[str, Any]], duration_us: int) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    for stage in stages:
        took_us = stage["end_us"] - stage["start_us"]
        table.add_row(
            Text(stage["name"], style=_STYLES[stage["name"]]),
            f"{took_us / 1000:.2f} ms",
            f"{100 * took_us / duration_us:.0f}%",
        )
    table.add_row("sum", f"{duration_us / 1000:.2f} ms", "100%", style="bold")
    return table


def _style_at(time_us: int, stages: list[dict[str, Any]]) -> str:
    for stage in stages:
        if stage["start_us"] <= time_us <= stage["end_us"]:
            return _STYLES[stage["name"]]
    return "dim"


def _print_recent(recent: dict[str, Any]) -> None:
    console = out()
    console.print(f"recording: {recent['mode']}; lost so far: {recent['dropped']}")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("at", "slot", "request", ""):
        table.add_column(heading)
    for row in recent["requests"]:
        at = time.strftime("%H:%M:%S", time.localtime(row["time_us"] / 1e6))
        slot = "" if row["slot"] is None else str(row["slot"])
        table.add_row(at, slot, Text(row["request"]), "" if row["complete"] else "no result yet")
    console.print(table)
