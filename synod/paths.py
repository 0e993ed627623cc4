"""Paths of files and directories: their rules, and their form in a URL.

Inside the system a path is text without a leading slash: `"a/b.txt"`; the root is `""`. A path
from a URL is decoded exactly once, from the raw bytes that the client sent, so that no proxy's or
framework's way of decoding can turn one name into another.
"""

import re
import unicodedata
from urllib.parse import quote, unquote_to_bytes

PATH_BYTES_MAX = 4096
"""The longest path, in bytes of UTF-8; replicas enforce the same limit."""

SEGMENT_BYTES_MAX = 255

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class InvalidPath(ValueError):
    """The path breaks a rule of the name space; the message says which one."""


def path_from_url(raw: bytes) -> str:
    """The path that `raw`, the percent-encoded part of a URL after the route, stands for.

    Raises `InvalidPath`. An empty `raw` is the root.
    """
    if b"%" not in raw:
        return checked_path(_text(raw))
    if _BROKEN_ESCAPE.search(raw):
        raise InvalidPath("a '%' in the URL is not followed by two hexadecimal digits")
    segments = []
    for segment in raw.split(b"/"):
        plain = unquote_to_bytes(segment)
        if b"/" in plain:
            raise InvalidPath("a name can't hold a slash, so %2F is refused")
        segments.append(_text(plain))
    return checked_path("/".join(segments))


def checked_path(path: str) -> str:
    """`path` itself, if it follows the rules. Raises `InvalidPath` otherwise."""
    if not path:
        return path
    try:
        size = len(path) if path.isascii() else len(path.encode())
    except UnicodeEncodeError:
        raise InvalidPath(f"{path!a} is not valid UTF-8") from None
    if size > PATH_BYTES_MAX:
        raise InvalidPath(f"the path has {size} bytes; at most {PATH_BYTES_MAX} are allowed")
    if (found := _CONTROL.search(path)) is not None:
        raise InvalidPath(f"control characters such as {found.group()!a} are refused in names")
    if not path.isascii() and not unicodedata.is_normalized("NFC", path):
        normal = unicodedata.normalize("NFC", path)
        raise InvalidPath(f"names must be in Unicode's normal form C: write {normal!a}")
    for segment in path.split("/"):
        _check_segment(segment)
    return path


def path_to_url(path: str) -> str:
    """The percent-encoded form of `path`, for use after a route."""
    return quote(path, safe="/")


def parent(path: str) -> str:
    """The directory that holds `path`; the root for a top-level name."""
    return path.rpartition("/")[0]


def child(directory: str, name: str) -> str:
    """The path of `name` in `directory`."""
    return f"{directory}/{name}" if directory else name


def _check_segment(segment: str) -> None:
    if segment in ("", ".", ".."):
        what = "an empty name" if not segment else f"the name {segment!r}"
        raise InvalidPath(f"{what} is refused; a path is names joined by single slashes")
    # A character has at most four bytes in UTF-8: short names need no encoding to be measured.
    if len(segment) * 4 > SEGMENT_BYTES_MAX:
        size = len(segment.encode())
        if size > SEGMENT_BYTES_MAX:
            raise InvalidPath(
                f"a name has {size} bytes; at most {SEGMENT_BYTES_MAX} are allowed: "
                f"{segment[:40]!a}…"
            )


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidPath(f"{raw[:60]!a} is not valid UTF-8") from None
