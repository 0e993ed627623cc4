"""If-Match, If-None-Match, Range and digests, as RFC 9110 and RFC 9530 write them."""

import hashlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.values import ALWAYS, Precondition
from gateway.http.conditional import holds, precondition
from gateway.http.metadata import http_date, metadata
from gateway.http.problems import Problem
from gateway.http.ranges import Unsatisfiable, byte_range
from synod.headers import InvalidDigest, digest_header, sha256_of_digest


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ALWAYS),
        ({"if-match": "*"}, Precondition(if_match=("*",))),
        ({"if-none-match": " * "}, Precondition(if_none_match=("*",))),
        ({"if-match": '"12-0"'}, Precondition(if_match=("12-0",))),
        ({"if-match": '"1-0", "2-3"'}, Precondition(if_match=("1-0", "2-3"))),
        ({"if-match": '"1-0" ,,\t"2-3",'}, Precondition(if_match=("1-0", "2-3"))),
        ({"if-match": '"a,b"'}, Precondition(if_match=("a,b",))),
        # Strong comparison: a weak tag never matches. Weak comparison: it does.
        ({"if-match": 'W/"1-0"'}, Precondition(if_match=())),
        ({"if-none-match": 'W/"1-0"'}, Precondition(if_none_match=("1-0",))),
        # A quoted star is a tag that no file has.
        ({"if-match": '"*"'}, Precondition(if_match=())),
        ({"if-none-match": '"*"'}, Precondition(if_none_match=())),
    ],
)
def test_conditions(fields: dict[str, str], expected: Precondition) -> None:
    assert precondition(fields) == expected


@pytest.mark.parametrize("value", ["", "12-0", '"1-0', '"1-0" "2-0"', '*, "1-0"', 'w/"1-0"', "''"])
def test_conditions_that_can_not_be_read(value: str) -> None:
    with pytest.raises(Problem, match="If-Match"):
        precondition({"if-match": value})


def test_what_a_condition_holds_for() -> None:
    assert holds(("*",), "1-0")
    assert holds(("2-0", "1-0"), "1-0")
    assert not holds(("2-0",), "1-0")
    assert not holds((), "1-0")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=2-5", (2, 6)),
        ("Bytes=2-5", (2, 6)),
        ("bytes=5-", (5, 10)),
        ("bytes=5-99", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        # Not of a supported form, or not valid: the whole content.
        ("bytes=0-1,4-5", None),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("lines=0-1", None),
        ("bytes 0-1", None),
    ],
)
def test_ranges_of_ten_bytes(value: str | None, expected: tuple[int, int] | None) -> None:
    assert byte_range(value, 10) == expected


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("bytes=10-", 10),
        ("bytes=10-12", 10),
        ("bytes=-0", 10),
        ("bytes=0-", 0),
        ("bytes=-5", 0),
        (f"bytes={'9' * 4000}-", 10),
    ],
)
def test_ranges_outside_of_the_content(value: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        byte_range(value, size)


@given(st.text(max_size=40), st.integers(0, 2**40))
def test_a_range_is_inside_or_nothing(value: str, size: int) -> None:
    try:
        found = byte_range(f"bytes={value}", size)
    except Unsatisfiable:
        return

    assert found is None or 0 <= found[0] < found[1] <= size


@given(st.binary(max_size=100))
def test_a_digest_survives_its_header(content: bytes) -> None:
    sha256 = hashlib.sha256(content).hexdigest()

    assert sha256_of_digest(digest_header(sha256), "Repr-Digest") == sha256


def test_digests_of_other_kinds_are_ignored_and_broken_ones_refused() -> None:
    right = digest_header("ab" * 32)

    assert sha256_of_digest("md5=:AAAA:", "Repr-Digest") is None
    assert sha256_of_digest(f"md5=:AAAA:, {right}", "Repr-Digest") == "ab" * 32
    for broken in ("sha-256=::", "sha-256=:AAAA:", f"sha-256=:{b64encode(b'x' * 33).decode()}:"):
        with pytest.raises(InvalidDigest, match="SHA-256"):
            sha256_of_digest(broken, "Repr-Digest")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"synod-modified": "1700000000123"}, 1700000000123),
        ({"synod-modified": "-1"}, -1),
        ({"last-modified": "Tue, 14 Nov 2023 22:13:20 GMT"}, 1700000000000),
        (
            {"last-modified": "Tue, 14 Nov 2023 22:13:20 GMT", "synod-modified": "5"},
            5,
        ),
        ({}, None),
    ],
)
def test_modification_times(fields: dict[str, str], expected: int | None) -> None:
    assert metadata(fields).modified_ms == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"synod-modified": "yesterday"},
        {"synod-modified": "1.5"},
        {"synod-modified": "9" * 15},
        {"last-modified": "yesterday"},
        {"synod-executable": "yes"},
        {"synod-meta-": "x"},
        {"synod-meta-a": "x" * 2048},
        {"content-type": "x" * 256},
    ],
)
def test_metadata_that_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(Problem):
        metadata(fields)


def test_the_ends_of_time_have_an_http_date() -> None:
    assert http_date(-62_135_596_800_000) == "Mon, 01 Jan 0001 00:00:00 GMT"
    assert http_date(253_402_300_799_999) == "Fri, 31 Dec 9999 23:59:59 GMT"
