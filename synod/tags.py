"""Entity tags in conditions (RFC 9110, sections 8.8.3 and 13.1).

One parser reads them from headers, JSON bodies and the client library. A body may also give a tag
without its quotation marks, and several tags as a list.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

_TAG = re.compile('(?P<weak>W/)?"(?P<tag>[\x21\x23-\x7e\x80-\U0010ffff]*)"')
_BARE_TAG = re.compile("(?P<tag>[A-Za-z0-9][A-Za-z0-9._-]*)(?=[ \t,]|$)")
_SEPARATOR = re.compile(r"[ \t]*,[ \t,]*")

Tags = str | list[str] | None
"""Tags in a JSON body or of the client library: `*`, a tag, or several."""


class InvalidTags(ValueError):
    """A condition holds no valid tags; the message shows what would be valid."""


class Tag(NamedTuple):
    """An entity tag, without its quotation marks."""

    weak: bool
    opaque: str

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.opaque}"'


Named = Literal["*"] | tuple[Tag, ...]
"""The versions that a condition accepts: any, or those with one of the tags."""


def tags_of(given: str | Sequence[str], name: str) -> Named:
    """As `read_tags`; tags may also lack quotation marks or come as a list."""
    text = given if isinstance(given, str) else ", ".join(given)
    return read_tags(text, name, bare=True)


def conditions_header(given: str | Sequence[str], name: str) -> str:
    """The value of the header with the same tags as `given`. Raises `InvalidTags`."""
    tags = tags_of(given, name)
    return tags if tags == "*" else ", ".join(map(str, tags))


def current_tag(header: str) -> str:
    """The tag in an ETag header, without its quotation marks; empty if there is none.

    A proxy that compresses marks the tag as weak; it still names the same version.
    """
    found = _TAG.fullmatch(header.strip())
    return found["tag"] if found else ""


def read_tags(value: str, name: str, *, bare: bool = False) -> Named:
    """The tags in the condition `name`; only `bare` allows tags without quotation marks. Raises
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
