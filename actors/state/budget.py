"""What the commands of one slot may cost every replica, and how large the tree may grow.

A command is a few bytes, and what it does is done by every replica, at its restart again: without a
bound a small request could stop all of them for good. The bounds are constants of the genesis, what
is counted depends on the state and the log alone, so all replicas refuse the same command at the
same point and take back what it had changed (`actors.state.tree.Undo`).

Steps are counted, not seconds: an entry that is looked through or written, a step of a transaction.
All commands of a slot share one budget, because a replica does nothing else while it applies one.
"""

from dataclasses import dataclass

from actors.values import Constants, DirectoryEntry, FileEntry, Status

_ENTRY_BYTES = 256
_CHUNK_BYTES = 72


class Refused(Exception):
    """A command may not go on; all that it has changed is taken back, and this is its outcome."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def size_of(entry: FileEntry | DirectoryEntry) -> int:
    """Roughly what an entry takes in memory and in a journal row, in bytes; its contents do not."""
    size = _ENTRY_BYTES + 2 * len(entry.path)
    if isinstance(entry, FileEntry):
        content = entry.content
        chunks = len(content.chunks) if content.kind == "chunked" else 1
        size += _CHUNK_BYTES * chunks + len(entry.content_type)
        size += sum(len(name) + len(value) for name, value in entry.meta)
    return size


@dataclass(slots=True)
class Budget:
    """What is left for the commands of the slot being applied."""

    constants: Constants
    steps: int
    bytes: int
    is_whole: bool = True
    """Whether the command that is running began with all of it."""

    @classmethod
    def of_a_slot(cls, constants: Constants) -> "Budget":
        """The whole budget."""
        return cls(constants, constants.slot_steps, constants.slot_bytes)

    def begin(self) -> None:
        """The next command begins."""
        self.is_whole = (self.steps, self.bytes) == (
            self.constants.slot_steps,
            self.constants.slot_bytes,
        )

    def step(self) -> None:
        """One entry is looked through, or one step of a transaction taken. Raises `Refused`."""
        self.steps -= 1
        if self.steps < 0:
            self._refuse(f"it would look through or write more than {self.constants.slot_steps}")

    def write(self, size: int) -> None:
        """An entry of `size` bytes is written. Raises `Refused`."""
        self.step()
        self.bytes -= size
        if self.bytes < 0:
            self._refuse(f"it would write more than {self.constants.slot_bytes} bytes of")

    def check_depth(self, path: str) -> None:
        """Raises `Refused` if `path` has too many names."""
        if path.count("/") >= self.constants.path_depth:
            raise Refused("too_large", f"a path may have at most {self.constants.path_depth} names")

    def check_tree(self, entries: int, size: int) -> None:
        """The tree has grown. Raises `Refused`."""
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
            raise Refused("busy", "other requests of its slot left it too little: try again")
        raise Refused("too_large", f"{why} entries, the most that one request may: split it")
