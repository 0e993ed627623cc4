"""Local files as sources of uploads: opened once, and checked for changes until the end."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO, cast

from synod.bodies import READ_BYTES, REPLAYED_BYTES_MAX, Body, Source, difference
from synod.errors import SourceChanged
from synod.metadata import MODIFIED_MS_MAX, MODIFIED_MS_MIN


@dataclass(frozen=True, slots=True)
class LocalFile:
    """An open local file. A stream has neither a size nor a modification time."""

    name: str
    body: Body
    size: int
    modified_ms: int | None
    executable: bool


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Name the file in errors of the operating system that name none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


@contextlib.contextmanager
def opened(path: Path, *, within_tree: bool = False) -> Iterator[LocalFile]:
    """Open a local file to be sent. Other than regular files are streams, read to their end.

    Below a folder that is copied whole (`within_tree`) links are not followed, and only regular
    files are opened, whatever they were when the folder was listed. Raises `OSError`, or
    `SourceChanged`.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC
    if within_tree:
        # Without O_NONBLOCK, opening a pipe that replaced the file would wait for its writer.
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags)
    with FileIO(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            yield LocalFile(
                str(path),
                _body(path, file, status),
                status.st_size,
                min(max(status.st_mtime_ns // 1_000_000, MODIFIED_MS_MIN), MODIFIED_MS_MAX),
                bool(status.st_mode & stat.S_IXUSR),
            )
        elif within_tree:
            raise OSError(errno.EINVAL, "it is no regular file any more", str(path))
        else:
            yield LocalFile(str(path), cast(BinaryIO, file), 0, None, executable=False)


def _body(path: Path, file: FileIO, status: os.stat_result) -> Body:
    """Read a small file at once. So is a file without disk blocks, such as those in /proc and /sys,
    whose size says nothing about their contents.
    """
    descriptor = file.fileno()

    def changed() -> str:
        try:
            now = os.stat(path)
        except OSError:
            return "it was removed while it was read"
        return difference(status, now) or difference(status, os.fstat(descriptor))

    if status.st_size <= READ_BYTES or not status.st_blocks:
        with naming(str(path)):
            data = _beginning(file)
        if len(data) <= REPLAYED_BYTES_MAX:
            if reason := changed():
                raise SourceChanged(f"{reason}; nothing was sent")
            return data
        file.seek(0)
        if status.st_size <= REPLAYED_BYTES_MAX:
            return cast(BinaryIO, file)

    def again() -> BinaryIO:
        copy = FileIO(os.dup(descriptor), "rb")
        copy.seek(0)
        return cast(BinaryIO, copy)

    return Source(status.st_size, again, changed)


def _beginning(file: FileIO) -> bytes:
    """Up to one byte more than the largest body that is held in memory."""
    data = bytearray()
    while len(data) <= REPLAYED_BYTES_MAX:
        piece = file.read(REPLAYED_BYTES_MAX + 1 - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)
