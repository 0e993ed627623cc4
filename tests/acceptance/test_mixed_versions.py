"""A cluster goes over from the former release to this one, node by node, under load."""

import asyncio
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.effects import Blob, Record
from broker.journal import Journal
from chaos.cluster.local import THIS_TREE, Description, LocalCluster
from chaos.load.writers import Load
from tests.acceptance import releases
from tests.acceptance.broker import quarantined
from tests.acceptance.conftest import Figure, Length
from tests.acceptance.test_failures import incarnation, judge, living_leader, new_incarnation
from tests.chaos import patched
from tests.house.test_imports import PACKAGES
from tests.long import LONG, only_long

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(900 if LONG else 300)]

SMALL = {"proposers": 2, "acceptors": 3, "learners": 2, "stores": 3}
REPLICATED = ("entry/", "session/", "result/", "key/", "state")
"""The rows that all replicas have in common once they have applied the same slots."""

ALARMING = ('"level": "error"', '"level": "critical"', '"type": "replica.diverged"', "Traceback")


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The program of the former release."""
    return releases.unpack(releases.kept()[-1], tmp_path_factory.mktemp("former") / "release")


@pytest.fixture
def cluster(
    former: tuple[str, ...], length: Length, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """A cluster of the former release."""
    description = Description.mint(gateways=2, counts={} if length.long else SMALL)
    programs = dict.fromkeys(description.nodes, former)
    cluster = LocalCluster(tmp_path_factory.mktemp("mixed"), description, programs=programs)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


async def goes_over(cluster: LocalCluster, name: str, program: tuple[str, ...] = THIS_TREE) -> None:
    """Restart a node as another release, and wait until it takes part again."""
    is_gateway = name.startswith("gateway-")
    known = 0 if is_gateway else await asyncio.to_thread(incarnation, cluster, name)
    await asyncio.to_thread(cluster.go_over, name, program)
    if is_gateway:
        await asyncio.to_thread(cluster.wait_ready)
    else:
        await new_incarnation(cluster, name, known)
    if name.startswith("store-"):
        await back_in_the_view(cluster)


def halves(cluster: LocalCluster, leader: str) -> tuple[list[str], list[str]]:
    """The order of the guide: half of each role first, then the others; the leader late, the
    gateways last, and that of the clients after all others.
    """
    first, second = [], []
    for role in ("acceptor", "proposer", "learner", "store"):
        nodes = [name for name in cluster.nodes if name.startswith(role) and name != leader]
        half = (len(nodes) + 1) // 2
        first += nodes[:half]
        second += nodes[half:]
    return first, [*second, leader, "gateway-2", "gateway-1"]


async def back_in_the_view(cluster: LocalCluster) -> None:
    """Wait until the view has all stores: the next one may go only then."""

    def whole() -> bool:
        view = cluster.survey()["view"]
        return view is not None and len(view["stores"]) == cluster.description.stores

    await asyncio.to_thread(cluster.wait_until, whole, "the view has all stores", timeout_s=60)


async def faults(cluster: LocalCluster) -> list[str]:
    """End the cluster; what of it is not as it should be after an upgrade."""
    found = []
    if count := await quarantined(cluster):
        found.append(f"{count} messages are in quarantine")
    await same_slot(cluster)
    found += [f"{name} has ended" for name, node in cluster.nodes.items() if not node.runs]
    await asyncio.to_thread(cluster.stop)
    for name, node in cluster.nodes.items():
        lines = [
            line for line in node.log.read_text().splitlines() if any(map(line.count, ALARMING))
        ]
        found += [f"{name} logs: {line}" for line in lines]
    return found + differences(cluster)


async def same_slot(cluster: LocalCluster) -> None:
    """Wait until all replicas have durably applied the same slots."""

    def equal() -> bool:
        nodes = [n for n in cluster.survey()["nodes"] if n["role"] in ("store", "learner")]
        return len({n.get(mark) for n in nodes for mark in ("applied", "durable")}) == 1

    await asyncio.to_thread(cluster.wait_until, equal, "all replicas have the same slots")


def differences(cluster: LocalCluster) -> list[str]:
    """The replicated rows in which the journals of ended replicas differ."""
    replicas = [name for name in cluster.nodes if name.startswith(("store-", "learner-"))]
    states = {name: replicated_rows(cluster, name) for name in replicas}
    usual = states["learner-1"]
    return [
        f"{name} and learner-1 differ in {key}"
        for name, rows in states.items()
        for key in sorted(usual.keys() | rows.keys())
        if usual.get(key) != rows.get(key)
    ]


def replicated_rows(cluster: LocalCluster, name: str) -> dict[str, bytes | None]:
    with Journal.open(cluster.data / name, name, cluster.name) as journal:
        return {r.key: r.value for r in journal.records() if r.key.startswith(REPLICATED)}


async def test_a_cluster_goes_over_to_this_version_node_by_node(
    cluster: LocalCluster, former: tuple[str, ...], length: Length, figure: Figure
) -> None:
    # Given a cluster of the former release that takes writes,
    began_s = time.monotonic()
    async with Load(cluster.url, clients=4, keys=True) as load:
        await load.count(20)

        # when half of each role goes over to this version,
        first, second = halves(cluster, await asyncio.to_thread(living_leader, cluster))
        for name in first:
            await goes_over(cluster, name)
            await load.count(3)

        # and in this mixture two stores and the leader die, and a store goes back,
        newer, older = "store-1", "store-3"
        for _ in range(length.pick(1, 5)):
            for name in (older, newer, await asyncio.to_thread(living_leader, cluster)):
                known = await asyncio.to_thread(incarnation, cluster, name)
                await asyncio.to_thread(cluster.kill, name)
                await load.acknowledged_since(time.monotonic_ns())
                cluster.start_node(name)
                await new_incarnation(cluster, name, known)
            await back_in_the_view(cluster)
            await goes_over(cluster, newer, former)
            await load.count(20)
            await goes_over(cluster, newer)

        # and then all others go over, the gateway of the clients last,
        for name in second:
            await goes_over(cluster, name)
            await load.count(3)
        await load.count(20)

    # then each write is there once, and the replicas are equal to the byte.
    assert set(cluster.programs.values()) == {THIS_TREE}
    await judge(load)
    assert await faults(cluster) == []
    figure(f"{len(cluster.nodes)} nodes in {time.monotonic() - began_s:.0f} s; {load.summary()}")


@only_long
async def test_a_change_without_a_version_would_be_found(cluster: LocalCluster) -> None:
    """Given an acceptor that writes another wire, and a store that computes another state, then the
    test above would fail for each of them.
    """
    await goes_over(cluster, "store-1", (str(patched.__file__), "another_outcome"))
    await asyncio.to_thread(cluster.go_over, "acceptor-3", (str(patched.__file__), "another_wire"))
    async with Load(cluster.url, clients=4) as load:
        await load.count(40)
        await asyncio.to_thread(
            cluster.wait_until,
            lambda: "goes to quarantine" in cluster.nodes["learner-1"].log.read_text(),
            "the learner has put a message of the acceptor into quarantine",
        )
    found = await faults(cluster)

    assert any("messages are in quarantine" in fault for fault in found)
    path = load.attempts[0].path
    assert f"store-1 and learner-1 differ in entry/{path}" in found
    assert not [fault for fault in found if fault.startswith("store-2 and")]


def test_the_former_release_runs_its_own_code(former: tuple[str, ...]) -> None:
    """Otherwise this tree would be tested against itself."""
    shown = subprocess.run(
        [sys.executable, "-v", *former, "config"], capture_output=True, text=True, check=True
    )
    assert f"{former[0]}/synod/_app/gateway/settings.py" in shown.stderr
    for package in PACKAGES:
        assert f"{releases.ROOT / package}/" not in shown.stderr


OPEN = """
import sys
sys.path.insert(0, f"{sys.argv[1]}/synod/_app")
from actors.effects import Record
from broker import journal
assert journal.__file__.startswith(sys.argv[1])
with journal.Journal.open(sys.argv[2], "store-1", "test") as opened:
    print(sorted(record.key for record in opened.records()), opened.blob_names())
    opened.commit([Record("former", b"it was here")])
