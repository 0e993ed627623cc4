"""The body of a request as it arrives, from clients of any speed."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Receive

from gateway.http.client_timeouts import LEAST_BYTES_PER_S, WaitAllowance
from gateway.http.problems import (
    BODY_TIMEOUT,
    INCOMPLETE_BODY,
    INVALID_HEADER,
    Problem,
)

_DIGITS_MAX = 18
"""A number with this many digits is above every size limit, and fits in 64 bits."""


class RequestBody:
    """A body; complete once the client has ended it. `too_large`: why a larger one is refused."""

    def __init__(
        self,
        fields: dict[str, str],
        receive: Receive,
        bytes_max: int,
        timeout_s: float,
        too_large: Callable[[], Problem],
    ) -> None:
        self.complete = False
        self.expected = _expected_bytes(fields, bytes_max, too_large)
        """The size that the client announced, if it did."""
        self._receive = receive
        self._bytes_max = bytes_max
        self._timeout_s = timeout_s
        self._allowance = WaitAllowance(timeout_s)
        self._too_large = too_large
        self._received = 0

    async def piece(self) -> bytes:
        """The next bytes, perhaps none. Raises `Problem`."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with asyncio.timeout(self._allowance.left_s):
                message: Any = await self._receive()
        except TimeoutError:
            raise Problem(
                BODY_TIMEOUT,
                f"the body stalled for {self._timeout_s:g} s, or came at less than "
                f"{LEAST_BYTES_PER_S} bytes a second; nothing was written",
                headers={"connection": "close"},
            ) from None
        if message["type"] == "http.disconnect":
            raise self._cut_off()
        piece: bytes = message.get("body", b"")
        self._allowance.moved(len(piece), loop.time() - began_s)
        self._received += len(piece)
        if self._received > self._bytes_max:
            raise self._too_large()
        self.complete = not message.get("more_body", False)
        if self.complete and self.expected not in (None, self._received):
            raise self._cut_off()
        return piece

    def _cut_off(self) -> Problem:
        of = "" if self.expected is None else f" of {self.expected}"
        return Problem(
            INCOMPLETE_BODY,
            f"the body ended after {self._received}{of} bytes; nothing was written",
            headers={"connection": "close"},
        )


def _expected_bytes(
    fields: dict[str, str], bytes_max: int, too_large: Callable[[], Problem]
) -> int | None:
    length = fields.get("content-length")
    if length is None:
        return None
    if not (length.isascii() and length.isdecimal()):
        raise Problem(INVALID_HEADER, f"Content-Length is {length[:40]!r}")
    digits = length.lstrip("0") or "0"
    if len(digits) > _DIGITS_MAX or int(digits) > bytes_max:
        raise too_large()
    return int(digits)
