"""The journal keeps what was committed, and reports if it can't."""

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.effects import Blob, Record
from broker.commit_log import LOG_BYTES
from broker.journal import Journal
from broker.journal_folder import (
    JournalCorrupt,
    JournalError,
    JournalFailed,
    JournalFenced,
    JournalForeign,
    JournalFull,
    JournalLocked,
)


def open_journal(folder: Path) -> Journal:
    return Journal.open(folder, "store-2", "prod")


def blob(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), data)


def test_rows_and_contents_come_back_after_a_restart(tmp_path: Path) -> None:
    content = blob(os.urandom(1024 * 1024))
    with open_journal(tmp_path / "new" / "folder") as journal:
        first = journal.identity
        journal.commit([Record("b", b"2"), Record("a", b"1"), Record("c", b"3")], [content])
        journal.commit([Record("c", None), Record("b", b"two"), Record("b", b"zwei")])
        assert journal.identity.journal_commits == first.journal_commits + 2
    with open_journal(tmp_path / "new" / "folder") as journal:
        assert list(journal.records()) == [Record("a", b"1"), Record("b", b"zwei")]
        assert journal.read_blob(content.sha256) == content.data
        assert journal.read_blob("0" * 64) is None
        assert journal.blob_names() == [content.sha256]
        assert journal.identity.disk == first.disk
        assert journal.identity.incarnation == first.incarnation + 1
        journal.commit([], [Blob(content.sha256, None), Blob("0" * 64, None)])
        assert journal.read_blob(content.sha256) is None
    with open_journal(tmp_path / "new" / "folder") as journal:
        assert journal.blob_names() == []


def test_two_empty_folders_have_two_disk_identities(tmp_path: Path) -> None:
    with open_journal(tmp_path / "a") as one, open_journal(tmp_path / "b") as two:
        assert one.identity.disk != two.identity.disk
        assert one.identity.incarnation == two.identity.incarnation == 1


