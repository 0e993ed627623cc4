"""Makes untrusted text safe to print: as JSON that every reader parses as one line, and for people.

Names, metadata and errors come from any client that may write, and local names are bytes that need
not be UTF-8 (Python represents those as lone surrogates, PEP 383).
"""

import json
import re
from collections.abc import Callable
from typing import Any

_SPLITS = "\x85\u2028\u2029"
"""Characters that many readers take for line ends, besides those that JSON escapes itself."""

_INVISIBLE = "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"
"""Characters that reorder text, or are invisible; without the joiners that scripts need."""

_JSON_UNSAFE = re.compile(f"[\x7f-\x9f{_SPLITS}{_INVISIBLE}\ud800-\udfff]")
"""Characters that JSON does not escape, but that a reader of lines or a terminal interprets."""

_UNSEEN = re.compile(f"[\x00-\x1f\x7f-\x9f{_SPLITS}{_INVISIBLE}\ud800-\udfff]")


def json_text(
    value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None
) -> str:
    """`value` as JSON: one line for every reader, unless `indent` is given, and encodable as UTF-8.
    A byte of a local name that is not UTF-8 is written as `\\\\xff`.
    """
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        value, ensure_ascii=False, indent=indent, separators=separators, default=default
    )
    return _JSON_UNSAFE.sub(_in_json, text)


def visible(text: str, *, lines: bool = False) -> str:
    """`text` for people: control characters, and those that would disguise other text, are escaped
    as in Python. With `lines` line ends stay.
    """
    if text.isascii() and text.isprintable():
        return text
    if lines:
        return "\n".join(_UNSEEN.sub(_escaped, line) for line in text.split("\n"))
    return _UNSEEN.sub(_escaped, text)


def _in_json(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\\\x{code - 0xDC00:02x}"
    return "\N{REPLACEMENT CHARACTER}" if code >= 0xD800 else f"\\u{code:04x}"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
