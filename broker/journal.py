"""A node's journal: a SQLite file and three small files beside it, in the node's data folder.

`journal.db` holds the rows (`records`), the contents (`blobs`) and the node's identity (`meta`).
`synod.json` marks the folder as a journal's, so that a missing `journal.db` is detected.
`journal.mark` holds the number of the latest commit, so that a journal that went back in time (its
write-ahead log lost or torn) is detected.
`journal.lock` is locked for the life of the process.

Every row carries a hash of itself, and `meta` carries the sum of all hashes. So rows that rotted,
vanished or reappeared are detected when the journal is opened, before the node sends anything. A
damaged journal is reported and refused, never repaired: a member that forgot what it promised is
worse than a missing one (design 3.9).
"""

import contextlib
import hashlib
import os
import secrets
import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from actors.effects import Blob, Record
from broker.journal_blobs import BlobTable
from broker.journal_folder import (
    JOURNAL_NAME,
    MARKER_NAME,
    RECOVERY_ADVICE,
    WAL_BYTES,
    WAL_BYTES_TIGHT,
    JournalCorrupt,
    JournalFailed,
    JournalFenced,
    JournalForeign,
    JournalFull,
    check_owner,
    connect,
    is_out_of_space,
    limit_wal,
    lock_folder,
    make_folder,
    read_marker,
    sync_folder,
    transaction,
    write_marker,
)

FORMAT_VERSION = 2
MARK_NAME = "journal.mark"

_CHECKED_WHOLE_BYTES_MAX = 64 * 1024 * 1024
"""Up to this size the whole file is checked when it is opened; in a larger one, contents are
checked when they are read.
"""

_VACUUM_PAGES = 4
"""The pages that are returned to the file system between two readings of the clock."""

_MASK = (1 << 64) - 1
_MARK = struct.Struct(">QI")
_SCHEMA = """
CREATE TABLE meta (
    format INTEGER NOT NULL,
    node TEXT NOT NULL,
    cluster TEXT NOT NULL,
    disk TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    commits INTEGER NOT NULL,
    records_sum INTEGER NOT NULL,
    blobs_sum INTEGER NOT NULL
);
CREATE TABLE records (key TEXT PRIMARY KEY, hash INTEGER NOT NULL, value BLOB NOT NULL)
    WITHOUT ROWID;
"""
_META = (
    "format",
    "node",
    "cluster",
    "disk",
    "incarnation",
    "generation",
    "commits",
    "records_sum",
    "blobs_sum",
)


class JournalIdentity(NamedTuple):
    """The identity of this start of the node; see `actors.options.Identity`."""

    disk: str
    incarnation: int
    journal_commits: int