def test_a_rebuild_is_a_new_incarnation_for_good(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        assert journal.reincarnate().incarnation == 2
        assert journal.identity.incarnation == 2
    with open_journal(tmp_path) as journal:
        assert journal.identity.incarnation == 3


def test_many_random_commits_keep_the_sums_true(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    expected: dict[str, bytes] = {}
    for _ in range(3):
        with open_journal(tmp_path) as journal:
            for _ in range(40):
                records = [
                    Record(
                        f"{chance.randrange(200):03}", chance.choice([None, chance.randbytes(9)])
                    )
                    for _ in range(chance.randrange(150))
                ]
                journal.commit(records, [blob(chance.randbytes(2))])
                for key, value in records:
                    expected.pop(key, None)
                    if value is not None:
                        expected[key] = value
            found = {record.key: record.value for record in journal.records()}
            assert found == expected, f"seed {seed}"


def test_a_commit_that_was_undone_leaves_no_name_behind(tmp_path: Path) -> None:
    kept, added = blob(b"kept"), blob(b"added")
    with open_journal(tmp_path) as journal:
        journal.commit([], [kept])
        # Given a commit that fails when its contents are written already
        alter(
            tmp_path, "CREATE TRIGGER no BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        with pytest.raises(JournalFailed, match="no"):
            journal.commit([], [added, Blob(kept.sha256, None)])
        # Then it is as if it had not been
        assert journal.blob_names() == [kept.sha256]
        assert journal.read_blob(kept.sha256) == kept.data
        assert journal.read_blob(added.sha256) is None
        # And the same can be done again.
        alter(tmp_path, "DROP TRIGGER no")
        journal.commit([], [added, Blob(kept.sha256, None)])
        assert journal.read_blob(added.sha256) == added.data
    with open_journal(tmp_path) as journal:
        assert journal.blob_names() == [added.sha256]


def test_closing_twice_closes_no_other_file(tmp_path: Path) -> None:
    """Given a closed journal whose descriptors belong to others by now, then they stay open."""
    journal = open_journal(tmp_path / "one")
    journal.close()
    others = [os.open(tmp_path, os.O_RDONLY) for _ in range(8)]
    journal.close()
    for descriptor in others:
        os.fstat(descriptor)
        os.close(descriptor)
    with pytest.raises(JournalFailed, match="is closed"):
        journal.commit([Record("a", b"1")])


def test_of_two_changes_of_one_name_in_a_commit_the_later_one_counts(tmp_path: Path) -> None:
    """Given a name that is removed and written, or written and removed, in one commit, whether it
    was there before or not, then what was said last is what is there, also after a restart.
    """
    was, new = blob(b"was there"), blob(b"is new")
    gone = {one: Blob(one.sha256, None) for one in (was, new)}
    with open_journal(tmp_path) as journal:
        journal.commit([Record("a", b"0")], [was])
        journal.commit([Record("a", None), Record("a", b"1")], [gone[was], was, gone[new], new])
        assert journal.blob_names() == sorted([was.sha256, new.sha256])
        assert [journal.read_blob(one.sha256) for one in (was, new)] == [was.data, new.data]
    with open_journal(tmp_path) as journal:
        assert list(journal.records()) == [Record("a", b"1")]
        assert [journal.read_blob(one.sha256) for one in (was, new)] == [was.data, new.data]
        journal.commit([], [gone[new]])
        journal.commit([Record("a", b"2"), Record("a", None)], [was, gone[was], new, gone[new]])
        assert journal.blob_names() == []
    with open_journal(tmp_path) as journal:
        assert (list(journal.records()), journal.blob_names()) == ([], [])


def test_a_journal_of_format_1_is_brought_forward(tmp_path: Path) -> None:
    contents = [blob(bytes([number]) * 1000) for number in range(50)]
    with open_journal(tmp_path) as journal:
        journal.commit([Record("a", b"1")], contents)
    # Given a folder as the former format had it
    alter(
        tmp_path,
        "CREATE TABLE former (sha256 TEXT PRIMARY KEY, data BLOB NOT NULL)",
        "INSERT INTO former SELECT sha256, data FROM blobs",
        "DROP TABLE blobs",
        "ALTER TABLE former RENAME TO blobs",
        "UPDATE meta SET format = 1",
    )
    for _ in range(2):
        with open_journal(tmp_path) as journal:
            assert journal.blob_names() == sorted(content.sha256 for content in contents)
            for content in contents:
                assert journal.read_blob(content.sha256) == content.data
            journal.commit([], [blob(b"more")])
            journal.commit([], [Blob(blob(b"more").sha256, None)])


def test_a_folder_in_use_names_the_process_that_holds_it(tmp_path: Path) -> None:
    with (
        open_journal(tmp_path),
        pytest.raises(JournalLocked, match=f"{tmp_path}.*process {os.getpid()}"),
    ):
        open_journal(tmp_path)
    open_journal(tmp_path).close()


@pytest.mark.parametrize("where", ["log", "database"])
def test_a_paused_twin_is_fenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    # Given two processes on one folder, as on a file system whose locks do not hold
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    twin = open_journal(tmp_path)
    twin.commit([Record("a", b"both have it")])
    survivor = open_journal(tmp_path)
    # When the paused one wakes up and commits
    with pytest.raises(JournalFenced, match="paused meanwhile"):
        twin.commit([Record("a", b"the twin's")], [CONTENT] if where == "database" else ())
    twin.close()
    # Then nothing of it is there, and the other continues
    survivor.commit([Record("b", b"kept")])
    expected = [Record("a", b"both have it"), Record("b", b"kept")]
    assert (list(survivor.records()), survivor.blob_names()) == (expected, [])
    survivor.close()
    with open_journal(tmp_path) as journal:
        assert list(journal.records()) == expected


@pytest.mark.parametrize(("node", "cluster"), [("store-1", "prod"), ("store-2", "test")])
def test_a_folder_of_another_node_or_cluster_is_refused(
    tmp_path: Path, node: str, cluster: str
) -> None:
    open_journal(tmp_path).close()
    with pytest.raises(JournalForeign, match="store-2 of cluster 'prod'"):
        Journal.open(tmp_path, node, cluster)
    (tmp_path / "synod.json").unlink()
    with pytest.raises(JournalForeign, match="store-2 of cluster 'prod'"):
        Journal.open(tmp_path, node, cluster)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=str(tmp_path / "file" / "data")):
        open_journal(tmp_path / "file" / "data")


def test_a_commit_that_fails_changes_nothing(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.commit([Record("a", b"1")])
        journal._connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(JournalFailed, match="full"):
            journal.commit([Record("a", b"2"), Record("b", os.urandom(LOG_BYTES))])
        assert list(journal.records()) == [Record("a", b"1")]
    with pytest.raises(JournalFailed, match="closed"):
        journal.commit([Record("a", b"3")])
    with open_journal(tmp_path) as journal:
        assert list(journal.records()) == [Record("a", b"1")]


# -- damage ---------------------------------------------------------------------------------------

CONTENT = blob(b"contents " * 5000)


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """The folder of a node that ran and stopped."""
    with open_journal(tmp_path / "data") as journal:
        journal.commit([Record(f"slot/{n:05}", os.urandom(300)) for n in range(200)], [CONTENT])
    return tmp_path / "data"


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def alter(folder: Path, *statements: str) -> None:
    connection = sqlite3.connect(folder / "journal.db")
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def flip_a_bit_of_a_row(folder: Path) -> None:
    path = folder / "journal.db"
    raw = bytearray(path.read_bytes())
    # The key is text in the page; what follows it in the row is its hash and its value.
    raw[raw.index(b"slot/00123") + 60] ^= 0x10
    path.write_bytes(raw)


def put_an_empty_database(folder: Path) -> None:
    (folder / "journal.db").unlink()
    connection = sqlite3.connect(folder / "journal.db")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "garbage": (
        lambda folder: (folder / "journal.db").write_bytes(os.urandom(50_000)),
        "not a database",
    ),
    "garbage in the middle": (
        lambda folder: overwrite(folder / "journal.db", 8192, os.urandom(8192)),
        r"journal\.db is damaged.*Page",
    ),
    "truncated": (
        lambda folder: os.truncate(folder / "journal.db", 20_000),
        r"journal\.db",
    ),
    "empty": (
        lambda folder: os.truncate(folder / "journal.db", 0),
        r"journal\.db is empty.*store-2",
    ),
    "deleted": (
        lambda folder: (folder / "journal.db").unlink(),
        r"journal\.db is gone.*store-2",
    ),
    "a flipped bit in a row": (flip_a_bit_of_a_row, "'slot/00123' does not match its checksum"),
    "a changed value": (
        lambda folder: alter(folder, "UPDATE records SET value = x'00' WHERE key = 'slot/00007'"),
        "'slot/00007' does not match its checksum",
    ),
    "a value of another kind": (
        lambda folder: alter(folder, "UPDATE records SET value = 5 WHERE key = 'slot/00007'"),
        "'slot/00007' does not match its checksum",
    ),
    "a lost row": (
        lambda folder: alter(folder, "DELETE FROM records WHERE key = 'slot/00007'"),
        "rows of the table records were lost",
    ),
    "a lost blob": (
        lambda folder: alter(folder, "DELETE FROM blobs"),
        "rows of the table blobs were lost",
    ),
    "a blob that is there twice": (
        lambda folder: alter(
            folder, "INSERT INTO blobs (sha256, data) SELECT sha256, data FROM blobs"
        ),
        r"journal\.db.*UNIQUE",
    ),
    "a name that is none": (
        lambda folder: alter(folder, "UPDATE blobs SET sha256 = 'g' || sha256"),
        "a name in the table blobs is no hash",
    ),
    "no meta": (lambda folder: alter(folder, "DELETE FROM meta"), "meta has 0 rows"),
    "no meta table": (lambda folder: alter(folder, "DROP TABLE meta"), "the tables are gone"),
    "an empty database": (
        put_an_empty_database,
        r"journal\.db",
    ),
    "a marker of another disk": (
        lambda folder: (folder / "synod.json").write_text(
            '{"node": "store-2", "cluster": "prod", "disk": "another"}'
        ),
        "copied here from elsewhere",
    ),
    "a torn marker": (
        lambda folder: (folder / "synod.json").write_text('{"node": "sto'),
        r"synod\.json can't be read",
    ),
    "another format": (
        lambda folder: alter(folder, "UPDATE meta SET format = 99"),
        "format 99",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_reported_and_never_taken_for_a_fresh_start(used: Path, name: str) -> None:
    damage, told = DAMAGE[name]
    damage(used)
    for _ in range(2):  # It stays refused: opening it mends nothing.
        with pytest.raises((JournalCorrupt, JournalForeign), match=told) as refusal:
            open_journal(used)
        assert str(used) in str(refusal.value)


def test_a_rotten_blob_is_never_returned(used: Path) -> None:
    path = used / "journal.db"
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"contents contents") + 3] ^= 1
    path.write_bytes(raw)
    with (
        open_journal(used) as journal,
        pytest.raises(JournalCorrupt, match=f"blob {CONTENT.sha256}"),
    ):
        journal.read_blob(CONTENT.sha256)


def test_an_older_copy_of_the_database_is_refused(used: Path) -> None:
    shutil.copy(used / "journal.db", used.parent / "copy.db")
    with open_journal(used) as journal:
        journal.commit([Record("promise", b"9")])
    shutil.copy(used.parent / "copy.db", used / "journal.db")
    with pytest.raises(JournalCorrupt, match="an older copy was put in its place"):
        open_journal(used)


@pytest.mark.parametrize("loss", ["gone", "garbled"])
def test_a_lost_write_ahead_log_is_noticed(used: Path, tmp_path: Path, loss: str) -> None:
    # Given a node that was killed: its latest commits are in the log only
    crashed = tmp_path / "crashed"
    with open_journal(used) as journal:
        journal.commit([Record("promise", b"9")])
        shutil.copytree(used, crashed)
    log = crashed / "journal.db-wal"
    assert log.stat().st_size > 0
    # When the log is lost, then the node refuses
    if loss == "gone":
        log.unlink()
    else:
        overwrite(log, 32, os.urandom(log.stat().st_size - 32))
    with pytest.raises(JournalCorrupt, match="write-ahead log"):
        open_journal(crashed)


def test_a_missing_marker_is_written_again(used: Path) -> None:
    (used / "synod.json").unlink()
    open_journal(used).close()
    (used / "journal.db").unlink()
    with pytest.raises(JournalCorrupt, match="is gone"):
        open_journal(used)


def test_a_creation_that_was_cut_short_starts_again(tmp_path: Path) -> None:
    # SQLite makes the file before the first transaction fills it.
    (tmp_path / "journal.db").touch()
    open_journal(tmp_path).close()


WRITER = textwrap.dedent("""
    import sys
    from actors.effects import Record
    from broker.journal import Journal

    journal = Journal.open(sys.argv[1], "store-2", "prod")
    for number in range(1, 1_000_000):
        journal.commit([Record("last", str(number).encode()), Record(f"n/{number}", b"x" * 300)])
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
""")


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    done = 0
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(random.randrange(20, 200)):
            done = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        # Commits that it acknowledged before it died count, even if the test did not read that.
        done = max([done, *(int(line) for line in writer.stdout.read().split())])
        writer.stdout.close()
        writer.wait()
        with open_journal(tmp_path) as journal:
            records = {record.key: record.value for record in journal.records()}
        last = int(records["last"] or b"")
        assert last in (done, done + 1)
        assert records[f"n/{last}"] == b"x" * 300


def test_memory_stays_small_while_contents_pass_through(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import hashlib, os, sys
        from actors.effects import Blob
        from broker.journal import Journal

        def peak_kib():
            status = open("/proc/self/status").read()
            return int(status.split("VmHWM:")[1].split()[0])

        journal = Journal.open(sys.argv[1], "store-2", "prod")
        before = peak_kib()
        for _ in range(100):
            data = os.urandom(1024 * 1024)
            name = hashlib.sha256(data).hexdigest()
            journal.commit([], [Blob(name, data)])
            journal.read_blob(name)
        print(peak_kib() - before)
        print(os.stat(os.path.join(sys.argv[1], "journal.db-wal")).st_size // 1024)
    """)
    grown = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    memory_kib, log_kib = map(int, grown.stdout.split())
    assert memory_kib < 24 * 1024
    assert log_kib < 16 * 1024


def test_a_full_disk_keeps_nothing_of_the_commit_and_breaks_nothing(tmp_path: Path) -> None:
    """Given a file that may not grow, when a commit does not fit, then another one still does."""
    with open_journal(tmp_path) as journal:
        journal.commit([Record("a", b"1")])
        connection = journal._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

        with pytest.raises(JournalFull, match="disk is full"):
            journal.commit([Record("a", b"2"), Record("b", bytes(LOG_BYTES))])
        journal.commit([Record("a", b"3")])

    with open_journal(tmp_path) as journal:
        assert list(journal.records()) == [Record("a", b"3")]


def test_whether_there_is_space_is_tested_by_writing(tmp_path: Path) -> None:
    """Given a file that may not grow, then it has space for its own pages, and for no more."""
    with open_journal(tmp_path) as journal:
        journal.commit([Record("a", b"1")])
        journal._log.limit(0)
        connection = journal._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

        assert not journal.has_space(100_000)
        journal.commit([Record("a", b"2")])
        connection.execute("PRAGMA max_page_count = 1000000").fetchone()
        assert journal.has_space(100_000)
        # The file keeps the space: nothing else on the disk can take it.
        connection.execute("PRAGMA max_page_count = 1").fetchone()
        journal.commit([Record("b", bytes(90_000))])
        assert not journal.has_space(journal.free_bytes() + 1)

    with open_journal(tmp_path) as journal:
        assert list(journal.records()) == [Record("a", b"2"), Record("b", bytes(90_000))]


def test_rot_is_found_by_the_scrub_and_can_be_written_over(tmp_path: Path) -> None:
    data = b"contents"
    name = hashlib.sha256(data).hexdigest()
    with open_journal(tmp_path) as journal:
        journal.commit([Record("a", b"1"), Record("b", b"2")], [Blob(name, data)])
        assert journal._connection.execute("SELECT count(*) FROM records").fetchone() == (2,)
        journal._connection.execute("UPDATE records SET value = x'00' WHERE key = 'a'")
        journal._connection.execute("UPDATE blobs SET data = x'00'")

        assert journal.scrub_rows("") == (["a"], None, 4)
        assert journal.is_sound(name) == (False, 0)
        journal.commit([Record("a", b"1")])
        assert journal.scrub_rows("") == ([], None, 4)
        journal.commit([], [Blob(name, None)])
        journal.commit([], [Blob(name, data)])
        assert journal.is_sound(name) == (True, len(data))

    with open_journal(tmp_path) as journal:
        assert list(journal.records()) == [Record("a", b"1"), Record("b", b"2")]
