"""The command `status`: what a gateway knows of the cluster."""

import asyncio
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gateway.console import out, print_json
from gateway.sdk import DEFAULT_URL, AsyncSynod

Url = Annotated[
    str, typer.Option("--url", envvar="SYNOD_URL", help="Where the gateway is.", metavar="URL")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("status")(status)


def status(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the nodes, the leader and the view."""

    async def ask() -> dict[str, Any]:
        async with AsyncSynod(url, patience_s=5) as synod:
            return await synod.cluster()

    answer = asyncio.run(ask())
    if json:
        print_json(answer)
    else:
        _print_status(answer)


def _print_status(answer: dict[str, Any]) -> None:
    view = answer["view"] or {}
    stores = ", ".join(member["name"] for member in view.get("stores", ()))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in (
        ("cluster", answer["cluster"] or "not founded yet"),
        ("writes", "are taken" if answer["ready"] else "are not taken at the moment"),
        ("leader", answer["leader"] or "none"),
        ("view", f"epoch {view.get('epoch', '?')}: {stores}" if view else "none"),
        ("coordinator", view.get("coordinator", "none")),
    ):
        facts.add_row(name, Text(str(value)))
    out().print(facts)
    out().print()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("node", "is", "heard", "start", "applied", "epoch", "waiting"):
        table.add_column(heading, justify="left" if heading in ("node", "is") else "right")
    for member in answer["nodes"]:
        table.add_row(*_node_row(member))
    out().print(table)


def _node_row(member: dict[str, Any]) -> tuple[Text, ...]:
    marks = [mark for mark in ("leader", "coordinator") if member.get(mark)]
    if member["role"] == "store":
        marks.append("in the view" if member["in_view"] else "not in the view")
    if member.get("halted"):
        marks.append(f"halted: {member['halted']}")
    if not member["seen"]:
        cells = (member["name"], ", ".join(marks), "never", "", "", "", "")
    else:
        epoch = member["epoch"]
        # Acceptors and proposers apply nothing.
        applies = member["role"] in ("learner", "store")
        cells = (
            member["name"],
            ", ".join(marks),
            f"{member['age_ms'] / 1000:.1f} s ago",
            str(member["incarnation"]),
            str(member["applied"]) if applies else "",
            "" if epoch is None else str(epoch),
            str(member["pending"]),
        )
    style = "" if member["seen"] and not member.get("halted") else "red"
    return tuple(Text(cell, style=style) for cell in cells)
