"""Conditional and range requests: RFC 9110, sections 8.8.3, 13.1 and 14.

Headers, members of JSON bodies and the client library name tags through one parser. A body may
also name a tag without its quotation marks, and several tags as a list.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from actors.values import ALWAYS, Precondition
from gateway.http.problems import INVALID_HEADER, INVALID_REQUEST, Problem

_TAG = re.compile('(?P<weak>W/)?"(?P<tag>[\x21\x23-\x7e\x80-\U0010ffff]*)"')
_BARE_TAG = re.compile("(?P<tag>[A-Za-z0-9][A-Za-z0-9._-]*)(?=[ \t,]|$)")
_SEPARATOR = re.compile(r"[ \t]*,[ \t,]*")
# A list may have empty members (RFC 9110, section 5.6.1).
_ONE_RANGE = re.compile(r"bytes=[ \t,]*(?P<first>[0-9]*)-(?P<last>[0-9]*)[ \t,]*", re.IGNORECASE)
_POSITION_DIGITS = 18
"""Enough for any file, and few enough for any integer."""

ANY = ("*",)

Tags = str | list[str] | None
"""Tags in a JSON body or of the client library: `*`, a tag, or several."""


class InvalidTags(ValueError):
    """What should name tags does not; the message says what would."""


class Tag(NamedTuple):
    """An entity tag, without its quotation marks."""

    weak: bool
    opaque: str

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.opaque}"'


Named = Literal["*"] | tuple[Tag, ...]
"""What a condition names: any version, or some."""


class Unsatisfiable(ValueError):
    """The range asked for lies outside of the content."""


def precondition(fields: dict[str, str]) -> Precondition:
    """What If-Match and If-None-Match ask for. Raises `Problem`."""
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
    """What these members of a body ask for, whose names begin with `prefix`. Raises `Problem`."""
    if if_match is None and if_none_match is None:
        return ALWAYS
    try:
        return _precondition(
            None if if_match is None else tags_of(if_match, f"{prefix}if_match"),
            None if if_none_match is None else tags_of(if_none_match, f"{prefix}if_none_match"),
        )
    except InvalidTags as error:
        raise Problem(INVALID_REQUEST, f"{error}") from None


def tags_of(given: str | Sequence[str], name: str) -> Named:
    """As `read_tags`, of tags that may also come without quotation marks and as a list."""
    text = given if isinstance(given, str) else ", ".join(given)
    return read_tags(text, name, bare=True)


def conditions_header(given: str | Sequence[str], name: str) -> str:
    """The header that says the same as `tags_of` reads. Raises `InvalidTags`."""
    tags = tags_of(given, name)
    return tags if tags == "*" else ", ".join(map(str, tags))


def current_tag(header: str) -> str:
    """The tag in an ETag header, without its quotation marks; empty if there is none.

    A proxy that compresses marks the tag as weak; the version that it names is the same.
    """
    found = _TAG.fullmatch(header.strip())
    return found["tag"] if found else ""


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
    if not first:
        if not last:
            return None
        length = _position(last)
        # The last bytes of nothing are nothing, which no Content-Range can say.
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
    """Compares as the number does, of however many digits."""
    digits = number.lstrip("0")
    return len(digits), digits


def _position(number: str) -> int:
    """The number, or one beyond the end of any file: no more is meant by more digits."""
    length, digits = _digits(number)
    return int(digits or "0") if length <= _POSITION_DIGITS else 10**_POSITION_DIGITS


def range_still_holds(if_range: str | None, tag: str) -> bool:
    """Whether a Range may be served, given If-Range. Dates never hold: they are not strong."""
    return if_range is None or if_range.strip() == f'"{tag}"'


def read_tags(value: str, name: str, *, bare: bool = False) -> Named:
    """What the condition `name` names; without quotation marks only if `bare`. Raises
    `InvalidTags`.
    """
    text = value.strip(" \t,")
    if text == "*":
        return "*"
    if not text:
        raise InvalidTags(f"{name} is empty")
    tags: list[Tag] = []
    position = 0
    while position < len(text):
        found = _TAG.match(text, position)
        if found is not None:
            tags.append(Tag(found["weak"] is not None, found["tag"]))
        elif bare and (found := _BARE_TAG.match(text, position)) is not None:
            tags.append(Tag(weak=False, opaque=found["tag"]))
        else:
            raise InvalidTags(
                f'{name} must be * or a list of quoted tags such as "12-0", not {value[:80]!a}'
            )
        position = found.end()
        if position < len(text):
            separator = _SEPARATOR.match(text, position)
            if separator is None:
                raise InvalidTags(f"{name} needs commas between its tags")
            position = separator.end()
    return tuple(tags)


def _precondition(match: Named | None, none_match: Named | None) -> Precondition:
    """If-Match compares strongly, so weak tags never match; If-None-Match compares weakly."""
    return Precondition(
        if_match=None if match is None else _opaque(match, weak_counts=False),
        if_none_match=None if none_match is None else _opaque(none_match, weak_counts=True),
    )


def _opaque(named: Named, *, weak_counts: bool) -> tuple[str, ...]:
    if named == "*":
        return ANY
    # A quoted star is a tag like any other, and none of ours; unquoted it would mean "any".
    return tuple(tag.opaque for tag in named if (weak_counts or not tag.weak) and tag.opaque != "*")
