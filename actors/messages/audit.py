"""The audit: a gateway reads a learner's records; a learner copies those that it lacks."""

from typing import Literal

from pydantic import Field

from actors.numbers import Count
from actors.values import PATH_BYTES_MAX, Frozen, Grant

AUDIT_GRANTS_MAX = 1_024
"""The most grants by which a reader's records are selected."""


class AuditRead(Frozen):
    """A request for the records after number `after` and before number `before` (0: to the end),
    the newest first if `newest_first`, `limit` of them at most.

    Only those of `principal` (empty: the administrator), with a path at or below `prefix`, of the
    kind `operation`, with `result`, of log times from `since_ms` to `until_ms`; `None` or empty:
    any. With `grants`, only those that whoever has them may read. A learner that has not applied
    slot `at_least` answers `behind`.
    """

    type: Literal["audit.read"] = "audit.read"
    number: Count
    after: Count = 0
    before: Count = 0
    newest_first: bool = False
    limit: Count
    at_least: Count = 0
    principal: str | None = Field(None, max_length=256)
    prefix: str = Field("", max_length=PATH_BYTES_MAX)
    operation: str = Field("", max_length=64)
    result: str = Field("", max_length=64)
    since_ms: Count = 0
    until_ms: Count | None = None
    grants: tuple[Grant, ...] | None = Field(None, max_length=AUDIT_GRANTS_MAX)


class AuditRecord(Frozen):
    """A record: its line, and its hash. The hash is empty if the line hides something."""

    text: str
    hash: str


class AuditPage(Frozen):
    """The answer to an `AuditRead`: records from `first` to `count` are kept, and the hash of the
    last one is `head`. It stands at slot `applied`, at `log_time_ms`.

    All records up to `through` (newest first: down to it) were looked through; `more`: there are
    others. `previous` is the hash before the first of `records`, if none was left out.
    """

    type: Literal["audit.page"] = "audit.page"
    number: Count
    behind: bool = False
    records: tuple[AuditRecord, ...] = ()
    previous: str = ""
    through: Count = 0
    more: bool = False
    first: Count = 1
    count: Count = 0
    head: str = ""
    applied: Count
    log_time_ms: Count
