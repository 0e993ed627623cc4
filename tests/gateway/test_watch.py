"""Watching over a real socket: order, prefixes, resuming, and that nothing is missed silently."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

import gateway.http.watch
from actors.calls import NotDone
from actors.store.changes import Change
from actors.values import Transaction
from gateway.callers import ADMINISTRATOR
from gateway.cluster import Cluster
from gateway.http.app import GatewayApp
from gateway.http.watch import _POLL_S, Position, WatchEndpoint, concerns
from gateway.settings import Settings
from synod.client import AsyncClient
from synod.entries import Change as Seen
from tests.broker.hosting import until
from tests.gateway.conftest import serving_app
from tests.gateway.fake import FakeCluster
from tests.gateway.problems import refused_as
from tests.worlds import put


class Stream:
    """The events of one watch, as they arrive."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id = ""
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[str, Any]:
        """The next event with data; ids without an event are recorded."""
        kind, data = "", ""
        async with asyncio.timeout(10):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "event":
                    kind = value
                elif name == "data":
                    data = value
                elif not line and data:
                    return kind, json.loads(data)
        raise AssertionError("the stream ended")


@asynccontextmanager
async def _watching(
    url: str, prefix: str = "", last_id: str | None = None
) -> AsyncIterator[Stream]:
    headers = {} if last_id is None else {"last-event-id": last_id}
    async with (
        httpx.AsyncClient(base_url=url) as client,
        client.stream("GET", "/v1/watch", params={"prefix": prefix}, headers=headers) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response)


@pytest.fixture
async def synod(port: int) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"http://127.0.0.1:{port}") as synod:
        yield synod


async def test_changes_are_sent_in_order_with_their_tags(synod: AsyncClient) -> None:
    async with _watching(synod.url) as stream:
        assert (await stream.next())[0] == "ready"

        put = await synod.put("a", b"12")
        await synod.make_directory("d")
        await synod.move("a", "d/b")
        await synod.copy("d", "e")
        await synod.delete("d/b")
        await synod.remove_directory("e", recursive=True)

        events = [await stream.next() for _ in range(6)]
    assert {kind for kind, _ in events} == {"change"}
    assert [(e["kind"], e["path"], e.get("source")) for _, e in events] == [
        ("put", "a", None),
        ("make_directory", "d", None),
        ("move", "d/b", "a"),
        ("copy", "e", "d"),
        ("delete", "d/b", None),
        ("remove_directory", "e", None),
    ]
    assert (events[0][1]["etag"], events[0][1]["size"]) == (put.etag, 2)


async def test_changes_without_a_watcher_are_sent_after_the_last_id(
    synod: AsyncClient,
) -> None:
    async with _watching(synod.url) as stream:
        await stream.next()
        await synod.put("a", b"1")
        await stream.next()
        last_id = stream.last_id
    await synod.put("b", b"1")
    await synod.put("c", b"1")

    async with _watching(synod.url, last_id=last_id) as stream:
        await stream.next()
        paths = [(await stream.next())[1]["path"] for _ in range(2)]

    assert paths == ["b", "c"]


async def test_a_connection_that_breaks_within_a_slot_goes_on_within_it(
    synod: AsyncClient,
) -> None:
    steps = [{"op": "put", "path": f"f{number}", "text": "x"} for number in range(5)]
    async with _watching(synod.url) as stream:
        await stream.next()
        await synod.transaction(steps)
        await stream.next()
        await stream.next()
        last_id = stream.last_id

    async with _watching(synod.url, last_id=last_id) as stream:
        await stream.next()
        paths = [(await stream.next())[1]["path"] for _ in range(3)]

    assert paths == ["f2", "f3", "f4"]


async def test_the_rest_of_a_slot_is_sent_once_while_nothing_follows(synod: AsyncClient) -> None:
    """Given a client that comes back within the newest slot of a quiet cluster."""
    steps = [{"op": "put", "path": f"f{number}", "text": "x"} for number in range(3)]
    slot = (await synod.transaction(steps)).slot

    async with _watching(synod.url, last_id=f"{slot}.0") as stream:
        await stream.next()
        paths = [(await stream.next())[1]["path"] for _ in range(2)]
        await asyncio.sleep(2.5 * _POLL_S)
        await synod.put("g", b"x")
        paths.append((await stream.next())[1]["path"])

    assert paths == ["f1", "f2", "g"]


async def test_changes_that_no_store_remembers_become_a_reset(
    synod: AsyncClient, cluster: FakeCluster
) -> None:
    await synod.put("a", b"1")
    cluster.changes.restart(cluster.state.applied)

    async with _watching(synod.url, last_id="1") as stream:
        await stream.next()
        kind, about = await stream.next()
        await synod.put("b", b"1")
        following = await stream.next()

    assert (kind, about["slot"]) == ("reset", cluster.state.applied - 1)
    assert following[1]["path"] == "b"


async def test_an_id_from_the_future_belongs_to_another_cluster(synod: AsyncClient) -> None:
    """Given the cluster was founded anew, then a watcher of the old one must not wait for ever."""
    async with _watching(synod.url, last_id="99999.3") as stream:
        await stream.next()
        kind, _ = await stream.next()
        await synod.put("b", b"1")
        following = await stream.next()

    assert kind == "reset"
    assert following[1]["path"] == "b"


async def test_a_cluster_that_is_away_for_a_while_costs_no_change(
    synod: AsyncClient, cluster: FakeCluster
) -> None:
    async with _watching(synod.url) as stream:
        await stream.next()
        cluster.answers.append(NotDone("no store", "a read"))
        await synod.put("a", b"1", key="k")

        assert (await stream.next())[1]["path"] == "a"


