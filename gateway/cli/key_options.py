"""Options and commands about keys: of what lies encrypted on a disk, and of signed backups."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.console import note, print_json
from gateway.cli.files import Json
from gateway.settings import KeySettings
from synod.errors import SynodError

if TYPE_CHECKING:
    from broker.keys import KeyRing

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", help="Encrypt, or decrypt, with these keys (key_file).", metavar="FILE"
    ),
]
KeyCommand = Annotated[
    str | None,
    typer.Option(
        "--key-command", help="With the keys that it prints (key_command).", metavar="COMMAND"
    ),
]


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("keygen")(keygen)


def keygen(
    file: Annotated[Path, typer.Argument(help="New, or a file of keys.", metavar="FILE")],
    json: Json = False,
) -> None:
    """Make a key for key_file: what Synod writes to disk is then encrypted.

    In a file that holds keys the new one becomes the first, which is the one that is used; the
    others still open what they closed. Lose none of them: nothing else opens it.
    """
    from broker.keys import KeysRefused, new_key

    try:
        made = new_key(file)
    except KeysRefused as error:
        raise SynodError(f"{error}") from None
    if json:
        print_json({"key": made, "file": str(file)})
    else:
        note(f"{file} begins with the new key {made}. Keep a copy, and not with what it closes")


def keys_of(settings: KeySettings) -> "KeyRing | None":
    """The keys of the settings, if there are any. Raises `SynodError`."""
    from broker.keys import KeyRing, KeysRefused

    try:
        return KeyRing.load(settings.key_file, settings.key_command)
    except KeysRefused as error:
        raise SynodError(f"{error}") from None
