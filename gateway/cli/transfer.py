"""Copies files and whole folders into the cluster and out of it, several at a time."""

import asyncio
import mimetypes
import os
import stat
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from gateway.cli.download_targets import DownloadFolder, DownloadTarget, WriteBytes
from gateway.cli.upload_sources import LocalFile, naming, opened
from synod.client import AsyncClient
from synod.entries import Entry, Written
from synod.errors import Misconfigured, SynodError, Unauthorized
from synod.paths import InvalidPath, checked_path, child

PARALLEL = 16
_T = TypeVar("_T")


class Progress(Protocol):
    """Receives the progress of a transfer."""

    def expect(self, files: int, size_bytes: int) -> None:
        """So much more is to be done."""
        ...

    def moved(self, size_bytes: int) -> None:
        """So many more bytes went through."""
        ...

    def finished(self, files: int) -> None:
        """So many more files are done."""
        ...


class Silent:
    """A progress that is not shown."""

    def expect(self, files: int, size_bytes: int) -> None:
        """Nothing."""

    def moved(self, size_bytes: int) -> None:
        """Nothing."""

    def finished(self, files: int) -> None:
        """Nothing."""


class Failure(NamedTuple):
    """A file or folder that could not be copied."""

    path: str
    reason: str


@dataclass(slots=True)
class Tally:
    """The result of a transfer."""

    files: int = 0
    directories: int = 0
    size_bytes: int = 0
    skipped: list[Failure] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    stopped: str = ""
    """Why the rest was not tried; empty if everything was tried."""
    errors: list[SynodError] = field(default_factory=list)
    """The errors of the cluster, or of the connection to it."""

    @property
    def complete(self) -> bool:
        """Whether everything that was to be copied was copied."""
        return not self.failures and not self.stopped


class LocalItem(NamedTuple):
    """A local file, or an empty folder, and its path in the cluster."""

    source: Path
    target: str
    is_directory: bool
    size: int = 0


async def put_file(
    synod: AsyncClient,
    local: LocalFile,
    target: str,
    *,
    progress: Progress,
    if_match: str | None = None,
    if_none_match: str | None = None,
    key: str | None = None,
) -> Written:
    """Copy an open file, with its modification time and executable bit. Raises `SynodError`."""
    with naming(local.name):
        return await synod.put(
            target,
            local.body,
            content_type=guess_type(target),
            modified_ms=local.modified_ms,
            executable=local.executable,
            if_match=if_match,
            if_none_match=if_none_match,
            key=key,
            on_bytes=progress.moved,
        )


async def put_tree(
    synod: AsyncClient, source: Path, target: str, *, progress: Progress, parallel: int = PARALLEL
) -> Tally:
    """Copy everything below the folder `source` to the directory `target`."""
    tally = Tally()
    items = list(_walk(source, target, tally))
    files = [item for item in items if not item.is_directory]
    progress.expect(len(files), sum(item.size for item in files))

    async def copy(synod: AsyncClient, item: LocalItem) -> None:
        if item.is_directory:
            await synod.make_directory(item.target)
            tally.directories += 1
        else:
            with opened(item.source, within_tree=True) as local:
                await put_file(synod, local, item.target, progress=progress)
            tally.files += 1
            tally.size_bytes += local.size
            progress.finished(1)

    async def all_items() -> AsyncIterator[LocalItem]:
        for item in items:
            yield item

    await _in_parallel(synod, all_items(), copy, lambda item: str(item.source), tally, parallel)
    return tally


async def get_file(
    synod: AsyncClient, source: str, target: DownloadTarget | WriteBytes, *, progress: Progress
) -> Entry:
    """Copy one file to `target`: a name gets it whole or not at all, a stream gets its bytes as
    they arrive. Raises `SynodError` or `OSError`.
    """
    if not isinstance(target, DownloadTarget):
        return await synod.download(source, _counted(target, progress))
    async with target.replacing() as (write, dress):
        entry = await synod.download(source, _counted(write, progress))
        dress(entry.executable, entry.modified_ms)
    return entry


def _counted(write: WriteBytes, progress: Progress) -> WriteBytes:
    def sink(piece: bytes) -> None:
        write(piece)
        progress.moved(len(piece))

    return sink


