"""The file of a backup's rows while they are copied, encrypted from the first line on."""

import hashlib
import os
from typing import BinaryIO

from gateway.backup.vault import SealedWriter, Vault

ROWS_LABEL = "rows"


class RowsDraft:
    """Rows, a line each, and what a manifest says about them."""

    def __init__(self, file: BinaryIO, vault: Vault | None) -> None:
        self._file = file
        self._vault = vault
        self.restart()

    def restart(self) -> None:
        """Drop what was written: a copy of another state begins."""
        self._file.seek(0)
        self._file.truncate()
        self._sealed: SealedWriter | None = None
        if self._vault is not None:
            self._sealed = self._vault.writer(self._file, ROWS_LABEL)
        self._digest = hashlib.sha256()
        self.rows = 0
        self.size = 0
        """In bytes, before they are encrypted."""

    def write(self, line: bytes) -> None:
        """Add a row with its newline."""
        (self._file if self._sealed is None else self._sealed).write(line)
        self._digest.update(line)
        self.rows += 1
        self.size += len(line)

    @property
    def sha256(self) -> str:
        """The hash of all rows, before they are encrypted."""
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Make the file durable. Raises `OSError`."""
        if self._sealed is not None:
            self._sealed.finish()
        self._file.flush()
        os.fsync(self._file.fileno())
