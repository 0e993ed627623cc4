"""The folder of a journal: its lock, its ownership marker and its SQLite file; a journal's errors.

The folder holds all users' files, so only its owner may read it, whatever the umask. The message of
every error says what to do.
"""

import contextlib
import errno
import fcntl
import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

JOURNAL_NAME = "journal.db"
MARKER_NAME = "synod.json"
LOCK_NAME = "journal.lock"

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
WAL_BYTES = 8 * 1024 * 1024
"""The write-ahead log is truncated to this size after a burst of contents."""

WAL_BYTES_TIGHT = 1024 * 1024
"""The same where space is scarce: many nodes may share the disk, each with its own log."""

_PAGE_BYTES = 4096
_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_MAYBE_OUT_OF_SPACE = (
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_CANTOPEN,
)
_TRIED_BYTES = 64 * 1024

RECOVERY_ADVICE = (
    "Do not copy or repair it by hand. A store or a learner may start on an empty folder: it "
    "copies from the others what it needs. A proposer or an acceptor needs a copy of the folder "
    "that is not older"
)


class JournalError(RuntimeError):
    """The journal can't be used by this process."""


class JournalLocked(JournalError):
    """Another process uses the folder."""


class JournalForeign(JournalError):
    """The folder belongs to another node, cluster or version."""


class JournalCorrupt(JournalError):
    """The folder does not hold what was committed to it."""


class JournalFailed(JournalError):
    """A commit failed: nothing of its turn may be sent, and the process must end."""


class JournalFull(JournalFailed):
    """A commit did not fit on the disk: it was rolled back, and the journal is intact."""


class JournalFenced(JournalFailed):
    """Another process has opened the journal since; this one was paused meanwhile."""


