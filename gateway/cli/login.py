"""Commands about sessions: login, logout, sessions."""

import os
import socket
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli import sessions as kept_sessions
from gateway.cli.calls import with_synod
from gateway.cli.console import note, out, print_json
from gateway.cli.files import Json, Timeout, Url
from gateway.cli.passwords import PasswordFile, read_password
from observability.safe_text import visible
from synod.client import DEFAULT_URL

_LABEL_MAX = 128
_HOUR_MS = 3_600_000


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command("login")(login)
    cli.command("logout")(logout)
    listed = typer.Typer(name="session", help="List and end sessions.", no_args_is_help=True)
    listed.command("ls")(ls)
    listed.command("revoke")(revoke)
    cli.add_typer(listed)


def login(
    user: Annotated[
        str | None,
        typer.Option("--user", "-u", help="Who you are. Without it: log in with an API token."),
    ] = None,
    password_file: PasswordFile = None,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Begin a session at this gateway's cluster, for later commands with the same --url.

    It is kept in sessions.json of the folder synod in the user's configuration, and is sent to this
    gateway only. SYNOD_TOKEN goes before it.
    """
    asked = "Password: " if user is not None else "Token: "
    secret = read_password(password_file, asked)
    label = f"synod login on {socket.gethostname()}"[:_LABEL_MAX]
    made = with_synod(
        url,
        lambda synod: (
            synod.log_in(user=user, password=secret, label=label)
            if user is not None
            else synod.log_in(token=secret, label=label)
        ),
        timeout=timeout,
        silent=json,
        token="",
    )
    path = kept_sessions.keep(url, made["token"])
    if json:
        print_json({"id": made["id"], "user": made["user"], "file": str(path)})
    elif os.environ.get("SYNOD_TOKEN"):
        note("synod: logged in; but SYNOD_TOKEN is set, and goes before the session")


def logout(url: Url = DEFAULT_URL, timeout: Timeout = None, json: Json = False) -> None:
    """End the session at this gateway's cluster, everywhere, and forget it."""
    token = kept_sessions.kept(url)
    if token is None:
        note("synod: there is no session for this gateway")
        return
    from synod.errors import Unauthorized

    try:
        with_synod(url, lambda synod: synod.log_out(), timeout=timeout, silent=json, token=token)
    except Unauthorized:
        note("synod: the session had ended before")
    kept_sessions.forget(url)


def ls(url: Url = DEFAULT_URL, timeout: Timeout = None, json: Json = False) -> None:
    """List your sessions; those of all, for who has admin on the root."""
    found = with_synod(url, lambda synod: synod.sessions(), timeout=timeout, silent=json)
    if json:
        print_json(found)
        return
    table = Table("id", "of", "label", "ends unused in", "ends in", box=None, pad_edge=False)
    for one in found:
        owner = one["user"] or f"token {one['token']}"
        idle, left = (one[name] / _HOUR_MS for name in ("idle_expires_in_ms", "expires_in_ms"))
        label = visible(one["label"]) + (" (this one)" if one["current"] else "")
        table.add_row(one["id"], owner, label, f"{idle:.1f} h", f"{left:.1f} h")
    out().print(table)


def revoke(
    session: Annotated[str, typer.Argument(help="The id of a session.")],
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """End a session: every later command and read of it is refused."""
    written = with_synod(
        url, lambda synod: synod.revoke_session(session), timeout=timeout, silent=json
    )
    if json:
        print_json({"id": session, "slot": written.slot})
