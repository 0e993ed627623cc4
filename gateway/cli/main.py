"""The command `synod`.

Exit codes: 0 done, 1 failed for certain, 2 used wrongly, 3 undecided (a write that may have
happened), 4 not found, 5 a precondition does not hold, 6 unavailable, 7 not allowed, 128 and the
number of the signal that ended it. A failure is one line on standard error: text, or with --json
an object.

Packages above this one add commands by entry points of the group `synod.commands`: each names a
callable that receives the typer application.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer

from gateway.cli.console import note, note_failure
from gateway.cli.exit_codes import FAILED, MISUSED, SIGNALLED, exit_code_of
from gateway.cli.signals import Ended, ended_by_signals
from gateway.cli.without_server import add_commands, is_of_server, reason_of
from gateway.errors import SettingsError
from synod.errors import SynodError
from synod.paths import InvalidPath

_CODES_HELP = (
    "Exit codes: 0 done, 1 failed for certain, 2 used wrongly, 3 undecided: a write may have "
    "happened, 4 not found, 5 a precondition does not hold, 6 unavailable, 7 not allowed."
)
_USAGE_ERROR: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""The error that typer raises for arguments that it can't parse, but does not export."""

_MODULES = {
    "gateway.cli.cluster": ("up", "node", "config"),
    "gateway.cli.status": ("status",),
    "gateway.cli.membership": ("members", "replace", "add", "remove"),
    "gateway.cli.broker": ("broker",),
    "gateway.cli.doctor": ("doctor",),
    "gateway.cli.backup": ("backup", "restore"),
    "gateway.cli.recover": ("recover",),
    "gateway.cli.key_options": ("keygen",),
    "gateway.cli.files": ("put", "get", "ls", "stat", "rm", "mkdir"),
    "gateway.cli.trace": ("trace",),
    "gateway.cli.firehose": ("firehose",),
    "gateway.cli.audit": ("audit",),
    "gateway.cli.quotas": ("quota",),
    "gateway.cli.tokens": ("token", "whoami"),
    "gateway.cli.users": ("user",),
    "gateway.cli.login": ("login", "logout", "session"),
    "gateway.cli.transactions": ("mv", "cp", "txn", "watch"),
}
"""The commands of this package; each module's `register` adds its own."""

_ENDED_AT_ONCE = frozenset(
    name for module, names in _MODULES.items() for name in names if module != "gateway.cli.cluster"
)


def build_cli(command: str = "") -> typer.Typer:
    """The application with all commands, those of other packages included.

    For a known `command` only its own modules are loaded: a cluster starts many processes, and none
    of them needs the simulator.
    """
    cli = typer.Typer(
        name="synod",
        help="A small, strongly consistent, replicated file system.",
        epilog=_CODES_HELP,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    cli.callback()(_root)
    own = {name: module for module, names in _MODULES.items() for name in names}
    for module in [own[command]] if command in own else _MODULES:
        add_commands(cli, _MODULES[module], partial(_register_of, module))
    if command not in own:
        _add_commands_of_others(cli, command)
    return cli


def _register_of(module: str) -> Callable[[typer.Typer], None]:
    register: Callable[[typer.Typer], None] = import_module(module).register
    return register


def _add_commands_of_others(cli: typer.Typer, command: str) -> None:
    from importlib.metadata import entry_points

    points = sorted(entry_points(group="synod.commands"), key=lambda point: point.name)
    wanted = [point for point in points if point.name == command]
    for point in wanted or points:
        try:
            add_commands(cli, [point.name], point.load)
        except Exception as error:
            note(f"synod: the commands of {point.value} can't be loaded: {error}")


def main() -> NoReturn:
    """Run the command line and end the process."""
    _prepare_streams()
    code = run()
    # The failure to write was reported. The interpreter must not try, and fail, once more.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in words[: words.index("--") if "--" in words else None]
    try:
        return _run(words, arguments)
    except _USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            context = getattr(error, "ctx", None)
            of = f"{context.command_path}: " if context is not None else "synod: "
            hint = f" (see {context.command_path} --help)" if context is not None else ""
            _tell(f"{error.format_message()}{hint}", MISUSED, "usage", as_json, before=of)
        return MISUSED
    except (SettingsError, InvalidPath) as error:
        return _tell(f"{error}", MISUSED, "usage", as_json)
    except SynodError as error:
        code = exit_code_of(error)
        kind = error.kind or type(error).__name__
        return _tell(f"{error}", code, kind, as_json, error.problem)
    except Ended as end:
        name = signal.Signals(end.number).name
        text = f"ended by {name}: what was under way may have happened, in part or whole"
        return _tell(text, SIGNALLED + end.number, "interrupted", as_json)
    except BrokenPipeError:
        return _tell("the reader of the output closed it before its end", FAILED, "os", as_json)
    except OSError as error:
        # Errors of files that this command opened have a name; those of standard streams have none.
        where = error.filename or "standard input or output"
        return _tell(f"{where}: {error.strerror or error}", FAILED, "os", as_json)
    except Exception as error:
        if os.environ.get("SYNOD_TRACEBACK"):
            raise
        if isinstance(error, ModuleNotFoundError) and is_of_server(error):
            return _tell(reason_of(error, words[0]), MISUSED, "usage", as_json)
        text = (
            f"Synod failed by an internal error: {type(error).__name__}: {error}. The request may "
            "have happened. SYNOD_TRACEBACK=1 shows where; please report it"
        )
        return _tell(text, FAILED, "internal", as_json)


def _run(words: list[str], arguments: list[str] | None) -> int:
    command = "".join(words[:1])
    # Shell completion needs all of them.
    cli = build_cli("" if "_SYNOD_COMPLETE" in os.environ else command)
    # Clusters, and the commands that break them, handle signals themselves.
    ending = ended_by_signals() if command in _ENDED_AT_ONCE else contextlib.nullcontext()
    with ending:
        try:
            code = cli(args=arguments, prog_name="synod", standalone_mode=False)
        except Ended:
            raise
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else FAILED
        except typer.Abort:
            code = FAILED
        _flush_output()
    return code if isinstance(code, int) else 0


def _flush_output() -> None:
    """Flush the output: only then may the command report success. Raises `OSError`."""
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def _tell(
    text: str,
    code: int,
    kind: str,
    as_json: bool,
    problem: dict[str, Any] | None = None,
    *,
    before: str = "synod: ",
) -> int:
    """Print one line about a failure; returns the exit code."""
    line = " ".join(text.split())
    if as_json:
        note_failure({"error": line, "kind": kind, "exit_code": code, "problem": problem or None})
    else:
        note(before + line)
    return code


def _prepare_streams() -> None:
    """Make text UTF-8 whatever the locale; a name that is not UTF-8 is written as it was read. A
    closed standard stream is replaced by one that fails, so that no file or connection gets its
    number.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, flags), number)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors=errors)


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
