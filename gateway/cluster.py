"""The gateway's side of its own client actor: typed calls that return or raise a `Problem`.

This is the one place that translates the actor's answers into responses to HTTP clients.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol
from urllib.parse import quote

from actors.calls import (
    NOTHING_READ,
    Absent,
    Call,
    ChangeBegun,
    ChangeNotBegun,
    CopiedPage,
    CopySnapshot,
    Fetch,
    FetchedChunk,
    GiveUp,
    HoldChunks,
    KeepChunks,
    MemberChange,
    NotDone,
    Read,
    ReadAudit,
    ReadDone,
    ReadLog,
    Survey,
    Surveyed,
    Unknown,
    Upload,
    Uploaded,
    Write,
    WriteDecided,
)
from actors.messages import Action, AuditPage, AuditRead, LogPage, ReadRequest, TokenInfo
from actors.state.rights import Need, Rights
from actors.values import IdempotencyKey, Operation, Outcome
from broker.local_calls import CallOutcomeUnknown, CallRefused
from broker.runtime import NodeHalted
from gateway.callers import CHALLENGE, Caller, forbidden, unauthenticated
from gateway.http.problems import (
    ABORTED,
    BUSY,
    CHANGE_REFUSED,
    CONFLICT,
    DISK_FULL,
    FORBIDDEN,
    KEY_REUSED,
    NOT_EMPTY,
    NOT_FOUND,
    OVER_QUOTA,
    PRECONDITION_FAILED,
    REQUEST_TOO_LARGE,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNKNOWN,
    Kind,
    Problem,
)
from gateway.readiness import Condition, condition_of

RETRY_AFTER = {"retry-after": "1"}

_GIVE_UP_S = 2.0
_GRACE_S = 5.0
"""The actor enforces the deadlines; the gateway gives up this much later, if the actor fails to."""

_NOTHING_SUBMITTED = "no command was submitted"

_UPLOAD_TIMEOUT_S = 120.0
_SURVEY_TIMEOUT_S = 2.0

_REFUSED: dict[str, Kind] = {
    "precondition_failed": PRECONDITION_FAILED,
    "not_found": NOT_FOUND,
    "conflict": CONFLICT,
    "not_empty": NOT_EMPTY,
    "key_reused": KEY_REUSED,
    "too_large": REQUEST_TOO_LARGE,
    "over_quota": OVER_QUOTA,
    "denied": FORBIDDEN,
    "unauthenticated": UNAUTHORIZED,
}

_ENDED = {
    "aborted": (ABORTED, "an Abort of this request is chosen in the log; it was decided"),
    "no_room": (DISK_FULL, "an Abort of this request is chosen in the log; it was decided"),
    "busy": (BUSY, "the log refuses it"),
}

_MAKE_ROOM = (
    "To make room, delete files that are not needed (deletions pass), or free the disk of "
    "something else; a file's room comes back some minutes after its deletion."
)

_REFUSED_DETAIL = {
    "precondition_failed": "",
    "not_found": "there is no file or directory of this name",
    "conflict": "there is a file where a directory is meant, or the reverse",
    "not_empty": "the directory holds something; remove it with ?recursive=true",
    "key_reused": "the Idempotency-Key belongs to another request; take a new one",
}


class ClusterPort(Protocol):
    """The host of this node's client actor, which takes the calls: `broker.runtime.NodeHost`.

    `make` makes the call from its token.
    """

    async def call(self, make: Callable[[int], Call], timeout_s: float | None = None) -> Any:
        """The actor's answer, within `timeout_s`.

        Raises `CallRefused`, `CallOutcomeUnknown`, `NodeHalted` or `TimeoutError`.
        """
        ...


class Cluster:
    """The cluster's operations, as the HTTP endpoints call them."""

    def __init__(
        self,
        port: ClusterPort,
        request_deadline_ms: int,
        broker_outage: Callable[[], str] = lambda: "",
    ) -> None:
        self._port = port
        self._deadline_s = request_deadline_ms / 1000 + _GRACE_S
        self.broker_outage = broker_outage
        """Why the broker can't be used at present; empty if it can."""

    async def write(
        self,
        caller: Caller,
        operation: Operation,
        key: IdempotencyKey | None,
        *,
        retry_aborted: bool,
    ) -> WriteDecided:
        """Run `operation` once for `caller`; returns only if it was done. Raises `Problem`."""

        tokens: list[int] = []

        def make(token: int) -> Write:
            tokens.append(token)
            return Write(
                token=token,
                operation=operation,
                idempotency=key,
                retry_aborted=retry_aborted,
                principal=caller.principal,
            )

        self._refuse_without_broker()
        try:
            try:
                answer = await self._port.call(make, self._deadline_s)
            except TimeoutError:
                # The actor would have given up itself, but without a broker no timer arrives.
                answer = await self._port.call(
                    lambda token: GiveUp(token=token, write=tokens[0]), _GIVE_UP_S
                )
        except CallRefused as error:
            raise _unavailable(NotDone(f"{error}", _NOTHING_SUBMITTED)) from None
        except (TimeoutError, CallOutcomeUnknown, NodeHalted):
            raise _unknown("", self.broker_outage()) from None
        if isinstance(answer, WriteDecided):
            if answer.outcome.status != "done":
                raise refused(answer.request, answer.outcome)
            return answer
        if isinstance(answer, Unknown):
            raise _unknown(answer.request, self.broker_outage())
        raise _unavailable(answer)

    async def read(self, caller: Caller, request: ReadRequest) -> ReadDone:
        """Ask a store, which answers by the rights of `caller`. Raises `Problem`."""
        if caller.principal is not None:
            request = request.model_copy(update={"principal": caller.principal})
        answer = await self._ask(lambda token: Read(token=token, request=request))
        if not isinstance(answer, ReadDone):
            raise _not_answered(answer)
        if answer.reply.status == "not_served":
            raise _not_answered(NotDone(answer.reply.detail, NOTHING_READ))
        if answer.reply.status == "unauthenticated":
            raise unauthenticated()
        if answer.reply.status == "denied":
            raise forbidden(answer.reply.detail)
        return answer

    async def rights_of(self, caller: Caller) -> Rights:
        """What the caller may do, by the current state. Raises `Problem`."""
        if caller.principal is None:
            return caller.rights
        return Rights((await self.access_of(caller)).grants)

    async def access_of(self, caller: Caller) -> TokenInfo:
        """The caller's token or session with all of its grants, by the current state; not for the
        administrator. Raises `Problem`.
        """
        reply = (await self.read(caller, ReadRequest(number=0, what="access"))).reply
        return reply.tokens[0]

    async def refuse_unless_may(self, caller: Caller, needs: Iterable[Need]) -> None:
        """Raise `Problem` if the caller certainly may not do this: before it costs anything."""
        rights = caller.rights
        lacking = [need for need in needs if not rights.may(need.role, need.path)]
        if lacking and caller.rights_may_change:
            rights = await self.rights_of(caller)
        for need in lacking:
            if not rights.may(need.role, need.path):
                raise forbidden(need.text)

    async def upload(self, sha256: str, data: bytes, *, manifest: bool) -> None:
        """Make a chunk durable on all stores. Raises `Problem`."""
        self._refuse_without_broker()
        answer = await self._bounded(
            lambda token: Upload(token=token, sha256=sha256, manifest=manifest, data=data),
            _UPLOAD_TIMEOUT_S,
        )
        if not isinstance(answer, Uploaded):
            raise _unavailable(answer)

    async def fetch(self, sha256: str) -> bytes | None:
        """A chunk, checked against its name; `None` if no store holds it. Raises `Problem`."""
        answer = await self._ask(lambda token: Fetch(token=token, sha256=sha256))
        if isinstance(answer, FetchedChunk):
            return answer.data
        if isinstance(answer, Absent):
            return None
        raise _not_answered(answer)

    async def read_log(self, before: int, limit: int, commands_max: int = 0) -> LogPage:
        """The newest chosen slots below `before` (0: of all), from a learner. Raises `Problem`."""
        answer = await self._ask(
            lambda token: ReadLog(
                token=token, before=before, limit=limit, commands_max=commands_max
            )
        )
        if not isinstance(answer, LogPage):
            raise _not_answered(answer)
        return answer

    async def read_audit(self, asked: AuditRead, learner: str = "") -> AuditPage:
        """Records of the audit, from `learner` or from any. Raises `Problem`."""
        answer = await self._ask(
            lambda token: ReadAudit(token=token, request=asked, learner=learner)
        )
        if not isinstance(answer, AuditPage):
            raise _not_answered(answer)
        return answer

    async def hold_chunks(self, for_ms: int) -> None:
        """Have the stores delete no chunk for `for_ms`. Raises `Problem`."""
        self._refuse_without_broker()
        await self._bounded(lambda token: HoldChunks(token=token, for_ms=for_ms))

    async def keep_chunks(self, names: tuple[str, ...], for_ms: int) -> None:
        """Have the stores keep the chunks, at most `KEEP_NAMES_MAX`, for `for_ms`. Raises
        `Problem`.
        """
        self._refuse_without_broker()
        await self._bounded(lambda token: KeepChunks(token=token, names=names, for_ms=for_ms))

    async def change_member(self, caller: Caller, action: Action, name: str) -> int:
        """Have a member replaced, added or removed; the version, of the acceptors or of the roster,
        that the leader has begun. Raises `Problem`.
        """
        self._refuse_without_broker()
        who = None if caller.principal is None else caller.principal.owner
        try:
            answer = await self._port.call(
                lambda token: MemberChange(token=token, action=action, name=name, principal=who),
                self._deadline_s,
            )
        except (TimeoutError, CallRefused, CallOutcomeUnknown, NodeHalted) as error:
            answer = ChangeNotBegun(f"{self._silence_reason(error)}; it may have begun", again=True)
        if isinstance(answer, ChangeNotBegun):
            raise Problem(CHANGE_REFUSED, answer.reason, fields={"again": answer.again})
        if not isinstance(answer, ChangeBegun):
            raise _unavailable(answer)
        return answer.version

    async def copy_snapshot(self, at_least: int, source: str, slot: int, page: int) -> CopiedPage:
        """A page of the whole state; see `CopySnapshot`. Raises `Problem`."""
        answer = await self._ask(
            lambda token: CopySnapshot(
                token=token, at_least=at_least, source=source, slot=slot, page=page
            )
        )
        if not isinstance(answer, CopiedPage):
            raise _not_answered(answer)
        return answer

    async def survey(self) -> Surveyed:
        """What this node has heard of the others; needs no broker. Raises `Problem`."""
        try:
            answer = await self._port.call(lambda token: Survey(token=token), _SURVEY_TIMEOUT_S)
        except (TimeoutError, CallRefused, CallOutcomeUnknown, NodeHalted) as error:
            raise _not_answered(NotDone(self._silence_reason(error), NOTHING_READ)) from None
        if not isinstance(answer, Surveyed):
            raise _not_answered(answer)
        return answer

    async def survey_founded(self) -> Surveyed:
        """`survey`, with the acceptors and the members. Raises `Problem`, also if this node does
        not know its cluster yet.
        """
        survey = await self.survey()
        if survey.members is None or survey.acceptors is None:
            raise _not_answered(NotDone("the gateway does not know its cluster yet", NOTHING_READ))
        return survey

    def condition(self, survey: Surveyed) -> Condition:
        """What the cluster can do now, from `survey` and this gateway's own connection."""
        return condition_of(survey, self.broker_outage())

    def _refuse_without_broker(self) -> None:
        """Raise `Problem` without a broker: without timers, the actor would never give up."""
        reason = self.broker_outage()
        if reason:
            raise _unavailable(NotDone(reason, _NOTHING_SUBMITTED))

    async def _ask(self, make: Callable[[int], Call]) -> Any:
        """A call that changes nothing. Raises `Problem`."""
        reason = self.broker_outage()
        if reason:
            raise _not_answered(NotDone(reason, NOTHING_READ))
        try:
            return await self._port.call(make, self._deadline_s)
        except (TimeoutError, CallRefused, CallOutcomeUnknown, NodeHalted) as error:
            raise _not_answered(NotDone(self._silence_reason(error), NOTHING_READ)) from None

    async def _bounded(self, make: Callable[[int], Call], seconds: float | None = None) -> Any:
        """A call that changes no file, so giving up on it is final. Raises `Problem`."""
        try:
            return await self._port.call(make, self._deadline_s if seconds is None else seconds)
        except (TimeoutError, CallRefused, CallOutcomeUnknown, NodeHalted) as error:
            raise _unavailable(NotDone(self._silence_reason(error), _NOTHING_SUBMITTED)) from None

    def _silence_reason(self, error: Exception) -> str:
        """Why a call got no answer; names the broker if that is the reason."""
        if isinstance(error, TimeoutError):
            return self.broker_outage() or "the gateway's own actor does not answer"
        return f"{error}"


