"""Partitions of the network: a site is cut off, both ways or one way, or only its broker is.

Each site is a network namespace (`chaos.cluster.network_namespaces`), and the router between them
drops packets without a word, so connections stay open and say nothing. Clients reach both sides of
each partition: what they may see on the wrong one is part of the verdict.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from chaos.cluster.network_namespaces import Direction, SiteCut, SiteNetwork
from chaos.cluster.sites import SITES
from chaos.cluster.target import LocalTarget
from chaos.load.http1 import Connection
from chaos.scenarios.broker_nodes import brokers_whole
from chaos.scenarios.scenario import AFTER_S, Case, Run, RunVoid, Scenario

CUT_S = 20.0
CUT_GAP_MAX_S = 15.0
"""The brokers need up to five seconds to take one that they do not hear for dead; then the nodes
elect, and the view drops a store. One-way loss takes longest, because the lost nodes hear on.
"""

HEAL_GAP_MAX_S = 6.0

MINORITY_CLIENTS = 4
PAUSE_PATIENCE_S = 15.0
_LOOK_S = 0.2
_PAUSE_AFTER_ANSWER_S = 0.1
_ANSWER_PATIENCE_S = 30.0
_BEFORE_THE_END_S = 1.0
"""An answer that takes until the end of the cut might come from the whole cluster."""


@dataclass(slots=True)
class _Written:
    """The outcomes of writes in the minority: each HTTP status and how often it was received."""

    statuses: dict[int, int] = field(default_factory=dict)
    """Status 0: the connection failed."""

    @property
    def acknowledged(self) -> int:
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300)


async def _site(run: Run) -> None:
    """The site of the second gateway, at which clients read and write all the while."""
    await run.steady()
    await run.trace_all()
    url = run.target.other_url
    run.fleet.read_elsewhere(url, MINORITY_CLIENTS)
    site = _site_of(run, "gateway-2")
    async with _cut(run, f"{site} is cut off from the other sites", SiteCut(site)):
        written = await _write_for(run, url, CUT_S - _BEFORE_THE_END_S)
        await _check_paused(run, site)
    run.find(
        "nothing is acknowledged in the minority",
        bool(written.statuses) and not written.acknowledged,
        f"writes at gateway-2 during the cut, by HTTP status: {written.statuses}",
    )


def _one_way(direction: Direction, says: str) -> Callable[[Run], Awaitable[None]]:
    """The site of the coordinator, which is never that of the clients' gateway."""

    async def steps(run: Run) -> None:
        await run.steady()
        await run.trace_all()
        site = _site_of(run, await run.coordinator())
        async with _cut(run, f"what {says} {site} is lost", SiteCut(site, direction)):
            pass

    return steps


async def _broker(run: Run) -> None:
    """Only what RabbitMQ nodes send each other is lost, so the one that is alone pauses."""
    await run.steady()
    await run.trace_all()
    site = _site_of(run, "rabbitmq-2")
    ports = frozenset(
        port
        for broker in _local(run).cluster.brokers.values()
        for port in (broker.identity.distribution_port, broker.identity.epmd_port)
    )
    async with _cut(
        run, "rabbitmq-2 is cut off from the other brokers", SiteCut(site, ports=ports)
    ):
        await _check_paused(run, site)


# -- parts of all cases --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _cut(run: Run, fault: str, cut: SiteCut) -> AsyncIterator[None]:
    """Cut for `CUT_S`, or as long as the block takes; heal, and wait until the cluster is whole."""
    network = _network(run)
    at_ns = run.note(fault, "fault")
    await asyncio.to_thread(network.cut, cut)
    try:
        yield
        await run.linger(CUT_S - (time.monotonic_ns() - at_ns) / 1e9)
        await run.gap(fault, at_ns, CUT_GAP_MAX_S)
        if not (lost := await asyncio.to_thread(network.packets_lost)):
            raise RunVoid(f"nothing was cut: no packet was lost while {fault}")
        run.note(f"{lost} packets were lost")
    finally:
        await asyncio.to_thread(network.heal)
    heals_ns = run.note("the network is whole", "heal")
    await brokers_whole(run, _broker_of(run, cut.site))
    await run.whole()
    await run.gateways_serve()
    await run.linger(AFTER_S)
    await run.gap(f"healed: {fault}", heals_ns, HEAL_GAP_MAX_S)


async def _write_for(run: Run, url: str, seconds: float) -> _Written:
    """Write at a gateway in the minority, and await no answer for longer."""
    written = _Written()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as clients:
            for _ in range(MINORITY_CLIENTS):
                clients.create_task(_write_on(run, url, written))
    return written


async def _write_on(run: Run, url: str, written: _Written) -> None:
    headers = f"authorization: Bearer {run.target.token}\r\n"
    connection = Connection.to(url)
    try:
        while True:
            path = f"/v1/files/minority/{secrets.token_hex(4)}"
            try:
                reply = await connection.request(
                    "PUT", path, b"x", headers, timeout_s=_ANSWER_PATIENCE_S
                )
                status = reply.status
            except ConnectionError:
                status = 0
            written.statuses[status] = written.statuses.get(status, 0) + 1
            await asyncio.sleep(_PAUSE_AFTER_ANSWER_S)
    finally:
        connection.close()


def _broker_of(run: Run, site: str) -> str:
    (name,) = (member for member in run.target.sites[site] if member in run.target.brokers)
    return name


async def _check_paused(run: Run, site: str) -> None:
    """The broker of a site pauses, because it knows of no majority."""
    name = _broker_of(run, site)
    broker = _local(run).cluster.brokers[name]
    deadline_s = time.monotonic() + PAUSE_PATIENCE_S
    while answers := await asyncio.to_thread(broker.answers):
        if time.monotonic() > deadline_s:
            break
        await asyncio.sleep(_LOOK_S)
    state = "still takes connections" if answers else "takes no connections"
    run.find("a broker without a majority pauses", not answers, f"{name} {state}")


def _site_of(run: Run, member: str) -> str:
    return next(site for site, members in run.target.sites.items() if member in members)


def _local(run: Run) -> LocalTarget:
    if not isinstance(run.target, LocalTarget):
        raise RunVoid("the network between containers is not cut; use --target local")
    return run.target


def _network(run: Run) -> SiteNetwork:
    network = _local(run).network
    if network is None:
        raise RunVoid("the cluster has no network of its own")
    return network


PARTITION = Scenario(
    "partition",
    f"for {CUT_S:g} s, packets between three sites are lost",
    (
        Case("site", "a site is cut off from the others", _site),
        Case(
            "from", "what comes from the coordinator's site is lost", _one_way("from", "comes from")
        ),
        Case("to", "what goes to the coordinator's site is lost", _one_way("to", "goes to")),
        Case("broker", "a RabbitMQ node is cut off from the others", _broker),
    ),
    brokers=SITES,
    network=True,
)