async def get_tree(
    synod: AsyncClient,
    source: str,
    target: Path,
    *,
    progress: Progress,
    parallel: int = PARALLEL,
    force: bool = False,
) -> Tally:
    """Copy everything below the directory `source` to the folder `target`. `force` replaces
    read-only files as well.
    """
    tally = Tally()

    async def found() -> AsyncIterator[Entry]:
        todo = [source]
        while todo:
            directory = todo.pop()
            try:
                async for entry in synod.list(directory):
                    if _may_be_local(entry, directory, tally):
                        if entry.is_directory:
                            todo.append(entry.path)
                        else:
                            progress.expect(1, entry.size)
                        yield entry
            except SynodError as error:
                if error.again or directory == source:
                    raise
                tally.failures.append(Failure(directory, str(error)))
                tally.errors.append(error)

    async def copy(synod: AsyncClient, entry: Entry) -> None:
        inside = entry.path[len(source) :].lstrip("/") if source else entry.path
        if entry.is_directory:
            tree.make_folder(inside)
            tally.directories += 1
            return
        with tree.target(inside) as place:
            copied = await get_file(synod, entry.path, place, progress=progress)
        tally.files += 1
        tally.size_bytes += copied.size
        progress.finished(1)

    with DownloadFolder(target, force=force) as tree:
        await _in_parallel(synod, found(), copy, lambda entry: entry.path, tally, parallel)
    return tally


def _may_be_local(entry: Entry, directory: str, tally: Tally) -> bool:
    """Whether an entry's path is valid below its directory, whatever the server; else note it."""
    try:
        checked_path(entry.path)
        if not entry.path or entry.path != child(directory, entry.name):
            raise InvalidPath(f"it is no name in {directory!a}")
    except InvalidPath as error:
        tally.failures.append(Failure(entry.path, str(error)))
        return False
    return True


def guess_type(name: str) -> str:
    """The media type that a file's name suggests."""
    kind, encoding = mimetypes.guess_type(name)
    if encoding is not None:
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    return kind or "application/octet-stream"


async def _in_parallel(
    synod: AsyncClient,
    items: AsyncIterator[_T],
    copy: Callable[[AsyncClient, _T], Awaitable[None]],
    name: Callable[[_T], str],
    tally: Tally,
    parallel: int,
) -> None:
    """Copy every item; note those that fail and continue, unless the cluster itself fails."""
    queue: asyncio.Queue[_T | None] = asyncio.Queue(parallel * 2)

    async def work() -> None:
        async with synod.sibling() as mine:
            while (item := await queue.get()) is not None:
                if tally.stopped:
                    continue
                try:
                    await copy(mine, item)
                except (SynodError, OSError, InvalidPath) as error:
                    tally.failures.append(Failure(name(item), _reason(error)))
                    if isinstance(error, SynodError):
                        tally.errors.append(error)
                        # The client has retried for its whole time; the others would fail, too.
                        if error.again or isinstance(error, Misconfigured | Unauthorized):
                            tally.stopped = str(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(work())
        try:
            async for item in items:
                if tally.stopped:
                    break
                await queue.put(item)
        except SynodError as error:
            tally.stopped = str(error)
            tally.errors.append(error)
        for _ in range(parallel):
            await queue.put(None)


def _walk(source: Path, target: str, tally: Tally) -> Iterator[LocalItem]:
    """The items below `source`, ordered by name; those that can't be copied go to the tally."""
    taken: dict[str, Path] = {}
    todo = [(source, target)]
    while todo:
        folder, above = todo.pop()
        try:
            children = sorted(os.scandir(folder), key=lambda found: found.name)
        except OSError as error:
            tally.failures.append(Failure(str(folder), _reason(error)))
            continue
        if not children and above:
            yield LocalItem(folder, above, is_directory=True)
        for found in children:
            here = Path(found.path)
            try:
                inside = checked_path(child(above, unicodedata.normalize("NFC", found.name)))
                status = found.stat(follow_symlinks=False)
            except (InvalidPath, OSError) as error:
                tally.failures.append(Failure(str(here), _reason(error)))
                continue
            if inside in taken:
                reason = f"its name is the same as that of {taken[inside]} in normal form C"
                tally.failures.append(Failure(str(here), reason))
                continue
            taken[inside] = here
            if stat.S_ISDIR(status.st_mode):
                todo.append((here, inside))
            elif stat.S_ISREG(status.st_mode):
                yield LocalItem(here, inside, is_directory=False, size=status.st_size)
            else:
                what = "a symbolic link" if found.is_symlink() else "not a regular file"
                tally.skipped.append(Failure(str(here), what))


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
