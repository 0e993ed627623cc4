"""The changes that the latest slots made, for the gateway's `/v1/watch`.

They follow from the log, so all stores report the same. They are kept in memory, up to a bound; a
request for older ones is refused, never answered with a gap.
"""

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from actors.numbers import Count
from actors.paging import PAGE_BYTES, Page
from actors.values import (
    AnyStep,
    AnyValue,
    Batch,
    CopyEntry,
    DeleteFile,
    Frozen,
    MakeDirectory,
    MoveEntry,
    Outcome,
    PutFile,
    RemoveDirectory,
    steps_of,
)

_KEPT = 16_384
"""How many changes are kept, give or take a slot's."""

_KEPT_BYTES = 16 * 1024 * 1024
"""How much memory the names in them may take; a name may have 4 KiB."""

ChangeKind = Literal["put", "delete", "make_directory", "remove_directory", "move", "copy"]


class Change(Frozen):
    """One change that was applied; `ordinal` numbers the changes of a slot from 0.

    A move or a copy names its `source` and covers everything below it; so does the removal of a
    directory. `size` and `content_type` are those of a file that was put.
    """

    kind: ChangeKind
    slot: Count
    index: Count
    ordinal: Count
    path: str
    source: str | None = None
    size: Count | None = None
    content_type: str | None = None


@dataclass(slots=True)
class _Row:
    """A change as it is kept; few are ever requested, and a `Change` costs more to make."""

    kind: ChangeKind
    slot: int
    index: int
    ordinal: int
    path: str
    source: str | None
    size: int | None
    content_type: str | None

    @property
    def names_bytes(self) -> int:
        """The size of its names, which is nearly all of it."""
        return len(self.path.encode()) + len((self.source or "").encode())

    def to_change(self) -> Change:
        return Change(**{name: getattr(self, name) for name in self.__slots__})


@dataclass(slots=True)
class Changes:
    """The changes of the slots `first <= s <= last`."""

    first: int = 1
    last: int = 0
    kept: int = _KEPT
    kept_bytes: int = _KEPT_BYTES
    _rows: deque[_Row] = field(default_factory=deque)
    _bytes: int = 0

    def restart(self, applied: int) -> None:
        """The state was restored or replaced at `applied`: earlier changes are not known here."""
        self._rows.clear()
        self._bytes = 0
        self.first = applied + 1
        self.last = applied

    def note(self, slot: int, value: AnyValue, outcomes: Sequence[Outcome]) -> None:
        """Record the changes of a slot that was applied."""
        if slot != self.last + 1:
            self.restart(slot - 1)
        self.last = slot
        if not isinstance(value, Batch):
            return
        ordinal = 0
        for index, (command, outcome) in enumerate(zip(value.commands, outcomes, strict=True)):
            if outcome.status != "done" or (outcome.slot, outcome.index) != (slot, index):
                continue  # Refused, or a retry of a command that an earlier slot applied.
            for step in steps_of(command.operation):
                row = _row(step, slot, index, ordinal)
                if row is not None:
                    self._rows.append(row)
                    self._bytes += row.names_bytes
                    ordinal += 1
        while self._is_over and self._rows[0].slot < slot:
            self.first = self._rows[0].slot + 1
            while self._rows and self._rows[0].slot < self.first:
                self._bytes -= self._rows.popleft().names_bytes

    @property
    def _is_over(self) -> bool:
        return len(self._rows) > self.kept or self._bytes > self.kept_bytes

    def since(
        self, after: int, limit: int, page_bytes: int = PAGE_BYTES
    ) -> tuple[tuple[Change, ...], int]:
        """The changes of whole slots after `after`, at least one slot's, and the last slot covered.

        More than one slot only up to `limit` changes and `page_bytes` of JSON. Requires
        `after >= first - 1`.
        """
        newer: list[_Row] = []
        for row in reversed(self._rows):  # A client that follows asks for the newest few.
            if row.slot <= after:
                break
            newer.append(row)
        newer.reverse()
        page_changes: list[Change] = []
        page = Page(page_bytes)
        for slot, rows in itertools.groupby(newer, key=lambda row: row.slot):
            if page_changes and len(page_changes) >= limit:
                return tuple(page_changes), slot - 1
            changes = [row.to_change() for row in rows]
            if not page.takes(sum(len(change.to_json()) + 1 for change in changes)):
                return tuple(page_changes), slot - 1
            page_changes += changes
        return tuple(page_changes), self.last


def _row(step: AnyStep | Frozen, slot: int, index: int, ordinal: int) -> _Row | None:
    """The change that `step` made; `None` if it changes no entry."""

    def of(kind: ChangeKind, path: str, source: str | None = None) -> _Row:
        return _Row(kind, slot, index, ordinal, path, source, None, None)

    match step:
        case PutFile():
            content = step.content
            size = len(content.data) if content.kind == "inline" else content.size
            return _Row("put", slot, index, ordinal, step.path, None, size, step.content_type)
        case DeleteFile():
            return of("delete", step.path)
        case MakeDirectory():
            return of("make_directory", step.path)
        case RemoveDirectory():
            return of("remove_directory", step.path)
        case MoveEntry():
            return of("move", step.target, step.source)
        case CopyEntry():
            return of("copy", step.target, step.source)
    return None
