"""The log of a journal: its latest commits, each of them one frame that is synced once.

::

    | header, one page | commit 101 | commit 102 | ... | older frames, or zeros |

The file belongs to one opening of the journal and is overwritten from its first frame whenever the
database has taken in all of its commits. So most frames are written where the file has blocks
already, and a sync has nothing but them to write.

A frame is bound to the file by a random tag and a hash under a random key, so that neither an older
file's frame nor contents of a user are taken for one. It holds the number of its commit, and the
numbers of successive frames are successive. Only the last frame may be incomplete: no frame is
written before the former one is synced. If a frame can't be read, but a later one can, then it was
damaged after it was synced.

This module imports the standard library only: `chaos.scenarios.autopsy` runs as a short command.
"""

import hashlib
import os
import secrets
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from broker.journal_folder import PRIVATE_FILE, JournalFailed, sync_folder

LOG_NAME = "journal.log"
LOG_BYTES = 2 * 1024 * 1024
"""A longer log is folded into the database less often, and rows of undecided slots are more often
removed before they get there; but folding it takes longer, and so does a turn that waits for it.
"""

LOG_BYTES_TIGHT = 1024 * 1024
"""The same where space is scarce: many nodes may share the disk, each with its own log."""

_GROWTH_BYTES = 128 * 1024
_MAGIC = b"synodlog"
_VERSION = 1
_SEALED_VERSION = 2
"""The version of a log whose commits are encrypted; `LogContents.commits` needs what decrypts them.
"""
_HEADER = struct.Struct(">8sI32sQ8s16s")
_HASH_BYTES = 16
_START = 4096
_FRAME = struct.Struct(">8sQI")
_FRAME_BYTES = _FRAME.size + _HASH_BYTES
_ROW = struct.Struct(">II")
_REMOVED = 0xFFFFFFFF

Rows = Mapping[str, bytes | None]
"""The changes of a commit: a key's new value, or `None` to remove its row."""


Unseal = Callable[[int, int, bytes], bytes]
"""Decrypts a frame's body, given the opening and the commit. Raises `ValueError`."""


class LogDamaged(Exception):
    """The log does not hold what was written to it; the text says what is wrong."""


class LoggedCommit(NamedTuple):
    """One commit of the log."""

    number: int
    rows: dict[str, bytes | None]


class LogContents(NamedTuple):
    """What a log holds. `generation` is the opening of the journal that wrote it."""

    disk: str
    generation: int
    commits: list[LoggedCommit]
    """With successive numbers, from the start of the file to the first frame that is none."""
    stray: int
    """The highest number of a frame behind those, left from before or behind a damaged one; or 0.
    """

    def after(self, checkpoint: int) -> list[LoggedCommit]:
        """The commits that a database with `checkpoint` commits lacks. Raises `LogDamaged`."""
        found = [commit for commit in self.commits if commit.number > checkpoint]
        if found and found[0].number != checkpoint + 1:
            raise LogDamaged(
                f"it begins with commit {found[0].number}, but the database ends at commit "
                f"{checkpoint}: the database's write-ahead log was lost or damaged, or an older "
                "copy was put in its place"
            )
        last = found[-1].number if found else checkpoint
        if self.stray > last:
            raise LogDamaged(
                f"commit {last + 1} can't be read, but commit {self.stray} after it can"
            )
        return found


