"""Cuts between nodes and groups that last: nodes make a binding that is gone again in seconds."""

import asyncio
from collections.abc import Awaitable, Callable

PAUSE_S = 0.005
"""Between two deletions of a binding: what is published while it is there again is heard."""

Cut = Callable[[], Awaitable[object]]


class Cuts:
    """Deletes each binding again and again until its cut is healed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def begin(self, node: str, group: str, cut: Cut) -> None:
        """`cut` deletes the binding, whether it is there or not; returns once that is done."""
        await cut()
        await self.end(node, group)
        self._kept[node, group] = asyncio.create_task(self._keep(cut))

    async def end(self, node: str, group: str) -> None:
        """From here on the binding may be made again. Raises what kept the cut from being kept."""
        keeping = self._kept.pop((node, group), None)
        if keeping is None:
            return
        keeping.cancel()
        await asyncio.wait([keeping])
        if not keeping.cancelled():
            await keeping

    async def stop(self) -> None:
        """Heal all."""
        for keeping in self._kept.values():
            keeping.cancel()
        if self._kept:
            await asyncio.wait(self._kept.values())
        self._kept.clear()

    async def _keep(self, cut: Cut) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            await cut()