async def test_watchers_at_the_same_slot_share_one_question_also_when_the_first_goes_away(
    cluster: FakeCluster,
) -> None:
    watching = WatchEndpoint(Cluster(cluster, 1_000))
    mark = Position(cluster.state.applied, 0)
    cluster.hold = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        first, *others = [group.create_task(watching._since(ADMINISTRATOR, mark)) for _ in range(5)]
        await cluster.called.wait()
        assert len(cluster.calls) == 1

        first.cancel()
        cluster.called.clear()
        await cluster.called.wait()
        cluster.hold.set()

    assert len({id(other.result()) for other in others}) == 1
    assert len(cluster.calls) == 2


async def test_the_library_continues_by_itself_and_receives_a_reset(
    synod: AsyncClient, cluster: FakeCluster
) -> None:
    await synod.put("a", b"1")
    seen: list[Seen] = []
    async with asyncio.timeout(10):
        async for change in synod.watch(after="0"):
            seen.append(change)
            break
        cluster.changes.restart(cluster.state.applied)
        async for change in synod.watch(after="0"):
            seen.append(change)
            break

    assert [change.kind for change in seen] == ["put", "reset"]


@pytest.mark.parametrize("query", ["?prefix=a//b", "?after=x", "?after=1.2.3"])
async def test_what_can_not_be_watched(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/v1/watch{query}")

    refused_as(answer, 400, "invalid-path" if "prefix" in query else "invalid-header")


def test_prefixes_concern_trees_above_them() -> None:
    def change(kind: str, path: str, source: str | None = None) -> Change:
        return Change.model_validate(
            {"kind": kind, "slot": 1, "index": 0, "ordinal": 0, "path": path, "source": source}
        )

    told = [
        change("put", "a/b/c"),
        change("put", "a/bc"),
        change("remove_directory", "a"),
        change("move", "x", "a"),
        change("move", "a", "x"),
    ]
    silent = [
        change("put", "a"),
        change("make_directory", "a"),
        change("put", "a/c"),
        change("move", "x", "y"),
    ]
    assert [concerns(one, "a/b") for one in told + silent] == [True] * 5 + [False] * 4


# -- bounds ---------------------------------------------------------------------------------------


async def test_one_watcher_too_many_is_refused_for_now(
    synod: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given as many watchers as allowed, when one of them ends, then another is served."""
    monkeypatch.setattr(gateway.http.watch, "WATCHERS_MAX", 2)
    monkeypatch.setattr(gateway.http.watch, "_KEEPALIVE_S", 0.2)
    async with _watching(synod.url) as kept:
        await kept.next()
        async with (
            _watching(synod.url) as leaving,
            httpx.AsyncClient(base_url=synod.url) as client,
        ):
            await leaving.next()
            refused = await client.get("/v1/watch")
            refused_as(refused, 503, "unavailable")
            assert int(refused.headers["retry-after"]) > 0

        async with asyncio.timeout(10):
            while True:
                try:
                    async with _watching(synod.url) as served:
                        assert (await served.next())[0] == "ready"
                        break
                except AssertionError:
                    await asyncio.sleep(0.05)
        await synod.put("a", b"1")
        assert (await kept.next())[1]["path"] == "a"


@pytest.mark.parametrize("why", ["slow", "budget"])
async def test_watchers_that_do_not_read_are_cut_off_and_those_that_do_miss_nothing(
    cluster: FakeCluster, settings: Settings, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Given some watchers that read none of many changes.

    Then they are disconnected after a while, sooner if too much waits for them, and the waiting
    pages stay within their bound; another watcher receives everything.
    """
    page_bytes = 2 * 1024 * 1024
    monkeypatch.setattr(gateway.http.watch, "_SEND_TIMEOUT_S", 1.0 if why == "slow" else 60.0)
    monkeypatch.setattr(gateway.http.watch, "_HELD_S_MAX", 0.3)
    if why == "budget":
        monkeypatch.setattr(gateway.http.watch, "_HELD_BYTES_MAX", 2 * page_bytes)
    folder = "/".join(["d" * 250] * 14)
    paths = [f"{folder}/{number:05}" for number in range(4_000)]
    for begin in range(0, len(paths), 200):
        steps = tuple(put(path, b"") for path in paths[begin : begin + 200])
        cluster._apply(Transaction(steps=steps))
    app = GatewayApp(cluster, settings)
    held: list[int] = []

    async def look() -> None:
        while True:
            held.append(app.watch.watchers.bytes)
            await asyncio.sleep(0.02)

    async with serving_app(app) as port, asyncio.TaskGroup() as group:
        diagnostics = group.create_task(look())
        silent = [_Silent(port, f"{position}") for position in range(1, 9)]
        await until(lambda: len(app.watch.watchers) == len(silent))
        async with _watching(f"http://127.0.0.1:{port}", last_id="0") as stream:
            await stream.next()
            told = [(await stream.next())[1]["path"] for _ in paths]
            # Within the bound a few may still hold pages that they do not read.
            may_stay = 0 if why == "slow" else 3
            await until(lambda: len(app.watch.watchers) <= 1 + may_stay)
        for one in silent:
            one.close()
        diagnostics.cancel()

    assert told == paths
    if why == "budget":
        # Those that were asked for while there was still room come on top.
        assert max(held) <= (2 + gateway.http.watch._QUERIES_MAX) * page_bytes
    else:
        assert max(held) > page_bytes


class _Silent:
    """Requests all changes since `after`, and reads nothing."""

    def __init__(self, port: int, after: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self._socket.connect(("127.0.0.1", port))
        head = f"GET /v1/watch?after={after} HTTP/1.1\r\nhost: localhost\r\n\r\n"
        self._socket.sendall(head.encode())

    def close(self) -> None:
        self._socket.close()
