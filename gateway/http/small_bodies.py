"""Small request bodies, bounded in size and in the time that they take to arrive."""

import asyncio

from starlette.requests import Request
from starlette.types import Scope

from gateway.http.problems import BODY_TIMEOUT, NOT_JSON, TOO_LARGE, Problem

BODY_BYTES_MAX = 4_096
_TIMEOUT_S = 10.0


def media_type(scope: Scope) -> str:
    """The declared media type of the body, without parameters."""
    for name, value in scope["headers"]:
        if name == b"content-type":
            return str(value.partition(b";")[0].strip().lower().decode("latin-1"))
    return ""


def check_json(scope: Scope) -> None:
    """Refuse other types than JSON, which a page of another origin can't send unasked. Raises
    `Problem`.
    """
    if media_type(scope) != "application/json":
        raise Problem(NOT_JSON, "Content-Type must be application/json")


async def read_small_body(request: Request) -> bytes:
    """A small body. Raises `Problem` if it is larger, or arrives too slowly."""
    body = bytearray()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > BODY_BYTES_MAX:
                    raise Problem(TOO_LARGE, f"the body has more than {BODY_BYTES_MAX} bytes")
    except TimeoutError:
        raise Problem(
            BODY_TIMEOUT,
            f"the body did not arrive within {_TIMEOUT_S:g} s",
            headers={"connection": "close"},
        ) from None
    return bytes(body)
