"""The shapes of the gateway's JSON responses, for the type checker and for `/openapi.json`.

At run time they are plain dictionaries, so a shape costs a response nothing.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, GetPydanticSchema
from typing_extensions import TypedDict

from actors.store.changes import ChangeKind
from actors.values import Role, Status, View
from gateway.http.member_schemas import Acceptors, MemberItem, RosterStatus
from gateway.readiness import ReadAvailability, WriteAvailability
from observability.events import Mode

_ViewJson = Annotated[
    dict[str, Any], GetPydanticSchema(lambda _source, handler: handler.generate_schema(View))
]

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Etag = Annotated[str, Field(description="Without the quotation marks that it has in headers.")]


# -- files and directories ------------------------------------------------------------------------


class Done(TypedDict):
    """A write that was done; `retried` if the gateway sent it once more after an abort."""

    request: str
    slot: int
    retried: bool


class FileWritten(Done):
    """A file that was created or replaced."""

    path: str
    created: bool
    etag: Etag
    sha256: Sha256


class DirectoryMade(TypedDict):
    """A directory that is there; `created` tells whether it was missing."""

    path: str
    created: bool
    request: str
    slot: int


class FileItem(TypedDict):
    """A file in a listing."""

    kind: Literal["file"]
    name: str
    path: str
    slot: int
    etag: Etag
    version: int
    size: int
    sha256: Sha256
    content_type: str
    modified_ms: int
    executable: bool
    meta: dict[str, str]


class DirectoryItem(TypedDict):
    """A directory in a listing."""

    kind: Literal["directory"]
    name: str
    path: str
    slot: int


class Listing(TypedDict):
    """A page of a directory in the order of names; `next` is what to ask `after` for the rest."""

    path: str
    slot: int
    entries: list[FileItem | DirectoryItem]
    next: str | None


class Transferred(Done):
    """A move or a copy that was done."""

    source: str
    target: str
    created: bool
    etag: Etag


class TransactionDone(Done):
    """A transaction that was done; `steps` is how many steps it had."""

    steps: int
    etag: Etag


# -- requests, traces, the log --------------------------------------------------------------------


class RequestItem(TypedDict):
    """A request to this gateway; `status` is null in flight, and 0 if the caller went away."""

    number: int
    request: str | None
    method: str
    route: str
    path: str
    status: int | None
    started_us: int
    duration_us: int


class Requests(TypedDict):
    """The newest requests first."""

    requests: list[RequestItem]


class RequestResult(TypedDict):
    """The result of a write; everything after `state` is there once it is decided."""

    request: str
    state: Literal["running", "decided"]
    result: NotRequired[Status]
    slot: NotRequired[int]
    index: NotRequired[int]
    created: NotRequired[bool]
    detail: NotRequired[str]
    step: NotRequired[int]
    path: NotRequired[str]
    etag: NotRequired[Etag]


class Stage(TypedDict):
    """A part of a write's time; each begins where the last one ended."""

    name: Literal["queue", "journal", "quorum", "vote", "answer"]
    start_us: int
    end_us: int


# "from" is a keyword.
TraceEvent = TypedDict(
    "TraceEvent",
    {
        "time_us": int,
        "node": str,
        "kind": Literal["sent", "received", "committed", "timer"],
        "type": str,
        "from": str | None,
        "to": str | None,
        "slot": int | None,
        "ballot": str | None,
        "epoch": int | None,
        "message_id": str | None,
        "summary": str,
        "duration_us": int | None,
        "content": dict[str, Any],
    },
)


class RequestTrace(TypedDict):
    """The trace of one request, message by message."""

    request: str
    complete: bool
    traced: bool
    slot: int | None
    started_us: int | None
    duration_us: int | None
    stages: list[Stage]
    events: list[TraceEvent]


class TracedRequest(TypedDict):
    """A request of which something was recorded."""

    request: str
    slot: int | None
    time_us: int
    complete: bool


class Traces(TypedDict):
    """What is recorded, the newest requests, and the newest events that belong to no slot."""

    mode: Mode
    all_until_us: int | None
    requests: list[TracedRequest]
    events: list[TraceEvent]
    dropped: int


