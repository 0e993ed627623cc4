"""API tokens and sessions that requests bear: which row of the replicated state one comes with.

Both are `syn_ID_SECRET`, a session also as a browser's cookie. The id names a row of the replicated
state, which holds the SHA-256 of the secret; a secret of 256 random bits needs no slower hash. The
gateway keeps what it has learnt of a row: the secret of an id never changes, and whether the token
still lives is decided where the request is carried out, by the state there, not here.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from starlette.types import Scope

from actors.messages import LoginInfo, ReadRequest
from actors.principals import Principal, RefreshLogin
from actors.state.rights import Rights
from gateway.callers import ADMINISTRATOR, CHALLENGE, Caller
from gateway.cluster import Cluster
from gateway.http.auth_limits import TokenAttemptLimits
from gateway.http.problems import TOO_MANY_REQUESTS, UNAUTHORIZED, Problem

PREFIX = "syn_"
_TOKEN = re.compile(r"syn_([a-z2-7]{16})_([0-9a-f]{64})")
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID_CHARS = 16

REFRESHES = 16
"""A gateway tells the log this often in a session's idle time that the session is in use, so it may
end earlier than its idle time after its last use, by 1/16 of it.
"""

_REFRESH_AGAIN_S = 10.0
_KNOWN_MAX = 4_096
_LOOKUPS_MAX = 16
_LOOKUPS_OF_ADDRESS_MAX = 2
"""Tokens that the gateway looks up at a time, in all and for an address that has guessed: a lookup
costs a store a read.
"""


class NewToken(NamedTuple):
    """A token that is not in the state yet. `text` is shown to its owner, once."""

    id: str
    sha256: str
    text: str


def new_token() -> NewToken:
    """A new token, with a random id and secret."""
    id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARS))
    secret = secrets.token_hex(32)
    return NewToken(id, _sha256(secret), f"{PREFIX}{id}_{secret}")


def api_token_in(scope: Scope) -> str | None:
    """The API token or session that a request bears as its authorization, if it bears one."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            text: str = token.strip().decode("latin-1")
            return text if scheme.lower() == b"bearer" and text.startswith(PREFIX) else None
    return None


class _Known(NamedTuple):
    """What the gateway knows of a token, as of `slot`."""

    sha256: str
    rights: Rights
    slot: int
    expires: bool
    rights_may_change: bool
    login: LoginInfo | None
    refresh_s: float
    """When this gateway next tells the log that a session is in use, on the monotonic clock."""


class Credentials:
    """Checks API tokens, and remembers those that were right."""

    def __init__(
        self, cluster: Cluster, limits: TokenAttemptLimits, rejected: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._limits = limits
        self._rejected = rejected
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lookups: Counter[str] = Counter()

    async def caller_of(self, text: str, address: str, *, only_login: bool = False) -> Caller:
        """The caller that bears the token or session `text`. Raises `Problem`."""
        found = _TOKEN.fullmatch(text)
        if found is None:
            raise self._wrong(text, address)
        id, secret = found[1], found[2]
        known = self._known.get(id) or await self._look_up(id, address)
        if known is None or not hmac.compare_digest(known.sha256, _sha256(secret)):
            raise self._wrong(text, address)
        login = known.login
        if only_login and login is None:
            raise self._wrong(text, address)
        user = None if login is None else login.user
        return Caller(
            Principal(token=id, policy_slot=known.slot, user=user),
            known.rights,
            known.expires,
            known.rights_may_change,
            by_login=login is not None,
            token_behind="" if login is None else login.token or "",
        )

    async def version_of(self, caller: Caller) -> str:
        """The version of an API token's secret, for a session. Raises `Problem`."""
        request = ReadRequest(number=0, what="credential", path=caller.token)
        reply = (await self._cluster.read(ADMINISTRATOR, request)).reply
        return str(reply.tokens[0].slot) if reply.tokens else ""

    def forget(self, caller: Caller) -> None:
        """Forget a token or session that the cluster does not know any more."""
        self._known.pop(caller.token, None)

    async def refresh(self, caller: Caller) -> None:
        """Have the log know that a session is in use, unless it knows of a use not long ago. Raises
        `Problem`.
        """
        known = self._known.get(caller.token)
        now_s = time.monotonic()
        if known is None or known.login is None or now_s < known.refresh_s:
            return
        # Others that come meanwhile need not do the same. If it fails, the next one after it does.
        self._known[caller.token] = known._replace(refresh_s=now_s + _REFRESH_AGAIN_S)
        await self._cluster.write(caller, RefreshLogin(), None, retry_aborted=True)
        each_s = known.login.idle_ms / 1000 / REFRESHES
        if caller.token in self._known:
            self._known[caller.token] = known._replace(refresh_s=now_s + each_s)

    async def _look_up(self, id: str, address: str) -> _Known | None:
        """Ask the cluster for a token. Raises `Problem`."""
        of_address = self._lookups[address]
        crowded = self._lookups.total() >= _LOOKUPS_MAX
        # An address that has guessed may also have the right token, so it waits for its turn.
        guesses = of_address >= _LOOKUPS_OF_ADDRESS_MAX and self._limits.wait_s(address) > 0
        if crowded or guesses:
            raise self._too_many(1)
        self._lookups[address] += 1
        try:
            request = ReadRequest(number=0, what="credential", path=id)
            reply = (await self._cluster.read(ADMINISTRATOR, request)).reply
        finally:
            self._lookups[address] -= 1
            if not self._lookups[address]:
                del self._lookups[address]
        if not reply.tokens:
            return None
        (info,) = reply.tokens
        refresh_s = time.monotonic()
        if info.login is not None:
            idle_ms, left_ms = info.login.idle_ms, info.login.idle_left_ms
            refresh_s += max(0.0, left_ms - idle_ms * (1 - 1 / REFRESHES)) / 1000
        known = _Known(
            info.sha256,
            Rights(info.grants),
            reply.applied,
            expires=info.left_ms is not None,
            rights_may_change=bool(info.groups) or info.login is not None,
            login=info.login,
            refresh_s=refresh_s,
        )
        self._known[id] = known
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return known

    def _wrong(self, text: str, address: str) -> Problem:
        """The problem of a wrong token, which counts as a guess."""
        if wait_s := self._limits.wait_s(address):
            return self._too_many(wait_s)
        self._limits.wrong(address, hashlib.sha256(text.encode("latin-1")).digest())
        self._rejected("token")
        return Problem(
            UNAUTHORIZED,
            "this token or session is not known: it is wrong, was revoked or has expired",
            headers=CHALLENGE,
        )

    def _too_many(self, wait_s: int) -> Problem:
        self._rejected("guesses")
        return Problem(
            TOO_MANY_REQUESTS,
            f"too many wrong tokens came from this address; wait {wait_s} s",
            headers={"retry-after": str(wait_s)},
        )


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()
