"""The contents in a journal: a table in order of insertion, and an index of their names in memory.

Names are hashes, so changes to an index in the file would be spread over all of its pages: each
small file would cost a page of it, several times the size of the contents themselves. In order of
insertion, contents that are written together lie together, and are usually deleted together. The
index is built when the journal is opened and takes about 100 bytes for each name.
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
    """The table `blobs`. Its owner runs the transactions and serializes the calls."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._next_id = 1

    def create(self) -> None:
        """Create the table in a new journal."""
        self._connection.execute(_TABLE)

    def migrate_from_format_1(self) -> None:
        """Convert the table of format 1, whose key was the name."""
        self._connection.execute("ALTER TABLE blobs RENAME TO blobs_by_name")
        self.create()
        self._connection.execute(
            "INSERT INTO blobs (sha256, data) SELECT sha256, data FROM blobs_by_name"
        )
        self._connection.execute("DROP TABLE blobs_by_name")

    def load(self) -> int:
        """Build the index; return the sum of the names' hashes. Raises `sqlite3.IntegrityError` if
        a name occurs twice.
        """
        # A temporary table is rolled back with the table. It is in memory; see `connect`.
        self._connection.execute(_INDEX)
        self._connection.execute("INSERT INTO blob_ids SELECT sha256, id FROM blobs")
        ((last,),) = self._connection.execute("SELECT max(id) FROM blob_ids").fetchall()
        self._next_id = 1 + (last or 0)
        return sum(
            _name_hash(name) for (name,) in self._connection.execute("SELECT sha256 FROM blob_ids")
        )

    def write(self, contents: dict[str, bytes | None]) -> int:
        """Put contents, or remove them (`None`); return the change of the sum of name hashes."""
        if not contents:
            return 0
        # A blob of the same name is replaced, because the stored one may have rotted.
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
        """The bytes stored under that name; the caller verifies their hash."""
        row = self._connection.execute(
            "SELECT data FROM blobs WHERE id = (SELECT id FROM blob_ids WHERE sha256 = ?)",
            (sha256,),
        ).fetchone()
        return None if row is None else row[0]

    def names(self) -> list[str]:
        """All names, sorted."""
        query = "SELECT sha256 FROM blob_ids ORDER BY sha256"
        return [name for (name,) in self._connection.execute(query)]

    def _ids(self, names: list[str]) -> dict[str, int]:
        """The ids of those of `names` that exist."""
        found: dict[str, int] = {}
        for start in range(0, len(names), _NAMES_PER_QUERY):
            part = names[start : start + _NAMES_PER_QUERY]
            marks = ",".join("?" * len(part))
            query = f"SELECT sha256, id FROM blob_ids WHERE sha256 IN ({marks})"
            found.update(self._connection.execute(query, part).fetchall())
        return found


def _name_hash(sha256: str) -> int:
    """The first 64 bits of the name, which is a hash already."""
    return int(sha256[:16], 16)