class CommitLog:
    """The open log of a journal. Its owner serializes the calls."""

    def __init__(self, path: Path, log_fd: int, tag: bytes, key: bytes) -> None:
        self._path = path
        self._fd = log_fd
        self._tag = tag
        self._hash = hashlib.blake2b(key=key, digest_size=_HASH_BYTES)
        self._tail = _START
        self._reserved = _START
        self._limit = LOG_BYTES

    @classmethod
    def create(cls, folder: Path, disk: str, generation: int, *, sealed: bool = False) -> Self:
        """Durably replace the folder's log by an empty one; `sealed` says that the bodies of its
        frames will be encrypted. Raises `OSError`.
        """
        tag, key = secrets.token_bytes(8), secrets.token_bytes(16)
        version = _SEALED_VERSION if sealed else _VERSION
        header = _HEADER.pack(_MAGIC, version, disk.encode(), generation, tag, key)
        page = header + _hash_of_header(header)
        # A new file, because a paused process may still write to the former one.
        draft = folder / (LOG_NAME + ".new")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        log_fd = os.open(draft, flags, PRIVATE_FILE)
        try:
            os.fchmod(log_fd, PRIVATE_FILE)
            _write(log_fd, page.ljust(_START, b"\0"), 0)
            os.fsync(log_fd)
            draft.replace(folder / LOG_NAME)
            sync_folder(folder)
        except BaseException:
            os.close(log_fd)
            raise
        return cls(folder / LOG_NAME, log_fd, tag, key)

    def has_room(self, body: bytes) -> bool:
        """Whether the next commit fits."""
        return self._tail + _FRAME_BYTES + len(body) <= self._limit

    def append(self, number: int, body: bytes) -> None:
        """Make the commit durable. Raises `JournalFailed` if it can't be synced, after which
        nothing is certain; or `OSError` if it can't be written, after which it may be tried again.
        """
        head = _FRAME.pack(self._tag, number, len(body))
        frame = b"".join((head, self._hash_of(head, body), body))
        end = self._tail + len(frame)
        if end > self._reserved:
            self._reserve(min(self._limit, end + _GROWTH_BYTES))
        try:
            _write(self._fd, frame, self._tail)
        except OSError:
            self._cut_off()
            raise
        self._sync()
        self._tail = end

    def restart(self) -> None:
        """All commits are durable elsewhere: the next one is written over the first."""
        self._tail = _START

    def reserve(self) -> None:
        """Take the disk space for a whole log. Raises `OSError`."""
        self._reserve(self._limit)

    def limit(self, size_bytes: int) -> None:
        """Bound the log from the next commit on, and return the space above to the file system as
        far as no commit is there. Raises `OSError`.
        """
        self._limit = size_bytes
        kept = max(size_bytes, self._tail)
        if self._reserved > kept:
            os.ftruncate(self._fd, kept)
            self._reserved = kept

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _cut_off(self) -> None:
        # What is missing of the frame may be what was there before, such as zeros.
        try:
            _write(self._fd, bytes(_FRAME.size), self._tail)
        except OSError as error:
            raise JournalFailed(f"{self._path} can't be written: {error}") from error
        self._sync()

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            # Never tried again: the kernel may have dropped the pages and report success.
            raise JournalFailed(f"{self._path} can't be synced: {error}") from error

    def _reserve(self, end: int) -> None:
        # Zeros rather than `posix_fallocate`, whose blocks the file system has to mark as written
        # at their first sync.
        if end > self._reserved:
            _write(self._fd, bytes(end - self._reserved), self._reserved)
            self._reserved = end

    def _hash_of(self, head: bytes, body: bytes) -> bytes:
        sum_ = self._hash.copy()
        sum_.update(head)
        sum_.update(body)
        return sum_.digest()


# -- the rows of a commit -------------------------------------------------------------------------


def encode_rows(rows: Rows) -> bytes:
    """The body of a frame. Raises `ValueError` for a key that is no Unicode text."""
    parts: list[bytes] = []
    for key, value in rows.items():
        name = key.encode()
        if value is None:
            parts += (_ROW.pack(len(name), _REMOVED), name)
        else:
            parts += (_ROW.pack(len(name), len(value)), name, value)
    return b"".join(parts)


