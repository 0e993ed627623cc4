"""What is kept with a file beside its bytes, and the headers that carry it."""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import NamedTuple

from actors.values import FileEntry
from gateway.fields import switch
from gateway.problems import INVALID_HEADER, Problem

META_PREFIX = "synod-meta-"
META_BYTES_MAX = 2048
CONTENT_TYPE_BYTES_MAX = 255
DEFAULT_CONTENT_TYPE = "application/octet-stream"

# The years 1 and 9999: what an HTTP date can say.
MODIFIED_MS_MIN = -62_135_596_800_000
MODIFIED_MS_MAX = 253_402_300_799_999

_SHA256_MEMBER = re.compile(r"(?:^|[ \t,])sha-256[ \t]*=[ \t]*:(?P<value>[A-Za-z0-9+/=]*):")
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}")


class Metadata(NamedTuple):
    """What a client said about a file; `modified_ms` is `None` if it left that to the gateway."""

    content_type: str
    modified_ms: int | None
    executable: bool
    meta: tuple[tuple[str, str], ...]


def metadata(fields: dict[str, str]) -> Metadata:
    """What the headers of a PUT say about the file. Raises `Problem`."""
    content_type = fields.get("content-type") or DEFAULT_CONTENT_TYPE
    if len(content_type) > CONTENT_TYPE_BYTES_MAX:
        raise Problem(
            INVALID_HEADER, f"Content-Type has more than {CONTENT_TYPE_BYTES_MAX} characters"
        )
    return Metadata(
        content_type,
        _modified_ms(fields),
        switch(fields, "synod-executable", default=False),
        _meta(fields),
    )


def entry_headers(entry: FileEntry) -> dict[str, str]:
    """The headers that describe a file, apart from its length."""
    headers = {
        "etag": f'"{entry.etag}"',
        "content-type": entry.content_type,
        "repr-digest": digest_header(entry.content.sha256),
        "last-modified": http_date(entry.modified_ms),
        "synod-modified": str(entry.modified_ms),
        "synod-version": str(entry.version),
        "accept-ranges": "bytes",
        # Files come from anybody who may write, and share their origin with Synod's own pages:
        # a browser may show them, but no script in them may act on the cluster.
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
        "cache-control": "no-cache",
    }
    if entry.executable:
        headers["synod-executable"] = "1"
    for name, value in entry.meta:
        headers[META_PREFIX + name] = value
    return headers


def http_date(modified_ms: int) -> str:
    """Milliseconds of Unix time as an HTTP date, which knows no less than seconds."""
    # What is stored may be from before the times were checked, and is served all the same.
    shown_ms = min(max(modified_ms, MODIFIED_MS_MIN), MODIFIED_MS_MAX)
    return format_datetime(datetime.fromtimestamp(shown_ms // 1000, UTC), usegmt=True)


def digest_header(sha256: str) -> str:
    """A SHA-256 in hexadecimal as a member of Repr-Digest (RFC 9530)."""
    return f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:"


def sha256_of_digest(value: str | None, name: str) -> str | None:
    """The SHA-256 in a Repr-Digest or Content-Digest, in hexadecimal. Raises `Problem`."""
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
        raise Problem(INVALID_HEADER, f"{name} holds no SHA-256: write sha-256=:<base64>:")
    return digest.hex()


def _modified_ms(fields: dict[str, str]) -> int | None:
    value = fields.get("synod-modified")
    if value is not None:
        if not _WHOLE_NUMBER.fullmatch(value):
            raise Problem(
                INVALID_HEADER,
                f"Synod-Modified must be milliseconds since 1970, not {value[:40]!r}",
            )
        modified_ms = int(value)
    elif (value := fields.get("last-modified")) is not None:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            raise Problem(
                INVALID_HEADER, f"Last-Modified must be an HTTP date, not {value[:60]!r}"
            ) from None
        modified_ms = int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()) * 1000
    else:
        return None
    if not MODIFIED_MS_MIN <= modified_ms <= MODIFIED_MS_MAX:
        raise Problem(INVALID_HEADER, "the modification time must lie in the years 1 to 9999")
    return modified_ms


def _meta(fields: dict[str, str]) -> tuple[tuple[str, str], ...]:
    found = []
    size = 0
    for name, value in fields.items():
        if name.startswith(META_PREFIX):
            key = name[len(META_PREFIX) :]
            if not key:
                raise Problem(INVALID_HEADER, "Synod-Meta- needs a name after the hyphen")
            found.append((key, value))
            size += len(key) + len(value)
    if size > META_BYTES_MAX:
        raise Problem(
            INVALID_HEADER,
            f"the Synod-Meta- headers have {size} bytes of names and values; "
            f"at most {META_BYTES_MAX} are kept",
        )
    found.sort()
    return tuple(found)
