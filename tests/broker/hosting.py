"""Runs nodes in a test and waits for conditions."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from actors.messages import AnyMessage
from broker.journal import Journal
from broker.memory_broker import MemoryBroker, MemoryTransport
from broker.observer import Interceptor, Observer
from broker.runtime import HostOptions, NodeHost
from broker.transport import Parcel, Transport
from tests.broker.actors import Behaviour, Puppet

_tokens = itertools.count(1)


async def until(condition: Callable[[], Any], *, within_s: float = 10.0) -> Any:
    """Wait until `condition` gives something true, and return it."""
    async with asyncio.timeout(within_s):
        while True:
            if found := condition():
                return found
            await asyncio.sleep(0.005)


class House:
    """Nodes with puppets for actors, on one broker and in one folder."""

    def __init__(self, folder: Path, transport: Callable[[str], Transport]) -> None:
        self.folder = folder
        self.transport = transport

    def host(
        self,
        name: str,
        on: Mapping[str, Behaviour] | None = None,
        *,
        journal: Journal | None = None,
        options: HostOptions | None = None,
        observer: Observer | None = None,
        interceptor: Interceptor | None = None,
    ) -> NodeHost:
        """A node with the behaviours `on`."""
        behaviours = dict(on or {})
        return NodeHost(
            name,
            lambda identity: Puppet(identity, behaviours),
            journal or Journal.open(self.folder / name, name, "test"),
            self.transport(name),
            options=options,
            observer=observer,
            interceptor=interceptor,
        )

    @asynccontextmanager
    async def running(self, *hosts: NodeHost) -> AsyncIterator[None]:
        """Run `hosts` for the length of a block; a failure of one is raised."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(host.run()) for host in hosts]
            for host in hosts:
                await host.ready()
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                for host in hosts:
                    host._journal.close()


def memory_house(folder: Path) -> tuple[House, MemoryBroker]:
    """A house without RabbitMQ."""
    broker = MemoryBroker()
    return House(folder, broker.transport), broker


def inject(broker: MemoryBroker, to: str, *messages: AnyMessage, sender: str = "store-9") -> None:
    """Put messages into a node's queue as if `sender` had sent them."""
    transport = MemoryTransport(broker, sender)
    transport._send(to, Parcel("cluster-id", sender, "disk", 1, messages))


def puppet(host: NodeHost) -> Puppet:
    """The node's running actor."""
    actor = host.actor
    assert isinstance(actor, Puppet)
    return actor
