"""A node's durable memory: one SQLite file and two small ones beside it, in the node's data folder.

`journal.db` holds the rows (`records`), the contents (`blobs`) and, in `meta`, who the node is.
`synod.json` says that a journal was made here, so that one that vanished is noticed.
`journal.mark` holds the count of the latest commit, so that a journal that went back in time (its
write-ahead log lost or torn) is noticed too.
`journal.lock` is locked for the life of the process.

Every row carries a hash of itself, and `meta` carries the sum of all of them, so that rows that
rotted, vanished or came back are found when the journal is opened, before the node says a word.
What is found is told and refused, never mended: a member that forgot what it promised is worse
than one that is gone (DESIGN, section 3, rule 9).
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import sqlite3
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from actors.effects import Blob, Record

FORMAT_VERSION = 1
JOURNAL_NAME = "journal.db"
MARKER_NAME = "synod.json"
MARK_NAME = "journal.mark"
LOCK_NAME = "journal.lock"

_CHECKED_WHOLE_BYTES_MAX = 64 * 1024 * 1024
"""Up to this size the whole file is checked at opening; above, contents are checked when read."""

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
CREATE TABLE blobs (sha256 TEXT PRIMARY KEY, data BLOB NOT NULL);
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
_CURE = (
    "Do not copy or repair it by hand: remove the whole folder and let the node join anew "
    "(synod replace), or restore all of the folder from a copy that is not older"
)


class JournalError(RuntimeError):
    """The journal can't serve this process."""


class JournalLocked(JournalError):
    """Another process has the folder."""


class JournalForeign(JournalError):
    """The folder belongs to another node, cluster or version."""


class JournalCorrupt(JournalError):
    """The folder does not hold what was once committed to it."""


class JournalFailed(JournalError):
    """A commit failed, so nothing of its turn may be sent; the process must end."""


class JournalFenced(JournalFailed):
    """Another process opened the journal since: this one is a twin that was paused."""


class JournalIdentity(NamedTuple):
    """Who the journal says this start is; see `actors.options.Identity`."""

    disk: str
    incarnation: int
    journal_commits: int


