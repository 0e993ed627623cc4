"""What open windows take from the throughput of writes, by the processor time of the servers.

Throughput itself differs more between two runs on a busy machine than any window makes it differ,
and a browser takes its share of the same cores. So the windows here are plain connections that
consume what the pages do, and what is compared is the processor time of the gateway, the nodes and
the broker for each acknowledged write, in alternating runs with and without them.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from chaos.cluster.local import Description, LocalCluster
from chaos.cluster.processes import ProcessFailed
from chaos.load.http1 import Connection
from chaos.measure.trace_cost import cpu_by_role, write_steadily

_CONTENT = bytes(1024)
_WARM_S = 1.0

PAGES = (
    ("/v1/events", "/v1/watch"),
    ("/v1/events?topics=cluster",),
    ("/v1/events?topics=requests",),
    ("/v1/events?topics=log",),
    ("/v1/events?topics=cluster",),
)
"""The streams of a window on Files, Cluster, Requests, Log, and Cluster again. Windows of one
browser share theirs; these share nothing, as if each were in a browser of its own.
"""


@dataclass(frozen=True)
class Run:
    """One run of writes."""

    writes: int
    seconds: float
    cpu_s: dict[str, float]
    """By role, over the run."""
    received_bytes: int
    """By all windows."""

    @property
    def cost_ms(self) -> float:
        """The processor time of all servers for one write."""
        return 1000 * sum(self.cpu_s.values()) / self.writes


@dataclass(frozen=True)
class Load:
    """Writes at a fixed `rate` a second; if that is 0, of `clients` that wait for each answer."""

    seconds: float
    rate: float
    clients: int

    async def write(self, url: str) -> int:
        """How many writes were acknowledged. Raises `ProcessFailed` if one is refused."""
        if self.rate:
            return len(await write_steadily(url, self.rate, self.seconds))
        return await _write_flat_out(url, self.seconds, self.clients)


class _Windows:
    """So many open windows; counts what they receive."""

    def __init__(self, url: str, count: int) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._targets = [target for n in range(count) for target in PAGES[n % len(PAGES)]]
        self.received_bytes = 0

    async def watch(self) -> None:
        """Consume until cancelled. Raises `ProcessFailed` if a stream is refused or ends."""
        async with asyncio.TaskGroup() as group:
            for target in self._targets:
                group.create_task(self._consume(target))

    async def _consume(self, target: str) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            head = f"GET {target} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n\r\n"
            writer.write(head.encode())
            status = await reader.readline()
            if b" 200 " not in status:
                raise ProcessFailed(f"{target} was answered {status!r}")
            while data := await reader.read(65_536):
                self.received_bytes += len(data)
            raise ProcessFailed(f"{target} ended")
        finally:
            writer.close()


async def _write_flat_out(url: str, seconds: float, clients: int) -> int:
    """How many writes were acknowledged to clients that each wait for their answer."""
    done = 0
    ends = time.monotonic() + seconds

    async def client(index: int) -> None:
        nonlocal done
        connection = Connection.to(url)
        try:
            while time.monotonic() < ends:
                reply = await connection.request("PUT", f"/v1/files/cost/{index}", _CONTENT)
                if reply.status not in (200, 201):
                    raise ProcessFailed(f"a write was answered {reply.status}: {reply.body!r}")
                done += 1
        finally:
            connection.close()

    async with asyncio.TaskGroup() as group:
        for index in range(clients):
            group.create_task(client(index))
    return done


async def _run(cluster: LocalCluster, windows: int, load: Load) -> Run:
    looking_on = _Windows(cluster.url, windows)
    watching = asyncio.create_task(looking_on.watch())
    try:
        await asyncio.sleep(_WARM_S)
        before, began = cpu_by_role(cluster), time.monotonic()
        writes = await load.write(cluster.url)
        elapsed, after = time.monotonic() - began, cpu_by_role(cluster)
        if watching.done():
            watching.result()
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    cpu_s = {role: after[role] - before[role] for role in after}
    return Run(writes, elapsed, cpu_s, looking_on.received_bytes)


def pairs(cluster: LocalCluster, windows: int, count: int, load: Load) -> Iterator[tuple[Run, Run]]:
    """So many pairs of a run without windows and one with them, in turns first."""
    asyncio.run(_run(cluster, windows, load))  # Warms all processes up.
    for pair in range(count):
        order = (0, windows) if pair % 2 == 0 else (windows, 0)
        runs = {open_: asyncio.run(_run(cluster, open_, load)) for open_ in order}
        yield runs[0], runs[windows]


def report(windows: int, count: int, load: Load) -> None:
    """Start a cluster, run the pairs on it, print each and the medians."""
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(Path(folder), Description.mint()) as cluster,
    ):
        found = []
        for without, with_windows in pairs(cluster, windows, count, load):
            found.append((without, with_windows))
            print(
                f"without windows {without.writes / without.seconds:.0f} writes a second at "
                f"{without.cost_ms:.2f} ms of processor time; with {windows} "
                f"{with_windows.writes / with_windows.seconds:.0f} at {with_windows.cost_ms:.2f} "
                f"ms, {with_windows.received_bytes / 1024 / with_windows.seconds:.0f} KiB/s sent "
                f"to them; {with_windows.cost_ms / without.cost_ms - 1:+.1%}",
                flush=True,
            )
    shares = [after.cost_ms / before.cost_ms - 1 for before, after in found]
    print(
        f"{windows} windows add {statistics.median(shares):+.1%} to the processor time of a write "
        f"(median of {count} pairs; {min(shares):+.1%} to {max(shares):+.1%})"
    )
    for role in found[0][0].cpu_s:
        more = [_load_ms(after, role) - _load_ms(before, role) for before, after in found]
        base = statistics.median(_load_ms(before, role) for before, _ in found)
        print(
            f"  {role}: {base:.0f} ms of each second, with windows {statistics.median(more):+.1f} "
            f"(quartiles {', '.join(f'{q:+.1f}' for q in statistics.quantiles(more)[::2])})"
        )


def _load_ms(run: Run, role: str) -> float:
    return 1000 * run.cpu_s[role] / run.seconds
