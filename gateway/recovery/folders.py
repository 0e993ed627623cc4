"""The folders of a lost cluster's nodes: found, locked against a start, and read from copies.

Opening a journal writes to it: a new incarnation, what the log holds, a rewrapped key. So each is
copied first, and its copy is opened, with all checks of a node's start. The folder itself is only
read, so it may be on a disk that is mounted read-only.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from actors.effects import BLOB_ROW, Record
from actors.errors import JournalUnreadable
from actors.options import role_of
from actors.recovery.evidence import OldNode, read_node
from broker.commit_log import LOG_NAME
from broker.journal import MARK_NAME, Journal
from broker.journal_folder import (
    JOURNAL_NAME,
    LOCK_NAME,
    MARKER_NAME,
    JournalError,
    make_folder,
    owner_of,
)
from broker.keys import KeyRing, KeysRefused
from synod.errors import SynodError

_FILES = (MARKER_NAME, JOURNAL_NAME, f"{JOURNAL_NAME}-wal", LOG_NAME, MARK_NAME)
_USED = ("store", "learner", "acceptor")
_COPIED_BYTES = 64 * 1024 * 1024


class RecoveryRefused(SynodError):
    """Nothing was written: no new cluster is founded from these folders, or not there."""


class OldFolder(NamedTuple):
    """The folder of one node of the lost cluster; `cluster` is the name in its settings."""

    path: Path
    node: str
    cluster: str
    disk: str
    written_at: str
    """When it was last written to, by the clock of its machine, ISO 8601 in UTC."""
    size_bytes: int


class OpenedNode(NamedTuple):
    """What a folder holds, and the open journal of its copy."""

    folder: OldFolder
    node: OldNode
    journal: Journal


def find(paths: Iterable[Path]) -> tuple[OldFolder, ...]:
    """The nodes' folders among `paths`: each is one, or has some directly below it.

    Proposers' hold nothing that is needed. Raises `RecoveryRefused`.
    """
    found: dict[Path, OldFolder] = {}
    for path in paths:
        if not path.is_dir():
            raise RecoveryRefused(f"{path} is no folder")
        candidates = [path] if _is_node(path) else sorted(filter(_is_node, path.iterdir()))
        if not candidates:
            raise RecoveryRefused(
                f"{path} is neither a node's folder nor one with nodes' folders in it: none has a "
                f"{MARKER_NAME}"
            )
        for candidate in candidates:
            folder = _folder_at(candidate)
            if role_of(folder.node) in _USED:
                found[candidate.resolve()] = folder
    return tuple(found.values())


def _is_node(path: Path) -> bool:
    return (path / MARKER_NAME).is_file()


def _folder_at(path: Path) -> OldFolder:
    try:
        owner = owner_of(path)
        assert owner is not None
        role_of(owner["node"])
    except (JournalError, ValueError) as error:
        raise RecoveryRefused(f"{error}") from None
    files = [(path / name).stat() for name in _FILES if (path / name).is_file()]
    written_s = max(status.st_mtime for status in files)
    return OldFolder(
        path=path,
        node=owner["node"],
        cluster=owner["cluster"],
        disk=owner["disk"],
        written_at=datetime.fromtimestamp(written_s, UTC).isoformat(timespec="seconds"),
        size_bytes=sum(status.st_size for status in files),
    )


def check_outside(place: Path, given: Iterable[Path]) -> None:
    """Raises `RecoveryRefused` if `place` is in one of the given folders, which are only read."""
    inside = place.resolve()
    for path in given:
        if path.resolve() in (inside, *inside.parents):
            raise RecoveryRefused(
                f"{place} is in {path}, which is of the old cluster: nothing is written there. "
                "Take another folder"
            )


@contextlib.contextmanager
def opened(
    folders: Sequence[OldFolder], scratch: Path, keys: KeyRing | None
) -> Iterator[list[OpenedNode]]:
    """Lock all folders, copy them below `scratch`, and open the copies; at the end all is undone.

    Raises `RecoveryRefused` if one is in use, can't be read, or does not fit.
    """
    with contextlib.ExitStack() as held:
        for folder in folders:
            held.enter_context(_locked(folder))
        _check_room(folders, scratch)
        nodes = []
        for number, folder in enumerate(folders):
            journal = held.enter_context(_copied(folder, scratch / str(number), keys))
            nodes.append(OpenedNode(folder, _read(folder, journal), journal))
        yield nodes


@contextlib.contextmanager
def _locked(folder: OldFolder) -> Iterator[None]:
    """Keep nodes from starting on the folder. A shared lock needs no permission to write."""
    try:
        lock_fd = os.open(folder.path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        holder = os.pread(lock_fd, 32, 0).decode(errors="replace").strip() or "unknown"
        raise RecoveryRefused(
            f"{folder.node} runs on {folder.path}, as process {holder}: the old cluster is not "
            "dead. Stop it, or leave it to go on"
        ) from None
    finally:
        os.close(lock_fd)


def _check_room(folders: Sequence[OldFolder], scratch: Path) -> None:
    needed = sum(folder.size_bytes for folder in folders)
    free = shutil.disk_usage(scratch).free
    if needed > free:
        raise RecoveryRefused(
            f"copies of the folders need {needed} bytes, and {scratch} has {free} free: name "
            "another place with --scratch"
        )


@contextlib.contextmanager
def _copied(folder: OldFolder, copy: Path, keys: KeyRing | None) -> Iterator[Journal]:
    make_folder(copy)
    try:
        for name in _FILES:
            if (folder.path / name).is_file():
                _copy(folder.path / name, copy / name)
        journal = Journal.open(copy, folder.node, folder.cluster, keys=keys)
    except (JournalError, KeysRefused, OSError) as error:
        raise RecoveryRefused(
            f"{str(error).replace(str(copy), str(folder.path))}. Nothing of {folder.node} can be "
            "used: leave it out, if others hold what is needed"
        ) from None
    with journal:
        yield journal


def _copy(source: Path, target: Path) -> None:
    """Copy a file; file systems that can share blocks do so."""
    with source.open("rb") as old, target.open("wb") as new:
        try:
            while os.copy_file_range(old.fileno(), new.fileno(), _COPIED_BYTES):
                pass
        except OSError:
            old.seek(0)
            new.seek(0)
            shutil.copyfileobj(old, new)


def _read(folder: OldFolder, journal: Journal) -> OldNode:
    names = (Record(BLOB_ROW + name, b"") for name in journal.blob_names())
    try:
        node = read_node(folder.node, folder.disk, (*names, *journal.records()))
    except (JournalUnreadable, JournalError) as error:
        raise RecoveryRefused(f"{folder.path}: {error}") from None
    return node
