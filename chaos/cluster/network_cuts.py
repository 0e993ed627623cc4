"""Lasting cuts between nodes and groups: a node declares a deleted binding again within seconds."""

import asyncio
from collections.abc import Awaitable, Callable

PAUSE_S = 0.005
"""Between two deletions of a binding. A message published in between may still be delivered."""

Cut = Callable[[], Awaitable[object]]


class Cuts:
    """Deletes each binding again and again until its cut is healed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def begin(self, node: str, group: str, cut: Cut) -> None:
        """Call `cut`, which deletes the binding if there is one, before this returns and after."""
        await cut()
        await self.end(node, group)
        self._kept[node, group] = asyncio.create_task(self._keep(cut))

    async def end(self, node: str, group: str) -> None:
        """Delete the binding no more. Raises the error that ended the deletions early, if any."""
        keeping = self._kept.pop((node, group), None)
        if keeping is None:
            return
        keeping.cancel()
        await asyncio.wait([keeping])
        if not keeping.cancelled():
            await keeping

    async def stop(self) -> None:
        """End all cuts."""
        for keeping in self._kept.values():
            keeping.cancel()
        if self._kept:
            await asyncio.wait(self._kept.values())
        self._kept.clear()

    async def _keep(self, cut: Cut) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            await cut()