class LogCommandItem(TypedDict):
    """A command of a slot; `outcome` is null while the slot is open."""

    request: str
    operation: str
    path: str
    outcome: Literal["aborted", "decided"] | None


SlotOutcome = Literal["undecided", "committed", "aborted", "partly aborted"]


class LogItem(TypedDict):
    """A slot of the log."""

    slot: int
    epoch: int
    ballot: str | None
    accepted_by: list[str]
    kind: Literal["batch", "view", "abort", "noop", "members", "settled", "roster"]
    outcome: SlotOutcome
    commands: list[LogCommandItem]
    commands_count: int
    summary: str


class Log(TypedDict):
    """A page of the log, newest first; `next` is what to ask `before` for the next page."""

    entries: list[LogItem]
    decided: int
    first_kept: int
    next: int | None


# -- the cluster ----------------------------------------------------------------------------------


class NodeStatus(TypedDict):
    """A node; what follows `in_view` is of its last heartbeat, and missing if none came. `votes`:
    whether an acceptor runs on a disk that counts.
    """

    name: str
    role: str
    seen: bool
    leader: bool
    coordinator: bool
    in_view: bool
    age_ms: NotRequired[int]
    disk: NotRequired[str]
    votes: NotRequired[bool]
    incarnation: NotRequired[int]
    applied: NotRequired[int]
    durable: NotRequired[int]
    chosen_through: NotRequired[int]
    state_hash: NotRequired[str]
    epoch: NotRequired[int | None]
    ballot: NotRequired[str | None]
    pending: NotRequired[int]
    in_doubt: NotRequired[int]
    journal_commits: NotRequired[int]
    halted: NotRequired[str]


class Leases(TypedDict):
    """The leader's lease, and the read leases that it granted."""

    ballot: str
    holder: str
    age_ms: int
    lease_ms: int
    left_ms: int
    read_left_ms: dict[str, int]


class GatewayLimits(TypedDict):
    """What this gateway takes, in bytes."""

    greatest_file_bytes: int
    inline_bytes: int
    chunk_bytes: int


class ReasonItem(TypedDict):
    """Why something can't be done, or what is amiss: a code that stays, and a text for people."""

    code: str
    detail: str


class ConditionItem(TypedDict):
    """What the cluster can do now, and why not."""

    writes: WriteAvailability
    reads: ReadAvailability
    reasons: list[ReasonItem]
    read_reasons: list[ReasonItem]
    warnings: list[ReasonItem]
    heard_ms: int | None


_Condition = Annotated[
    dict[str, Any],
    GetPydanticSchema(lambda _source, handler: handler.generate_schema(ConditionItem)),
]


class ClusterStatus(TypedDict):
    """The cluster as this gateway has heard of it."""

    cluster: str
    gateway: str
    ready: bool
    leader: str | None
    session: str | None
    view: _ViewJson | None
    acceptors: Acceptors | None
    roster: RosterStatus | None
    members: list[MemberItem]
    leases: Leases | None
    nodes: list[NodeStatus]
    condition: _Condition
    silent_ms: int
    limits: GatewayLimits


class Healthy(TypedDict):
    """This node is alive."""

    status: Literal["ok"]
    node: str


class Ready(TypedDict):
    """A write could start now."""

    status: Literal["ready"]
    node: str
    leader: str | None


# -- backups --------------------------------------------------------------------------------------


class FoundedWith(TypedDict):
    """Settings that a restored cluster is to have."""

    proposers: int
    acceptors: int
    learners: int
    stores: int
    lease_ms: int


class BackupBegun(TypedDict):
    """How far a copy must reach, and for how long no chunk is deleted."""

    cluster: str
    at_least: int
    hold_ms: int
    settings: FoundedWith


class BackupRows(TypedDict):
    """A page of the state's rows, each a key and a value."""

    source: str
    slot: int
    page: int
    rows_left: int
    digest: str
    rows: list[list[str]]


# -- events ---------------------------------------------------------------------------------------


class FileChange(TypedDict):
    """`event: change` of a watch. A move or a copy has a `source` and stands for all below it."""

    kind: ChangeKind
    slot: int
    index: int
    path: str
    source: NotRequired[str]
    size: NotRequired[int]
    content_type: NotRequired[str]
    etag: NotRequired[Etag]


