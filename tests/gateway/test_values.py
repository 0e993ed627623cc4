"""Names, metadata and tags as text: all ways in accept the same, and return it unchanged."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import h11
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.values import Chunked, Indirect
from gateway.settings import Settings
from synod.client import AsyncClient
from synod.errors import InvalidRequest, PreconditionFailed
from synod.metadata import (
    META_BYTES_MAX,
    META_PREFIX,
    MODIFIED_MS_MAX,
    MODIFIED_MS_MIN,
    InvalidMetadata,
    checked,
)
from synod.paths import InvalidPath, checked_path, path_to_url
from tests.gateway.conftest import serving
from tests.gateway.fake import FakeCluster
from tests.worlds import put as put_of

_HOSTILE = st.sampled_from(
    [
        *("\r\n", "\r", "\n", "\t", "\0", "\x1b[31m", "\x7f", "\x85", "\x9b", "\u2028", "\u2029"),
        *(
            "é",
            "e\u0301",
            "Ã¼",
            "à",
            "…",
            "日本",
            "😀",
            "\u202e",
            "\ufeff",
            "\xff",
            "\xa0",
            "\ud800",
        ),
        *(" ", ":", "%41", "%", '"', "\\", ",", "/", "..", ".", "a", "=?utf-8?q?a?="),
    ]
)
_TEXT = st.lists(_HOSTILE, max_size=6).map("".join) | st.text(max_size=12)
_META_NAME = st.sampled_from(["a", "b-c", "Owner", "x_y", "!#$%&'*+.^`|~"]) | _TEXT
_META = st.dictionaries(_META_NAME, _TEXT | st.just("x" * META_BYTES_MAX), max_size=3)
_TYPE = st.sampled_from(["text/plain", "", "text/plain; charset=utf-8", "x" * 256]) | _TEXT
_TIME = st.sampled_from(
    [0, -1, MODIFIED_MS_MIN, MODIFIED_MS_MAX, MODIFIED_MS_MIN - 1, MODIFIED_MS_MAX + 1, 10**30]
)
_OPAQUE = st.sampled_from(["*", "1-0", "é", ""]) | st.text(min_size=1, max_size=5)
_TAG = st.tuples(st.sampled_from(["", '"', 'W/"', "w/", "'"]), _OPAQUE).map(
    lambda made: made[0] + made[1] + (made[0][-1:] if made[0] != "w/" else "")
)
_EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class WaysIn:
    """A gateway on a socket, in a loop of its own, with a client for each way in."""

    def __init__(self, cluster: FakeCluster, http: httpx.AsyncClient, synod: AsyncClient) -> None:
        self.cluster = cluster
        self.http = http
        self.synod = synod


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """Hypothesis runs many examples in one test, and none of them is a coroutine."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def ways(runner: asyncio.Runner) -> Iterator[WaysIn]:
    async def opened() -> AsyncIterator[WaysIn]:
        cluster = FakeCluster()
        async with serving(cluster, Settings()) as port:
            url = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=url) as http, AsyncClient(url) as synod:
                yield WaysIn(cluster, http, synod)

    async def run() -> None:
        async for ways in opened():
            ready.set_result(ways)
            await ended.wait()

    async def begin() -> tuple[asyncio.Task[None], WaysIn]:
        return asyncio.ensure_future(run()), await ready

    loop = runner.get_loop()
    ready: asyncio.Future[WaysIn] = loop.create_future()
    ended = asyncio.Event()
    task, ways = runner.run(begin())
    yield ways

    async def end() -> None:
        ended.set()
        await task

    runner.run(end())


