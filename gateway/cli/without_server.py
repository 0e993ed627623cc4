"""Stand-ins for the server's commands if only the client is installed: they say what to install."""

import sys
from collections.abc import Callable, Iterable

import typer

INSTALL = "pip install 'synod[server]'"
_OWN = frozenset({"actors", "broker", "chaos", "gateway", "observability", "synod"})


def is_of_server(error: ModuleNotFoundError) -> bool:
    """Whether the missing module belongs to a package that the server depends on.

    A missing module of Synod or of Python is a bug, which no installation mends.
    """
    package = (error.name or "").partition(".")[0]
    return package not in _OWN and package not in sys.stdlib_module_names


def add_commands(
    cli: typer.Typer, names: Iterable[str], load: Callable[[], Callable[[typer.Typer], None]]
) -> None:
    """Add the commands `names` by `load`; without the server, stand-ins that say why."""
    try:
        load()(cli)
    except ModuleNotFoundError as error:
        if not is_of_server(error):
            raise
        for name in names:
            _add_substitute(cli, name, error)


def reason_of(error: ModuleNotFoundError, command: str) -> str:
    """The message to the user."""
    return f"{command} needs the server, and {error.name} is not installed: {INSTALL}"


def _add_substitute(cli: typer.Typer, name: str, missing: ModuleNotFoundError) -> None:
    def fail() -> None:
        raise missing

    cli.command(
        name,
        help="Needs the server, which is not installed.",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(fail)
