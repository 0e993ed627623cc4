"""What `synod broker init` gives RabbitMQ: a user for each node, and the exchanges between them.

The form is RabbitMQ's own (`rabbitmqctl import_definitions`, POST `/api/definitions`): importing it
again changes nothing, and an element that it does not name stays as it is.

Permissions are regular expressions on the names of exchanges and queues. RabbitMQ searches with
them, so each is anchored at both ends, and not by `$`, which also matches before a final newline.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from actors.effects import Group
from actors.messages.permissions import role_in
from actors.options import ROLES, role_of
from broker.senders import exchanges_written_by
from broker.topology import CONTROL_TOPICS, CONTROL_TRACE, TRACE_TOPICS, Topology, trace_topic
from broker.transport import groups_of, has_bulk_lane

OPERATOR = "operator"
"""The user for the console: it sees everything there, and reads the quarantine."""

MONITORING = "monitoring"
"""The user for programs that watch RabbitMQ: it sees figures, and no message."""

SERVICES = (OPERATOR, MONITORING)

_TAGS = {OPERATOR: "monitoring", MONITORING: "monitoring"}
_SUFFIX = "[0-9a-f]{12}"
_NOTHING = "^$"
"""Matches an empty name only, which nothing has."""

Definitions = dict[str, Any]


def definitions_of(
    topology: Topology,
    passwords: Mapping[str, str],
    virtual_host: str = "/",
) -> Definitions:
    """For the nodes and services of `passwords`, of a topology with users of their own."""
    if not topology.own_users:
        raise ValueError("with a shared user nodes declare everything by themselves")
    nodes = [name for name in passwords if name not in SERVICES]
    return {
        "users": [_user(topology.user(name), name, each) for name, each in passwords.items()],
        "permissions": [
            {"user": topology.user(name), "vhost": virtual_host, **permissions_of(topology, name)}
            for name in passwords
        ],
        "topic_permissions": [
            {
                "user": topology.user(name),
                "vhost": virtual_host,
                "exchange": topology.events,
                **topic_permissions_of(name),
            }
            for name in passwords
        ],
        "exchanges": [
            {
                "name": name,
                "vhost": virtual_host,
                "type": kind,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for name, kind in exchanges_of(topology, nodes).items()
        ],
        "queues": [
            {
                "name": topology.quarantine_queue,
                "vhost": virtual_host,
                "durable": True,
                "auto_delete": False,
                "arguments": topology.quarantine_arguments(),
            }
        ],
        "bindings": [
            {
                "source": source,
                "vhost": virtual_host,
                "destination": destination,
                "destination_type": kind,
                "routing_key": key,
                "arguments": {},
            }
            for source, destination, kind, key in _bindings_of(topology, nodes)
        ],
    }


def exchanges_of(topology: Topology, nodes: Iterable[str]) -> dict[str, str]:
    """All exchanges of the cluster with their types."""
    return {
        topology.events: "topic",
        topology.quarantine: "fanout",
        **{topology.group(group): "fanout" for group in Group.ALL},
        **{topology.role(role): "direct" for role in ROLES},
        **{topology.inbox(node): "direct" for node in nodes},
    }


def _bindings_of(topology: Topology, nodes: Iterable[str]) -> Iterator[tuple[str, str, str, str]]:
    """Source, destination, its type, and the routing key of each."""
    yield topology.quarantine, topology.quarantine_queue, "queue", ""
    for node in nodes:
        inbox, role = topology.inbox(node), topology.role(role_of(node))
        yield role, inbox, "exchange", node
        if has_bulk_lane(node):
            yield role, inbox, "exchange", topology.bulk_key(node)
        for group in groups_of(node):
            yield topology.group(group), inbox, "exchange", ""
        yield topology.events, inbox, "exchange", CONTROL_TOPICS


def permissions_of(topology: Topology, name: str) -> dict[str, str]:
    """The expressions that say what a node or a service may configure, write and read."""
    if name == MONITORING:
        return {"configure": _NOTHING, "write": _NOTHING, "read": _NOTHING}
    if name == OPERATOR:
        quarantine = _any([rf"{re.escape(topology.prefix)}quarantine(\.replicated)?"])
        return {"configure": _NOTHING, "write": _NOTHING, "read": quarantine}
    queues = _own_queues(topology, name)
    exchanges = [re.escape(each) for each in sorted(exchanges_written_by(topology, name))]
    read = [re.escape(topology.inbox(name))]
    if role_of(name) == "gateway":
        read.append(re.escape(topology.events))
    return {
        "configure": _any(queues),
        # To bind a queue is to write to it.
        "write": _any([*exchanges, *queues]),
        "read": _any([*read, *queues]),
    }


def topic_permissions_of(name: str) -> dict[str, str]:
    """The topics of the events exchange to which it may publish, and to which it may subscribe."""
    role = role_in(name)
    if not role:
        return {"write": _NOTHING, "read": _NOTHING}
    topics = [re.escape(trace_topic(name))]
    if role != "gateway":
        return {"write": _any(topics), "read": _NOTHING}
    return {
        "write": _any([*topics, re.escape(CONTROL_TRACE)]),
        "read": _any([re.escape(TRACE_TOPICS)]),
    }


def _own_queues(topology: Topology, node: str) -> list[str]:
    """Of each kind: a node may change its kind, and deletes what it had before."""
    prefix, name = re.escape(topology.prefix), re.escape(node)
    bulk = r"(\.bulk)?" if has_bulk_lane(node) else ""
    queues = [
        rf"{prefix}{name}{bulk}(\.replicated|\.{_SUFFIX})?",
        rf"{prefix}delay\.{name}\.{_SUFFIX}\.[0-9]{{1,6}}",
    ]
    if role_of(node) == "gateway":
        queues.append(rf"{prefix}{name}\.events\.{_SUFFIX}")
    return queues


def _any(expressions: Iterable[str]) -> str:
    return rf"\A({'|'.join(expressions)})\z"


def _user(user: str, name: str, password: str) -> dict[str, Any]:
    return {
        "name": user,
        "password_hash": password_hash(password),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": _TAGS.get(name, ""),
    }


def password_hash(password: str, salt: bytes | None = None) -> str:
    """As RabbitMQ keeps it: a salt of four bytes and SHA-256, in Base64. The password is random and
    long, so no slow hash is needed; and so it is never sent.
    """
    salt = secrets.token_bytes(4) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
