"""Commands for backups of the whole cluster: backup, restore."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.calls import with_synod
from gateway.cli.cluster import ClusterName, Data
from gateway.cli.console import Bar, note, print_json, size_text
from gateway.cli.files import Jobs, Json, Quiet, Timeout, Url
from gateway.cli.tls_options import tls_options
from gateway.cli.transfer import PARALLEL
from gateway.settings import load_settings
from synod.client import DEFAULT_URL
from synod.errors import SynodError

if TYPE_CHECKING:
    from gateway.backup.folder import Manifest

_NAMED_MOST = 20


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command("backup")(tls_options(backup))
    cli.command("restore")(restore)


def backup(
    folder: Annotated[
        Path, typer.Argument(help="Empty, new, or a former backup of this cluster.", metavar="DIR")
    ],
    jobs: Jobs = PARALLEL,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy the running cluster, as it is at one moment, into a folder.

    After an interruption, run it again to continue; into a former backup it copies only new data.
    """
    # Imported here, because a backup needs the actors, which other commands need not load.
    from gateway.backup.take import backup as take

    began = time.monotonic()
    with Bar(shown=not (json or quiet), many=False) as bar:
        manifest, chunks = with_synod(
            url,
            lambda synod: take(synod, folder, progress=bar, parallel=jobs),
            jobs,
            timeout=timeout,
            silent=json or quiet,
        )
    seconds = time.monotonic() - began
    if json:
        print_json(
            {
                **manifest.model_dump(mode="json"),
                "fetched_chunks": chunks.fetched,
                "fetched_bytes": chunks.fetched_bytes,
                "seconds": round(seconds, 3),
            }
        )
    elif not quiet:
        note(
            f"{folder} holds {_about(manifest)}: {size_text(chunks.fetched_bytes)} of contents "
            f"were new, {seconds:.1f} s"
        )


def restore(
    folder: Annotated[Path, typer.Argument(help="The folder of a backup.", metavar="DIR")],
    data: Data = None,
    cluster: ClusterName = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only check the backup; write nothing.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the data folders of a new cluster from a backup, for `synod up` or `synod node`.

    The whole backup is checked first, and refused if any part of it is damaged.
    """
    from broker.journal_folder import JournalError
    from gateway.backup.folder import BackupFolder
    from gateway.backup.restore import restore as write

    settings = load_settings(data=data, cluster=cluster)
    source = BackupFolder(folder)
    shown = not (json or quiet)
    if verify:
        with Bar(shown=shown, many=False) as bar:
            bar.expect(1, source.manifest().chunks_bytes)
            manifest, _ = source.verify(bar.moved)
        if json:
            print_json({**manifest.model_dump(mode="json"), "whole": True})
        elif not quiet:
            note(f"{folder} is whole: {_about(manifest)}")
        return
    with Bar(shown=shown, many=False) as bar:
        # Everything is read twice: once to be checked, once to be written.
        bar.expect(1, 2 * source.manifest().chunks_bytes)
        try:
            done = write(
                folder, settings.data, settings.options(), settings.cluster, moved=bar.moved
            )
        except JournalError as error:
            raise SynodError(f"{error}") from None
    manifest = done.manifest
    if json:
        print_json(
            {
                "cluster": done.cluster,
                "slot": done.slot,
                "data": str(settings.data),
                "members": done.members,
                "mended": done.mended,
                "backup": manifest.model_dump(mode="json"),
            }
        )
    elif not quiet:
        note(
            f"cluster {done.cluster} is in {settings.data}: {_about(manifest)}. Its own slots go "
            f"on after {done.slot}. Start it with: synod up --data {settings.data}"
        )
        if done.mended:
            note(
                f"{len(done.mended)} files had metadata that no gateway takes; what the old "
                f"cluster showed of it is kept: {', '.join(map(repr, done.mended[:_NAMED_MOST]))}"
                + (" …" if len(done.mended) > _NAMED_MOST else "")
            )
        own = settings.model_dump(include=set(manifest.settings))
        for name, value in manifest.settings.items():
            if own.get(name) != value:
                note(f"{name} is {own.get(name)} here; it was {value} where the backup comes from")


def _about(manifest: "Manifest") -> str:
    return (
        f"{manifest.files} files, {size_text(manifest.files_bytes)}, as of slot {manifest.slot} of "
        f"cluster {manifest.cluster}"
    )
