"""What a slot has changed: the rows to be written, and the lines that the state's hash chains."""


class ChangedRows:
    """Of the rows the keys, in order; the rows are made when they are taken: of a file that was
    written ten times since, only the last version ever reaches the disk.
    """

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}
        self.summary: list[str] = []
        """What the slot being applied has done."""

    def touch(self, key: str) -> None:
        """A row changed."""
        self.keys[key] = None

    def note(self, key: str, what: str) -> None:
        """A row changed, in a way that every replica must agree on."""
        self.keys[key] = None
        self.summary.append(f"{key} {what}")
