"""The policy: tokens, users, groups and logins with their grants, a part of the replicated state.

Only commands of the log change it, so whoever may do what is the same on every replica at the same
slot, and a revocation stands before or after each write, never beside it. Expiry is by log time
(docs/decisions/0017-log-time-is-time-under-the-lease.md), never by a clock of a node: a token or a
login may live for longer than it says, by the time in which no leader led and since the last batch
of commands, and never for less.

`actors.state.accounts` executes the commands about users, groups and logins.
"""

from collections.abc import Iterator

from actors.frozen import Frozen
from actors.principals import (
    GRANTS_MAX,
    CreateToken,
    Grant,
    Principal,
    RevokeToken,
)
from actors.state.budget import Budget, Refused
from actors.state.changed_rows import ChangedRows
from actors.state.policy_rows import (
    AnyPolicyRow,
    GroupMembership,
    GroupRow,
    LoginRow,
    LogPosition,
    TokenRow,
    UserRow,
    read_row,
    size_of,
)
from actors.state.rights import (
    EVERYTHING,
    OF_THE_CLUSTER,
    Rights,
    needs_of,
    needs_of_grants,
)
from actors.values import Command

_ENTRIES_PER_ROW = 200
_TREE_BYTES_PER_BYTE = 128
"""There may be one token, one user, one group and one login for so many entries that the tree may
hold (10,000 each by default), and a byte of them for so many bytes of the tree (16 MiB in all).
The bounds hold for all makers together, because every replica holds all rows.
"""


