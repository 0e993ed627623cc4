"""The log of a journal gives back what was synced, or says that it can't."""

import errno
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import commit_log
from broker.commit_log import (
    CommitLog,
    LogDamaged,
    LoggedCommit,
    decode_rows,
    encode_rows,
    parse_log,
    read_log,
)
from broker.journal_folder import JournalFailed

DISK = "d" * 32
COMMITS = [
    LoggedCommit(number, {f"slot/{number}": bytes([number]) * number, "promised": b"%d" % number})
    for number in range(1, 6)
]
REMOVAL = LoggedCommit(6, {"slot/1": None, "ключ": b""})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[CommitLog]:
    log = CommitLog.create(tmp_path, DISK, 7)
    yield log
    log.close()


def append(log: CommitLog, *commits: LoggedCommit) -> None:
    for commit in commits:
        log.append(commit.number, encode_rows(commit.rows))


def test_commits_come_back_in_their_order(log: CommitLog, tmp_path: Path) -> None:
    append(log, *COMMITS, REMOVAL, LoggedCommit(7, {}))

    found = read_log(tmp_path)

    assert (found.disk, found.generation, found.stray) == (DISK, 7, 0)
    assert found.commits == [*COMMITS, REMOVAL, LoggedCommit(7, {})]
    assert found.after(0) == found.commits
    assert found.after(5) == [REMOVAL, LoggedCommit(7, {})]
    assert found.after(7) == found.after(700) == []


def test_rows_that_are_cut_off_are_none() -> None:
    body = encode_rows(COMMITS[4].rows)
    first = encode_rows({"slot/5": bytes([5]) * 5})
    for end in range(1, len(body)):
        if end == len(first):
            assert decode_rows(body[:end]) == {"slot/5": bytes([5]) * 5}
        else:
            with pytest.raises((ValueError, struct.error)):
                decode_rows(body[:end])


def test_a_frame_that_was_not_written_to_its_end_is_cut_off_at_every_byte(
    log: CommitLog, tmp_path: Path
) -> None:
    """Given a crash while the last frame was written, whether the file had ended there, or had
    zeros, or an older frame.
    """
    append(log, *COMMITS)
    start = log._tail
    path = tmp_path / "journal.log"
    zeros = path.read_bytes()
    append(log, REMOVAL)
    raw, end = path.read_bytes(), log._tail
    for cut in range(start, end):
        for torn in (raw[:cut], raw[:cut] + zeros[cut:]):
            assert parse_log(torn).after(0) == COMMITS

    # The first commits are those of a longer log that was folded.
    log.restart()
    append(log, *(LoggedCommit(number + 6, rows) for number, rows in COMMITS))
    over_older = path.read_bytes()
    assert log._tail == start
    log.append(12, encode_rows({"slot/1": None, "other": b"value"}))
    whole_over_older, end = path.read_bytes(), log._tail
    for cut in range(start, end):
        torn = whole_over_older[:cut] + over_older[cut:]
        assert [commit.number for commit in parse_log(torn).after(6)] == [7, 8, 9, 10, 11]
    assert [commit.number for commit in parse_log(whole_over_older).after(6)][-1] == 12


def test_a_flipped_bit_is_found_wherever_it_is(log: CommitLog, tmp_path: Path) -> None:
    """Given one other bit, then the log is damaged; or the last commit is missing, which the mark
    beside the log shows; or the bit is where nothing is read.
    """
    append(log, *COMMITS[:-1])
    last = log._tail
    append(log, COMMITS[-1])
    raw = (tmp_path / "journal.log").read_bytes()
    header = commit_log._HEADER.size + commit_log._HASH_BYTES
    chance = random.Random(0)
    for at in (*range(header + 20), *range(commit_log._START, log._tail + 20)):
        damaged = bytearray(raw)
        damaged[at] ^= 1 << chance.randrange(8)
        try:
            found = parse_log(bytes(damaged)).after(0)
        except LogDamaged:
            assert at < header or commit_log._START <= at < last
        else:
            expected = COMMITS[:-1] if last <= at < log._tail else COMMITS
            assert found == expected, f"byte {at}"
            assert header <= at < commit_log._START or at >= last


