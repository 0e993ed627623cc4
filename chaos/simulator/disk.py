"""A node's journal in memory: the same rows, counts and guarantees as `broker.journal`."""

from collections.abc import Iterable

from actors.effects import BLOB_ROW, Blob, Record


class Disk:
    """What survives a crash. A commit is on it as a whole or not at all.

    `identity` is minted with the empty disk; `incarnation` counts the starts on it and `commits`
    all that was ever committed, the beginnings of incarnations included.
    """

    __slots__ = (
        "blobs",
        "commits",
        "ever_rotten",
        "identity",
        "incarnation",
        "records",
        "rotten_blobs",
        "rotten_rows",
    )

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.records: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.rotten_blobs: set[str] = set()
        """Blobs whose bytes are not what was committed, which a read or a scrub detects."""
        self.ever_rotten: set[str] = set()
        """Blobs that have rotted at some time, sound again or not."""
        self.rotten_rows: set[str] = set()
        """Rows with which a start is refused. A row that is committed again is sound again."""
        self.incarnation = 0
        self.commits = 0

    def begin_incarnation(self) -> None:
        """A start of a process, or a rebuild within one."""
        self.incarnation += 1
        self.commits += 1

    def commit(self, records: Iterable[Record], blobs: Iterable[Blob]) -> None:
        """Make all of it durable, as if each were carried out in turn (`Journal.commit`)."""
        self.commits += 1
        if self.rotten_rows or self.rotten_blobs:
            records, blobs = list(records), list(blobs)
            self.rotten_rows.difference_update(key for key, _ in records)
            self.rotten_blobs.difference_update(name for name, _ in blobs)
        for key, value in records:
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value
        for name, data in blobs:
            if data is None:
                self.blobs.pop(name, None)
            else:
                self.blobs[name] = data

    def rows(self) -> list[Record]:
        """What a start restores from: the names of the blobs, then the rows in key order."""
        return [
            *(Record(BLOB_ROW + name, b"") for name in sorted(self.blobs)),
            *(Record(key, self.records[key]) for key in sorted(self.records)),
        ]