async def _seen(ways: WaysIn, path: str) -> list[Any]:
    """A file as each route shows it: GET, HEAD, the listing, and the client library both ways."""
    seen: list[Any] = []
    for method in ("GET", "HEAD"):
        answer = await ways.http.request(method, f"/v1/files/{path_to_url(path)}")
        assert answer.status_code == 200, answer.text
        headers = {name.decode(): value.decode() for name, value in answer.headers.raw}
        meta = {n[len(META_PREFIX) :]: v for n, v in headers.items() if n.startswith(META_PREFIX)}
        about = (headers["content-type"], int(headers["synod-modified"]), meta)
        seen.append((*about, "synod-executable" in headers))
    listing = await ways.http.get("/v1/directories/")
    (item,) = [item for item in listing.json()["entries"] if item["path"] == path]
    seen.append((item["content_type"], item["modified_ms"], item["meta"], item["executable"]))
    listed = [entry async for entry in ways.synod.list("") if entry.path == path]
    for entry in (await ways.synod.stat(path), *listed):
        about = (entry.content_type, entry.modified_ms, dict(entry.meta))
        seen.append((*about, entry.executable))
    return seen


async def _post(http: httpx.AsyncClient, url: str, body: Any) -> httpx.Response:
    """As httpx does, which can't send a lone surrogate."""
    content, about = json.dumps(body).encode(), {"content-type": "application/json"}
    return await http.post(url, content=content, headers=about)


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]] | None:
    """The headers as UTF-8, if HTTP lets them be sent at all."""
    try:
        raw = [(name.encode("ascii"), value.encode()) for name, value in headers.items()]
    except UnicodeEncodeError:
        return None
    # A client that sends more breaks HTTP itself, or its spaces are lost on the way.
    ends = all(value == value.strip(" \t") for value in headers.values())
    try:
        h11.Request(method="PUT", target="/", headers=[(b"host", b"a"), *raw])
    except h11.LocalProtocolError:
        return None
    return raw if ends else None


@_EXAMPLES
@given(meta=_META, content_type=_TYPE, modified_ms=_TIME, executable=st.booleans())
def test_every_way_in_takes_and_returns_the_same_metadata(
    runner: asyncio.Runner,
    ways: WaysIn,
    meta: dict[str, str],
    content_type: str,
    modified_ms: int,
    executable: bool,
) -> None:
    """Given anything at all, when it is sent through PUT, a transaction and the client library,
    then all refuse it with 400, or all take it; and then every answer shows the same.
    """
    try:
        said = checked(content_type, modified_ms, executable, meta.items())
    except InvalidMetadata:
        said = None
    about = {"content_type": content_type, "modified_ms": modified_ms, "executable": executable}

    async def act() -> None:
        step = {"op": "put", "path": "txn", "text": "x", "meta": meta, **about}
        answer = await _post(ways.http, "/v1/transactions", {"steps": [step]})
        assert answer.status_code == (400 if said is None else 200), answer.text
        await library()
        await header()
        if said is None:
            return
        expected = (said.content_type, said.modified_ms, dict(said.meta), executable)
        for path in ("txn", "sdk", "step", "put"):
            assert await _seen(ways, path) == [expected] * 5

    async def library() -> None:
        step = {"op": "put", "path": "step", "text": "x", "meta": meta, **about}
        before = len(ways.cluster.calls)
        if said is None:
            with pytest.raises(InvalidRequest):
                await ways.synod.put("sdk", b"x", meta=meta, **about)  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest, match="step 0"):
                await ways.synod.transaction([step])
            assert len(ways.cluster.calls) == before
        else:
            await ways.synod.put("sdk", b"x", meta=meta, **about)  # type: ignore[arg-type]
            await ways.synod.transaction([step])

    async def header() -> None:
        headers = {"content-type": content_type, "synod-modified": str(modified_ms)}
        headers |= {"synod-executable": "1"} if executable else {}
        headers |= {META_PREFIX + name: value for name, value in meta.items()}
        raw = _raw(headers)
        if raw is None:
            assert said is None
            return
        answer = await ways.http.put("/v1/files/put", content=b"x", headers=raw)
        assert answer.status_code in ((400,) if said is None else (200, 201)), answer.text

    runner.run(act())


