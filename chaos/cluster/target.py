"""The targets of faults: a cluster of processes on this machine, or one of containers."""

import asyncio
import contextlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import aio_pika
import aiormq

from chaos.cluster.local import Description, LocalCluster
from chaos.cluster.network_cuts import Cuts
from chaos.cluster.network_namespaces import SiteNetwork
from chaos.cluster.sites import sites_of
from chaos.load.http1 import Connection
from chaos.scenarios.autopsy import Held, journal_holds, look_at_slot

START_PATIENCE_S = 180.0
HEAL_PATIENCE_S = 120.0
_LAST_LINES = 200

T = TypeVar("T")

_STRUCK = re.compile(r"failpoint (\S+) strikes(?: at slot (\d+))?")


class Target(Protocol):
    """A cluster that may be broken. A `node` is named, and so is a `broker`, a RabbitMQ node."""

    @property
    def kind(self) -> str:
        """`local` or `compose`."""

    @property
    def url(self) -> str:
        """Where the gateway serves."""

    @property
    def other_url(self) -> str:
        """Where another gateway serves; the same one if there is no other."""

    @property
    def token(self) -> str:
        """The bearer token that the gateway asks for; empty if it asks for none."""

    @property
    def nodes(self) -> Sequence[str]:
        """All nodes."""

    @property
    def brokers(self) -> Sequence[str]:
        """The RabbitMQ nodes: `rabbitmq` alone, or `rabbitmq-1`, `rabbitmq-2` and so on."""

    @property
    def sites(self) -> Mapping[str, Sequence[str]]:
        """The broker and the nodes on each site, broker first; empty if there are no sites."""

    async def start(self, failpoints: Mapping[str, str]) -> None:
        """Start everything; failpoints count nothing until `arm`."""

    async def stop(self) -> None:
        """End everything that `start` started."""

    async def kill(self, node: str) -> None:
        """SIGKILL."""

    async def pause(self, node: str) -> None:
        """SIGSTOP."""

    async def resume(self, node: str) -> None:
        """SIGCONT."""

    async def restart(self, node: str, failpoint: str = "") -> None:
        """Start a dead node again; a failpoint counts nothing until `arm`."""

    async def wipe(self, node: str) -> None:
        """Remove what a dead node had on its disk."""

    async def add(self, node: str) -> None:
        """Start a node that the cluster was not founded with, on an empty disk. Raises
        `ProcessFailed` if the target can't have more nodes.
        """

    async def forget(self, node: str) -> None:
        """Take a node that has ended for good out of `nodes`."""

    async def last_words(self, node: str) -> str:
        """The end of a node's log."""

    async def arm(self, node: str) -> None:
        """Let the node's failpoint count."""

    async def runs(self, node: str) -> bool:
        """Whether the node's process exists, paused or not."""

    async def struck(self, node: str) -> tuple[str, int | None] | None:
        """The failpoint of a node that struck last, and its slot."""

    async def holds_prepared(self, node: str, slot: int) -> bool | None:
        """Whether a dead node's journal holds a slot, prepared or applied; `None`: not known."""

    async def look(self, store: str, slot: int) -> Held:
        """What the journal of a running store holds of a slot."""

    async def kill_broker(self, broker: str) -> None:
        """SIGKILL to a RabbitMQ node."""

    async def start_broker(self, broker: str) -> None:
        """Start a dead RabbitMQ node again, and wait until it serves.

        As a minority of its cluster it does not serve, so a majority is started at once.
        """

    async def pause_broker(self, broker: str) -> None:
        """SIGSTOP to a RabbitMQ node."""

    async def resume_broker(self, broker: str) -> None:
        """SIGCONT to a RabbitMQ node."""

    async def wait_brokers(self) -> None:
        """Wait until every RabbitMQ node knows all others as running: one more may be lost. Raises
        `BrokerFailedError` or `ProcessFailed`.
        """

    async def cut_off(self, node: str, group: str, cut: bool) -> None:
        """Stop, or resume, the delivery to a node of what is sent to a group."""

    async def quarantined(self) -> int:
        """How many messages are in quarantine."""

    async def logs(self, into: Path) -> None:
        """Save the logs of the nodes and of RabbitMQ in a folder."""