class WatchReady(TypedDict):
    """`event: ready`, first: what follows changed after this slot."""

    slot: int
    prefix: str


class WatchReset(TypedDict):
    """`event: reset`: some changes may have been missed, so look at the files anew."""

    slot: int
    reason: str


class ClusterChange(TypedDict):
    """`event: change` of `/v1/events`."""

    time_us: int
    kind: Literal[
        "leader",
        "view",
        "coordinator",
        "node_silent",
        "node_back",
        "node_halted",
        "ready",
        "not_ready",
    ]
    node: str | None
    summary: str
    former: NotRequired[str | None]
    epoch: NotRequired[int]


class Figures(TypedDict):
    """`event: figures`, each second: this gateway's requests about files."""

    time_us: int
    writes_per_s: float
    reads_per_s: float
    write_p50_ms: float | None
    write_p99_ms: float | None
    in_flight: int
    leader: str | None
    epoch: int | None
    writes: WriteAvailability
    why: str | None


class TopicUnavailable(TypedDict):
    """Instead of a picture that could not be drawn."""

    problem: str


class History(TypedDict):
    """`event: history`, once and first, if `figures_after` is given."""

    figures: list[Figures]


# -- tokens --------------------------------------------------------------------------------------


class GrantItem(TypedDict):
    """A role on a path and all below it; the empty path is the root."""

    role: Role
    path: str


class TokenItem(TypedDict):
    """A token. `created_by` is the id of the token that made it; `null`: the administrator did.
    `expires_in_ms` is time in which the cluster has a leader; `null`: never.
    """

    id: str
    label: str
    grants: list[GrantItem]
    groups: list[str]
    created_by: Annotated[str | None, Field(description="A token's id, or `@` and a user.")]
    slot: int
    expires_in_ms: int | None


class TokenPage(TypedDict):
    """A page of tokens."""

    tokens: list[TokenItem]
    next: Annotated[str | None, Field(description="`after` of the next page.")]


class TokenCreated(TypedDict):
    """A token that was made. `token` is shown this once."""

    id: str
    token: str
    label: str
    grants: list[GrantItem]
    groups: list[str]
    expires_in_ms: int | None
    request: str
    slot: int


# -- users, groups, sessions ----------------------------------------------------------------------


class Changed(TypedDict):
    """A change that was made."""

    request: str
    slot: int


class UserItem(TypedDict):
    """A user, with its own grants."""

    name: str
    grants: list[GrantItem]
    groups: list[str]
    has_password: bool
    created_by: str | None
    slot: int


class UserPage(TypedDict):
    """A page of users."""

    users: list[UserItem]
    next: Annotated[str | None, Field(description="`after` of the next page.")]


class GroupItem(TypedDict):
    """A group."""

    name: str
    grants: list[GrantItem]
    created_by: str | None
    slot: int


class GroupPage(TypedDict):
    """A page of groups."""

    groups: list[GroupItem]
    next: Annotated[str | None, Field(description="`after` of the next page.")]


class SessionItem(TypedDict):
    """A session of a user or of an API token. Times are those in which the cluster has a leader."""

    id: str
    label: str
    user: str | None
    token: Annotated[str | None, Field(description="The id of the API token.")]
    slot: int
    idle_expires_in_ms: Annotated[int, Field(description="If it is not used.")]
    expires_in_ms: int
    current: Annotated[bool, Field(description="Whether the caller has this one.")]


class SessionPage(TypedDict):
    """A page of sessions."""

    sessions: list[SessionItem]
    next: Annotated[str | None, Field(description="`after` of the next page.")]


class LoggedIn(TypedDict):
    """A session that was made. `token` is shown this once."""

    id: str
    token: str
    user: str | None
    idle_ms: int
    expires_in_ms: int


class Access(TypedDict):
    """For whom a session acts, with all grants that it has."""

    name: Annotated[str | None, Field(description="The user; `null` for an API token's session.")]
    grants: list[GrantItem]
    groups: list[str]


class WhoAmI(TypedDict):
    """The caller: the administrator, a token, or a session."""

    administrator: bool
    token: TokenItem | None
    user: Access | None
    session: SessionItem | None


# -- problems -------------------------------------------------------------------------------------


