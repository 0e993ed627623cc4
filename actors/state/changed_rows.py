"""The changes of a slot: the rows to journal, and the lines that the state's hash covers."""


class ChangedRows:
    """The keys of changed rows, in order. The rows are made only when they are journalled, so that
    of a file that was written ten times meanwhile only the last version reaches the disk.
    """

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}
        self.summary: list[str] = []
        """The changes that the slot being applied has made."""

    def touch(self, key: str) -> None:
        """Note a row that changed."""
        self.keys[key] = None

    def note(self, key: str, what: str) -> None:
        """Note a row that changed, and a change that the state's hash covers."""
        self.keys[key] = None
        self.summary.append(f"{key} {what}")
