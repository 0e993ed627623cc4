"""`make up HA=1` on a real engine: a cluster grows to three sites, and each of them dies in turn.

It needs a Docker engine, the images and the ports 80, 3000, 9090 and 15672 to 15674, so it runs
only where SYNOD_COMPOSE=1 says that they are there.
"""

import subprocess
from collections.abc import Iterator

import pytest

from chaos.cluster.rabbitmq import COUNT_RUNNING
from synod.client import Client
from tests.compose.containers import (
    URL,
    all_up,
    container,
    containers,
    make,
    needs_containers,
    token,
    try_to_make,
    until,
)

SITES = ("site-1", "site-2", "site-3")
BROKERS = ("rabbitmq-1", "rabbitmq-2", "rabbitmq-3")
TARGETS = 20
"""Fifteen members, two gateways and three brokers."""

pytestmark = needs_containers


@pytest.fixture(scope="module", autouse=True)
def removed() -> Iterator[None]:
    try:
        yield
    finally:
        make("down", "ARGS=--volumes")
        make("down", "HA=1", "ARGS=--volumes")


def docker(command: str, *arguments: str) -> str:
    return subprocess.run(
        ["docker", command, *arguments], capture_output=True, text=True, check=True
    ).stdout


def knows_all(broker: str) -> bool:
    """Whether a RabbitMQ node runs, and knows all others as running."""
    command = ("rabbitmqctl", "--quiet", "eval", COUNT_RUNNING)
    try:
        return docker("exec", container(broker), *command).strip() == str(len(BROKERS))
    except subprocess.CalledProcessError:
        return False


def whole(synod: Client) -> bool:
    """Whether one more site may die: nodes are back before the RabbitMQ node of their site."""
    if not all(map(knows_all, BROKERS)):
        return False
    nodes = [node for node in synod.cluster()["nodes"] if node["role"] != "gateway"]
    return all(node["seen"] and node["age_ms"] < 3000 for node in nodes) and all(
        node["in_view"] for node in nodes if node["role"] == "store"
    )


def test_a_cluster_grows_to_three_sites_and_each_may_die() -> None:
    make("up")
    with Client(URL, token=token(), patience_s=60) as synod:
        synod.put("before", b"written with one broker")

        make("up", "HA=1")

        assert synod.read("before") == b"written with one broker"
        until(lambda: all_up(TARGETS), "Prometheus reaches all nodes and brokers")
        assert "rabbitmq-3" in make("ps", "HA=1")
        assert "is ready at" in make("logs", "HA=1", "ARGS=gateway-2")
        for site in SITES:
            dead = containers(f"synod.site={site}")
            docker("update", "--restart=no", *dead)
            docker("kill", *dead)

            synod.put(f"without/{site}", site.encode())
            assert synod.read(f"without/{site}") == site.encode()

            docker("start", *dead)
            docker("update", "--restart=unless-stopped", *dead)
            until(lambda: whole(synod), f"{site} is back")

        # Two sites at once: everything waits, and goes on by itself when one is back.
        dead = containers("synod.site=site-1") + containers("synod.site=site-2")
        docker("update", "--restart=no", *dead)
        docker("kill", *dead)
        docker("start", *containers("synod.site=site-2"))
        until(lambda: synod.put("after", b"two sites died"), "a majority of sites is back")
        docker("start", *containers("synod.site=site-1"))
        docker("update", "--restart=unless-stopped", *dead)
        until(lambda: whole(synod), "all sites are back")
        assert {site.name for site in synod.list("without")} == set(SITES)


def test_a_volume_with_another_password_is_explained() -> None:
    make("up", "HA=1")
    make("down", "HA=1")

    done = try_to_make("up", "HA=1", "UP_PATIENCE_S=30", RABBITMQ_PASSWORD="another")

    assert done.returncode != 0
    assert "store-1: r" in done.stderr
    assert "  | synod: store-1: the broker amqps://rabbitmq-" in done.stderr
    assert "Likely cause: RabbitMQ refuses the password of .env" in done.stderr
    [advice] = [line for line in done.stderr.splitlines() if "docker volume rm " in line]
    volumes = advice.split()[3:]
    assert [volume.rpartition("_")[2] for volume in volumes] == [
        "rabbitmq-1",
        "rabbitmq-2",
        "rabbitmq-3",
    ]

    make("down", "HA=1")
    docker("volume", "rm", *volumes)
    assert try_to_make("up", "HA=1", RABBITMQ_PASSWORD="another").returncode == 0
