"""Encrypted journals: what is readable, what somebody without the key can change, and rotation.

Torn tails, rot, lost and older files are found as in any journal: `SYNOD_LONG=1` runs the tests of
those on encrypted ones.
"""

import hashlib
import secrets
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.effects import Blob, Record
from broker.commit_log import LOG_NAME, CommitLog, encode_rows
from broker.journal import Journal
from broker.journal_folder import JournalCorrupt, JournalFull
from broker.journal_rows import row_hash
from broker.journal_sealing import SEALED_FORMAT_VERSION, SEALED_LOGGED_FORMAT_VERSION
from broker.keys import KEY_BYTES, KeyRing, KeysRefused
from broker.sealing import SEALED_BYTES, Sealing, Unsealable
from tests.long import only_long

KEYS = KeyRing([secrets.token_bytes(KEY_BYTES)], "mine")
SECRETS = [b"the contents of a file", b"a row of the log", b"a row of the database"]
NAMES = [hashlib.sha256(data).hexdigest() for data in (SECRETS[0], b"others")]


def opened(folder: Path, keys: KeyRing | None = KEYS, *, encrypted: bool = True) -> Journal:
    return Journal.open(folder, "store-1", "test", keys=keys, encrypted=encrypted)


def rows(journal: Journal) -> dict[str, bytes | None]:
    return {record.key: record.value for record in journal.records()}


def written(folder: Path) -> Journal:
    """A journal in use, with rows in both of its parts, and contents."""
    journal = opened(folder)
    journal.commit(
        [Record("a", SECRETS[2])], [Blob(NAMES[0], SECRETS[0]), Blob(NAMES[1], b"others")]
    )
    journal.commit([Record("b", SECRETS[1])])
    journal.commit([Record("c", b"third")])
    return journal


HELD: dict[str, bytes | None] = {"a": SECRETS[2], "b": SECRETS[1], "c": b"third"}


def killed(folder: Path, into: Path) -> Path:
    """The folder as a killed process leaves it."""
    with written(folder):
        shutil.copytree(folder, into)
    return into


def database(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "journal.db", isolation_level=None)


def test_no_value_is_readable_in_any_file_and_all_come_back(tmp_path: Path) -> None:
    """Given a journal in use, killed, and closed, then none of its files holds a value in clear."""
    folder = killed(tmp_path / "f", tmp_path / "killed")
    for one, form in (
        (folder, SEALED_LOGGED_FORMAT_VERSION),
        (tmp_path / "f", SEALED_FORMAT_VERSION),
    ):
        assert database(one).execute("SELECT format FROM meta").fetchone() == (form,)
        for file in one.iterdir():
            for secret in (*SECRETS, b"third", b"others"):
                assert secret not in file.read_bytes(), file
        with opened(one) as journal:
            assert rows(journal) == HELD
            assert journal.read_blob(NAMES[0]) == SECRETS[0]
            assert journal.scrub_rows("")[0] == []


def test_without_the_right_key_nothing_starts_and_nothing_changes(tmp_path: Path) -> None:
    folder = killed(tmp_path / "f", tmp_path / "killed")
    before = list(database(folder).iterdump()), (folder / LOG_NAME).read_bytes()
    others = KeyRing([secrets.token_bytes(KEY_BYTES)], "others")
    with pytest.raises(KeysRefused, match=r"is encrypted: set key_file or key_command\. Nothing"):
        opened(folder, None, encrypted=False)
    wrong = f"wrapped by key {KEYS.current_id}; others holds {others.current_id}"
    for encrypted in (True, False):
        with pytest.raises(KeysRefused, match=wrong):
            opened(folder, others, encrypted=encrypted)
    assert (list(database(folder).iterdump()), (folder / LOG_NAME).read_bytes()) == before
    with opened(folder, encrypted=False) as journal:
        assert rows(journal) == HELD


