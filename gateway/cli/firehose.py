"""`synod firehose`: the messages that cross RabbitMQ, as protocol steps."""

import asyncio
import logging
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from gateway.cli.cluster import Broker, ClusterName
from gateway.cli.console import note, out
from gateway.settings import load_settings

if TYPE_CHECKING:
    from broker.firehose import TracedMessage

_BACKGROUND = (
    "timer",
    "ping",
    "node.heartbeat",
    "lease.",
    "leader.beat",
    "learn.progress",
    "trace.",
)
"""The messages that an idle cluster sends all the time."""


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("firehose")(firehose)


def firehose(
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long to look.")] = 10.0,
    management: Annotated[
        str | None, typer.Option(help="The RabbitMQ console.", metavar="URL")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Heartbeats, leases and timers, too.")
    ] = False,
    broker: Broker = None,
    cluster: ClusterName = None,
) -> None:
    """Switch RabbitMQ's firehose on for some seconds and print the messages as protocol steps."""
    # Imported here, because a client's commands need no broker.
    import aiormq

    from broker.firehose import FirehoseRefused, watch_firehose
    from broker.tls import refusal_of
    from broker.topology import Topology

    settings = load_settings(broker=broker, cluster=cluster)
    if settings.broker.startswith("memory:"):
        raise typer.BadParameter("the firehose is RabbitMQ's: --broker amqp://…")
    shown: Counter[str] = Counter()
    began_s = time.time()
    console = out()

    def tell(step: "TracedMessage") -> None:
        background = step.kind.startswith(_BACKGROUND)
        shown[step.kind] += 1
        if everything or not background:
            console.print(line_of(step, began_s))

    # That the broker can't be reached is reported below, once.
    logging.getLogger("aiormq").addHandler(logging.NullHandler())
    if sys.stderr.isatty():
        note(f"The firehose is on for {seconds:g} s")
    try:
        asyncio.run(
            watch_firehose(
                settings.broker,
                management,
                Topology(settings.cluster, settings.queues, settings.broker_users),
                seconds,
                tell,
                settings.broker_tls,
            )
        )
    except FirehoseRefused as error:
        note(f"synod: {error}")
        raise typer.Exit(1) from None
    except (aiormq.AMQPError, aiormq.exceptions.ChannelInvalidStateError, OSError) as error:
        note(f"synod: the broker can't be reached: {refusal_of(error) or error}")
        raise typer.Exit(1) from None
    total = sum(shown.values())
    most = ", ".join(f"{count} {kind}" for kind, count in shown.most_common(6))
    note(f"The firehose is off again. {total} messages: {most}")


def line_of(step: "TracedMessage", began_s: float) -> Text:
    """One line for people."""
    from observability.events import summary_of

    line = Text(f"{step.wall_s - began_s:8.3f}  ")
    line.append(f"{step.sender:12} → {step.to:16} ")
    line.append(f"{step.kind:16} ", style="bold")
    line.append(step.text if step.message is None else summary_of(step.message))
    marks = [
        f"slot {step.slot}" if step.slot is not None else "",
        f"ballot {step.ballot}" if step.ballot else "",
        f"epoch {step.epoch}" if step.epoch is not None else "",
        step.message_id,
    ]
    line.append(f"  [{', '.join(mark for mark in marks if mark)}]", style="dim")
    return line
