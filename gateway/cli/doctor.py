"""The command `doctor`: whether a node could run with these settings, and what to change."""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.text import Text

from broker.tls import TlsFilesUnusable
from gateway.cli.cluster import Broker, ClusterName, Data, Json
from gateway.cli.console import out, print_json
from gateway.cli.exit_codes import FAILED
from gateway.cli.tls_options import tls_options
from gateway.doctor.clocks import check_clocks
from gateway.doctor.findings import Diagnosis, Grade, worst
from gateway.doctor.host import check_host
from gateway.doctor.rabbitmq import check_brokers, management_urls
from gateway.settings import Settings, load_settings
from synod.tls import ClientTls

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
    cli.command("doctor")(tls_options(doctor))


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
    clock = await check_clocks(_clocks(settings, apis, url))
    # Last, and by itself: it measures the disk.
    return [*brokers, clock, *check_host(settings)]


def _clocks(
    settings: Settings, apis: Mapping[str, str], url: str | None
) -> dict[str, ssl.SSLContext | bool]:
    """What has a clock, with the certificates to trust."""
    found: dict[str, ssl.SSLContext | bool] = {}
    if url:
        ours = ClientTls.of(None, None, None)
        encrypted = url.startswith("https:")
        found[f"{url.rstrip('/')}/healthz"] = encrypted and ours.context(trust_env=True)
    for api in dict.fromkeys(apis.values()):
        try:
            found[api] = api.startswith("https:") and settings.broker_tls.context()
        except TlsFilesUnusable:
            continue  # The check of the broker has told it.
    return found


def _print(findings: list[Diagnosis]) -> None:
    width = max(len(finding.check) for finding in findings)
    # No table: a command that is to be copied must not be wrapped.
    for finding in findings:
        line = Text(f"{finding.status:<8} ", style=_STYLES[finding.status])
        out().print(line.append(f"{finding.check:<{width}}  {finding.found}", style="default"))
        if finding.change:
            out().print(Text(f"{'':<{9 + width}}  → {finding.change}"))
