"""Answers about the policy, and the part of a change that a principal may see."""

from actors.messages import QuotaInfo, ReadReply, ReadRequest, TokenInfo
from actors.numbers import COUNT_MAX
from actors.paging import Page
from actors.state.namespace import Namespace
from actors.state.rights import Need, Rights, covers
from actors.store.changes import Change


def answer(state: Namespace, request: ReadRequest, rights: Rights, page_bytes: int) -> ReadReply:
    """The answer to a read of the policy by a principal of these rights."""
    found: tuple[TokenInfo, ...] = ()
    more = False
    match request.what:
        case "access":
            if request.principal is not None:
                found = (_info(state, request.principal.token),)
        case "tokens":
            found, more = _page_of(state, request, rights, page_bytes)
        case "credential":
            # Only the gateway itself reads one, for a client that shows the token's secret.
            if request.principal is None and request.path in state.policy.tokens:
                row = state.policy.tokens[request.path]
                found = (_info(state, request.path).model_copy(update={"sha256": row.sha256}),)
    return ReadReply(
        number=request.number, status="found", applied=state.applied, tokens=found, more=more
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


def _page_of(
    state: Namespace, request: ReadRequest, rights: Rights, page_bytes: int
) -> tuple[tuple[TokenInfo, ...], bool]:
    """The tokens after `after` that the principal may see, and whether there are more."""
    page = Page(page_bytes)
    found: list[TokenInfo] = []
    for token in state.policy.visible(request.principal, rights, state.log_time_ms):
        if token > request.after:
            info = _info(state, token)
            if len(found) >= request.limit or not page.takes(len(info.to_json())):
                return tuple(found), True
            found.append(info)
    return tuple(found), False


def _info(state: Namespace, token: str) -> TokenInfo:
    row = state.policy.tokens[token]
    left_ms = None if row.expires_ms is None else row.expires_ms - state.log_time_ms
    return TokenInfo(
        token=token,
        slot=row.slot,
        label=row.label,
        grants=row.grants,
        created_by=row.created_by,
        left_ms=None if left_ms is None else min(max(left_ms, 0), COUNT_MAX),
    )


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
