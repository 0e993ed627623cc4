"""Signatures of backups: who may make one that a restore takes (Ed25519, RFC 8032).

A signature covers the manifest, which holds the SHA-256 of the rows, which name all contents by
their SHA-256. So it covers every byte that is restored. Keys are PEM files, as `openssl` and others
read and write them.
"""

import re
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from broker.keys import write_private
from gateway.backup.manifest import Manifest, Signature
from synod.errors import SynodError

_DOMAIN = b"synod backup manifest 2\n"
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\s*", re.DOTALL)
_FILE_BYTES_MAX = 64 * 1024


class SignatureRefused(SynodError):
    """A backup has no signature of a trusted key, or a key can't be used."""


class Signer:
    """A private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises `SignatureRefused`."""
        try:
            key = load_pem_private_key(_read(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise SignatureRefused(
                f"{path} holds no private Ed25519 key in PEM without a passphrase: make one with "
                "synod backup keygen"
            )
        return cls(key)

    @property
    def public_id(self) -> str:
        """The public key, in hexadecimal."""
        return _id_of(self._key.public_key())

    def sign(self, manifest: Manifest) -> Manifest:
        """The manifest with a signature of all that it says."""
        bare = manifest.model_copy(update={"signature": None})
        value = self._key.sign(_DOMAIN + bare.statement()).hex()
        signature = Signature(algorithm="ed25519", key=self.public_id, value=value)
        return bare.model_copy(update={"signature": signature})


class Trust:
    """The public keys whose backups are restored."""

    def __init__(self, keys: list[Ed25519PublicKey], *, unsigned: bool = False) -> None:
        """`unsigned` accepts backups without any signature too, but never a wrong one."""
        self._keys = {_id_of(key): key for key in keys}
        self._unsigned = unsigned

    @classmethod
    def load(cls, path: Path, *, unsigned: bool = False) -> Self:
        """The keys of a PEM file with one or more. Raises `SignatureRefused`."""
        found = []
        for pem in _PUBLIC.findall(_read(path)):
            try:
                key = load_pem_public_key(pem)
            except (ValueError, UnsupportedAlgorithm):
                continue
            if isinstance(key, Ed25519PublicKey):
                found.append(key)
        if not found:
            raise SignatureRefused(f"{path} holds no public Ed25519 key in PEM")
        return cls(found, unsigned=unsigned)

    def check(self, manifest: Manifest, where: Path) -> None:
        """Raises `SignatureRefused` unless one of the keys signed what the manifest says."""
        signature = manifest.signature
        if signature is None:
            if self._unsigned:
                return
            raise SignatureRefused(
                f"{where} is not signed, and only backups signed by a trusted key are restored. "
                "If you know where it comes from: --allow-unsigned"
            )
        key = self._keys.get(signature.key)
        if key is None:
            raise SignatureRefused(
                f"{where} is signed by key {signature.key}, which is not trusted; trusted: "
                f"{', '.join(self._keys)}"
            )
        try:
            key.verify(bytes.fromhex(signature.value), _DOMAIN + manifest.statement())
        except (InvalidSignature, ValueError):
            raise SignatureRefused(
                f"{where}: its signature by key {signature.key} does not match its manifest: it "
                "was changed after it was signed"
            ) from None


def new_signing_key(path: Path) -> tuple[Path, str]:
    """Make a key pair: the private one in `path`, the public one beside it with `.pub`.

    Returns the latter and the public key. Raises `SignatureRefused` if one of them exists already,
    or `OSError`.
    """
    public = path.with_name(path.name + ".pub")
    for taken in (path, public):
        if taken.exists() or taken.is_symlink():
            raise SignatureRefused(f"{taken} exists already, and no key is overwritten")
    key = Ed25519PrivateKey.generate()
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_private(public, pem)
    return public, _id_of(key.public_key())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_BYTES_MAX)
    except OSError as error:
        raise SignatureRefused(f"{path} can't be read: {error.strerror}") from None


def _id_of(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
