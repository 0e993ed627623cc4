"""The names of a cluster's exchanges and queues on the broker (design 6)."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from actors.effects import Group
from actors.numbers import Milliseconds
from actors.options import role_of
from broker.transport import groups_of, has_bulk_lane

DELIVERY_LIMIT = 1_000_000
"""After so many redeliveries a quorum queue drops a message (from RabbitMQ 4.0 on: after 20 unless
told otherwise). A node sends what it can't read to quarantine by itself, and each lost session
redelivers what was on its way.
"""

QueueKind = Literal["named", "session", "quorum"]
"""How a cluster's queues are kept.

`named`: classic, durable, one for each node, for a single broker: the console shows plain names.
`session`: exclusive to a connection and gone with it, on the broker that the node is connected to,
for a cluster of brokers: what is lost with a broker, the protocol sends again.
`quorum`: replicated by the brokers, for rules that want so: several times as much work for them.
"""

BrokerUsers = Literal["shared", "own"]
"""As whom nodes log on to the broker.

`shared`: as one user, so that whoever has its password is any node.
`own`: each as a user of its own, which `synod broker init` makes together with the exchanges. Then
a message's sender is who the broker says, and a stolen password is that of one node.
"""

CONTROL_TOPICS = "control.#"
"""The topics of the events exchange that every node's runtime subscribes to."""

CONTROL_TRACE = "control.trace"
TRACE_TOPICS = "trace.#"


def trace_topic(node: str) -> str:
    """The topic on which the node publishes its trace records."""
    return f"trace.{node}"


