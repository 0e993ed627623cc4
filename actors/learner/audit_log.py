"""The records of the audit that one learner keeps: the latest ones, compressed, in rows.

The chain itself follows from the log (`actors.state.audit`), so all learners keep the same records;
how many, each learner's own `audit_bytes` says. A row holds the records of one commit of the
journal; once there are enough for a good compression, they become one row. A learner that has
copied a state from another replica lacks the records before it: they stand beyond a gap, which
`actors.learner.audit_copy` fills from other learners.
"""

import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic import TypeAdapter

from actors.effects import Record
from actors.node import read_record
from actors.numbers import Count
from actors.state.audit import AuditChain, next_hash
from actors.turn import Turn
from actors.values import Frozen

PREFIX = "audit/"
_PACK_BYTES = 64 * 1024
"""So many bytes of lines become one compressed row; a line has about 150 to 200."""

_PACK_PARTS = 512
_LEVEL = 1
"""The fastest: names and sessions repeat so much that higher levels gain little."""

_ROW_BYTES = 256
"""What a row takes beside its lines."""


class AuditPart(Frozen):
    """A row: the records from number `first` on, one a line. `previous` is the hash before them,
    `head` that of the last one.
    """

    first: Count
    count: Count
    previous: str
    head: str
    packed: bool
    data: bytes

    @property
    def last(self) -> int:
        """The number of its last record."""
        return self.first + self.count - 1

    @property
    def size(self) -> int:
        """Roughly its size in memory."""
        return _ROW_BYTES + len(self.data)

    def lines(self) -> list[str]:
        """Its records."""
        data = zlib.decompress(self.data) if self.packed else self.data
        return data.decode("utf-8", "surrogatepass").split("\n")

    def records(self) -> Iterator["Numbered"]:
        """Its records, with their hashes."""
        former = self.previous
        for number, line in enumerate(self.lines(), self.first):
            former, before = next_hash(former, line), former
            yield Numbered(number, line, former, before)


class Numbered(NamedTuple):
    """A record, with its hash and the one before it."""

    number: int
    line: str
    hash: str
    previous: str


_PART = TypeAdapter(AuditPart)


def part_of(first: int, lines: Sequence[str], previous: str, head: str, *, pack: bool) -> AuditPart:
    """A row of these records."""
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    return AuditPart(
        first=first,
        count=len(lines),
        previous=previous,
        head=head,
        packed=pack,
        data=zlib.compress(data, _LEVEL) if pack else data,
    )