class Journal:
    """The open journal of one node. All methods may be called from worker threads."""

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        resources: contextlib.ExitStack,
        node: str,
        cluster: str,
        marker: dict[str, str] | None,
    ) -> None:
        """Load and check the journal and begin an incarnation; see `open`, which calls this.

        `resources` closes the connection and releases the lock.
        """
        self.folder = folder
        self.path = folder / JOURNAL_NAME
        self._resources = resources
        self._connection = connection
        self._lock = threading.Lock()
        self._mark_fd = -1
        self._closed = False
        self._generation = 0
        self._commits = 0
        self._incarnation = 0
        self._disk = ""
        self._records_sum = 0
        self._blobs_sum = 0
        self._pending_meta = (0, 0, 0)
        self._page_bytes = 0
        self._free_pages = 0
        self._shrinks = False
        self._blobs = BlobTable(connection)
        self._load(node, cluster, marker)
        self._begin_incarnation()

    # -- opening ----------------------------------------------------------------------------------

    @classmethod
    def open(cls, folder: Path | str, node: str, cluster: str) -> Self:
        """Lock `folder`, check everything in it, and begin a new incarnation of `node`.

        An empty folder becomes a journal with a new disk identity. `cluster` is the cluster's name
        in the settings. Raises `JournalLocked`, `JournalForeign` or `JournalCorrupt`; also
        `JournalFull` if the disk has no space even for that, which is no damage: retry later.
        """
        folder = Path(folder).absolute()
        make_folder(folder)
        resources = contextlib.ExitStack()
        resources.callback(os.close, lock_folder(folder))
        try:
            marker = read_marker(folder, node, cluster)
            try:
                connection = connect(folder, marker)
                resources.callback(connection.close)
                return cls(folder, connection, resources, node, cluster, marker)
            except (sqlite3.Error, OSError) as error:
                if is_out_of_space(error, folder):
                    raise JournalFull(
                        f"{folder / JOURNAL_NAME}: its disk is full: {error}. Nothing in it is "
                        "lost or changed; free some space"
                    ) from error
                if isinstance(error, OSError):
                    raise
                raise JournalCorrupt(
                    f"{folder / JOURNAL_NAME}: {error}. {RECOVERY_ADVICE}"
                ) from error
        except BaseException:
            resources.close()
            raise

    def _load(self, node: str, cluster: str, marker: dict[str, str] | None) -> None:
        tables = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master")}
        if not tables and marker is None:
            self._create(node, cluster)
        elif not {"meta", "records", "blobs"} <= tables:
            raise self._corrupt("the tables are gone")
        self._check_pages()
        rows = self._connection.execute(f"SELECT {', '.join(_META)} FROM meta").fetchall()
        if len(rows) != 1:
            raise self._corrupt(f"the table meta has {len(rows)} rows instead of one")
        meta = dict(zip(_META, rows[0], strict=True))
        if meta["format"] not in (1, FORMAT_VERSION):
            raise JournalForeign(
                f"{self.path} has format {meta['format']}, and this Synod reads {FORMAT_VERSION} "
                "at most: start the newer Synod that wrote it. Nothing in it is changed"
            )
        check_owner(self.path, meta, node, cluster)
        if marker is not None and marker["disk"] != meta["disk"]:
            raise self._corrupt(
                f"it is of disk {meta['disk']}, but {MARKER_NAME} names disk {marker['disk']}: "
                "one of the two was copied here from elsewhere"
            )
        self._disk = meta["disk"]
        self._incarnation, self._commits = meta["incarnation"], meta["commits"]
        self._check_mark()
        self._records_sum, self._blobs_sum = meta["records_sum"], meta["blobs_sum"]
        if meta["format"] == 1:
            self._migrate_from_format_1()
        self._check_sums()
        if marker is None:
            # First the journal, then the marker: a crash between them leaves a journal that names
            # its owner. The reverse order would leave a folder that is refused for ever.
            write_marker(self.folder, {"node": node, "cluster": cluster, "disk": self._disk})

    def _create(self, node: str, cluster: str) -> None:
        with transaction(self._connection):
            for statement in _SCHEMA.strip().split(";\n"):
                self._connection.execute(statement)
            self._blobs.create()
            self._connection.execute(
                "INSERT INTO meta VALUES (?, ?, ?, ?, 0, 0, 0, 0, 0)",
                (FORMAT_VERSION, node, cluster, secrets.token_hex(16)),
            )
        sync_folder(self.folder)

    def _migrate_from_format_1(self) -> None:
        """Format 1 stored blobs in the order of their names."""
        with transaction(self._connection):
            self._blobs.migrate_from_format_1()
            self._connection.execute("UPDATE meta SET format = ?", (FORMAT_VERSION,))

    def _check_pages(self) -> None:
        if self.path.stat().st_size <= _CHECKED_WHOLE_BYTES_MAX:
            checks = ["PRAGMA quick_check(1)"]
        else:
            checks = ["PRAGMA quick_check(meta)", "PRAGMA quick_check(records)"]
        for check in checks:
            (verdict,) = self._connection.execute(check).fetchone()
            if verdict != "ok":
                raise self._corrupt(" ".join(str(verdict).split()))

    def _check_mark(self) -> None:
        """The mark is written after each commit, so it is never ahead of an intact journal."""
        self._mark_fd = os.open(
            self.folder / MARK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        self._resources.callback(os.close, self._mark_fd)
        raw = os.pread(self._mark_fd, _MARK.size, 0)
        if len(raw) < _MARK.size:
            return
        marked, checksum = _MARK.unpack(raw)
        # The mark itself isn't synced; a torn mark proves nothing.
        if checksum == zlib.crc32(raw[:8]) and marked > self._commits:
            raise self._corrupt(
                f"it ends at commit {self._commits}, but commit {marked} was made here: the "
                f"write-ahead log {JOURNAL_NAME}-wal was lost or damaged, or an older copy was put "
                "in its place"
            )

    def _check_sums(self) -> None:
        total = 0
        for _, row_hash in self._read_rows():
            total += row_hash
        if (total - self._records_sum) & _MASK:
            raise self._corrupt("rows of the table records were lost or added")
        try:
            total = self._blobs.load()
        except ValueError as error:
            raise self._corrupt(f"a name in the table blobs is no hash: {error}") from error
        if (total - self._blobs_sum) & _MASK:
            raise self._corrupt("rows of the table blobs were lost or added")

    def _begin_incarnation(self) -> None:
        with transaction(self._connection):
            ((self._generation,),) = self._connection.execute(
                "UPDATE meta SET incarnation = incarnation + 1, generation = generation + 1, "
                "commits = commits + 1 RETURNING generation"
            ).fetchall()
        self._incarnation += 1
        self._commits += 1
        self._write_mark()
        self._page_bytes = self._figure("page_size")
        self._shrinks = self._figure("auto_vacuum") == 2
        self._count_free()

    # -- use --------------------------------------------------------------------------------------

    @property
    def identity(self) -> JournalIdentity:
        """The disk, the running incarnation, and the count of commits so far."""
        return JournalIdentity(self._disk, self._incarnation, self._commits)

    def reincarnate(self) -> JournalIdentity:
        """Begin a new incarnation within this process: the actor is rebuilt from the journal."""
        with self._lock, self._writing():
            self._advance_meta(self._incarnation + 1, self._records_sum, self._blobs_sum)
        return self.identity

    def commit(self, records: Iterable[Record], blobs: Iterable[Blob] = ()) -> None:
        """Make all of it durable, or nothing. The last change of a key or name wins.

        Raises `JournalFenced` or `JournalFailed`; then none of it may be sent to other nodes.
        """
        latest = {record.key: record.value for record in records}
        contents = {blob.sha256: blob.data for blob in blobs}
        with self._lock, self._writing():
            self._advance_meta(
                self._incarnation,
                _signed(self._records_sum + self._write_records(latest)),
                _signed(self._blobs_sum + self._blobs.write(contents)),
            )

    def records(self) -> Iterator[Record]:
        """All rows in key order, each checked against its hash. Raises `JournalCorrupt`."""
        for record, _ in self._read_rows():
            yield record

    def read_blob(self, sha256: str) -> bytes | None:
        """The blob with this SHA-256, verified, or `None`. Raises `JournalCorrupt`."""
        with self._lock:
            try:
                data = self._blobs.read(sha256)
            except sqlite3.Error as error:
                raise self._corrupt(f"blob {sha256}: {error}") from error
        if data is None:
            return None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self._corrupt(f"blob {sha256} does not have that SHA-256 any more")
        return data

    def blob_names(self) -> list[str]:
        """The names of all blobs, in order."""
        with self._lock:
            return self._blobs.names()

    def is_sound(self, sha256: str) -> tuple[bool, int]:
        """Whether the blob matches its name or does not exist, and how many bytes were read."""
        try:
            data = self.read_blob(sha256)
        except JournalCorrupt:
            return False, 0
        return True, len(data or b"")

    def scrub_rows(self, after: str) -> tuple[list[str], str | None, int]:
        """Check the next page of rows after the key `after`.

        Returns the keys of rotten rows, the key to continue after (`None`: this was the last page)
        and how many bytes were read.
        """
        rotten: list[str] = []
        size = 0
        try:
            with self._lock:
                page = self._connection.execute(
                    "SELECT key, hash, value FROM records WHERE key > ? ORDER BY key LIMIT 64",
                    (after,),
                ).fetchall()
        except sqlite3.Error as error:
            raise self._corrupt(f"the records after {after!r}: {error}") from error
        for key, row_hash, value in page:
            size += len(key) + len(value)
            if not isinstance(value, bytes) or _row_hash(key, value) != row_hash:
                rotten.append(key)
        return rotten, page[-1][0] if len(page) == 64 else None, size

    def free_bytes(self) -> int:
        """The free space on the journal's disk, for this process."""
        figures = os.statvfs(self.folder)
        return figures.f_bavail * figures.f_frsize

    @property
    def reusable_bytes(self) -> int:
        """The free pages inside the file, in bytes, as of the latest commit."""
        return self._free_pages * self._page_bytes

    @property
    def size_bytes(self) -> int:
        """The size of the file without its write-ahead log."""
        return self.path.stat().st_size

    def shorten_wal(self, tight: bool) -> None:
        """Bound the write-ahead log more tightly and truncate it, or bound it normally again."""
        with self._lock:
            if self._closed:
                return
            limit_wal(self._connection, WAL_BYTES_TIGHT if tight else WAL_BYTES)
            if tight:
                # Best effort: a full disk may have no space for the checkpoint.
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def shrink(self, for_s: float, keep_bytes: int) -> int:
        """Return free pages to the file system for about `for_s`, but keep `keep_bytes` of them.

        Returns how many bytes were returned. As it changes no row, it is no commit that the mark
        counts, and a crash may undo it. Raises `JournalFenced` or `JournalFailed`.
        """
        with self._lock:
            if self._closed or not self._shrinks or self.reusable_bytes <= keep_bytes:
                return 0
            former = self._free_pages
            ends_at = time.monotonic() + for_s
            try:
                self._connection.execute("PRAGMA synchronous = NORMAL").fetchall()
                with transaction(self._connection):
                    self._check_generation()
                    while True:  # At least once, however slow a busy machine is.
                        vacuum = f"PRAGMA incremental_vacuum({_VACUUM_PAGES})"
                        self._connection.execute(vacuum).fetchall()
                        self._count_free()
                        if self.reusable_bytes <= keep_bytes or time.monotonic() >= ends_at:
                            break
                if self.reusable_bytes <= keep_bytes:
                    # The file itself becomes shorter once its log has been copied into it.
                    self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error as error:
                if is_out_of_space(error, self.folder):
                    return 0
                raise JournalFailed(f"{self.path} can't be shrunk: {error}") from error
            finally:
                self._connection.execute("PRAGMA synchronous = FULL").fetchall()
                self._count_free()
            return (former - self._free_pages) * self._page_bytes

    def has_space(self, size_bytes: int) -> bool:
        """Whether a commit of this size fits on the disk, tested by making one and undoing it.

        Nothing less is a proof: file system statistics ignore quotas, and a small commit fits into
        free pages of the file. The space stays with the file, for the next commits. Raises
        `JournalFenced` or `JournalFailed`.
        """
        if self.free_bytes() < size_bytes:
            return False
        try:
            for statements in (
                # In a table of its own, so that a crash in between leaves no row that is summed.
                (
                    "CREATE TABLE IF NOT EXISTS room (filler BLOB)",
                    f"INSERT INTO room VALUES (zeroblob({size_bytes}))",
                ),
                ("DROP TABLE room",),
            ):
                with self._lock, self._writing():
                    for statement in statements:
                        self._connection.execute(statement)
                    self._advance_meta(self._incarnation, self._records_sum, self._blobs_sum)
        except JournalFull:
            return False
        return True

    def close(self) -> None:
        """Close the files and release the folder. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside one transaction -------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One durable transaction; its body must call `_advance_meta` last."""
        if self._closed:
            raise JournalFailed(f"{self.path} is closed")
        try:
            with transaction(self._connection):
                yield
        except (sqlite3.Error, ValueError, OverflowError) as error:
            if is_out_of_space(error, self.folder):
                raise JournalFull(f"{self.path}: its disk is full: {error}") from error
            raise JournalFailed(f"{self.path}: a commit failed: {error}") from error
        self._commits += 1
        self._incarnation, self._records_sum, self._blobs_sum = self._pending_meta
        self._write_mark()
        self._count_free()

    def _advance_meta(self, incarnation: int, records_sum: int, blobs_sum: int) -> None:
        """Count the commit. Raises `JournalFenced` if another process has opened the journal."""
        cursor = self._connection.execute(
            "UPDATE meta SET commits = commits + 1, incarnation = ?, records_sum = ?, "
            "blobs_sum = ? WHERE generation = ?",
            (incarnation, records_sum, blobs_sum, self._generation),
        )
        if cursor.rowcount != 1:
            raise self._fenced()
        self._pending_meta = (incarnation, records_sum, blobs_sum)

    def _check_generation(self) -> None:
        if self._connection.execute("SELECT generation FROM meta").fetchone() != (
            self._generation,
        ):
            raise self._fenced()

    def _fenced(self) -> JournalFenced:
        return JournalFenced(
            f"{self.path} was opened by another process after this one (which had "
            f"generation {self._generation}): this process was paused meanwhile and must end"
        )

    def _figure(self, pragma: str) -> int:
        return int(self._connection.execute(f"PRAGMA {pragma}").fetchone()[0])

    def _count_free(self) -> None:
        # Noted with each commit, so that reading it never waits for a commit.
        self._free_pages = self._figure("freelist_count")

    def _write_records(self, latest: dict[str, bytes | None]) -> int:
        """Apply the changes; return the change of the sum of all hashes."""
        if not latest:
            return 0
        change = -self._stored_hashes(list(latest))
        removed = [(key,) for key, value in latest.items() if value is None]
        written = [
            (key, _row_hash(key, value), value)
            for key, value in latest.items()
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
        return change + sum(row_hash for _, row_hash, _ in written)

    def _stored_hashes(self, keys: list[str]) -> int:
        total = 0
        for start in range(0, len(keys), 64):
            part = keys[start : start + 64]
            marks = ",".join("?" * len(part))
            query = f"SELECT hash FROM records WHERE key IN ({marks})"
            total += sum(row_hash for (row_hash,) in self._connection.execute(query, part))
        return total

    # -- reading ----------------------------------------------------------------------------------

    def _read_rows(self) -> Iterator[tuple[Record, int]]:
        """All rows and their hashes, page by page: the lock is not held in between."""
        after: str | None = None
        while True:
            where = "" if after is None else "WHERE key > ?"
            query = f"SELECT key, hash, value FROM records {where} ORDER BY key LIMIT 64"
            try:
                with self._lock:
                    page = self._connection.execute(
                        query, () if after is None else (after,)
                    ).fetchall()
            except sqlite3.Error as error:
                raise self._corrupt(f"the records after {after!r}: {error}") from error
            for key, row_hash, value in page:
                if not isinstance(value, bytes) or _row_hash(key, value) != row_hash:
                    raise self._corrupt(f"record {key!r} does not match its checksum")
                yield Record(key, value), row_hash
            if len(page) < 64:
                return
            after = page[-1][0]

    def _write_mark(self) -> None:
        # Not synced: it detects a lost write-ahead log, and after a power failure it may lag, but
        # never lead. So on a full disk it may lag as well: the commit itself is durable.
        count = self._commits.to_bytes(8, "big")
        with contextlib.suppress(OSError):
            os.pwrite(self._mark_fd, count + zlib.crc32(count).to_bytes(4, "big"), 0)

    def _corrupt(self, what: str) -> JournalCorrupt:
        return JournalCorrupt(f"{self.path} is damaged: {what}. {RECOVERY_ADVICE}")


# -- hashes ---------------------------------------------------------------------------------------


def _row_hash(key: str, value: bytes) -> int:
    """A 64-bit hash of a row, signed as SQLite's integers are."""
    name = key.encode()
    digest = hashlib.blake2b(b"%d:%b%b" % (len(name), name, value), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _signed(total: int) -> int:
    total &= _MASK
    return total - (1 << 64) if total >> 63 else total
