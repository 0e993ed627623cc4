"""The files with the password of each user on the broker: one for each node, for it alone.

    FOLDER/
      store-1.env        SYNOD_CLUSTER, SYNOD_BROKER (with user and password), SYNOD_BROKER_USERS
      …
      operator.env       for people, at RabbitMQ's console
      monitoring.env     for programs that watch RabbitMQ

A file is an environment, as systemd's `EnvironmentFile`, `docker --env-file` and shells read it;
the setting `broker_credentials` names it, too.

The files hold the only copies: RabbitMQ keeps hashes.
"""

import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from broker.addresses import split_urls
from broker.journal_folder import PRIVATE_FILE, make_private
from broker.topology import Topology

_PASSWORD_BYTES = 24
_VARIABLES = {
    "SYNOD_CLUSTER": "cluster",
    "SYNOD_BROKER": "broker",
    "SYNOD_BROKER_USERS": "broker_users",
}
"""What a file sets: the names of the settings by those of the environment."""
_BROKER = re.compile(r"(?m)^SYNOD_BROKER=(?P<broker>.*)$")


class BadCredentials(ValueError):
    """A file is none that `synod broker init` wrote; the text names it."""


def drawn_password() -> str:
    """A new one: 192 random bits, in letters, digits, hyphens and underscores."""
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def read_passwords(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The passwords of those users that have a file. Raises `BadCredentials` or `OSError`."""
    found = {}
    for name in names:
        path = path_of(folder, name)
        if path.exists():
            found[name] = _read_password(path)
    return found


def _read_password(path: Path) -> str:
    line = _BROKER.search(path.read_text("utf-8"))
    urls = split_urls(line["broker"]) if line else ()
    password = urlsplit(urls[0]).password if urls else None
    if not password:
        raise BadCredentials(f"{path} has no SYNOD_BROKER with a password; remove it")
    return password


def write_passwords(
    folder: Path, topology: Topology, urls: Sequence[str], passwords: Mapping[str, str]
) -> None:
    """Write each file that is not as it has to be, whole or not at all. Raises `OSError`.

    `urls` are those of the brokers; users and passwords in them are replaced.
    """
    make_private(folder)
    for name, password in passwords.items():
        broker = ",".join(_with_user(url, topology.user(name), password) for url in urls)
        text = (
            "# Written by synod broker init. Whoever reads this file can act as this user.\n"
            f"SYNOD_CLUSTER={topology.cluster}\n"
            f"SYNOD_BROKER={broker}\n"
            f"SYNOD_BROKER_USERS={topology.users}\n"
        )
        _write(path_of(folder, name), text)


def environment_of(folder: Path, name: str) -> dict[str, str]:
    """The variables in the file of a node. Raises `OSError`."""
    return _variables_in(path_of(folder, name))


def settings_in(path: Path) -> dict[str, str]:
    """The settings in a node's file, by their names. Raises `BadCredentials` or `OSError`."""
    given = _variables_in(path)
    if set(given) != set(_VARIABLES):
        raise BadCredentials(f"{path} is no file that synod broker init wrote for a node")
    return {_VARIABLES[variable]: value for variable, value in given.items()}


def _variables_in(path: Path) -> dict[str, str]:
    lines = path.read_text("utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if not line.startswith("#")]
    return {name: value for name, _, value in pairs}


def path_of(folder: Path, name: str) -> Path:
    """The file of a node or a service."""
    return folder / f"{name}.env"


def write_private(path: Path, text: str) -> None:
    """Write a file for its owner alone, at once: a reader gets the former one or this one."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text("utf-8") != text:
        write_private(path, text)
    elif path.stat().st_mode & 0o777 != PRIVATE_FILE:
        path.chmod(PRIVATE_FILE)


def _with_user(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}:{password}@{host}").geturl()
