"""Disk space: free pages inside a journal count as space, and return to the file system."""

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.effects import Blob, Record
from broker import journal_folder, node_startup
from broker.journal import Journal
from broker.journal_folder import (
    WAL_BYTES,
    WAL_BYTES_TIGHT,
    JournalError,
    JournalFenced,
    JournalFull,
)
from broker.maintenance import MaintenanceOptions

MIB = 1024 * 1024


def open_journal(folder: Path) -> Journal:
    return Journal.open(folder, "store-2", "prod")


def blobs(count: int) -> list[Blob]:
    made = (random.Random(number).randbytes(256 * 1024) for number in range(count))
    return [Blob(hashlib.sha256(data).hexdigest(), data) for data in made]


def shrink_whole(journal: Journal, keep_bytes: int = 0) -> list[int]:
    """The bytes that each step returned, until none were left to return."""
    steps: list[int] = []
    while given := journal.shrink(0.002, keep_bytes):
        steps.append(given)
    return steps


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(where)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield where
    subprocess.run(["umount", where], check=True)


def failure_of_a_start(folder: Path) -> type[Exception] | None:
    try:
        open_journal(folder).close()
    except JournalError as error:
        return type(error)
    return None


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """Fill the disk except for this much space; returns the file that fills it."""
    ballast = disk / "ballast"
    figures = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, figures.f_bavail * figures.f_frsize - leave_bytes)
    return ballast


def test_a_file_becomes_shorter_in_steps_and_loses_nothing(tmp_path: Path) -> None:
    """Given contents of which three in four are deleted, then their room is given back in many
    short steps between commits, and all else is there, also after a restart.
    """
    kept, gone = blobs(80)[::4], [blob for n, blob in enumerate(blobs(80)) if n % 4]
    with open_journal(tmp_path) as journal:
        for blob in blobs(80):
            journal.commit([Record(blob.sha256, b"row")], [blob])
        journal.commit([], [Blob(blob.sha256, None) for blob in gone])
        commits = journal.identity.journal_commits
        assert journal.reusable_bytes > 14 * MIB

        steps = [journal.shrink(0.0005, 0) for _ in range(5)]
        journal.commit([Record("between", b"steps")])
        steps += shrink_whole(journal)

        assert len(steps) > 5
        assert sum(steps) > 14 * MIB
        assert journal.reusable_bytes == 0
        assert journal.size_bytes < 6 * MIB
        # No row changed, so nothing was counted; and commits are durable as ever.
        assert journal.identity.journal_commits == commits + 1
        assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    with open_journal(tmp_path) as journal:
        assert journal.blob_names() == sorted(blob.sha256 for blob in kept)
        assert all(journal.read_blob(blob.sha256) == blob.data for blob in kept)
        assert len(list(journal.records())) == 81


