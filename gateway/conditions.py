"""Conditional and range requests: RFC 9110, sections 8.8.3, 13.1 and 14."""

import re

from actors.values import ALWAYS, Precondition
from gateway.problems import INVALID_HEADER, Problem

_TAG = re.compile('(?P<weak>W/)?"(?P<tag>[\x21\x23-\x7e\x80-\xff]*)"')
_SEPARATOR = re.compile(r"[ \t]*,[ \t,]*")
_ONE_RANGE = re.compile(r"bytes=[ \t]*(?P<first>[0-9]*)-(?P<last>[0-9]*)[ \t]*", re.IGNORECASE)

ANY = ("*",)


class Unsatisfiable(ValueError):
    """The range asked for lies outside of the content."""


def precondition(fields: dict[str, str]) -> Precondition:
    """What If-Match and If-None-Match ask for. Raises `Problem`.

    If-Match compares strongly, so weak tags never match; If-None-Match compares weakly.
    """
    match = fields.get("if-match")
    none_match = fields.get("if-none-match")
    if match is None and none_match is None:
        return ALWAYS
    return Precondition(
        if_match=None if match is None else _tags(match, "If-Match", weak_counts=False),
        if_none_match=(
            None if none_match is None else _tags(none_match, "If-None-Match", weak_counts=True)
        ),
    )


def holds(wanted: tuple[str, ...], tag: str) -> bool:
    """Whether the current `tag` is among the `wanted` ones."""
    return wanted == ANY or tag in wanted


def refuse_conditions(fields: dict[str, str], names: tuple[str, ...], why: str) -> None:
    """Refuses conditions that can't be kept: to ignore one could lose somebody's update."""
    for name in names:
        if name in fields:
            raise Problem(INVALID_HEADER, f"{name} is not supported here: {why}")


def byte_range(value: str | None, size: int) -> tuple[int, int] | None:
    """The bytes `start <= i < stop` that a Range header asks for, of a content of `size` bytes.

    `None`: send everything, because there is no range or not one of the form that is served.
    Raises `Unsatisfiable`.
    """
    if value is None:
        return None
    found = _ONE_RANGE.fullmatch(value)
    if found is None:
        return None
    first, last = found["first"], found["last"]
    if len(first) > 18 or len(last) > 18:
        raise Unsatisfiable(value[:60])
    if not first:
        if not last:
            return None
        if int(last) == 0 or size == 0:
            raise Unsatisfiable(value)
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise Unsatisfiable(value)
    return int(first), min(size, int(last) + 1) if last else size


def range_still_holds(if_range: str | None, tag: str) -> bool:
    """Whether a Range may be served, given If-Range. Dates never hold: they are not strong."""
    return if_range is None or if_range.strip() == f'"{tag}"'


def _tags(value: str, name: str, *, weak_counts: bool) -> tuple[str, ...]:
    text = value.strip(" \t,")
    if text == "*":
        return ANY
    tags: list[str] = []
    position = 0
    while position < len(text):
        found = _TAG.match(text, position)
        if found is None:
            raise Problem(
                INVALID_HEADER,
                f'{name} must be * or a list of quoted tags such as "12-0", not {value[:80]!r}',
            )
        # A quoted star is a tag like any other, and none of ours; unquoted it would mean "any".
        if (weak_counts or not found["weak"]) and found["tag"] != "*":
            tags.append(found["tag"])
        position = found.end()
        if position < len(text):
            separator = _SEPARATOR.match(text, position)
            if separator is None:
                raise Problem(INVALID_HEADER, f"{name} needs commas between its tags")
            position = separator.end()
    if not text:
        raise Problem(INVALID_HEADER, f"{name} is empty")
    return tuple(tags)
