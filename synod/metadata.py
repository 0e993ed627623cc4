"""Rules for what is kept with a file beside its bytes: content type, time, mode, meta.

The same rules hold for every door: headers of a PUT, members of a JSON body, the client library.
Text is UTF-8. A header carries the bytes of its UTF-8 as they are, so that what a client sends is
what every client gets; what a header can't carry, no door takes.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

META_PREFIX = "synod-meta-"
META_BYTES_MAX = 2048
CONTENT_TYPE_BYTES_MAX = 255
DEFAULT_CONTENT_TYPE = "application/octet-stream"

# The years 1 and 9999: what an HTTP date can say.
MODIFIED_MS_MIN = -62_135_596_800_000
MODIFIED_MS_MAX = 253_402_300_799_999

TOKEN = re.compile("[!#$%&'*+.^_`|~0-9a-z-]+")
"""A header's name in lower case (RFC 9110, section 5.6.2)."""

NO_FIELD_TEXT = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a header's value can't carry: control characters but the tab (RFC 9110, section 5.5), those
of C1 among them, which terminals obey; and what UTF-8 can't."""

FIELD_BLANKS = " \t"
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
        # Not those of other scripts: some of them become ASCII only by being in lower case.
        name = given.lower() if given.isascii() else given
        if not TOKEN.fullmatch(name):
            raise InvalidMetadata(
                f"meta name {clipped(given)} must be ASCII letters, digits and !#$%&'*+-.^_`|~, "
                "as it follows Synod-Meta- in a header"
            )
        _check_text(value, f"meta {clipped(given)}")
        if name in found:
            raise InvalidMetadata(f"meta {clipped(name)} is there twice: names have no case")
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