"""


def test_the_former_release_opens_a_journal_that_was_closed_and_refuses_one_in_use(
    former: tuple[str, ...], tmp_path: Path
) -> None:
    """Given a log whose commits it does not know, then 0.1.0 must not pass over them."""

    def opened(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", OPEN, former[0], str(tmp_path / name)]
        return subprocess.run(command, capture_output=True, text=True)

    content = b"contents"
    blob = Blob(hashlib.sha256(content).hexdigest(), content)
    with Journal.open(tmp_path / "closed", "store-1", "test") as journal:
        journal.commit([Record("manifest", b"")], [blob])
        journal.commit([Record("promised", b"7")])
        shutil.copytree(tmp_path / "closed", tmp_path / "killed")

    assert opened("closed").stdout == f"['manifest', 'promised'] {[blob.sha256]}\n"
    refusal = opened("killed").stderr
    assert "JournalForeign" in refusal
    assert "has format 3" in refusal
    for name, rows in (("closed", {"former"}), ("killed", set())):
        with Journal.open(tmp_path / name, "store-1", "test") as journal:
            assert {row.key for row in journal.records()} == {"manifest", "promised"} | rows
    # Once this release has opened and closed it, the former one goes on.
    assert opened("killed").stdout == f"['manifest', 'promised'] {[blob.sha256]}\n"


@pytest.mark.parametrize("line", releases.SUMS.read_text().splitlines())
def test_a_kept_release_is_what_was_kept(line: str) -> None:
    expected, name = line.split()
    assert hashlib.sha256((releases.FOLDER / name).read_bytes()).hexdigest() == expected
