"""The chunks that a request needs are renewed while it runs, and no longer."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from actors.calls import KeepChunks, Upload, Write
from actors.messages import KEEP_NAMES_MAX
from broker.local_calls import CallOutcomeUnknown
from gateway.cluster import Cluster
from gateway.http import contents
from gateway.http.chunk_keeping import (
    DOWNLOAD_SCHEDULE,
    RenewalSchedule,
    keep_chunks,
    upload_schedule,
)
from gateway.http.problems import NOT_FOUND, Problem
from gateway.settings import Settings
from tests.gateway.conftest import serving
from tests.gateway.fake import FakeCluster

CHUNK = 64 * 1024
OFTEN = RenewalSchedule(for_ms=40, every_ms=10)


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def renewals(cluster: FakeCluster) -> list[KeepChunks]:
    return [call for call in cluster.calls if isinstance(call, KeepChunks)]


async def renewed(cluster: FakeCluster, *names: str) -> KeepChunks:
    """Wait for the next renewal; it names these at least."""
    before = len(renewals(cluster))
    async with asyncio.timeout(10):
        while len(renewals(cluster)) == before:
            cluster.called.clear()
            await cluster.called.wait()
    renewal = renewals(cluster)[-1]
    assert set(names) <= set(renewal.names)
    return renewal


@pytest.fixture
def settings() -> Settings:
    return Settings(chunk_bytes=CHUNK, chunk_grace_ms=1_000)


async def test_an_upload_renews_what_it_has_sent_until_its_command_is_decided(
    client: httpx.AsyncClient, cluster: FakeCluster
) -> None:
    parts = [bytes([number]) * CHUNK for number in range(3)]
    names = [name_of(part) for part in parts]
    writing = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield parts[0]
        await renewed(cluster, names[0])
        # A refused renewal is a lost one, no more.
        cluster.answers.append(CallOutcomeUnknown("the broker is away"))
        await renewed(cluster, names[0])
        yield parts[1]
        # Chunks in flight are named, too: the stores ignore those that they don't hold yet.
        renewal = await renewed(cluster, *names[:2])
        assert renewal.for_ms == 1_000
        yield parts[2]
        cluster.hold = asyncio.Event()
        writing.set()

    async def decide() -> None:
        await writing.wait()
        await renewed(cluster, *names)
        assert cluster.hold is not None
        cluster.hold.set()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(decide())
        answer = await client.put("/v1/files/a", content=body())

    assert answer.status_code == 201
    assert isinstance(cluster.calls[-1], Write | KeepChunks)
    assert len(asyncio.all_tasks()) == 1, "nothing is renewed for a request that is over"


async def test_a_list_stands_for_the_chunks_that_it_lists(cluster: FakeCluster) -> None:
    """Given more chunks than one renewal may name, then they are named in parts until the list of
    them is on the stores, and then it alone.
    """
    names = [name_of(b"%d" % number) for number in range(KEEP_NAMES_MAX + 1)]
    async with keep_chunks(Cluster(cluster, 1_000), OFTEN) as kept:
        kept.add(names)
        await renewed(cluster)
        await renewed(cluster)
        kept.replace_by_manifest("the list", names)
        await renewed(cluster)
        await renewed(cluster)

    named = [renewal.names for renewal in renewals(cluster)]
    assert named[:2] == [tuple(names[:-1]), tuple(names[-1:])]
    assert named[-1] == ("the list",)
    assert {renewal.for_ms for renewal in renewals(cluster)} == {OFTEN.for_ms}


async def test_what_goes_wrong_within_the_block_comes_out_as_it_is(cluster: FakeCluster) -> None:
    async def fail() -> None:
        async with keep_chunks(Cluster(cluster, 1_000), OFTEN) as kept:
            kept.add(["a"])
            raise Problem(NOT_FOUND, "gone")

    with pytest.raises(Problem) as caught:
        await fail()

    assert caught.value.kind is NOT_FOUND


async def test_small_files_renew_nothing(client: httpx.AsyncClient, cluster: FakeCluster) -> None:
    tasks = len(asyncio.all_tasks())
    await client.put("/v1/files/a", content=b"small")
    await client.get("/v1/files/a")

    assert renewals(cluster) == []
    assert len(asyncio.all_tasks()) == tasks


@pytest.mark.parametrize("chunks", [100, 200])
async def test_a_slow_download_renews_its_own_chunks_alone(
    cluster: FakeCluster, settings: Settings, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    """Given a slow reader, then the chunks of its file are renewed, or the list of them, if the
    file has one.
    """
    monkeypatch.setattr(contents, "DOWNLOAD_SCHEDULE", OFTEN)
    whole = hashlib.shake_256(b"slow").digest(CHUNK * chunks)
    async with (
        serving(cluster, settings) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        await client.put("/v1/files/other", content=whole[: 5 * CHUNK])
        cluster.calls.clear()
        await client.put("/v1/files/a", content=whole)
        uploaded = [call for call in cluster.calls if isinstance(call, Upload)]
        cluster.calls.clear()
        received = bytearray()
        async with client.stream("GET", "/v1/files/a") as answer:
            async for piece in answer.aiter_bytes():
                if not received:
                    await renewed(cluster)
                    await renewed(cluster)
                received += piece

    assert received == whole
    lists = [call for call in uploaded if call.manifest]
    expected = lists or uploaded
    assert bool(lists) == (chunks == 200)
    for renewal in renewals(cluster):
        assert set(renewal.names) == {call.sha256 for call in expected}
    if lists:
        assert json.loads(lists[0].data) == [c.sha256 for c in uploaded if not c.manifest]


@pytest.mark.parametrize(
    "schedule", [DOWNLOAD_SCHEDULE, upload_schedule(1_000), upload_schedule(3_600_000)]
)
def test_several_renewals_come_within_the_time_that_each_keeps_for(
    schedule: RenewalSchedule,
) -> None:
    assert 4 * schedule.every_ms <= schedule.for_ms
    assert 4 * DOWNLOAD_SCHEDULE.every_ms <= 60_000, (
        "a replaced version of one chunk is kept for a minute"
    )
