"""A cluster of real nodes, each a user of its own on a real broker, through losses of sessions."""

import asyncio
from pathlib import Path

import pytest

from actors.calls import WriteDecided
from broker.topology import QueueKind
from tests.broker.users import OPTIONS, PreparedBroker
from tests.long import only_long
from tests.replication.cluster import eventually, memory_cluster
from tests.worlds import put

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(120), only_long]


@pytest.mark.parametrize("kind", ["named", "session"])
async def test_a_cluster_is_founded_writes_and_reads_and_is_refused_nothing(
    tmp_path: Path, prepared: PreparedBroker, kind: QueueKind, caplog: pytest.LogCaptureFixture
) -> None:
    """Given all nodes of a cluster, when a proposer's, the coordinator's and a store's
    connections break, then writes go on, all stores hold them, and no node was refused anything.
    """
    await prepared.forget_messages()
    async with memory_cluster(
        tmp_path,
        heartbeat_ms=500,
        proposers=OPTIONS.proposers,
        acceptors=OPTIONS.acceptors,
        transport=lambda name: prepared.transport(name, kind),
    ) as cluster:
        done: dict[str, str] = {}

        async def write(count: int) -> None:
            wanted = len(done) + count
            while len(done) < wanted:
                path = f"f{len(done)}"
                answer = await cluster.write(put(path, path.encode()))
                if isinstance(answer, WriteDecided) and answer.outcome.status == "done":
                    done[path] = answer.outcome.etag

        async with asyncio.timeout(50):
            await write(10)
            broken = ("proposer-1", cluster.coordinator, "store-1")
            for name in broken:
                session = cluster.hosts[name].transport._session  # type: ignore[attr-defined]
                session._publishing._writer.transport.abort()
            await eventually(
                lambda: all(cluster.hosts[n].transport.health.sessions >= 2 for n in broken),
                within_s=20,
            )
            await write(10)
            await cluster.settled()
        for name in ("store-1", "store-2", "store-3"):
            entries = cluster.actor(name).state.entries
            assert {path: entries[path].etag for path in done} == done
        for name, host in cluster.hosts.items():
            health = host.transport.health
            assert (health.refused, health.quarantined) == (0, 0), name
            counters = host.actor.counters  # type: ignore[attr-defined]
            assert counters["dropped_not_permitted"] == 0, name
    # A busy machine may lose a session, but none for what its user may not do.
    assert "REFUSED" not in caplog.text
