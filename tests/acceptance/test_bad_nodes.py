"""Nodes that must not run: each gives the reason and ends or waits, and the cluster goes on."""

import asyncio
import shutil
from pathlib import Path

import pytest

from chaos.cluster.local import LocalCluster
from chaos.cluster.processes import Daemon, Watchdog
from chaos.load.http1 import Connection
from tests.acceptance.shell import Ran, clean_environment, synod

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def processes(cluster: LocalCluster) -> dict[str, int | None]:
    """The process of each node before the test."""
    return {name: cluster.process_id(name) for name in cluster.nodes}


async def goes_on(cluster: LocalCluster, processes: dict[str, int | None]) -> None:
    """Assert that no node has died, and that the cluster writes and reads."""
    assert {name: cluster.process_id(name) for name in cluster.nodes} == processes
    connection = Connection.to(cluster.url)
    assert (await connection.request("PUT", "/v1/files/alive", b"yes")).status in (200, 201)
    assert (await connection.request("GET", "/v1/files/alive")).body == b"yes"
    connection.close()


def node(local: LocalCluster, folder: Path, name: str, **settings: str) -> Ran:
    """Run a node with the cluster's settings but for `settings` until it ends."""
    environment = dict(local.environment)
    environment |= {f"SYNOD_{key.upper()}": value for key, value in settings.items()}
    return synod("node", name, environment=environment, folder=folder)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("referee-1", "proposer, acceptor, learner, store, gateway"),
        ("store", "store-2"),
        ("store-0", "store-2"),
        ("store-01", "store-2"),
        ("store-65", "is not a member"),
        ("../store-1", "store-2"),
        ("store-²", "store-2"),
    ],
)
def test_an_unknown_name_is_refused(
    cluster: LocalCluster, tmp_path: Path, name: str, says: str
) -> None:
    ran = node(cluster, tmp_path, name, data=str(tmp_path / "data"))
    said = " ".join(ran.err.replace("│", " ").split())
    assert (ran.code, says in said, "Traceback" in said) == (2, True, False), ran
    assert not (tmp_path / "data").exists()


async def test_wrong_credentials_are_reported_and_not_shown(
    cluster: LocalCluster, tmp_path: Path, processes: dict[str, int | None]
) -> None:
    url = cluster.broker_url
    password = url.rpartition("@")[0].rpartition(":")[2]
    ran = await asyncio.to_thread(
        node,
        cluster,
        tmp_path,
        "gateway-7",
        broker=url.replace(password, "not-the-password"),
        data=str(tmp_path / "data"),
        port="0",
    )
    assert (ran.code, "refused the user name or password" in ran.err) == (1, True), ran
    assert "not-the-password" not in ran.out + ran.err
    assert "Traceback" not in ran.err
    await goes_on(cluster, processes)


def test_a_whole_cluster_ends_without_its_broker(tmp_path: Path) -> None:
    environment = clean_environment(
        broker="amqp://someone:secret@127.0.0.1:1/", data=str(tmp_path / "data"), port="0"
    )
    ran = synod("up", environment=environment, folder=tmp_path)
    assert (ran.code, "can't be reached" in ran.err) == (1, True), ran
    assert "secret" not in ran.out + ran.err
    assert "Traceback" not in ran.err


def test_a_node_waits_for_its_broker_and_logs_that(cluster: LocalCluster, tmp_path: Path) -> None:
    spare = cluster.nodes["gateway-1"]
    environment = spare.environment | {
        "SYNOD_BROKER": "amqp://someone:secret@127.0.0.1:1/",
        "SYNOD_DATA": str(tmp_path / "data"),
        "SYNOD_PORT": "0",
    }
    command = [*spare.command[:-1], "gateway-8"]
    log = tmp_path / "gateway-8.log"
    daemon = Daemon(
        "gateway-8", command, environment, folder=tmp_path, log=log, record=tmp_path / "record"
    )
    watchdog = Watchdog()
    daemon.start(group=watchdog.group)
    try:
        cluster.wait_until(
            lambda: log.exists() and "no connection to amqp://127.0.0.1:1/" in log.read_text(),
            "the node logs that its broker is away",
        )
        assert daemon.runs
        daemon.stop()
        assert "secret" not in log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        daemon.kill()
        watchdog.close()


