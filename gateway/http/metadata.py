"""A file's metadata: its form in headers, and its form in the replicas.

The rules for all ways in are those of `synod.metadata`. Replicas keep the value of a header as text
with a character for each of its bytes, as they always have: `_stored_text` and `_shown_text`
convert it.

Other versions and other programs may have stored metadata that would be refused today. The gateway
still serves it, and in the same way in every response: see `served`.
"""

import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

from actors.values import FileEntry
from gateway.http.headers import switch
from gateway.http.problems import INVALID_HEADER, Problem
from synod.headers import digest_header
from synod.metadata import (
    CONTENT_TYPE_BYTES_MAX,
    DEFAULT_CONTENT_TYPE,
    FIELD_BLANKS,
    META_BYTES_MAX,
    META_PREFIX,
    MODIFIED_MS_MAX,
    MODIFIED_MS_MIN,
    NO_FIELD_TEXT,
    TOKEN,
    InvalidMetadata,
    Metadata,
    checked,
    clipped,
)

_SHA256 = re.compile("[0-9a-f]{64}")
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}")


class Served(NamedTuple):
    """A stored file's metadata, as every response shows it."""

    content_type: str
    modified_ms: int
    sha256: str
    """In hexadecimal; empty if the stored value is no SHA-256."""
    meta: tuple[tuple[str, str], ...]


def metadata(fields: dict[str, str]) -> Metadata:
    """The metadata in the headers of a PUT. Raises `Problem`."""
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


def stored_meta(said: Metadata) -> tuple[tuple[str, str], ...]:
    """`said.meta` as replicas keep it."""
    return tuple((name, _stored_text(value)) for name, value in said.meta)


def served(entry: FileEntry) -> Served:
    """The metadata that responses show: for a file that was checked when it came in, what came in.

    Otherwise: a content type that no header can carry is `application/octet-stream`; a time is the
    nearest that a date can express; in meta, a character that no header can carry is U+FFFD, and an
    item whose name no header can have, or that is beyond the limit, is left out.
    """
    sha256 = entry.content.sha256
    return Served(
        content_type=served_content_type(entry.content_type),
        modified_ms=min(max(entry.modified_ms, MODIFIED_MS_MIN), MODIFIED_MS_MAX),
        sha256=sha256 if _SHA256.fullmatch(sha256) else "",
        meta=_served_meta(entry.meta) if entry.meta else (),
    )


def mended(entry: FileEntry) -> FileEntry:
    """The file with the metadata that responses show in place of the stored metadata; the same
    object if they are equal.
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
    return DEFAULT_CONTENT_TYPE if len(stored) > CONTENT_TYPE_BYTES_MAX else _content_type(stored)


@lru_cache(maxsize=256)
def _content_type(stored: str) -> str:
    try:
        return checked(stored).content_type
    except InvalidMetadata:
        return DEFAULT_CONTENT_TYPE


def entry_headers(entry: FileEntry) -> dict[str, str]:
    """The headers that describe a file, except its length; to be sent as UTF-8."""
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
    """Milliseconds of Unix time as an HTTP date, which has a resolution of a second."""
    return _date_of_second(modified_ms // 1000)


@lru_cache(maxsize=1024)
def _date_of_second(modified_s: int) -> str:
    return format_datetime(datetime.fromtimestamp(modified_s, UTC), usegmt=True)


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
        return value.strip(FIELD_BLANKS).encode("latin-1").decode()
    except UnicodeError:
        raise InvalidMetadata(f"{name} is not UTF-8: {clipped(value)}") from None


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
        value = NO_FIELD_TEXT.sub("\N{REPLACEMENT CHARACTER}", _shown_text(kept)).strip(
            FIELD_BLANKS
        )
        left -= len(name) + len(value.encode())
        if left < 0:
            break
        if TOKEN.fullmatch(name) and name not in shown:
            shown[name] = value
    return tuple(sorted(shown.items()))
