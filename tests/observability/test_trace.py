"""The trace of one request over a real RabbitMQ, from the records of processes that know nothing
of each other.
"""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from chaos.cluster.local import Description, LocalCluster
from synod.client import Client


@pytest.mark.slow
@pytest.mark.rabbitmq
@pytest.mark.timeout(180)
def test_one_request_over_all_nodes(tmp_path: Path) -> None:
    counts = {"proposers": 1, "acceptors": 3, "learners": 2, "stores": 3}
    description = Description.mint(counts=counts, metrics=True)
    with LocalCluster(tmp_path, description) as cluster, Client(cluster.url) as synod:
        written = synod.put("a/b", b"what nobody may read in a trace")
        found: dict[str, Any] = {}

        def whole() -> bool:
            found.update(_trace(cluster, written.request))
            events = found.get("events", ())
            # The decisions come last, after the answer, and each node tells when it likes.
            decided = {event["node"] for event in events if event["type"] == "txn.decision"}
            return (
                bool(found.get("complete"))
                and {"store-1", "store-2", "store-3"} <= decided
                and _ends(events, "received") == _ends(events, "sent")  # Every arrow has both.
            )

        cluster.wait_until(whole, "the trace is complete", timeout_s=20)
        metrics = {
            name: _get(port, "/metrics") for name, port in cluster.description.metrics.items()
        }
        assert all(_get(port, "/healthz") for port in cluster.description.metrics.values())

    events = found["events"]
    assert sum(s["end_us"] - s["start_us"] for s in found["stages"]) == found["duration_us"]
    votes = [e["node"] for e in events if (e["kind"], e["type"]) == ("sent", "txn.vote")]
    assert sorted(votes) == ["store-1", "store-2", "store-3"]
    commits = {event["node"] for event in events if event["kind"] == "committed"}
    assert {"acceptor-1", "acceptor-2", "acceptor-3", "store-1", "store-2", "store-3"} <= commits
    assert "what nobody may read" not in str(found)
    for name, text in metrics.items():
        assert f'paxos_node_broker_connected{{node="{name}"' in text


def _trace(cluster: LocalCluster, request: str) -> dict[str, Any]:
    answer = cluster.ask(f"/v1/traces/{request}")
    found: dict[str, Any] = json.loads(answer.body)
    return found


def _ends(events: list[dict[str, Any]], kind: str) -> set[str]:
    return {event["message_id"] for event in events if event["kind"] == kind}


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        text: str = answer.read().decode()
        return text
