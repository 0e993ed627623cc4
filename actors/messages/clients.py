"""Requests of gateways and their answers: commands, reads, and the leases that reads need."""

from typing import Literal

from pydantic import Field, model_validator

from actors.frozen import is_empty, is_none
from actors.numbers import Count
from actors.paxos.ballot import Ballot
from actors.principals import NAME_CHARS_MAX
from actors.store.changes import Change
from actors.values import (
    TOKEN_ID_CHARS_MAX,
    Command,
    Entry,
    Frozen,
    Grant,
    Outcome,
    Principal,
    is_path,
    paths_of,
)


class Submit(Frozen):
    """A command for the leader of `ballot`, and of that ballot only.

    The refusal of a proposer that does not lead under `ballot` is final: a ballot that was given up
    is never used again (design 3.1), so a late copy of this message can't be proposed either.
    """

    type: Literal["client.submit"] = "client.submit"
    ballot: Ballot
    command: Command

    @model_validator(mode="after")
    def _names_paths(self) -> "Submit":
        """Refuse invalid paths here, before they get into the log and so to every replica."""
        for path in paths_of(self.command.operation):
            if not is_path(path):
                raise ValueError(f"{path[:80]!a} is no path")
        return self

    @property
    def request(self) -> str:
        """The request's id."""
        return self.command.request


class Redirect(Frozen):
    """The refusal of a `Submit`: `ballot` does not lead and never will again.

    `never_proposed`: the ballot's owner, in the one incarnation that led under it, also never
    proposed this command under it. So no copy sent to this ballot can ever be in the log.
    """

    type: Literal["client.redirect"] = "client.redirect"
    session: str
    sequence: Count
    ballot: Ballot
    never_proposed: bool
    reason: str

    @property
    def request(self) -> str:
        """The request's id."""
        return f"{self.session}-{self.sequence}"


class Result(Frozen):
    """A decided command's outcome, to the node that waits for it."""

    type: Literal["client.result"] = "client.result"
    session: str
    sequence: Count
    outcome: Outcome

    @property
    def request(self) -> str:
        """The request's id."""
        return f"{self.session}-{self.sequence}"


class LeaseAsk(Frozen):
    """A store asks for a read lease."""

    type: Literal["lease.ask"] = "lease.ask"
    number: Count


class LeaseGrant(Frozen):
    """The store may serve reads for `duration_ms` from its sending of `number`, less the margin.

    It holds for this disk as added at `added_slot`, once the store has applied that slot.
    """

    type: Literal["lease.grant"] = "lease.grant"
    number: Count
    epoch: Count
    disk: str
    added_slot: Count
    duration_ms: Count


class ReadRequest(Frozen):
    """A read of an `entry`, a `list` (names after `after`), a command's `result`, or `changes`; of
    the principal's own `access`, or of the `tokens`, `users`, `groups` or `logins` that it may see;
    of the `quotas` at and below a path.

    The store answers by the rights of `principal` in the state that it reads from; without one, by
    those of the administrator, who alone reads a `credential`: the token, the login, or after an
    `@` the user, named `path`.

    A linearizable read needs the store's lease; a `stale` one any state at or above `at_least`.
    A `result` is always linearizable. `changes` are those from slot `at_least` on; the store waits
    a while for the first of them, and needs no lease.
    """

    type: Literal["read.request"] = "read.request"
    number: Count
    what: Literal[
        "entry",
        "list",
        "result",
        "changes",
        "access",
        "tokens",
        "credential",
        "quotas",
        "users",
        "groups",
        "logins",
    ]
    path: str = ""
    session: str = ""
    sequence: Count = 0
    after: str = ""
    limit: Count = 1000
    consistency: Literal["linearizable", "stale"] = "linearizable"
    at_least: Count = 0
    principal: Principal | None = Field(None, exclude_if=is_none)


ReadStatus = Literal[
    "found",
    "absent",
    "not_served",
    "running",
    "forgotten",
    "unknown_session",
    "denied",
    "unauthenticated",
]


class TokenInfo(Frozen):
    """A token, or a login, as principals see it; `sha256`, of its secret, is for gateways alone.
    `left_ms` is what is left of its life, in log time; `None`: it does not expire.

    Asked for one's `access`, and for a `credential`, the grants are all that it has, those of its
    groups and of whom it acts for among them; else they are a token's own.
    """

    token: str = Field(max_length=TOKEN_ID_CHARS_MAX)
    slot: Count
    label: str
    grants: tuple[Grant, ...]
    created_by: str
    left_ms: Count | None
    sha256: str = ""
    groups: tuple[str, ...] = Field((), exclude_if=is_empty)
    login: "LoginInfo | None" = Field(None, exclude_if=is_none)
    """What there is to say about a login."""


class LoginInfo(Frozen):
    """For whom a login acts, and how much is left of its life in log time, if it is not used."""

    user: str | None
    token: str | None
    idle_ms: Count
    idle_left_ms: Count


class UserInfo(Frozen):
    """A user as principals see it; `password`, its hash of the version `password_set`, is for
    gateways alone.
    """

    user: str = Field(max_length=NAME_CHARS_MAX)
    slot: Count
    grants: tuple[Grant, ...]
    groups: tuple[str, ...]
    created_by: str
    has_password: bool
    password: str = Field("", exclude_if=is_empty)
    password_set: str = Field("", exclude_if=is_empty)


class GroupInfo(Frozen):
    """A group as principals see it."""

    group: str = Field(max_length=NAME_CHARS_MAX)
    slot: Count
    grants: tuple[Grant, ...]
    created_by: str


class QuotaInfo(Frozen):
    """A quota of a path, and what is used of it; `None`: any number. `slot` set it."""

    path: str
    slot: Count
    entries_max: Count | None
    bytes_max: Count | None
    entries: Count
    bytes: Count


class ReadReply(Frozen):
    """The state at `applied`. `not_served`: this store can't answer, `detail` says why. `denied`:
    the principal may not read this; `unauthenticated`: its token is revoked or has expired.
    """

    type: Literal["read.reply"] = "read.reply"
    number: Count
    status: ReadStatus
    applied: Count
    entry: Entry | None = None
    children: tuple[Entry, ...] = ()
    changes: tuple[Change, ...] = ()
    more: bool = False
    outcome: Outcome | None = None
    detail: str = ""
    tokens: tuple[TokenInfo, ...] = Field((), exclude_if=is_empty)
    quotas: tuple[QuotaInfo, ...] = Field((), exclude_if=is_empty)
    users: tuple[UserInfo, ...] = Field((), exclude_if=is_empty)
    groups: tuple[GroupInfo, ...] = Field((), exclude_if=is_empty)
