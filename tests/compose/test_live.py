"""`make up` on a real engine: a store is killed and comes back, all stops and starts again.

It needs a Docker engine, the images and the ports 80, 3000, 9090 and 15672, so it runs only where
SYNOD_COMPOSE=1 says that they are there.
"""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from synod.client import Client
from tests.compose.containers import (
    URL,
    all_up,
    container,
    get,
    make,
    needs_containers,
    token,
    until,
)

pytestmark = needs_containers


@pytest.fixture(scope="module")
def synod() -> Iterator[Client]:
    make("up")
    try:
        with Client(URL, token=token(), patience_s=30) as client:
            yield client
    finally:
        make("down", "ARGS=--volumes")


def test_the_whole_life(synod: Client) -> None:
    contents = bytes(range(256)) * 10_000
    synod.put("a/large", contents)
    assert synod.read("a/large") == contents

    # Prometheus reaches every node, with the token.
    until(lambda: all_up(17), "Prometheus reaches all nodes and the broker")
    assert get("http://127.0.0.1:3000/api/health")["database"] == "ok"

    # A store is killed as by a power cut. It is started again, and still has its data.
    incarnation = _store_of(synod)["incarnation"]
    subprocess.run(["docker", "kill", container("store-2")], check=True, capture_output=True)
    subprocess.run(["docker", "start", container("store-2")], check=True, capture_output=True)
    until(
        lambda: _store_of(synod)["incarnation"] > incarnation and _store_of(synod)["age_ms"] < 3000,
        "store-2 is back",
    )
    synod.put("a/after", b"after")
    until(lambda: _store_of(synod)["in_view"], "store-2 is in the view")
    assert synod.read("a/large") == contents

    # Everything stops, and starts again on its volumes.
    make("down")
    make("up")
    assert synod.read("a/large") == contents
    assert synod.read("a/after") == b"after"
    assert "store-2" in make("ps")
    assert "is ready at" in make("logs")

    # A write, as the broker sees it.
    with ThreadPoolExecutor(1) as pool:
        steps = pool.submit(make, "trace", "ARGS=--seconds 10")
        while not steps.done():
            synod.put("a/traced", b"again")
    for step in ("client.submit", "paxos.accept", "txn.prepare", "txn.vote", "client.result"):
        assert step in steps.result()


def _store_of(synod: Client) -> dict[str, Any]:
    (node,) = [node for node in synod.cluster()["nodes"] if node["name"] == "store-2"]
    return {"incarnation": 0, "age_ms": 1 << 30, **node}
