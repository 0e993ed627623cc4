"""The checks of RabbitMQ: each broker that the settings name, and their cluster as a whole."""

import asyncio
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import aiormq
import httpx

from broker.addresses import split_urls
from broker.amqp_session import BrokerClosed
from broker.firehose import management_url_of
from broker.probe import Probed, probe, strangers
from broker.tls import BrokerTls, TlsFilesUnusable, refusal_of
from broker.topology import Topology
from gateway.doctor.findings import Diagnosis
from gateway.settings import Settings

TRIED_VERSIONS = ((3, 10), (4, 0))
"""The oldest and the newest RabbitMQ that the tests run on."""

NET_TICKTIME_S_MAX = 15
"""Writes may wait for this long when a node of a RabbitMQ cluster freezes; the default is 60 s."""

LATE_MS_MAX = 1_000.0
_MANAGEMENT_TIMEOUT_S = 5.0
_PLUGINS = {
    "rabbitmq_management": "the console",
    "rabbitmq_prometheus": "the metrics, without which the dashboard and the alerts of RabbitMQ "
    "have no data",
}
_REFUSED_CODES = (403, 530)
"""Of AMQP: ACCESS_REFUSED (a wrong password) and NOT_ALLOWED (a virtual host)."""


@dataclass(frozen=True, slots=True)
class BrokerAnswer:
    """What a broker answered: what was probed, or why there is no connection."""

    url: str
    address: str
    user: str
    virtual_host: str
    probed: Probed | None
    error: BaseException | None


def management_urls(broker: str, management: str | None) -> dict[str, str]:
    """Where the management API of each broker is, by the broker's URL: at `management`, or else at
    its usual port. Empty for the embedded broker.
    """
    found = {}
    for url in split_urls(broker):
        if not url.startswith("memory:"):
            found[url] = (management or management_url_of(url)).rstrip("/")
    return found


async def check_brokers(settings: Settings, apis: Mapping[str, str]) -> list[Diagnosis]:
    """All checks of the brokers; `apis` are those of `management_urls`."""
    if settings.broker.startswith("memory:"):
        checks = ("broker", "broker version", "permissions", "broker cluster", "plugins")
        return [Diagnosis.skipped(check, "not needed: the broker is embedded") for check in checks]
    urls = split_urls(settings.broker)
    topology = Topology(settings.cluster, settings.queues, settings.broker_users)
    answers = await asyncio.gather(*(_answer(url, topology, settings.broker_tls) for url in urls))
    findings: list[Diagnosis] = []
    for answer in answers:
        findings.append(check_reachable(answer))
        if answer.probed is not None:
            findings.append(check_version(answer.address, answer.probed.version))
            findings.append(check_permissions(answer, answer.probed, topology))
    findings.append(await _check_one_cluster(settings, topology, answers))
    nodes = await _nodes(apis, settings.broker_tls)
    return [*findings, *check_nodes(nodes, several=len(urls) > 1)]


async def _answer(url: str, topology: Topology, tls: BrokerTls) -> BrokerAnswer:
    parts = urlsplit(url)
    default = 5671 if parts.scheme == "amqps" else 5672
    address = f"{parts.hostname}:{parts.port or default}"
    user = unquote(parts.username or "guest")
    virtual_host = unquote(parts.path[1:]) or "/"
    try:
        probed = await probe(url, topology, tls)
    except (OSError, TimeoutError, aiormq.AMQPError) as error:
        return BrokerAnswer(url, address, user, virtual_host, None, error)
    return BrokerAnswer(url, address, user, virtual_host, probed, None)


def check_reachable(answer: BrokerAnswer) -> Diagnosis:
    """Whether the broker can be reached, and knows the user."""
    check = "broker"
    error = answer.error
    if error is None:
        return Diagnosis.ok(check, f"{answer.address} answers")
    if isinstance(error, BrokerClosed) and error.code in _REFUSED_CODES:
        return Diagnosis.wrong(
            check,
            f"{answer.address} refuses the user {answer.user!r}: {error}",
            f"Check user, password and virtual host ({answer.virtual_host!r}) in `broker`; special "
            "characters of a password are percent-encoded in a URL.",
        )
    if why := refusal_of(error):
        change = f"{why.advice[0].upper()}{why.advice[1:]}."
        return Diagnosis.wrong(check, f"{answer.address}: {why.fact}", change)
    reason = "no reply in time" if isinstance(error, TimeoutError) else str(error)
    return Diagnosis.wrong(
        check,
        f"{answer.address} can't be reached: {reason or type(error).__name__}",
        "Start RabbitMQ there, or correct host and port in `broker`; check firewalls between.",
    )


