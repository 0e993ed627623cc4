"""The headers and the query of a request, read once into plain dictionaries."""

from typing import Any
from urllib.parse import parse_qsl

from gateway.http.problems import INVALID_HEADER, INVALID_QUERY, Problem


def header_fields(scope: Any) -> dict[str, str]:
    """All header fields by lower-case name; repeated ones are joined (RFC 9110, section 5.3)."""
    fields: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1")
        value = raw_value.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def query_fields(scope: Any) -> dict[str, str]:
    """The query's parameters; the last of a repeated one counts. Raises `Problem`."""
    raw = scope["query_string"]
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=32
        )
    except ValueError:  # a UnicodeError is one, too
        raise Problem(INVALID_QUERY, "the query is not percent-encoded UTF-8") from None
    return dict(pairs)


def switch(fields: dict[str, str], name: str, *, default: bool) -> bool:
    """A header that is `1` or `0`. Raises `Problem`."""
    value = fields.get(name)
    if value is None:
        return default
    if value not in ("0", "1"):
        raise Problem(INVALID_HEADER, f"{name} must be 0 or 1, not {value[:40]!r}")
    return value == "1"


def number(query: dict[str, str], name: str, *, default: int, least: int, most: int) -> int:
    """A parameter that is a whole number from `least` to `most`. Raises `Problem`."""
    value = query.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal()):
        raise Problem(INVALID_QUERY, f"{name} must be a whole number, not {value[:40]!r}")
    digits = value.lstrip("0") or "0"
    # More digits than `most` has are more than it, and may be more than Python reads.
    if len(digits) > len(str(most)) or not least <= int(digits) <= most:
        raise Problem(INVALID_QUERY, f"{name} must be from {least} to {most}, not {value[:40]}")
    return int(digits)


def choice(query: dict[str, str], name: str, allowed: tuple[str, ...]) -> str:
    """A parameter out of `allowed`; the first one is the default. Raises `Problem`."""
    value = query.get(name, allowed[0])
    if value not in allowed:
        raise Problem(
            INVALID_QUERY, f"{name} must be one of {', '.join(allowed)}, not {value[:40]!r}"
        )
    return value
