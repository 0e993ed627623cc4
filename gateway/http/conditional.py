"""Conditional and range requests: RFC 9110, sections 8.8.3, 13.1 and 14."""

import re

from actors.values import ALWAYS, Precondition
from gateway.http.problems import INVALID_HEADER, INVALID_REQUEST, Problem
from synod.tags import InvalidTags, Named, Tags, read_tags, tags_of

# A list may have empty members (RFC 9110, section 5.6.1).
_ONE_RANGE = re.compile(r"bytes=[ \t,]*(?P<first>[0-9]*)-(?P<last>[0-9]*)[ \t,]*", re.IGNORECASE)
_POSITION_DIGITS = 18
"""Digits of a position: enough for any file, and few enough to parse."""

ANY = ("*",)


class Unsatisfiable(ValueError):
    """The requested range lies outside of the content."""


def precondition(fields: dict[str, str]) -> Precondition:
    """The precondition in If-Match and If-None-Match. Raises `Problem`."""
    match, none_match = fields.get("if-match"), fields.get("if-none-match")
    if match is None and none_match is None:
        return ALWAYS
    try:
        return _precondition(
            None if match is None else read_tags(match, "If-Match"),
            None if none_match is None else read_tags(none_match, "If-None-Match"),
        )
    except InvalidTags as error:
        raise Problem(INVALID_HEADER, f"{error}") from None


def precondition_of_members(if_match: Tags, if_none_match: Tags, prefix: str = "") -> Precondition:
    """The precondition in members of a body whose names begin with `prefix`. Raises `Problem`."""
    if if_match is None and if_none_match is None:
        return ALWAYS
    try:
        return _precondition(
            None if if_match is None else tags_of(if_match, f"{prefix}if_match"),
            None if if_none_match is None else tags_of(if_none_match, f"{prefix}if_none_match"),
        )
    except InvalidTags as error:
        raise Problem(INVALID_REQUEST, f"{error}") from None


def holds(wanted: tuple[str, ...], tag: str) -> bool:
    """Whether the current `tag` is among the `wanted` ones."""
    return wanted == ANY or tag in wanted


def refuse_conditions(fields: dict[str, str], names: tuple[str, ...], why: str) -> None:
    """Refuses unsupported conditions: to ignore one could lose another client's update."""
    for name in names:
        if name in fields:
            raise Problem(INVALID_HEADER, f"{name} is not supported here: {why}")


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


def _precondition(match: Named | None, none_match: Named | None) -> Precondition:
    """If-Match compares strongly, so weak tags never match; If-None-Match compares weakly."""
    return Precondition(
        if_match=None if match is None else _opaque(match, weak_counts=False),
        if_none_match=None if none_match is None else _opaque(none_match, weak_counts=True),
    )


def _opaque(named: Named, *, weak_counts: bool) -> tuple[str, ...]:
    if named == "*":
        return ANY
    # A quoted star is a tag that no file has; without quotation marks it would mean "any".
    return tuple(tag.opaque for tag in named if (weak_counts or not tag.weak) and tag.opaque != "*")
