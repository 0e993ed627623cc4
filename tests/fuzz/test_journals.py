"""A journal with changed bytes: it is refused, or returns what was written."""

import hashlib
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.effects import Blob, Record
from broker.journal import Journal
from broker.journal_folder import JournalError

ROWS = [Record(f"slot/{number:03}", bytes([number]) * 90) for number in range(150)]
DATA = b"contents " * 4_000
NAME = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of a node that stopped, and of one that was killed, whose latest commits are in
    its log only, and those before in the database's write-ahead log.
    """
    folder = tmp_path_factory.mktemp("journal")
    with Journal.open(folder / "stopped", "store-1", "test") as journal:
        journal.commit(ROWS[:100])
    with Journal.open(folder / "stopped", "store-1", "test") as journal:
        journal.commit(ROWS[100:110], [Blob(NAME, DATA)])
        for start in range(110, 150, 10):
            journal.commit(ROWS[start : start + 10])
        shutil.copytree(folder / "stopped", folder / "killed")
    return {"stopped": folder / "stopped", "killed": folder / "killed"}


Held = tuple[list[Record], list[str], bytes | None]


def held(folder: Path) -> Held | None:
    """What the journal returns; `None` if it refuses to be opened or read."""
    try:
        with Journal.open(folder, "store-1", "test") as journal:
            return sorted(journal.records()), journal.blob_names(), journal.read_blob(NAME)
    except JournalError:
        return None


# At what part of the file, and with which bytes; `None` cuts the file off there.
damages = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.binary(min_size=1, max_size=9), st.none(), st.just(bytes(4096))),
    ),
    min_size=1,
    max_size=3,
)


@given(st.sampled_from(["stopped", "killed"]), st.integers(0, 9), damages)
def test_a_damaged_journal_is_refused_or_gives_back_all_that_was_written(
    folders: dict[str, Path], ended: str, file: int, damages: list[tuple[float, bytes | None]]
) -> None:
    """Given one file with other bytes than were written: the mark, which is not synced, does not
    have to show the loss of what is.
    """
    folder = folders[ended].parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(folders[ended], folder)
    present = sorted(path for path in folder.iterdir() if path.is_file())
    path = present[file % len(present)]
    raw = path.read_bytes()
    for where, data in damages:
        at = int(where * len(raw))
        raw = raw[:at] if data is None else raw[:at] + data + raw[at + len(data) :]
    path.write_bytes(raw)

    assert held(folder) in (None, (ROWS, [NAME], DATA))
