"""Who may do what, by an arithmetic of the simulator's own: it shares no code with the policy.

It keeps what was done to users, groups, tokens and logins, and works out from that whether a
principal is still valid; nothing is removed when something else is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from actors.principals import (
    ChangeGroup,
    ChangeUser,
    CreateGroup,
    CreateLogin,
    CreateUser,
    RefreshLogin,
    RemoveGroup,
    RemoveUser,
    RevokeLogin,
)
from actors.values import (
    AnyOperation,
    AnyStep,
    Check,
    CopyEntry,
    CreateToken,
    DeleteFile,
    Grant,
    MakeDirectory,
    MoveEntry,
    Principal,
    PutFile,
    RemoveDirectory,
    RevokeToken,
    Transaction,
)

Place = tuple[int, int]
"""A slot, and a command in it."""

Pairs = tuple[tuple[str, str], ...]
"""Roles with paths."""


class _Token(NamedTuple):
    made: Place
    grants: Pairs
    expires_ms: int | None


@dataclass
class _User:
    grants: set[tuple[str, str]]
    groups: set[tuple[str, Place]]
    password: Place | None


@dataclass
class _Group:
    made: Place
    grants: set[tuple[str, str]]


@dataclass
class _Login:
    slot: int
    user: str | None
    token: str | None
    of: Place
    """The place of the command that set the password, or made the token."""
    idle_ms: int
    used_ms: int
    expires_ms: int


class RightsModel:
    """The policy after some slot."""

    def __init__(self) -> None:
        self._tokens: dict[str, _Token] = {}
        self._users: dict[str, _User] = {}
        self._groups: dict[str, _Group] = {}
        self._logins: dict[str, _Login] = {}

    def apply(
        self, operation: AnyOperation, by: Principal | None, place: Place, time_ms: int
    ) -> None:
        """An operation was done at this place of the log."""
        match operation:
            case CreateToken() as made:
                after_ms = made.expires_after_ms
                expires_ms = None if after_ms is None else time_ms + after_ms
                self._tokens[made.token] = _Token(place, _pairs(made.grants), expires_ms)
            case RevokeToken(token=token):
                del self._tokens[token]
            case CreateUser() as made:
                groups = {(name, self._groups[name].made) for name in made.groups}
                password = None if made.password is None else place
                self._users[made.user] = _User(set(_pairs(made.grants)), groups, password)
            case ChangeUser() as change:
                user = self._users[change.user]
                user.grants = user.grants - set(_pairs(change.revoke)) | set(_pairs(change.grant))
                user.groups = {one for one in user.groups if one[0] not in change.leave}
                user.groups |= {(name, self._groups[name].made) for name in change.join}
                user.password = user.password if change.password is None else place
            case RemoveUser(user=name):
                del self._users[name]
            case CreateGroup(group=name, grants=grants):
                self._groups[name] = _Group(place, set(_pairs(grants)))
            case ChangeGroup() as change:
                group = self._groups[change.group]
                group.grants = group.grants - set(_pairs(change.revoke))
                group.grants |= set(_pairs(change.grant))
            case RemoveGroup(group=name):
                del self._groups[name]
            case CreateLogin() as made:
                of = self._secret_of(made.user, made.token, time_ms)
                assert of is not None
                until_ms = time_ms + made.expires_after_ms
                self._logins[made.login] = _Login(
                    place[0], made.user, made.token, of, made.idle_ms, time_ms, until_ms
                )
            case RefreshLogin():
                assert by is not None
                self._logins[by.token].used_ms = time_ms
            case RevokeLogin(login=login):
                del self._logins[login]

    def _secret_of(self, user: str | None, token: str | None, time_ms: int) -> Place | None:
        """What a login for these would rest on, now."""
        if user is not None:
            return self._users[user].password if user in self._users else None
        held = self._tokens.get(f"{token}")
        if held is None or (held.expires_ms is not None and time_ms >= held.expires_ms):
            return None
        return held.made

    def may_log_in(self, made: CreateLogin, time_ms: int) -> bool:
        """Whether what a gateway has checked for this login is still in force."""
        of = self._secret_of(made.user, made.token, time_ms)
        if of is None:
            return False
        return made.checked == (f"{of[0]}-{of[1]}" if made.user is not None else str(of[0]))

    def grants_of(self, by: Principal, time_ms: int) -> Pairs | None:
        """All grants that the principal has; `None` if it is not valid."""
        login = self._logins.get(by.token)
        if login is not None and self._lives(login, by, time_ms):
            if login.token is not None:
                return self._tokens[login.token].grants
            user = self._users[f"{login.user}"]
            shared = [g.grants for n, g in self._groups.items() if (n, g.made) in user.groups]
            return tuple(sorted(user.grants.union(*shared)))
        token = self._tokens.get(by.token)
        if token is None or by.user is not None or token.made[0] > by.policy_slot:
            return None
        ended = token.expires_ms is not None and time_ms >= token.expires_ms
        return None if ended else token.grants

    def _lives(self, login: _Login, by: Principal, time_ms: int) -> bool:
        if login.slot > by.policy_slot or login.user != by.user:
            return False
        if time_ms >= login.expires_ms or time_ms >= login.used_ms + login.idle_ms:
            return False
        return self._secret_of(login.user, login.token, time_ms) == login.of

    def acts_for(self, by: Principal) -> str:
        """The user for whom a principal acts; empty for a token."""
        login = self._logins.get(by.token)
        return "" if login is None or login.user is None else login.user

    def may_revoke(self, login: str, by: Principal, grants: Pairs) -> bool:
        """Whether the principal, with these grants, may end a login that lives."""
        mine, theirs = self._logins.get(by.token), self._logins[login]
        token = by.token if mine is None else mine.token
        own = by.user == theirs.user if theirs.user is not None else token == theirs.token
        return own or may(grants, "admin", "")


def _pairs(grants: tuple[Grant, ...]) -> Pairs:
    return tuple((grant.role, grant.path) for grant in grants)


_ENOUGH = {"read": ("read", "write", "admin"), "write": ("write", "admin"), "admin": ("admin",)}


def may(grants: Pairs, role: str, path: str) -> bool:
    """Whether the grants give the role on the path."""
    names = [] if path == "" else path.split("/")
    for granted, prefix in grants:
        border = [] if prefix == "" else prefix.split("/")
        if granted in _ENOUGH[role] and names[: len(border)] == border:
            return True
    return False


def leads_on(grants: Pairs, path: str) -> bool:
    """Whether something at or below the path may be read."""
    names = [] if path == "" else path.split("/")
    return any(
        role in _ENOUGH["read"] and prefix.split("/")[: len(names)] == names
        for role, prefix in grants
    )


def needed(operation: AnyOperation | AnyStep, for_user: str) -> Iterator[tuple[str, str]]:
    """The roles that an operation needs, of a principal that acts for a user."""
    match operation:
        case Transaction(steps=steps):
            for step in steps:
                yield from needed(step, for_user)
        case Check(path=path) if path:
            yield "read", path
        case PutFile(path=path) | DeleteFile(path=path) | MakeDirectory(path=path):
            yield "write", path
        case RemoveDirectory(path=path):
            yield "write", path
        case MoveEntry(source=source, target=target):
            yield "write", source
            yield "write", target
        case CopyEntry(source=source, target=target):
            yield "read", source
            yield "write", target
        case CreateToken(grants=grants, groups=groups):
            for grant in grants:
                yield "admin", grant.path
            if groups:
                yield "admin", ""
        case ChangeUser() as change:
            for grant in (*change.grant, *change.revoke):
                yield "admin", grant.path
            if change.join or change.leave:
                yield "admin", ""
            if change.password is not None and change.user != for_user:
                yield "admin", ""
        case ChangeGroup() as change:
            for grant in (*change.grant, *change.revoke):
                yield "admin", grant.path
        case CreateUser() | RemoveUser() | CreateGroup() | RemoveGroup() | CreateLogin():
            yield "admin", ""