@pytest.mark.parametrize("name", ["acceptor-2", "store-1", "learner-2", "proposer-3"])
async def test_a_second_process_for_a_running_node_is_refused(
    cluster: LocalCluster, tmp_path: Path, processes: dict[str, int | None], name: str
) -> None:
    ran = await asyncio.to_thread(node, cluster, tmp_path, name)
    assert (ran.code, f"in use by process {processes[name]}" in ran.err) == (1, True), ran
    assert "Traceback" not in ran.err
    await goes_on(cluster, processes)


@pytest.mark.parametrize("settings", [{"cluster": "another"}, {}], ids=["cluster", "node"])
async def test_a_data_folder_of_another_one_is_refused(
    cluster: LocalCluster,
    tmp_path: Path,
    processes: dict[str, int | None],
    settings: dict[str, str],
) -> None:
    # Given a copy of a member's folder,
    data = tmp_path / "data"
    claimed = "store-1" if settings else "store-2"
    await asyncio.to_thread(shutil.copytree, cluster.data / "store-1", data / claimed)

    # when a node of another cluster, or another node, is started on it, it refuses.
    ran = await asyncio.to_thread(node, cluster, tmp_path, claimed, data=str(data), **settings)
    assert (ran.code, "belongs to store-1 of cluster" in ran.err) == (1, True), ran
    assert "Traceback" not in ran.err
    await goes_on(cluster, processes)


async def test_an_acceptor_with_an_emptied_folder_votes_only_once_it_has_replaced_itself(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    # Given an acceptor whose folder was emptied,
    name = "acceptor-5"
    await asyncio.to_thread(cluster.kill, name)
    folder, kept = cluster.data / name, tmp_path / "kept"
    folder.rename(kept)
    folder.mkdir()

    # when it starts, it runs and does not vote, and the status says what to do.
    cluster.start_node(name)

    def node_seen() -> dict[str, object]:
        return next(seen for seen in cluster.survey()["nodes"] if seen["name"] == name)

    await asyncio.to_thread(
        cluster.wait_until, lambda: node_seen().get("votes") is False, f"{name} runs"
    )
    warnings = [warning["detail"] for warning in cluster.survey()["condition"]["warnings"]]
    assert any("synod replace acceptor-5" in detail for detail in warnings), warnings

    # Then it is replaced, and the command says when the former disk is not needed any more.
    environment = clean_environment(url=cluster.url)
    ran = await asyncio.to_thread(
        synod, "replace", name, "--wait", environment=environment, folder=tmp_path
    )
    assert (ran.code, ran.out.strip()) == (0, "Done: the old machine may be switched off"), ran
    known = cluster.survey()["acceptors"]
    assert (known["version"], known["change"], known["former_needed"]) == (1, None, False)
    assert node_seen()["votes"] is True

    # The former disk, should it come back, ends and says so; the cluster goes on.
    await asyncio.to_thread(cluster.kill, name)
    new = tmp_path / "new"
    folder.rename(new)
    kept.rename(folder)
    cluster.start_node(name)
    assert await asyncio.to_thread(cluster.nodes[name].wait_end, 60.0) == 1
    assert "is no acceptor any more" in cluster.nodes[name].last_words()
    connection = Connection.to(cluster.url)
    assert (await connection.request("PUT", "/v1/files/without", b"")).status in (200, 201)
    connection.close()
    shutil.rmtree(folder)
    new.rename(folder)
    cluster.start_node(name)
    await asyncio.to_thread(
        cluster.wait_until, lambda: node_seen().get("votes") is True, f"{name} votes again"
    )
