"""Changes of a cluster's members, as a client asks for them and watches them.

It needs nothing but what `GET /v1/members` answers, so that the command line, programs and tests
agree on when a change is over.
"""

from collections.abc import Mapping
from typing import Any, Literal

Action = Literal["replace", "add", "remove"]
"""`replace` puts the disk on which a member runs now in the place of the one that it lost."""

REQUESTS: Mapping[Action, tuple[str, str]] = {
    "replace": ("POST", "/v1/members/{name}/replace"),
    "add": ("PUT", "/v1/members/{name}"),
    "remove": ("DELETE", "/v1/members/{name}"),
}
"""The method and the path that ask for each of them."""

_NONE = ("removed", "newcomer")
"""How a node stands that is no member. A removed acceptor that was not of the founding is as one
that was never added.
"""

Known = Mapping[str, Any]
"""What `GET /v1/members` answers."""


def group_of(known: Known, name: str) -> Known:
    """What changes with a node: the acceptors or, for other roles, the roster of their names."""
    group: Known = known["acceptors" if name.startswith("acceptor-") else "roster"]
    return group


def version_of(known: Known, name: str) -> int:
    """The version of the acceptors, or of the roster, that was named last."""
    return int(group_of(known, name)["newest"])


def member_of(known: Known, name: str) -> Known | None:
    """What is known of a node; `None`: nothing."""
    return next((one for one in known["members"] if one["name"] == name), None)


def has_begun(before: Known, now: Known, action: Action, name: str) -> bool:
    """Whether a change that was not there before is there now, so that it was begun, though the
    answer to the request that began it was lost.
    """
    return _is_named(now, action, name, before) and not _is_named(before, action, name, before)


def _is_named(known: Known, action: Action, name: str, before: Known) -> bool:
    member = member_of(known, name)
    if action == "remove":
        return member is None or member["standing"] in ("leaving", *_NONE)
    if member is None:
        return False
    if action == "add":
        return member["standing"] in ("joining", "member")
    former = member_of(before, name)
    return former is not None and member["disk"] != former["disk"]


def waits_for(known: Known, action: Action, name: str, asked_ms_ago: float) -> str:
    """What a change that has begun still waits for; empty: it is over, and can't be forgotten any
    more. `asked_ms_ago`: when it was asked for.
    """
    if whole := group_of(known, name)["waits_for"]:
        return str(whole)
    member = member_of(known, name)
    if action == "remove":
        if member is None or member["standing"] in _NONE:
            return ""
        return str(member["waits_for"] or "its removal to be reported")
    if member is None:
        return "it to be heard"
    if member["waits_for"]:
        return str(member["waits_for"])
    if member["age_ms"] is None or member["age_ms"] > asked_ms_ago:
        # An older heartbeat may be of the disk that it lost.
        return "its next heartbeat"
    return "" if member["standing"] == "member" else "it to be reported as a member"
