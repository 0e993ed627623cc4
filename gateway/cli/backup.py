"""Commands for backups of the whole cluster: backup, restore.

`synod backup DIR` is short for `synod backup take DIR`.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gateway.cli.calls import with_synod
from gateway.cli.cluster import ClusterName, Data
from gateway.cli.console import Bar, note, print_json, size_text
from gateway.cli.files import Jobs, Json, Quiet, Timeout, Url
from gateway.cli.key_options import KeyCommand, KeyFile, keys_of
from gateway.cli.tls_options import tls_options
from gateway.cli.transfer import PARALLEL
from gateway.settings import load_key_settings, load_settings
from synod.client import DEFAULT_URL
from synod.errors import SynodError

if TYPE_CHECKING:
    from broker.keys import KeyRing
    from gateway.backup.manifest import Manifest
    from gateway.backup.signatures import Trust

_NAMED_MOST = 20


_HELP_FLAGS = ("--help", "-h")


class _TakesByDefault(TyperGroup):
    """A group whose first command needs not be named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the command unless one is named."""
        named = args[0] in (*self.commands, *_HELP_FLAGS) if args else False
        return super().parse_args(ctx, args if named else ["take", *args])


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="backup",
        cls=_TakesByDefault,
        help="Copy the running cluster into a folder: synod backup DIR. Make keys for backups.",
    )
    for name, command in (("take", tls_options(backup)), ("keygen", keygen), ("rewrap", rewrap)):
        group.command(name)(command)
    cli.add_typer(group)
    cli.command("restore")(restore)


def backup(
    folder: Annotated[
        Path, typer.Argument(help="Empty, new, or a former backup of this cluster.", metavar="DIR")
    ],
    sign_key: Annotated[
        Path | None,
        typer.Option(
            "--sign-key", help="Sign with this private key (backup_sign_key).", metavar="FILE"
        ),
    ] = None,
    key_file: KeyFile = None,
    key_command: KeyCommand = None,
    jobs: Jobs = PARALLEL,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy the running cluster, as it is at one moment, into a folder: synod backup DIR.

    After an interruption, run it again to continue; into a former backup it copies only new data.
    """
    # Imported here, because a backup needs the actors, which other commands need not load.
    from gateway.backup.signatures import Signer
    from gateway.backup.take import backup as take

    settings = load_key_settings(
        backup_sign_key=sign_key, key_file=key_file, key_command=key_command
    )
    keys = keys_of(settings)
    signer = None if settings.backup_sign_key is None else Signer.load(settings.backup_sign_key)
    began = time.monotonic()
    with Bar(shown=not (json or quiet), many=False) as bar:
        manifest, chunks = with_synod(
            url,
            lambda synod: take(
                synod, folder, progress=bar, parallel=jobs, keys=keys, signer=signer
            ),
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


def keygen(
    file: Annotated[Path, typer.Argument(help="The private key's file.", metavar="FILE")],
    json: Json = False,
) -> None:
    """Make a pair of keys that signs backups: FILE signs, FILE.pub is what a restore trusts."""
    from gateway.backup.signatures import new_signing_key

    public, name = new_signing_key(file)
    if json:
        print_json({"private": str(file), "public": str(public), "key": name})
    else:
        note(f"{file} signs (synod backup --sign-key), {public} is to be trusted: key {name}")


def rewrap(
    folder: Annotated[Path, typer.Argument(help="The folder of a backup.", metavar="DIR")],
    key_file: KeyFile = None,
    key_command: KeyCommand = None,
    json: Json = False,
) -> None:
    """Close an encrypted backup by the first key of the file, and by no former one any more.

    Only the manifest is written: signature and contents stay as they are.
    """
    from gateway.backup.folder import BackupFolder

    keys = keys_of(load_key_settings(key_file=key_file, key_command=key_command))
    sealed = BackupFolder(folder, keys).rewrap().sealed
    assert sealed is not None
    if json:
        print_json({"key": sealed.wrapped_by})
    else:
        note(f"{folder} is opened by key {sealed.wrapped_by}")


def restore(
    folder: Annotated[Path, typer.Argument(help="The folder of a backup.", metavar="DIR")],
    data: Data = None,
    cluster: ClusterName = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only check the backup; write nothing.")
    ] = False,
    trusted_keys: Annotated[
        Path | None,
        typer.Option(
            "--trusted-keys",
            help="Restore only what one of these public keys signed (backup_trusted_keys).",
            metavar="FILE",
        ),
    ] = None,
    allow_unsigned: Annotated[
        bool,
        typer.Option(
            "--allow-unsigned", help="With trusted keys: take a backup that has no signature."
        ),
    ] = False,
    key_file: KeyFile = None,
    key_command: KeyCommand = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the data folders of a new cluster from a backup, for `synod up` or `synod node`.

    The whole backup is checked first, and refused if any part of it is damaged.
    """
    from broker.journal_folder import JournalError
    from gateway.backup.folder import BackupFolder
    from gateway.backup.restore import restore as write

    settings = load_settings(
        data=data,
        cluster=cluster,
        backup_trusted_keys=trusted_keys,
        key_file=key_file,
        key_command=key_command,
    )
    keys = keys_of(settings)
    trust = _trust(settings.backup_trusted_keys, allow_unsigned)
    source = BackupFolder(folder, keys, trust)
    shown = not (json or quiet)
    if verify:
        with Bar(shown=shown, many=False) as bar:
            bar.expect(1, source.manifest().chunks_bytes)
            manifest, _ = source.verify(bar.moved)
        if json:
            print_json({**manifest.model_dump(mode="json"), "whole": True})
        elif not quiet:
            note(f"{folder} is whole: {_about(manifest)}")
            _note_origin(manifest, trust, keys)
        return
    with Bar(shown=shown, many=False) as bar:
        # Everything is read twice: once to be checked, once to be written.
        bar.expect(1, 2 * source.manifest().chunks_bytes)
        try:
            done = write(
                folder,
                settings.data,
                settings.options(),
                settings.cluster,
                moved=bar.moved,
                keys=keys,
                trust=trust,
                encrypted=settings.encrypt_journals,
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
        _note_origin(manifest, trust, keys)
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


def _trust(keys: Path | None, unsigned: bool) -> "Trust | None":
    from gateway.backup.signatures import Trust

    if keys is not None:
        return Trust.load(keys, unsigned=unsigned)
    if unsigned:
        raise typer.BadParameter(
            "it goes with --trusted-keys (backup_trusted_keys); without them no signature is asked",
            param_hint="--allow-unsigned",
        )
    return None


def _note_origin(manifest: "Manifest", trust: "Trust | None", keys: "KeyRing | None") -> None:
    if keys is not None and manifest.sealed is None:
        note("it is not encrypted, though a key is set")
    signature = manifest.signature
    if signature is None:
        note("it is not signed: nothing shows who made it")
    elif trust is None:
        note(f"it claims to be signed by key {signature.key}; --trusted-keys would check that")
    else:
        note(f"it is signed by key {signature.key}")


def _about(manifest: "Manifest") -> str:
    return (
        f"{manifest.files} files, {size_text(manifest.files_bytes)}, as of slot {manifest.slot} of "
        f"cluster {manifest.cluster}"
    )