def test_a_journal_in_clear_is_refused_where_encryption_is_asked_for(tmp_path: Path) -> None:
    """Otherwise whoever can write to a disk could put one there."""
    with opened(tmp_path, None, encrypted=False) as journal:
        journal.commit([Record("a", b"1")])
    with pytest.raises(KeysRefused, match="is not encrypted, and encrypt_journals is set"):
        opened(tmp_path)
    with opened(tmp_path, encrypted=False) as journal:
        assert rows(journal) == {"a": b"1"}
    with pytest.raises(KeysRefused, match="can't be encrypted without a key"):
        opened(tmp_path / "new", None)
    with opened(tmp_path / "new") as journal:
        journal.commit([Record("a", b"1")])


def test_a_start_with_a_new_key_rewraps_and_the_former_is_needed_no_more(tmp_path: Path) -> None:
    former, new = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(KEY_BYTES)
    with opened(tmp_path, KeyRing([former], "former")) as journal:
        journal.commit([Record("a", b"1")], [Blob(NAMES[1], b"others")])
    stored = database(tmp_path).execute("SELECT value FROM records").fetchall()
    opened(tmp_path, KeyRing([new, former], "both")).close()
    with pytest.raises(KeysRefused, match="wrapped by key"):
        opened(tmp_path, KeyRing([former], "former"))
    with opened(tmp_path, KeyRing([new], "new")) as journal:
        assert rows(journal) == {"a": b"1"}
        assert journal.read_blob(NAMES[1]) == b"others"
    assert database(tmp_path).execute("SELECT value FROM records").fetchall() == stored


def swap_rows(folder: Path) -> None:
    with database(folder) as changed:
        stored = dict(changed.execute("SELECT key, value FROM records"))
        _put(changed, {"a": stored["b"], "b": stored["a"]})


def put_a_row_in_clear(folder: Path) -> None:
    with database(folder) as changed:
        _put(changed, {"a": b"evil"})


def _put(changed: sqlite3.Connection, values: dict[str, bytes]) -> None:
    """Change rows with their hashes, and the sum of all, as anybody can."""
    for key, value in values.items():
        changed.execute(
            "UPDATE records SET value = ?, hash = ? WHERE key = ?",
            (value, row_hash(key, value), key),
        )
    total = sum(each for (each,) in changed.execute("SELECT hash FROM records"))
    signed = (total + (1 << 63)) % (1 << 64) - (1 << 63)
    changed.execute("UPDATE meta SET records_sum = ?", (signed,))


def go_back(folder: Path) -> None:
    with database(folder) as changed:
        changed.execute("UPDATE meta SET incarnation = incarnation - 1")


def mark_as_clear(folder: Path) -> None:
    with database(folder) as changed:
        changed.execute("UPDATE meta SET format = 2")


