"""`Idempotency-Key`: which requests are the same, and which keys are in progress."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from actors.values import IdempotencyKey
from gateway.callers import Caller
from gateway.http.problems import INVALID_HEADER, RUNNING, Problem
from synod.headers import is_key

# The metadata that a client sends in headers is part of its request.
_DESCRIBING = (
    "content-type",
    "if-match",
    "if-none-match",
    "last-modified",
    "synod-executable",
    "synod-modified",
)


class RunningKeys:
    """The keys of the requests in progress at this gateway; each caller has its own."""

    def __init__(self) -> None:
        self._running: set[tuple[str, str]] = set()

    @contextmanager
    def claim(self, fields: dict[str, str], caller: Caller) -> Iterator[str | None]:
        """Holds the request's key, if it has one, until it is answered. Raises `Problem`.

        Two concurrent copies of a request would together be applied once, but the second would wait
        for the first; it gets a problem that says so instead.
        """
        key = fields.get("idempotency-key")
        if key is None:
            yield None
            return
        if not is_key(key):
            raise Problem(
                INVALID_HEADER, "Idempotency-Key must be 1 to 255 visible ASCII characters"
            )
        claimed = (caller.owner, key)
        if claimed in self._running:
            raise Problem(
                RUNNING,
                "the first request with this Idempotency-Key is not answered yet; ask again later",
                headers={"retry-after": "1"},
            )
        self._running.add(claimed)
        try:
            yield key
        finally:
            self._running.discard(claimed)


def idempotency_key(
    key: str | None, method: str, target: str, fields: dict[str, str], digest: str = ""
) -> IdempotencyKey | None:
    """The key with the fingerprint of the request that it stands for.

    The fingerprint covers the client's request and nothing that the gateway adds.
    """
    if key is None:
        return None
    said = [[name, fields[name]] for name in _DESCRIBING if name in fields]
    said += sorted([name, value] for name, value in fields.items() if "synod-meta-" in name)
    text = json.dumps([method, target, said, digest])
    return IdempotencyKey(key=key, fingerprint=hashlib.sha256(text.encode()).hexdigest())