def connect(folder: Path, marker: dict[str, str] | None) -> sqlite3.Connection:
    """Open the SQLite file, or create it if no marker names a former one.

    Raises `JournalCorrupt` or `sqlite3.Error`.
    """
    path = folder / JOURNAL_NAME
    if marker is not None:
        owner = f"this folder belonged to {marker['node']} of cluster {marker['cluster']!r}"
        if not path.exists():
            raise JournalCorrupt(
                f"{path} is gone, but {owner} (disk {marker['disk']}). {RECOVERY_ADVICE}"
            )
        if path.stat().st_size == 0:
            raise JournalCorrupt(
                f"{path} is empty, but {owner} (disk {marker['disk']}). {RECOVERY_ADVICE}"
            )
    # SQLite gives its write-ahead log and that log's index the permissions of the file itself.
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file_fd = os.open(path, flags, PRIVATE_FILE)
    except OSError as error:
        raise JournalError(f"{path} can't be used: {error.strerror}") from error
    try:
        if not path.stat().st_size:
            os.fchmod(file_fd, PRIVATE_FILE)
    finally:
        os.close(file_fd)
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=1, cached_statements=256
    )
    try:
        for pragma in (
            # Works for new files only: their free pages can be returned to the file system. In
            # older files free pages are reused, and count as space all the same.
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            "synchronous = FULL",
            # Some builds (Debian's) overwrite deleted rows with zeros: as many pages again, for a
            # secrecy that the write-ahead log beside the file does not keep either.
            "secure_delete = OFF",
            # Bound memory whatever the size of the file: 2 MiB of pages.
            "cache_size = -2048",
            "mmap_size = 0",
            "temp_store = MEMORY",
            "trusted_schema = OFF",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        limit_wal(connection, WAL_BYTES)
    except BaseException:
        connection.close()
        raise
    return connection


def limit_wal(connection: sqlite3.Connection, size_bytes: int) -> None:
    """Bound the write-ahead log to about that size. A longer log saves writes to the file, because
    more rows of undecided slots are deleted again before they reach it.
    """
    for pragma in (
        f"wal_autocheckpoint = {size_bytes // _PAGE_BYTES}",
        f"journal_size_limit = {size_bytes}",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def is_out_of_space(error: Exception, folder: Path) -> bool:
    """Whether an error of SQLite or of the system means that the disk of `folder` is full.

    SQLite has a code for ENOSPC only. An exceeded quota is a failed write, and so is a log index
    that can't grow; then a test file is written to find out. A failed sync is never taken for a
    full disk: its data may be lost even though a later sync succeeds.
    """
    if isinstance(error, OSError):
        return error.errno in _SPACE_ERRORS
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL:
        return True
    return code in _MAYBE_OUT_OF_SPACE and not _can_write(folder)


def _can_write(folder: Path) -> bool:
    trial = folder / "room.trial"
    try:
        trial.write_bytes(b"\0" * _TRIED_BYTES)
    except OSError as error:
        return error.errno not in _SPACE_ERRORS
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()
    return True


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit all of the body's changes durably, or none of them. Raises `sqlite3.Error`."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def make_folder(folder: Path) -> None:
    """Create the folder durably, for its owner alone. Raises `JournalError`."""
    try:
        for made in make_private(folder):
            sync_folder(made.parent)
    except OSError as error:
        if is_out_of_space(error, folder):
            raise JournalFull(f"the data folder {folder} can't be made: {error}") from error
        raise JournalError(f"the data folder {folder} can't be made: {error}") from error


def make_private(folder: Path) -> list[Path]:
    """Create the folder and its missing parents, for their owner alone; returns the created ones.
    Raises `OSError`.
    """
    made = []
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=PRIVATE_FOLDER)
            path.chmod(PRIVATE_FOLDER)
            made.append(path)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is no folder", str(folder))
    return made


def restrict_permissions(folder: Path) -> None:
    """Remove the permissions of other users on the folder and its files, left by earlier versions
    or a wide umask. Files of another owner are left as they are.
    """
    _restrict(folder, folder.stat(), PRIVATE_FOLDER)
    for found in os.scandir(folder):
        status = found.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            _restrict(Path(found.path), status, PRIVATE_FILE)


def _restrict(path: Path, status: os.stat_result, most: int) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & ~most and status.st_uid == os.geteuid():
        path.chmod(mode & most)


def lock_folder(folder: Path) -> int:
    """Lock the folder for the life of this process (but not of its children: `O_CLOEXEC`)."""
    path = folder / LOCK_NAME
    try:
        restrict_permissions(folder)
        lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        if is_out_of_space(error, folder):
            raise JournalFull(f"the data folder {folder} can't be used: {error}") from error
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
    # The process id is for people; on a full disk the lock works without it.
    with contextlib.suppress(OSError):
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
    return lock_fd


def read_marker(folder: Path, node: str, cluster: str) -> dict[str, str] | None:
    """The folder's owner, if it has one. Raises `JournalForeign` or `JournalCorrupt`."""
    owner = owner_of(folder)
    if owner is not None:
        check_owner(folder / MARKER_NAME, owner, node, cluster)
    return owner


def owner_of(folder: Path) -> dict[str, str] | None:
    """The node, cluster and disk that the folder belongs to, if any. Raises `JournalCorrupt`."""
    path = folder / MARKER_NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        marker = json.loads(raw)
        return {key: str(marker[key]) for key in ("node", "cluster", "disk")}
    except (ValueError, KeyError, TypeError) as error:
        raise JournalCorrupt(f"{path} can't be read: {error!r}. {RECOVERY_ADVICE}") from error


def check_owner(path: Path, owner: dict[str, str], node: str, cluster: str) -> None:
    """Raises `JournalForeign` unless `owner` is this node of this cluster."""
    if (owner["node"], owner["cluster"]) != (node, cluster):
        raise JournalForeign(
            f"{path} belongs to {owner['node']} of cluster {owner['cluster']!r}, "
            f"not to {node} of cluster {cluster!r}: give each node a folder of its own"
        )


def write_marker(folder: Path, marker: dict[str, str]) -> None:
    """Write the folder's owner durably."""
    path = folder / MARKER_NAME
    draft = folder / (MARKER_NAME + ".new")
    with draft.open("wb") as file:
        os.fchmod(file.fileno(), PRIVATE_FILE)
        file.write(json.dumps(marker, indent=2).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the folder's directory entries durable."""
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
