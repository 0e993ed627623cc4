"""`/v1/files/…`: a file comes back as it was put, and conditions are enforced."""

import hashlib

import httpx
import pytest

from actors.calls import Upload, Write
from actors.messages import ReadRequest
from actors.values import Chunked, Indirect, Inline, PutFile
from gateway.settings import Settings
from synod.headers import digest_header
from tests.gateway.fake import SESSION, FakeCluster
from tests.gateway.problems import problem_of


async def test_a_file_is_created_read_replaced_and_removed(client: httpx.AsyncClient) -> None:
    created = await client.put("/v1/files/a/b.txt", content=b"one")
    assert created.status_code == 201
    assert created.headers["location"] == "/v1/files/a/b.txt"
    assert created.headers["synod-request-id"] == f"{SESSION}-1"
    assert created.headers["synod-slot"] == "2"
    assert created.headers["etag"] == '"2-0"'

    read = await client.get("/v1/files/a/b.txt")
    assert (read.status_code, read.content) == (200, b"one")
    assert read.headers["etag"] == '"2-0"'
    assert read.headers["content-length"] == "3"
    assert read.headers["content-type"] == "application/octet-stream"
    assert read.headers["repr-digest"] == digest_header(hashlib.sha256(b"one").hexdigest())
    assert read.headers["synod-version"] == "1"

    replaced = await client.put("/v1/files/a/b.txt", content=b"two")
    assert (replaced.status_code, replaced.headers["etag"]) == (200, '"3-0"')
    assert "location" not in replaced.headers

    head = await client.head("/v1/files/a/b.txt")
    assert (head.status_code, head.content) == (200, b"")
    assert (head.headers["content-length"], head.headers["synod-version"]) == ("3", "2")

    removed = await client.delete("/v1/files/a/b.txt")
    assert (removed.status_code, removed.content) == (204, b"")
    assert removed.headers["synod-slot"] == "4"
    assert problem_of(await client.get("/v1/files/a/b.txt"))["type"].endswith(":not-found")
    assert problem_of(await client.delete("/v1/files/a/b.txt"))["status"] == 404


async def test_a_value_set_back_has_another_tag(client: httpx.AsyncClient) -> None:
    tags = [
        (await client.put("/v1/files/a", content=content)).headers["etag"]
        for content in (b"one", b"two", b"one")
    ]

    assert len(set(tags)) == 3


async def test_what_is_kept_beside_the_contents(client: httpx.AsyncClient) -> None:
    kept = {
        "content-type": "text/plain; charset=utf-8",
        "synod-modified": "1700000000123",
        "synod-executable": "1",
        "synod-meta-colour": "blue",
        "synod-meta-owner": "Zo\u00eb".encode().decode("latin-1"),
    }
    raw = [(name.encode(), value.encode("latin-1")) for name, value in kept.items()]

    await client.put("/v1/files/a", content=b"x", headers=raw)

    read = await client.get("/v1/files/a")
    returned = {name.decode(): value.decode("latin-1") for name, value in read.headers.raw}
    assert kept.items() <= returned.items()
    assert read.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"


async def test_a_script_in_a_file_gets_no_power_over_the_cluster(
    client: httpx.AsyncClient,
) -> None:
    await client.put("/v1/files/a.html", content=b"<script>", headers={"content-type": "text/html"})

    read = await client.get("/v1/files/a.html")

    assert read.headers["content-security-policy"] == "sandbox"
    assert read.headers["x-content-type-options"] == "nosniff"


async def test_an_empty_file_is_a_file(client: httpx.AsyncClient) -> None:
    assert (await client.put("/v1/files/empty", content=b"")).status_code == 201

    read = await client.get("/v1/files/empty")
    assert (read.status_code, read.content, read.headers["content-length"]) == (200, b"", "0")
    unsatisfiable = await client.get("/v1/files/empty", headers={"range": "bytes=0-"})
    assert unsatisfiable.status_code == 416


