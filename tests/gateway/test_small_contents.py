"""A gateway keeps small contents that it has read: by their hash, so never another version's."""

import hashlib

import httpx

from actors.calls import Fetch
from actors.values import Chunked, PutFile
from gateway.http.small_contents import SmallContents
from tests.gateway.fake import FakeCluster
from tests.gateway.problems import problem_of


def fetched(cluster: FakeCluster) -> list[str]:
    return [call.sha256 for call in cluster.calls if isinstance(call, Fetch)]


def named(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_contents_are_fetched_once_and_no_version_is_taken_for_another(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    for contents in (b"one", b"two", b"one"):
        await client.put("/v1/files/a", content=contents)
        for _ in range(2):
            assert (await client.get("/v1/files/a")).content == contents
        part = await client.get("/v1/files/a", headers={"range": "bytes=1-1"})
        assert (part.status_code, part.content) == (206, contents[1:2])

    assert fetched(cluster) == [named(b"one"), named(b"two")]


async def test_a_removed_file_is_not_read_from_memory(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    await client.put("/v1/files/a", content=b"one")
    assert (await client.get("/v1/files/a")).content == b"one"
    await client.delete("/v1/files/a")

    assert problem_of(await client.get("/v1/files/a"))["status"] == 404
    assert fetched(cluster) == [named(b"one")]


async def test_an_empty_file_needs_no_chunk(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    await client.put("/v1/files/a", content=b"")

    assert (await client.get("/v1/files/a")).content == b""
    assert fetched(cluster) == []


async def test_contents_that_are_not_in_a_command_are_not_kept(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    contents = b"x" * (16 * 1024 + 1)
    await client.put("/v1/files/a", content=contents)
    for _ in range(2):
        assert (await client.get("/v1/files/a")).content == contents

    assert fetched(cluster) == [named(contents)] * 2


async def test_a_chunk_that_is_shorter_than_the_file_is_no_file(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    sha256 = named(b"one")
    cluster.chunks[sha256] = b"one"
    for path, size in (("long", 5), ("whole", 3)):
        content = Chunked(size=size, sha256=sha256, chunks=(sha256,))
        cluster.store(PutFile(path=path, content=content))

    for _ in range(2):
        problem = problem_of(await client.get("/v1/files/long"))
        assert (problem["status"], "its chunk has 3 bytes" in problem["detail"]) == (503, True)
        assert (await client.get("/v1/files/whole")).content == b"one"


async def test_contents_without_a_store_fail_and_are_asked_for_again(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    await client.put("/v1/files/a", content=b"one")
    cluster.missing.add(named(b"one"))
    assert problem_of(await client.get("/v1/files/a"))["chunk"] == named(b"one")

    cluster.missing.clear()
    assert (await client.get("/v1/files/a")).content == b"one"


def test_the_contents_that_were_asked_for_last_stay_within_the_bound() -> None:
    kept = SmallContents(bytes_max=3_000)
    for name in ("a", "b", "c"):
        kept.keep(name, name.encode() * 600)
        kept.get("a")
        assert kept.kept_bytes <= 3_000

    kept.keep("d", b"d" * 600)

    found = {name for name in ("a", "b", "c", "d") if kept.get(name) is not None}
    assert found == {"a", "c", "d"}
    assert kept.kept_bytes <= 3_000

    kept.keep("e", b"e" * 10_000)
    assert kept.get("e") is None
    assert kept.kept_bytes == 0
