"""Prepares RabbitMQ for a cluster whose nodes are users of their own: `synod broker init`.

The files with passwords are written first, and RabbitMQ is set to what they hold. So whatever
interrupts it, a repetition completes it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from broker.addresses import split_urls
from broker.credentials import (
    drawn_password,
    path_of,
    read_passwords,
    write_passwords,
    write_private,
)
from broker.definitions import SERVICES, definitions_of
from broker.management import ManagementApi
from broker.topology import Topology

ALL = "all"


@dataclass(frozen=True, slots=True)
class Setup:
    """What is wanted. `broker` is the setting; `rotate` names nodes, services, or `all`."""

    topology: Topology
    nodes: tuple[str, ...]
    folder: Path
    broker: str
    rotate: frozenset[str] = frozenset()
    remove: frozenset[str] = frozenset()


class SetupResult(NamedTuple):
    """What was done, by the names of nodes and services; no password.

    `others` have a user of this cluster's and were not asked for.
    """

    users: list[str]
    new_passwords: list[str]
    removed: list[str]
    others: list[str]


def prepare(setup: Setup, target: ManagementApi | Path) -> SetupResult:
    """Prepare RabbitMQ by its API, or write a file that it can import.

    Raises `BadCredentials`, `ManagementRefused`, `OSError`, or `ValueError` for unknown names to
    rotate.
    """
    topology, folder = setup.topology, setup.folder
    names = (*setup.nodes, *SERVICES)
    if unknown := setup.rotate - {*names, ALL}:
        raise ValueError(f"there is no {', '.join(sorted(unknown))} among {', '.join(names)}")
    rotated = set(names) if ALL in setup.rotate else set(setup.rotate)
    known = read_passwords(folder, names)
    new = [name for name in names if name in rotated or name not in known]
    passwords = {name: drawn_password() if name in new else known[name] for name in names}
    urls = split_urls(setup.broker)
    write_passwords(folder, topology, urls, passwords)
    virtual_host = unquote(urlsplit(urls[0]).path[1:]) or "/"
    definitions = definitions_of(topology, passwords, virtual_host)
    if isinstance(target, Path):
        write_private(target, json.dumps(definitions, indent=1) + "\n")
        return SetupResult(list(names), new, [], [])
    present = target.users()
    removed = sorted(setup.remove)
    # With its user RabbitMQ ends a user's connections, which outlive the password otherwise.
    for name in sorted(rotated | setup.remove):
        if topology.user(name) in present:
            target.delete_user(topology.user(name))
    target.import_definitions(definitions)
    for name in removed:
        path_of(folder, name).unlink(missing_ok=True)
    own = {topology.user(name) for name in (*names, *removed)}
    others = [
        user.removeprefix(topology.prefix)
        for user in sorted(present - own)
        if user.startswith(topology.prefix)
    ]
    return SetupResult(list(names), new, removed, others)
