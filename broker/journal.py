"""A node's journal: a log of the latest commits, a SQLite database, and three small files.

`journal.log` holds the commits that the database has not taken in yet, one synced frame for each.
`journal.db` holds the rows (`records`), the contents (`blobs`) and the node's identity (`meta`).
`synod.json` marks the folder as a journal's, so that a missing `journal.db` is detected.
`journal.mark` holds the number of the latest commit, so that a journal that went back in time (its
logs lost or torn) is detected; and the number of the latest opening, which fences a former one.
`journal.lock` is locked for the life of the process.

Rows are read when a node starts, and not while it runs. So a commit is one frame of the log, and
the database takes in the rows of many commits at once: when the log is full, with the next commit
that has contents, before each scrub, when the journal is closed, and when it is opened. Contents
are looked up all the time, so they go straight into the database, in one transaction with all rows
that the log holds; no row names contents that are less durable than itself.

Every frame and every row carries a hash of itself, frames are numbered, and `meta` carries the sum
of all rows' hashes. So what rotted, vanished or reappeared is detected when the journal is opened,
before the node sends anything. A damaged journal is reported and refused, never repaired: a member
that forgot what it promised is worse than a missing one (design 3.9). Decision 25 has the reasons.
"""

import contextlib
import hashlib
import heapq
import os
import secrets
import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from actors.effects import Blob, Record
from broker.commit_log import (
    LOG_BYTES,
    LOG_BYTES_TIGHT,
    LOG_NAME,
    CommitLog,
    LogDamaged,
    Rows,
    encode_rows,
    read_log,
)
from broker.journal_blobs import BlobTable
from broker.journal_folder import (
    JOURNAL_NAME,
    MARKER_NAME,
    RECOVERY_ADVICE,
    WAL_BYTES,
    WAL_BYTES_TIGHT,
    JournalCorrupt,
    JournalError,
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
from broker.journal_rows import ROWS_PER_PAGE, RowTable, StoredRow
from broker.journal_sealing import SEALED_LOGGED_FORMAT_VERSION, JournalSealing, is_logged
from broker.keys import KeyRing
from broker.sealing import Unsealable

MARK_NAME = "journal.mark"

_CHECKED_WHOLE_BYTES_MAX = 64 * 1024 * 1024
"""Up to this size the whole file is checked when it is opened; in a larger one, contents are
checked when they are read.
"""

_VACUUM_PAGES = 4
"""The pages that are returned to the file system between two readings of the clock."""

_MASK = (1 << 64) - 1
_MARK = struct.Struct(">QI")
_FENCE = struct.Struct(">Q")
_META_TABLE = """
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
)
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
_NO_CHANGES: Mapping[str, bytes | None] = {}


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
        sealing: JournalSealing,
        encrypted: bool,
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
        self._pending: dict[str, bytes | None] = {}
        """The changes that the log holds and the database lacks."""
        self._failed = ""
        """Why it is uncertain what the disk holds; empty unless it is."""
        self._page_bytes = 0
        self._free_pages = 0
        self._shrinks = False
        self._rows = RowTable(connection)
        self._blobs = BlobTable(connection)
        self._sealing = sealing
        self._load(node, cluster, marker, encrypted)

    # -- opening ----------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        folder: Path | str,
        node: str,
        cluster: str,
        *,
        keys: KeyRing | None = None,
        encrypted: bool = False,
    ) -> Self:
        """Lock `folder`, check everything in it, and begin a new incarnation of `node`.

        An empty folder becomes a journal with a new disk identity. `cluster` is the cluster's name
        in the settings. `keys` open an encrypted journal; with `encrypted` a new one is, and no
        other is opened.

        Raises `JournalLocked`, `JournalForeign`, `JournalCorrupt` or `KeysRefused`; also
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
                sealing = JournalSealing(connection, folder / JOURNAL_NAME, keys)
                return cls(folder, connection, resources, node, cluster, marker, sealing, encrypted)
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

    def _load(
        self, node: str, cluster: str, marker: dict[str, str] | None, encrypted: bool
    ) -> None:
        tables = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master")}
        if not tables and marker is None:
            self._create(node, cluster, encrypted)
        elif not {"meta", "records", "blobs"} <= tables:
            raise self._corrupt("the tables are gone")
        self._check_pages()
        # One transaction from reading what is there to the new incarnation: a process that was
        # paused in the former one changes nothing meanwhile.
        with transaction(self._connection):
            meta = self._read_meta(node, cluster, marker)
            try:
                self._sealing.begin(meta, encrypted)
            except Unsealable as error:
                raise self._corrupt(f"{error}") from error
            self._generation = meta["generation"] + 1
            self._open_mark()
            self._replay_log(meta)
            self._check_mark()
            if meta["format"] == 1:
                self._blobs.migrate_from_format_1()
            self._check_sums()
            self._incarnation = meta["incarnation"] + 1
            self._commits += 1
            self._connection.execute(
                "UPDATE meta SET format = ?, generation = ?, incarnation = ?, commits = ?, "
                "records_sum = ?",
                (
                    self._sealing.format(logged=True),
                    self._generation,
                    self._incarnation,
                    self._commits,
                    self._records_sum,
                ),
            )
            self._authenticate()
            if not is_logged(meta["format"]):
                # Before the database says that there is a log.
                self._create_log()
        if is_logged(meta["format"]):
            # After the database has all that the former log holds.
            self._create_log()
        self._write_mark()
        if marker is None:
            # First the journal, then the marker: a crash between them leaves a journal that names
            # its owner. The reverse order would leave a folder that is refused for ever.
            write_marker(self.folder, {"node": node, "cluster": cluster, "disk": self._disk})
        self._page_bytes = self._figure("page_size")
        self._shrinks = self._figure("auto_vacuum") == 2
        self._count_free()

    def _create(self, node: str, cluster: str, encrypted: bool) -> None:
        with transaction(self._connection):
            disk = secrets.token_hex(16)
            if encrypted:
                self._sealing.create(disk)
            self._connection.execute(_META_TABLE)
            self._rows.create()
            self._blobs.create()
            self._connection.execute(
                "INSERT INTO meta VALUES (?, ?, ?, ?, 0, 0, 0, 0, 0)",
                (self._sealing.format(logged=False), node, cluster, disk),
            )
            self._authenticate()
        sync_folder(self.folder)

    def _check_pages(self) -> None:
        if self.path.stat().st_size <= _CHECKED_WHOLE_BYTES_MAX:
            checks = ["PRAGMA quick_check(1)"]
        else:
            checks = ["PRAGMA quick_check(meta)", "PRAGMA quick_check(records)"]
        for check in checks:
            (verdict,) = self._connection.execute(check).fetchone()
            if verdict != "ok":
                raise self._corrupt(" ".join(str(verdict).split()))

    def _read_meta(self, node: str, cluster: str, marker: dict[str, str] | None) -> dict[str, Any]:
        rows = self._connection.execute(f"SELECT {', '.join(_META)} FROM meta").fetchall()
        if len(rows) != 1:
            raise self._corrupt(f"the table meta has {len(rows)} rows instead of one")
        meta = dict(zip(_META, rows[0], strict=True))
        if meta["format"] not in range(1, SEALED_LOGGED_FORMAT_VERSION + 1):
            raise JournalForeign(
                f"{self.path} has format {meta['format']}, and this Synod reads "
                f"{SEALED_LOGGED_FORMAT_VERSION} at most: start the newer Synod that wrote it. "
                "Nothing in it is changed"
            )
        check_owner(self.path, meta, node, cluster)
        if marker is not None and marker["disk"] != meta["disk"]:
            raise self._corrupt(
                f"it is of disk {meta['disk']}, but {MARKER_NAME} names disk {marker['disk']}: "
                "one of the two was copied here from elsewhere"
            )
        self._disk, self._commits = meta["disk"], meta["commits"]
        self._records_sum, self._blobs_sum = meta["records_sum"], meta["blobs_sum"]
        return meta

    def _open_mark(self) -> None:
        """Open the mark and fence the former opening, before its log is read.

        A process that was paused meanwhile finds the fence after its next frame is synced. If it
        does not, then the frame was there before the fence, and is read here.
        """
        self._mark_fd = os.open(
            self.folder / MARK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        self._resources.callback(os.close, self._mark_fd)
        os.pwrite(self._mark_fd, _FENCE.pack(self._generation), _MARK.size)

    def _replay_log(self, meta: dict[str, Any]) -> None:
        """Bring the database up to the latest commit of the former opening's log."""
        try:
            log = read_log(self.folder, self._sealing.unseal_commit)
        except FileNotFoundError:
            if is_logged(meta["format"]):
                raise self._corrupt(f"its log {LOG_NAME} is gone") from None
            return
        except OSError as error:
            raise JournalError(f"{self.folder / LOG_NAME} can't be used: {error}") from error
        except LogDamaged as error:
            if is_logged(meta["format"]):
                raise self._corrupt(f"its log {LOG_NAME}: {error}") from error
            return  # The log of a journal that was closed since: all of it is in the database.
        if log.disk != self._disk:
            raise self._corrupt(
                f"it is of disk {self._disk}, but {LOG_NAME} is of disk {log.disk}: one of the two "
                "was copied here from elsewhere"
            )
        try:
            commits = log.after(self._commits)
        except LogDamaged as error:
            raise self._corrupt(f"its log {LOG_NAME}: {error}") from error
        if commits and not (is_logged(meta["format"]) and meta["generation"] == log.generation):
            raise self._corrupt(
                f"its log {LOG_NAME} is of opening {log.generation} and holds commits that the "
                f"database of opening {meta['generation']} lacks: an older copy was put in its "
                "place"
            )
        latest: dict[str, bytes | None] = {}
        for commit in commits:
            latest.update(commit.rows)
        self._records_sum = _signed(
            self._records_sum + self._rows.write(self._sealing.rows(latest))
        )
        self._commits += len(commits)

    def _check_mark(self) -> None:
        """The mark is written after each commit, so it is never ahead of an intact journal."""
        raw = os.pread(self._mark_fd, _MARK.size, 0)
        if len(raw) < _MARK.size:
            return
        marked, checksum = _MARK.unpack(raw)
        # The mark itself isn't synced; a torn mark proves nothing.
        if checksum == zlib.crc32(raw[:8]) and marked > self._commits:
            raise self._corrupt(
                f"it ends at commit {self._commits}, but commit {marked} was made here: its log "
                f"{LOG_NAME} or the write-ahead log {JOURNAL_NAME}-wal was lost or damaged, or an "
                "older copy was put in its place"
            )

    def _check_sums(self) -> None:
        total = sum(row.hash for row in self._sound_rows())
        if (total - self._records_sum) & _MASK:
            raise self._corrupt("rows of the table records were lost or added")
        try:
            total = self._blobs.load()
        except ValueError as error:
            raise self._corrupt(f"a name in the table blobs is no hash: {error}") from error
        if (total - self._blobs_sum) & _MASK:
            raise self._corrupt("rows of the table blobs were lost or added")

    def _create_log(self) -> None:
        self._log = CommitLog.create(
            self.folder, self._disk, self._generation, sealed=self._sealing.is_on
        )
        self._resources.callback(self._log.close)

    # -- use --------------------------------------------------------------------------------------

    @property
    def identity(self) -> JournalIdentity:
        """The disk, the running incarnation, and the count of commits so far."""
        return JournalIdentity(self._disk, self._incarnation, self._commits)

    def reincarnate(self) -> JournalIdentity:
        """Begin a new incarnation within this process: the actor is rebuilt from the journal."""
        with self._lock:
            self._check_usable()
            self._checkpoint(incarnation=self._incarnation + 1)
        return self.identity

    def commit(self, records: Iterable[Record], blobs: Iterable[Blob] = ()) -> None:
        """Make all of it durable, or nothing. The last change of a key or name wins.

        Raises `JournalFenced` or `JournalFailed`; then none of it may be sent to other nodes.
        """
        latest = {record.key: record.value for record in records}
        contents = {blob.sha256: blob.data for blob in blobs}
        with self._lock:
            self._check_usable()
            if contents:
                self._checkpoint(latest, contents)
                return
            try:
                body = encode_rows(latest)
            except ValueError as error:
                raise JournalFailed(f"{self.path}: a commit failed: {error}") from error
            body = self._sealing.commit(self._generation, self._commits + 1, body)
            if not self._log.has_room(body):
                self._checkpoint(latest)
            else:
                self._append(body)
                self._pending.update(latest)

    def fold(self) -> None:
        """Have the database take in what the log holds. Raises `JournalFenced`, `JournalFailed`."""
        with self._lock:
            if self._pending and not self._closed:
                self._check_usable()
                self._checkpoint()

    def records(self) -> Iterator[Record]:
        """All rows in key order, each checked against its hash. Raises `JournalCorrupt`."""
        with self._lock:
            pending = dict(self._pending)
        stored = (Record(row.key, self._value_of(row)) for row in self._sound_rows(pending))
        latest = (Record(key, pending[key]) for key in sorted(pending) if pending[key] is not None)
        return heapq.merge(stored, latest, key=lambda record: record.key)

    def read_blob(self, sha256: str) -> bytes | None:
        """The blob with this SHA-256, verified, or `None`. Raises `JournalCorrupt`."""
        with self._lock:
            try:
                data = self._blobs.read(sha256)
            except sqlite3.Error as error:
                raise self._corrupt(f"blob {sha256}: {error}") from error
        if data is None:
            return None
        try:
            data = self._sealing.blob(sha256, data)
        except (Unsealable, TypeError) as error:
            raise self._corrupt(f"blob {sha256}: {error}") from error
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
        page = self._page(after)
        for row in page:
            size += len(row.key) + len(row.value)
            # A row that the log replaces was found already, or will not be read any more.
            if not row.is_sound and row.key not in self._pending:
                rotten.append(row.key)
        return rotten, page[-1].key if len(page) == ROWS_PER_PAGE else None, size

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
        """The size of the database without its logs."""
        return self.path.stat().st_size

    def shorten_logs(self, tight: bool) -> None:
        """Bound the log and the database's write-ahead log more tightly and truncate them, or bound
        them normally again. Raises `JournalFenced` or `JournalFailed`.
        """
        with self._lock:
            if self._closed:
                return
            self._check_usable()
            limit_wal(self._connection, WAL_BYTES_TIGHT if tight else WAL_BYTES)
            # Best effort: a full disk may have no space for what is moved.
            with contextlib.suppress(JournalFull):
                if tight and self._pending:
                    self._checkpoint()
            with self._using_log():
                self._log.limit(LOG_BYTES_TIGHT if tight else LOG_BYTES)
            if tight:
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
            with self._lock:
                self._check_usable()
                with self._using_log():
                    self._log.reserve()
                # In a table of its own, so that a crash in between leaves no row that is summed.
                self._checkpoint(
                    first=(
                        "CREATE TABLE IF NOT EXISTS room (filler BLOB)",
                        f"INSERT INTO room VALUES (zeroblob({size_bytes}))",
                    )
                )
                self._checkpoint(first=("DROP TABLE room",))
        except JournalFull:
            return False
        return True

    def close(self) -> None:
        """Have the database take in the log, close the files and release the folder. Idempotent.

        Where the former fails, the next opening does it.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                if not self._failed:
                    with contextlib.suppress(JournalFailed):
                        self._checkpoint(closes=True)
            finally:
                self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- writing ----------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._closed:
            raise JournalFailed(f"{self.path} is closed")
        if self._failed:
            raise JournalFailed(f"{self.path} can't be used any more: {self._failed}")

    def _append(self, body: bytes) -> None:
        """One commit of the log. Raises `JournalFenced` or `JournalFailed`."""
        number = self._commits + 1
        with self._using_log():
            self._log.append(number, body)
        # After the sync and not before it; see `_open_mark`.
        if os.pread(self._mark_fd, _FENCE.size, _MARK.size) != _FENCE.pack(self._generation):
            self._failed = "it is fenced"
            raise self._fenced()
        self._commits = number
        self._write_mark()

    @contextlib.contextmanager
    def _using_log(self) -> Iterator[None]:
        try:
            yield
        except JournalFailed as error:
            self._failed = str(error)
            raise
        except OSError as error:
            raise self._failure(error) from error

    def _checkpoint(
        self,
        latest: Rows = _NO_CHANGES,
        contents: Mapping[str, bytes | None] = _NO_CHANGES,
        *,
        incarnation: int | None = None,
        first: Iterable[str] = (),
        closes: bool = False,
    ) -> None:
        """One commit of the database, with all that the log holds; `first` are SQL statements.

        Raises `JournalFenced` if another process has opened the journal, or `JournalFailed`.
        """
        incarnation = self._incarnation if incarnation is None else incarnation
        rows = {**self._pending, **latest}
        try:
            with transaction(self._connection):
                for statement in first:
                    self._connection.execute(statement)
                stored = self._sealing.rows(rows)
                records_sum = _signed(self._records_sum + self._rows.write(stored))
                added = self._blobs.write(self._sealing.contents(contents))
                blobs_sum = _signed(self._blobs_sum + added)
                cursor = self._connection.execute(
                    "UPDATE meta SET format = ?, commits = ?, incarnation = ?, records_sum = ?, "
                    "blobs_sum = ? WHERE generation = ?",
                    (
                        self._sealing.format(logged=not closes),
                        self._commits + 1,
                        incarnation,
                        records_sum,
                        blobs_sum,
                        self._generation,
                    ),
                )
                if cursor.rowcount != 1:
                    raise self._fenced()
                self._authenticate()
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise self._failure(error) from error
        self._commits += 1
        self._incarnation = incarnation
        self._records_sum, self._blobs_sum = records_sum, blobs_sum
        self._pending = {}
        self._log.restart()
        self._write_mark()
        self._count_free()

    def _failure(self, error: Exception) -> JournalFailed:
        """What a commit raises for that error of the system or of SQLite."""
        if is_out_of_space(error, self.folder):
            return JournalFull(f"{self.path}: its disk is full: {error}")
        if isinstance(error, OSError) or _is_of_the_disk(error):
            self._failed = str(error)
        return JournalFailed(f"{self.path}: a commit failed: {error}")

    def _authenticate(self) -> None:
        if self._sealing.is_on:
            query = f"SELECT {', '.join(_META)} FROM meta"
            self._sealing.authenticate(self._connection.execute(query).fetchone())

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

    def _write_mark(self) -> None:
        # Not synced: it detects a lost log, and after a power failure it may lag, but never lead.
        # So on a full disk it may lag as well: the commit itself is durable.
        count = self._commits.to_bytes(8, "big")
        with contextlib.suppress(OSError):
            os.pwrite(self._mark_fd, count + zlib.crc32(count).to_bytes(4, "big"), 0)

    # -- reading ----------------------------------------------------------------------------------

    def _sound_rows(self, replaced: Container[str] = ()) -> Iterator[StoredRow]:
        """The database's rows but the replaced ones, page by page: the lock is not held in between.

        Raises `JournalCorrupt`.
        """
        after: str | None = None
        while True:
            page = self._page(after)
            for row in page:
                if row.key in replaced:
                    continue
                if not row.is_sound:
                    raise self._corrupt(f"record {row.key!r} does not match its checksum")
                yield row
            if len(page) < ROWS_PER_PAGE:
                return
            after = page[-1].key

    def _value_of(self, row: StoredRow) -> bytes:
        try:
            return self._sealing.row(row.key, row.value)
        except Unsealable as error:
            raise self._corrupt(f"record {row.key!r}: {error}") from error

    def _page(self, after: str | None) -> list[StoredRow]:
        try:
            with self._lock:
                return self._rows.page(after)
        except sqlite3.Error as error:
            raise self._corrupt(f"the records after {after!r}: {error}") from error

    def _corrupt(self, what: str) -> JournalCorrupt:
        return JournalCorrupt(f"{self.path} is damaged: {what}. {RECOVERY_ADVICE}")


def _is_of_the_disk(error: Exception) -> bool:
    """Whether SQLite failed to read, write or sync, after which it is uncertain what is durable."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_IOERR


def _signed(total: int) -> int:
    total &= _MASK
    return total - (1 << 64) if total >> 63 else total
