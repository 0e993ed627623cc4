"""What a principal may do: grants, and what each command and read needs.

A grant is a role on a path and all below it. `write` includes `read`, since a refused condition
tells the current tag; `admin` includes both, and is needed to grant anything there. `operate` and
`backup` are of the whole cluster; who has `admin` on the root may grant them, and so has them.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from actors.principals import (
    ChangeUser,
    CreateGroup,
    CreateLogin,
    CreateUser,
    PolicyChange,
    RemoveGroup,
    RemoveUser,
    granted_by,
)
from actors.state.tree import is_below
from actors.values import (
    AnyOperation,
    AnyPart,
    Check,
    CloseSession,
    CopyEntry,
    CreateToken,
    DeleteFile,
    Grant,
    MakeDirectory,
    MoveEntry,
    OpenSession,
    PutFile,
    RemoveDirectory,
    RemoveQuota,
    Role,
    SetQuota,
    Transaction,
)

OF_THE_CLUSTER: frozenset[Role] = frozenset(("operate", "backup"))
"""The roles that have no path."""

_GIVEN_BY: dict[Role, frozenset[Role]] = {
    "read": frozenset(("read", "write", "admin")),
    "write": frozenset(("write", "admin")),
    "admin": frozenset(("admin",)),
    "operate": frozenset(("operate", "admin")),
    "backup": frozenset(("backup", "admin")),
}
"""For each role those that include it."""


class Need(NamedTuple):
    """A right that an operation needs, and the step that needs it, if it is one of several."""

    role: Role
    path: str
    step: int | None = None

    @property
    def text(self) -> str:
        """The right, for the principal that lacks it."""
        where = "the cluster" if self.role in OF_THE_CLUSTER else f"/{self.path}"
        return f"this needs the role {self.role!r} on {where}"


def covers(prefix: str, path: str) -> bool:
    """Whether `path` is `prefix` or lies below it; borders are those of names."""
    return path == prefix or is_below(path, prefix)


class Rights:
    """The grants of one principal."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self.grants = tuple(grants)

    def may(self, role: Role, path: str) -> bool:
        """Whether the role is granted for `path`."""
        given_by = _GIVEN_BY[role]
        return any(grant.role in given_by and covers(grant.path, path) for grant in self.grants)

    def may_reach(self, path: str) -> bool:
        """Whether something at, below or above `path` may be read."""
        return self.may("read", path) or self.leads_on(path)

    def leads_on(self, path: str) -> bool:
        """Whether `path` leads to something that may be read."""
        given_by = _GIVEN_BY["read"]
        return any(grant.role in given_by and covers(path, grant.path) for grant in self.grants)

    def may_all(self, needs: Iterable[Need]) -> bool:
        """Whether all needs are met."""
        return all(self.may(need.role, need.path) for need in needs)


class _All(Rights):
    """The administrator's rights."""

    def may(self, role: Role, path: str) -> bool:
        """See `Rights`."""
        return True

    def leads_on(self, path: str) -> bool:
        """See `Rights`."""
        return True


EVERYTHING: Rights = _All(())
"""The rights of the administrator, for whom commands without a principal are done."""


def needs_of(operation: AnyOperation) -> Iterator[Need]:
    """What `operation` needs, step by step, without what depends on the rows that it changes:
    `Policy.operate` and `actors.state.accounts` check that.
    """
    if isinstance(operation, Transaction):
        for number, step in enumerate(operation.steps):
            for need in _needs_of_part(step):
                yield need._replace(step=number)
    else:
        yield from _needs_of_part(operation)


def _needs_of_part(part: AnyPart) -> Iterator[Need]:
    match part:
        case PutFile(path=path) | DeleteFile(path=path) | MakeDirectory(path=path):
            yield Need("write", path)
        case RemoveDirectory(path=path):
            yield Need("write", path)
        case Check(path=path) if path:
            # The root is always there: to check that tells nothing, and can use up a key.
            yield Need("read", path)
        case MoveEntry(source=source, target=target):
            yield Need("write", source)
            yield Need("write", target)
        case CopyEntry(source=source, target=target):
            yield Need("read", source)
            yield Need("write", target)
        case SetQuota(path=path) | RemoveQuota(path=path):
            # Who administers a directory can't lift what bounds it.
            yield Need("admin", path.rpartition("/")[0])
        case OpenSession() | CloseSession():
            yield Need("admin", "")  # Only gateways themselves open and close sessions.
        case _ if isinstance(part, PolicyChange):
            yield from needs_of_grants(granted_by(part))
            if _is_for_the_whole_cluster(part):
                yield Need("admin", "")


def _is_for_the_whole_cluster(change: PolicyChange) -> bool:
    """Whether only who administers everything may do this, whatever the grants: users and groups
    have no path, a group may get more grants later, and gateways themselves make logins.
    """
    match change:
        case CreateUser() | RemoveUser() | CreateGroup() | RemoveGroup() | CreateLogin():
            return True
        case CreateToken(groups=groups):
            return bool(groups)
        case ChangeUser(join=join, leave=leave):
            return bool(join or leave)
    return False


def needs_of_grants(grants: Iterable[Grant]) -> Iterator[Need]:
    """What it needs to give or to take these grants."""
    for grant in grants:
        yield Need("admin", grant.path)
