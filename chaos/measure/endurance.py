"""A very long run of small writes on the in-memory host: does anything grow that should not?

`python -m chaos.measure.endurance --writes 1000000 --files 1000` writes through the gateway's actor
to a whole cluster in this process, prints the journals' sizes and the process's memory now and
then, and at the end starts every node again and takes the time. It fails if the journals or the
memory have grown by more than a fifth since the first quarter, or if a node takes longer than five
seconds to start.
"""

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from actors.calls import Survey, Write, WriteDecided
from actors.options import Options
from actors.values import Inline, PutFile
from broker.commit_log import LOG_NAME
from broker.journal import Journal
from broker.journal_folder import JOURNAL_NAME
from broker.memory_broker import MemoryBroker
from broker.node_startup import make_host
from broker.runtime import HostOptions, NodeHost
from chaos.cluster.processes import memory_kib

GROWTH_MOST = 1.2
RESTART_S_MOST = 5.0
_GATEWAY = "gateway-1"


@dataclass(slots=True)
class Sample:
    """The sizes after so many writes."""

    writes: int
    seconds: float
    journal_bytes: dict[str, int]
    resident_kib: int

    @property
    def total_bytes(self) -> int:
        """The size of all journals together."""
        return sum(self.journal_bytes.values())


@dataclass(slots=True)
class EnduranceResult:
    """The samples and the start times of a run."""

    samples: list[Sample] = field(default_factory=list)
    restart_s: dict[str, float] = field(default_factory=dict)
    away: str = ""

    def faults(self) -> list[str]:
        """What has grown, or takes to start, more than it may."""
        quarter = self.samples[max(0, len(self.samples) // 4 - 1)]
        last = self.samples[-1]
        faults = []
        for what, growth in (
            ("the journals", last.total_bytes / quarter.total_bytes),
            ("the memory", last.resident_kib / quarter.resident_kib),
        ):
            if growth > GROWTH_MOST:
                faults.append(f"{what} grew to {growth:.2f} times the size after a quarter")
        for node, seconds in self.restart_s.items():
            if seconds > RESTART_S_MOST:
                faults.append(f"{node} took {seconds:.1f} s to start")
        return faults


class Endurance:
    """One cluster in this process; `away` is a node that is stopped after the first tenth."""

    def __init__(self, folder: Path, away: str = "") -> None:
        self.options = Options()
        self.result = EnduranceResult(away=away)
        self._folder = folder
        self._broker = MemoryBroker()
        self._hosts: dict[str, NodeHost] = {}
        self._running: dict[str, tuple[asyncio.Task[None], Journal]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The whole cluster, ready to write."""
        names = (*self.options.members, _GATEWAY)
        try:
            await asyncio.gather(*(self._start(name) for name in names))
            await self._ready()
            yield
        finally:
            for name in list(self._running):
                await self._stop(name)

    async def _ready(self) -> None:
        """Wait until a write could start."""
        survey = await self._hosts[_GATEWAY].call(lambda token: Survey(token=token))
        while not survey.ready:
            await asyncio.sleep(0.1)
            survey = await self._hosts[_GATEWAY].call(lambda token: Survey(token=token))

    async def _start(self, name: str) -> float:
        """Start a node on its folder; the seconds until it receives messages."""
        began = time.monotonic()
        journal = Journal.open(self._folder / name, name, "endurance")
        transport = self._broker.transport(name)
        host = make_host(name, self.options, journal, transport, host_options=HostOptions())
        self._hosts[name] = host
        self._running[name] = asyncio.create_task(host.run(), name=name), journal
        await host.ready()
        return time.monotonic() - began

    async def _stop(self, name: str) -> None:
        task, journal = self._running.pop(name)
        task.cancel()
        await asyncio.wait([task])
        journal.close()

    async def write(self, writes: int, files: int, clients: int, steps: int) -> None:
        """Overwrite `files` files, `writes` times in all; a sample after each of `steps` parts."""
        began = time.monotonic()
        done = 0
        for step in range(1, steps + 1):
            upto = writes * step // steps
            await asyncio.gather(
                *(self._client(range(done + n, upto, clients), files) for n in range(clients))
            )
            done = upto
            sample = self._sample(done, time.monotonic() - began)
            self.result.samples.append(sample)
            print(
                f"{done:>9,} writes  {sample.seconds:7.0f} s  "
                f"{sample.total_bytes / 2**20:8.1f} MiB of journals  "
                f"{sample.resident_kib / 1024:7.1f} MiB resident",
                flush=True,
            )
            if step == 1 and self.result.away:
                await self._stop(self.result.away)

    async def _client(self, numbers: range, files: int) -> None:
        for number in numbers:
            data = b"write %d" % number
            content = Inline(sha256=hashlib.sha256(data).hexdigest(), data=data)
            operation = PutFile(path=f"files/{number % files}", content=content)
            while not await self._is_done(operation):
                pass

    async def _is_done(self, operation: PutFile) -> bool:
        answer = await self._hosts[_GATEWAY].call(
            lambda token: Write(token=token, operation=operation)
        )
        return isinstance(answer, WriteDecided) and answer.outcome.status == "done"

    def _sample(self, writes: int, seconds: float) -> Sample:
        sizes = {
            name: _size_bytes(self._folder / name)
            for name in self._hosts
            if name != self.result.away
        }
        return Sample(writes, seconds, sizes, memory_kib(_own_process(), "VmRSS"))

    async def restart_all(self) -> None:
        """Stop and start every node, one after the other."""
        for name in sorted(self._hosts):
            if name in self._running:
                await self._stop(name)
            self.result.restart_s[name] = await self._start(name)


def _size_bytes(folder: Path) -> int:
    """A journal with its logs."""
    files = (*folder.glob(f"{JOURNAL_NAME}*"), folder / LOG_NAME)
    return sum(path.stat().st_size for path in files)


def _own_process() -> int:
    return int(Path("/proc/self").resolve().name)


async def _run(arguments: argparse.Namespace, folder: Path) -> EnduranceResult:
    endurance = Endurance(folder, arguments.away)
    async with endurance.running():
        await endurance.write(
            arguments.writes, arguments.files, arguments.clients, arguments.samples
        )
        await endurance.restart_all()
    return endurance.result


def main() -> int:
    """Run as the arguments say; 0 if nothing grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=1_000)
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--away", default="", help="a node to stop after the first sample")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(_run(arguments, Path(folder)))
    slowest = max(result.restart_s, key=lambda name: result.restart_s[name])
    print(f"slowest to start again: {slowest}, {result.restart_s[slowest]:.2f} s")
    if arguments.json:
        print(json.dumps(asdict(result)))
    for fault in result.faults():
        print(f"FAULT: {fault}")
    return 1 if result.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
