"""A broker on which each node is a user of its own, as `synod broker init` makes it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import aiormq

from actors.options import Options
from broker.broker_setup import Setup, prepare
from broker.credentials import read_passwords
from broker.definitions import SERVICES, definitions_of
from broker.management import ManagementApi
from broker.rabbitmq import RabbitOptions, RabbitTransport
from broker.tls import BrokerTls
from broker.topology import QueueKind, Topology
from chaos.cluster.rabbitmq import PrivateBroker
from tests.broker.hosting import House

OPTIONS = Options(proposers=2, acceptors=3)
NODES = (*OPTIONS.members, "gateway-1", "gateway-2")


class PreparedBroker:
    """The users of one cluster on a broker, whose queues may be of any kind."""

    def __init__(
        self, broker: PrivateBroker, topology: Topology, folder: Path, nodes: Sequence[str] = NODES
    ) -> None:
        """Prepare it."""
        self.broker = broker
        self.topology = topology
        self.folder = folder
        self.setup = Setup(topology, tuple(nodes), folder, broker.url)
        with self.management() as api:
            prepare(self.setup, api)
            # Only the quarantine's queue is another one if queues are of another kind.
            made = definitions_of(self.of_kind("session"), {})
            made["bindings"] = [b for b in made["bindings"] if b["source"] == topology.quarantine]
            api.import_definitions({part: made[part] for part in ("queues", "bindings")})
        self.passwords = read_passwords(folder, (*nodes, *SERVICES))

    def management(self) -> ManagementApi:
        """The API, as the administrator."""
        who = self.broker.identity
        return ManagementApi(self.broker.management_url, who.user, who.password, BrokerTls())

    async def forget_messages(self) -> None:
        """Delete the durable queues that other tests have left, with what is in them."""
        connection = await aiormq.connect(self.broker.url)
        channel = await connection.channel()
        for name in self.setup.nodes:
            for queue in (self.topology.node_queue(name), self.topology.bulk_queue(name)):
                await channel.queue_delete(queue)
        await connection.close()

    def url(self, name: str) -> str:
        """Where a node or a service logs on, with its password."""
        parts = urlsplit(self.broker.url)
        host = parts.netloc.rpartition("@")[2]
        user = f"{self.topology.user(name)}:{self.passwords[name]}"
        return parts._replace(netloc=f"{user}@{host}").geturl()

    def of_kind(self, kind: QueueKind) -> Topology:
        """The topology with queues of that kind."""
        return replace(self.topology, queues=kind)

    def transport(
        self, name: str, kind: QueueKind = "session", options: RabbitOptions | None = None
    ) -> RabbitTransport:
        """The connection of a node."""
        return RabbitTransport(self.url(name), self.of_kind(kind), name, options)

    def house(self, folder: Path, kind: QueueKind = "session") -> House:
        """Nodes on this broker."""
        return House(folder, lambda name: self.transport(name, kind))