def refused(request: str, outcome: Outcome) -> Problem:
    """The problem for a decided outcome other than `done`."""
    headers = {"synod-slot": str(outcome.slot)}
    if outcome.status == "unauthenticated":
        headers |= CHALLENGE
    fields: dict[str, Any] = {"slot": outcome.slot, "index": outcome.index}
    if request:
        headers["synod-request-id"] = request
        fields["request"] = request
    where = ""
    if outcome.step is not None:
        fields["step"] = outcome.step
        where = f"step {outcome.step}: "
    if outcome.path is not None:
        fields["path"] = outcome.path
        where += f"{outcome.path!r}: "
    kind = _REFUSED.get(outcome.status)
    if kind is not None:
        detail = outcome.detail or _REFUSED_DETAIL[outcome.status]
        if kind is PRECONDITION_FAILED:
            # The log keeps the current tag as the detail, or nothing if there is no file.
            fields["current_etag"] = outcome.detail or None
            detail = (
                f'the current version is "{outcome.detail}"'
                if outcome.detail
                else "the file does not exist"
            )
        return Problem(kind, where + detail, headers=headers, fields=fields)
    if outcome.status in ("forgotten", "unknown_session"):
        # This is the outcome of one copy of the command: an earlier copy may have been applied.
        return Problem(
            UNKNOWN,
            "the cluster no longer keeps the result of this request; read the file to see",
            headers=headers,
            fields=fields,
        )
    because = f" ({outcome.detail})" if outcome.detail else ""
    kind, fact = _ENDED[outcome.status]
    fact += f" at slot {outcome.slot}"
    detail = (
        f"The write did not happen and never will: {fact}{because}. Sending it again makes a "
        "new request, also with the same Idempotency-Key."
    )
    if kind is DISK_FULL:
        detail += f" {_MAKE_ROOM}"
    return Problem(
        kind, detail, headers={**headers, **RETRY_AFTER}, fields={**fields, "fact": fact}
    )


