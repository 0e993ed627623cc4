"""The rows of the policy: tokens, users, groups and logins, as the journal holds them."""

from dataclasses import dataclass

from pydantic import Field

from actors.frozen import Frozen, is_empty
from actors.numbers import Count
from actors.values import Grant

POLICY_ROWS = ("token", "user", "group", "login")
"""The kinds of rows, each with a slash and a name after it."""

_ROW_BYTES = 512
_GRANT_BYTES = 128
_MEMBERSHIP_BYTES = 128


@dataclass(frozen=True, slots=True)
class LogPosition:
    """The place of a command in the log, and the log time there."""

    slot: int
    index: int
    log_time_ms: int

    @property
    def version(self) -> str:
        """What is made here is the only one of this version."""
        return f"{self.slot}-{self.index}"


class GroupMembership(Frozen):
    """Being in a group, the one of the version `made`, and in no later one of its name."""

    group: str
    made: str


class TokenRow(Frozen):
    """A token's row in the journal. `slot` created it, for the owner `created_by`.

    `expires_ms` is log time; `None`: never.
    """

    slot: Count
    sha256: str
    label: str
    grants: tuple[Grant, ...]
    created_by: str
    expires_ms: Count | None
    groups: tuple[GroupMembership, ...] = Field((), exclude_if=is_empty)

    @property
    def version(self) -> str:
        """The version of its secret, which never changes."""
        return str(self.slot)


class UserRow(Frozen):
    """A user's row. `password` is a hash, of the version `password_set`."""

    slot: Count
    password: str | None
    password_set: str
    grants: tuple[Grant, ...]
    groups: tuple[GroupMembership, ...]
    created_by: str


class GroupRow(Frozen):
    """A group's row; it is the only one of the version `made`."""

    slot: Count
    made: str
    grants: tuple[Grant, ...]
    created_by: str


class LoginRow(Frozen):
    """A login's row. It acts for `user` or for `token`, and ends with them.

    Times are log time: the log last knew of a use at `used_ms`.
    """

    slot: Count
    sha256: str
    label: str
    user: str | None
    token: str | None
    idle_ms: Count
    used_ms: Count
    expires_ms: Count

    @property
    def owner(self) -> str:
        """For whom it acts; the owner of the principal that has it is the same, for a user."""
        return f"@{self.user}" if self.user is not None else f"{self.token}"

    @property
    def ends_ms(self) -> int:
        """The log time at which it ends, if it is not used."""
        return min(self.used_ms + self.idle_ms, self.expires_ms)


AnyPolicyRow = TokenRow | UserRow | GroupRow | LoginRow

_KINDS: dict[str, type[AnyPolicyRow]] = {
    "token": TokenRow,
    "user": UserRow,
    "group": GroupRow,
    "login": LoginRow,
}
assert tuple(_KINDS) == POLICY_ROWS


def read_row(kind: str, value: bytes) -> AnyPolicyRow:
    """The row in a journal's record. Raises `ValidationError`."""
    return _KINDS[kind].model_validate_json(value)


def size_of(row: AnyPolicyRow) -> int:
    """Roughly the size of a row in memory and in the journal, in bytes."""
    size = _ROW_BYTES
    if isinstance(row, TokenRow | LoginRow):
        size += 2 * len(row.label)
    if not isinstance(row, LoginRow):
        size += sum(_GRANT_BYTES + 2 * len(grant.path) for grant in row.grants)
    if isinstance(row, TokenRow | UserRow):
        size += _MEMBERSHIP_BYTES * len(row.groups)
    return size
