"""What is kept with a file beside its bytes: one set of rules for every door, and the headers.

Text is UTF-8. A header carries the bytes of its UTF-8 as they are, so that what a client sends is
what every client gets; what a header can't carry, no door takes. Replicas keep the value of a
header as text with a character for each of its bytes, as they always have: `_stored_text` and
`_shown_text` are between.

Other versions and other programs may have stored what no door takes any more. It is served all the
same, in every answer in the same way: see `served`.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import NamedTuple

from actors.values import FileEntry
from gateway.http.headers import switch
from gateway.http.problems import INVALID_HEADER, Problem

META_PREFIX = "synod-meta-"
META_BYTES_MAX = 2048
CONTENT_TYPE_BYTES_MAX = 255
DEFAULT_CONTENT_TYPE = "application/octet-stream"

# The years 1 and 9999: what an HTTP date can say.
MODIFIED_MS_MIN = -62_135_596_800_000
MODIFIED_MS_MAX = 253_402_300_799_999

_SHA256_MEMBER = re.compile(r"(?:^|[ \t,])sha-256[ \t]*=[ \t]*:(?P<value>[A-Za-z0-9+/=]*):")
_SHA256 = re.compile("[0-9a-f]{64}")
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}")

_TOKEN = re.compile("[!#$%&'*+.^_`|~0-9a-z-]+")
"""A header's name in lower case (RFC 9110, section 5.6.2)."""

_NO_FIELD_TEXT = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a header's value can't carry: control characters but the tab (RFC 9110, section 5.5), those
of C1 among them, which terminals obey; and what UTF-8 can't."""

_AROUND = " \t"
"""No part of a header's value where it stands at an end of it."""


class InvalidMetadata(ValueError):
    """What was said about a file can't be kept; the message says why."""


class Metadata(NamedTuple):
    """What a client said about a file; `modified_ms` is `None` if it left that to the gateway.

    `meta` is in the order of the names, which are in lower case.
    """

    content_type: str
    modified_ms: int | None
    executable: bool
    meta: tuple[tuple[str, str], ...]

    @property
    def stored_meta(self) -> tuple[tuple[str, str], ...]:
        """`meta` as replicas keep it."""
        return tuple((name, _stored_text(value)) for name, value in self.meta)


class Served(NamedTuple):
    """What every answer shows of a stored file."""

    content_type: str
    modified_ms: int
    sha256: str
    """In hexadecimal; empty if what is stored is no SHA-256."""
    meta: tuple[tuple[str, str], ...]


def checked(
    content_type: str = "",
    modified_ms: int | None = None,
    executable: bool = False,
    meta: Iterable[tuple[str, str]] = (),
) -> Metadata:
    """What may be kept of what a client said, whichever door it came through.

    An empty content type is one that was not said. Raises `InvalidMetadata`.
    """
    if not content_type.isascii():
        raise InvalidMetadata(f"the content type must be ASCII, not {_clipped(content_type)}")
    _check_text(content_type, "the content type")
    if len(content_type) > CONTENT_TYPE_BYTES_MAX:
        raise InvalidMetadata(
            f"the content type has {len(content_type)} bytes; at most {CONTENT_TYPE_BYTES_MAX} "
            "are kept"
        )
    if modified_ms is not None and not MODIFIED_MS_MIN <= modified_ms <= MODIFIED_MS_MAX:
        raise InvalidMetadata("the modification time must lie in the years 1 to 9999")
    found: dict[str, str] = {}
    for given, value in meta:
        # Not those of other scripts: some of them become ASCII only by being in lower case.
        name = given.lower() if given.isascii() else given
        if not _TOKEN.fullmatch(name):
            raise InvalidMetadata(
                f"meta name {_clipped(given)} must be ASCII letters, digits and !#$%&'*+-.^_`|~, "
                "as it follows Synod-Meta- in a header"
            )
        _check_text(value, f"meta {_clipped(given)}")
        if name in found:
            raise InvalidMetadata(f"meta {_clipped(name)} is there twice: names have no case")
        found[name] = value
    size = sum(len(name) + len(value.encode()) for name, value in found.items())
    if size > META_BYTES_MAX:
        raise InvalidMetadata(
            f"meta has {size} bytes of names and values; at most {META_BYTES_MAX} are kept"
        )
    return Metadata(
        content_type or DEFAULT_CONTENT_TYPE, modified_ms, executable, tuple(sorted(found.items()))
    )


