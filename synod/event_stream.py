"""Server-sent events of a response, as `/v1/watch` sends them."""

from collections.abc import AsyncIterator

import httpx


async def server_sent(response: httpx.Response) -> AsyncIterator[tuple[str, str, str]]:
    """The events of a stream: id, type, data. The type is empty if an event has only an id."""
    id, event, data = "", "", ""
    async for line in _lines(response):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            id = value
        elif name == "event":
            event = value
        elif name == "data":
            data = value
        elif not line:
            yield id, event, data
            event, data = "", ""


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """The lines of a stream. Only a newline ends one: a name may contain other characters that
    `str.splitlines`, and with it httpx, takes for line ends.
    """
    held: list[bytes] = []
    async for piece in response.aiter_bytes():
        *ended, rest = piece.split(b"\n")
        for line in ended:
            held.append(line)
            yield b"".join(held).removesuffix(b"\r").decode(errors="replace")
            held.clear()
        held.append(rest)
