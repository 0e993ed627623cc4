"""Who may do what, as values of the log: principals, and the operations that change the policy.

A login is a browser session, or that of a command line: it acts for the user whose password, or for
the token whose secret, a gateway has checked (docs/decisions/0027-principals.md).
"""

from typing import Literal

from pydantic import Field

from actors.frozen import Frozen, is_empty, is_none
from actors.numbers import Count

PATH_BYTES_MAX = 4096
"""The longest path, in bytes of UTF-8."""

TOKEN_ID_CHARS_MAX = 32
"""The longest id of a token or of a login; they share one space of names."""

_TOKEN_ID = "^[a-z0-9]+$"
TOKEN_LABEL_CHARS_MAX = 128
GRANTS_MAX = 32
"""The most grants of one user, group or token: each is compared with each path of its commands."""

NAME_CHARS_MAX = 64
NAME = "^[a-z][a-z0-9._-]*$"
"""The names of users and of groups."""

OWNER_CHARS_MAX = 1 + NAME_CHARS_MAX
"""The longest owner of a principal: `@` and a user, or a token."""

GROUPS_MAX = 8
"""The most groups of one user or token: the grants of all are compared with each path."""

PASSWORD_HASH_CHARS_MAX = 256

Role = Literal["read", "write", "admin", "operate", "backup"]
"""What a grant allows: see `actors.state.rights`."""


class Grant(Frozen):
    """A role for `path` and all below it; the empty path is the root.

    `operate` and `backup` concern the whole cluster, and so have the empty path.
    """

    role: Role
    path: str = Field(max_length=PATH_BYTES_MAX)


class Principal(Frozen):
    """For whom a command or a read is made: a token, or a login, of the replicated state.

    A gateway has checked its secret by the state after `policy_slot`. What it may do is decided by
    the state in which the command is applied, or from which the read is answered. `user` is that of
    a login, which can act for no other.
    """

    token: str = Field(max_length=TOKEN_ID_CHARS_MAX, pattern=_TOKEN_ID)
    policy_slot: Count
    user: str | None = Field(None, max_length=NAME_CHARS_MAX, pattern=NAME, exclude_if=is_none)

    @property
    def owner(self) -> str:
        """Whose the results and the idempotency keys of its commands are: the user's, in all of its
        logins, or the token's.
        """
        return self.token if self.user is None else f"@{self.user}"


# -- tokens --------------------------------------------------------------------------------------


class CreateToken(Frozen):
    """Make an API token. `sha256` is that of its secret, which is 256 random bits and stays with
    its owner. It expires `expires_after_ms` of log time after its creation. It also has the grants
    of its `groups`.
    """

    kind: Literal["create_token"] = "create_token"
    token: str = Field(max_length=TOKEN_ID_CHARS_MAX, pattern=_TOKEN_ID)
    sha256: str = Field(max_length=64)
    label: str = Field(max_length=TOKEN_LABEL_CHARS_MAX)
    grants: tuple[Grant, ...] = Field(max_length=GRANTS_MAX)
    expires_after_ms: Count | None = None
    groups: tuple[str, ...] = Field((), max_length=GROUPS_MAX, exclude_if=is_empty)


class RevokeToken(Frozen):
    """Remove an API token for good, with its logins."""

    kind: Literal["revoke_token"] = "revoke_token"
    token: str = Field(max_length=TOKEN_ID_CHARS_MAX)


# -- users and groups ----------------------------------------------------------------------------


class CreateUser(Frozen):
    """Make a user. `password` is its Argon2id hash (PHC string); without one it can't log in."""

    kind: Literal["create_user"] = "create_user"
    user: str = Field(max_length=NAME_CHARS_MAX, pattern=NAME)
    password: str | None = Field(None, max_length=PASSWORD_HASH_CHARS_MAX)
    grants: tuple[Grant, ...] = Field((), max_length=GRANTS_MAX)
    groups: tuple[str, ...] = Field((), max_length=GROUPS_MAX)


