"""`chaos-site-loss`: a RabbitMQ node and all nodes on the same site die at the same moment.

Clients whose gateway is among them go on at the other one.
"""

import asyncio

from chaos.scenarios.broker_nodes import DEAD_S, brokers_whole
from chaos.scenarios.coordinator_crash import COORDINATOR_LIMIT_S
from chaos.scenarios.scenario import AFTER_S, Case, CaseSteps, Run, Scenario

LOSS_GAP_MAX_S = COORDINATOR_LIMIT_S
"""The coordinator may be lost, and the leader and a store at the same time."""

RETURN_GAP_MAX_S = 6.0
SITES = ("site-3", "site-2", "site-1")
"""Clients start at the first gateway, which is on the last site; the other is on the second."""


def _lost(site: str) -> CaseSteps:
    async def steps(run: Run) -> None:
        broker, *nodes = run.target.sites[site]
        await run.steady()
        await run.trace_all()
        at_ns = run.note(f"{site} is lost: {broker}, {', '.join(nodes)}", "fault")
        await asyncio.gather(run.target.kill_broker(broker), *map(run.target.kill, nodes))
        await run.linger(DEAD_S)
        await run.gap(f"{site} was lost", at_ns, LOSS_GAP_MAX_S)
        returns_ns = run.note(f"{site} comes back", "heal")
        # Nodes try again until their RabbitMQ node, or another one, serves.
        await asyncio.gather(run.target.start_broker(broker), _restart(run, nodes))
        await brokers_whole(run, broker)
        await run.whole()
        await run.linger(AFTER_S)
        await run.gap(f"{site} came back", returns_ns, RETURN_GAP_MAX_S)

    return steps


async def _restart(run: Run, nodes: list[str]) -> None:
    gateways = [node for node in nodes if node.startswith("gateway-")]
    for gateway in gateways:
        await run.target.restart(gateway)
    await run.restart(*(node for node in nodes if node not in gateways))
    await run.gateways_serve()


SITE_LOSS = Scenario(
    "site-loss",
    "a RabbitMQ node and all nodes on its site die at once, each site in turn",
    tuple(Case(site, "kill -9 to everything on it; it comes back", _lost(site)) for site in SITES),
    brokers=len(SITES),
)
