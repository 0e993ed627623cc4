"""What a gateway refused, and who logged in: the newest, in memory, and as lines of its log.

None of it is in the cluster's log, which strangers must not be able to fill. Strangers can cause
refusals as fast as they like, so only some of them are kept: of an address a few a second, so that
it does not push out what others did, and of all together some more. The rest are counted.
"""

import logging
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.types import Scope

from gateway.http.auth import address_of
from gateway.http.credentials import api_token_in
from gateway.http.schemas import RefusalItem, RefusalKind

_log = logging.getLogger("synod.gateway.audit")

KEPT = 2_000
ADDRESS_BURST = 20
ADDRESS_PER_S = 1.0
ALL_BURST = 200
ALL_PER_S = 20.0
ADDRESSES_MAX = 1_024
_PATH_MAX = 400
REFUSED = frozenset((401, 403, 421, 429))
"""The statuses of refusals: no credentials, no right, another name, too many requests."""

_SESSIONS: dict[str, RefusalKind] = {"/v1/login": "login", "/v1/logout": "logout"}
_TOKEN_ID = re.compile(r"syn_([a-z0-9]{1,32})_")


@dataclass(slots=True)
class _Bucket:
    """Fills by `per_s` up to `burst`."""

    burst: float
    per_s: float
    level: float
    at_s: float

    def take(self, now_s: float) -> bool:
        """Take one, if there is one."""
        self.level = min(self.burst, self.level + (now_s - self.at_s) * self.per_s)
        self.at_s = now_s
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Refusals:
    """The stream of one gateway. `now_s` is a monotonic clock."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._kept: deque[RefusalItem] = deque(maxlen=KEPT)
        self._number = 0
        self.suppressed = 0
        """How many were not kept since this gateway started."""
        self._suppressed_before = 0
        self._all = _Bucket(ALL_BURST, ALL_PER_S, ALL_BURST, now_s())
        self._by_address: OrderedDict[str, _Bucket] = OrderedDict()

    def answered(self, scope: Scope, status: int, *, token: str, reason: str) -> None:
        """A request was answered: keep it if it was refused, or is a login or a logout.

        `token` is whose credentials it bore, or who asks for a session, if that is known: `@USER`,
        or an id; and `reason` the type of the problem.
        """
        if status in REFUSED:
            self._note(scope, "refused", status, token or _claimed(scope), reason)
        elif status < 400 and scope["method"] == "POST" and scope["path"] in _SESSIONS:
            self._note(scope, _SESSIONS[scope["path"]], status, token, "")

    def _note(self, scope: Scope, kind: RefusalKind, status: int, token: str, reason: str) -> None:
        address, now_s = address_of(scope), self._now_s()
        if not (self._bucket(address, now_s).take(now_s) and self._all.take(now_s)):
            self.suppressed += 1
            return
        path: str = scope["path"]
        self._number += 1
        item: RefusalItem = {
            "number": self._number,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kind": kind,
            "status": status,
            "reason": reason or None,
            "method": scope["method"][:16],
            "path": path if len(path) <= _PATH_MAX else path[:_PATH_MAX] + "…",
            "address": address or None,
            "token": token or None,
            "suppressed_before": self.suppressed - self._suppressed_before,
        }
        self._suppressed_before = self.suppressed
        self._kept.append(item)
        told = {name: value for name, value in item.items() if name != "time" and value}
        _log.info("%s", kind, extra={"audit": told})

    def _bucket(self, address: str, now_s: float) -> _Bucket:
        bucket = self._by_address.get(address)
        if bucket is None:
            bucket = _Bucket(ADDRESS_BURST, ADDRESS_PER_S, ADDRESS_BURST, now_s)
            self._by_address[address] = bucket
            if len(self._by_address) > ADDRESSES_MAX:
                self._by_address.popitem(last=False)
        self._by_address.move_to_end(address)
        return bucket

    def newest(self, limit: int) -> list[RefusalItem]:
        """The newest ones, newest first."""
        return list(self._kept)[: -limit - 1 : -1]


def _claimed(scope: Scope) -> str:
    """The id of the API token that a request bears, whether it is right or not."""
    found = _TOKEN_ID.match(api_token_in(scope) or "")
    return "" if found is None else found[1]
