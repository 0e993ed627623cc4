"""Checks records of the audit: that each one follows from the one before, and none is missing.

A record's hash is `SHA-256(HASH_BEFORE LINE_FEED RECORD)` in lower-case hex, where `RECORD` is the
record without `hash`, as compact JSON in UTF-8 with its members in the order in which they came.
An export is a line of JSON for each record, and a last line with the end of the chain::

    {"end": {"first": 1, "count": 2, "previous": "", "head": "…", "slot": 9, "log_time_ms": 7}}

The check needs no server. It can't tell a chain from one that was computed anew as a whole: for
that, compare its head with one that was noted before (`heads`).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any


class ChainBroken(Exception):
    """The chain is not whole. `number` is that of the first record that is wrong, if one is."""

    def __init__(self, text: str, number: int | None = None) -> None:
        super().__init__(text)
        self.number = number


def hash_of(previous: str, record: Mapping[str, Any]) -> str:
    """The hash of a record after the one whose hash is `previous`."""
    bare = {name: value for name, value in record.items() if name != "hash"}
    text = json.dumps(bare, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{previous}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()


class Chain:
    """Records that were checked so far. `previous` is the hash before number `first`."""

    def __init__(self, first: int, previous: str) -> None:
        self.first = first
        self.count = first - 1
        """The number of the last record."""
        self.previous = previous
        self.head = previous

    def add(self, record: Mapping[str, Any]) -> None:
        """Check the next record. Raises `ChainBroken`."""
        number = self.count + 1
        if record.get("number") != number:
            raise ChainBroken(
                f"record {number} is missing: {record.get('number')} stands in its place", number
            )
        expected = hash_of(self.head, record)
        if record.get("hash") != expected:
            raise ChainBroken(
                f"record {number} (slot {record.get('slot')}, index {record.get('index')}) is "
                f"wrong: its hash is {record.get('hash')}, and what it says has {expected}",
                number,
            )
        self.count, self.head = number, expected

    def end(self, count: int, head: str) -> None:
        """Check the end that is stated. Raises `ChainBroken`."""
        if self.count != count:
            raise ChainBroken(f"record {self.count + 1} is missing, of {count}", self.count + 1)
        if self.head != head:
            raise ChainBroken(f"the last record has the hash {self.head}, and not {head}")


def check_export(lines: Iterable[bytes], heads: Iterable[str] = ()) -> Chain:
    """Check the lines of an export; `heads` are hashes that it must have. Raises `ChainBroken`."""
    wanted = set(heads)
    records: list[dict[str, Any]] = []
    end: dict[str, Any] | None = None
    chain: Chain | None = None
    for place, line in enumerate(lines, 1):
        if end is not None:
            raise ChainBroken(f"line {place} stands behind the end")
        try:
            read = json.loads(line)
            assert isinstance(read, dict)
        except (ValueError, AssertionError, RecursionError):
            raise ChainBroken(f"line {place} is no record") from None
        if "end" in read:
            end = read["end"]
        else:
            records.append(read)
    if end is None:
        raise ChainBroken("the end of the export is missing: it was cut off")
    try:
        chain = Chain(int(end["first"]), str(end["previous"]))
        count, head = int(end["count"]), str(end["head"])
    except (KeyError, TypeError, ValueError):
        raise ChainBroken("the end of the export can't be read") from None
    wanted.discard(chain.head)
    for record in records:
        chain.add(record)
        wanted.discard(chain.head)
    chain.end(count, head)
    if wanted:
        raise ChainBroken(f"the chain does not have the hash {min(wanted)}")
    return chain
