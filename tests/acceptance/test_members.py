"""Members are replaced, added and removed by commands, on a real cluster (decision 26)."""

import asyncio
import shutil
from pathlib import Path

import pytest

from chaos.cluster.local import Description, LocalCluster
from chaos.load.http1 import Connection
from synod.membership import member_of
from tests.acceptance.shell import Ran, clean_environment, synod
from tests.long import only_long

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(240)]


async def command(cluster: LocalCluster, folder: Path, *arguments: str) -> Ran:
    environment = clean_environment(url=cluster.url)
    return await asyncio.to_thread(
        synod, *arguments, environment=environment, folder=folder, timeout_s=120.0
    )


async def writes(cluster: LocalCluster) -> bool:
    connection = Connection.to(cluster.url)
    reply = await connection.request("PUT", "/v1/files/members", b"yes")
    connection.close()
    return reply.status in (200, 201)


async def test_a_proposer_on_an_emptied_folder_takes_part_again(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    # Given a proposer that lost its disk, and is replaced before it was heard,
    name = "proposer-5"
    before = member_of(cluster.survey(), name)
    assert before is not None
    await asyncio.to_thread(cluster.kill, name)
    shutil.rmtree(cluster.data / name)
    cluster.start_node(name)

    # then the command waits until it is heard from another disk.
    ran = await command(cluster, tmp_path, "replace", name, "--wait")
    assert (ran.code, ran.out.strip()) == (0, "Done: the old machine may be switched off"), ran
    after = member_of(cluster.survey(), name)
    assert after is not None
    assert (after["standing"], after["waits_for"]) == ("member", None)
    assert after["runs_on"] not in (None, before["runs_on"])
    assert await writes(cluster)


async def test_a_proposer_is_added_and_removed_and_its_process_ends(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    # Given a node that the cluster was not founded with, which waits to be added,
    name = "proposer-6"
    cluster.add_node(name)
    cluster.start_node(name)
    try:
        await asyncio.to_thread(
            cluster.wait_until,
            lambda: member_of(cluster.survey(), name) is not None,
            f"{name} is heard",
        )
        listed = (await command(cluster, tmp_path, "members")).out
        assert f"synod add {name}" in listed, listed

        # when it is added, it is a member; a second time is refused;
        added = await command(cluster, tmp_path, "add", name, "--wait")
        assert (added.code, added.out.strip()) == (0, "Done: it is a member"), added
        again = await command(cluster, tmp_path, "add", name, "--wait")
        assert (again.code, "is a member already" in again.err) == (1, True), again
        assert await writes(cluster)

        # and when it is removed, its process says so and ends.
        removed = await command(cluster, tmp_path, "remove", name, "--wait")
        assert (removed.code, removed.out.strip()) == (
            0,
            "Done: the old machine may be switched off",
        ), removed
        assert await asyncio.to_thread(cluster.nodes[name].wait_end, 60.0) == 1
        assert "it was removed" in cluster.nodes[name].last_words()
        assert await writes(cluster)
    finally:
        cluster.forget_node(name)


@only_long
async def test_a_cluster_is_encrypted_node_by_node_and_grows(tmp_path: Path) -> None:
    """Given a cluster whose nodes are RabbitMQ users of their own, then each node is started on an
    empty folder with a key and is replaced, and in the end no folder holds contents in plain.
    """
    counts = {"proposers": 2, "acceptors": 3, "learners": 2, "stores": 2}
    description = Description.mint(counts=counts, settings={"broker_users": "own"})
    cluster = LocalCluster(tmp_path / "cluster", description)
    marker, former = b"in plain sight, " * 64, tmp_path / "former"
    keys = tmp_path / "node.keys"
    assert (await command_without(tmp_path, "keygen", str(keys))).code == 0
    encrypted = {"SYNOD_ENCRYPT_JOURNALS": "true", "SYNOD_KEY_FILE": str(keys)}
    former.mkdir()
    with cluster:
        connection = Connection.to(cluster.url)
        put = await connection.request("PUT", "/v1/files/secret", marker)
        assert put.status == 201
        for name in description.nodes:
            if name.startswith("gateway-"):
                continue
            await asyncio.to_thread(cluster.stop_node, name)
            (cluster.data / name).rename(former / name)
            cluster.nodes[name].environment |= encrypted
            cluster.start_node(name)
            ran = await command(cluster, tmp_path, "replace", name, "--wait")
            assert (ran.code, "may be switched off" in ran.out) == (0, True), (name, ran)
        assert holders(former, marker) == {"store-1", "store-2"}
        assert holders(cluster.data, marker) == set()
        assert (await connection.request("GET", "/v1/files/secret")).body == marker

        await asyncio.to_thread(cluster.add_node, "store-3")
        cluster.nodes["store-3"].environment |= encrypted
        cluster.start_node("store-3")
        ran = await command(cluster, tmp_path, "add", "store-3", "--wait")
        assert (ran.code, ran.out.strip()) == (0, "Done: it is a member"), ran
        assert await writes(cluster)
        connection.close()


async def command_without(folder: Path, *arguments: str) -> Ran:
    """Run a command that asks no gateway."""
    return await asyncio.to_thread(
        synod, *arguments, environment=clean_environment(), folder=folder
    )


def holders(data: Path, marker: bytes) -> set[str]:
    """The nodes of whose folders a file has the contents."""
    files = (path for path in data.rglob("*") if path.is_file())
    return {path.relative_to(data).parts[0] for path in files if marker in path.read_bytes()}