def _unavailable(answer: object) -> Problem:
    given = _not_done(answer)
    detail = f"Not accepted: {given.reason}. It did not happen and never will: {given.fact}."
    return Problem(
        DISK_FULL if given.no_room else UNAVAILABLE,
        f"{detail} {_MAKE_ROOM}" if given.no_room else detail,
        headers=RETRY_AFTER,
        fields={"reason": given.reason, "fact": given.fact},
    )


def _not_answered(answer: object) -> Problem:
    """As `_unavailable`, for a call that changes nothing."""
    given = _not_done(answer)
    return Problem(
        UNAVAILABLE,
        f"Not answered: {given.reason}. Nothing was changed: {given.fact}. Ask again later.",
        headers=RETRY_AFTER,
        fields={"reason": given.reason, "fact": given.fact},
    )


def _not_done(answer: object) -> NotDone:
    if not isinstance(answer, NotDone):
        raise TypeError(f"the client actor gave {type(answer).__name__}, which is no answer here")
    return answer


def _unknown(request: str, broker_outage: str) -> Problem:
    why = f"The write may or may not happen{': ' if broker_outage else ''}{broker_outage}."
    how = "Send it again with the same Idempotency-Key, or read the file"
    if not request:
        return Problem(UNKNOWN, f"{why} {how}.", headers=RETRY_AFTER)
    link = f"/v1/requests/{quote(request, safe='')}"
    return Problem(
        UNKNOWN,
        f"{why} Ask {link} what became of it. {how}.",
        headers={**RETRY_AFTER, "synod-request-id": request},
        fields={"request": request, "result": link},
    )