class Policy:
    """All tokens, users, groups and logins."""

    def __init__(self, changed_rows: ChangedRows) -> None:
        self.tokens: dict[str, TokenRow] = {}
        self.users: dict[str, UserRow] = {}
        self.groups: dict[str, GroupRow] = {}
        self.logins: dict[str, LoginRow] = {}
        self._tables: dict[str, dict[str, AnyPolicyRow]] = {
            "token": self.tokens,  # type: ignore[dict-item]
            "user": self.users,  # type: ignore[dict-item]
            "group": self.groups,  # type: ignore[dict-item]
            "login": self.logins,  # type: ignore[dict-item]
        }
        self._logins_of: dict[str, set[str]] = {}
        """The logins of each owner that has some."""
        self.bytes = 0
        """The size of all rows."""
        self._changed_rows = changed_rows

    # -- rows ------------------------------------------------------------------------------------

    def restore(self, kind: str, name: str, value: bytes) -> None:
        """Insert a row from a record of the journal. Raises `ValidationError`."""
        self._keep(kind, name, read_row(kind, value))

    def row(self, kind: str, name: str) -> AnyPolicyRow | None:
        """The row of a token, user, group or login."""
        return self._tables[kind].get(name)

    def rows(self) -> Iterator[tuple[str, Frozen]]:
        """All rows, by their keys in the journal."""
        for kind, table in self._tables.items():
            for name, row in table.items():
                yield f"{kind}/{name}", row

    def put(self, kind: str, name: str, row: AnyPolicyRow, budget: Budget) -> None:
        """Write a row. Raises `Refused`, and changes nothing, if there is no room for it."""
        size = size_of(row)
        budget.write(size)
        table = self._tables[kind]
        former = table.get(name)
        grown = size - (0 if former is None else size_of(former))
        rows_max = budget.constants.tree_entries // _ENTRIES_PER_ROW
        bytes_max = budget.constants.tree_bytes // _TREE_BYTES_PER_BYTE
        too_many = former is None and len(table) >= rows_max
        if too_many or (grown > 0 and self.bytes + grown > bytes_max):
            if kind == "token":  # As releases before this one said it: outcomes are state.
                text = f"the cluster may hold {rows_max} tokens of {bytes_max} bytes in all: revoke"
            else:
                text = (
                    f"the cluster may hold {rows_max} {kind}s of {bytes_max} bytes in all: remove"
                )
            raise Refused("over_quota", f"{text} some")
        self._keep(kind, name, row)
        self._changed_rows.note(f"{kind}/{name}", f"{row.slot} {row.to_json().decode()}")

    def _keep(self, kind: str, name: str, row: AnyPolicyRow) -> None:
        table = self._tables[kind]
        if name in table:
            self.bytes -= size_of(table[name])
        table[name] = row
        self.bytes += size_of(row)
        if isinstance(row, LoginRow):
            self._logins_of.setdefault(row.owner, set()).add(name)

    def remove(self, kind: str, name: str, why: str) -> None:
        """Remove a row; with a token or a user all its logins go."""
        row = self._tables[kind].pop(name)
        self.bytes -= size_of(row)
        self._changed_rows.note(f"{kind}/{name}", why)
        if isinstance(row, LoginRow):
            self._logins_of[row.owner].discard(name)
            if not self._logins_of[row.owner]:
                del self._logins_of[row.owner]
        elif kind in ("token", "user"):
            self.end_logins(f"@{name}" if kind == "user" else name)

    def logins_of(self, owner: str) -> list[str]:
        """The logins of a user or a token, the oldest first."""
        found = self._logins_of.get(owner, ())
        return sorted(found, key=lambda login: (self.logins[login].slot, login))

    def end_logins(self, owner: str) -> None:
        """Remove all logins of a user or a token."""
        for login in self.logins_of(owner):
            self.remove("login", login, "ended")

    # -- who may what ----------------------------------------------------------------------------

    def rights_of(self, principal: Principal | None, log_time_ms: int) -> Rights | None:
        """What the principal may do; `None` if it is not valid: its token or login was revoked, has
        expired, or is another one than the gateway saw, as it was created after that.
        """
        if principal is None:
            return EVERYTHING
        row = self.tokens.get(principal.token)
        if row is not None and principal.user is None:
            if row.slot > principal.policy_slot or not _lives(row, log_time_ms):
                return None
            return Rights(self.grants_of(row))
        login = self.logins.get(principal.token)
        if login is None or login.slot > principal.policy_slot or login.user != principal.user:
            return None
        if log_time_ms >= login.ends_ms:
            return None
        if login.user is not None:
            user = self.users.get(login.user)
            return None if user is None else Rights(self.grants_of(user))
        token = self.tokens.get(f"{login.token}")
        if token is None or not _lives(token, log_time_ms):
            return None
        return Rights(self.grants_of(token))

    def grants_of(self, row: TokenRow | UserRow) -> tuple[Grant, ...]:
        """A token's or a user's own grants and those of its groups."""
        if not row.groups:
            return row.grants
        return (*row.grants, *(g for group in self._groups_of(row) for g in group.grants))

    def _groups_of(self, row: TokenRow | UserRow) -> Iterator[GroupRow]:
        for membership in row.groups:
            group = self.groups.get(membership.group)
            if group is not None and group.made == membership.made:
                yield group

    def group_names(self, row: TokenRow | UserRow) -> tuple[str, ...]:
        """The groups that a token or a user is in."""
        named = {(group.group, group.made) for group in row.groups}
        return tuple(sorted(g for g, made in named if self._is_group(g, made)))

    def _is_group(self, group: str, made: str) -> bool:
        return group in self.groups and self.groups[group].made == made

    def memberships(self, groups: tuple[str, ...]) -> tuple[GroupMembership, ...]:
        """Being in these groups. Raises `Refused` if one does not exist."""
        missing = next((group for group in groups if group not in self.groups), None)
        if missing is not None:
            raise Refused("not_found", f"there is no group {missing!r}")
        names = dict.fromkeys(groups)
        return tuple(GroupMembership(group=g, made=self.groups[g].made) for g in names)

    def check(self, command: Command, budget: Budget, log_time_ms: int) -> Rights:
        """The rights of the command's principal, which allow all that it does, except for what
        commands that change the policy check by its rows. Raises `Refused`.
        """
        rights = self.rights_of(command.principal, log_time_ms)
        if rights is None:
            raise Refused(
                "unauthenticated",
                f"the {_credential(command)} was revoked, has expired or is not known",
            )
        if rights is EVERYTHING:
            return rights
        # The grants of groups are compared, too.
        steps = 1 + len(rights.grants) // (GRANTS_MAX + 1)
        for need in needs_of(command.operation):
            for _ in range(steps):
                budget.step()
            if not rights.may(need.role, need.path):
                raise Refused("denied", need.text, need.step)
        return rights

    def holder_of(self, principal: Principal | None) -> str:
        """For whom a principal acts: `@USER`, or a token's id; empty for the administrator."""
        if principal is None:
            return ""
        login = self.logins.get(principal.token)
        return principal.token if login is None else login.owner

    # -- changes ---------------------------------------------------------------------------------

    def operate(
        self,
        at: LogPosition,
        principal: Principal | None,
        change: CreateToken | RevokeToken,
        rights: Rights,
        budget: Budget,
    ) -> None:
        """Execute a command about tokens, for a principal of these rights, which `check` has
        returned. Raises `Refused`.
        """
        match change:
            case CreateToken():
                self._create(at, principal, change, budget)
            case RevokeToken(token=token):
                self._revoke(principal, rights, token, budget)

    def _create(
        self, at: LogPosition, principal: Principal | None, change: CreateToken, budget: Budget
    ) -> None:
        if change.token in self.tokens or change.token in self.logins:
            raise Refused("conflict", f"there is a token {change.token!r}")
        if not change.grants and not change.groups:
            raise Refused("conflict", "a token needs a grant at least")
        check_grants(change.grants)
        after_ms = change.expires_after_ms
        row = TokenRow(
            slot=at.slot,
            sha256=change.sha256,
            label=change.label,
            grants=change.grants,
            created_by="" if principal is None else principal.owner,
            expires_ms=None if after_ms is None else at.log_time_ms + after_ms,
            groups=self.memberships(change.groups),
        )
        self.put("token", change.token, row, budget)

    def _revoke(
        self, principal: Principal | None, rights: Rights, token: str, budget: Budget
    ) -> None:
        budget.step()
        if token not in self.tokens or not self._may_see_token(principal, rights, token):
            raise Refused("not_found", f"there is no token {token!r} that may be revoked")
        for _ in self.logins_of(token):
            budget.step()
        self.remove("token", token, "revoked")

    # -- what is seen ----------------------------------------------------------------------------

    def _may_see_token(self, principal: Principal | None, rights: Rights, token: str) -> bool:
        """Whether the principal may see and revoke a token: its own, or one that it might have
        made.
        """
        if self.holder_of(principal) == token:
            return True
        row = self.tokens[token]
        if row.groups and not rights.may("admin", ""):
            return False
        return rights.may_all(needs_of_grants(row.grants))

    def may_see_login(self, principal: Principal | None, rights: Rights, login: str) -> bool:
        """Whether the principal may see and revoke a login: one of its own, or any, if it
        administers everything.
        """
        owner = self.logins[login].owner
        return owner == self.holder_of(principal) or rights.may("admin", "")

    def visible(
        self, kind: str, principal: Principal | None, rights: Rights, log_time_ms: int
    ) -> Iterator[str]:
        """The names of a kind that a principal of these rights may see and that live, in order."""
        for name in sorted(self._tables[kind]):
            if self._is_visible(kind, name, principal, rights, log_time_ms):
                yield name

    def _is_visible(
        self, kind: str, name: str, principal: Principal | None, rights: Rights, log_time_ms: int
    ) -> bool:
        match kind:
            case "token":
                lives = _lives(self.tokens[name], log_time_ms)
                return lives and self._may_see_token(principal, rights, name)
            case "login":
                lives = log_time_ms < self.logins[name].ends_ms
                return lives and self.may_see_login(principal, rights, name)
            case "user":
                return rights.may("admin", "") or self.holder_of(principal) == f"@{name}"
            case _:
                return rights.may("admin", "") or name in self.groups_of_holder(principal)

    def groups_of_holder(self, principal: Principal | None) -> tuple[str, ...]:
        """The groups of the user or the token for which a principal acts."""
        holder = self.holder_of(principal)
        row = self.users.get(holder[1:]) if holder.startswith("@") else self.tokens.get(holder)
        return () if row is None else self.group_names(row)

    def forget_expired(self, log_time_ms: int) -> None:
        """Remove the tokens and the logins that have expired, which are not valid any more."""
        for token in sorted(self.tokens):
            if not _lives(self.tokens[token], log_time_ms):
                self.remove("token", token, "expired")
        for login in sorted(self.logins):
            if log_time_ms >= self.logins[login].ends_ms:
                self.remove("login", login, "expired")


def check_grants(grants: tuple[Grant, ...]) -> None:
    """Raise `Refused` for grants that mean nothing."""
    if any(grant.path and grant.role in OF_THE_CLUSTER for grant in grants):
        raise Refused("conflict", "the roles 'operate' and 'backup' have no path")


def _credential(command: Command) -> str:
    """What the text of an outcome calls it: of tokens as in releases before there were users."""
    principal = command.principal
    return "token" if principal is None or principal.user is None else "session"


def _lives(row: TokenRow, log_time_ms: int) -> bool:
    return row.expires_ms is None or log_time_ms < row.expires_ms
