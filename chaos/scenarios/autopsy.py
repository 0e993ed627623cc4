"""What the journal of a store, dead or running, holds of a slot.

It imports little but the standard library, because in a container it is a command that must be
fast::

    python -m chaos.scenarios.autopsy /data/store-1 57
"""

import contextlib
import json
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from broker.commit_log import LOG_NAME, LogDamaged, read_log

JOURNAL = "journal.db"
_ATTEMPTS = 100
"""A running store may fold its log into its database between the readings of the two; then both are
read again.
"""


class Held(NamedTuple):
    """One store's part in two-phase commit of one slot, as its disk has it."""

    prepared: bool
    """It has voted for the slot, or is about to, and the outcome is not on its disk."""
    applied: bool
    """It knows the outcome."""
    fence: int
    """The newest epoch whose coordinator it has answered."""


def journal_holds(folder: Path, slot: int) -> bool:
    """Whether the journal of a store that does not run holds a slot: prepared, or applied already.

    It reads a copy, so that the dead node's files stay as they are.
    """
    with tempfile.TemporaryDirectory(prefix="synod-autopsy-") as copy:
        for file in (*folder.glob(f"{JOURNAL}*"), *folder.glob(LOG_NAME)):
            shutil.copy(file, copy)
        with contextlib.closing(sqlite3.connect(Path(copy) / JOURNAL)) as database:
            held = _held(database, Path(copy), slot)
            return held.prepared or held.applied


def look_at_slot(folder: Path, slot: int) -> Held:
    """What the journal of a running store holds of a slot, without writing to it."""
    uri = f"{(folder / JOURNAL).absolute().as_uri()}?mode=ro"
    for _ in range(_ATTEMPTS):
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
            database.execute("BEGIN")  # One moment for all rows.
            with contextlib.suppress(LogDamaged):
                return _held(database, folder, slot)
    raise LogDamaged(f"{folder}: its log does not continue its database")


def _held(database: sqlite3.Connection, folder: Path, slot: int) -> Held:
    (commits,) = database.execute("SELECT commits FROM meta").fetchone()
    latest: dict[str, bytes | None] = {}
    with contextlib.suppress(FileNotFoundError):  # As in the journal of a former release.
        for commit in read_log(folder).after(commits):
            latest.update(commit.rows)

    def row(key: str) -> bytes | None:
        if key in latest:
            return latest[key]
        found = database.execute("SELECT value FROM records WHERE key = ?", (key,)).fetchone()
        return None if found is None else found[0]

    state, fence = row("state"), row("fence")
    applied = state is not None and int(json.loads(state)["applied"]) >= slot
    prepared = row(f"prepared/{slot:016x}") is not None
    return Held(prepared and not applied, applied, 0 if fence is None else int(fence))


if __name__ == "__main__":
    print(json.dumps(look_at_slot(Path(sys.argv[1]), int(sys.argv[2]))))