class ProblemDocument(TypedDict):
    """An error (RFC 9457). Members beyond the first four depend on its type."""

    type: str
    title: str
    status: int
    detail: str
    fact: NotRequired[Annotated[str, Field(description="The durable fact that makes it final.")]]
    reason: NotRequired[str]
    request: NotRequired[Annotated[str, Field(description="As `Synod-Request-Id`.")]]
    result: NotRequired[Annotated[str, Field(description="Where to ask what became of it.")]]
    slot: NotRequired[int]
    index: NotRequired[int]
    step: NotRequired[Annotated[int, Field(description="Of a transaction, from 0.")]]
    path: NotRequired[str]
    current_etag: NotRequired[str | None]
    found: NotRequired[Literal["file", "directory"]]
    chunk: NotRequired[Sha256]
    greatest_file_bytes: NotRequired[int]
    reasons: NotRequired[list[ReasonItem]]
    again: NotRequired[Annotated[bool, Field(description="What is missing may come by itself.")]]


# -- the audit ------------------------------------------------------------------------------------


class AuditItem(TypedDict):
    """A record: a step of a command, or a change of the roster, or the beginning or the end of one
    of the acceptors.

    `principal` is `@USER`, or the id of a token or of a session that a token's secret opened;
    `null`: the administrator, or the gateway itself, or a leader. `first` is the place of the
    command's first copy, if this one is a retry. `hash` is
    `SHA-256(PREVIOUS LINE_FEED RECORD)` in hex, of the hash before it and of this object without
    `hash`, as compact JSON in UTF-8; `null`: something is hidden.
    """

    number: int
    slot: int
    index: int
    step: NotRequired[int]
    log_time_ms: int
    principal: str | None
    operation: str
    path: NotRequired[str]
    source: NotRequired[str]
    session: NotRequired[Annotated[str, Field(description="A gateway's own.")]]
    token: NotRequired[str]
    user: NotRequired[str]
    group: NotRequired[str]
    login: NotRequired[Annotated[str, Field(description="A session of a user or of a token.")]]
    grants: NotRequired[list[list[str]]]
    revoked: NotRequired[Annotated[list[list[str]], Field(description="Grants, as `grants`.")]]
    groups: NotRequired[list[str]]
    joined: NotRequired[list[str]]
    left: NotRequired[list[str]]
    new_password: NotRequired[bool]
    version: NotRequired[int]
    acceptors: NotRequired[list[list[str]]]
    members: NotRequired[Annotated[list[str], Field(description="Of the roster.")]]
    result: str
    first: NotRequired[str]
    request: str
    hash: str | None


class AuditRecords(TypedDict):
    """Records. The learner keeps those from `first` to `count`, and the last one's hash is `head`.

    It looked through all up to `through`, and has `more`. `previous` is the hash before the first
    of `records`, if none was left out between them.
    """

    records: list[AuditItem]
    previous: str | None
    through: int
    more: bool
    first: int
    count: int
    head: str
    slot: int
    log_time_ms: int


RefusalKind = Literal["refused", "login", "logout"]


class RefusalItem(TypedDict):
    """A request that the gateway refused, or a login or logout. `token` is the id of the token that
    it bore, right or not, or `@USER`. `suppressed_before`: how many were not kept since the one
    before.
    """

    number: int
    time: str
    kind: RefusalKind
    status: int
    reason: str | None
    method: str
    path: str
    address: str | None
    token: str | None
    suppressed_before: int


class RefusalPage(TypedDict):
    """The newest first; `suppressed` counts those that were not kept since the gateway started."""

    refusals: list[RefusalItem]
    suppressed: int


# -- quotas ---------------------------------------------------------------------------------------


class QuotaItem(TypedDict):
    """A quota of what lies below `path`, and what is used of it; `null`: any number. Bytes are
    those of contents.
    """

    path: str
    entries: int | None
    bytes: int | None
    used_entries: int
    used_bytes: int
    slot: int


class QuotaList(TypedDict):
    """Quotas, in the order of paths."""

    quotas: list[QuotaItem]


class QuotaSet(TypedDict):
    """A quota that was set."""

    path: str
    entries: int | None
    bytes: int | None
    request: str
    slot: int