def forget_the_key(folder: Path) -> None:
    with database(folder) as changed:
        changed.execute("DELETE FROM sealing")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swap_rows, "meta was changed by somebody without the key"),
        (put_a_row_in_clear, "meta was changed by somebody without the key"),
        (go_back, "meta was changed by somebody without the key"),
        (mark_as_clear, "is not encrypted, and encrypt_journals is set"),
        (forget_the_key, "sealing has 0 rows"),
    ],
)
def test_what_somebody_without_the_key_changes_in_the_database_is_found(
    tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    written(tmp_path).close()
    change(tmp_path)
    with pytest.raises((JournalCorrupt, KeysRefused), match=said):
        opened(tmp_path)


def test_a_value_in_anothers_place_is_found_even_if_all_sums_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an attacker who could make the MAC of `meta` right, too."""
    written(tmp_path).close()
    swap_rows(tmp_path)
    monkeypatch.setattr("broker.journal_sealing.hmac.compare_digest", lambda *_: True)
    with opened(tmp_path) as journal, pytest.raises(JournalCorrupt, match=r"record 'a': it can't"):
        rows(journal)


def test_contents_under_another_name_are_found(tmp_path: Path) -> None:
    """Their SHA-256 would show it as well, but only of contents that have one."""
    written(tmp_path).close()
    with database(tmp_path) as changed:
        (data,) = changed.execute("SELECT data FROM blobs WHERE sha256 = ?", NAMES[:1]).fetchone()
        changed.execute("UPDATE blobs SET data = ? WHERE sha256 = ?", (data, NAMES[1]))
    with opened(tmp_path) as journal:
        assert journal.read_blob(NAMES[0]) == SECRETS[0]
        with pytest.raises(JournalCorrupt, match=rf"blob {NAMES[1]}: it can't be decrypted"):
            journal.read_blob(NAMES[1])


def bodies(raw: bytes, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """A log whose frames have other bodies and the right hashes, whose key is in its header."""
    *_, tag, key = struct.Struct(">8sI32sQ8s16s").unpack_from(raw)
    found: list[tuple[int, bytes]] = []
    at = 4096
    while raw[at : at + 8] == tag:
        number, size = struct.unpack_from(">QI", raw, at + 8)
        found.append((number, raw[at + 36 : at + 36 + size]))
        at += 36 + size
    log = raw[:4096]
    for (number, _), body in zip(found, change([body for _, body in found]), strict=True):
        head = struct.pack(">8sQI", tag, number, len(body))
        log += head + hashlib.blake2b(head + body, key=key, digest_size=16).digest() + body
    return log.ljust(len(raw), b"\0")


@pytest.mark.parametrize(
    "change",
    [
        lambda found: [*found[:-1], found[-1][:-1] + bytes([found[-1][-1] ^ 1])],
        lambda found: [*found[:-1], found[-2]],
        lambda found: [*found[:-2], found[-1], found[-2]],
        lambda found: [*found[:-1], encode_rows({"a": b"evil"})],
    ],
    ids=["a bit", "repeated", "reordered", "in clear"],
)
def test_a_commit_that_somebody_forged_in_the_log_is_no_torn_tail(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    """Given a frame with another body and the right hash, then the journal is refused, and the
    frame is not cut off as what a crash left; so is a commit in another one's place.
    """
    folder = killed(tmp_path / "f", tmp_path / "killed")
    raw = (folder / LOG_NAME).read_bytes()
    assert bodies(raw, lambda found: found) == raw
    (folder / LOG_NAME).write_bytes(bodies(raw, change))
    with pytest.raises(JournalCorrupt, match=r"commit \d+ has rows that can't be read: it"):
        opened(folder)


def test_a_log_in_clear_is_refused(tmp_path: Path) -> None:
    """Given a log of the right disk and opening, with a commit that nobody encrypted."""
    folder = killed(tmp_path / "f", tmp_path / "killed")
    query = "SELECT disk, generation, commits FROM meta"
    disk, generation, commits = database(folder).execute(query).fetchone()
    log = CommitLog.create(folder, disk, generation)
    log.append(commits + 1, encode_rows({"a": b"evil"}))
    for number in (2, 3):
        log.append(commits + number, encode_rows({}))
    log.close()
    with pytest.raises(JournalCorrupt, match="it is not encrypted, and the journal is"):
        opened(folder)


def test_a_log_of_an_encrypted_journal_is_no_other_journals(tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    CommitLog.create(tmp_path / "l", "d" * 32, 1, sealed=True).close()
    opened(tmp_path, None, encrypted=False).close()
    with opened(tmp_path, None, encrypted=False) as journal:
        shutil.copytree(tmp_path, tmp_path.parent / "killed")
        journal.commit([Record("a", b"1")])
    shutil.copy(tmp_path / "l" / LOG_NAME, tmp_path.parent / "killed")
    with pytest.raises(JournalCorrupt, match="it is encrypted, and the journal is not"):
        opened(tmp_path.parent / "killed", None, encrypted=False)


def heads(folder: Path) -> set[tuple[bytes, bytes]]:
    """Salt and count of each value, with the value: one pair must never have two values."""
    stored = [row[0] for row in database(folder).execute("SELECT value FROM records")]
    stored += [row[0] for row in database(folder).execute("SELECT data FROM blobs")]
    return {(value[:24], value[24:]) for value in stored}


def test_no_nonce_is_used_twice_not_even_after_an_older_copy_is_opened(tmp_path: Path) -> None:
    """Given openings of the same folder, and twice of one copy of it, each of which writes other
    values for the same rows, then no salt and count occur with two values.
    """
    seen: set[tuple[bytes, bytes]] = set()
    with opened(tmp_path / "f") as journal:
        journal.commit([Record("a", b"0")])
    for turn in range(3):
        with opened(tmp_path / "f") as journal:
            for number in range(5):
                value = b"%d %d" % (turn, number)
                journal.commit([Record(f"r{number}", value)], [Blob(NAMES[0], SECRETS[0])])
        seen |= heads(tmp_path / "f")
        shutil.copytree(tmp_path / "f", tmp_path / f"copy {turn}")
        with opened(tmp_path / f"copy {turn}") as journal:
            journal.commit([Record("r0", b"another future")])
        seen |= heads(tmp_path / f"copy {turn}")
    assert len(seen) > 10
    assert len({head for head, _ in seen}) == len(seen)


def test_a_commit_that_is_tried_again_has_another_nonce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a commit for which the disk has no space, then the next one has its number, but not its
    nonce: a part of the former may be on the disk.
    """
    appended: list[tuple[int, bytes]] = []
    append = CommitLog.append

    def full_at_first(self: CommitLog, number: int, body: bytes) -> None:
        appended.append((number, body[:24]))
        if len(appended) == 1:
            raise OSError(28, "full")
        append(self, number, body)

    monkeypatch.setattr(CommitLog, "append", full_at_first)
    with opened(tmp_path) as journal:
        with pytest.raises(JournalFull):
            journal.commit([Record("a", b"1")])
        journal.commit([Record("a", b"2")])
        assert rows(journal) == {"a": b"2"}
    (number, head), (again, other) = appended
    assert number == again
    assert head != other


def test_a_value_is_bound_to_its_journal_and_its_place() -> None:
    key = secrets.token_bytes(KEY_BYTES)
    one = Sealing(key, "disk-1")
    sealed = one.seal("row a", b"value")
    assert len(sealed) == len(b"value") + SEALED_BYTES
    assert Sealing(key, "disk-1").unseal("row a", sealed) == b"value"
    for other, place, data in (
        (one, "row b", sealed),
        (one, "blob a", sealed),
        (Sealing(key, "disk-2"), "row a", sealed),
        (Sealing(secrets.token_bytes(KEY_BYTES), "disk-1"), "row a", sealed),
        (one, "row a", sealed[:-1]),
        (one, "row a", sealed[:20]),
        (one, "row a", b""),
    ):
        with pytest.raises(Unsealable):
            other.unseal(place, data)
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(Unsealable):
            one.unseal("row a", changed)


_OF_PLAIN_JOURNALS = (
    "format_1 or former_format or rotten_blob or process_is_killed or found_by_the_scrub"
    " or sync_that_failed or fold_without_room"
)
"""They look into the database, or open it from a process without a key."""


@only_long
@pytest.mark.timeout(900)
def test_torn_tails_rot_and_older_copies_are_found_in_encrypted_journals_too() -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-p", "tests.broker.sealed_journals", "-k", f"not ({_OF_PLAIN_JOURNALS})"),
            *("tests/broker/test_journal.py", "tests/broker/test_journal_log.py"),
            *("tests/broker/test_disk_space.py", "tests/fuzz/test_journals.py"),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert int(ran.stdout.rpartition(" passed")[0].split()[-1]) > 60