@_EXAMPLES
@given(path=st.lists(_TEXT, min_size=1, max_size=3).map("/".join) | st.just("ü" * 128))
def test_every_way_in_accepts_the_same_names(
    runner: asyncio.Runner, ways: WaysIn, path: str
) -> None:
    """Given any text, when it is the path of a PUT, a step, a move, a copy, a directory, a watch
    and a call of the library, then all give the same answer.
    """
    try:
        good = bool(checked_path(path))
    except InvalidPath:
        good = False
    refused = {409} if path == "" else {400}

    async def act() -> None:
        raw = path.encode(errors="surrogatepass")
        url = "/".join("".join(f"%{b:02X}" for b in name) for name in raw.split(b"/"))
        answers = [await ways.http.put(f"/v1/files/{url}", content=b"x")]
        steps = [{"op": "put", "path": path, "text": "y"}, {"op": "delete", "path": path}]
        answers.append(await _post(ways.http, "/v1/transactions", {"steps": steps}))
        await ways.http.put("/v1/files/source", content=b"x")
        for verb in ("copy", "move"):
            body = {"source": "source", "target": path, "overwrite": True}
            answers.append(await _post(ways.http, f"/v1/{verb}", body))
            if good:
                listed = await ways.http.get(f"/v1/directories/{url.rpartition('/')[0]}")
                assert path in [entry["path"] for entry in listed.json()["entries"]]
                assert (await ways.synod.stat(path)).path == path
                await ways.http.delete(f"/v1/files/{url}")
        if good:
            assert all(answer.is_success for answer in answers), [a.text for a in answers]
            await ways.http.delete(f"/v1/directories/{path.split('/')[0]}?recursive=true")
        else:
            codes = {answer.status_code for answer in answers}
            assert codes == refused, [answer.text for answer in answers]

    if path in ("source",) or path.startswith("source/"):
        return
    runner.run(act())


@_EXAMPLES
@given(tags=st.lists(_TAG, min_size=1, max_size=2), exists=st.booleans())
def test_a_condition_means_the_same_in_a_header_in_a_body_and_in_the_library(
    runner: asyncio.Runner, ways: WaysIn, tags: list[str], exists: bool
) -> None:
    """Given tags as a header writes them, when a write asks for them in each way, then either all
    are refused, or all agree on whether it happens.
    """
    value = ", ".join(tags)
    try:
        raw = value.encode().strip(b" \t")  # As HTTP does.
    except UnicodeEncodeError:
        return
    if any(byte < 0x20 or byte == 0x7F for byte in raw):
        return

    async def act() -> None:
        await ways.http.delete("/v1/files/a")
        if exists:
            current = (await ways.http.put("/v1/files/a", content=b"1")).headers["etag"]
            assert current != '"1-0"'
        for member, field in (("if_match", "if-match"), ("if_none_match", "if-none-match")):
            by_header = await ways.http.put(
                "/v1/files/a", content=b"1", headers=[(field.encode(), raw)]
            )
            if not exists:
                await ways.http.delete("/v1/files/a")
            for form in (value, tags):
                step = {"op": "put", "path": "a", "text": "2", member: form}
                answer = await _post(ways.http, "/v1/transactions", {"steps": [step]})
                bare = any(tag[:1].isascii() and tag[:1].isalnum() for tag in tags)
                if by_header.status_code != 400 or not bare:
                    wanted = {201: 200}.get(by_header.status_code, by_header.status_code)
                    assert answer.status_code == wanted, (answer.text, by_header.text)
                if not exists:
                    await ways.http.delete("/v1/files/a")
                try:
                    await ways.synod.put("a", b"3", **{member: form})  # type: ignore[arg-type]
                    code = 200
                except PreconditionFailed:
                    code = 412
                except InvalidRequest:
                    code = 400
                assert code == answer.status_code, answer.text
                if not exists:
                    await ways.http.delete("/v1/files/a")

    runner.run(act())