class Journal:
    """The open journal of one node. Commits may run in a worker thread; the rest may too."""

    def __init__(self, folder: Path, lock_fd: int, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self.path = folder / JOURNAL_NAME
        self._lock_fd = lock_fd
        self._connection = connection
        self._guard = threading.Lock()
        self._mark_fd = -1
        self._closed = False
        self._generation = 0
        self._commits = 0
        self._incarnation = 0
        self._disk = ""
        self._records_sum = 0
        self._blobs_sum = 0
        self._pending_meta = (0, 0, 0)

    # -- opening ----------------------------------------------------------------------------------

    @classmethod
    def open(cls, folder: Path | str, node: str, cluster: str) -> Self:
        """Lock `folder`, check all that is in it, and begin a new incarnation of `node`.

        An empty folder becomes a journal with a new disk identity. `cluster` is the cluster's name
        in the settings. Raises `JournalLocked`, `JournalForeign` or `JournalCorrupt`.
        """
        folder = Path(folder).absolute()
        _make_folder(folder)
        lock_fd = _lock(folder)
        connection: sqlite3.Connection | None = None
        journal: Self | None = None
        try:
            marker = _read_marker(folder, node, cluster)
            try:
                connection = _connect(folder, marker)
                journal = cls(folder, lock_fd, connection)
                journal._load(node, cluster, marker)
                journal._begin_incarnation()
            except sqlite3.Error as error:
                raise JournalCorrupt(f"{folder / JOURNAL_NAME}: {error}. {_CURE}") from error
            return journal
        except BaseException:
            if journal is not None and journal._mark_fd >= 0:
                os.close(journal._mark_fd)
            if connection is not None:
                connection.close()
            os.close(lock_fd)
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
        if meta["format"] != FORMAT_VERSION:
            raise JournalForeign(
                f"{self.path} has format {meta['format']}; this Synod writes {FORMAT_VERSION}"
            )
        _check_owner(self.path, meta, node, cluster)
        if marker is not None and marker["disk"] != meta["disk"]:
            raise self._corrupt(
                f"it is of disk {meta['disk']}, but {MARKER_NAME} names disk {marker['disk']}: "
                "one of the two was copied here from elsewhere"
            )
        self._disk = meta["disk"]
        self._incarnation, self._commits = meta["incarnation"], meta["commits"]
        self._check_mark()
        self._records_sum, self._blobs_sum = meta["records_sum"], meta["blobs_sum"]
        self._check_sums()
        if marker is None:
            # The journal comes first and the marker second: a crash between them leaves a journal
            # that names its owner, while the reverse would leave a folder that refuses for ever.
            _write_marker(self.folder, {"node": node, "cluster": cluster, "disk": self._disk})

    def _create(self, node: str, cluster: str) -> None:
        with _transaction(self._connection):
            for statement in _SCHEMA.strip().split(";\n"):
                self._connection.execute(statement)
            self._connection.execute(
                "INSERT INTO meta VALUES (?, ?, ?, ?, 0, 0, 0, 0, 0)",
                (FORMAT_VERSION, node, cluster, secrets.token_hex(16)),
            )
        _sync_folder(self.folder)

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
        """The mark is written after each commit, so it is never ahead of an honest journal."""
        self._mark_fd = os.open(
            self.folder / MARK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        raw = os.pread(self._mark_fd, _MARK.size, 0)
        if len(raw) < _MARK.size:
            return
        marked, checksum = _MARK.unpack(raw)
        # The mark itself isn't synced; one that a power failure tore says nothing.
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
        total = sum(
            _name_hash(name) for (name,) in self._connection.execute("SELECT sha256 FROM blobs")
        )
        if (total - self._blobs_sum) & _MASK:
            raise self._corrupt("rows of the table blobs were lost or added")

    def _begin_incarnation(self) -> None:
        with _transaction(self._connection):
            ((self._generation,),) = self._connection.execute(
                "UPDATE meta SET incarnation = incarnation + 1, generation = generation + 1, "
                "commits = commits + 1 RETURNING generation"
            ).fetchall()
        self._incarnation += 1
        self._commits += 1
        self._write_mark()

    # -- use --------------------------------------------------------------------------------------

    @property
    def identity(self) -> JournalIdentity:
        """The disk, the running incarnation, and the count of commits so far."""
        return JournalIdentity(self._disk, self._incarnation, self._commits)

    def reincarnate(self) -> JournalIdentity:
        """Begin a new incarnation within this process: the actor is rebuilt from the journal."""
        with self._guard, self._writing():
            self._advance_meta(self._incarnation + 1, self._records_sum, self._blobs_sum)
        return self.identity

    def commit(self, records: Iterable[Record], blobs: Iterable[Blob] = ()) -> None:
        """Make all of it durable, or none. Of two with the same key the later one counts.

        Raises `JournalFenced` or `JournalFailed`; then nothing of it may be told to anybody.
        """
        latest = {record.key: record.value for record in records}
        contents = {blob.sha256: blob.data for blob in blobs}
        with self._guard, self._writing():
            self._advance_meta(
                self._incarnation,
                _signed(self._records_sum + self._write_records(latest)),
                _signed(self._blobs_sum + self._write_blobs(contents)),
            )

    def records(self) -> Iterator[Record]:
        """All rows in key order, each checked against its hash. Raises `JournalCorrupt`."""
        for record, _ in self._read_rows():
            yield record

    def read_blob(self, sha256: str) -> bytes | None:
        """The bytes of that name, checked against it. Raises `JournalCorrupt`."""
        with self._guard:
            try:
                row = self._connection.execute(
                    "SELECT data FROM blobs WHERE sha256 = ?", (sha256,)
                ).fetchone()
            except sqlite3.Error as error:
                raise self._corrupt(f"blob {sha256}: {error}") from error
        if row is None:
            return None
        data: bytes = row[0]
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self._corrupt(f"blob {sha256} does not have that SHA-256 any more")
        return data

    def blob_names(self) -> list[str]:
        """The names of all blobs, in order."""
        with self._guard:
            return [
                name
                for (name,) in self._connection.execute("SELECT sha256 FROM blobs ORDER BY sha256")
            ]

    def free_bytes(self) -> int:
        """How much room is left on the journal's disk for this process."""
        figures = os.statvfs(self.folder)
        return figures.f_bavail * figures.f_frsize

    def close(self) -> None:
        """Give the folder back. Closing twice is closing once."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            self._connection.close()
            os.close(self._mark_fd)
            os.close(self._lock_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside one transaction -------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One durable transaction, to be ended by `_advance_meta`."""
        if self._closed:
            raise JournalFailed(f"{self.path} is closed")
        try:
            with _transaction(self._connection):
                yield
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise JournalFailed(f"{self.path}: a commit failed: {error}") from error
        self._commits += 1
        self._incarnation, self._records_sum, self._blobs_sum = self._pending_meta
        self._write_mark()

    def _advance_meta(self, incarnation: int, records_sum: int, blobs_sum: int) -> None:
        """Count the commit, unless another process has opened the journal since."""
        cursor = self._connection.execute(
            "UPDATE meta SET commits = commits + 1, incarnation = ?, records_sum = ?, "
            "blobs_sum = ? WHERE generation = ?",
            (incarnation, records_sum, blobs_sum, self._generation),
        )
        if cursor.rowcount != 1:
            raise JournalFenced(
                f"{self.path} was opened by another process after this one (which had "
                f"generation {self._generation}): this is a twin that was paused; it ends here"
            )
        self._pending_meta = (incarnation, records_sum, blobs_sum)

    def _write_records(self, latest: dict[str, bytes | None]) -> int:
        """Carry out the changes; return what they add to the sum of all hashes."""
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

    def _write_blobs(self, contents: dict[str, bytes | None]) -> int:
        change = 0
        for name, data in contents.items():
            if data is None:
                cursor = self._connection.execute("DELETE FROM blobs WHERE sha256 = ?", (name,))
                change -= _name_hash(name) * cursor.rowcount
            else:
                # The name is the hash of the data, so what is there already is the same.
                cursor = self._connection.execute(
                    "INSERT INTO blobs (sha256, data) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (name, data),
                )
                change += _name_hash(name) * cursor.rowcount
        return change

    # -- reading and telling ----------------------------------------------------------------------

    def _read_rows(self) -> Iterator[tuple[Record, int]]:
        """All rows and their hashes, in pages: neither memory nor the guard is held in between."""
        after: str | None = None
        while True:
            where = "" if after is None else "WHERE key > ?"
            query = f"SELECT key, hash, value FROM records {where} ORDER BY key LIMIT 64"
            try:
                with self._guard:
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
        # Not synced: it guards against a lost log, and a power failure makes it lag, never lead.
        count = self._commits.to_bytes(8, "big")
        os.pwrite(self._mark_fd, count + zlib.crc32(count).to_bytes(4, "big"), 0)

    def _corrupt(self, what: str) -> JournalCorrupt:
        return JournalCorrupt(f"{self.path} is damaged: {what}. {_CURE}")


# -- files ----------------------------------------------------------------------------------------


def _connect(folder: Path, marker: dict[str, str] | None) -> sqlite3.Connection:
    path = folder / JOURNAL_NAME
    if marker is not None:
        owner = f"this folder belonged to {marker['node']} of cluster {marker['cluster']!r}"
        if not path.exists():
            raise JournalCorrupt(f"{path} is gone, but {owner} (disk {marker['disk']}). {_CURE}")
        if path.stat().st_size == 0:
            raise JournalCorrupt(f"{path} is empty, but {owner} (disk {marker['disk']}). {_CURE}")
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=1, cached_statements=256
    )
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            # Memory stays small whatever the size of the file: 2 MiB of pages, a log of 4 MiB that
            # is cut back after a burst of contents.
            "cache_size = -2048",
            "wal_autocheckpoint = 1024",
            f"journal_size_limit = {8 * 1024 * 1024}",
            "mmap_size = 0",
            "trusted_schema = OFF",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"the data folder {folder} can't be made: {error}") from error
    for made in missing:
        _sync_folder(made.parent)


