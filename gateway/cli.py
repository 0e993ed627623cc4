"""The command `synod`. Exit codes: 0 done, 1 failed, 2 used wrongly.

Packages above this one add commands by entry points of the group `synod.commands`: each names a
callable that is given the typer application.
"""

import os
import sys
from importlib.metadata import entry_points, version
from typing import Annotated, NoReturn

import typer

from gateway import cli_backup, cli_changes, cli_cluster, cli_files, cli_firehose, cli_trace
from gateway.console import note
from gateway.errors import SynodError
from gateway.paths import InvalidPath
from gateway.settings import SettingsError

FAILED = 1
MISUSED = 2


def build_cli() -> typer.Typer:
    """The application with all commands, those of other packages included."""
    cli = typer.Typer(
        name="synod",
        help="A small, strongly consistent, replicated file system.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    cli.callback()(_root)
    cli_cluster.register(cli)
    cli_backup.register(cli)
    cli_files.register(cli)
    cli_trace.register(cli)
    cli_firehose.register(cli)
    cli_changes.register(cli)
    for point in sorted(entry_points(group="synod.commands"), key=lambda point: point.name):
        try:
            point.load()(cli)
        except Exception as error:
            note(f"synod: the commands of {point.value} can't be loaded: {error}")
    return cli


def main() -> NoReturn:
    """Run the command line and end the process."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        build_cli()(args=arguments, prog_name="synod")
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
        typer.echo(f"synod {version('synod')}")
        raise typer.Exit


if __name__ == "__main__":
    main()
