"""Rules for a file's metadata: content type, modification time, mode, meta.

The same rules hold for all ways in: headers of a PUT, members of a JSON body, the client library.
Text is UTF-8. A header carries the bytes of its UTF-8 unescaped, so that every client receives
what one client sent; a value that a header can't carry is refused everywhere.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

META_PREFIX = "synod-meta-"
META_BYTES_MAX = 2048
CONTENT_TYPE_BYTES_MAX = 255
DEFAULT_CONTENT_TYPE = "application/octet-stream"

# The years 1 and 9999: the range of an HTTP date.
MODIFIED_MS_MIN = -62_135_596_800_000
MODIFIED_MS_MAX = 253_402_300_799_999

TOKEN = re.compile("[!#$%&'*+.^_`|~0-9a-z-]+")
"""A header's name in lower case (RFC 9110, section 5.6.2)."""

NO_FIELD_TEXT = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that a header's value can't carry: control characters except the tab (RFC 9110,
section 5.5), also those of C1, which terminals obey; and lone surrogates, which UTF-8 lacks."""

FIELD_BLANKS = " \t"
"""Not part of a header's value where they begin or end it."""


class InvalidMetadata(ValueError):
    """A file's metadata breaks a rule; the message says which one."""


class Metadata(NamedTuple):
    """A file's metadata as a client gave it; `modified_ms` is `None` if the gateway is to choose.

    `meta` is sorted by name; names are in lower case.
    """

    content_type: str
    modified_ms: int | None
    executable: bool
    meta: tuple[tuple[str, str], ...]


def checked(
    content_type: str = "",
    modified_ms: int | None = None,
    executable: bool = False,
    meta: Iterable[tuple[str, str]] = (),
) -> Metadata:
    """The normalized metadata. Raises `InvalidMetadata`.

    An empty content type stands for the default.
    """
    if not content_type.isascii():
        raise InvalidMetadata(f"the content type must be ASCII, not {clipped(content_type)}")
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
        # Only ASCII is lowered: some characters of other scripts become ASCII in lower case.
        name = given.lower() if given.isascii() else given
        if not TOKEN.fullmatch(name):
            raise InvalidMetadata(
                f"meta name {clipped(given)} must be ASCII letters, digits and !#$%&'*+-.^_`|~, "
                "as it follows Synod-Meta- in a header"
            )
        _check_text(value, f"meta {clipped(given)}")
        if name in found:
            raise InvalidMetadata(f"meta {clipped(name)} is given twice: names ignore case")
        found[name] = value
    size = sum(len(name) + len(value.encode()) for name, value in found.items())
    if size > META_BYTES_MAX:
        raise InvalidMetadata(
            f"meta has {size} bytes of names and values; at most {META_BYTES_MAX} are kept"
        )
    return Metadata(
        content_type or DEFAULT_CONTENT_TYPE, modified_ms, executable, tuple(sorted(found.items()))
    )


def clipped(text: str) -> str:
    """The beginning of `text`, quoted for a message."""
    return f"{text[:60]!a}"


def _check_text(text: str, what: str) -> None:
    found = NO_FIELD_TEXT.search(text)
    if found is not None:
        raise InvalidMetadata(f"{what} holds {found.group()!a}, which no header can carry")
    if text != text.strip(FIELD_BLANKS):
        raise InvalidMetadata(f"{what} begins or ends with a space, which no header can carry")
