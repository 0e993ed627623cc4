"""`GET /v1/audit`: the records of the audit, page by page, and `/v1/audit/refusals`.

The records are the learners' (`actors.learner.audit_log`); a page has every write that was
acknowledged before it was asked for. Who may administer a prefix gets the records about it, by the
rights that a linearizable read has shown.
"""

import asyncio
import json
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.messages import AuditPage, AuditRead, ReadRequest
from actors.principals import NAME_CHARS_MAX
from actors.state.rights import EVERYTHING, Need, Rights
from gateway.callers import ADMINISTRATOR, Caller, caller_of, forbidden
from gateway.cluster import Cluster
from gateway.http.headers import query_fields
from gateway.http.parameters import (
    AUDIT_AFTER,
    AUDIT_BEFORE,
    AUDIT_LEARNER,
    AUDIT_LIMIT,
    AUDIT_OPERATION,
    AUDIT_ORDER,
    AUDIT_PREFIX,
    AUDIT_PRINCIPAL,
    AUDIT_RESULT,
    AUDIT_SINCE,
    AUDIT_UNTIL,
    AUDIT_WAIT,
    REFUSALS_LIMIT,
)
from gateway.http.problems import INVALID_PATH, INVALID_QUERY, TOO_MANY_REQUESTS, Problem
from gateway.http.refusals import Refusals
from gateway.http.schemas import AuditItem, AuditRecords, RefusalPage
from synod.paths import InvalidPath, checked_path

_NO_STORE = {"cache-control": "no-store"}
_POLL_S = 0.5
_WAITING_MAX = 32
"""How many requests wait for new records at a time: each asks a learner twice a second."""

_PRINCIPAL_MAX = 1 + NAME_CHARS_MAX
"""That of a user is `@USER`."""

_LEARNER = re.compile(r"learner-[1-9][0-9]?")
_HOPS_MAX = 16
"""How many pages of a learner one request may look through, for records that are few."""


class AuditEndpoints:
    """The endpoints."""

    def __init__(self, cluster: Cluster, refusals: Refusals) -> None:
        self._cluster = cluster
        self._refusals = refusals
        self._waiting = 0
        self._ended = False

    def end(self) -> None:
        """Answer those that wait for new records."""
        self._ended = True

    async def audit(self, request: Request) -> Response:
        """A page of records. Raises `Problem`."""
        query = query_fields(request.scope)
        asked = _asked(query)
        caller = caller_of(request.scope)
        learner = AUDIT_LEARNER.of(query)
        wait_s = AUDIT_WAIT.of(query)
        at_least = await self._newest()
        asked = await self._permitted(caller, asked.model_copy(update={"at_least": at_least}))
        found = await self._look(asked, learner)
        if wait_s and not found["records"] and not asked.newest_first:
            found = await self._wait(caller, asked, learner, found, wait_s)
        return JSONResponse(found, headers=_NO_STORE)

    async def _wait(
        self, caller: Caller, asked: AuditRead, learner: str, found: AuditRecords, wait_s: int
    ) -> AuditRecords:
        """Wait for records, but not for ever. Raises `Problem`."""
        if self._waiting >= _WAITING_MAX:
            raise Problem(
                TOO_MANY_REQUESTS,
                f"{_WAITING_MAX} requests wait for records of the audit",
                headers={"retry-after": "1"},
            )
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            end_s = loop.time() + wait_s
            while not (found["records"] or self._ended) and loop.time() < end_s:
                await asyncio.sleep(_POLL_S)
                asked = asked.model_copy(update={"after": found["through"]})
                asked = await self._permitted(caller, asked)
                found = await self._look(asked, learner)
        finally:
            self._waiting -= 1
        return found

    async def _newest(self) -> int:
        """A slot that no write is behind which was acknowledged by now."""
        asked = ReadRequest(number=0, what="entry", path="")
        return (await self._cluster.read(ADMINISTRATOR, asked)).reply.applied

    async def _permitted(self, caller: Caller, asked: AuditRead) -> AuditRead:
        """The request with what the caller may read now. Raises `Problem`."""
        rights = await self._cluster.rights_of(caller)
        if not rights.may("admin", asked.prefix):
            raise forbidden(Need("admin", asked.prefix).text)
        grants = None if rights is EVERYTHING else rights.grants
        return asked.model_copy(update={"grants": grants})

    async def _look(self, asked: AuditRead, learner: str) -> AuditRecords:
        """The records that are asked for, of one or several pages of a learner."""
        items: list[AuditItem] = []
        previous: str | None = None
        hops = 0
        while True:
            page = await self._cluster.read_audit(asked, learner)
            hops += 1
            items += [_item(record.text, record.hash) for record in page.records]
            limit = asked.limit - len(page.records)
            if _is_whole(asked):
                previous = page.previous if page.records else None
                break
            if not page.more or limit <= 0 or hops == _HOPS_MAX:
                break
            on = {"before": page.through} if asked.newest_first else {"after": page.through}
            asked = asked.model_copy(update={**on, "limit": limit})
        return _body(page, items, previous)

    async def refusals(self, request: Request) -> Response:
        """What this gateway refused, and who logged in. Raises `Problem`."""
        limit = REFUSALS_LIMIT.of(query_fields(request.scope))
        rights = await self._cluster.rights_of(caller_of(request.scope))
        if not rights.may("admin", ""):
            raise forbidden(Need("admin", "").text)
        body: RefusalPage = {
            "refusals": self._refusals.newest(limit),
            "suppressed": self._refusals.suppressed,
        }
        return JSONResponse(body, headers=_NO_STORE)


