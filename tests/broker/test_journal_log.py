"""A journal with commits in its log: after a crash all of it is there, and damage is refused."""

import errno
import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.effects import Blob, Record
from broker import commit_log, journal_folder
from broker import journal as journal_module
from broker.commit_log import LOG_BYTES, LOG_NAME, read_log
from broker.journal import Journal
from broker.journal_folder import (
    JournalCorrupt,
    JournalError,
    JournalFailed,
    JournalFenced,
    JournalFull,
)
from broker.journal_sealing import FORMAT_VERSION, LOGGED_FORMAT_VERSION

CONTENT = Blob(hashlib.sha256(b"contents").hexdigest(), b"contents")
Rows = dict[str, bytes | None]


def open_journal(folder: Path) -> Journal:
    return Journal.open(folder, "store-2", "prod")


def rows(journal: Journal) -> Rows:
    found = list(journal.records())
    assert found == sorted(found)
    return {record.key: record.value for record in found}


def rows_after_a_crash(folder: Path) -> Rows:
    """What a node would find if the process that uses the folder were killed now."""
    with tempfile.TemporaryDirectory() as copy:
        crashed = Path(copy) / "crashed"
        shutil.copytree(folder, crashed)
        with open_journal(crashed) as journal:
            return rows(journal)


def format_of(folder: Path) -> int:
    connection = sqlite3.connect(folder / "journal.db")
    (found,) = connection.execute("SELECT format FROM meta").fetchone()
    connection.close()
    return int(found)


def rows_in_the_database(journal: Journal) -> int:
    return int(journal._connection.execute("SELECT count(*) FROM records").fetchone()[0])


# -- one commit after the other -------------------------------------------------------------------


def test_commits_reach_the_database_together_and_are_durable_before(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        for number in range(50):
            journal.commit([Record(f"{number:02}", b"1"), Record("last", b"%d" % number)])
        assert rows_in_the_database(journal) == 0
        assert len(rows(journal)) == 51
        commits = journal.identity.journal_commits
        assert rows_after_a_crash(tmp_path) == rows(journal)

        # Contents are in no transaction without the rows before them.
        journal.commit([Record("manifest", b"")], [CONTENT])
        assert rows_in_the_database(journal) == 52
        assert journal.identity.journal_commits == commits + 1
        journal.commit([Record("00", None)])
        assert rows_in_the_database(journal) == 52
        assert "00" not in rows(journal)
        assert rows_after_a_crash(tmp_path) == rows(journal)
        journal.fold()
        assert rows_in_the_database(journal) == 51


def test_a_full_log_is_folded_with_the_commit_that_has_no_place(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal._log.limit(8192)
        last = b""
        for number in range(100):
            last = b"%d" % number
            journal.commit([Record("last", last), Record(f"{number:02}", bytes(500))])
            assert (tmp_path / LOG_NAME).stat().st_size <= 8192
            assert len(journal._pending) < 10
            assert rows(journal)["last"] == last
        assert rows_after_a_crash(tmp_path) == rows(journal)
        assert rows(journal)["last"] == last
        # One that no log has a place for goes to the database at once.
        journal.commit([Record("large", bytes(LOG_BYTES))])
        assert not journal._pending
    with open_journal(tmp_path) as journal:
        assert len(rows(journal)) == 102


_KEYS = st.sampled_from(["a", "b", "c/1", "c/2", "ключ", "\U0001f4c1", "￼"])
_ROWS = st.dictionaries(_KEYS, st.none() | st.binary(max_size=40), max_size=4)
_STEPS = st.lists(
    st.tuples(st.sampled_from(["row", "row", "row", "blob", "fold", "again", "crash"]), _ROWS),
    max_size=14,
)


@given(_STEPS)
@settings(max_examples=25, deadline=None)
def test_a_journal_holds_what_a_dict_would_hold_however_it_is_folded(
    steps: list[tuple[str, Rows]],
) -> None:
    expected: Rows = {}
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "0"
        journal = open_journal(folder)
        for number, (what, changes) in enumerate(steps, 1):
            journal.commit(
                [Record(*change) for change in changes.items()],
                [CONTENT] if what == "blob" else (),
            )
            expected |= changes
            expected = {key: value for key, value in expected.items() if value is not None}
            if what == "fold":
                journal.fold()
            if what == "crash":
                shutil.copytree(folder, Path(home) / str(number))
            if what in ("again", "crash"):
                commits = journal.identity.journal_commits
                journal.close()
                folder = Path(home) / str(number) if what == "crash" else folder
                journal = open_journal(folder)
                assert journal.identity.journal_commits > commits
            assert rows(journal) == expected
        journal.close()


# -- a crash at every point -----------------------------------------------------------------------


@pytest.fixture
def moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Path, int]]]:
    """Copies of the folder `node` before every call that changes a file, each with the number of
    commits that were acknowledged by then; the test counts those in `moments[0][1]`.
    """
    home = tmp_path / "node"
    taken: list[tuple[Path, int]] = [(tmp_path / "moment-0", 0)]

    def take(*_: object) -> None:
        if home.exists():
            copy = tmp_path / f"moment-{len(taken)}"
            shutil.copytree(home, copy)
            taken.append((copy, taken[0][1]))

    def before(call: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object) -> object:
            take()
            return call(*arguments)

        return called

    connect = journal_folder.connect

    def traced(folder: Path, marker: dict[str, str] | None) -> sqlite3.Connection:
        connection = connect(folder, marker)
        connection.set_trace_callback(
            lambda sql: take() if sql.startswith(("BEGIN", "UPDATE", "COMMIT")) else None
        )
        return connection

    for name in ("pwrite", "fsync", "fdatasync", "close"):
        monkeypatch.setattr(os, name, before(getattr(os, name)))
    monkeypatch.setattr(Path, "replace", before(Path.replace))
    monkeypatch.setattr(journal_module, "connect", traced)
    yield taken
    monkeypatch.undo()


