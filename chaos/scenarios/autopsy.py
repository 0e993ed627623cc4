"""What the journal of a store, dead or running, holds of a slot.

It imports the standard library only, because in a container it is a command that must be fast::

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

JOURNAL = "journal.db"


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
        for file in folder.glob(f"{JOURNAL}*"):
            shutil.copy(file, copy)
        with contextlib.closing(sqlite3.connect(Path(copy) / JOURNAL)) as database:
            held = _held(database, slot)
            return held.prepared or held.applied


def look_at_slot(folder: Path, slot: int) -> Held:
    """What the journal of a running store holds of a slot, without writing to it."""
    uri = f"{(folder / JOURNAL).absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
        database.execute("BEGIN")  # One moment for all rows.
        return _held(database, slot)


def _held(database: sqlite3.Connection, slot: int) -> Held:
    def row(key: str) -> bytes | None:
        found = database.execute("SELECT value FROM records WHERE key = ?", (key,)).fetchone()
        return None if found is None else found[0]

    state, fence = row("state"), row("fence")
    applied = state is not None and int(json.loads(state)["applied"]) >= slot
    prepared = row(f"prepared/{slot:016x}") is not None
    return Held(prepared and not applied, applied, 0 if fence is None else int(fence))


if __name__ == "__main__":
    print(json.dumps(look_at_slot(Path(sys.argv[1]), int(sys.argv[2]))))