@dataclass(frozen=True, slots=True)
class Topology:
    """The names and queue arguments of one cluster on a broker, or a cluster of brokers.

    All queues are bounded in bytes and in the age of their messages: a dead node's queue must not
    fill the broker, and a message that old has been sent again or is useless.
    """

    cluster: str
    queues: QueueKind = "named"
    users: BrokerUsers = "shared"
    control_bytes_max: int = 64 * 1024 * 1024
    bulk_bytes_max: int = 64 * 1024 * 1024
    delay_bytes_max: int = 16 * 1024 * 1024
    quarantine_bytes_max: int = 16 * 1024 * 1024
    message_age_ms_max: Milliseconds = 120_000

    def __post_init__(self) -> None:
        if self.queues not in get_args(QueueKind):
            raise ValueError(f"queues must be named, session or quorum, not {self.queues!r}")
        if self.users not in get_args(BrokerUsers):
            raise ValueError(f"users must be shared or own, not {self.users!r}")
        if not self.cluster or len(self.cluster.encode()) > 128:
            raise ValueError(f"a cluster's name has 1 to 128 bytes, not {self.cluster!r}")

    @property
    def prefix(self) -> str:
        """The prefix of all names of the cluster."""
        return f"synod.{self.cluster}."

    def _name(self, last: str) -> str:
        return f"{self.prefix}{last}"

    @property
    def nodes(self) -> str:
        """The direct exchange of all nodes; the routing key is the node's name."""
        return self._name("nodes")

    @property
    def own_users(self) -> bool:
        """Whether each node is a user of its own on the broker."""
        return self.users == "own"

    def user(self, name: str) -> str:
        """The user of a node, with users of their own: a broker may serve several clusters."""
        return self._name(name)

    def role(self, role: str) -> str:
        """The direct exchange of messages to one node of that role, with users of their own. The
        routing key is as with `nodes`.
        """
        return self._name(f"to.{role}")

    def inbox(self, node: str) -> str:
        """The direct exchange from which a node's queues are filled, with users of their own.

        Only it may be read by the node: who may bind a queue to a shared exchange reads what is
        sent to others. It also takes the node's messages to itself, its timers among them.
        """
        return self._name(f"inbox.{node}")

    def exchange_of(self, to: str, sender: str) -> str:
        """The exchange by which `sender` reaches a group or a node. Raises `ValueError` if `to` is
        neither.
        """
        if to in Group.ALL:
            return self.group(to)
        if not self.own_users:
            return self.nodes
        return self.inbox(to) if to == sender else self.role(role_of(to))

    @property
    def events(self) -> str:
        """The topic exchange of events: trace records, and commands to all nodes."""
        return self._name("events")

    def events_queue(self, node: str, suffix: str) -> str:
        """The queue by which a node subscribes to events, with users of their own."""
        return self._name(f"{node}.events.{suffix}")

    @property
    def quarantine(self) -> str:
        """The exchange of messages that could not be processed."""
        # Who may write to a queue may also bind it, and an exchange of the queue's name gives that
        # right.
        return self._name("quarantined" if self.own_users else "quarantine")

    @property
    def quarantine_queue(self) -> str:
        """The queue of messages that could not be processed.

        On a cluster of brokers it is replicated: what it holds is nowhere else.
        """
        name = self._name("quarantine")
        return name if self.queues == "named" else _replicated(name)

    def group(self, group: str) -> str:
        """The fanout exchange of a `Group`."""
        return self._name(group.removeprefix("@"))

    def node_queue(self, node: str) -> str:
        """The queue of the node's control messages."""
        return self._name(node)

    def bulk_queue(self, node: str) -> str:
        """The queue of the contents for the node."""
        return self._name(self.bulk_key(node))

    @staticmethod
    def bulk_key(node: str) -> str:
        """The routing key of the node's bulk queue."""
        return f"{node}.bulk"

    def delay(self, delay_ms: Milliseconds) -> str:
        """The fanout exchange and the queue of one delay level, which all nodes share."""
        return f"{self.delay_prefix}{delay_ms}"

    @property
    def delay_prefix(self) -> str:
        """The prefix of the names of all delay levels."""
        delay = self._name("delay")
        return f"{_replicated(delay) if self.queues == 'quorum' else delay}."

    @property
    def session_delays(self) -> str:
        """The direct exchange of the delay queues that belong to sessions, by the queue's name."""
        return self._name("delays")

    @property
    def exchanges(self) -> dict[str, str]:
        """All exchanges that nodes declare, but those of shared delay levels, with their types."""
        if self.own_users:
            return {}
        return {
            self.nodes: "direct",
            **({self.session_delays: "direct"} if self.queues == "session" else {}),
            **{self.group(group): "fanout" for group in Group.ALL},
            self.events: "topic",
            self.quarantine: "fanout",
        }

    def of_session(self, node: str, suffix: str) -> "SessionTopology":
        """The names that one session of `node` uses; `suffix` is drawn anew for each session."""
        return SessionTopology(self, node, suffix)

    def node_arguments(self, bytes_max: int) -> dict[str, Any]:
        """The arguments of a node's queue."""
        # An exclusive queue has one consumer anyway.
        single = {} if self.queues == "session" else {"x-single-active-consumer": True}
        return {
            **self._kind(),
            **single,
            "x-max-length-bytes": bytes_max,
            "x-message-ttl": self.message_age_ms_max,
        }

    def delay_arguments(self, delay_ms: Milliseconds) -> dict[str, Any]:
        """The arguments of a delay queue: expired messages go to the node of their routing key."""
        return {
            **self._kind(),
            "x-message-ttl": delay_ms,
            "x-dead-letter-exchange": self.nodes,
            "x-max-length-bytes": self.delay_bytes_max,
        }

    def quarantine_arguments(self) -> dict[str, Any]:
        """The arguments of the quarantine queue, which drops its oldest messages first."""
        kind = {"x-queue-type": "classic"} if self.queues == "named" else _REPLICATED
        return {**kind, "x-max-length-bytes": self.quarantine_bytes_max}

    def _kind(self) -> dict[str, Any]:
        return _REPLICATED if self.queues == "quorum" else {"x-queue-type": "classic"}


def _replicated(name: str) -> str:
    """The name of the quorum queue in place of a classic one: a queue's kind can't be changed."""
    return f"{name}.replicated"


_REPLICATED: dict[str, Any] = {
    "x-queue-type": "quorum",
    "x-queue-leader-locator": "balanced",
    "x-delivery-limit": DELIVERY_LIMIT,
}