@pytest.mark.usefixtures("no_locks")
def test_a_crash_at_any_moment_keeps_what_was_acknowledged(
    tmp_path: Path, moments: list[tuple[Path, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given openings (of a new folder, after a crash, and after a closing), commits of all kinds,
    folds, and a crash before each write, sync and statement, then the next opening has all commits
    that had returned, and at most the one under way.
    """
    states: list[Rows] = [{}]

    def commit(journal: Journal, key: str, *blobs: Blob, size: int = 40) -> None:
        changes = [Record("last", key.encode()), Record(key, key[:1].encode() * size)]
        states.append({**states[-1], **{record.key: record.value for record in changes}})
        journal.commit(changes, blobs)
        moments[0] = (moments[0][0], len(states) - 1)

    crashed = open_journal(tmp_path / "node")
    for number in range(3):
        commit(crashed, f"crashed{number}")
    for opening in "ab":
        journal = open_journal(tmp_path / "node")
        journal._log.limit(commit_log._START + 500)
        for number in range(6):
            commit(journal, f"{opening}{number}")
        commit(journal, f"{opening}-with-contents", CONTENT)
        commit(journal, f"{opening}-after-it")
        journal.fold()
        commit(journal, f"{opening}-large", size=600)
        commit(journal, f"{opening}-at-last")
        journal.close()
    monkeypatch.undo()
    crashed.close()

    for moment, acknowledged in moments[1:]:
        found: Rows | str
        try:
            with open_journal(moment) as journal:
                found = rows(journal)
        except JournalError as error:
            found = str(error)
        assert found in states[acknowledged : acknowledged + 2], f"{moment}, {acknowledged}"
    assert {acknowledged for _, acknowledged in moments[1:]} == set(range(len(states)))
    assert len(moments) > 150


# -- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The folder of a node that was killed: its latest commits are in its log only."""
    with open_journal(tmp_path / "data") as journal:
        journal.commit([Record("before", b"0")], [CONTENT])
        for number in range(8):
            journal.commit([Record("promised", b"%d" % number), Record(f"slot/{number}", b"v")])
        shutil.copytree(tmp_path / "data", tmp_path / "killed")
    return tmp_path / "killed"


def refused(folder: Path, told: str) -> None:
    for _ in range(2):  # It stays refused: opening it mends nothing.
        with pytest.raises(JournalCorrupt, match=told) as refusal:
            open_journal(folder)
        assert str(folder) in str(refusal.value)


def test_a_lost_log_is_damage(killed: Path) -> None:
    (killed / LOG_NAME).unlink()
    refused(killed, r"its log journal\.log is gone")


def test_a_log_that_can_not_be_opened_is_named(killed: Path) -> None:
    (killed / LOG_NAME).rename(killed / "elsewhere")
    (killed / LOG_NAME).symlink_to(killed / "elsewhere")
    with pytest.raises(JournalError, match=r"journal\.log can't be used"):
        open_journal(killed)


def test_a_log_cut_off_anywhere_is_damage(killed: Path) -> None:
    """Given a shorter log, also one that ends between two commits, then the mark shows it."""
    path = killed / LOG_NAME
    whole = path.read_bytes()
    with open_journal(killed.parent / "data") as journal:
        journal.commit([Record("a", b"")])
    used = whole.rstrip(b"\0")
    for end in (*range(0, len(used), 37), len(used) - 1):
        path.write_bytes(whole[:end])
        refused(killed, r"journal\.log")
    path.write_bytes(whole)
    with open_journal(killed) as journal:
        assert rows(journal)["promised"] == b"7"


def test_a_flipped_bit_in_a_commit_is_damage_and_elsewhere_nothing(killed: Path) -> None:
    path = killed / LOG_NAME
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    header = commit_log._HEADER.size + commit_log._HASH_BYTES
    for at in (0, 9, 20, 50, 60, header - 1, *range(commit_log._START, end, 23), end - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        path.write_bytes(damaged)
        refused(killed, r"journal\.log")
    for at in (header + 5, end + 5, len(whole) - 1):
        with tempfile.TemporaryDirectory() as home:
            shutil.copytree(killed, Path(home) / "node")
            damaged = bytearray(whole)
            damaged[at] ^= 4
            (Path(home) / "node" / LOG_NAME).write_bytes(damaged)
            with open_journal(Path(home) / "node") as journal:
                assert rows(journal)["promised"] == b"7"


def test_an_older_copy_of_the_log_is_damage(tmp_path: Path) -> None:
    """Given a log as it was some commits, a fold, or an opening ago."""
    home, log = tmp_path / "node", tmp_path / "node" / LOG_NAME
    copies: list[bytes] = []
    for _ in range(2):
        with open_journal(home) as journal:
            journal.commit([Record("promised", b"1")])
            copies.append(log.read_bytes())
            journal.commit([Record("promised", b"2")])
            copies.append(log.read_bytes())
            journal.fold()
            journal.commit([Record("promised", b"3")])
            shutil.copytree(home, tmp_path / "killed", dirs_exist_ok=True)
    for copy in copies:
        (tmp_path / "killed" / LOG_NAME).write_bytes(copy)
        refused(tmp_path / "killed", "older copy|commit 9 was made here")


def test_an_older_copy_of_the_database_is_damage(tmp_path: Path) -> None:
    """Given a database as it was before a fold, or an opening, then its log does not continue it,
    also if the mark did not survive.
    """
    home = tmp_path / "node"
    open_journal(home).close()
    shutil.copytree(home, tmp_path / "closed")
    with open_journal(home) as journal:
        shutil.copytree(home, tmp_path / "opened")
    with open_journal(home) as journal:
        shutil.copytree(home, tmp_path / "not folded")
        journal.commit([Record("promised", b"1")])
        journal.fold()
        journal.commit([Record("promised", b"2")])
        for former in ("closed", "opened", "not folded"):
            mixed = tmp_path / "mixed"
            shutil.copytree(home, mixed)
            for file in mixed.glob("journal.db*"):
                file.unlink()
            for file in (tmp_path / former).glob("journal.db*"):
                shutil.copy(file, mixed / file.name)
            (mixed / "journal.mark").unlink()
            refused(mixed, "older copy")
            shutil.rmtree(mixed)


def test_a_log_of_another_disk_is_damage(killed: Path, tmp_path: Path) -> None:
    with open_journal(tmp_path / "other"):
        shutil.copy(tmp_path / "other" / LOG_NAME, killed / LOG_NAME)
    refused(killed, r"journal\.log is of disk .* copied here from elsewhere")


def test_a_rotten_row_that_the_log_replaces_is_no_damage(tmp_path: Path) -> None:
    """Given a row that rotted in the database, when the actor has written it again."""
    with open_journal(tmp_path / "node") as journal:
        journal.commit([Record("a", b"1")], [CONTENT])
        journal._connection.execute("UPDATE records SET value = x'00'")
        assert journal.scrub_rows("")[0] == ["a"]
        journal.commit([Record("a", b"1")])
        assert journal.scrub_rows("")[0] == []
        assert rows_after_a_crash(tmp_path / "node") == rows(journal) == {"a": b"1"}


# -- versions -------------------------------------------------------------------------------------


def test_a_closed_journal_is_one_of_the_former_format(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.commit([Record("a", b"1")])
        assert format_of(tmp_path) == LOGGED_FORMAT_VERSION == 3
        assert rows_in_the_database(journal) == 0
    assert format_of(tmp_path) == FORMAT_VERSION == 2
    # A former release leaves the log alone; what is left of it never counts.
    (tmp_path / LOG_NAME).write_bytes(b"garbage")
    with open_journal(tmp_path) as journal:
        assert rows(journal) == {"a": b"1"}
    (tmp_path / LOG_NAME).unlink()
    with open_journal(tmp_path) as journal:
        assert rows(journal) == {"a": b"1"}
        assert format_of(tmp_path) == LOGGED_FORMAT_VERSION


# -- a disk that fails ----------------------------------------------------------------------------


def test_after_a_sync_that_failed_nothing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an error of a sync, then the kernel may report that the next one succeeds, although the
    pages were dropped: so there is none, not even when the journal is closed.
    """
    syncs: list[int] = []

    def fail(log_fd: int) -> None:
        syncs.append(log_fd)
        raise OSError(errno.EIO, "Input/output error")

    with open_journal(tmp_path) as journal:
        journal.commit([Record("a", b"1")])
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", fail)
            with pytest.raises(JournalFailed, match="can't be synced"):
                journal.commit([Record("a", b"2")])
        attempts: list[Callable[[], object]] = [
            lambda: journal.commit([Record("a", b"3")]),
            lambda: journal.commit([], [CONTENT]),
            journal.fold,
            journal.reincarnate,
            lambda: journal.has_space(1),
        ]
        for again in attempts:
            with pytest.raises(JournalFailed, match="can't be used any more"):
                again()
        assert len(syncs) == 1
        assert rows(journal) == {"a": b"1"}
    assert format_of(tmp_path) == LOGGED_FORMAT_VERSION
    # The commit that failed may be there, as after any crash: nothing of it was sent.
    with open_journal(tmp_path) as journal:
        assert rows(journal) == {"a": b"2"}
        assert journal.blob_names() == []


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_frame_that_is_written_in_part_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    pwrite = os.pwrite

    def write_a_part(fd: int, data: bytes, at: int) -> int:
        if at < commit_log._START or len(data) < 100:
            return pwrite(fd, data, at)
        pwrite(fd, data[: len(data) // 2], at)
        raise OSError(fault, os.strerror(fault))

    with open_journal(tmp_path) as journal:
        journal.commit([Record("a", b"1")])
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", write_a_part)
            with pytest.raises(JournalFailed) as failure:
                journal.commit([Record("a", b"2"), Record("b", bytes(500))])
        assert isinstance(failure.value, JournalFull) == (fault != errno.EIO)
        assert rows_after_a_crash(tmp_path) == rows(journal) == {"a": b"1"}
        if fault != errno.EIO:
            journal.commit([Record("c", b"3")])
            assert rows_after_a_crash(tmp_path) == {"a": b"1", "c": b"3"}
            return
        with pytest.raises(JournalFailed, match="can't be used any more"):
            journal.commit([Record("c", b"3")])


def test_a_fold_without_room_loses_nothing(tmp_path: Path) -> None:
    """Given a full log and a database that may not grow, then commits fail; and when it may, all is
    there.
    """
    with open_journal(tmp_path) as journal:
        journal._log.limit(40_000)
        (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
        journal._connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        kept = 0
        while journal._log.has_room(bytes(500)):
            journal.commit([Record(f"{kept:03}", bytes(400))])
            kept += 1
        assert 60 < kept < 90
        with pytest.raises(JournalFull):
            journal.commit([Record("more", bytes(40_000))])
        assert len(rows(journal)) == len(rows_after_a_crash(tmp_path)) == kept
        journal.shorten_logs(True)
        assert len(rows(journal)) == kept
    # It could not be folded when it was closed, either.
    assert format_of(tmp_path) == LOGGED_FORMAT_VERSION
    with open_journal(tmp_path) as journal:
        assert len(rows(journal)) == kept
        journal.commit([Record("more", bytes(4000))])


# -- two processes --------------------------------------------------------------------------------


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system whose locks don't hold."""
    monkeypatch.setattr("fcntl.flock", lambda *_: None)


@pytest.mark.usefixtures("no_locks")
def test_a_twin_that_was_paused_in_a_commit_is_fenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given another opening between a commit's write and its return, then the commit fails, and
    does no harm to what the other one commits.
    """
    twin = open_journal(tmp_path)
    twin.commit([Record("a", b"1")])
    opened: list[Journal] = []
    sync = os.fdatasync

    def paused(log_fd: int) -> None:
        monkeypatch.setattr(os, "fdatasync", sync)
        opened.append(open_journal(tmp_path))
        opened[0].commit([Record("b", b"the survivor's")])
        sync(log_fd)

    monkeypatch.setattr(os, "fdatasync", paused)
    with pytest.raises(JournalFenced, match="paused meanwhile"):
        twin.commit([Record("a", b"2"), Record("b", b"the twin's")])
    with pytest.raises(JournalFailed):
        twin.commit([Record("b", b"2")])
    with pytest.raises(JournalFailed):
        twin.fold()
    twin.close()
    assert rows(opened[0])["b"] == b"the survivor's"
    assert rows_after_a_crash(tmp_path)["b"] == b"the survivor's"
    opened[0].close()


@pytest.mark.usefixtures("no_locks")
def test_no_commit_of_a_twin_is_lost_between_the_reading_of_its_log_and_its_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = open_journal(tmp_path)
    twin.commit([Record("a", b"1")])
    outcomes: list[str] = []

    def read(folder: Path, unseal: commit_log.Unseal | None) -> commit_log.LogContents:
        found = read_log(folder, unseal)
        for blobs in ([], [CONTENT]):
            try:
                twin.commit([Record("a", b"2")], blobs)
            except JournalFailed:
                continue
            outcomes.append(f"a commit with {len(blobs)} blobs was acknowledged")
        assert outcomes == []
        return found

    monkeypatch.setattr(journal_module, "read_log", read)
    with open_journal(tmp_path) as survivor:
        assert rows(survivor) == {"a": b"1"}
    twin.close()
