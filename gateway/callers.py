"""For whom a gateway makes a request: the administrator, or the holder of an API token."""

from dataclasses import dataclass

from starlette.types import Scope

from actors.state.rights import EVERYTHING, Need, Rights
from actors.values import Principal, Role
from gateway.http.problems import FORBIDDEN, UNAUTHORIZED, Problem

CHALLENGE = {"www-authenticate": 'Bearer realm="synod"'}


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who sent a request. Without a `principal` it is the administrator.

    `rights` are those that the gateway has read when it checked the token. They never change while
    the token lives, but it may be revoked since. So they only refuse early what would be refused
    anyway; what is allowed is decided by the replicas (docs/decisions/0027-principals.md).
    """

    principal: Principal | None
    rights: Rights
    expires: bool = False
    """Whether its token will expire."""

    @property
    def token(self) -> str:
        """The id of its token; empty for the administrator."""
        return "" if self.principal is None else self.principal.token

    def refuse_unless_may(self, role: Role, path: str) -> None:
        """Raise `Problem` if the caller certainly may not do this."""
        if not self.rights.may(role, path):
            raise forbidden(Need(role, path).text)


ADMINISTRATOR = Caller(None, EVERYTHING)

_CALLER = "synod.caller"


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


def forbidden(detail: str) -> Problem:
    """The problem of a caller that lacks a right, which the detail names."""
    return Problem(FORBIDDEN, detail)


def unauthenticated() -> Problem:
    """The problem of a token that was right once."""
    return Problem(
        UNAUTHORIZED, "this token was revoked, has expired or is not known", headers=CHALLENGE
    )