@dataclass(frozen=True, slots=True)
class SessionTopology:
    """The queues of one session of a node, and where its timers' messages go.

    A name without a random suffix would stay locked by the former session until the broker notices
    its end; so each session has queues of its own if they are exclusive to it.
    """

    topology: Topology
    node: str
    suffix: str

    @property
    def exclusive(self) -> bool:
        """Whether the queues belong to the session and go with it."""
        return self.topology.queues == "session"

    @property
    def own_delays(self) -> bool:
        """Whether the delay queues belong to the session, and no other node can write to them."""
        return self.exclusive or self.topology.own_users

    @property
    def control_queue(self) -> str:
        """The queue of control messages."""
        return self._own(self.topology.node_queue(self.node))

    @property
    def bulk_queue(self) -> str:
        """The queue of contents."""
        return self._own(self.topology.bulk_queue(self.node))

    def _own(self, name: str) -> str:
        match self.topology.queues:
            case "named":
                return name
            case "session":
                return f"{name}.{self.suffix}"
            case "quorum":
                return _replicated(name)

    @property
    def former_queues(self) -> dict[str, bool]:
        """The durable queues that this node used if it had another kind of them before, and whether
        each is a quorum queue.
        """
        names = [self.topology.node_queue(self.node), self.topology.bulk_queue(self.node)]
        found = dict.fromkeys(names, False) | {_replicated(name): True for name in names}
        return {
            name: is_quorum
            for name, is_quorum in found.items()
            if name not in (self.control_queue, self.bulk_queue)
        }

    @property
    def bindings(self) -> tuple[tuple[str, str, str], ...]:
        """The queue, exchange and routing key of each binding that fills the node's queues."""
        topology, node = self.topology, self.node
        control, bulk = self.control_queue, self.bulk_queue
        has_bulk = has_bulk_lane(node)
        if topology.own_users:
            inbox = topology.inbox(node)
            # `synod broker init` binds the inbox to the shared exchanges. Messages to a group have
            # no routing key.
            keys = [(control, node), (control, ""), (control, CONTROL_TRACE)]
            keys += [(bulk, topology.bulk_key(node))] if has_bulk else []
            return tuple((queue, inbox, key) for queue, key in keys)
        return (
            (control, topology.nodes, node),
            (control, topology.events, CONTROL_TOPICS),
            *((control, topology.group(group), "") for group in groups_of(node)),
            *([(bulk, topology.nodes, topology.bulk_key(node))] if has_bulk else []),
        )

    @property
    def _own_delay_prefix(self) -> str:
        # Exclusive queues are classic, whatever the node's own queues are.
        topology = self.topology
        prefix = f"{topology.prefix}delay." if topology.own_users else topology.delay_prefix
        return f"{prefix}{self.node}.{self.suffix}."

    def delay_queue(self, delay_ms: Milliseconds) -> str:
        """The queue of a delay level."""
        if self.own_delays:
            return f"{self._own_delay_prefix}{delay_ms}"
        return self.topology.delay(delay_ms)

    @property
    def _own_delay_exchange(self) -> str:
        topology = self.topology
        return topology.inbox(self.node) if topology.own_users else topology.session_delays

    def delay_route(self, delay_ms: Milliseconds) -> tuple[str, str]:
        """The exchange and the routing key that lead to a delay level and then to this node."""
        if self.own_delays:
            return self._own_delay_exchange, self.delay_queue(delay_ms)
        # The key is kept when the message expires.
        return self.topology.delay(delay_ms), self.node

    def delay_arguments(self, delay_ms: Milliseconds) -> dict[str, Any]:
        """The arguments of a delay queue."""
        arguments = self.topology.delay_arguments(delay_ms)
        if self.topology.own_users:
            arguments = {
                "x-queue-type": "classic",
                "x-message-ttl": delay_ms,
                "x-dead-letter-exchange": self.topology.inbox(self.node),
                "x-max-length-bytes": self.topology.delay_bytes_max,
            }
        if self.own_delays:
            arguments["x-dead-letter-routing-key"] = self.node
        return arguments

    def delay_of(self, exchange: str, routing_key: str) -> Milliseconds | None:
        """The delay level that a message was published to, if any."""
        if self.own_delays:
            name, prefix = routing_key, self._own_delay_prefix
            if exchange != self._own_delay_exchange:
                return None
        else:
            name, prefix = exchange, self.topology.delay_prefix
        level = name.removeprefix(prefix)
        return int(level) if level != name and level.isdecimal() else None