async def test_conditions_on_writes(client: httpx.AsyncClient) -> None:
    async def put(content: bytes, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.put("/v1/files/a", content=content, headers=named)

    absent = await put(b"x", if_match="*")
    assert problem_of(absent)["type"].endswith(":precondition-failed")
    assert problem_of(absent)["current_etag"] is None
    first = await put(b"one", if_none_match="*")
    assert first.status_code == 201
    assert (await put(b"x", if_none_match="*")).status_code == 412
    assert (await put(b"x", if_none_match=first.headers["etag"])).status_code == 412
    assert (await put(b"x", if_match='"99-0"')).status_code == 412
    assert (await put(b"x", if_match=f"W/{first.headers['etag']}")).status_code == 412
    second = await put(b"two", if_match=f'"99-0", {first.headers["etag"]}')
    assert second.status_code == 200
    stale = await put(b"x", if_match=first.headers["etag"])
    assert stale.status_code == 412
    assert problem_of(stale)["current_etag"] == second.headers["etag"].strip('"')
    refused = await client.delete("/v1/files/a", headers={"if-match": first.headers["etag"]})
    assert refused.status_code == 412
    assert (await client.get("/v1/files/a")).content == b"two"


async def test_conditions_on_reads(client: httpx.AsyncClient) -> None:
    tag = (await client.put("/v1/files/a", content=b"one")).headers["etag"]

    async def get(path: str = "a", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.get(f"/v1/files/{path}", headers=named)

    same = await get(if_none_match=tag)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert (await get(if_none_match="*")).status_code == 304
    assert (await get(if_none_match=f"W/{tag}")).status_code == 304
    assert (await get(if_none_match='"1-9"')).status_code == 200
    assert (await get(if_match=tag)).status_code == 200
    assert (await get(if_match='"1-9"')).status_code == 412
    assert (await get("nothing", if_match="*")).status_code == 412
    assert (await get("nothing", if_none_match="*")).status_code == 404
    assert (await client.head("/v1/files/a", headers={"if-none-match": tag})).status_code == 304


@pytest.mark.parametrize("size", [1000, 64 * 1024 * 5 + 17])
async def test_ranges(client: httpx.AsyncClient, size: int) -> None:
    content = hashlib.shake_256(b"ranges").digest(size)
    tag = (await client.put("/v1/files/a", content=content)).headers["etag"]

    async def part(value: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return await client.get("/v1/files/a", headers={"range": value, **named})

    for start, stop in ((0, 1), (1, size), (size - 1, size), (size // 3, size // 3 * 2)):
        answer = await part(f"bytes={start}-{stop - 1}")
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert answer.headers["content-length"] == str(stop - start)
        assert answer.content == content[start:stop]
    assert (await part("bytes=-10")).content == content[-10:]
    assert (await part("bytes=0-1,3-4")).status_code == 200
    outside = await part(f"bytes={size}-")
    assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{size}")
    assert (await part("bytes=0-1", if_range=tag)).status_code == 206
    assert (await part("bytes=0-1", if_range='"1-9"')).status_code == 200
    assert (await part("bytes=0-1", if_range=f"W/{tag}")).status_code == 200


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (0, Inline),
        (16 * 1024, Inline),
        (16 * 1024 + 1, Chunked),
        (64 * 1024, Chunked),
        (64 * 1024 * 3, Chunked),
        (64 * 1024 * 128, Chunked),
        (64 * 1024 * 128 + 1, Indirect),
    ],
)
async def test_how_contents_travel(
    client: httpx.AsyncClient, cluster: FakeCluster, size: int, kind: type
) -> None:
    content = hashlib.shake_256(b"contents").digest(size)

    await client.put("/v1/files/a", content=content)

    (write,) = cluster.submitted()
    assert isinstance(write.operation, PutFile)
    assert isinstance(write.operation.content, kind)
    uploads = [call for call in cluster.calls if isinstance(call, Upload)]
    assert sum(len(call.data) for call in uploads if not call.manifest) == (
        size if kind is not Inline else 0
    )
    assert [call.manifest for call in uploads].count(True) == (1 if kind is Indirect else 0)
    assert cluster.uploads_under_way_max <= 4
    read = await client.get("/v1/files/a")
    assert read.content == content
    assert read.headers["content-length"] == str(size)


async def test_a_body_without_a_length_is_taken_as_well(client: httpx.AsyncClient) -> None:
    async def body() -> object:
        for _ in range(10):
            yield b"x" * 10_000

    await client.put("/v1/files/a", content=body())  # type: ignore[arg-type]

    assert (await client.get("/v1/files/a")).content == b"x" * 100_000


async def test_the_greatest_file(
    client: httpx.AsyncClient, cluster: FakeCluster, settings: Settings
) -> None:
    limit = settings.greatest_file_bytes

    async def body() -> object:
        for _ in range(limit // 2**20):
            yield b"x" * 2**20
        yield b"x"

    announced = await client.put(
        "/v1/files/a", content=b"", headers={"content-length": str(limit + 1)}
    )
    streamed = await client.put("/v1/files/a", content=body())  # type: ignore[arg-type]

    for refused in (announced, streamed):
        assert refused.status_code == 413
        assert problem_of(refused)["greatest_file_bytes"] == limit
        assert str(limit) in problem_of(refused)["detail"]
    assert cluster.submitted() == []


@pytest.mark.parametrize("name", ["Repr-Digest", "Content-Digest"])
async def test_a_body_must_be_what_its_digest_says(
    client: httpx.AsyncClient, cluster: FakeCluster, name: str
) -> None:
    right = digest_header(hashlib.sha256(b"one").hexdigest())

    wrong = await client.put("/v1/files/a", content=b"two", headers={name: right})

    assert problem_of(wrong)["type"].endswith(":digest-mismatch")
    assert cluster.submitted() == []
    assert (
        await client.put("/v1/files/a", content=b"one", headers={name: right})
    ).status_code == 201


async def test_what_would_be_lost_is_refused(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    for headers, status in (
        ({"content-encoding": "gzip"}, 415),
        ({"content-range": "bytes 0-1/2"}, 400),
        ({"if-unmodified-since": "Tue, 14 Nov 2023 22:13:20 GMT"}, 400),
        ({"synod-meta-a": "x" * 2048}, 400),
        ({"synod-retry": "2"}, 400),
        ({"idempotency-key": "a b"}, 400),
    ):
        refused = await client.put("/v1/files/a", content=b"x", headers=headers)
        assert (refused.status_code, problem_of(refused)["status"]) == (status, status)

    assert cluster.submitted() == []


async def test_a_file_where_a_directory_is_meant_and_the_reverse(
    client: httpx.AsyncClient,
) -> None:
    await client.put("/v1/files/a/b", content=b"x")

    for answer in (
        await client.put("/v1/files/a", content=b"x"),
        await client.put("/v1/files/", content=b"x"),
        await client.get("/v1/files/a"),
        await client.get("/v1/files/"),
        await client.delete("/v1/files/a"),
        await client.put("/v1/files/a/b/c", content=b"x"),
    ):
        assert problem_of(answer)["type"] == "urn:synod:problem:conflict"


async def test_the_same_key_is_applied_once(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    async def put(content: bytes = b"one", path: str = "a", **headers: str) -> httpx.Response:
        named = {"idempotency-key": "k1"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.put(f"/v1/files/{path}", content=content, headers=named)

    first = await put()
    again = await put()

    assert (again.status_code, again.headers["etag"]) == (201, first.headers["etag"])
    assert (await client.get("/v1/files/a")).headers["synod-version"] == "1"
    for other in (
        await put(b"two"),
        await put(path="b"),
        await put(synod_meta_x="y"),
        await put(synod_executable="1"),
        await put(if_match="*"),
        await client.delete("/v1/files/a", headers={"idempotency-key": "k1"}),
    ):
        assert problem_of(other)["type"].endswith(":key-reused")
        assert other.status_code == 422
    assert len({write.idempotency for write in cluster.submitted()}) == 7


async def test_consistency_and_least_slot_reach_the_store(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    await client.put("/v1/files/a", content=b"x")
    await client.get("/v1/files/a")
    await client.get("/v1/files/a?consistency=stale&at_least=2")

    asked = [call.request for call in cluster.calls if hasattr(call, "request")]
    assert asked == [
        ReadRequest(number=0, what="entry", path="a"),
        ReadRequest(number=0, what="entry", path="a", consistency="stale", at_least=2),
    ]
    for query in ("consistency=perhaps", "at_least=-1", "at_least=x", "at_least=%FF", "x=%FF"):
        assert (await client.get(f"/v1/files/a?{query}")).status_code == 400


async def test_the_retry_can_be_switched_off(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    await client.put("/v1/files/a", content=b"x")
    await client.put("/v1/files/a", content=b"x", headers={"synod-retry": "0"})
    await client.delete("/v1/files/a", headers={"synod-retry": "0"})

    assert [write.retry_aborted for write in cluster.submitted()] == [True, False, False]
    assert all(isinstance(write, Write) for write in cluster.submitted())


async def test_names_of_all_kinds(client: httpx.AsyncClient) -> None:
    for path in ("a%20b", "%C3%A9", "%25", "a%3Fb", "%23", "a;b=c", "..a", "%F0%9F%90%99"):
        created = await client.put(f"/v1/files/{path}", content=path.encode())
        assert created.status_code == 201
        assert (await client.get(created.headers["location"])).content == path.encode()
    for path in ("a%2Fb", "%2e%2e/x", "a//b", "a/", "%00", "a%0a", "%FF", "a" * 256):
        refused = await client.put(f"/v1/files/{path}", content=b"x")
        assert problem_of(refused)["type"].endswith(":invalid-path")
        assert refused.status_code == 400