def test_a_log_that_was_folded_holds_nothing_new(log: CommitLog, tmp_path: Path) -> None:
    append(log, *COMMITS)
    log.restart()
    assert read_log(tmp_path).after(5) == []
    # Then one commit is written over the first, and the others are still behind it.
    append(log, REMOVAL)
    assert read_log(tmp_path).after(5) == [REMOVAL]
    # A database that lacks what was folded does not go together with it.
    with pytest.raises(LogDamaged, match="begins with commit 6, but the database ends at commit 0"):
        read_log(tmp_path).after(0)


def test_a_hole_among_the_commits_is_damage(log: CommitLog, tmp_path: Path) -> None:
    append(log, *COMMITS[:2], *COMMITS[3:])
    with pytest.raises(LogDamaged, match="commit 3 can't be read, but commit 5 after it can"):
        read_log(tmp_path).after(0)


def test_frames_of_another_log_are_not_read(log: CommitLog, tmp_path: Path) -> None:
    """Given blocks of a former log, in the file or in a value, then no frame of it counts."""
    append(log, *COMMITS)
    (tmp_path / "former").mkdir()
    former = CommitLog.create(tmp_path / "former", DISK, 6)
    append(former, *COMMITS, REMOVAL)
    foreign = (tmp_path / "former" / "journal.log").read_bytes()[commit_log._START : former._tail]
    former.close()
    log.append(6, encode_rows({"value": foreign}))
    os.pwrite(log._fd, foreign, log._tail)

    found = read_log(tmp_path)

    assert [commit.number for commit in found.after(0)] == [1, 2, 3, 4, 5, 6]
    assert found.stray == 0
    cut = (tmp_path / "journal.log").read_bytes()[: log._tail - 1]
    assert parse_log(cut).after(0) == COMMITS


def test_a_newer_version_of_the_log_is_refused(
    log: CommitLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_log, "_VERSION", 3)
    CommitLog.create(tmp_path, DISK, 8).close()
    monkeypatch.undo()
    with pytest.raises(LogDamaged, match="version 3, and this Synod reads 2"):
        read_log(tmp_path)


# -- a disk that fails ----------------------------------------------------------------------------


def test_a_frame_that_the_disk_takes_bit_by_bit_is_whole(
    log: CommitLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:9999], at))
    append(log, *COMMITS, LoggedCommit(6, {"a": os.urandom(40_000)}))
    monkeypatch.undo()
    assert len(read_log(tmp_path).after(0)) == 6


def test_a_frame_without_room_for_its_end_counts_as_none_and_is_tried_again(
    log: CommitLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a disk that becomes full at every byte of a frame, then the frame is not there; and a
    shorter one that takes its number and its place is.
    """
    append(log, *COMMITS)
    pwrite = os.pwrite
    long, short = encode_rows({"a": b"long" * 20}), encode_rows(REMOVAL.rows)
    for room in range(commit_log._FRAME_BYTES + len(long)):
        left = [room]

        def write(fd: int, data: bytes, at: int, left: list[int] = left) -> int:
            if data == bytes(len(data)):
                return pwrite(fd, data, at)
            if not left[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            done = pwrite(fd, data[: left[0]], at)
            left[0] -= done
            return done

        monkeypatch.setattr(os, "pwrite", write)
        with pytest.raises(OSError, match="No space"):
            log.append(6, long)
        monkeypatch.undo()
        assert read_log(tmp_path).after(0) == COMMITS
    log.append(6, short)
    assert read_log(tmp_path).after(0) == [*COMMITS, REMOVAL]


def test_a_sync_that_failed_is_not_taken_for_a_full_disk(
    log: CommitLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(JournalFailed, match="can't be synced"):
        append(log, *COMMITS)


def test_the_file_grows_in_steps_up_to_its_limit_and_shrinks_to_a_lower_one(
    log: CommitLog, tmp_path: Path
) -> None:
    path = tmp_path / "journal.log"
    assert path.stat().st_size == commit_log._START
    append(log, COMMITS[0])
    assert path.stat().st_size == log._tail + commit_log._GROWTH_BYTES
    log.limit(300_000)
    log.reserve()
    assert path.stat().st_size == 300_000
    assert not log.has_room(bytes(300_000))
    log.append(2, bytes(0))
    log.limit(0)
    # What is written is kept until it is folded.
    assert path.stat().st_size == log._tail
    assert not log.has_room(b"")
    assert [commit.number for commit in read_log(tmp_path).after(0)] == [1, 2]
