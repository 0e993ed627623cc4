"""For whom a gateway makes a request: the administrator, the holder of an API token, or a user."""

from dataclasses import dataclass

from starlette.types import Scope

from actors.state.rights import EVERYTHING, Rights
from actors.values import Principal
from gateway.http.problems import FORBIDDEN, UNAUTHORIZED, Problem

CHALLENGE = {"www-authenticate": 'Bearer realm="synod"'}


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who sent a request. Without a `principal` it is the administrator.

    `rights` are those that the gateway has read when it checked the token or the session, which may
    be revoked since. So they only refuse early what would be refused anyway; what is allowed is
    decided by the replicas (docs/decisions/0027-principals.md).
    """

    principal: Principal | None
    rights: Rights
    expires: bool = False
    """Whether its token or session will expire."""
    rights_may_change: bool = False
    """Whether it may have got other rights since: a token without groups never does."""
    by_login: bool = False
    """Whether it has logged in, and so may log out."""
    token_behind: str = ""
    """The API token by whose secret it has logged in, if it has by one."""

    @property
    def token(self) -> str:
        """The id of its token or session; empty for the administrator."""
        return "" if self.principal is None else self.principal.token

    @property
    def owner(self) -> str:
        """The user, in all of its sessions, or the token; empty for the administrator."""
        return "" if self.principal is None else self.principal.owner

    @property
    def holder(self) -> str:
        """The user or the token, each in all of its sessions; empty for the administrator."""
        return self.token_behind or self.owner


ADMINISTRATOR = Caller(None, EVERYTHING)

_CALLER = "synod.caller"
_LOGIN = "synod.login"


def caller_of(scope: Scope) -> Caller:
    """Who sent the request. Raises `KeyError` if nobody has admitted it."""
    caller: Caller = scope[_CALLER]
    return caller


def is_admitted(scope: Scope) -> bool:
    """Whether it is known who sent the request."""
    return _CALLER in scope


def note_caller(scope: Scope, caller: Caller) -> None:
    """The request is admitted, for `caller`."""
    scope[_CALLER] = caller


def note_login(scope: Scope, owner: str) -> None:
    """The request asks for a session of `owner`, who exists: `@USER`, or a token's id."""
    scope[_LOGIN] = owner


def who_sent(scope: Scope) -> str:
    """The owner of the session that the request asks for, or of the credentials that it bore;
    empty for the administrator, and where neither is known.
    """
    owner: str = scope.get(_LOGIN, "")
    return owner or (caller_of(scope).owner if is_admitted(scope) else "")


def forbidden(detail: str) -> Problem:
    """The problem of a caller that lacks a right, which the detail names."""
    return Problem(FORBIDDEN, detail)


def unauthenticated() -> Problem:
    """The problem of a token or a session that was right once."""
    return Problem(
        UNAUTHORIZED,
        "this token or session was revoked, has expired or is not known",
        headers=CHALLENGE,
    )