def decode_rows(body: bytes) -> dict[str, bytes | None]:
    """The rows of a frame's body. Raises `ValueError` or `struct.error` if it is none."""
    rows: dict[str, bytes | None] = {}
    at = 0
    while at < len(body):
        key_bytes, value_bytes = _ROW.unpack_from(body, at)
        at += _ROW.size
        key = body[at : at + key_bytes].decode()
        at += key_bytes
        rows[key] = None
        if value_bytes != _REMOVED:
            rows[key] = body[at : at + value_bytes]
            at += value_bytes
    if at != len(body):
        raise ValueError("the last row is incomplete")
    return rows


# -- reading --------------------------------------------------------------------------------------


def read_log(folder: Path, unseal: Unseal | None = None) -> LogContents:
    """Read the folder's log. Raises `LogDamaged`, or `OSError` if there is none."""
    log_fd = os.open(folder / LOG_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(log_fd, "rb") as file:
        return parse_log(file.read(), unseal)


def parse_log(raw: bytes, unseal: Unseal | None = None) -> LogContents:
    """The contents of a log's file. A journal that is encrypted has no other log, and reads none.

    Raises `LogDamaged`.
    """
    header = raw[: _HEADER.size]
    if raw[_HEADER.size : _HEADER.size + _HASH_BYTES] != _hash_of_header(header):
        raise LogDamaged("its header does not match its checksum")
    _, version, disk, generation, tag, key = _HEADER.unpack(header)
    if version not in (_VERSION, _SEALED_VERSION):
        raise LogDamaged(f"it has version {version}, and this Synod reads {_SEALED_VERSION}")
    if (version == _SEALED_VERSION) != (unseal is not None):
        but = "it is encrypted, and the journal is not"
        raise LogDamaged(but if unseal is None else "it is not encrypted, and the journal is")
    reader = _FrameReader(raw, tag, key)
    commits: list[LoggedCommit] = []
    at = _START
    while (frame := reader.frame_at(at)) is not None:
        number, body = frame
        if commits and number != commits[-1].number + 1:
            break
        try:
            plain = body if unseal is None else unseal(generation, number, body)
            commits.append(LoggedCommit(number, decode_rows(plain)))
        except (ValueError, struct.error) as error:
            raise LogDamaged(f"commit {number} has rows that can't be read: {error}") from error
        at += _FRAME_BYTES + len(body)
    stray = max(reader.numbers_from(at), default=0)
    return LogContents(disk.decode(), generation, commits, stray)


class _FrameReader:
    """Finds frames that are whole."""

    def __init__(self, raw: bytes, tag: bytes, key: bytes) -> None:
        self._raw = raw
        self._tag = tag
        self._hash = hashlib.blake2b(key=key, digest_size=_HASH_BYTES)

    def frame_at(self, at: int) -> tuple[int, bytes] | None:
        """The number and the body of the frame there, if a whole one is there."""
        head = self._raw[at : at + _FRAME.size]
        if len(head) < _FRAME.size:
            return None
        tag, number, size = _FRAME.unpack(head)
        start = at + _FRAME_BYTES
        body = self._raw[start : start + size]
        sum_ = self._hash.copy()
        sum_.update(head)
        sum_.update(body)
        if tag != self._tag or sum_.digest() != self._raw[at + _FRAME.size : start]:
            return None
        return number, body

    def numbers_from(self, at: int) -> Iterator[int]:
        """The numbers of all frames from there on, wherever they begin."""
        while (at := self._raw.find(self._tag, at)) >= 0:
            frame = self.frame_at(at)
            if frame is not None:
                yield frame[0]
            at += 1 if frame is None else _FRAME_BYTES + len(frame[1])


def _hash_of_header(header: bytes) -> bytes:
    return hashlib.blake2b(header, digest_size=_HASH_BYTES).digest()


def _write(log_fd: int, data: bytes, at: int) -> None:
    """Write all of it. Raises `OSError`, and may have written a part by then."""
    written = os.pwrite(log_fd, data, at)
    while written < len(data):
        written += os.pwrite(log_fd, data[written:], at + written)
