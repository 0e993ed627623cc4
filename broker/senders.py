"""Who sent a message, on a broker where each node is a user of its own.

RabbitMQ refuses a message whose `user_id` is not the user of the connection, and keeps the property
when the message expires or is routed on. So a receiver requires it to be the sender's, and from
there on the table of who may send what decides (`actors.messages.permissions`).

A node may bind and dead-letter its own queues, and could so pass on to others what is sent to it,
under its true sender's name. So a message also has to have been published to an address of its
receiver, which a delivery keeps through bindings, and may not have expired elsewhere.
"""

from actors.messages.addresses import groups_reached_by, roles_reached_by
from actors.messages.permissions import role_in
from actors.options import role_of
from broker.amqp_frames import AmqpMessage, Properties
from broker.codec import PING, TIMER
from broker.topology import Topology
from broker.transport import groups_of, has_bulk_lane

_EXPIRED = "x-first-death-queue"
"""A header that RabbitMQ adds to a message that leaves a queue by dead-lettering."""


class NotItsSender(ValueError):
    """The broker does not confirm the message's sender; the text says what is wrong."""


def exchanges_written_by(topology: Topology, node: str) -> frozenset[str]:
    """The exchanges to which the node publishes, with users of their own."""
    role = role_of(node)
    return frozenset(
        (
            *(topology.role(receiver) for receiver in roles_reached_by(role)),
            *(topology.group(group) for group in groups_reached_by(role)),
            topology.inbox(node),
            topology.events,
            topology.quarantine,
        )
    )


class SenderCheck:
    """What one node requires of the messages that it receives."""

    def __init__(self, topology: Topology, name: str) -> None:
        self._topology = topology
        self._name = name
        self._inbox = topology.inbox(name)
        role = topology.role(role_of(name))
        self._addresses = {(role, name)}
        self._addresses |= {(topology.group(group), "") for group in groups_of(name)}
        if has_bulk_lane(name):
            self._addresses.add((role, topology.bulk_key(name)))

    def require(self, message: AmqpMessage, properties: Properties) -> None:
        """Raise `NotItsSender` unless the broker confirms sender and receiver."""
        require_user(self._topology, properties)
        own = properties.app_id == self._name
        if message.exchange == self._topology.events:
            if role_in(properties.app_id) != "gateway":
                raise NotItsSender(f"{_shown(properties)} commands the runtime of other nodes")
        elif message.exchange == self._inbox:
            if not own:
                raise NotItsSender(f"{_shown(properties)} writes to this node's own exchange")
        elif (message.exchange, message.routing_key) not in self._addresses:
            raise NotItsSender(
                f"it was sent to {message.exchange} with the key {message.routing_key!r}, which "
                "is no address of this node: another one passed it on"
            )
        elif properties.type in (TIMER, PING):
            raise NotItsSender(f"{_shown(properties)} sends a {properties.type}")
        elif _EXPIRED in properties.headers:
            raise NotItsSender("it expired in a queue of another node, which passed it on")


def require_user(topology: Topology, properties: Properties) -> None:
    """Raise `NotItsSender` unless the user that the broker knows is the sender's."""
    if not properties.app_id or properties.user_id != topology.user(properties.app_id):
        raise NotItsSender(
            f"the sender is given as {properties.app_id[:64]!r}, and the broker's user is "
            f"{properties.user_id[:128]!r}"
        )


def _shown(properties: Properties) -> str:
    return properties.app_id[:64]
