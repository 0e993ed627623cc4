"""Commands about users and groups: user, user group."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.calls import with_synod
from gateway.cli.console import out, print_json
from gateway.cli.files import Json, Timeout, Url
from gateway.cli.passwords import PasswordFile, read_password
from gateway.cli.tokens import grant_of, grants_text
from observability.safe_text import visible
from synod.client import DEFAULT_URL, AsyncClient
from synod.entries import Written

Name = Annotated[str, typer.Argument(help="The name of a user.")]
GroupName = Annotated[str, typer.Argument(help="The name of a group.")]
Grants = Annotated[
    list[str],
    typer.Argument(metavar="ROLE[:PATH]...", help="As write:/src, or operate."),
]
GivenGrants = Annotated[
    list[str] | None,
    typer.Option("--grant", "-g", metavar="ROLE[:PATH]", help="A grant. May be repeated."),
]


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    user = typer.Typer(name="user", help="Make and change users and groups.", no_args_is_help=True)
    for name, command in (
        ("add", add),
        ("ls", ls),
        ("set-password", set_password),
        ("grant", grant),
        ("revoke", revoke),
        ("join", join),
        ("leave", leave),
        ("rm", rm),
    ):
        user.command(name)(command)
    group = typer.Typer(
        name="group", help="Make and change groups, whose grants users share.", no_args_is_help=True
    )
    for name, of_group in (
        ("add", add_group),
        ("ls", ls_groups),
        ("grant", grant_group),
        ("revoke", revoke_group),
        ("rm", rm_group),
    ):
        group.command(name)(of_group)
    user.add_typer(group)
    cli.add_typer(user)


def add(
    name: Name,
    grant: GivenGrants = None,
    group: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A group. May be repeated.")
    ] = None,
    password_file: PasswordFile = None,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Nobody can log in as this user yet.")
    ] = False,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Make a user."""
    grants = [grant_of(text) for text in grant or ()]
    password = None if no_password else read_password(password_file, "Password: ", twice=True)
    made = with_synod(
        url,
        lambda synod: synod.create_user(name, password, grants=grants, groups=group or ()),
        timeout=timeout,
        silent=json,
    )
    if json:
        print_json(made)


def ls(url: Url = DEFAULT_URL, timeout: Timeout = None, json: Json = False) -> None:
    """List the users."""
    users = with_synod(url, lambda synod: synod.users(), timeout=timeout, silent=json)
    if json:
        print_json(users)
        return
    table = Table("name", "grants", "groups", "password", box=None, pad_edge=False)
    for one in users:
        password = "yes" if one["has_password"] else "no"
        table.add_row(one["name"], visible(grants_text(one)), ", ".join(one["groups"]), password)
    out().print(table)


def set_password(
    name: Name,
    password_file: PasswordFile = None,
    current: Annotated[
        bool, typer.Option("--current", help="Ask for the current one, too: it is your own.")
    ] = False,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Set a password, which ends all sessions of the user; your own with --current."""
    former = read_password(None, "Current password: ") if current else None
    password = read_password(password_file, "New password: ", twice=True)
    with_synod(
        url,
        lambda synod: synod.set_password(name, password, current=former),
        timeout=timeout,
        silent=json,
    )


def grant(
    name: Name,
    grants: Grants,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Grant roles to a user."""
    given = [grant_of(text) for text in grants]
    _changed(url, lambda synod: synod.change_user(name, grant=given), timeout, json)


def revoke(
    name: Name,
    grants: Grants,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Revoke grants of a user's own: every later command and read is judged without them."""
    given = [grant_of(text) for text in grants]
    _changed(url, lambda synod: synod.change_user(name, revoke=given), timeout, json)


def join(
    name: Name,
    groups: Annotated[list[str], typer.Argument(help="Groups.")],
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Put a user into groups."""
    _changed(url, lambda synod: synod.change_user(name, join=groups), timeout, json)


def leave(
    name: Name,
    groups: Annotated[list[str], typer.Argument(help="Groups.")],
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Take a user out of groups."""
    _changed(url, lambda synod: synod.change_user(name, leave=groups), timeout, json)


def rm(name: Name, url: Url = DEFAULT_URL, timeout: Timeout = None, json: Json = False) -> None:
    """Remove a user, with all of its sessions."""
    _changed(url, lambda synod: synod.remove_user(name), timeout, json)


def add_group(
    name: GroupName,
    grant: GivenGrants = None,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Make a group."""
    grants = [grant_of(text) for text in grant or ()]
    made = with_synod(
        url, lambda synod: synod.create_group(name, grants), timeout=timeout, silent=json
    )
    if json:
        print_json(made)


def ls_groups(url: Url = DEFAULT_URL, timeout: Timeout = None, json: Json = False) -> None:
    """List the groups."""
    groups = with_synod(url, lambda synod: synod.groups(), timeout=timeout, silent=json)
    if json:
        print_json(groups)
        return
    table = Table("name", "grants", box=None, pad_edge=False)
    for one in groups:
        table.add_row(one["name"], visible(grants_text(one)))
    out().print(table)


def grant_group(
    name: GroupName,
    grants: Grants,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Grant roles to all in a group."""
    given = [grant_of(text) for text in grants]
    _changed(url, lambda synod: synod.change_group(name, grant=given), timeout, json)


def revoke_group(
    name: GroupName,
    grants: Grants,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Revoke grants of a group."""
    given = [grant_of(text) for text in grants]
    _changed(url, lambda synod: synod.change_group(name, revoke=given), timeout, json)


def rm_group(
    name: GroupName, url: Url = DEFAULT_URL, timeout: Timeout = None, json: Json = False
) -> None:
    """Remove a group: nobody is in a later one of its name."""
    _changed(url, lambda synod: synod.remove_group(name), timeout, json)


def _changed(
    url: str,
    change: Callable[[AsyncClient], Awaitable[Written]],
    timeout: float | None,
    json: bool,
) -> None:
    written = with_synod(url, change, timeout=timeout, silent=json)
    if json:
        print_json({"slot": written.slot})
