"""The rows in a journal's database: a table ordered by key, with a hash of each row."""

import hashlib
import sqlite3
from typing import Any, NamedTuple

from broker.commit_log import Rows

_TABLE = """
CREATE TABLE records (key TEXT PRIMARY KEY, hash INTEGER NOT NULL, value BLOB NOT NULL)
    WITHOUT ROWID
"""
_KEYS_PER_QUERY = 64
ROWS_PER_PAGE = 64


class StoredRow(NamedTuple):
    """A row as the table holds it."""

    key: str
    hash: int
    value: Any
    """Bytes, unless it rotted."""

    @property
    def is_sound(self) -> bool:
        """Whether it is what was written."""
        return isinstance(self.value, bytes) and row_hash(self.key, self.value) == self.hash


class RowTable:
    """The table `records`. Its owner runs the transactions and serializes the calls."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def create(self) -> None:
        """Create the table in a new journal."""
        self._connection.execute(_TABLE)

    def write(self, changes: Rows) -> int:
        """Apply the changes; return the change of the sum of all hashes."""
        if not changes:
            return 0
        former = self._stored_hashes(list(changes))
        # Many rows of a log were added and removed again since the database took it in.
        removed = [(key,) for key, value in changes.items() if value is None and key in former]
        written = [
            (key, row_hash(key, value), value)
            for key, value in sorted(changes.items())
            if value is not None
        ]
        if removed:
            self._connection.executemany("DELETE FROM records WHERE key = ?", removed)
        if written:
            self._connection.executemany(
                "INSERT INTO records (key, hash, value) VALUES (?, ?, ?) ON CONFLICT (key) "
                "DO UPDATE SET hash = excluded.hash, value = excluded.value",
                written,
            )
        return sum(added for _, added, _ in written) - sum(former.values())

    def page(self, after: str | None) -> list[StoredRow]:
        """The next rows in key order, at most `ROWS_PER_PAGE`."""
        where, arguments = ("", ()) if after is None else ("WHERE key > ?", (after,))
        found = self._connection.execute(
            f"SELECT key, hash, value FROM records {where} ORDER BY key LIMIT {ROWS_PER_PAGE}",
            arguments,
        )
        return [StoredRow(*row) for row in found.fetchall()]

    def _stored_hashes(self, keys: list[str]) -> dict[str, int]:
        """The hashes of those of `keys` that exist."""
        found: dict[str, int] = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            part = keys[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, hash FROM records WHERE key IN ({marks})"
            found.update(self._connection.execute(query, part).fetchall())
        return found


def row_hash(key: str, value: bytes) -> int:
    """A 64-bit hash of a row, signed as SQLite's integers are."""
    name = key.encode()
    digest = hashlib.blake2b(b"%d:%b%b" % (len(name), name, value), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
