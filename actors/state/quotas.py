"""Quotas: how many entries, and bytes of contents, may lie below a path; rows of the state.

What is used is counted by the tree, directory by directory, as entries come and go. A command is
refused if in the end more is used than a quota allows, and more than before: so a quota may be set
below what is used, and then everything that frees something is done, a replacement by something
smaller, too. Which step of a command uses it up does not matter.
"""

from actors.numbers import Count
from actors.state.budget import Budget, Refused
from actors.state.changed_rows import ChangedRows
from actors.state.tree import Tree, Used
from actors.values import Frozen, RemoveQuota, SetQuota

_ENTRIES_PER_QUOTA = 20_000
"""There may be one quota for so many entries that the tree may hold (100 by default): each command
looks at all of them.
"""


class QuotaRow(Frozen):
    """A quota's row in the journal: what may lie below its path; `None`: any number. `slot` set it.

    Bytes are those of contents; two files of the same contents use them twice.
    """

    slot: Count
    entries_max: Count | None
    bytes_max: Count | None


class Quotas:
    """All quotas, by their paths."""

    def __init__(self, changed_rows: ChangedRows) -> None:
        self.rows: dict[str, QuotaRow] = {}
        self._changed_rows = changed_rows

    def used(self, tree: Tree) -> dict[str, Used]:
        """What is used of each quota."""
        return {path: tree.used(path) for path in self.rows}

    def operate(self, slot: int, change: SetQuota | RemoveQuota, budget: Budget) -> None:
        """Execute a command that changes a quota. Raises `Refused`."""
        budget.check_depth(change.path)
        if isinstance(change, RemoveQuota):
            if change.path not in self.rows:
                raise Refused("not_found", f"there is no quota of /{change.path}")
            del self.rows[change.path]
            self._changed_rows.note(f"quota/{change.path}", "gone")
            return
        if change.entries_max is None and change.bytes_max is None:
            raise Refused("conflict", "a quota bounds entries or bytes")
        most = budget.constants.tree_entries // _ENTRIES_PER_QUOTA
        if change.path not in self.rows and len(self.rows) >= most:
            raise Refused("over_quota", f"the cluster may have {most} quotas: remove some")
        row = QuotaRow(slot=slot, entries_max=change.entries_max, bytes_max=change.bytes_max)
        self.rows[change.path] = row
        self._changed_rows.note(f"quota/{change.path}", f"{row.to_json().decode()}")

    def check(self, tree: Tree, before: dict[str, Used]) -> None:
        """Check what a command has used, beside what was used before it. Raises `Refused`."""
        for path in sorted(before):
            row = self.rows.get(path)
            if row is None:
                continue
            used, former = tree.used(path), before[path]
            for what, now, then, most in (
                ("entries", used.entries, former.entries, row.entries_max),
                ("bytes", used.bytes, former.bytes, row.bytes_max),
            ):
                if most is not None and now > most and now > then:
                    text = (
                        f"the quota of /{path} allows {most} {what}, of which {then} are used, and "
                        f"this needs {now - then} more"
                    )
                    raise Refused("over_quota", text, path=path)
