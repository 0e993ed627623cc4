"""The commands about users, groups and logins: functions of the policy, a principal's rights and
the command. Each checks everything before it changes anything.

Who may what of it stands in `actors.state.rights`, except for what depends on the rows: users set
their own passwords and end their own logins.
"""

from actors.principals import (
    GRANTS_MAX,
    GROUPS_MAX,
    AccountChange,
    ChangeGroup,
    ChangeUser,
    CreateGroup,
    CreateLogin,
    CreateUser,
    Grant,
    Principal,
    RefreshLogin,
    RemoveGroup,
    RemoveUser,
    RevokeLogin,
)
from actors.state.budget import Budget, Refused
from actors.state.policy import Policy, check_grants
from actors.state.policy_rows import GroupMembership, GroupRow, LoginRow, LogPosition, UserRow
from actors.state.rights import Need, Rights

LOGINS_MAX = 32
"""The most logins of one user or token; another one ends the oldest."""


def operate(
    policy: Policy,
    at: LogPosition,
    principal: Principal | None,
    change: AccountChange,
    rights: Rights,
    budget: Budget,
) -> None:
    """Execute a command for a principal of these rights, which `Policy.check` has returned. Raises
    `Refused`.
    """
    budget.step()
    match change:
        case CreateUser():
            _create_user(policy, at, principal, change, budget)
        case ChangeUser():
            _change_user(policy, at, principal, change, rights, budget)
        case RemoveUser(user=user):
            _user(policy, user)
            _count_logins(policy, f"@{user}", budget)
            policy.remove("user", user, "removed")
        case CreateGroup(group=group, grants=grants):
            if group in policy.groups:
                raise Refused("conflict", f"there is a group {group!r}")
            check_grants(grants)
            row = GroupRow(
                slot=at.slot, made=at.version, grants=grants, created_by=_owner(principal)
            )
            policy.put("group", group, row, budget)
        case ChangeGroup():
            _change_group(policy, change, budget)
        case RemoveGroup(group=group):
            _group(policy, group)
            policy.remove("group", group, "removed")
        case CreateLogin():
            _create_login(policy, at, change, budget)
        case RefreshLogin():
            _refresh_login(policy, at, principal, budget)
        case RevokeLogin(login=login):
            if login not in policy.logins or not policy.may_see_login(principal, rights, login):
                raise Refused("not_found", f"there is no session {login!r} that may be revoked")
            policy.remove("login", login, "revoked")


# -- users and groups ----------------------------------------------------------------------------


def _create_user(
    policy: Policy, at: LogPosition, principal: Principal | None, change: CreateUser, budget: Budget
) -> None:
    if change.user in policy.users:
        raise Refused("conflict", f"there is a user {change.user!r}")
    check_grants(change.grants)
    row = UserRow(
        slot=at.slot,
        password=change.password,
        password_set=at.version,
        grants=change.grants,
        groups=policy.memberships(change.groups),
        created_by=_owner(principal),
    )
    policy.put("user", change.user, row, budget)


def _change_user(
    policy: Policy,
    at: LogPosition,
    principal: Principal | None,
    change: ChangeUser,
    rights: Rights,
    budget: Budget,
) -> None:
    changed = change.model_dump(exclude_defaults=True, exclude={"kind", "user"})
    if not changed:
        raise Refused("conflict", "there is nothing to change")
    own = principal is not None and policy.holder_of(principal) == f"@{change.user}"
    if change.password is not None and not own and not rights.may("admin", ""):
        raise Refused("denied", Need("admin", "").text)
    row = _user(policy, change.user)
    update: dict[str, object] = {
        "grants": _changed_grants(row.grants, change.grant, change.revoke),
        "groups": _changed_groups(policy, row, change),
    }
    if change.password is not None:
        _count_logins(policy, f"@{change.user}", budget)
        update |= {"password": change.password, "password_set": at.version}
    policy.put("user", change.user, row.model_copy(update=update), budget)
    if change.password is not None:
        policy.end_logins(f"@{change.user}")


