"""Commands about RabbitMQ: broker init."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import unquote, urlsplit

import typer

from actors.options import role_of
from gateway.cli.cluster import Broker, ClusterName, Json
from gateway.cli.console import note, out, print_json
from gateway.cli.exit_codes import FAILED
from gateway.errors import SettingsError
from gateway.settings import Settings, load_settings

_ADMIN = "SYNOD_BROKER_ADMIN"


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    broker = typer.Typer(
        name="broker", help="Prepare RabbitMQ for a cluster.", no_args_is_help=True
    )
    # Without a second command typer would take `init` for the whole of it.
    broker.callback()(_root)
    broker.command("init")(init)
    cli.add_typer(broker)


def _root() -> None:
    """Prepare RabbitMQ for a cluster."""


def init(
    credentials: Annotated[
        Path, typer.Option(help="The folder for the files with passwords.", metavar="DIR")
    ] = Path("synod-broker"),
    gateways: Annotated[int, typer.Option(min=0, max=99, help="gateway-1 to gateway-N.")] = 1,
    member: Annotated[
        list[str] | None,
        typer.Option(
            help="A member beyond those of the founding, as store-4; may be repeated.",
            metavar="NAME",
        ),
    ] = None,
    rotate: Annotated[
        list[str] | None,
        typer.Option(
            help="Give this node (or service, or all) a new password, and close its connections; "
            "may be repeated.",
            metavar="NAME",
        ),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            help="Delete the user of this node, and close its connections; may be repeated.",
            metavar="NAME",
        ),
    ] = None,
    management: Annotated[
        str | None,
        typer.Option(help="RabbitMQ's management API.", metavar="URL"),
    ] = None,
    admin_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with user:password of an administrator of RabbitMQ. Else "
            f"{_ADMIN} holds them; else those of `broker` are taken.",
            metavar="FILE",
        ),
    ] = None,
    definitions: Annotated[
        Path | None,
        typer.Option(
            help="Ask no API: write this file, for `rabbitmqctl import_definitions`.",
            metavar="FILE",
        ),
    ] = None,
    broker: Broker = None,
    cluster: ClusterName = None,
    json: Json = False,
) -> None:
    """Make a RabbitMQ user for each node, with a password of its own and no right but its own.

    It may be repeated: what exists stays, and so do passwords.
    """
    # Imported here, because a client's commands need no broker.
    from broker.broker_setup import Setup, prepare
    from broker.credentials import BadCredentials
    from broker.management import ManagementApi, ManagementRefused
    from broker.topology import Topology

    settings = load_settings(broker=broker, cluster=cluster)
    if settings.broker.startswith("memory:"):
        raise typer.BadParameter("the embedded broker has no users: --broker amqp://…")
    topology = Topology(settings.cluster, settings.queues, "own")
    members = settings.options().members
    added = _added(member or (), members)
    names = (*members, *added, *(f"gateway-{number}" for number in range(1, gateways + 1)))
    setup = Setup(
        topology=topology,
        nodes=names,
        folder=credentials,
        broker=settings.broker,
        rotate=frozenset(rotate or ()),
        remove=frozenset(_nodes(remove or (), names)),
    )
    try:
        if definitions is not None:
            if remove:
                raise typer.BadParameter(
                    "definitions delete nothing: use `rabbitmqctl delete_user`",
                    param_hint="--remove",
                )
            done = prepare(setup, definitions)
        else:
            address, admin = _management(settings, management, admin_file)
            with ManagementApi(address, admin.user, admin.password, settings.broker_tls) as api:
                done = prepare(setup, api)
    except (BadCredentials, ManagementRefused) as error:
        note(f"synod: {error}")
        raise typer.Exit(FAILED) from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if json:
        print_json(done._asdict())
        return
    where = f"written to {definitions}" if definitions else "made"
    console = out()
    console.print(
        f"{len(done.users)} users and the exchanges of {topology.cluster} are {where}; their "
        f"passwords are in {credentials}",
        markup=False,
    )
    if done.new_passwords:
        console.print(f"new passwords: {', '.join(done.new_passwords)}", markup=False)
    if done.removed:
        console.print(f"removed: {', '.join(done.removed)}", markup=False)
    if done.others:
        console.print(
            f"other users of this cluster: {', '.join(done.others)}; --remove deletes them",
            markup=False,
        )


class _Administrator(NamedTuple):
    user: str
    password: str


def _management(
    settings: Settings, management: str | None, admin_file: Path | None
) -> tuple[str, _Administrator]:
    from broker.addresses import split_urls
    from broker.firehose import management_url_of

    first = split_urls(settings.broker)[0]
    parts = urlsplit(first)
    admin = _Administrator(unquote(parts.username or "guest"), unquote(parts.password or "guest"))
    text = admin_file.read_text("utf-8").strip() if admin_file else os.environ.get(_ADMIN, "")
    if text:
        user, colon, password = text.partition(":")
        if not colon or not password or "\n" in text:
            raise SettingsError(f"{admin_file or _ADMIN} must hold user:password")
        admin = _Administrator(user, password)
    return management or management_url_of(first), admin


def _added(given: Sequence[str], founding: tuple[str, ...]) -> list[str]:
    """The members that the settings don't name: those are what the cluster was founded with."""
    for name in given:
        try:
            role = role_of(name)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--member") from None
        if role == "gateway":
            raise typer.BadParameter("gateways are counted: --gateways", param_hint="--member")
    return [name for name in dict.fromkeys(given) if name not in founding]


def _nodes(removed: list[str] | tuple[str, ...], kept: tuple[str, ...]) -> list[str]:
    for name in removed:
        try:
            role_of(name)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--remove") from None
        if name in kept:
            raise typer.BadParameter(
                f"{name} belongs to the cluster by the settings", param_hint="--remove"
            )
    return list(removed)
