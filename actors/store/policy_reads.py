"""Answers about the policy, and the part of a change that a principal may see."""

from collections.abc import Callable
from typing import TypeVar

from actors.messages import (
    GroupInfo,
    LoginInfo,
    QuotaInfo,
    ReadReply,
    ReadRequest,
    TokenInfo,
    UserInfo,
)
from actors.numbers import COUNT_MAX
from actors.paging import Page
from actors.state.namespace import Namespace
from actors.state.policy_rows import TokenRow, UserRow
from actors.state.rights import Need, Rights, covers
from actors.store.changes import Change

OF_THE_POLICY = ("tokens", "credential", "users", "groups", "logins")
"""The reads whose answers are rows of the policy, also for the administrator."""


def answer(state: Namespace, request: ReadRequest, rights: Rights, page_bytes: int) -> ReadReply:
    """The answer to a read of the policy by a principal of these rights."""
    tokens: tuple[TokenInfo, ...] = ()
    users: tuple[UserInfo, ...] = ()
    groups: tuple[GroupInfo, ...] = ()
    more = False
    match request.what:
        case "access":
            if request.principal is not None:
                info = _with_secret(state, request.principal.token)
                whole = {"grants": rights.grants, "sha256": ""}
                tokens = (info.model_copy(update=whole),)
        case "credential":
            # Only the gateway itself reads one, for a client that shows the secret.
            name = request.path
            if request.principal is not None:
                pass
            elif name.startswith("@"):
                if name[1:] in state.policy.users:
                    users = (_user(state, name[1:], whole=True),)
            elif _holder(state, name) is not None:
                tokens = (_with_secret(state, name),)
        case "tokens":
            tokens, more = _page_of(state, request, rights, page_bytes, "token", _token)
        case "logins":
            tokens, more = _page_of(state, request, rights, page_bytes, "login", _login)
        case "users":
            users, more = _page_of(state, request, rights, page_bytes, "user", _user)
        case "groups":
            groups, more = _page_of(state, request, rights, page_bytes, "group", _group)
    return ReadReply(
        number=request.number,
        status="found",
        applied=state.applied,
        tokens=tokens,
        users=users,
        groups=groups,
        more=more,
    )


def answer_quotas(state: Namespace, request: ReadRequest, rights: Rights) -> ReadReply:
    """The quotas at and below a path, for who may administer it."""
    if not rights.may("admin", request.path):
        detail = Need("admin", request.path).text
        return ReadReply(
            number=request.number, status="denied", applied=state.applied, detail=detail
        )
    found: list[QuotaInfo] = []
    for path, row in sorted(state.quotas.rows.items()):
        if covers(request.path, path):
            used = state.tree.used(path)
            info = QuotaInfo(
                path=path,
                slot=row.slot,
                entries_max=row.entries_max,
                bytes_max=row.bytes_max,
                entries=used.entries,
                bytes=used.bytes,
            )
            found.append(info)
    return ReadReply(
        number=request.number, status="found", applied=state.applied, quotas=tuple(found)
    )


_Info = TypeVar("_Info", TokenInfo, UserInfo, GroupInfo)


def _page_of(
    state: Namespace,
    request: ReadRequest,
    rights: Rights,
    page_bytes: int,
    kind: str,
    info_of: Callable[[Namespace, str], _Info],
) -> tuple[tuple[_Info, ...], bool]:
    """The rows of a kind after `after` that the principal may see, and whether there are more."""
    page = Page(page_bytes)
    found: list[_Info] = []
    for name in state.policy.visible(kind, request.principal, rights, state.log_time_ms):
        if name > request.after:
            info = info_of(state, name)
            if len(found) >= request.limit or not page.takes(len(info.to_json())):
                return tuple(found), True
            found.append(info)
    return tuple(found), False


def _holder(state: Namespace, name: str) -> TokenRow | UserRow | None:
    """Who has the rights of the token or login `name`: the token itself, or for whom it acts."""
    policy = state.policy
    login = policy.logins.get(name)
    if login is None:
        return policy.tokens.get(name)
    return policy.tokens.get(f"{login.token}") if login.user is None else policy.users[login.user]


def _with_secret(state: Namespace, name: str) -> TokenInfo:
    """A token or login with the hash of its secret and all grants that it has."""
    holder = _holder(state, name)
    assert holder is not None
    login = state.policy.logins.get(name)
    info = _token(state, name) if login is None else _login(state, name)
    update = {
        "sha256": (state.policy.tokens[name] if login is None else login).sha256,
        "grants": state.policy.grants_of(holder),
        "groups": state.policy.group_names(holder),
    }
    return info.model_copy(update=update)


def _token(state: Namespace, token: str) -> TokenInfo:
    row = state.policy.tokens[token]
    return TokenInfo(
        token=token,
        slot=row.slot,
        label=row.label,
        grants=row.grants,
        created_by=row.created_by,
        left_ms=None if row.expires_ms is None else _left_ms(state, row.expires_ms),
        groups=state.policy.group_names(row),
    )


def _login(state: Namespace, login: str) -> TokenInfo:
    row = state.policy.logins[login]
    return TokenInfo(
        token=login,
        slot=row.slot,
        label=row.label,
        grants=(),
        created_by=row.owner,
        left_ms=_left_ms(state, row.expires_ms),
        login=LoginInfo(
            user=row.user,
            token=row.token,
            idle_ms=row.idle_ms,
            idle_left_ms=_left_ms(state, row.ends_ms),
        ),
    )


def _user(state: Namespace, user: str, *, whole: bool = False) -> UserInfo:
    """A user; `whole`: with its password's hash."""
    row = state.policy.users[user]
    return UserInfo(
        user=user,
        slot=row.slot,
        grants=row.grants,
        groups=state.policy.group_names(row),
        created_by=row.created_by,
        has_password=row.password is not None,
        password=(row.password or "") if whole else "",
        password_set=row.password_set if whole else "",
    )


def _group(state: Namespace, group: str) -> GroupInfo:
    row = state.policy.groups[group]
    return GroupInfo(group=group, slot=row.slot, grants=row.grants, created_by=row.created_by)


def _left_ms(state: Namespace, end_ms: int) -> int:
    return min(max(end_ms - state.log_time_ms, 0), COUNT_MAX)


_WHOLE = ("move", "copy", "remove_directory")


def visible_part(change: Change, rights: Rights) -> Change | None:
    """What a principal sees of a change: nothing of a path that it may not read. A change of a
    whole directory above what it may read shows as one of that directory.
    """

    def sees(path: str) -> bool:
        reads = rights.may("read", path)
        return reads or (change.kind in _WHOLE and rights.leads_on(path))

    if change.source is None:
        return change if sees(change.path) else None
    if sees(change.path):
        return change if sees(change.source) else change.model_copy(update={"source": None})
    if change.kind == "move" and sees(change.source):
        # All that it may know is that nothing is left there.
        update = {"kind": "remove_directory", "path": change.source, "source": None}
        return change.model_copy(update=update)
    return None