def check_version(address: str, version: str) -> Diagnosis:
    """Whether Synod was tested with that version of RabbitMQ."""
    check = "broker version"
    oldest, newest = TRIED_VERSIONS
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    found = f"{address} is RabbitMQ {version}"
    if len(numbers) < 2:
        return Diagnosis.warning(check, f"{address} does not tell its version", "Use RabbitMQ.")
    if numbers < oldest:
        return Diagnosis.warning(
            check,
            f"{found}, older than what was tested",
            f"Use RabbitMQ {oldest[0]}.{oldest[1]} or newer; {newest[0]}.{newest[1]} is tested.",
        )
    return Diagnosis.ok(check, found)


def check_permissions(answer: BrokerAnswer, probed: Probed, topology: Topology) -> Diagnosis:
    """Whether the broker lets the user do what a node does, and does it in time."""
    check = "permissions"
    failed_step = probed.failed_step
    if probed.blocked:
        return Diagnosis.wrong(
            check,
            f"{answer.address} blocks publishers: its memory or disk alarm is set",
            "Free memory or disk space of RabbitMQ; `rabbitmq-diagnostics alarms` says which.",
        )
    if failed_step is None:
        assert probed.round_trip_ms is not None
        assert probed.late_ms is not None
        found = (
            f"{answer.address} lets {answer.user!r} declare, bind, publish and consume; a message "
            f"takes {probed.round_trip_ms:.1f} ms, a timer is {probed.late_ms:.0f} ms late"
        )
        if probed.late_ms > LATE_MS_MAX:
            return Diagnosis.warning(
                check, found, "RabbitMQ is overloaded: give it more processors."
            )
        return Diagnosis.ok(check, found)
    if topology.own_users:
        return Diagnosis.wrong(
            check,
            f"{answer.address} does not let {answer.user!r} {failed_step.step}: "
            f"{failed_step.reason}",
            "Take the file of this node that `synod broker init` wrote, or run that again.",
        )
    names = f"^{re.escape(topology.prefix)}"
    words = ["rabbitmqctl", "set_permissions", "-p", answer.virtual_host, answer.user]
    change = shlex.join([*words, names, names, names])
    return Diagnosis.wrong(
        check,
        f"{answer.address} does not let {answer.user!r} {failed_step.step}: {failed_step.reason}",
        change,
    )


async def _check_one_cluster(
    settings: Settings, topology: Topology, answers: Sequence[BrokerAnswer]
) -> Diagnosis:
    """Whether the brokers that the settings name are nodes of one RabbitMQ cluster."""
    check = "broker cluster"
    if len(answers) == 1:
        if settings.queues == "named":
            return Diagnosis.ok(check, "one broker is named, and queues = 'named' fits")
        return Diagnosis.warning(
            check,
            f"one broker, with queues = {settings.queues!r}",
            "Name all nodes of the RabbitMQ cluster in `broker`, or set queues = 'named'.",
        )
    if topology.own_users:
        return Diagnosis.skipped(
            check,
            "can't be known by a node's own user, which declares no exchange",
            "Run `rabbitmqctl cluster_status` at a broker: it has to list the others.",
        )
    # A broker that refused something is wrong already, and would refuse this, too.
    usable = {
        answer.url: answer.address
        for answer in answers
        if answer.probed is not None and answer.probed.failed_step is None
    }
    try:
        apart = (
            await strangers(tuple(usable), topology, settings.broker_tls) if len(usable) > 1 else ()
        )
    except (OSError, TimeoutError, aiormq.AMQPError) as error:
        return Diagnosis.skipped(
            check, f"can't be known: a broker failed meanwhile: {error}", "Run the command again."
        )
    if apart:
        first = next(iter(usable.values()))
        return Diagnosis.wrong(
            check,
            f"{', '.join(usable[url] for url in apart)} and {first} are of different clusters",
            "Join them with `rabbitmqctl join_cluster`, or name the nodes of one cluster only: "
            "nodes at brokers of different clusters receive nothing from each other.",
        )
    found = f"{len(answers)} brokers are named, {len(usable)} of them can be used"
    if settings.queues == "named":
        return Diagnosis.warning(
            check,
            f"{found}; queues = 'named' live on one of them each",
            "Set queues = 'session': with named queues the failure of one broker stops writes.",
        )
    return Diagnosis.ok(check, found)


