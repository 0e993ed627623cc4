"""`make up OWN_USERS=1` on a real engine, with one RabbitMQ node and with three.

As `tests/compose/test_live.py` it needs a Docker engine, the images and the ports.
"""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from actors.options import Options
from synod.client import Client
from tests.compose.containers import (
    ROOT,
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

pytestmark = needs_containers

OWN = "OWN_USERS=1"
NODES = (*Options().members, "gateway-1")

# What whoever broke into a container can do there: log on, and publish to the coordinator.
THIEF = """
import asyncio, sys
import aiormq
from pamqp import commands
from gateway.settings import load_settings

async def attempt(user, sender):
    settings = load_settings()
    url = settings.broker.partition(",")[0]
    context = settings.broker_tls.context_for(url)
    connection = await aiormq.connect(url, context=context)
    properties = commands.Basic.Properties(
        message_type="txn.vote", app_id=sender, user_id=f"synod.synod.{user}",
        content_type="application/json", headers={"wire": 1},
    )
    try:
        channel = await connection.channel(publisher_confirms=True)
        await channel.basic_publish(
            b"[]", exchange="synod.synod.to.learner", routing_key="learner-1", properties=properties
        )
        return "taken"
    except aiormq.AMQPError as error:
        return str(error)
    finally:
        await connection.close()

print(asyncio.run(attempt(*sys.argv[1:])))
"""


@pytest.fixture(scope="module", params=["", "HA=1"], ids=["single", "ha"])
def kind(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """The arguments of `make`, of a cluster that runs."""
    arguments = (OWN, *filter(None, [request.param]))
    try:
        make("up", *arguments)
        yield arguments
    finally:
        make("down", *arguments, "ARGS=--volumes")


def inspected(service: str) -> dict[str, Any]:
    """What the engine knows of a container."""
    done = subprocess.run(
        ["docker", "inspect", container(service)], capture_output=True, text=True, check=True
    )
    [found] = json.loads(done.stdout)
    return dict(found)


def steal(node: str, user: str, sender: str) -> str:
    """What RabbitMQ says when a thief in a node's container publishes so."""
    command = ["docker", "exec", container(node), "python", "-c", THIEF, user, sender]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refused() -> float:
    """How many messages the coordinators did not take for their senders' names."""
    lines = "\n".join(
        subprocess.run(
            ["docker", "exec", container(node), "python", "-c", METRICS],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for node in ("learner-1", "learner-2")
    ).splitlines()
    name = "paxos_node_refused_senders_total"
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


METRICS = """
import os, urllib.request
asked = urllib.request.Request("http://127.0.0.1:9100/metrics")
asked.add_header("authorization", "Bearer " + os.environ["SYNOD_TOKEN"])
print(urllib.request.urlopen(asked).read().decode())
"""


def test_the_whole_life(kind: tuple[str, ...]) -> None:
    gateways = ["gateway-1", "gateway-2"] if "HA=1" in kind else ["gateway-1"]
    nodes = [*NODES[:-1], *gateways]
    contents = bytes(range(256)) * 10_000
    with Client(URL, token=token(), patience_s=30) as synod:
        synod.put("a/large", contents)
        assert synod.read("a/large") == contents
        until(lambda: all_up(20 if "HA=1" in kind else 17), "Prometheus reaches all")

        # The administrator's password is with RabbitMQ, and each node has one file.
        given = dict(line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines()[1:])
        for node in nodes:
            about = inspected(node)
            assert given["RABBITMQ_PASSWORD"] not in json.dumps(about)
            mounted = [one["Source"] for one in about["Mounts"] if "broker" in one["Source"]]
            assert mounted == [str(ROOT / f".secrets/broker/{node}.env")]

        # A thief in store-1 can't be acceptor-1, to RabbitMQ or to the receivers.
        assert steal("store-1", "store-1", "store-1") == "taken"
        before = refused()
        assert "user_id property set to 'synod.synod.acceptor-1' but authenticated user was" in (
            steal("store-1", "acceptor-1", "acceptor-1")
        )
        assert steal("store-1", "store-1", "acceptor-1") == "taken"
        until(lambda: refused() > before, "the coordinator has refused the message")

        # Again, and nothing is another one.
        started = {node: inspected(node)["State"]["StartedAt"] for node in nodes}
        files = {path: path.stat().st_ino for path in (ROOT / ".secrets/broker").iterdir()}
        make("up", *kind)
        assert {node: inspected(node)["State"]["StartedAt"] for node in nodes} == started
        assert {path: path.stat().st_ino for path in (ROOT / ".secrets/broker").iterdir()} == files

        # Not beside nodes that log on as one user.
        other = try_to_make("up", *kind[1:])
        assert other.returncode != 0
        assert "logs on to RabbitMQ as a user of its own" in other.stderr

        # A password that may be known is another one, and its node is back.
        (ROOT / ".secrets/broker/store-1.env").unlink()
        assert "New RabbitMQ passwords, in .secrets/broker: store-1\n" in make("up", *kind)
        synod.put("a/after", b"after")
        assert synod.read("a/large") == contents

        for name in ("learner-1", "store-1"):
            done = subprocess.run(
                ["docker", "exec", container(name), "synod", "doctor"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "lets 'synod.synod." in done.stdout, done.stdout + done.stderr
        with ThreadPoolExecutor(1) as pool:
            steps = pool.submit(make, "trace", *kind, "ARGS=--seconds 8")
            while not steps.done():
                synod.put("a/traced", b"again")
        for step in ("client.submit", "paxos.accept", "txn.vote", "client.result"):
            assert step in steps.result()
    assert len(containers("synod.broker-users=own")) == len(nodes)
