"""Range requests: RFC 9110, section 14."""

import re

# A list may have empty members (RFC 9110, section 5.6.1).
_ONE_RANGE = re.compile(r"bytes=[ \t,]*(?P<first>[0-9]*)-(?P<last>[0-9]*)[ \t,]*", re.IGNORECASE)
_POSITION_DIGITS = 18
"""Digits of a position: enough for any file, and few enough to parse."""


class Unsatisfiable(ValueError):
    """The requested range lies outside of the content."""


def byte_range(value: str | None, size: int) -> tuple[int, int] | None:
    """The bytes `start <= i < stop` that a Range header requests from `size` bytes of content.

    `None`: send everything, because there is no range or none of a supported form.
    Raises `Unsatisfiable`.
    """
    if value is None:
        return None
    found = _ONE_RANGE.fullmatch(value)
    if found is None:
        return None
    first, last = found["first"], found["last"]
    if not first:
        if not last:
            return None
        length = _position(last)
        # The last bytes of an empty content are an empty range, which Content-Range can't express.
        if length == 0 or size == 0:
            raise Unsatisfiable(value[:60])
        return max(0, size - length), size
    if last and _digits(last) < _digits(first):
        return None
    start = _position(first)
    if start >= size:
        raise Unsatisfiable(value[:60])
    return start, min(size, _position(last) + 1) if last else size


def _digits(number: str) -> tuple[int, str]:
    """A key that sorts like the number, with any number of digits."""
    digits = number.lstrip("0")
    return len(digits), digits


def _position(number: str) -> int:
    """The number; one with more digits is beyond the end of any file."""
    length, digits = _digits(number)
    return int(digits or "0") if length <= _POSITION_DIGITS else 10**_POSITION_DIGITS


def range_still_holds(if_range: str | None, tag: str) -> bool:
    """Whether to serve a Range, given If-Range. Dates never hold, because they are not strong."""
    return if_range is None or if_range.strip() == f'"{tag}"'
