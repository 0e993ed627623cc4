"""The command `status`: the cluster as a gateway knows it, and whether it takes writes."""

import asyncio
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gateway.cli.console import out, print_json
from gateway.cli.membership import member_rows
from gateway.cli.sessions import token_for
from gateway.cli.tls_options import tls_options
from synod.client import DEFAULT_URL, AsyncClient

Url = Annotated[
    str, typer.Option("--url", envvar="SYNOD_URL", help="Where the gateway is.", metavar="URL")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("status")(tls_options(status))


def status(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the nodes, the leader and the view; end with 0 only if a write could be done."""

    async def ask() -> dict[str, Any]:
        async with AsyncClient(url, token=token_for(url), patience_s=5) as synod:
            return await synod.cluster()

    answer = asyncio.run(ask())
    if json:
        print_json(answer)
    else:
        _print_status(answer)
    if not answer["ready"]:
        raise typer.Exit(1)


def _print_status(answer: dict[str, Any]) -> None:
    view = answer["view"] or {}
    stores = ", ".join(member["name"] for member in view.get("stores", ()))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in (
        ("cluster", answer["cluster"] or "not founded yet"),
        *_condition_rows(answer["condition"]),
        ("leader", answer["leader"] or "none"),
        ("view", f"epoch {view.get('epoch', '?')}: {stores}" if view else "none"),
        ("coordinator", view.get("coordinator", "none")),
        *member_rows(answer),
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


_WRITES = {"taken": "are taken", "refused": "are not taken", "unknown": "unknown"}
_READS = {"served": "are served", "refused": "are not served", "unknown": "unknown"}


def _condition_rows(condition: dict[str, Any]) -> list[tuple[str, str]]:
    """Whether writes and reads are possible now; each reason and each warning has its own row."""
    heard_ms = condition["heard_ms"]
    rows = [("writes", _WRITES[condition["writes"]])]
    rows += [("", f"because {reason['detail']}") for reason in condition["reasons"]]
    rows.append(("reads", _READS[condition["reads"]]))
    if condition["read_reasons"] != condition["reasons"]:
        rows += [("", f"because {reason['detail']}") for reason in condition["read_reasons"]]
    rows += [("warning", warning["detail"]) for warning in condition["warnings"]]
    rows.append(("heard", "never" if heard_ms is None else f"{heard_ms / 1000:.1f} s ago"))
    return rows


def _node_row(member: dict[str, Any]) -> tuple[Text, ...]:
    marks = [mark for mark in ("leader", "coordinator") if member.get(mark)]
    if member.get("votes") is False:
        marks.append("does not vote")
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