def _asked(query: dict[str, str]) -> AuditRead:
    """The request to a learner. Raises `Problem`."""
    try:
        prefix = checked_path(AUDIT_PREFIX.of(query).removeprefix("/").removesuffix("/"))
    except InvalidPath as error:
        raise Problem(INVALID_PATH, f"{error}") from None
    principal = query.get(AUDIT_PRINCIPAL.key)
    texts = (AUDIT_OPERATION.of(query), AUDIT_RESULT.of(query))
    if any(len(text) > 64 for text in texts) or len(principal or "") > _PRINCIPAL_MAX:
        raise Problem(INVALID_QUERY, "operation, result and principal are short names")
    learner = AUDIT_LEARNER.of(query)
    if learner and not _LEARNER.fullmatch(learner):
        raise Problem(INVALID_QUERY, f"{learner[:40]!a} is no learner's name")
    until_ms = AUDIT_UNTIL.of(query) if AUDIT_UNTIL.key in query else None
    return AuditRead(
        number=0,
        after=AUDIT_AFTER.of(query),
        before=AUDIT_BEFORE.of(query),
        newest_first=AUDIT_ORDER.of(query) == "newest",
        limit=AUDIT_LIMIT.of(query),
        principal="" if principal == "administrator" else principal,
        prefix=prefix,
        operation=texts[0],
        result=texts[1],
        since_ms=AUDIT_SINCE.of(query),
        until_ms=until_ms,
    )


def _is_whole(asked: AuditRead) -> bool:
    """Whether no record is left out, so that the page is a part of the chain."""
    selects = asked.prefix or asked.operation or asked.result or asked.since_ms
    named = asked.principal is not None or asked.until_ms is not None
    everything = asked.grants is None or Rights(asked.grants).may("admin", "")
    return everything and not (selects or named or asked.newest_first)


def _item(text: str, hash: str) -> AuditItem:
    about: dict[str, Any] = json.loads(text)
    item: AuditItem = {**about, "hash": hash or None}  # type: ignore[typeddict-item]
    return item


def _body(page: AuditPage, items: list[AuditItem], previous: str | None) -> AuditRecords:
    return {
        "records": items,
        "previous": previous,
        "through": page.through,
        "more": page.more,
        "first": page.first,
        "count": page.count,
        "head": page.head,
        "slot": page.applied,
        "log_time_ms": page.log_time_ms,
    }