def _lock(folder: Path) -> int:
    """Take the folder for the life of this process (and of no child of it: `O_CLOEXEC`)."""
    path = folder / LOCK_NAME
    try:
        lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalError(f"the data folder {folder} can't be used: {error}") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock_fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock_fd)
        raise JournalLocked(
            f"the data folder {folder} is in use by process {holder}: stop that process first, "
            "or give this node a folder of its own"
        ) from None
    except BaseException:
        os.close(lock_fd)
        raise
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
    return lock_fd


def _read_marker(folder: Path, node: str, cluster: str) -> dict[str, str] | None:
    path = folder / MARKER_NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        marker = json.loads(raw)
        owner = {key: str(marker[key]) for key in ("node", "cluster", "disk")}
    except (ValueError, KeyError, TypeError) as error:
        raise JournalCorrupt(f"{path} can't be read: {error!r}. {_CURE}") from error
    _check_owner(path, owner, node, cluster)
    return owner


def _check_owner(path: Path, owner: dict[str, str], node: str, cluster: str) -> None:
    if (owner["node"], owner["cluster"]) != (node, cluster):
        raise JournalForeign(
            f"{path} belongs to {owner['node']} of cluster {owner['cluster']!r}, "
            f"not to {node} of cluster {cluster!r}: give each node a folder of its own"
        )


def _write_marker(folder: Path, marker: dict[str, str]) -> None:
    path = folder / MARKER_NAME
    draft = folder / (MARKER_NAME + ".new")
    with draft.open("wb") as file:
        file.write(json.dumps(marker, indent=2).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


# -- hashes ---------------------------------------------------------------------------------------


def _row_hash(key: str, value: bytes) -> int:
    """A signed 64-bit hash of a row, as SQLite keeps integers."""
    name = key.encode()
    digest = hashlib.blake2b(b"%d:%b%b" % (len(name), name, value), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _name_hash(sha256: str) -> int:
    """A blob's name is a hash already; its first 64 bits stand for the row."""
    return int(sha256[:16], 16)


def _signed(total: int) -> int:
    total &= _MASK
    return total - (1 << 64) if total >> 63 else total
