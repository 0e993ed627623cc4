"""Pages of the audit, as gateways and other learners read them from a learner.

A record concerns what it names: whoever may administer that may read it. Of a move or a copy one
end may be hidden. A record that names no path is of the whole cluster.
"""

import json
from collections.abc import Callable
from typing import Any

from actors.learner.audit_log import AuditLog, Numbered
from actors.messages import AuditPage, AuditRead, AuditRecord
from actors.paging import Page
from actors.state.namespace import Namespace
from actors.state.rights import Rights, covers

_LOOKED_THROUGH_MAX = 4_096
"""How many records one request looks through: the learner does nothing else meanwhile, and records
of which few are wanted need many requests.
"""

HIDDEN = "…"
"""In place of a path or a group that the reader may not know."""

_OF_GRANTS = ("grants", "revoked")
_OF_GROUPS = ("groups", "joined", "left")
"""The fields of a record that hold grants, and those that hold names of groups."""

Select = Callable[[Numbered], AuditRecord | None]


def page_of(
    log: AuditLog,
    state: Namespace,
    message: AuditRead,
    page_bytes: int,
    *,
    for_copy: bool = False,
) -> AuditPage:
    """The records that `message` asks for, or that this learner is behind. `for_copy`: another
    learner asks, which also takes records before a gap.
    """
    reply = AuditPage(
        number=message.number,
        first=log.first,
        count=log.count,
        head=log.head,
        applied=state.applied,
        log_time_ms=state.log_time_ms,
    )
    if state.applied < message.at_least:
        return reply.model_copy(update={"behind": True})
    before = message.before or log.count + 1
    ascending = log.copyable if for_copy else log.ascending
    numbered = log.descending(before) if message.newest_first else ascending(message.after)
    select = _selection(message)
    page = Page(page_bytes)
    found: list[AuditRecord] = []
    previous, looked, more = "", 0, False
    through = before if message.newest_first else min(message.after, log.count)
    for record in numbered:
        if not message.after < record.number < before:
            break
        if looked >= _LOOKED_THROUGH_MAX or len(found) >= message.limit:
            more = True
            break
        shown = select(record)
        if shown is not None:
            if not page.takes(len(shown.text) + len(shown.hash)):
                more = True
                break
            found.append(shown)
        if not looked:
            previous = record.previous
        looked += 1
        through = record.number
    whole = looked == len(found) and not message.newest_first
    return reply.model_copy(
        update={
            "records": tuple(found),
            "previous": previous if whole else "",
            "through": through,
            "more": more,
        }
    )


def _selection(message: AuditRead) -> Select:
    """What of a record the reader gets; `None`: nothing."""
    rights = None if message.grants is None else Rights(message.grants)
    wants_all = (
        message.principal is None
        and not (message.prefix or message.operation or message.result or message.since_ms)
        and message.until_ms is None
    )
    if wants_all and (rights is None or rights.may("admin", "")):
        return lambda record: AuditRecord(text=record.line, hash=record.hash)

    def select(record: Numbered) -> AuditRecord | None:
        about: dict[str, Any] = json.loads(record.line)
        if not _is_wanted(about, message):
            return None
        if rights is None or rights.may("admin", ""):
            return AuditRecord(text=record.line, hash=record.hash)
        shown = _visible_part(about, rights)
        if shown is None:
            return None
        if shown == about:
            return AuditRecord(text=record.line, hash=record.hash)
        text = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
        return AuditRecord(text=text, hash="")

    return select


def _is_wanted(about: dict[str, Any], message: AuditRead) -> bool:
    """Whether the record is one of those that are asked for."""
    if message.principal is not None and (about["principal"] or "") != message.principal:
        return False
    if message.operation and about["operation"] != message.operation:
        return False
    if message.result and about["result"] != message.result:
        return False
    if about["log_time_ms"] < message.since_ms:
        return False
    if message.until_ms is not None and about["log_time_ms"] > message.until_ms:
        return False
    return not message.prefix or any(covers(message.prefix, path) for path in _paths(about))


def _paths(about: dict[str, Any]) -> list[str]:
    """The paths that a record names."""
    named = [about[key] for key in ("path", "source") if key in about]
    return named + [path for key in _OF_GRANTS for _, path in about.get(key, ())]


def _visible_part(about: dict[str, Any], rights: Rights) -> dict[str, Any] | None:
    """What of a record somebody with these rights may read; `None`: nothing."""
    if not any(rights.may("admin", path) for path in _paths(about)):
        return None

    def shown(path: str) -> str:
        return path if rights.may("read", path) else HIDDEN

    part = dict(about)
    for key in ("path", "source"):
        if key in part:
            part[key] = shown(part[key])
    for key in _OF_GRANTS:
        if key in part:
            part[key] = [[role, shown(path)] for role, path in part[key]]
    for key in _OF_GROUPS:
        # Which groups there are is known to their members, and to who may administer everything.
        if key in part:
            part[key] = [HIDDEN] * len(part[key])
    return part