async def survey(target: Target) -> dict[str, Any]:
    """What a gateway answers to `/v1/cluster`. Raises `ConnectionError` if none answers well."""
    return await _survey(target, target.url, target.other_url)


async def all_serve(target: Target) -> bool:
    """Whether every gateway would take a write."""
    try:
        about = [await _survey(target, url) for url in {target.url, target.other_url}]
    except (ConnectionError, ValueError):
        return False
    return all(one["ready"] for one in about)


async def _survey(target: Target, *urls: str) -> dict[str, Any]:
    connection = Connection.to(*urls)
    headers = f"authorization: Bearer {target.token}\r\n" if target.token else ""
    try:
        reply = await connection.request("GET", "/v1/cluster", headers=headers, timeout_s=3.0)
    finally:
        connection.close()
    if reply.status != 200:
        raise ConnectionError(f"/v1/cluster answers {reply.status}")
    found: dict[str, Any] = json.loads(reply.body)
    return found


class LocalTarget:
    """One process for each node over RabbitMQ nodes of its own, all in one folder.

    With a `network` each site is in a network namespace of its own, and so its brokers and nodes
    are; the network ends with the target.
    """

    kind = "local"

    def __init__(
        self,
        folder: Path,
        *,
        brokers: int = 1,
        settings: Mapping[str, str] | None = None,
        programs: Mapping[str, Sequence[str]] | None = None,
        network: SiteNetwork | None = None,
    ) -> None:
        self.network = network
        # Only on the loopback interface do gateways serve without a token.
        self.token = "" if network is None else secrets.token_hex(16)
        given = {**(settings or {}), **({"token": self.token} if self.token else {})}
        description = Description.mint(settings=given, gateways=2, brokers=brokers)
        hosts = {
            member: network.sites[site]
            for site, members in sites_of(description.nodes, description.broker_names).items()
            for member in members
            if network is not None
        }
        self.cluster = LocalCluster(folder, description, programs=programs, hosts=hosts)
        self.url = self.cluster.url
        self.other_url = self.cluster.url_of("gateway-2")
        self.nodes = tuple(self.cluster.nodes)
        self.brokers = tuple(self.cluster.brokers)
        self.sites = sites_of(self.nodes, self.brokers)
        self._blocking: set[asyncio.Future[Any]] = set()
        self._topology = self.cluster.topology
        self._cuts = Cuts(self._evaluate)

    async def start(self, failpoints: Mapping[str, str]) -> None:
        """See `Target`."""
        await self._call(self.cluster.start_brokers)
        for node in self.nodes:
            await self.restart(node, failpoints.get(node, ""))
        # In short steps, so that a cancelled caller does not wait long for the thread.
        async with asyncio.timeout(START_PATIENCE_S):
            while not await self._call(self.cluster.looks_whole):
                self.cluster.check_alive()
                await asyncio.sleep(0.1)

    async def _call(self, block: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Run what blocks in a thread; `stop` waits for it, also if the caller was cancelled."""
        blocking = asyncio.ensure_future(asyncio.to_thread(block, *arguments, **options))
        self._blocking.add(blocking)
        blocking.add_done_callback(self._blocking.discard)
        return await asyncio.shield(blocking)

    async def stop(self) -> None:
        """See `Target`."""
        if self._blocking:
            await asyncio.wait(self._blocking)
        await asyncio.to_thread(self.cluster.stop)
        if self.network is not None:
            await asyncio.to_thread(self.network.close)

    async def kill(self, node: str) -> None:
        """See `Target`."""
        await self._call(self.cluster.kill, node)

    async def pause(self, node: str) -> None:
        """See `Target`."""
        self.cluster.pause(node)

    async def resume(self, node: str) -> None:
        """See `Target`."""
        self.cluster.resume(node)

    async def restart(self, node: str, failpoint: str = "") -> None:
        """See `Target`."""
        rules = [failpoint] if failpoint else []
        await self._call(self.cluster.start_node, node, failpoints=rules, armed=not failpoint)

    async def wipe(self, node: str) -> None:
        """See `Target`."""
        await self._call(shutil.rmtree, self.cluster.data / node)
        (self.cluster.data / node).mkdir()

    async def add(self, node: str) -> None:
        """See `Target`."""
        await self._call(self.cluster.add_node, node)
        self.nodes = tuple(self.cluster.nodes)
        await self.restart(node)

    async def forget(self, node: str) -> None:
        """See `Target`."""
        await self._call(self.cluster.forget_node, node)
        self.nodes = tuple(self.cluster.nodes)

    async def last_words(self, node: str) -> str:
        """See `Target`."""
        return self.cluster.nodes[node].last_words(_LAST_LINES)

    async def arm(self, node: str) -> None:
        """See `Target`."""
        self.cluster.arm(node)

    async def runs(self, node: str) -> bool:
        """See `Target`."""
        return self.cluster.nodes[node].runs

    async def struck(self, node: str) -> tuple[str, int | None] | None:
        """See `Target`."""
        return last_strike(await self.last_words(node))

    async def holds_prepared(self, node: str, slot: int) -> bool | None:
        """See `Target`."""
        return await self._call(journal_holds, self.cluster.data / node, slot)

    async def look(self, store: str, slot: int) -> Held:
        """See `Target`."""
        return await asyncio.to_thread(look_at_slot, self.cluster.data / store, slot)

    async def kill_broker(self, broker: str) -> None:
        """See `Target`."""
        await self._call(self.cluster.brokers[broker].kill)

    async def start_broker(self, broker: str) -> None:
        """See `Target`."""
        await self._call(self.cluster.brokers[broker].start, timeout_s=START_PATIENCE_S)

    async def pause_broker(self, broker: str) -> None:
        """See `Target`."""
        self.cluster.brokers[broker].pause()

    async def resume_broker(self, broker: str) -> None:
        """See `Target`."""
        self.cluster.brokers[broker].resume()

    async def wait_brokers(self) -> None:
        """See `Target`."""
        await self._call(self.cluster.wait_brokers, timeout_s=HEAL_PATIENCE_S)

    async def cut_off(self, node: str, group: str, cut: bool) -> None:
        """See `Target`."""
        change = self._cuts.begin if cut else self._cuts.end
        await change(self._topology, node, group)

    async def _evaluate(self, erlang: str) -> None:
        await self._call(self.cluster.brokers[self.brokers[0]].control, "eval", erlang)

    async def quarantined(self) -> int:
        """See `Target`."""
        url = self.cluster.brokers[self.brokers[0]].url
        async with await aio_pika.connect(url, timeout=10) as connection:
            channel = await connection.channel()
            try:
                queue = await channel.declare_queue(self._topology.quarantine_queue, passive=True)
            except aiormq.exceptions.ChannelNotFoundEntity:
                return 0
            return queue.declaration_result.message_count or 0

    async def logs(self, into: Path) -> None:
        """See `Target`."""
        with contextlib.suppress(OSError):
            shutil.copytree(self.cluster.folder / "logs", into, dirs_exist_ok=True)
            for name, broker in self.cluster.brokers.items():
                shutil.copy(broker.log, into / f"{name}.log")


def last_strike(log: str) -> tuple[str, int | None] | None:
    """The last failpoint that struck according to a node's log, and its slot."""
    found = _STRUCK.findall(log)
    if not found:
        return None
    rule, slot = found[-1]
    return rule, int(slot) if slot else None