def metadata(fields: dict[str, str]) -> Metadata:
    """What the headers of a PUT say about the file. Raises `Problem`."""
    modified_ms = _modified_ms(fields)
    executable = switch(fields, "synod-executable", default=False)
    try:
        return checked(
            _text_of_field("Content-Type", fields.get("content-type", "")),
            modified_ms,
            executable,
            (
                (name[len(META_PREFIX) :], _text_of_field(name, value))
                for name, value in fields.items()
                if name.startswith(META_PREFIX)
            ),
        )
    except InvalidMetadata as error:
        raise Problem(INVALID_HEADER, f"{error}") from None


def served(entry: FileEntry) -> Served:
    """What answers show of a file. Of one that came through a door that is what the door took.

    Otherwise: a content type that no header can carry is `application/octet-stream`; a time is the
    nearest that a date can say; of meta, what no header can carry is U+FFFD, and what has no name
    that a header can have, or is beyond the limit, is left out.
    """
    sha256 = entry.content.sha256
    return Served(
        content_type=served_content_type(entry.content_type),
        modified_ms=min(max(entry.modified_ms, MODIFIED_MS_MIN), MODIFIED_MS_MAX),
        sha256=sha256 if _SHA256.fullmatch(sha256) else "",
        meta=_served_meta(entry.meta) if entry.meta else (),
    )


def mended(entry: FileEntry) -> FileEntry:
    """The file with what answers show of it in the place of what is stored; itself if that is the
    same.
    """
    shown = served(entry)
    kept = {
        "content_type": shown.content_type,
        "modified_ms": shown.modified_ms,
        "meta": tuple((name, _stored_text(value)) for name, value in shown.meta),
    }
    if all(getattr(entry, name) == value for name, value in kept.items()):
        return entry
    return entry.model_copy(update=kept)


def served_content_type(stored: str) -> str:
    """See `served`."""
    try:
        return checked(stored).content_type
    except InvalidMetadata:
        return DEFAULT_CONTENT_TYPE


def entry_headers(entry: FileEntry) -> dict[str, str]:
    """The headers that describe a file, apart from its length; to be sent as UTF-8."""
    shown = served(entry)
    headers = {
        "etag": f'"{entry.etag}"',
        "content-type": shown.content_type,
        "last-modified": http_date(shown.modified_ms),
        "synod-modified": str(shown.modified_ms),
        "synod-version": str(entry.version),
        "accept-ranges": "bytes",
        # Files come from anybody who may write, and share their origin with Synod's own pages:
        # a browser may show them, but no script in them may act on the cluster.
        "content-security-policy": "sandbox",
        "cache-control": "no-cache",
    }
    if shown.sha256:
        headers["repr-digest"] = digest_header(shown.sha256)
    if entry.executable:
        headers["synod-executable"] = "1"
    for name, value in shown.meta:
        headers[META_PREFIX + name] = value
    return headers


def http_date(modified_ms: int) -> str:
    """Milliseconds of Unix time as an HTTP date, which knows no less than seconds."""
    return format_datetime(datetime.fromtimestamp(modified_ms // 1000, UTC), usegmt=True)


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
        except (ValueError, OverflowError, TypeError, IndexError):
            # All but the first come of numbers and forms that no date has.
            raise Problem(
                INVALID_HEADER, f"Last-Modified must be an HTTP date, not {value[:60]!r}"
            ) from None
        modified_ms = int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()) * 1000
    else:
        return None
    return modified_ms


def _text_of_field(name: str, value: str) -> str:
    """The text that a field's bytes stand for; `value` has a character for each. Raises
    `InvalidMetadata`.
    """
    try:
        return value.strip(_AROUND).encode("latin-1").decode()
    except UnicodeError:
        raise InvalidMetadata(f"{name} is not UTF-8: {_clipped(value)}") from None


def _check_text(text: str, what: str) -> None:
    found = _NO_FIELD_TEXT.search(text)
    if found is not None:
        raise InvalidMetadata(f"{what} holds {found.group()!a}, which no header can carry")
    if text != text.strip(_AROUND):
        raise InvalidMetadata(f"{what} begins or ends with a space, which no header can carry")


def _stored_text(text: str) -> str:
    return text.encode().decode("latin-1")


def _shown_text(stored: str) -> str:
    try:
        return stored.encode("latin-1").decode()
    except UnicodeError:  # It is no UTF-8, or not even bytes: it came as text.
        return stored


def _served_meta(stored: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    shown: dict[str, str] = {}
    left = META_BYTES_MAX
    for given, kept in stored:
        name = given.lower() if given.isascii() else given
        value = _NO_FIELD_TEXT.sub("\N{REPLACEMENT CHARACTER}", _shown_text(kept)).strip(_AROUND)
        left -= len(name) + len(value.encode())
        if left < 0:
            break
        if _TOKEN.fullmatch(name) and name not in shown:
            shown[name] = value
    return tuple(sorted(shown.items()))


def _clipped(text: str) -> str:
    return f"{text[:60]!a}"
