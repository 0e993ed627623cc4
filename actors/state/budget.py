"""Bounds on what the commands of one slot cost every replica, and on the size of the tree.

Every replica executes each command, and again after a restart, so without a bound one small request
could stop all replicas for good. The bounds are constants of the genesis, and the counts depend on
the state and the log alone, so all replicas refuse the same command at the same point and undo what
it had changed (`actors.state.tree.Tree.end_command`).

The unit is a step, not a second: an entry read or written, or a step of a transaction. All commands
of a slot share one budget, because a replica does nothing else while it applies a slot.
"""

from dataclasses import dataclass

from actors.values import Constants, DirectoryEntry, FileEntry, Status

_ENTRY_BYTES = 256
_CHUNK_BYTES = 72


class Refused(Exception):
    """Ends a command with this outcome; all its changes are undone. `step` is one of a
    transaction's, if it is known, and `path` that of a quota, if it is what refuses.
    """

    def __init__(
        self, status: Status, detail: str, step: int | None = None, path: str | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.step = step
        self.path = path


def size_of(entry: FileEntry | DirectoryEntry) -> int:
    """Roughly the size of an entry in memory and in a journal row, in bytes, without contents."""
    size = _ENTRY_BYTES + 2 * len(entry.path)
    if isinstance(entry, FileEntry):
        content = entry.content
        chunks = len(content.chunks) if content.kind == "chunked" else 1
        size += _CHUNK_BYTES * chunks + len(entry.content_type)
        size += sum(len(name) + len(value) for name, value in entry.meta)
    return size


@dataclass(slots=True)
class Budget:
    """The steps and bytes left for the commands of the slot being applied."""

    constants: Constants
    steps: int
    bytes: int
    is_whole: bool = True
    """Whether the current command began with the whole budget."""

    @classmethod
    def of_a_slot(cls, constants: Constants) -> "Budget":
        """The whole budget."""
        return cls(constants, constants.slot_steps, constants.slot_bytes)

    def begin(self) -> None:
        """Begin the next command."""
        self.is_whole = (self.steps, self.bytes) == (
            self.constants.slot_steps,
            self.constants.slot_bytes,
        )

    def step(self) -> None:
        """Count an entry that is read, or a step of a transaction. Raises `Refused`."""
        self.steps -= 1
        if self.steps < 0:
            self._refuse(f"it would read or write more than {self.constants.slot_steps}")

    def write(self, size: int) -> None:
        """Count a written entry of `size` bytes. Raises `Refused`."""
        self.step()
        self.bytes -= size
        if self.bytes < 0:
            self._refuse(f"it would write more than {self.constants.slot_bytes} bytes of")

    def check_depth(self, path: str) -> None:
        """Check the number of names in `path`. Raises `Refused`."""
        if path.count("/") >= self.constants.path_depth:
            raise Refused("too_large", f"a path may have at most {self.constants.path_depth} names")

    def check_tree(self, entries: int, size: int) -> None:
        """Check the size of a tree that has grown. Raises `Refused`."""
        if entries > self.constants.tree_entries:
            raise Refused(
                "over_quota",
                f"the cluster holds {self.constants.tree_entries} files and directories, which is "
                "the most it may hold: remove some",
            )
        if size > self.constants.tree_bytes:
            raise Refused(
                "over_quota",
                f"the names and metadata of all files take {self.constants.tree_bytes} bytes, "
                "which is the most they may take: remove some",
            )

    def _refuse(self, why: str) -> None:
        if not self.is_whole:
            raise Refused("busy", "other requests in its slot used up the budget: try again")
        raise Refused("too_large", f"{why} entries, the most that one request may: split it")
