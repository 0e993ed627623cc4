"""What an encrypted journal does otherwise: its table `sealing`, and how its values are stored.

The journal calls this for every value; unless it is encrypted, values are stored as they are.
"""

import hmac
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from broker.commit_log import Rows, Unseal
from broker.keys import KeyRing, KeysRefused, WrappedKey
from broker.sealing import (
    Sealing,
    Unsealable,
    blob_place,
    commit_place,
    new_data_key,
    row_place,
    unwrapped_by,
    wrapped_by,
)

FORMAT_VERSION = 2
"""The format of a journal that was closed: all of it is in the database."""

LOGGED_FORMAT_VERSION = 3
"""The format while the log may hold commits that the database lacks. A release that knows no log
refuses it, and reads the journal again after it was closed.
"""

SEALED_FORMAT_VERSION = 4
SEALED_LOGGED_FORMAT_VERSION = 5
"""The same two of a journal whose values are encrypted (decision 30)."""

_TABLE = """
CREATE TABLE sealing (
    wrapped_by TEXT NOT NULL,
    salt BLOB NOT NULL,
    wrapped BLOB NOT NULL,
    mac BLOB NOT NULL
)
"""


class JournalSealing:
    """One journal's encryption, on or off. Its owner runs the transactions and serializes the
    calls.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, keys: KeyRing | None) -> None:
        self._connection = connection
        self._path = path
        self._keys = keys
        self._sealing: Sealing | None = None

    @property
    def is_on(self) -> bool:
        """Whether the journal is encrypted."""
        return self._sealing is not None

    def create(self, disk: str) -> None:
        """Make the data key of a new journal. Raises `KeysRefused`."""
        if self._keys is None:
            raise KeysRefused(
                f"{self._path} can't be encrypted without a key: set key_file or key_command"
            )
        key = new_data_key(self._keys, disk)
        self._connection.execute(_TABLE)
        self._connection.execute(
            "INSERT INTO sealing VALUES (?, ?, ?, ?)", (*_columns(key.wrapped), b"")
        )
        self._sealing = Sealing(key.data_key, disk)

    def begin(self, figures: Mapping[str, object], required: bool) -> None:
        """Unwrap the data key of an encrypted journal, and wrap it by the present key.

        `figures` are the table `meta`. Raises `KeysRefused`, or `Unsealable` if they are not what
        this journal wrote.
        """
        if figures["format"] not in (SEALED_FORMAT_VERSION, SEALED_LOGGED_FORMAT_VERSION):
            if required:
                raise KeysRefused(
                    f"{self._path} is not encrypted, and encrypt_journals is set. Nothing in it is "
                    "changed: to encrypt a cluster, restore a backup of it (docs/operations.md)"
                )
            return
        if self._keys is None:
            raise KeysRefused(
                f"{self._path} is encrypted: set key_file or key_command. Nothing in it is changed"
            )
        wrapped, mac = self._read()
        disk = str(figures["disk"])
        key = unwrapped_by(self._keys, wrapped, disk, str(self._path))
        self._sealing = Sealing(key.data_key, disk)
        if not hmac.compare_digest(mac, self._sealing.mac(figures.values())):
            raise Unsealable("the table meta was changed by somebody without the key")
        if wrapped.key_id != self._keys.current_id:
            key = wrapped_by(self._keys, key.data_key, disk)
            self._connection.execute(
                "UPDATE sealing SET wrapped_by = ?, salt = ?, wrapped = ?", _columns(key.wrapped)
            )

    def _read(self) -> tuple[WrappedKey, bytes]:
        query = "SELECT wrapped_by, salt, wrapped, mac FROM sealing"
        rows = self._connection.execute(query).fetchall()
        if len(rows) != 1:
            raise Unsealable(f"the table sealing has {len(rows)} rows instead of one")
        key_id, *rest = rows[0]
        if not isinstance(key_id, str) or not all(isinstance(part, bytes) for part in rest):
            raise Unsealable("the table sealing holds something else than was written")
        salt, wrapped, mac = rest
        return WrappedKey(key_id, salt, wrapped), mac

    def format(self, *, logged: bool) -> int:
        """The journal's format, while it is in use or when it was closed."""
        if self._sealing is None:
            return LOGGED_FORMAT_VERSION if logged else FORMAT_VERSION
        return SEALED_LOGGED_FORMAT_VERSION if logged else SEALED_FORMAT_VERSION

    def authenticate(self, figures: Iterable[object]) -> None:
        """Store a MAC of the table `meta`, in each transaction that changes it."""
        if self._sealing is not None:
            mac = self._sealing.mac(figures)
            self._connection.execute("UPDATE sealing SET mac = ?", (mac,))

    # -- writing ----------------------------------------------------------------------------------

    def rows(self, rows: Rows) -> Rows:
        """The rows as the database stores them."""
        sealing = self._sealing
        if sealing is None:
            return rows
        return {
            key: None if value is None else sealing.seal(row_place(key), value)
            for key, value in rows.items()
        }

    def contents(self, contents: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
        """The contents as the database stores them."""
        sealing = self._sealing
        if sealing is None:
            return dict(contents)
        return {
            name: None if data is None else sealing.seal(blob_place(name), data)
            for name, data in contents.items()
        }

    def commit(self, generation: int, number: int, body: bytes) -> bytes:
        """The body of a commit as the log stores it."""
        if self._sealing is None:
            return body
        return self._sealing.seal(commit_place(generation, number), body)

    # -- reading ----------------------------------------------------------------------------------

    def row(self, key: str, stored: bytes) -> bytes:
        """The value of a row. Raises `Unsealable`."""
        return stored if self._sealing is None else self._sealing.unseal(row_place(key), stored)

    def blob(self, sha256: str, stored: bytes) -> bytes:
        """The contents of that name. Raises `Unsealable`."""
        return stored if self._sealing is None else self._sealing.unseal(blob_place(sha256), stored)

    @property
    def unseal_commit(self) -> Unseal | None:
        """What decrypts the commits of a log, if they are encrypted."""
        sealing = self._sealing
        if sealing is None:
            return None
        return lambda generation, number, body: sealing.unseal(
            commit_place(generation, number), body
        )


def is_logged(format_version: int) -> bool:
    """Whether the log may hold commits that the database lacks."""
    return format_version in (LOGGED_FORMAT_VERSION, SEALED_LOGGED_FORMAT_VERSION)


def _columns(wrapped: WrappedKey) -> tuple[str, bytes, bytes]:
    return wrapped.key_id, wrapped.salt, wrapped.sealed
