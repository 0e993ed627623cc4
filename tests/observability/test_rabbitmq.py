"""The dashboard and the alerts of RabbitMQ hold for what a real one serves: a cluster of two of the
installed version, and version 4 in a container.
"""

import asyncio
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aio_pika
import pytest

from chaos.cluster.hosts import LOOPBACK
from chaos.cluster.rabbitmq import PrivateBrokerCluster
from observability.dashboard.rabbitmq import RABBITMQ, REACHED_PEERS
from tests.brokers import docker_answers
from tests.long import only_long
from tests.observability.prometheus import Prometheus

OBSERVABILITY = Path(__file__).parents[2] / "observability"
RULES = OBSERVABILITY / "prometheus" / "rules.yml"
IMAGE = "rabbitmq:4-management"
PATIENCE_S = 60

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Brokers:
    """RabbitMQ nodes that serve metrics."""

    url: str
    metrics_ports: Mapping[str, int]
    control: Callable[..., object]
    """Runs `rabbitmqctl` at the first of them."""
    end_one: Callable[[], object]


@contextmanager
def cluster_of_two(folder: Path) -> Iterator[Brokers]:
    cluster = PrivateBrokerCluster(folder, metrics=True, hosts=(LOOPBACK,) * 2)
    try:
        cluster.start()
        cluster.wait_whole()
        first, second = cluster.brokers
        ports = {
            f"rabbitmq-{number}": broker.identity.metrics_port
            for number, broker in enumerate(cluster.brokers, start=1)
        }
        yield Brokers(first.url, ports, first.control, second.kill)
    finally:
        cluster.stop()


@contextmanager
def container(folder: Path) -> Iterator[Brokers]:
    def docker(*words: str) -> str:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    plugins = f"{OBSERVABILITY}/rabbitmq/enabled_plugins:/etc/rabbitmq/enabled_plugins:ro"
    ports = ("--publish", "127.0.0.1::5672", "--publish", "127.0.0.1::15692")
    name = docker("run", "--detach", "--rm", *ports, "--volume", plugins, IMAGE)
    try:
        amqp, metrics = (docker("port", name, port).split(":")[-1] for port in ("5672", "15692"))
        yield Brokers(
            f"amqp://guest:guest@127.0.0.1:{amqp}/",
            {"rabbitmq-1": int(metrics)},
            lambda *command: docker("exec", name, "rabbitmqctl", *command),
            lambda: docker("kill", name),
        )
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


@only_long
@pytest.mark.parametrize("start", [cluster_of_two, container])
def test_every_query_finds_what_rabbitmq_serves(
    tmp_path: Path, start: Callable[[Path], AbstractContextManager[Brokers]]
) -> None:
    if start is container and not docker_answers():
        pytest.skip("no Docker engine answers")
    with (
        start(tmp_path / "rabbitmq") as brokers,
        Prometheus(
            tmp_path / "prometheus", brokers.metrics_ports, job="rabbitmq", rules=RULES
        ) as prometheus,
    ):
        asyncio.run(_tell(brokers, prometheus))


async def _tell(brokers: Brokers, prometheus: Prometheus) -> None:
    single = len(brokers.metrics_ports) == 1
    alerts = prometheus.alerts("rabbitmq")
    async with _traffic(brokers.url):
        # Given brokers under load that redeliver something, every panel has a figure for each.
        for title, expression in RABBITMQ.queries():
            if title in [mark.name for mark in RABBITMQ.annotations]:
                continue
            if expression == REACHED_PEERS and single:
                continue
            await _until(prometheus, f"{_filled(expression)} >= 0")
        await _until(prometheus, "sum(rate(rabbitmq_global_messages_redelivered_total[5s])) > 0")
        await _until(prometheus, "sum(rabbitmq_queue_messages_unacked) > 0")
        # So has every metric of every alert; and only that of the redeliveries fires.
        for alert, expression in alerts.items():
            for metric in _metrics(expression):
                assert (single and "dist_node" in metric) or _series(prometheus, metric), alert
        await _until(prometheus, alerts.pop("RabbitMQRedelivers"))
        await _firing(prometheus, alerts, until=set())

        # When the limits of memory and disk are reached, the alerts fire that say so.
        await asyncio.to_thread(brokers.control, "set_vm_memory_high_watermark", "absolute", "1MB")
        await asyncio.to_thread(brokers.control, "set_disk_free_limit", "1000000GB")
        full = {"MemoryAlarm", "DiskAlarm", "MemoryHigh", "DiskLow"}
        await _firing(prometheus, alerts, until={f"RabbitMQ{name}" for name in full})
        for mark in RABBITMQ.annotations[1:]:
            await _until(prometheus, mark.expression)
        await asyncio.to_thread(brokers.control, "set_vm_memory_high_watermark", "0.4")
        await asyncio.to_thread(brokers.control, "set_disk_free_limit", "50MB")
        await _firing(prometheus, alerts, until=set())

    # When the clients are gone, and then a broker, too.
    await _firing(prometheus, alerts, until={"RabbitMQNoConnections"})
    await asyncio.to_thread(brokers.end_one)
    await _firing(prometheus, alerts, until={"RabbitMQNodeDown", "RabbitMQNoMajority"})
    await _until(prometheus, RABBITMQ.annotations[0].expression)


@asynccontextmanager
async def _traffic(url: str) -> AsyncIterator[None]:
    """Publish to a queue all the time; process most, return some, leave some unacknowledged."""
    connection = await _connect(url)
    async with connection, asyncio.TaskGroup() as tasks:
        channel = await connection.channel()
        queue = await channel.declare_queue("traffic", arguments={"x-max-length": 1_000})

        async def publish() -> None:
            while True:
                await channel.default_exchange.publish(aio_pika.Message(b"x"), "traffic")

        async def consume() -> None:
            kept: list[aio_pika.abc.AbstractIncomingMessage] = []
            async for message in queue.iterator():
                if len(kept) < 10:
                    kept.append(message)
                elif message.redelivered:
                    await message.ack()
                else:
                    await message.reject(requeue=True)

        running = [tasks.create_task(publish()), tasks.create_task(consume())]
        yield
        for task in running:
            task.cancel()


async def _connect(url: str) -> aio_pika.abc.AbstractConnection:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await aio_pika.connect(url, timeout=5)
        except (OSError, aio_pika.exceptions.AMQPError):
            assert time.monotonic() < deadline, f"{url} does not serve"
            await asyncio.sleep(0.2)


def _filled(expression: str) -> str:
    return expression.replace("$__rate_interval", "5s")


def _metrics(expression: str) -> set[str]:
    return set(re.findall(r'\b(?:rabbitmq_|erlang_vm_)\w+|\bup\{job="rabbitmq"\}', expression))


def _series(prometheus: Prometheus, query: str) -> bool:
    return bool(prometheus.ask("query", query=query))


async def _until(prometheus: Prometheus, query: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(_series, prometheus, query):
        assert time.monotonic() < deadline, f"never: {query}"
        await asyncio.sleep(0.2)


async def _firing(prometheus: Prometheus, alerts: Mapping[str, str], until: set[str]) -> None:
    """Wait until the conditions of exactly these alerts hold, whatever their time to fire."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = {
            name
            for name, expression in alerts.items()
            if await asyncio.to_thread(_series, prometheus, expression)
        }
        if found == until:
            return
        assert time.monotonic() < deadline, f"expected {sorted(until)}, found {sorted(found)}"
        await asyncio.sleep(0.2)
