"""How many wrong tokens an address may try, and all addresses together.

A token of sixteen characters or more can't be guessed; the limit keeps guesses from taking the
gateway's time and filling its log. The right token passes also from an address that has guessed,
since others may share it. A client that sends the same
wrong token again, as after the token was changed, guesses nothing new and is not locked out.
"""

import ipaddress
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

BURST = 10
EACH_S = 6.0
"""An address may try `BURST` tokens at once, and one more in each `EACH_S`."""

ALL_BURST = 200
ALL_EACH_S = 0.5
"""The same for all addresses together. Beyond it, an address that has already tried must wait."""

ADDRESSES_MAX = 4_096
_REMEMBERED = 4
"""How many of an address's latest wrong tokens are remembered."""

_NETWORK_BITS = 64
"""The length of an IPv6 network: its clients choose the rest of their addresses freely."""


@dataclass(slots=True)
class _LeakyBucket:
    """Leaks one guess in each `each_s`."""

    each_s: float
    level: float = 0.0
    at_s: float = 0.0

    def read(self, now_s: float) -> float:
        self.level = max(0.0, self.level - (now_s - self.at_s) / self.each_s)
        self.at_s = now_s
        return self.level


@dataclass(slots=True)
class _Attempts:
    meter: _LeakyBucket = field(default_factory=lambda: _LeakyBucket(EACH_S))
    digests: deque[bytes] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class TokenAttemptLimits:
    """The recent wrong tokens, by address. `now_s` is a monotonic clock."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._tried: OrderedDict[str, _Attempts] = OrderedDict()
        self._all = _LeakyBucket(ALL_EACH_S)

    def wait_s(self, address: str) -> int:
        """After how many seconds a wrong token of `address` is answered as wrong; 0 is now."""
        if not self._tried:
            return 0
        tried = self._tried.get(_network(address))
        if tried is None:
            return 0
        now_s = self._now_s()
        over = tried.meter.read(now_s) - (BURST - 1)
        over_all = self._all.read(now_s) - (ALL_BURST - 1)
        wait_s = max(over * EACH_S, over_all * ALL_EACH_S)
        return math.ceil(wait_s) if wait_s > 0 else 0

    def wrong(self, address: str, digest: bytes) -> None:
        """Record that `address` tried a wrong token."""
        address = _network(address)
        tried = self._tried.get(address)
        if tried is None:
            tried = self._tried[address] = _Attempts()
            if len(self._tried) > ADDRESSES_MAX:
                self._tried.popitem(last=False)
        self._tried.move_to_end(address)
        if digest in tried.digests:
            return
        tried.digests.append(digest)
        now_s = self._now_s()
        for meter in (tried.meter, self._all):
            meter.level = meter.read(now_s) + 1


def _network(address: str) -> str:
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(int(parsed) >> (128 - _NETWORK_BITS))
