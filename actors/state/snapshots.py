"""Snapshots: a replica that is too far behind for the log copies another replica's state.

After Raft's dissertation, section 5.1, page by page. The rows of a snapshot are those of the state
machine's journal, without contents: chunks are pulled by name afterwards. A snapshot is the state
after a prefix of the log, so it is as final as that prefix.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.messages import SnapshotPage, SnapshotPull, SnapshotRow
from actors.numbers import Milliseconds
from actors.paging import Page
from actors.rotation import Rotation
from actors.state.namespace import Namespace
from actors.turn import Turn
from actors.values import Frozen

_KEPT_MS = 60_000
_FRESH_MS = 2_000
_PATIENCE_MS = 2_000


def digest_of(rows: Iterable[SnapshotRow]) -> str:
    """SHA-256 over keys and values, lower-case hex."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{len(row.key)}:{row.key}{len(row.value)}:{row.value}".encode())
    return digest.hexdigest()


@dataclass(slots=True)
class _Served:
    """A snapshot for the replicas that copy it. Rows become JSON when their page is requested."""

    slot: int
    rows: list[tuple[str, Frozen]]
    starts: list[int]
    """Where each page made so far begins, and where the next one will."""
    made_at: Milliseconds
    asked_at: Milliseconds


class SnapshotServer:
    """Serves this replica's state to others; it holds one snapshot at a time."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._served: _Served | None = None

    def on_pull(self, sender: str, message: SnapshotPull, state: Namespace) -> None:
        """Send the page, or the first page of a new snapshot if that one is gone."""
        turn, served = self._turn, self._served
        page = message.page
        if served is None or message.slot != served.slot or page >= len(served.starts):
            page = 0
            if served is None or turn.now - served.made_at >= _FRESH_MS:
                if state.applied == 0:
                    return
                served = self._served = _Served(
                    state.applied, state.rows(), [0], turn.now, turn.now
                )
                turn.counters["snapshots_served"] += 1
        served.asked_at = turn.now
        start = served.starts[page]
        rows: list[SnapshotRow] = []
        room = Page(turn.options.page_bytes // 4)
        while start < len(served.rows):
            key, row = served.rows[start]
            value = row.to_json()
            # JSON within JSON: its quotes are escaped, so it may take up to twice as much.
            if not room.takes(len(key) + len(value)):
                break
            rows.append(SnapshotRow(key=key, value=value.decode()))
            start += 1
        if page + 1 == len(served.starts) and start < len(served.rows):
            served.starts.append(start)
        turn.send(
            sender,
            SnapshotPage(
                slot=served.slot,
                page=page,
                rows_left=len(served.rows) - start,
                rows=tuple(rows),
                digest=digest_of(rows),
            ),
        )

    def tick(self) -> None:
        """Drop a snapshot that no replica has requested for a while."""
        if self._served is not None and self._turn.now - self._served.asked_at >= _KEPT_MS:
            self._served = None


@dataclass(slots=True)
class _Copying:
    source: str
    start: tuple[str, int] = ("", 0)
    """The disk and the incarnation of the source, which all pages must have: another incarnation
    may list the same state in another order.
    """
    slot: int = 0
    page: int = 0
    rows: list[SnapshotRow] = field(default_factory=list)
    rows_left: int = 0


class CopiedState(NamedTuple):
    """A whole state at `slot`, as rows of a journal."""

    slot: int
    rows: list[SnapshotRow]


class SnapshotInstaller:
    """Copies another replica's state, trying one replica after the other."""

    def __init__(self, turn: Turn, sources: Callable[[], list[str]]) -> None:
        self._turn = turn
        self._sources = sources
        self._copying: _Copying | None = None
        self._rotation = Rotation()

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being copied."""
        return self._copying is not None

    @property
    def rows_left(self) -> int:
        """The number of rows of the snapshot that are still to come, as far as known."""
        return self._copying.rows_left if self._copying else 0

    def begin(self) -> None:
        """Start copying, unless it is under way or all sources have just failed."""
        if self._copying is None and self._ask():
            self._turn.counters["snapshots_begun"] += 1

    def _ask(self) -> bool:
        """Begin with the source whose turn it is, if it is time to ask one."""
        source = self._rotation.next(self._sources(), self._turn.now, _PATIENCE_MS)
        if source is None:
            return False
        self._copying = _Copying(source)
        self._turn.send(source, SnapshotPull(slot=0, page=0))
        return True

    def on_page(self, sender: str, message: SnapshotPage, applied: int) -> CopiedState | None:
        """The next page, or the first page of another snapshot; duplicates are ignored. With the
        last page, returns the whole state for the caller to install.
        """
        copying = self._copying
        if copying is None or sender != copying.source:
            return None
        if message.slot <= applied:
            self._copying = None  # The owner begins again if it still needs a state.
            self._rotation.refused(sender, self._turn.now, "its state is not newer")
            return None
        if digest_of(message.rows) != message.digest:
            self._turn.counters["snapshot_pages_refused"] += 1
            self._rotation.refused(sender, self._turn.now, "its page was damaged on its way")
            return None  # The next tick asks the next source.
        start = (self._turn.sender_disk, self._turn.sender_incarnation)
        if (message.slot, start) != (copying.slot, copying.start):
            if message.page != 0 or message.slot < copying.slot:
                return None
            copying.slot, copying.start, copying.page = message.slot, start, 0
            copying.rows.clear()
        if message.page != copying.page:
            return None
        copying.page += 1
        self._rotation.progressed(self._turn.now, _PATIENCE_MS)
        copying.rows.extend(message.rows)
        copying.rows_left = message.rows_left
        if message.rows_left:
            self._turn.counters["snapshot_pages"] += 1
            self._turn.send(sender, SnapshotPull(slot=copying.slot, page=copying.page))
            return None
        self._copying = None
        self._rotation.answered(self._turn.now)
        self._turn.counters["snapshots_installed"] += 1
        return CopiedState(copying.slot, copying.rows)

    def tick(self) -> None:
        """Ask the next source if no page comes."""
        if self._copying is not None:
            self._ask()