async def _nodes(apis: Mapping[str, str], tls: BrokerTls) -> list[dict[str, Any]] | str:
    """The nodes of the RabbitMQ cluster as its management API describes them, or why there is no
    answer. The first API that answers is enough: each knows all nodes.
    """
    problem = ""
    encrypted = any(address.startswith("https:") for address in apis.values())
    try:
        verify = tls.context() if encrypted else False
    except TlsFilesUnusable as error:
        return str(error)
    async with httpx.AsyncClient(
        timeout=_MANAGEMENT_TIMEOUT_S, trust_env=False, verify=verify
    ) as client:
        for url, address in apis.items():
            parts = urlsplit(url)
            user = unquote(parts.username or "guest"), unquote(parts.password or "guest")
            try:
                response = await client.get(f"{address}/api/nodes", auth=user)
                response.raise_for_status()
                nodes: list[dict[str, Any]] = response.json()
            except httpx.HTTPStatusError as error:
                problem = f"{address} answers with {error.response.status_code}"
            except (httpx.HTTPError, ValueError) as error:
                reason = str(refusal_of(error) or error) or type(error).__name__
                problem = f"{address} does not answer: {reason}"
            else:
                return nodes
    return problem


def check_nodes(nodes: list[dict[str, Any]] | str, *, several: bool) -> list[Diagnosis]:
    """What the management API shows: plugins, and, of a cluster, its nodes and settings."""
    if isinstance(nodes, str):
        change = "Name the management API with --management; its user needs the tag `monitoring`."
        checks = ("plugins", "broker nodes", "net_ticktime") if several else ("plugins",)
        findings = [Diagnosis.skipped(each, f"can't be known: {nodes}", change) for each in checks]
    else:
        findings = [_check_plugins(nodes)]
        if several:
            findings += [_check_running(nodes), _check_net_ticktime(nodes)]
    if several:
        findings.append(_partition_handling())
    return findings


def _check_plugins(nodes: list[dict[str, Any]]) -> Diagnosis:
    # The API has nothing about a node that is down, or that started some seconds ago.
    known = [node for node in nodes if "enabled_plugins" in node]
    if not known:
        return Diagnosis.skipped(
            "plugins", "can't be known yet: no node has told them", "Run the command again."
        )
    lacking = {
        plugin: [node["name"] for node in known if plugin not in node["enabled_plugins"]]
        for plugin in _PLUGINS
    }
    missing = {plugin: names for plugin, names in lacking.items() if names}
    if not missing:
        return Diagnosis.ok("plugins", f"{', '.join(_PLUGINS)} are enabled")
    told = "; ".join(
        f"{plugin} ({_PLUGINS[plugin]}) is not enabled on {', '.join(names)}"
        for plugin, names in missing.items()
    )
    return Diagnosis.warning("plugins", told, f"rabbitmq-plugins enable {' '.join(missing)}")


def _check_running(nodes: list[dict[str, Any]]) -> Diagnosis:
    down = [node["name"] for node in nodes if not node.get("running")]
    parted = [node["name"] for node in nodes if node.get("partitions")]
    if down or parted:
        return Diagnosis.wrong(
            "broker nodes",
            f"down: {', '.join(down) or 'none'}; partitioned: {', '.join(parted) or 'none'}",
            "Start the nodes that are down; mend the network, then restart those of the smaller "
            "side of a partition (autoheal does so by itself).",
        )
    return Diagnosis.ok("broker nodes", f"all {len(nodes)} run and reach each other")


def _check_net_ticktime(nodes: list[dict[str, Any]]) -> Diagnosis:
    ticks = [node["net_ticktime"] for node in nodes if "net_ticktime" in node]
    if not ticks:
        return Diagnosis.skipped("net_ticktime", "can't be known: no node tells it")
    found = f"a frozen RabbitMQ node is noticed after about {max(ticks)} s"
    if max(ticks) > NET_TICKTIME_S_MAX:
        return Diagnosis.warning(
            "net_ticktime",
            f"{found}, and writes may wait for it",
            "Set `{kernel, [{net_ticktime, 10}]}` in advanced.config of each RabbitMQ node.",
        )
    return Diagnosis.ok("net_ticktime", found)


def _partition_handling() -> Diagnosis:
    return Diagnosis.skipped(
        "partition handling",
        "can't be known: no interface of RabbitMQ shows it to its clients",
        "Set cluster_partition_handling = pause_if_all_down, with all other nodes and recover = "
        "autoheal, in rabbitmq.conf of each RabbitMQ node; "
        "`rabbitmqctl environment` prints what is in force.",
    )