class AuditLog:
    """The rows of one learner, in the order of the chain."""

    def __init__(self, turn: Turn, chain: AuditChain) -> None:
        self._turn = turn
        chain.kept = []
        self.parts: list[AuditPart] = []
        self.bytes = 0
        """The size of all rows."""
        self.count = 0
        """The number of the last record that is in a row, or was in the state that was copied."""
        self.head = ""
        """Its hash."""

    # -- journal ---------------------------------------------------------------------------------

    def restore(self, record: Record) -> bool:
        """Restore a row of the journal if it is one of the audit's; whether it is."""
        if not record.key.startswith(PREFIX):
            return False
        part = read_record(_PART, record)
        self.parts.append(part)
        self.bytes += part.size
        return True

    def restored(self, chain: AuditChain) -> None:
        """Finish restoring: the rows end where the restored chain does."""
        self.parts.sort(key=_first)
        self.count, self.head = chain.count, chain.head

    def row(self, key: str) -> AuditPart | None:
        """The row for the journal under `key`."""
        return next((part for part in self.parts if _key(part) == key), None)

    # -- writing ---------------------------------------------------------------------------------

    def take(self, chain: AuditChain) -> None:
        """Put the chain's new records into rows, to be committed with the state that has them."""
        new = chain.kept
        if new:
            chain.kept = []
            tail = self._tail()
            size = sum(len(part.data) for part in tail) + sum(len(line) + 1 for line, _ in new)
            if size < _PACK_BYTES and len(tail) < _PACK_PARTS:
                lines = [line for line, _ in new]
                self._add(part_of(self.count + 1, lines, self.head, chain.head, pack=False))
            else:
                self._pack(tail, new)
            self._prune()
        self.count, self.head = chain.count, chain.head

    def _tail(self) -> list[AuditPart]:
        """The rows up to the end of the chain that are not compressed yet."""
        tail: list[AuditPart] = []
        previous = self.head
        for part in reversed(self.parts):
            if part.packed or part.head != previous:
                break
            tail.append(part)
            previous = part.previous
        return tail[::-1]

    def _pack(self, tail: list[AuditPart], new: list[tuple[str, str]]) -> None:
        """Replace the tail, and add the new records: compressed rows, and what is left over."""
        first, previous = self.count + 1, self.head
        if tail:
            first, previous = tail[0].first, tail[0].previous
        lines = [line for part in tail for line in part.lines()]
        size = sum(len(line) + 1 for line in lines)
        self.drop(tail)
        for line, head in new:
            lines.append(line)
            size += len(line) + 1
            if size >= _PACK_BYTES:
                self._add(part_of(first, lines, previous, head, pack=True))
                first, previous, lines, size = first + len(lines), head, [], 0
        if lines:
            self._add(part_of(first, lines, previous, new[-1][1], pack=False))

    def skip_to(self, chain: AuditChain) -> None:
        """The state was copied: the chain goes on behind records that are not here."""
        self.count, self.head = chain.count, chain.head

    def insert(self, part: AuditPart) -> None:
        """Add records that were copied from another learner."""
        self._add(part)

    def drop(self, parts: Sequence[AuditPart]) -> None:
        """Forget these rows."""
        for part in parts:
            # By its place: to compare with each row would take a second where there are thousands.
            del self.parts[bisect_left(self.parts, part.first, key=_first)]
            self.bytes -= part.size
            self._turn.journal(_key(part), None)

    def _add(self, part: AuditPart) -> None:
        insort(self.parts, part, key=_first)
        self.bytes += part.size
        self._turn.journal(_key(part), part)

    def _prune(self) -> None:
        """Forget the oldest records beyond `audit_bytes`; the newest row stays."""
        while len(self.parts) > 1 and self.bytes > self._turn.options.audit_bytes:
            self.drop(self.parts[:1])

    # -- reading ---------------------------------------------------------------------------------

    @property
    def run(self) -> int:
        """The index of the first row of those that have no gap up to the end of the chain."""
        start, previous = len(self.parts), self.head
        while start and self.parts[start - 1].head == previous:
            start -= 1
            previous = self.parts[start].previous
        return start

    @property
    def first(self) -> int:
        """The number of the first record from which on none is missing."""
        run = self.run
        return self.parts[run].first if run < len(self.parts) else self.count + 1

    def ascending(self, after: int) -> Iterator[Numbered]:
        """The records after number `after`, from where on none is missing."""
        start = max(self.run, bisect_right(self.parts, after, key=_first) - 1)
        for part in self.parts[start:]:
            yield from (record for record in part.records() if record.number > after)

    def copyable(self, after: int) -> Iterator[Numbered]:
        """The records after number `after` up to the next gap: also those before one, which this
        learner fills, while another one lacks just these.
        """
        start = max(0, bisect_right(self.parts, after, key=_first) - 1)
        former: AuditPart | None = None
        for part in self.parts[start:]:
            if part.last <= after:
                continue
            if former is not None and part.previous != former.head:
                return
            yield from (record for record in part.records() if record.number > after)
            former = part

    def descending(self, before: int) -> Iterator[Numbered]:
        """The records before number `before`, from the newest down, as far as none is missing."""
        for part in reversed(self.parts[self.run :]):
            if part.first < before:
                newest = [record for record in part.records() if record.number < before]
                yield from reversed(newest)


def _first(part: AuditPart) -> int:
    return part.first


def _key(part: AuditPart) -> str:
    return f"{PREFIX}{part.first:016x}"
