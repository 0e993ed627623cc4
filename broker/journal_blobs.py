"""The contents in a journal: a table in the order in which they came, and their names in memory.

A name is a hash, so an index of names in the file would be written all over: each small file that
comes or goes would cost a page of it, several times what the contents themselves take. Contents
that come together lie together instead, and go together as a rule. The index is made anew when the
journal is opened; it is as large as the names, about 100 bytes for each.
"""

import sqlite3

_TABLE = """
CREATE TABLE blobs (id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, data BLOB NOT NULL)
"""
_INDEX = """
CREATE TEMP TABLE blob_ids (sha256 TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID
"""
_NAMES_PER_QUERY = 64


class BlobTable:
    """The table. Transactions are its owner's, who also serializes the calls."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._next_id = 1

    def create(self) -> None:
        """Make the table in a new journal."""
        self._connection.execute(_TABLE)

    def migrate_from_format_1(self) -> None:
        """Turn the table of format 1, whose key was the name, into this one."""
        self._connection.execute("ALTER TABLE blobs RENAME TO blobs_by_name")
        self.create()
        self._connection.execute(
            "INSERT INTO blobs (sha256, data) SELECT sha256, data FROM blobs_by_name"
        )
        self._connection.execute("DROP TABLE blobs_by_name")

    def load(self) -> int:
        """Make the index; return the sum of the names' hashes. A name that is there twice is an
        `sqlite3.IntegrityError`.
        """
        # The index follows the table when a transaction is undone, and leaves nothing on the disk.
        self._connection.execute("PRAGMA temp_store = MEMORY")
        self._connection.execute(_INDEX)
        self._connection.execute("INSERT INTO blob_ids SELECT sha256, id FROM blobs")
        ((last,),) = self._connection.execute("SELECT max(id) FROM blob_ids").fetchall()
        self._next_id = 1 + (last or 0)
        return sum(
            _name_hash(name) for (name,) in self._connection.execute("SELECT sha256 FROM blob_ids")
        )

    def write(self, contents: dict[str, bytes | None]) -> int:
        """Put and (`None`) remove, as a `dict` does; return what that adds to the sum of the
        names' hashes.
        """
        if not contents:
            return 0
        # Never taken for the same because the name is: what is stored may have rotted.
        removed = list(self._ids(list(contents)).items())
        added = [(name, data) for name, data in contents.items() if data is not None]
        execute_each = self._connection.executemany
        if removed:
            execute_each("DELETE FROM blobs WHERE id = ?", [(id,) for _, id in removed])
            execute_each("DELETE FROM blob_ids WHERE sha256 = ?", [(name,) for name, _ in removed])
        if added:
            first = self._next_id
            self._next_id += len(added)
            execute_each(
                "INSERT INTO blobs (id, sha256, data) VALUES (?, ?, ?)",
                [(id, name, data) for id, (name, data) in enumerate(added, first)],
            )
            execute_each(
                "INSERT INTO blob_ids (sha256, id) VALUES (?, ?)",
                [(name, id) for id, (name, _) in enumerate(added, first)],
            )
        return sum(_name_hash(name) for name, _ in added) - sum(
            _name_hash(name) for name, _ in removed
        )

    def read(self, sha256: str) -> bytes | None:
        """The bytes kept under that name. Whether they are what it says, the owner checks."""
        row = self._connection.execute(
            "SELECT data FROM blobs WHERE id = (SELECT id FROM blob_ids WHERE sha256 = ?)",
            (sha256,),
        ).fetchone()
        return None if row is None else row[0]

    def names(self) -> list[str]:
        """All names, in their own order."""
        query = "SELECT sha256 FROM blob_ids ORDER BY sha256"
        return [name for (name,) in self._connection.execute(query)]

    def _ids(self, names: list[str]) -> dict[str, int]:
        """Where those of `names` are that are there."""
        found: dict[str, int] = {}
        for start in range(0, len(names), _NAMES_PER_QUERY):
            part = names[start : start + _NAMES_PER_QUERY]
            marks = ",".join("?" * len(part))
            query = f"SELECT sha256, id FROM blob_ids WHERE sha256 IN ({marks})"
            found.update(self._connection.execute(query, part).fetchall())
        return found


def _name_hash(sha256: str) -> int:
    """A name is a hash already; its first 64 bits stand for it."""
    return int(sha256[:16], 16)
