"""The command recover: the last resort after all but a minority of the acceptors are lost."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.cluster import Broker, ClusterName, Data
from gateway.cli.console import Bar, note, out, print_json
from gateway.cli.files import Json, Quiet
from gateway.cli.key_options import KeyCommand, KeyFile, keys_of
from gateway.settings import Settings, load_settings
from synod.errors import SynodError

_LISTENS_HEARTBEATS = 3


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("recover")(recover)


def recover(
    from_store: Annotated[
        list[Path],
        typer.Option(
            "--from-store",
            help="The folder of a store of the old cluster, or one with several nodes' folders; "
            "learners' and acceptors' help, too. May be repeated.",
            metavar="DATA",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look, and report; write nothing.")
    ] = False,
    old_cluster_is_dead: Annotated[
        bool,
        typer.Option(
            "--the-old-cluster-is-dead",
            help="No majority of its acceptors will ever start again: found the new cluster.",
        ),
    ] = False,
    without_lost_files: Annotated[
        bool,
        typer.Option(
            "--without-lost-files", help="Leave out files whose contents are in no folder."
        ),
    ] = False,
    data: Data = None,
    cluster: ClusterName = None,
    broker: Broker = None,
    scratch: Annotated[
        Path | None,
        typer.Option(help="Where copies of the folders are kept meanwhile.", metavar="DIR"),
    ] = None,
    key_file: KeyFile = None,
    key_command: KeyCommand = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The last resort: found a new cluster from stores of one whose acceptors are lost for good.

    It takes the most advanced state, with everything that was acknowledged and still exists, and
    says what may be missing. The old folders are only read. While a majority of the acceptors
    exists, start the old cluster instead; a single lost one is replaced with synod replace.
    """
    from broker.journal_folder import JournalError
    from gateway.recovery.folders import RecoveryRefused
    from gateway.recovery.recover import looked_at
    from gateway.recovery.recover import recover as write
    from gateway.recovery.report import lines_of, report_of

    settings = load_settings(
        data=data, cluster=cluster, broker=broker, key_file=key_file, key_command=key_command
    )
    keys = keys_of(settings)
    shown = not (json or quiet)
    with (
        Bar(shown=shown, many=False) as bar,
        looked_at(from_store, scratch=scratch, keys=keys, moved=bar.moved) as look,
    ):
        report = report_of(look)
        names = {one.folder.cluster for one in look.nodes}
        heard, asked = _heard(settings, names, report["cluster"])
        report |= {"heard": heard, "asked": asked}
        if shown:
            for line in (*lines_of(look), f"- {asked}"):
                out().print(line, markup=False)
        if dry_run:
            if json:
                print_json({**report, "founded": None})
            return
        if heard:
            raise RecoveryRefused(
                f"{', '.join(heard)} of the old cluster run, as RabbitMQ shows. Stop them first"
            )
        try:
            done = write(
                look,
                settings.data,
                settings.options(),
                settings.cluster,
                old_cluster_is_dead=old_cluster_is_dead,
                without_lost_files=without_lost_files,
                keys=keys,
                encrypted=settings.encrypt_journals,
                moved=bar.moved,
            )
        except JournalError as error:
            raise SynodError(f"{error}") from None
    founded = {**done._asdict(), "data": str(settings.data)}
    if json:
        print_json({**report, "founded": founded})
    elif not quiet:
        note(
            f"cluster {done.cluster} is in {settings.data}. Its own slots go on after {done.slot}. "
            f"Start it with: synod up --data {settings.data}"
        )
        _note_settings(look.judged.genesis.constants.model_dump(), settings)


def _note_settings(former: dict[str, Any], settings: Settings) -> None:
    own = settings.options().constants.model_dump()
    for name, value in former.items():
        if own[name] != value:
            note(f"{name} is {own[name]} here; it was {value} in the old cluster")


def _heard(settings: Settings, names: Iterable[str], cluster: str) -> tuple[list[str], str]:
    """The nodes of the old cluster that run, as far as a broker shows, and what was asked."""
    import aiormq

    from broker.addresses import split_urls
    from broker.roll_call import address_of, nodes_heard
    from broker.topology import Topology

    if settings.broker.startswith("memory:"):
        return [], "no RabbitMQ was asked whether nodes of the old cluster run: --broker names it"
    heard: set[str] = set()
    reasons = []
    for url in split_urls(settings.broker):
        for name in names:
            topology = Topology(name, settings.queues, settings.broker_users)
            listens_s = _LISTENS_HEARTBEATS * settings.heartbeat_ms / 1000
            try:
                heard |= asyncio.run(
                    nodes_heard(url, topology, cluster, settings.broker_tls, listens_s)
                )
            except (OSError, TimeoutError, aiormq.AMQPError) as error:
                reason = str(error) or type(error).__name__
                reasons.append(f"{address_of(url)} could not be asked: {reason}")
        if heard:
            break
    if heard:
        return sorted(heard), f"nodes of the old cluster run: {', '.join(sorted(heard))}"
    return [], "; ".join(reasons) or "RabbitMQ carries no heartbeat of the old cluster"