def test_some_free_pages_are_left_for_what_comes_next(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.commit([], blobs(24))
        journal.commit([], [Blob(blob.sha256, None) for blob in blobs(24)])
        shrink_whole(journal, keep_bytes=2 * MIB)
        assert MIB < journal.reusable_bytes <= 2 * MIB
        size = journal.size_bytes
        journal.commit([], blobs(6))
        assert journal.size_bytes <= size + WAL_BYTES
        assert journal.reusable_bytes < MIB


def test_a_journal_of_a_former_version_keeps_its_free_pages_and_counts_them(
    tmp_path: Path,
) -> None:
    """Given a file made without a way to become shorter, then it is used as it is."""
    with open_journal(tmp_path) as journal:
        journal.commit([], blobs(16))
    with sqlite3.connect(tmp_path / "journal.db", isolation_level=None) as connection:
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
    connection.close()
    with open_journal(tmp_path) as journal:
        journal.commit([], [Blob(blob.sha256, None) for blob in blobs(16)])
        assert journal.shrink(0.002, 0) == 0
        assert journal.reusable_bytes > 3 * MIB
        size = journal.size_bytes
        journal.commit([], blobs(12))
        assert journal.size_bytes == size
        assert journal.reusable_bytes <= MIB


def test_a_twin_that_was_paused_gives_nothing_back(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.commit([], blobs(16))
        journal.commit([], [Blob(blob.sha256, None) for blob in blobs(16)])
        journal._connection.execute("UPDATE meta SET generation = generation + 1")
        with pytest.raises(JournalFenced):
            journal.shrink(0.002, 0)
        assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_the_write_ahead_log_is_bounded_and_shorter_where_room_is_scarce(tmp_path: Path) -> None:
    """Given many contents while the scrub reads, then the log stays within its limit."""
    wal = tmp_path / "journal.db-wal"
    with open_journal(tmp_path) as journal:
        longest = 0
        for blob in blobs(64):
            journal.commit([], [blob])
            journal.scrub_rows("")
            journal.is_sound(blob.sha256)
            longest = max(longest, wal.stat().st_size)
        assert 4 * MIB < longest < WAL_BYTES + MIB
        journal.shorten_logs(True)
        assert wal.stat().st_size == 0
        for blob in blobs(64):
            journal.commit([], [blob])
            assert wal.stat().st_size < WAL_BYTES_TIGHT + MIB
        journal.shorten_logs(False)
        for blob in blobs(12):
            journal.commit([], [blob])
        assert wal.stat().st_size > WAL_BYTES_TIGHT + MIB


def test_no_step_holds_a_commit_up_for_long(tmp_path: Path) -> None:
    """Given 24 MiB to give back, then the usual step takes some milliseconds, as the processor
    counts them.
    """
    with open_journal(tmp_path) as journal:
        journal.shorten_logs(True)
        for blob in blobs(120):
            journal.commit([], [blob])
        journal.commit([], [Blob(blob.sha256, None) for n, blob in enumerate(blobs(120)) if n % 5])
        took_s: list[float] = []
        while journal.reusable_bytes > MIB:
            began_at = time.thread_time()
            journal.shrink(0.002, MIB)
            took_s.append(time.thread_time() - began_at)
        assert len(took_s) > 10
        assert sorted(took_s)[len(took_s) // 2] < 0.02


@pytest.mark.parametrize(
    ("role", "outside_mib", "inside_mib", "low"),
    [
        ("store", 127, 0, True),
        ("store", 128, 0, False),
        # Free pages inside the file count, as long as commits find space outside.
        ("store", 60, 192, False),
        ("store", 15, 192, True),
        # The others continue when the stores are full, or nothing could be deleted.
        ("acceptor", 60, 0, False),
        ("acceptor", 16, 0, False),
        ("acceptor", 15, 0, True),
        ("acceptor", 5, 30, False),
        ("learner", 20, 0, False),
    ],
)
def test_each_role_has_a_reserve_of_its_own(
    role: str, outside_mib: int, inside_mib: int, low: bool
) -> None:
    options = MaintenanceOptions.of_role(role, 128 * MIB)
    assert options.is_low(outside_mib * MIB, inside_mib * MIB, was_low=False) is low


def test_a_large_reserve_asks_for_little_more_before_room_is_back() -> None:
    """Given a reserve that is most of the disk, then it need not be free by a fourth more."""
    options = MaintenanceOptions.of_role("store", 1000 * 1024 * MIB)
    assert options.is_low(1000 * 1024 * MIB, 0, was_low=True)
    assert not options.is_low(1000 * 1024 * MIB + 8 * MIB, 0, was_low=True)


def test_a_start_on_a_full_disk_is_no_damage(small_disk: Path) -> None:
    """Given a disk without a free byte, then a start reports it, and a later one has all data."""
    home = small_disk / "store-2"
    with open_journal(home) as journal:
        journal.commit([Record("a", b"1")], blobs(1))
    ballast = fill(small_disk)
    assert [failure_of_a_start(home), failure_of_a_start(home)] == [JournalFull, JournalFull]
    assert failure_of_a_start(small_disk / "new") is JournalFull
    ballast.unlink()
    with open_journal(home) as journal:
        assert list(journal.records()) == [Record("a", b"1")]
        assert journal.read_blob(blobs(1)[0].sha256) == blobs(1)[0].data
    with Journal.open(small_disk / "new", "store-3", "prod") as journal:
        assert list(journal.records()) == []


def test_a_commit_without_a_byte_of_room_is_none_and_the_next_one_is_whole(
    small_disk: Path,
) -> None:
    with open_journal(small_disk / "store-2") as journal:
        journal.commit([Record("a", b"1")])
        ballast = fill(small_disk, leave_bytes=64 * 1024)
        with pytest.raises(JournalFull):
            journal.commit([Record("a", b"2")], blobs(1))
        assert not journal.has_space(MIB)
        assert list(journal.records()) == [Record("a", b"1")]
        ballast.unlink()
        assert journal.has_space(MIB)
        journal.commit([Record("a", b"3")], blobs(1))
    with open_journal(small_disk / "store-2") as journal:
        assert list(journal.records()) == [Record("a", b"3")]
        assert journal.blob_names() == [blobs(1)[0].sha256]


def commit_until_full(journal: Journal) -> list[Record]:
    """Commit rows of 20 kB until one has no room; returns the others."""
    kept: list[Record] = []
    while True:
        record = Record(f"{len(kept):04}", os.urandom(20_000))
        try:
            journal.commit([record])
        except JournalFull:
            return kept
        kept.append(record)


def test_a_log_without_room_keeps_every_commit_that_it_has_taken(small_disk: Path) -> None:
    """Given a disk that becomes full while the log grows, also after a crash, then each commit is
    there or was refused; and with room again the next one is whole.
    """
    home = small_disk / "store-2"
    with open_journal(home) as journal:
        ballast = fill(small_disk, leave_bytes=600_000)
        kept = commit_until_full(journal)
        assert len(kept) > 10
        assert list(journal.records()) == kept
        crashed = small_disk.parent / "crashed"
        shutil.copytree(home, crashed)
        with open_journal(crashed) as copy:
            assert list(copy.records()) == kept
        ballast.unlink()
        kept.append(Record("last", os.urandom(20_000)))
        journal.commit([kept[-1]])
    with open_journal(home) as journal:
        assert list(journal.records()) == kept


async def test_a_node_that_is_started_on_a_full_disk_waits_for_room(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a full disk, then its process waits, and starts by itself when there is space."""
    monkeypatch.setattr(node_startup, "DISK_FULL_RETRY_S", 0.01)
    ballast = fill(small_disk)
    tries: list[bool] = []
    real = journal_folder.is_out_of_space

    def noted(error: Exception, folder: Path) -> bool:
        tries.append(real(error, folder))
        if len(tries) == 3:
            ballast.unlink()
        return tries[-1]

    monkeypatch.setattr("broker.journal.is_out_of_space", noted)
    monkeypatch.setattr(journal_folder, "is_out_of_space", noted)
    journal = await node_startup._open_once_disk_has_space(
        small_disk / "store-2", "store-2", "prod"
    )
    with journal:
        assert tries == [True, True, True]
