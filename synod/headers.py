"""Header values that clients write and gateways read: the Idempotency-Key and SHA-256 digests."""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error

KEY_PATTERN = "[!-~]{1,255}"
_KEY = re.compile(KEY_PATTERN)

_SHA256_MEMBER = re.compile(r"(?:^|[ \t,])sha-256[ \t]*=[ \t]*:(?P<value>[A-Za-z0-9+/=]*):")


class InvalidDigest(ValueError):
    """The header names SHA-256 without a valid digest; the message shows the format."""


def is_key(text: str) -> bool:
    """Whether `text` can be an Idempotency-Key."""
    return _KEY.fullmatch(text) is not None


def digest_header(sha256: str) -> str:
    """A SHA-256 in hexadecimal as a member of Repr-Digest (RFC 9530)."""
    return f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:"


def sha256_of_digest(value: str | None, name: str) -> str | None:
    """The SHA-256 in a Repr-Digest or Content-Digest, in hexadecimal. Raises `InvalidDigest`."""
    if value is None:
        return None
    found = _SHA256_MEMBER.search(value)
    if found is None:
        return None  # Other algorithms may be ignored (RFC 9530, section 2).
    try:
        digest = b64decode(found["value"], validate=True)
    except Base64Error:
        digest = b""
    if len(digest) != 32:
        raise InvalidDigest(f"{name} holds no SHA-256: write sha-256=:<base64>:")
    return digest.hex()
