"""Runs a command's requests to a gateway."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.cli.console import note
from gateway.cli.sessions import token_for
from synod.client import AsyncClient
from synod.retries import Waiting

_T = TypeVar("_T")


def with_synod(
    url: str,
    work: Callable[[AsyncClient], Awaitable[_T]],
    jobs: int = 1,
    *,
    timeout: float | None = None,
    silent: bool = False,
    token: str | None = None,
) -> _T:
    """Run `work` with a client, which sends `token`, or without one that of the environment or the
    session of `synod login`. Unless `silent`, tell the user what a long wait is for.
    """
    sent = token_for(url) if token is None else token
    waiting = Waiting(None if silent else lambda text: note(f"synod: {text}"))

    async def run() -> _T:
        async with AsyncClient(
            url, token=sent, connections=jobs + 4, timeout_s=timeout, waiting=waiting
        ) as synod:
            return await work(synod)

    return asyncio.run(run())
