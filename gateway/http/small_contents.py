"""Small contents that a gateway has read lately, so that it need not ask a store for them again.

A file's entry is read from a store for each request, and names its contents by their SHA-256. So
contents that have that SHA-256 are the file's, however long the gateway has kept them; a file that
was replaced has other contents, and one that was removed has no entry.
"""

from collections import OrderedDict

KEPT_BYTES_MAX = 4 * 1024 * 1024
"""For all kept contents and their names: some 3,000 files of 1 KiB."""

_OVERHEAD_BYTES = 256
"""What an entry takes beside its contents: two objects and a place in the table."""


class SmallContents:
    """Contents by their SHA-256, without those that were not asked for for longest."""

    def __init__(self, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._by_name: OrderedDict[str, bytes] = OrderedDict()
        self.kept_bytes = 0
        """What all of it takes in memory."""

    def get(self, sha256: str) -> bytes | None:
        """The contents of that name, if they are kept."""
        data = self._by_name.get(sha256)
        if data is not None:
            self._by_name.move_to_end(sha256)
        return data

    def keep(self, sha256: str, data: bytes) -> None:
        """Keep contents, whose SHA-256 has been checked."""
        if sha256 in self._by_name:
            return
        self._by_name[sha256] = data
        self.kept_bytes += len(data) + _OVERHEAD_BYTES
        while self.kept_bytes > self._bytes_max:
            _, dropped = self._by_name.popitem(last=False)
            self.kept_bytes -= len(dropped) + _OVERHEAD_BYTES
