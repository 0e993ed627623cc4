"""Entity tags as conditions name them (RFC 9110, sections 8.8.3 and 13.1).

Headers, members of JSON bodies and the client library name tags through one parser. A body may
also name a tag without its quotation marks, and several tags as a list.
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
    """What should name tags does not; the message says what would."""


class Tag(NamedTuple):
    """An entity tag, without its quotation marks."""

    weak: bool
    opaque: str

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.opaque}"'


Named = Literal["*"] | tuple[Tag, ...]
"""What a condition names: any version, or some."""


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
