"""The options by which every command that asks a gateway names its certificates."""

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from synod.tls import CA_CERT, CLIENT_CERT, CLIENT_KEY

_File = str | None
_OPTIONS: dict[str, tuple[str, Any]] = {
    "ca_cert": (
        CA_CERT,
        Annotated[
            _File,
            typer.Option(
                "--ca-cert",
                help="The CA of an https gateway, in PEM [env var: SYNOD_CA_CERT].",
                metavar="FILE",
            ),
        ],
    ),
    "client_cert": (
        CLIENT_CERT,
        Annotated[
            _File,
            typer.Option(
                "--client-cert",
                help="The certificate to show to it [env var: SYNOD_CLIENT_CERT].",
                metavar="FILE",
            ),
        ],
    ),
    "client_key": (
        CLIENT_KEY,
        Annotated[
            _File,
            typer.Option(
                "--client-key",
                help="Its private key [env var: SYNOD_CLIENT_KEY].",
                metavar="FILE",
            ),
        ],
    ),
}


def tls_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with these options; they reach its clients as the environment does."""

    @functools.wraps(command)
    def run(*arguments: Any, **named: Any) -> Any:
        files = {variable: named.pop(name, None) for name, (variable, _) in _OPTIONS.items()}
        with _environment({name: file for name, file in files.items() if file is not None}):
            return command(*arguments, **named)

    own = inspect.signature(command)
    run.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[
            *own.parameters.values(),
            *(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind
                )
                for name, (_, kind) in _OPTIONS.items()
            ),
        ]
    )
    run.__annotations__ = {
        **command.__annotations__,
        **{name: kind for name, (_, kind) in _OPTIONS.items()},
    }
    return run


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    former = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
