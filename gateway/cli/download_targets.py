"""Local targets of a download: a file that is replaced as a whole, or a pipe or device.

    a regular file      replaced by the new one in one step; owner and permissions stay
    a read-only file    refused, unless it is forced
    a link              its target is replaced, and the link stays; a dangling link is refused
    a pipe, a device    the bytes are written to it as they arrive; also /dev/stdout, /dev/fd/N

Below a folder that is copied whole no link is followed: each folder is opened in the one above it,
so that no link in the target folder, even one made meanwhile, leads out of it.
"""

import asyncio
import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NoReturn

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STANDARD = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

WriteBytes = Callable[[bytes], None]
Dress = Callable[[bool, int], None]
"""Receives whether the file is executable, and its time in milliseconds, once it is complete."""


class DownloadTarget:
    """The name of a file in an open folder."""

    def __init__(
        self,
        folder_fd: int,
        name: str,
        shown: str,
        *,
        force: bool = False,
        made: "Made | None" = None,
    ) -> None:
        self._folder_fd = folder_fd
        self._name = name
        self._shown = shown
        self._force = force
        self._made = made

    @contextlib.asynccontextmanager
    async def replacing(self) -> AsyncIterator[tuple[WriteBytes, Dress]]:
        """Write a file that takes the name, durably, when the block ends well. Raises `OSError`."""
        former = self.former()
        draft = f".synod-{secrets.token_hex(6)}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(draft, flags, 0o600, dir_fd=self._folder_fd)
        placed = False

        def write(data: bytes) -> None:
            _write_all(descriptor, data)

        def dress(executable: bool, modified_ms: int) -> None:
            if former is not None and (former.st_uid, former.st_gid) != (os.getuid(), os.getgid()):
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, former.st_uid, former.st_gid)
            os.fchmod(descriptor, _mode(former, executable))
            os.utime(descriptor, ns=(modified_ms * 1_000_000,) * 2)

        try:
            yield write, dress
            await asyncio.to_thread(os.fsync, descriptor)
            self.former()  # A file that appeared there meanwhile is checked as well.
            os.replace(draft, self._name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)
            placed = True
            if self._made is not None:
                self._made.note(os.fstat(descriptor), self._shown)
            else:
                await asyncio.to_thread(os.fsync, self._folder_fd)
        finally:
            os.close(descriptor)
            if not placed:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=self._folder_fd)

    def former(self) -> os.stat_result | None:
        """The file that has the name now. Raises `OSError` if it can't be replaced."""
        try:
            status = os.stat(self._name, dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(status.st_mode):
            self._refuse(errno.ELOOP, "it is a symbolic link, which is not followed here")
        if stat.S_ISDIR(status.st_mode):
            self._refuse(errno.EISDIR, "there is a folder of this name")
        if not stat.S_ISREG(status.st_mode):
            self._refuse(errno.EEXIST, "it is no regular file, and is left as it is")
        if self._made is not None:
            self._made.check(status, self._shown)
        if not self._force and not self._may_write(status):
            self._refuse(errno.EACCES, "it is read-only; -f replaces it")
        return status

    def _may_write(self, status: os.stat_result) -> bool:
        # The superuser may write everything, but a file that is to stay says so by its mode.
        return bool(status.st_mode & 0o222) and os.access(
            self._name, os.W_OK, dir_fd=self._folder_fd, effective_ids=True
        )

    def _refuse(self, number: int, reason: str) -> NoReturn:
        raise OSError(number, reason, self._shown)


@contextlib.contextmanager
def target_of(path: str, *, force: bool = False) -> Iterator[DownloadTarget | WriteBytes]:
    """The target of a single file: a name in a folder, or a stream for the bytes as they arrive.

    Raises `OSError`.
    """
    known = _STANDARD.get(path)
    found = _DESCRIPTOR.fullmatch(path)
    if known is not None or found is not None:
        number = known if known is not None else int(found[1] if found else 1)
        with _closing(os.dup(number)) as descriptor:
            yield lambda data: _write_all(descriptor, data)
        return
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            raise OSError(errno.ENOENT, "it is a link that names nothing", path) from None
        status = None
    if status is not None and not stat.S_ISREG(status.st_mode):
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, "there is a folder of this name", path)
        with _closing(os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)) as descriptor:
            yield lambda data: _write_all(descriptor, data)
        return
    place = Path(os.path.realpath(path))
    with _closing(os.open(place.parent, _FOLDER)) as folder_fd:
        yield DownloadTarget(folder_fd, place.name, path, force=force)


class DownloadFolder:
    """A folder to make files and folders in; use it as a context manager. Raises `OSError`."""

    def __init__(self, root: Path, *, force: bool = False) -> None:
        os.makedirs(root, exist_ok=True)
        self._root = root
        self._force = force
        self._root_fd = os.open(root, _FOLDER)
        self._made = Made()

    def __enter__(self) -> "DownloadFolder":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root_fd)

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it."""
        with self._folder(path):
            pass

    @contextlib.contextmanager
    def target(self, path: str) -> Iterator[DownloadTarget]:
        """The target for the file `path`; makes the folders above it."""
        above, _, name = path.rpartition("/")
        with self._folder(above) as folder_fd:
            shown = str(self._root / path)
            yield DownloadTarget(folder_fd, name, shown, force=self._force, made=self._made)

    @contextlib.contextmanager
    def _folder(self, path: str) -> Iterator[int]:
        here_fd, here = os.dup(self._root_fd), ""
        try:
            for name in path.split("/") if path else ():
                here = f"{here}/{name}" if here else name
                below_fd = self._enter(here_fd, name, here)
                os.close(here_fd)
                here_fd = below_fd
            yield here_fd
        finally:
            os.close(here_fd)

    def _enter(self, above_fd: int, name: str, path: str) -> int:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=above_fd)
        try:
            descriptor = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above_fd)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            reason = "it is a link or a file where a folder is needed; links are not followed"
            raise OSError(error.errno, reason, str(self._root / path)) from None
        try:
            status = os.fstat(descriptor)
            self._made.check(status, str(self._root / path))
            self._made.note(status, str(self._root / path))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class Made:
    """The files and folders that a copy of a tree has made so far. On some file systems two names
    of the cluster are the same name: the second must not replace the first.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], str] = {}

    def note(self, status: os.stat_result, place: str) -> None:
        """Note that it was made, or entered, under that name."""
        self._places[status.st_dev, status.st_ino] = place

    def check(self, status: os.stat_result, place: str) -> None:
        """Raises `OSError` if it was made under another name."""
        made = self._places.get((status.st_dev, status.st_ino), place)
        if made != place:
            raise OSError(errno.EEXIST, f"on this file system it is the same as {made!a}", place)


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _mode(former: os.stat_result | None, executable: bool) -> int:
    """The mode for a replaced file: its permissions stay; who may read it may execute it."""
    if former is None:
        return (0o777 if executable else 0o666) & ~_UMASK
    mode = stat.S_IMODE(former.st_mode) & 0o666
    return mode | (mode & 0o444) >> 2 if executable else mode


def _umask() -> int:
    # The umask can only be read by setting it.
    umask = os.umask(0)
    os.umask(umask)
    return umask


_UMASK = _umask()
