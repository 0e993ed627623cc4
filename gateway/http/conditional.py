"""Conditional requests: RFC 9110, sections 8.8.3 and 13.1."""

from actors.values import ALWAYS, Precondition
from gateway.http.problems import INVALID_HEADER, INVALID_REQUEST, Problem
from synod.tags import InvalidTags, Named, Tags, read_tags, tags_of

ANY = ("*",)


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
