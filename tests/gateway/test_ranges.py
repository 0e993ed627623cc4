"""Numbers, dates and ranges, however absurd: never a 500, and never wrong bytes."""

import asyncio
import hashlib
import re
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.values import FileEntry
from gateway.http.app import GatewayApp
from gateway.http.ranges import Unsatisfiable, byte_range
from gateway.settings import Settings
from tests.gateway.fake import FakeCluster
from tests.gateway.problems import problem_of

CONTENT = hashlib.shake_256(b"ranges").digest(64 * 1024 * 3 + 17)
SIZES = {"empty": 0, "one": 1, "small": 1000, "chunked": len(CONTENT)}
HUGE = "9" * 30
LONGEST = "9" * 5_000


@pytest.mark.parametrize(
    ("asked", "size", "expected"),
    [
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=3-", 10, (3, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("BYTES= 3-4 ", 10, (3, 5)),
        ("bytes=,3-4,", 10, (3, 5)),
        (f"bytes=3-{HUGE}", 10, (3, 10)),
        (f"bytes=-{HUGE}", 10, (0, 10)),
        (f"bytes=-{LONGEST}", 10, (0, 10)),
        (f"bytes={'0' * 30}3-{'0' * 30}4", 10, (3, 5)),
        (f"bytes={HUGE}-", 10, "unsatisfiable"),
        (f"bytes={HUGE}-{HUGE}9", 10, "unsatisfiable"),
        (f"bytes={LONGEST}-", 10, "unsatisfiable"),
        ("bytes=10-", 10, "unsatisfiable"),
        ("bytes=-0", 10, "unsatisfiable"),
        (f"bytes=-{'0' * 30}", 10, "unsatisfiable"),
        ("bytes=0-", 0, "unsatisfiable"),
        ("bytes=0-0", 0, "unsatisfiable"),
        ("bytes=-0", 0, "unsatisfiable"),
        ("bytes=-5", 0, "unsatisfiable"),
        ("bytes=4-3", 10, None),
        (f"bytes={HUGE}9-{HUGE}", 10, None),
        ("bytes=-", 10, None),
        ("bytes=", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("bytes=+1-2", 10, None),
        ("bytes=1-2x", 10, None),
        ("bytes=\u00b2-", 10, None),
        ("items=0-1", 10, None),
        ("bytes 0-1", 10, None),
        ("", 10, None),
        (None, 10, None),
    ],
)
def test_which_bytes_a_range_means(asked: str | None, size: int, expected: object) -> None:
    """An invalid range is ignored; one outside of the file is refused (RFC 9110, section 14)."""
    try:
        meant: object = byte_range(asked, size)
    except Unsatisfiable:
        meant = "unsatisfiable"

    assert meant == expected


class World:
    """A gateway with files of several sizes, and a loop to speak to it."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.cluster = FakeCluster()
        app = GatewayApp(self.cluster, Settings(chunk_bytes=64 * 1024))
        transport = httpx.ASGITransport(app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        for name, size in SIZES.items():
            assert self.ask("PUT", f"/v1/files/{name}", {}, CONTENT[:size]).status_code == 201

    def ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None = None
    ) -> httpx.Response:
        """A response, within a deadline."""
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

        async def ask() -> httpx.Response:
            async with asyncio.timeout(10):
                return await self._client.request(method, url, headers=raw, content=body)

        return self.runner.run(ask())


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    yield world
    world.runner.close()


DIGITS = st.one_of(
    st.just(""),
    st.integers(0, 200_000).map(str),
    st.text("0123456789", min_size=1, max_size=40),
    st.sampled_from(["0", "00", HUGE, LONGEST, "-1", "+1", "1e3", "\u00b2", "1_0", " 1"]),
)
PART = st.tuples(DIGITS, st.sampled_from(["-", "-", "-", "--", "", ":"]), DIGITS).map("".join)
RANGE = st.tuples(
    st.sampled_from(["bytes=", "bytes=", "bytes=", "Bytes= ", "bytes", "=", "lines=", ""]),
    st.lists(PART, max_size=3).map(",".join),
).map("".join)
DATE = st.one_of(
    st.sampled_from(
        [
            "Tue, 14 Nov 2023 22:13:20 GMT",
            f"Mon, 01 Jan {HUGE} 00:00:00 GMT",
            f"Mon, 01 Jan 2020 {HUGE}:00:00 GMT",
            f"Mon, 01 Jan 2020 00:00:00 +{HUGE}",
            "Mon, 01 Jan 0001 00:00:00 +2359",
            "Fri, 31 Dec 9999 23:59:59 -2359",
            "0",
        ]
    ),
    st.tuples(DIGITS, DIGITS, DIGITS, DIGITS).map(lambda n: "{} Jan {} {}:{}:0 +0".format(*n)),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40),
)
TAG = st.sampled_from(['"2-0"', '"3-0"', 'W/"3-0"', "*", '"', '"1-9", "3-0"', "", HUGE])
ASKED = st.fixed_dictionaries(
    {},
    optional={
        "range": RANGE,
        "if-range": st.one_of(TAG, DATE),
        "if-none-match": TAG,
        "if-match": TAG,
        "if-modified-since": DATE,
        "if-unmodified-since": DATE,
    },
)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(SIZES)), st.sampled_from(["GET", "HEAD"]), ASKED)
def test_whatever_is_asked_the_bytes_are_those_of_the_file(
    world: World, name: str, method: str, asked: dict[str, str]
) -> None:
    answer = world.ask(method, f"/v1/files/{name}", asked)

    size = SIZES[name]
    assert answer.status_code in (200, 206, 304, 400, 412, 416), answer.text
    if answer.status_code == 206:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["content-range"])
        assert found is not None
        first, last, whole = map(int, found.groups())
        assert (whole, answer.content) == (size, CONTENT[first : last + 1])
        assert first <= last < size
    elif answer.status_code == 200 and method == "GET":
        assert answer.content == CONTENT[:size]
    elif answer.status_code == 416:
        assert answer.headers["content-range"] == f"bytes */{size}"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "last-modified": DATE,
            "synod-modified": DIGITS,
            "content-length": DIGITS,
            "content-range": RANGE,
            "synod-retry": DIGITS,
            "synod-executable": DIGITS,
            "if-unmodified-since": DATE,
        },
    )
)
def test_whatever_a_write_says_it_is_kept_or_refused(world: World, said: dict[str, str]) -> None:
    answer = world.ask("PUT", "/v1/files/written", {"content-length": "4", **said}, b"four")

    assert answer.status_code in (200, 201, 400, 413), answer.text
    if answer.is_success:
        read = world.ask("GET", "/v1/files/written", {})
        assert (read.status_code, read.content) == (200, b"four")
        assert read.headers["last-modified"].endswith("GMT")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(
        [
            ("/v1/files/small", "at_least"),
            ("/v1/directories/", "limit"),
            ("/v1/directories/", "at_least"),
            ("/v1/requests", "limit"),
            ("/v1/log", "before"),
            ("/v1/log", "commands"),
            ("/v1/backup/rows", "at_least"),
            ("/v1/backup/rows", "slot"),
            ("/v1/backup/rows", "page"),
        ]
    ),
    DIGITS,
)
def test_whatever_number_a_query_holds(world: World, where: tuple[str, str], value: str) -> None:
    url, name = where

    answer = world.ask("GET", f"{url}?{httpx.QueryParams({name: value})}", {})

    assert answer.status_code in (200, 400, 503), answer.text
    if answer.status_code == 400:
        problem = problem_of(answer)
        assert problem["type"] == "urn:synod:problem:invalid-query"
        assert len(problem["detail"]) < 200


@pytest.mark.parametrize("sequence", [2**53 - 1, 2**53, 10**17, 10**18, 10**30, HUGE * 10])
def test_whatever_number_the_id_of_a_request_holds(world: World, sequence: object) -> None:
    assert world.ask("GET", f"/v1/requests/session-{sequence}", {}).status_code == 404


@pytest.mark.parametrize("modified_ms", [-(10**17), 10**17, -(2**63), 2**63 - 1])
def test_a_time_from_before_times_were_checked_is_served(world: World, modified_ms: int) -> None:
    world.ask("PUT", "/v1/files/old", {}, b"old")
    entry = world.cluster.state.tree.lookup("old")
    assert isinstance(entry, FileEntry)
    object.__setattr__(entry, "modified_ms", modified_ms)

    for method in ("GET", "HEAD"):
        answer = world.ask(method, "/v1/files/old", {"if-modified-since": "0"})
        assert answer.status_code == 200
        years = ("01 Jan 0001 00:00:00 GMT", "31 Dec 9999 23:59:59 GMT")
        assert answer.headers["last-modified"].endswith(years)
    assert world.ask("GET", "/v1/directories/", {}).status_code == 200
