"""Encryption of a backup's files (AES-256-GCM) under one data key.

    | magic | salt | segment 0 | segment 1 | ... | last segment |

A file has a key of its own, derived from the data key and a random salt; a segment's nonce is its
index. So no nonce is used twice with one key, whoever wrote the file and how often. Segments
authenticate the file's label, their index, and the last one also the size of the whole: a file that
was cut short, whose segments were reordered, or which lies in another one's place can't be read.
"""

import hmac
import io
import os
import secrets
import struct
from typing import BinaryIO, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typing_extensions import Buffer

from broker.keys import KEY_BYTES, SALT_BYTES, KeyRing, WrappedKey, derive, key_id
from gateway.backup.manifest import Manifest, Sealed

_MAGIC = b"synodbk2"
_HEAD_BYTES = len(_MAGIC) + SALT_BYTES
_TAG_BYTES = 16
SEGMENT_BYTES = 64 * 1024
_PLACE = struct.Struct(">Q?Q")
_PURPOSE = b"synod backup"


class Vault:
    """The data key of a backup's folder, and what is done with it."""

    def __init__(self, data_key: bytes) -> None:
        self._data_key = data_key
        self._names = derive(data_key, b"", b"synod backup names")
        self._macs = derive(data_key, b"", b"synod backup manifest")
        self.id = key_id(data_key)

    @classmethod
    def new(cls) -> Self:
        """With a random data key."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def of(cls, sealed: Sealed, keys: KeyRing, what: str) -> Self:
        """The one of a backup. Raises `KeysRefused`, or `ValueError` if it is another's."""
        wrapped = WrappedKey(
            sealed.wrapped_by, bytes.fromhex(sealed.salt), bytes.fromhex(sealed.wrapped)
        )
        vault = cls(keys.unwrap(wrapped, _PURPOSE, what))
        if vault.id != sealed.data_key:
            raise ValueError("its wrapped data key is another backup's")
        return vault

    def seal_manifest(self, manifest: Manifest, keys: KeyRing) -> Manifest:
        """The manifest with the wrapped data key and a MAC."""
        wrapped = keys.wrap(self._data_key, _PURPOSE)
        sealed = Sealed(
            data_key=self.id,
            mac="0" * 64,
            wrapped_by=wrapped.key_id,
            salt=wrapped.salt.hex(),
            wrapped=wrapped.sealed.hex(),
        )
        said = manifest.model_copy(update={"sealed": sealed})
        right = sealed.model_copy(update={"mac": self._mac(said)})
        return said.model_copy(update={"sealed": right})

    def made(self, manifest: Manifest) -> bool:
        """Whether the manifest's MAC is this data key's."""
        sealed = manifest.sealed
        return sealed is not None and hmac.compare_digest(sealed.mac, self._mac(manifest))

    def _mac(self, manifest: Manifest) -> str:
        return hmac.digest(self._macs, manifest.statement(), "sha256").hex()

    def place_name(self, sha256: str) -> str:
        """The name of a chunk's file: the chunk's own name would tell what is in it."""
        return hmac.digest(self._names, sha256.encode(), "sha256").hex()

    def writer(self, file: BinaryIO, label: str) -> "SealedWriter":
        """What is written to it goes encrypted into the file, from its current place on."""
        salt = secrets.token_bytes(SALT_BYTES)
        file.write(_MAGIC + salt)
        return SealedWriter(file, self._aead(salt), label)

    def reader(self, file: BinaryIO, label: str) -> "SealedReader":
        """The decrypted contents of a whole file. Reading raises `ValueError` for what is not as it
        was written.
        """
        size = os.fstat(file.fileno()).st_size
        head = file.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES or not head.startswith(_MAGIC):
            raise ValueError("it is no encrypted file of a backup")
        return SealedReader(file, self._aead(head[len(_MAGIC) :]), label, size - _HEAD_BYTES)

    def _aead(self, salt: bytes) -> AESGCM:
        return AESGCM(derive(self._data_key, salt, b"synod backup file"))


class SealedWriter:
    """Encrypts a file segment by segment; `finish` writes the last one."""

    def __init__(self, file: BinaryIO, aead: AESGCM, label: str) -> None:
        self._file = file
        self._aead = aead
        self._label = label
        self._buffer = bytearray()
        self._segments = 0
        self._total = 0

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._total += len(data)
        self._buffer += data
        while len(self._buffer) > SEGMENT_BYTES:  # The last one may be full, but never empty.
            self._put(bytes(self._buffer[:SEGMENT_BYTES]), last=False)
            del self._buffer[:SEGMENT_BYTES]

    def finish(self) -> None:
        """Write the rest."""
        self._put(bytes(self._buffer), last=True)
        self._buffer.clear()

    def _put(self, segment: bytes, *, last: bool) -> None:
        place = _associated(self._label, self._segments, self._total if last else None)
        self._file.write(self._aead.encrypt(_nonce(self._segments), segment, place))
        self._segments += 1


class SealedReader(io.RawIOBase):
    """Decrypts a file segment by segment."""

    def __init__(self, file: BinaryIO, aead: AESGCM, label: str, sealed_bytes: int) -> None:
        super().__init__()
        self._file = file
        self._aead = aead
        self._label = label
        whole = SEGMENT_BYTES + _TAG_BYTES
        self._segments = max(1, -(-sealed_bytes // whole))
        self.size = sealed_bytes - self._segments * _TAG_BYTES
        """The number of decrypted bytes."""
        if self.size < 0:
            raise ValueError("it is too short")
        self._next = 0
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, into: Buffer) -> int:
        """As in `io`. Raises `ValueError`."""
        if not self._rest and self._next < self._segments:
            self._rest = self._segment()
        view = memoryview(into).cast("B")
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def _segment(self) -> bytes:
        index, self._next = self._next, self._next + 1
        last = index == self._segments - 1
        sealed = self._file.read(SEGMENT_BYTES + _TAG_BYTES)
        place = _associated(self._label, index, self.size if last else None)
        try:
            return self._aead.decrypt(_nonce(index), sealed, place)
        except (InvalidTag, ValueError):
            raise ValueError(
                f"part {index + 1} of {self._segments} can't be decrypted: it was changed, cut "
                "off, or put in another's place"
            ) from None


def sealed_size(size: int) -> int:
    """The bytes of a file with that many."""
    return _HEAD_BYTES + size + max(1, -(-size // SEGMENT_BYTES)) * _TAG_BYTES


def _associated(label: str, index: int, total: int | None) -> bytes:
    return _PLACE.pack(index, total is not None, total or 0) + label.encode()


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")
