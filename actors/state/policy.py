"""The policy: the API tokens and their grants, a part of the replicated state.

Only commands of the log change it, so whoever may do what is the same on every replica at the same
slot, and a revocation stands before or after each write, never beside it. Expiry is by log time
(docs/decisions/0017-log-time-is-time-under-the-lease.md), never by a clock of a node: a token may
live for longer than it says, by the time in which no leader led and since the last batch of
commands, and never for less.
"""

from collections.abc import Iterator

from actors.numbers import Count
from actors.state.budget import Budget, Refused
from actors.state.changed_rows import ChangedRows
from actors.state.rights import EVERYTHING, OF_THE_CLUSTER, Rights, needs_of, needs_of_grants
from actors.values import (
    Command,
    CreateToken,
    Frozen,
    Grant,
    Principal,
    RevokeToken,
)

_ENTRIES_PER_TOKEN = 200
_TREE_BYTES_PER_BYTE = 128
"""There may be one token for so many entries that the tree may hold (10,000 by default), and a byte
of tokens for so many bytes of the tree (16 MiB), whoever makes them: every replica holds them all.
"""

_TOKEN_BYTES = 512
_GRANT_BYTES = 128


class TokenRow(Frozen):
    """A token's row in the journal. `slot` created it, for the holder of the token `created_by`.

    `expires_ms` is log time; `None`: never.
    """

    slot: Count
    sha256: str
    label: str
    grants: tuple[Grant, ...]
    created_by: str
    expires_ms: Count | None


def size_of(row: TokenRow) -> int:
    """Roughly the size of a token in memory and in a journal row, in bytes."""
    grants = sum(_GRANT_BYTES + 2 * len(grant.path) for grant in row.grants)
    return _TOKEN_BYTES + 2 * len(row.label) + grants


class Policy:
    """All tokens. `log_time_ms` is always that of the state that the policy is a part of."""

    def __init__(self, changed_rows: ChangedRows) -> None:
        self.tokens: dict[str, TokenRow] = {}
        self.bytes = 0
        """The size of all tokens."""
        self._changed_rows = changed_rows

    def keep(self, token: str, row: TokenRow) -> None:
        """Insert a token, as from a row of the journal."""
        self.tokens[token] = row
        self.bytes += size_of(row)

    # -- who may what ----------------------------------------------------------------------------

    def rights_of(self, principal: Principal | None, log_time_ms: int) -> Rights | None:
        """What the principal may do; `None` if its token is not valid: it was revoked, has expired,
        or is another one than the gateway saw, as it was created after that.
        """
        if principal is None:
            return EVERYTHING
        row = self.tokens.get(principal.token)
        if row is None or row.slot > principal.policy_slot or not _lives(row, log_time_ms):
            return None
        return Rights(row.grants)

    def check(self, command: Command, budget: Budget, log_time_ms: int) -> Rights:
        """The rights of the command's principal, which allow all that it does, except that
        `operate` checks a revocation. Raises `Refused`.
        """
        rights = self.rights_of(command.principal, log_time_ms)
        if rights is None:
            raise Refused("unauthenticated", "the token was revoked, has expired or is not known")
        if rights is EVERYTHING:
            return rights
        for need in needs_of(command.operation):
            budget.step()
            if not rights.may(need.role, need.path):
                raise Refused("denied", need.text, need.step)
        return rights

    # -- changes ---------------------------------------------------------------------------------

    def operate(
        self, slot: int, command: Command, rights: Rights, budget: Budget, log_time_ms: int
    ) -> None:
        """Execute a command that changes the policy, for a principal of these rights, which `check`
        has returned. Raises `Refused`.
        """
        principal = command.principal
        match command.operation:
            case CreateToken() as change:
                self._create(slot, principal, change, budget, log_time_ms)
            case RevokeToken(token=token):
                self._revoke(principal, rights, token, budget)

    def _create(
        self,
        slot: int,
        principal: Principal | None,
        change: CreateToken,
        budget: Budget,
        log_time_ms: int,
    ) -> None:
        if change.token in self.tokens:
            raise Refused("conflict", f"there is a token {change.token!r}")
        if not change.grants:
            raise Refused("conflict", "a token needs a grant at least")
        if any(grant.path and grant.role in OF_THE_CLUSTER for grant in change.grants):
            raise Refused("conflict", "the roles 'operate' and 'backup' have no path")
        after_ms = change.expires_after_ms
        row = TokenRow(
            slot=slot,
            sha256=change.sha256,
            label=change.label,
            grants=change.grants,
            created_by="" if principal is None else principal.token,
            expires_ms=None if after_ms is None else log_time_ms + after_ms,
        )
        size = size_of(row)
        budget.write(size)
        constants = budget.constants
        tokens_max = constants.tree_entries // _ENTRIES_PER_TOKEN
        bytes_max = constants.tree_bytes // _TREE_BYTES_PER_BYTE
        if len(self.tokens) >= tokens_max or self.bytes + size > bytes_max:
            raise Refused(
                "over_quota",
                f"the cluster may hold {tokens_max} tokens of {bytes_max} bytes in all: revoke "
                "some",
            )
        self.keep(change.token, row)
        self._changed_rows.note(f"token/{change.token}", f"{slot} {row.to_json().decode()}")

    def _revoke(
        self, principal: Principal | None, rights: Rights, token: str, budget: Budget
    ) -> None:
        budget.step()
        if token not in self.tokens or not self._may_see(principal, rights, token):
            raise Refused("not_found", f"there is no token {token!r} that may be revoked")
        self._remove(token, "revoked")

    def _may_see(self, principal: Principal | None, rights: Rights, token: str) -> bool:
        """Whether the principal may see and revoke a token: its own, or one whose grants it might
        have given.
        """
        if principal is not None and principal.token == token:
            return True
        return rights.may_all(needs_of_grants(self.tokens[token].grants))

    def visible(
        self, principal: Principal | None, rights: Rights, log_time_ms: int
    ) -> Iterator[str]:
        """The tokens that a principal of these rights may see and that live, in order."""
        for token in sorted(self.tokens):
            lives = _lives(self.tokens[token], log_time_ms)
            if lives and self._may_see(principal, rights, token):
                yield token

    def forget_expired(self, log_time_ms: int) -> None:
        """Remove the tokens that have expired, which are not valid any more."""
        for token in sorted(self.tokens):
            if not _lives(self.tokens[token], log_time_ms):
                self._remove(token, "expired")

    def _remove(self, token: str, why: str) -> None:
        self.bytes -= size_of(self.tokens.pop(token))
        self._changed_rows.note(f"token/{token}", why)


def _lives(row: TokenRow, log_time_ms: int) -> bool:
    return row.expires_ms is None or log_time_ms < row.expires_ms
