"""How a command gets a password: asked for on the terminal, or from a file.

It is no argument, which other users of the machine could see.
"""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

PasswordFile = Annotated[
    str | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="Read it from the first line of FILE; - is standard input. Without it, it is asked "
        "for.",
    ),
]


def read_password(file: str | None, prompt: str, *, twice: bool = False) -> str:
    """The password. Raises `typer.BadParameter` if there is none."""
    if file is not None:
        if file == "-":
            text = sys.stdin.readline()
        else:
            with Path(file).open(encoding="utf-8") as opened:
                text = opened.readline()
        return _some(text.rstrip("\r\n"))
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask at", param_hint="--password-file")
    first = getpass.getpass(prompt)
    if twice and getpass.getpass("Once more: ") != first:
        raise typer.BadParameter("these were two different passwords", param_hint="password")
    return _some(first)


def _some(text: str) -> str:
    if not text:
        raise typer.BadParameter("it is empty", param_hint="password")
    return text
