"""The command `synod`. Exit codes: 0 done, 1 failed, 2 used wrongly.

Packages above this one add commands by entry points of the group `synod.commands`: each names a
callable that is given the typer application.
"""

import os
import sys
from importlib import import_module
from typing import Annotated, NoReturn

import typer

from gateway.console import note
from gateway.errors import SynodError
from gateway.paths import InvalidPath
from gateway.settings import SettingsError

FAILED = 1
MISUSED = 2

_MODULES = {
    "gateway.cli_cluster": ("up", "node", "config"),
    "gateway.cli_status": ("status",),
    "gateway.cli_backup": ("backup", "restore"),
    "gateway.cli_files": ("put", "get", "ls", "stat", "rm", "mkdir"),
    "gateway.cli_trace": ("trace",),
    "gateway.cli_firehose": ("firehose",),
    "gateway.cli_changes": ("mv", "cp", "txn", "watch"),
}
"""The commands of this package; each module's `register` adds its own."""


def build_cli(command: str = "") -> typer.Typer:
    """The application with all commands, those of other packages included.

    For a `command` that is known only what belongs to it is loaded: a cluster starts many
    processes, and none of them needs the simulator.
    """
    cli = typer.Typer(
        name="synod",
        help="A small, strongly consistent, replicated file system.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    cli.callback()(_root)
    own = {name: module for module, names in _MODULES.items() for name in names}
    for module in [own[command]] if command in own else _MODULES:
        import_module(module).register(cli)
    if command not in own:
        _add_commands_of_others(cli, command)
    return cli


def _add_commands_of_others(cli: typer.Typer, command: str) -> None:
    from importlib.metadata import entry_points

    points = sorted(entry_points(group="synod.commands"), key=lambda point: point.name)
    wanted = [point for point in points if point.name == command]
    for point in wanted or points:
        try:
            point.load()(cli)
        except Exception as error:
            note(f"synod: the commands of {point.value} can't be loaded: {error}")


def main() -> NoReturn:
    """Run the command line and end the process."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    # A shell that completes asks for all of them.
    completing = "_SYNOD_COMPLETE" in os.environ
    try:
        build_cli("" if completing else "".join(words[:1]))(args=arguments, prog_name="synod")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except (SettingsError, InvalidPath) as error:
        note(f"synod: {error}")
        return MISUSED
    except SynodError as error:
        note(f"synod: {error}")
        return FAILED
    except BrokenPipeError:
        # Whoever read the output has enough. Nothing more may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        note(f"synod: {where}{error.strerror or error}")
        return FAILED
    return 0


def _root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            is_eager=True,
            callback=lambda wanted: _print_version(wanted),
        ),
    ] = False,
) -> None:
    """A small, strongly consistent, replicated file system."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"synod {version('synod')}")
        raise typer.Exit


if __name__ == "__main__":
    main()
