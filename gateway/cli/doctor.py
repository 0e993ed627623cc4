"""The command `doctor`: whether a node could run with these settings, and what to change."""

import asyncio
import logging
from typing import Annotated

import typer
from rich.text import Text

from gateway.cli.cluster import Broker, ClusterName, Data, Json
from gateway.cli.console import out, print_json
from gateway.cli.exit_codes import FAILED
from gateway.doctor.clocks import check_clocks
from gateway.doctor.findings import Diagnosis, Grade, worst
from gateway.doctor.host import check_host
from gateway.doctor.rabbitmq import check_brokers, management_urls
from gateway.settings import Settings, load_settings

Management = Annotated[
    str | None,
    typer.Option(
        help="RabbitMQ's management API; by default at port 15672 of each broker.", metavar="URL"
    ),
]
GatewayUrl = Annotated[
    str | None,
    typer.Option("--url", envvar="SYNOD_URL", help="A gateway, for its clock.", metavar="URL"),
]

_STYLES = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.WRONG: "red", Grade.SKIPPED: "dim"}


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("doctor")(doctor)


def doctor(
    broker: Broker = None,
    data: Data = None,
    cluster: ClusterName = None,
    management: Management = None,
    url: GatewayUrl = None,
    json: Json = False,
) -> None:
    """Check the settings, this host and RabbitMQ; end with 1 if a node could not run."""
    settings = load_settings(broker=broker, data=data, cluster=cluster)
    # What it logs is found again below, with what to change.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    findings = asyncio.run(_examine(settings, management, url))
    if json:
        print_json(
            {
                "worst": worst(findings),
                "findings": [finding._asdict() for finding in findings],
            }
        )
    else:
        _print(findings)
    if worst(findings) is Grade.WRONG:
        raise typer.Exit(FAILED)


async def _examine(settings: Settings, management: str | None, url: str | None) -> list[Diagnosis]:
    apis = management_urls(settings.broker, management)
    brokers = await check_brokers(settings, apis)
    gateways = [f"{url.rstrip('/')}/healthz"] if url else []
    clock = await check_clocks([*gateways, *dict.fromkeys(apis.values())])
    # Last, and by itself: it measures the disk.
    return [*brokers, clock, *check_host(settings)]


def _print(findings: list[Diagnosis]) -> None:
    width = max(len(finding.check) for finding in findings)
    # No table: a command that is to be copied must not be wrapped.
    for finding in findings:
        line = Text(f"{finding.status:<8} ", style=_STYLES[finding.status])
        out().print(line.append(f"{finding.check:<{width}}  {finding.found}", style="default"))
        if finding.change:
            out().print(Text(f"{'':<{9 + width}}  → {finding.change}"))