@pytest.mark.parametrize(
    "body", [rb'"\ud800"', rb'"\udc00"', b'"\xff"', b'"\xed\xa0\x80"', rb'"a\u0000"']
)
async def test_what_is_no_text_is_refused_before_any_node_sees_it(
    client: httpx.AsyncClient, cluster: FakeCluster, body: bytes
) -> None:
    bodies = [
        ("/v1/move", b'{"source": %b, "target": "b"}' % body),
        ("/v1/copy", b'{"source": "a", "target": %b}' % body),
        ("/v1/transactions", b'{"steps": [{"op": "mkdir", "path": %b}]}' % body),
        (
            "/v1/transactions",
            b'{"steps": [{"op": "put", "path": "a", "text": "", "content_type": %b}]}' % body,
        ),
        (
            "/v1/transactions",
            b'{"steps": [{"op": "put", "path": "a", "text": "", "meta": {"a": %b}}]}' % body,
        ),
        (
            "/v1/transactions",
            b'{"steps": [{"op": "put", "path": "a", "text": "", "meta": {%b: ""}}]}' % body,
        ),
        ("/v1/transactions", b'{"steps": [{"op": "delete", "path": "a", "if_match": %b}]}' % body),
    ]

    for path, content in bodies:
        answer = await client.post(
            path, content=content, headers={"content-type": "application/json"}
        )
        assert (answer.status_code, cluster.submitted()) == (400, []), content


_ODD: list[dict[str, Any]] = [
    {"content_type": "text/plain\r\nset-cookie: a=b"},
    {"content_type": "text/€"},
    {"content_type": ""},
    {"content_type": "x" * 5000},
    {"modified_ms": 10**30},
    {"modified_ms": -(10**30)},
    {"meta": (("a", "b\r\nset-cookie: a=b"), ("c", "\0"), ("d", " \x85 "))},
    {"meta": (("a b", "1"), ("", "2"), ("ü", "3"), ("a:b", "4"), ("A", "5"), ("a", "6"))},
    {"meta": (("big", "x" * 100_000), ("b", "1"))},
    {"meta": (("owner", "Zoë"), ("price", "€"), ("old", "Zoë".encode().decode("latin-1")))},
    {"content": Chunked(size=5, sha256="zz", chunks=())},
    {"content": Chunked(size=2**53 - 1, sha256="é", chunks=("../../etc/passwd",))},
    {"content": Indirect(size=5, sha256="", manifest="no")},
]


async def test_what_is_stored_already_is_served_whatever_it_is() -> None:
    """Given files that older or other programs wrote with metadata that is refused, when they
    are asked for, then each is listed and has a head, and none ends a connection or is a 500.
    """
    cluster = FakeCluster()
    for number, odd in enumerate(_ODD):
        cluster.chunks["no"] = b"{}"
        operation = put_of(f"odd/{number}", b"x").model_copy(update=odd)
        cluster.store(operation)
    async with serving(cluster, Settings()) as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url) as http, AsyncClient(url, patience_s=5) as synod:
            listed = {entry.name: entry async for entry in synod.list("odd")}
            assert len(listed) == len(_ODD)
            for name, entry in listed.items():
                got, head = await http.get(f"/v1/files/odd/{name}"), await synod.stat(entry.path)
                readable = "content" not in _ODD[int(name)]
                assert got.status_code == (200 if readable else 503), (name, got.text)
                assert "set-cookie" not in got.headers
                assert head == entry
                checked(head.content_type, head.modified_ms, head.executable, head.meta.items())
                if readable:
                    assert await synod.read(entry.path) == b"x"
            assert (
                await http.get("/v1/files/odd/10", headers={"range": "bytes=1-2"})
            ).status_code == 503
            assert (
                listed["0"].content_type == listed["1"].content_type == "application/octet-stream"
            )
            assert (listed["4"].modified_ms, listed["5"].modified_ms) == (
                MODIFIED_MS_MAX,
                MODIFIED_MS_MIN,
            )
            assert listed["6"].meta == {
                "a": "b\ufffd\ufffdset-cookie: a=b",
                "c": "\ufffd",
                "d": "\ufffd",
            }
            assert listed["7"].meta == {"a": "5"}
            assert listed["8"].meta == {}
            assert listed["9"].meta == {"owner": "Zoë", "price": "€", "old": "Zoë"}
