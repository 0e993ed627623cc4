"""A node starts on the journal that a former release wrote, and refuses one that it can't read."""

import json
from typing import NamedTuple

import pytest

from actors.errors import JournalUnreadable
from tests.actors import journal_record
from tests.actors.journal_record import Journal, remade, restored

ADVICE = (
    "This version reads or writes other rows than the release that recorded them, so a node could "
    "not go over to it, or not back (docs/decisions/0024-versions.md). Take the change back, or "
    "keep reading the former rows, and write new ones only when the cluster's rules say so."
)


class Recorded(NamedTuple):
    node: str
    disk: str
    rows: Journal


def recorded() -> list[Recorded]:
    lines = journal_record.RECORD.read_text(encoding="utf-8").splitlines()
    return [Recorded(**json.loads(line)) for line in lines]


@pytest.mark.parametrize("journal", recorded(), ids=lambda journal: journal.node)
def test_every_row_is_read_and_written_as_it_was(journal: Recorded) -> None:
    actor = restored(*journal)
    for key, value in journal.rows.items():
        assert remade(actor, key) == value, ADVICE


def test_every_kind_of_row_is_in_the_record() -> None:
    kinds: dict[str, set[str]] = {}
    for node, _, rows in recorded():
        role = node.partition("-")[0]
        kinds.setdefault(role, set()).update(key.partition("/")[0] for key in rows)

    state = {"entry", "session", "result", "state", "genesis"}
    assert kinds == {
        "acceptor": {"genesis", "promised", "accepted", "truncated"},
        "proposer": {"genesis", "round"},
        "learner": {"log", "audit", *state},
        "store": {"prepared", "fence", "diverged", *state},
        "gateway": {"genesis", "session", "resolved"},
    }


@pytest.mark.parametrize(
    ("node", "key", "known", "later"),
    [
        ("acceptor-1", "accepted/", '"kind":"batch"', '"kind":"later"'),
        ("acceptor-1", "accepted/", '"kind":"batch"', '"kind":"batch","rules":2'),
        ("learner-2", "log/", '"kind":"put_file"', '"kind":"put_later"'),
        ("learner-2", "entry/", '"kind":"file"', '"kind":"file","later":1'),
        ("learner-1", "audit/", '"count":', '"later":1,"count":'),
        ("store-1", "prepared/", '"kind":"put_file"', '"kind":"put_later"'),
        ("store-1", "prepared/", '"kind":"batch"', '"kind":"batch","rules":2'),
        ("store-1", "result/", '"status":"done"', '"status":"later"'),
        ("proposer-2", "genesis/", '"lease_ms"', '"later":1,"lease_ms"'),
    ],
)
def test_a_node_that_went_back_too_far_halts_and_passes_over_nothing(
    node: str, key: str, known: str, later: str
) -> None:
    """Given a journal with an entry of a later version, when a node of this one starts on it, then
    it refuses, and names the row.
    """
    (journal,) = (one for one in recorded() if one.node == node)
    rows = {
        name: value.replace(known, later) if name.startswith(key) else value
        for name, value in journal.rows.items()
    }
    assert rows != journal.rows
    with pytest.raises(JournalUnreadable, match=f"record '{key}"):
        restored(node, journal.disk, rows)
