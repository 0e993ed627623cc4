"""Commands about API tokens: token, whoami."""

import re
from typing import Annotated, Any

import typer
from rich.table import Table

from gateway.cli.calls import with_synod
from gateway.cli.console import out, print_json
from gateway.cli.files import Json, Timeout, Url, remote
from observability.safe_text import visible
from synod.client import DEFAULT_URL

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

Grants = Annotated[
    list[str] | None,
    typer.Option(
        "--grant",
        "-g",
        metavar="ROLE[:PATH]",
        help="read, write or admin on PATH and all below it, or on /; operate; backup. "
        "May be repeated.",
    ),
]


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    token = typer.Typer(
        name="token", help="Make, list and revoke API tokens.", no_args_is_help=True
    )
    for name, command in (("create", create), ("ls", ls), ("revoke", revoke)):
        token.command(name)(command)
    cli.add_typer(token)
    cli.command("whoami")(whoami)


def create(
    label: Annotated[str, typer.Argument(help="What the token is for.")],
    grant: Grants = None,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A group, whose grants it has. May be repeated."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="As 30d, 12h, 15m or 90s, of time in which the cluster runs."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Make a token and print it, this once: put it into SYNOD_TOKEN to use it."""
    grants = [grant_of(text) for text in grant or ()]
    expires_after_ms = None if expires is None else _milliseconds(expires)
    made = with_synod(
        url,
        lambda synod: synod.create_token(
            label, grants, expires_after_ms=expires_after_ms, groups=group or ()
        ),
        timeout=timeout,
        silent=json,
    )
    if json:
        print_json(made)
    else:
        out().print(made["token"], markup=False)


def ls(url: Url = DEFAULT_URL, timeout: Timeout = None, json: Json = False) -> None:
    """List the tokens that the caller may revoke."""
    tokens = with_synod(url, lambda synod: synod.tokens(), timeout=timeout, silent=json)
    if json:
        print_json(tokens)
        return
    table = Table("id", "label", "grants", "expires in", box=None, pad_edge=False)
    for one in tokens:
        table.add_row(one["id"], visible(one["label"]), *_about(one))
    out().print(table)


def revoke(
    token: Annotated[str, typer.Argument(help="The id of a token.")],
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Revoke a token: every later command and read of it is refused."""
    written = with_synod(url, lambda synod: synod.revoke_token(token), timeout=timeout, silent=json)
    if json:
        print_json({"id": token, "slot": written.slot})


def whoami(url: Url = DEFAULT_URL, timeout: Timeout = None, json: Json = False) -> None:
    """Print who the caller is, and what it may do."""
    me = with_synod(url, lambda synod: synod.whoami(), timeout=timeout, silent=json)
    if json:
        print_json(me)
    elif me["administrator"]:
        out().print("the administrator: everything")
    elif me["session"] is not None:
        user, session = me["user"], me["session"]
        who = f"token {session['token']}" if user["name"] is None else f"user {user['name']}"
        groups = "".join(f", group {name}" for name in user["groups"])
        text = f"{who}{groups}: {grants_text(user) or 'nothing'}; session {session['id']}"
        out().print(visible(text), markup=False)
    else:
        grants, left = _about(me["token"])
        text = f"token {me['token']['id']} ({me['token']['label']}): {grants}; expires: {left}"
        out().print(visible(text), markup=False)


def grant_of(text: str) -> dict[str, str]:
    """The grant that `ROLE[:PATH]` names."""
    role, _, path = text.partition(":")
    return {"role": role, "path": remote(path)}


def _milliseconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time such as 30d, 12h, 15m, 90s")
    return int(found[1]) * _UNITS_MS[found[2]]


def grants_text(item: dict[str, Any]) -> str:
    """The grants of a token, user or group, as they are given on the command line."""
    return ", ".join(
        one["role"] if one["role"] in ("operate", "backup") else f"{one['role']}:/{one['path']}"
        for one in item["grants"]
    )


def _about(token: dict[str, Any]) -> tuple[str, str]:
    groups = [f"group {name}" for name in token.get("groups", ())]
    grants = ", ".join(filter(None, (grants_text(token), *groups)))
    left_ms = token["expires_in_ms"]
    return visible(grants), "never" if left_ms is None else f"{left_ms / 3_600_000:.1f} h"
