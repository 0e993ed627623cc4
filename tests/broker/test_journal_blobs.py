"""A commit's contents count in their order, in the file and in the simulator's journal alike."""

import hashlib
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.effects import Blob
from broker.journal import Journal
from chaos.simulator.disk import Disk

SOUND = tuple(b"chunk %d" % number for number in range(3))
NAMES = tuple(hashlib.sha256(data).hexdigest() for data in SOUND)

_PUTS = st.sampled_from([Blob(name, data) for name, data in zip(NAMES, SOUND, strict=True)])
_ROTTEN_PUTS = st.sampled_from([Blob(name, b"rotten") for name in NAMES])
_REMOVALS = st.sampled_from([Blob(name, None) for name in NAMES])
_COMMITS = st.lists(st.lists(_PUTS | _ROTTEN_PUTS | _REMOVALS, max_size=8), max_size=8)


@given(_COMMITS)
@example([[Blob(NAMES[0], b"rotten")], [Blob(NAMES[0], None), Blob(NAMES[0], SOUND[0])]])
@example([[Blob(NAMES[0], SOUND[0]), Blob(NAMES[0], None), Blob(NAMES[0], None)]])
@settings(max_examples=60, deadline=None)
def test_contents_are_what_a_dict_would_hold_however_they_are_split_into_commits(
    commits: list[list[Blob]],
) -> None:
    expected: dict[str, bytes] = {}
    disk = Disk("disk")
    with tempfile.TemporaryDirectory() as folder:
        with Journal.open(Path(folder), "store-1", "test") as journal:
            for blobs in commits:
                journal.commit([], blobs)
                disk.commit([], blobs)
                for name, data in blobs:
                    expected.pop(name, None)
                    if data is not None:
                        expected[name] = data
            assert _stored(journal) == disk.blobs == expected
        # The sums in the file agree with it, too, or the next start would refuse it.
        with Journal.open(Path(folder), "store-1", "test") as journal:
            assert _stored(journal) == expected


def _stored(journal: Journal) -> dict[str, bytes | None]:
    return {name: journal._blobs.read(name) for name in journal.blob_names()}


def test_a_rotten_chunk_and_its_replacement_in_one_commit_leave_the_replacement(
    tmp_path: Path,
) -> None:
    """Given a chunk that rotted, when a turn gives it up and an upload brings it again."""
    name, data = NAMES[0], SOUND[0]
    with Journal.open(tmp_path, "store-1", "test") as journal:
        journal.commit([], [Blob(name, data)])
        journal._connection.execute("UPDATE blobs SET data = x'00'")
        assert journal.is_sound(name) == (False, 0)

        journal.commit([], [Blob(name, None), Blob(name, data)])

        assert journal.is_sound(name) == (True, len(data))
