"""A real RabbitMQ for the tests: from the environment, Docker, or a server of their own."""

import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.cluster.rabbitmq import MESSAGE_BYTES_MAX, BrokerFailedError, PrivateBroker

IMAGE = "rabbitmq:4-management"


@dataclass(frozen=True)
class FoundBroker:
    """A broker that serves, and where it came from."""

    url: str
    origin: str


@contextmanager
def real_broker(folder: Path) -> Iterator[FoundBroker]:
    """Yield a RabbitMQ that serves. Raises an error with the remedies if there is none."""
    with ExitStack() as stack:
        yield _find(folder, stack)


def _find(folder: Path, stack: ExitStack) -> FoundBroker:
    if url := os.environ.get("SYNOD_TEST_AMQP_URL"):
        return FoundBroker(url, "SYNOD_TEST_AMQP_URL")
    obstacles: list[str] = []
    if docker_answers():
        try:
            return FoundBroker(_container(stack), f"container {IMAGE}")
        except Exception as error:  # Docker fails in many ways; then the next source is tried.
            obstacles.append(f"Docker answers but gave no broker: {error!r}")
    else:
        obstacles.append("no Docker engine answers")
    try:
        broker = PrivateBroker(folder)
        broker.start()
    except BrokerFailedError as error:
        obstacles.append(str(error))
    else:
        stack.callback(broker.stop)
        why = "".join(f"; {obstacle}" for obstacle in obstacles)
        return FoundBroker(broker.url, f"private rabbitmq-server{why}")
    raise BrokerFailedError(
        "No RabbitMQ for the tests:\n  - "
        + "\n  - ".join(obstacles)
        + "\nDo one of these: set SYNOD_TEST_AMQP_URL to a broker that may be filled with test"
        " queues; start Docker; install the server (apt-get install rabbitmq-server)."
    )


def docker_answers() -> bool:
    """Whether a Docker engine answers, not just its client is installed."""
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _container(stack: ExitStack) -> str:
    # Imported here, because it looks for an engine and is slow to load. It uses what it has itself
    # deprecated; as an error, that warning would leave the tests without their container.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from testcontainers.rabbitmq import RabbitMqContainer

        arguments = f"-rabbit max_message_size {MESSAGE_BYTES_MAX}"
        container = RabbitMqContainer(IMAGE)
        container.with_env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments)
        stack.enter_context(container)
    host, port = container.get_container_host_ip(), container.get_exposed_port(5672)
    return f"amqp://{container.username}:{container.password}@{host}:{port}/"
