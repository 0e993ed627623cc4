"""Commands that run a cluster or a part of it: up, node, config."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actors.options import MEMBER_NUMBER_MAX, may_be_added, role_of
from gateway.cli.console import note, out, print_json
from gateway.cli.exit_codes import FAILED
from gateway.settings import Settings, effective, load_settings
from observability.logs import configure_logs

if TYPE_CHECKING:
    from broker.failpoints import Failpoints

Broker = Annotated[
    str | None,
    typer.Option(help="memory:// (one process) or amqp://user:password@host:5672/", metavar="URL"),
]
Data = Annotated[
    Path | None, typer.Option(help="The folder with one subfolder for each node.", metavar="DIR")
]
Host = Annotated[
    str | None, typer.Option(help="Address of the HTTP server; without a token loopback only.")
]
Port = Annotated[int | None, typer.Option(help="Port of the HTTP server; 0 takes any free port.")]
ClusterName = Annotated[
    str | None, typer.Option("--cluster", help="The cluster's name; names of queues contain it.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (("up", up), ("node", node), ("config", config)):
        cli.command(name)(command)


def up(
    broker: Broker = None,
    data: Data = None,
    port: Port = None,
    host: Host = None,
    cluster: ClusterName = None,
) -> None:
    """Run a whole cluster and a gateway in this process."""
    settings = load_settings(broker=broker, data=data, port=port, host=host, cluster=cluster)
    _host(settings, None)


def node(
    name: Annotated[str, typer.Argument(help="Such as store-2 or gateway-1.")],
    broker: Broker = None,
    data: Data = None,
    port: Port = None,
    host: Host = None,
    cluster: ClusterName = None,
    failpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="Stop exactly there, such as send:txn.vote:1:after:kill; may be repeated.",
            metavar="RULE",
        ),
    ] = None,
    arm_on_signal: Annotated[
        bool, typer.Option("--arm-on-signal", help="Failpoints count from SIGUSR1 on.")
    ] = False,
) -> None:
    """Run one node in this process; a gateway also serves HTTP."""
    settings = load_settings(broker=broker, data=data, port=port, host=host, cluster=cluster)
    try:
        role = role_of(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None
    members = settings.options().members
    failpoints = _failpoints(failpoint or [], members, armed=not arm_on_signal)
    if role != "gateway" and name not in members and not may_be_added(name):
        raise typer.BadParameter(
            f"{name} is not a member: the settings have {', '.join(members)} and any gateway, and "
            f"what is added has a number up to {MEMBER_NUMBER_MAX}",
            param_hint="NAME",
        )
    if settings.broker.startswith("memory:"):
        raise typer.BadParameter(
            "a node in a process of its own needs a broker that others reach, too: "
            "--broker amqp://…",
            param_hint="--broker",
        )
    _host(settings, name, failpoints)


def _failpoints(rules: list[str], members: Sequence[str], *, armed: bool) -> "Failpoints | None":
    # Imported here, because a client's commands need none of it.
    from broker.failpoints import BadFailpoint, Failpoint, Failpoints

    if not rules:
        if not armed:
            raise typer.BadParameter("there is no --failpoint", param_hint="--arm-on-signal")
        return None
    try:
        parsed = [Failpoint.parse(rule) for rule in rules]
        return Failpoints(parsed, members=members, armed=armed)
    except BadFailpoint as error:
        raise typer.BadParameter(str(error), param_hint="--failpoint") from None


def config(
    broker: Broker = None,
    data: Data = None,
    port: Port = None,
    host: Host = None,
    cluster: ClusterName = None,
    json: Json = False,
) -> None:
    """Print the settings in force, secrets masked, and where each one comes from."""
    flags = {"broker": broker, "data": data, "port": port, "host": host, "cluster": cluster}
    settings = load_settings(**flags)
    rows = effective(settings, **flags)
    if json:
        print_json({row.name: {"value": row.value, "source": row.source} for row in rows})
        return
    # Imported here, because a node prints no tables.
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("setting", "value", "from"):
        table.add_column(heading)
    for row in rows:
        value = "" if row.value is None else str(row.value)
        table.add_row(row.name, Text(value), Text(row.source))
    out().print(table)


def _host(settings: Settings, name: str | None, failpoints: "Failpoints | None" = None) -> None:
    # Imported here, because a client's commands need neither the broker nor a server.
    from gateway.hosting import HostingFailed, run_cluster, run_single

    configure_logs(settings.log_level, node=name or "")

    def announce(text: str) -> None:
        typer.echo(text)

    try:
        if name is None:
            run_cluster(settings, announce)
        else:
            run_single(name, settings, announce, failpoints)
    except HostingFailed as error:
        note(f"synod: {' '.join(str(error).split())}")
        raise typer.Exit(FAILED) from None
    except Exception:
        # An internal error is logged with its traceback: there is no other place to find it.
        logging.getLogger("synod.hosting").exception("the process ends by an internal error")
        raise
