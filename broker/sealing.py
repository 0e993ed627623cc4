"""Encryption of what a journal holds: values of rows, contents and commits (AES-256-GCM).

A journal has a random data key, kept in it wrapped by a key from elsewhere (`broker.keys`). Each
opening of the journal encrypts under a key of its own, derived from the data key and a random salt,
and counts its values: so no nonce is used twice with one key, also if a copy of an older folder is
opened again. Each value authenticates its journal (the disk's identity) and its place in it.
Decision 30 says what is not hidden.
"""

import hmac
import secrets
import struct
from collections.abc import Iterable
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.keys import KEY_BYTES, KeyRing, WrappedKey, derive

SEALED_BYTES = 16 + 8 + 16
"""By so much a value becomes longer: salt, count and tag."""

_SALT_BYTES = 16
_HEAD = struct.Struct(">16sQ")
_OPENINGS_KEPT = 64
"""Derived keys of former openings in memory; deriving one takes some 20 µs."""


class Unsealable(ValueError):
    """A value was not encrypted by this journal for this place."""


class SealedKey(NamedTuple):
    """A journal's data key with what opened it."""

    data_key: bytes
    wrapped: WrappedKey


class Sealing:
    """Encrypts for one opening of one journal, and decrypts what all openings wrote. Its owner
    serializes `seal`; the others may be called from any thread.
    """

    def __init__(self, data_key: bytes, disk: str) -> None:
        self._data_key = data_key
        self._disk = disk.encode()
        self._macs = derive(data_key, b"", b"synod journal meta")
        self._salt = secrets.token_bytes(_SALT_BYTES)
        self._aead = self._derived(self._salt)
        self._count = 0
        self._former: dict[bytes, AESGCM] = {}

    def seal(self, place: str, value: bytes) -> bytes:
        """Encrypt a value for its place."""
        head = _HEAD.pack(self._salt, self._count)
        # Counted before it is used: whatever fails, no nonce comes back.
        self._count += 1
        return head + self._aead.encrypt(_nonce(head), value, self._associated(place))

    def unseal(self, place: str, sealed: bytes) -> bytes:
        """The value. Raises `Unsealable`."""
        head = sealed[: _HEAD.size]
        if len(head) < _HEAD.size:
            raise Unsealable("it is no encrypted value")
        salt = head[:_SALT_BYTES]
        aead = self._aead if salt == self._salt else self._of_former(salt)
        try:
            return aead.decrypt(_nonce(head), sealed[_HEAD.size :], self._associated(place))
        except (InvalidTag, ValueError):
            raise Unsealable(
                "it can't be decrypted: it was changed, or moved here from another place"
            ) from None

    def mac(self, fields: Iterable[object]) -> bytes:
        """A MAC of the journal's figures about itself."""
        text = b"\0".join(str(field).encode() for field in fields)
        return hmac.digest(self._macs, text, "sha256")

    def _associated(self, place: str) -> bytes:
        return self._disk + b" " + place.encode()

    def _of_former(self, salt: bytes) -> AESGCM:
        found = self._former.get(salt)
        if found is None:
            if len(self._former) >= _OPENINGS_KEPT:
                self._former.clear()
            found = self._former[salt] = self._derived(salt)
        return found

    def _derived(self, salt: bytes) -> AESGCM:
        return AESGCM(derive(self._data_key, salt, b"synod journal values"))


def row_place(key: str) -> str:
    """The place of a row's value."""
    return f"row {key}"


def blob_place(sha256: str) -> str:
    """The place of contents."""
    return f"blob {sha256}"


def commit_place(generation: int, number: int) -> str:
    """The place of a commit in the log of an opening."""
    return f"commit {generation} {number}"


def new_data_key(keys: KeyRing, disk: str) -> SealedKey:
    """A random data key for a new journal."""
    return wrapped_by(keys, secrets.token_bytes(KEY_BYTES), disk)


def wrapped_by(keys: KeyRing, data_key: bytes, disk: str) -> SealedKey:
    """The data key, wrapped by the first of the keys."""
    return SealedKey(data_key, keys.wrap(data_key, _purpose(disk)))


def unwrapped_by(keys: KeyRing, wrapped: WrappedKey, disk: str, what: str) -> SealedKey:
    """The data key of a journal. Raises `KeysRefused`."""
    return SealedKey(keys.unwrap(wrapped, _purpose(disk), what), wrapped)


def _purpose(disk: str) -> bytes:
    return b"synod journal " + disk.encode()


def _nonce(head: bytes) -> bytes:
    return bytes(4) + head[_SALT_BYTES:]
