"""Text from anywhere on its way out: as JSON that no reader splits or chokes on, and for people.

Names, metadata and errors come from whoever may write, and local names are bytes that need not be
UTF-8 (Python holds those as lone surrogates, PEP 383).
"""

import json
import re
from collections.abc import Callable
from typing import Any

_SPLITS = "\x85\u2028\u2029"
"""What many readers of lines take for an end, beside what JSON escapes by itself."""

_INVISIBLE = "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"
"""What reorders the text around it, or can't be seen. Not the joiners that scripts need."""

_JSON_UNSAFE = re.compile(f"[\x7f-\x9f{_SPLITS}{_INVISIBLE}\ud800-\udfff]")
"""What JSON leaves as it is, and a reader of lines or a terminal would not."""

_UNSEEN = re.compile(f"[\x00-\x1f\x7f-\x9f{_SPLITS}{_INVISIBLE}\ud800-\udfff]")


def json_text(
    value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None
) -> str:
    """`value` as JSON: on one line by every reader's idea of lines, unless `indent` is given, and
    encodable as UTF-8. A byte of a local name that is not UTF-8 is written as `\\\\xff`.
    """
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        value, ensure_ascii=False, indent=indent, separators=separators, default=default
    )
    return _JSON_UNSAFE.sub(_in_json, text)


def visible(text: str, *, lines: bool = False) -> str:
    """`text` for people: what a terminal would obey, and what would disguise other text, is
    escaped as Python writes it. With `lines` the ends of lines stay.
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
