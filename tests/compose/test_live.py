"""`make up` on a real engine: a store is killed and comes back, all stops and starts again.

It needs a Docker engine, the images and the ports 80, 3000, 9090 and 15672, so it runs only where
SYNOD_COMPOSE=1 says that they are there.
"""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from synod.client import Client
from synod.errors import SynodError

ROOT = Path(__file__).parents[2]
URL = "http://127.0.0.1:80"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.environ.get("SYNOD_COMPOSE") != "1", reason="SYNOD_COMPOSE=1 runs the containers"
    ),
]


def make(*arguments: str) -> str:
    done = subprocess.run(
        ["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    lines = (ROOT / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def until(true: Callable[[], object], what: str, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if true():
                return
        except (OSError, SynodError):
            pass  # Not yet.
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def synod() -> Iterator[Client]:
    make("up")
    try:
        with Client(URL, token=environment()["SYNOD_TOKEN"], patience_s=30) as client:
            yield client
    finally:
        make("down", "ARGS=--volumes")


def get(url: str, token: str = "") -> Any:
    request = urllib.request.Request(url)
    if token:
        request.add_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_the_whole_life(synod: Client) -> None:
    contents = bytes(range(256)) * 10_000
    synod.put("a/large", contents)
    assert synod.read("a/large") == contents

    # Prometheus reaches every node, with the token.
    def all_up() -> bool:
        found = get("http://127.0.0.1:9090/api/v1/query?query=up")["data"]["result"]
        return len(found) == 17 and all(series["value"][1] == "1" for series in found)

    until(all_up, "Prometheus reaches all nodes and the broker")
    assert get("http://127.0.0.1:3000/api/health")["database"] == "ok"

    # A store is killed as by a power cut. It is started again, and still has its data.
    incarnation = _store_of(synod)["incarnation"]
    subprocess.run(["docker", "kill", _id("store-2")], check=True, capture_output=True)
    subprocess.run(["docker", "start", _id("store-2")], check=True, capture_output=True)
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


def _id(service: str) -> str:
    command = ["docker", "ps", "--all", "--quiet", "--filter"]
    label = f"label=com.docker.compose.service={service}"
    return subprocess.run(
        [*command, label], capture_output=True, text=True, check=True
    ).stdout.strip()