class ChangeUser(Frozen):
    """Change a user: its password's hash, its own grants, its groups. A new password ends all of
    its logins.
    """

    kind: Literal["change_user"] = "change_user"
    user: str = Field(max_length=NAME_CHARS_MAX)
    password: str | None = Field(None, max_length=PASSWORD_HASH_CHARS_MAX)
    grant: tuple[Grant, ...] = Field((), max_length=GRANTS_MAX)
    revoke: tuple[Grant, ...] = Field((), max_length=GRANTS_MAX)
    join: tuple[str, ...] = Field((), max_length=GROUPS_MAX)
    leave: tuple[str, ...] = Field((), max_length=GROUPS_MAX)


class RemoveUser(Frozen):
    """Remove a user for good, with its logins. The tokens that it made stay."""

    kind: Literal["remove_user"] = "remove_user"
    user: str = Field(max_length=NAME_CHARS_MAX)


class CreateGroup(Frozen):
    """Make a group, whose grants all its users and tokens have."""

    kind: Literal["create_group"] = "create_group"
    group: str = Field(max_length=NAME_CHARS_MAX, pattern=NAME)
    grants: tuple[Grant, ...] = Field((), max_length=GRANTS_MAX)


class ChangeGroup(Frozen):
    """Change a group's grants."""

    kind: Literal["change_group"] = "change_group"
    group: str = Field(max_length=NAME_CHARS_MAX)
    grant: tuple[Grant, ...] = Field((), max_length=GRANTS_MAX)
    revoke: tuple[Grant, ...] = Field((), max_length=GRANTS_MAX)


class RemoveGroup(Frozen):
    """Remove a group for good: a later group of the same name begins without its members."""

    kind: Literal["remove_group"] = "remove_group"
    group: str = Field(max_length=NAME_CHARS_MAX)


# -- logins --------------------------------------------------------------------------------------


class CreateLogin(Frozen):
    """Make a login for a `user` or for a `token`, one of both, whose password or secret a gateway
    has checked. `checked` is the version of it that it saw: if another one is in force, the login
    is refused.

    It ends `idle_ms` of log time after its last use that the log knows of, and at the latest
    `expires_after_ms` after its creation.
    """

    kind: Literal["create_login"] = "create_login"
    login: str = Field(max_length=TOKEN_ID_CHARS_MAX, pattern=_TOKEN_ID)
    sha256: str = Field(max_length=64)
    label: str = Field(max_length=TOKEN_LABEL_CHARS_MAX)
    user: str | None = Field(None, max_length=NAME_CHARS_MAX)
    token: str | None = Field(None, max_length=TOKEN_ID_CHARS_MAX)
    checked: str = Field(max_length=64)
    idle_ms: Count
    expires_after_ms: Count


class RefreshLogin(Frozen):
    """The principal's login is in use."""

    kind: Literal["refresh_login"] = "refresh_login"


class RevokeLogin(Frozen):
    """End a login for good."""

    kind: Literal["revoke_login"] = "revoke_login"
    login: str = Field(max_length=TOKEN_ID_CHARS_MAX)


AccountChange = (
    CreateUser
    | ChangeUser
    | RemoveUser
    | CreateGroup
    | ChangeGroup
    | RemoveGroup
    | CreateLogin
    | RefreshLogin
    | RevokeLogin
)
"""The operations on users, groups and logins."""

PolicyChange = CreateToken | RevokeToken | AccountChange
"""The operations that change who may do what."""

FreeingChange = RevokeToken | RemoveUser | RemoveGroup | CreateLogin | RefreshLogin | RevokeLogin
"""Those that need no room permanently, so that they are done on a full disk, too."""


def granted_by(operation: PolicyChange) -> tuple[Grant, ...]:
    """The grants that `operation` names."""
    match operation:
        case CreateToken() | CreateUser() | CreateGroup():
            return operation.grants
        case ChangeUser() | ChangeGroup():
            return (*operation.grant, *operation.revoke)
    return ()