def _change_group(policy: Policy, change: ChangeGroup, budget: Budget) -> None:
    if not change.grant and not change.revoke:
        raise Refused("conflict", "there is nothing to change")
    row = _group(policy, change.group)
    grants = _changed_grants(row.grants, change.grant, change.revoke)
    policy.put("group", change.group, row.model_copy(update={"grants": grants}), budget)


def _changed_grants(
    former: tuple[Grant, ...], grant: tuple[Grant, ...], revoke: tuple[Grant, ...]
) -> tuple[Grant, ...]:
    check_grants(grant)
    missing = next((one for one in revoke if one not in former), None)
    if missing is not None:
        raise Refused("conflict", f"there is no grant of {missing.role!r} on /{missing.path}")
    kept = tuple(one for one in former if one not in revoke)
    changed = tuple(dict.fromkeys((*kept, *grant)))
    if len(changed) > GRANTS_MAX:
        raise Refused("over_quota", f"there may be {GRANTS_MAX} grants; a group may have others")
    return changed


def _changed_groups(
    policy: Policy, row: UserRow, change: ChangeUser
) -> tuple[GroupMembership, ...]:
    current = policy.group_names(row)
    missing = next((group for group in change.leave if group not in current), None)
    if missing is not None:
        raise Refused("conflict", f"{change.user!r} is not in the group {missing!r}")
    kept = tuple(group for group in current if group not in change.leave)
    changed = policy.memberships((*kept, *change.join))
    if len(changed) > GROUPS_MAX:
        raise Refused("over_quota", f"a user may be in {GROUPS_MAX} groups")
    return changed


def _user(policy: Policy, user: str) -> UserRow:
    if user not in policy.users:
        raise Refused("not_found", f"there is no user {user!r}")
    return policy.users[user]


def _group(policy: Policy, group: str) -> GroupRow:
    if group not in policy.groups:
        raise Refused("not_found", f"there is no group {group!r}")
    return policy.groups[group]


def _owner(principal: Principal | None) -> str:
    return "" if principal is None else principal.owner


# -- logins --------------------------------------------------------------------------------------


def _create_login(policy: Policy, at: LogPosition, change: CreateLogin, budget: Budget) -> None:
    if change.login in policy.logins or change.login in policy.tokens:
        raise Refused("conflict", f"there is a session {change.login!r}")
    if (change.user is None) == (change.token is None):
        raise Refused("conflict", "a session is of a user or of a token")
    if change.checked != _version(policy, at, change):
        raise Refused(
            "unauthenticated", "the password or the token was changed or revoked meanwhile"
        )
    row = LoginRow(
        slot=at.slot,
        sha256=change.sha256,
        label=change.label,
        user=change.user,
        token=change.token,
        idle_ms=change.idle_ms,
        used_ms=at.log_time_ms,
        expires_ms=at.log_time_ms + change.expires_after_ms,
    )
    ending = policy.logins_of(row.owner)[: 1 - LOGINS_MAX]
    for _ in ending:
        budget.step()
    policy.put("login", change.login, row, budget)
    for login in ending:
        policy.remove("login", login, "ended")


def _version(policy: Policy, at: LogPosition, change: CreateLogin) -> str | None:
    """The version in force of what a login is made for."""
    if change.user is not None:
        user = policy.users.get(change.user)
        return None if user is None or user.password is None else user.password_set
    token = policy.tokens.get(f"{change.token}")
    if token is None or (token.expires_ms is not None and at.log_time_ms >= token.expires_ms):
        return None
    return token.version


def _refresh_login(
    policy: Policy, at: LogPosition, principal: Principal | None, budget: Budget
) -> None:
    login = None if principal is None else policy.logins.get(principal.token)
    if principal is None or login is None:
        raise Refused("conflict", "only a session can be refreshed, by itself")
    used = login.model_copy(update={"used_ms": at.log_time_ms})
    policy.put("login", principal.token, used, budget)


def _count_logins(policy: Policy, owner: str, budget: Budget) -> None:
    for _ in policy.logins_of(owner):
        budget.step()
