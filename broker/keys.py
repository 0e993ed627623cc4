"""Keys that wrap data keys: from a file or a command, with rotation.

A *data key* is random and encrypts what is stored, a backup or a journal; it lies beside that,
wrapped by a *key* which lies elsewhere. So a new key rewraps 32 bytes and rewrites nothing else.

A file of keys, or the output of a command, holds one key a line (`#` begins a comment). The first
one wraps; all of them unwrap. To rotate: put a new key first, rewrap, remove the old one.
"""

import base64
import binascii
import os
import secrets
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broker.journal_folder import PRIVATE_FILE, JournalError, sync_folder

KEY_BYTES = 32
SALT_BYTES = 32
_PREFIX = "synod-key-1:"
_ID_BYTES = 8
_INPUT_BYTES_MAX = 64 * 1024
_COMMAND_TIMEOUT_S = 60
_ONLY_NONCE = bytes(12)


class KeysRefused(JournalError):
    """The keys can't be read, or none of them opens what is there. The text holds no key."""


class WrappedKey(NamedTuple):
    """A data key, encrypted. `key_id` names the key that did it."""

    key_id: str
    salt: bytes
    sealed: bytes


def derive(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    """A key for one purpose (HKDF with SHA-256, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=purpose).derive(key)


def key_id(key: bytes) -> str:
    """The public name of a key, which says nothing else about it."""
    return derive(key, b"", b"synod key id")[:_ID_BYTES].hex()


class KeyRing:
    """The keys of one installation."""

    def __init__(self, keys: Sequence[bytes], source: str) -> None:
        if not keys:
            raise KeysRefused(f"{source} holds no key: make one with synod keygen")
        self._keys = {key_id(key): key for key in keys}
        self._source = source

    @classmethod
    def load(cls, file: Path | None, command: str | None) -> Self | None:
        """The keys of the settings `key_file` and `key_command`; `None` if neither is set.

        Raises `KeysRefused`.
        """
        if file is not None:
            return cls.from_file(file)
        return None if command is None else cls.from_command(command)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Raises `KeysRefused`."""
        try:
            with path.open("rb") as file:
                raw = file.read(_INPUT_BYTES_MAX)
        except OSError as error:
            raise KeysRefused(f"key_file: {path} can't be read: {error.strerror}") from None
        return cls(_parse(raw, f"key_file: {path}"), f"key_file: {path}")

    @classmethod
    def from_command(cls, command: str) -> Self:
        """Run the command without a shell, and take what it prints. Raises `KeysRefused`."""
        source = "key_command"
        try:
            words = shlex.split(command)
        except ValueError:
            words = []
        if not words:
            raise KeysRefused(f"{source} is no command: {command!r}")
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=False,
                timeout=_COMMAND_TIMEOUT_S,
            )
        except OSError as error:
            raise KeysRefused(f"{source}: {words[0]} can't be run: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise KeysRefused(
                f"{source}: {words[0]} did not end within {_COMMAND_TIMEOUT_S} s"
            ) from None
        if done.returncode:
            raise KeysRefused(f"{source}: {words[0]} failed with code {done.returncode}")
        return cls(_parse(done.stdout[:_INPUT_BYTES_MAX], source), source)

    @property
    def current_id(self) -> str:
        """The key that wraps."""
        return next(iter(self._keys))

    def wrap(self, data_key: bytes, purpose: bytes) -> WrappedKey:
        """Encrypt a data key. `purpose` must be the same when it is unwrapped."""
        # Each salt makes a key that encrypts once, so its only nonce never repeats.
        salt = secrets.token_bytes(SALT_BYTES)
        once = derive(self._keys[self.current_id], salt, b"synod wrap")
        sealed = AESGCM(once).encrypt(_ONLY_NONCE, data_key, purpose)
        return WrappedKey(self.current_id, salt, sealed)

    def unwrap(self, wrapped: WrappedKey, purpose: bytes, what: str) -> bytes:
        """The data key. Raises `KeysRefused`, with `what` it is of."""
        key = self._keys.get(wrapped.key_id)
        if key is None:
            raise KeysRefused(
                f"{what} is encrypted, and its data key is wrapped by key {wrapped.key_id}; "
                f"{self._source} holds {', '.join(self._keys)}. Nothing is changed"
            )
        once = derive(key, wrapped.salt, b"synod wrap")
        try:
            return AESGCM(once).decrypt(_ONLY_NONCE, wrapped.sealed, purpose)
        except (InvalidTag, ValueError):
            raise KeysRefused(
                f"{what}: its data key can't be unwrapped by key {wrapped.key_id}: it was changed, "
                "or is another's"
            ) from None


def new_key(path: Path) -> str:
    """Put a new key at the head of the file, which is made if it is missing; returns its id.

    Raises `KeysRefused` if the file holds something else than keys, or `OSError`.
    """
    former = path.read_bytes() if path.exists() else b""
    if former:
        _parse(former, str(path))
    key = secrets.token_bytes(KEY_BYTES)
    line = f"{_PREFIX}{base64.urlsafe_b64encode(key).decode().rstrip('=')}\n".encode()
    write_private(path, line + former)
    return key_id(key)


def write_private(path: Path, data: bytes) -> None:
    """Write a file for its owner alone, durably, whole or not at all. Raises `OSError`."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, PRIVATE_FILE), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.absolute().parent)


def _parse(raw: bytes, source: str) -> list[bytes]:
    keys = []
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            if not text.startswith(_PREFIX):
                raise ValueError
            encoded = text.removeprefix(_PREFIX).encode()
            key = base64.b64decode(encoded + b"=", altchars=b"-_", validate=True)
            if len(key) != KEY_BYTES:
                raise ValueError
        except (ValueError, binascii.Error):
            raise KeysRefused(
                f"{source}: line {number} is no key of Synod ({_PREFIX}…): make one with synod "
                "keygen"
            ) from None
        keys.append(key)
    return keys
