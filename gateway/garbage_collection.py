"""When a process of nodes collects cyclic garbage: while it is idle, and not amid its work.

A request leaves no cycle behind (`tests/gateway/test_garbage.py` and `test_garbage_collection.py`
hold it to that), so a collection finds next to nothing. But it visits each object that was made
since the last one, and whatever is under way waits. The collector stays on all the same: a cycle
of a library, such as that of an error and its traceback, must not keep memory for ever. Its
thresholds follow what the process does; the rules for older generations are Python's.
"""

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

from broker.runtime import NodeHost

PERIOD_S = 0.5
"""How soon a process that became idle, or busy, is treated so."""

IDLE_PART_OF_A_CORE = 0.02
"""What a node that only sends heartbeats never takes, and one that works soon exceeds: 0.005 of a
slow core in an idle cluster, and 0.05 and more with a single client."""

Thresholds = tuple[int, int, int]

IDLE_THRESHOLDS: Thresholds = (10_000, 5, 5)
"""Collections of a few milliseconds."""


def busy_thresholds(nodes: int) -> Thresholds:
    """The bound of a process that is never idle.

    With 256 clients the nodes together have up to 200,000 objects more for a second or two, the
    log's tail, of which nothing is garbage. So many more than that are a leak: some 10 MiB for one
    node, 150 MiB for all in one process, which a collection of 30 ms, or of 300 ms, ends.
    """
    return 50_000 * (nodes + 1), 3, 3


class GarbageCollection:
    """Sets the thresholds of Python's collector for this process, which runs so many nodes."""

    def __init__(
        self,
        nodes: int,
        *,
        commits: Callable[[], int],
        collected: Callable[[float], None] = lambda seconds: None,
        clock: Callable[[], float] = time.monotonic,
        processor_s: Callable[[], float] = time.process_time,
    ) -> None:
        """`commits` counts those of all journals; `collected` gets the seconds of each collection,
        in the thread that ran it.
        """
        self._nodes = nodes
        self._commits = commits
        self._collected = collected
        self._clock = clock
        self._processor_s = processor_s
        self._looked_s = clock()
        self._used_s = processor_s()
        self._committed = commits()
        self._began_s: float | None = None
        self._incarnations: dict[NodeHost, int] = {}

    async def run(self) -> None:
        """Adapt the thresholds until cancelled; then they are as they were."""
        before = gc.get_threshold()
        gc.set_threshold(*busy_thresholds(self._nodes))
        gc.callbacks.append(self._on_collection)
        try:
            while True:
                await asyncio.sleep(PERIOD_S)
                self.look()
        finally:
            gc.callbacks.remove(self._on_collection)
            gc.set_threshold(*before)

    async def watch(self, host: NodeHost) -> None:
        """Once the last node is ready, leave out of collections all that the nodes restored."""
        await host.ready()
        self._incarnations[host] = host.identity.incarnation
        if len(self._incarnations) == self._nodes:
            gc.freeze()

    def look(self) -> None:
        """See what the process did since the last look: without clients nothing is committed."""
        now_s, used_s, committed = self._clock(), self._processor_s(), self._commits()
        # Commits show work also where a busy machine gives the process little of its processor.
        idle = (
            committed == self._committed
            and used_s - self._used_s < IDLE_PART_OF_A_CORE * self._nodes * (now_s - self._looked_s)
        )
        self._looked_s, self._used_s, self._committed = now_s, used_s, committed
        gc.set_threshold(*(IDLE_THRESHOLDS if idle else busy_thresholds(self._nodes)))
        if any(host.identity.incarnation != then for host, then in self._incarnations.items()):
            # The former actor, which refers to itself, is garbage with all of its state.
            self._incarnations.clear()
            gc.unfreeze()

    def _on_collection(self, phase: str, info: dict[str, Any]) -> None:
        now_s = time.perf_counter()
        if phase == "start":
            self._began_s = now_s
        elif self._began_s is not None:
            self._collected(now_s - self._began_s)
