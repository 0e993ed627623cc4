"""When a process of nodes collects garbage, and that a loaded one leaves none.

The pure rules are tested with a clock of the test's; what a load leaves behind is what the
collections of a whole cluster in one process report.
"""

import asyncio
import gc
import json
import logging
import signal
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from chaos.cluster.processes import memory_kib
from gateway.garbage_collection import (
    IDLE_PART_OF_A_CORE,
    IDLE_THRESHOLDS,
    PERIOD_S,
    GarbageCollection,
    busy_thresholds,
)
from synod.client import AsyncClient
from tests.broker.actors import Puppet, fail, note
from tests.broker.hosting import inject, memory_house, puppet, until
from tests.long import LONG

ROOT = Path(__file__).parents[2]

WRITES = 20_000 if LONG else 200
CLIENTS = 4
"""Few, so that a slot of the log has few writes: a cycle for each slot shows, too."""


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The collector of the tests' process is one for all tests."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


BUSY_THRESHOLDS = busy_thresholds(1)


class Usage:
    """A process whose clocks and journals are the test's."""

    def __init__(self, nodes: int) -> None:
        self.now_s = self.used_s = 100.0
        self.commits = 0
        self.collection = GarbageCollection(
            nodes,
            commits=lambda: self.commits,
            clock=lambda: self.now_s,
            processor_s=lambda: self.used_s,
        )

    def after(self, part_of_a_core: float, commits: int = 0) -> tuple[int, int, int]:
        """The thresholds, once the process has done so much for a period."""
        self.now_s += PERIOD_S
        self.used_s += part_of_a_core * PERIOD_S
        self.commits += commits
        self.collection.look()
        return gc.get_threshold()


def test_the_thresholds_follow_what_the_process_does() -> None:
    usage = Usage(nodes=1)

    assert usage.after(IDLE_PART_OF_A_CORE * 0.9) == IDLE_THRESHOLDS
    assert usage.after(IDLE_PART_OF_A_CORE * 1.1) == BUSY_THRESHOLDS
    assert usage.after(IDLE_PART_OF_A_CORE * 0.9) == IDLE_THRESHOLDS

    # A process that gets little of the processor is no idle one.
    assert usage.after(0.001, commits=1) == BUSY_THRESHOLDS
    assert usage.after(0.001) == IDLE_THRESHOLDS


def test_what_idle_nodes_take_and_busy_ones_hold_grows_with_their_number() -> None:
    many = Usage(nodes=16)

    assert many.after(IDLE_PART_OF_A_CORE * 8) == IDLE_THRESHOLDS
    assert many.after(IDLE_PART_OF_A_CORE * 17) == busy_thresholds(16) > BUSY_THRESHOLDS
    assert Usage(nodes=1).after(IDLE_PART_OF_A_CORE * 8) == BUSY_THRESHOLDS


async def test_a_process_that_is_never_idle_collects_at_its_bound() -> None:
    took_s: list[float] = []
    gc.collect()
    collection = asyncio.create_task(
        GarbageCollection(1, commits=int, collected=took_s.append).run()
    )
    await asyncio.sleep(0)
    assert gc.get_threshold() == BUSY_THRESHOLDS

    # Given an event loop that gets to nothing else, and all that it makes are cycles
    alive_most = 0
    for _ in range(2 * BUSY_THRESHOLDS[0]):
        Cycle()
        alive_most = max(alive_most, Cycle.alive)

    # Then they were collected before there were more of them than the bound allows,
    assert took_s
    assert alive_most <= BUSY_THRESHOLDS[0] + 10
    # and the collector is as it was before, once the process ends.
    collection.cancel()
    await asyncio.wait([collection])
    assert gc.get_threshold() != BUSY_THRESHOLDS
    reported = len(took_s)
    gc.collect()
    assert len(took_s) == reported


class Cycle:
    """An object that refers to itself."""

    __slots__ = ("itself",)
    alive: ClassVar = 0

    def __init__(self) -> None:
        self.itself = self
        Cycle.alive += 1

    def __del__(self) -> None:
        Cycle.alive -= 1


async def test_what_was_restored_is_visited_no_more_until_an_actor_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps what is logged, with the traceback, and so the actor.
    monkeypatch.setattr(logging.getLogger("synod.runtime"), "disabled", True)

    # Given a node whose actor refers to itself
    def refer(this: Puppet, *_: object) -> None:
        this.itself = this  # type: ignore[attr-defined]

    house, broker = memory_house(tmp_path)
    host = house.host("store-1", {"restore": refer, "fail": fail})
    collection = GarbageCollection(1, commits=int)
    gc.collect()
    gc.unfreeze()
    async with house.running(host):
        # When it is ready
        await collection.watch(host)
        # Then collections leave it out.
        frozen = gc.get_freeze_count()
        assert frozen > 0
        assert not any(found is puppet(host) for found in gc.get_objects())

        # When it is rebuilt, then the former actor is collected.
        former = weakref.ref(puppet(host))
        inject(broker, "store-1", note("fail"))
        await until(lambda: puppet(host) is not former(), within_s=20)
        collection.look()
        await until(lambda: gc.collect() + 1 and former() is None, within_s=20)


# -- a whole cluster ------------------------------------------------------------------------------

PROGRAM = """
import gc, json, signal, sys
from gateway.cli.main import run

def report(*_):
    gc.collect()
    collected = sum(generation["collected"] for generation in gc.get_stats())
    print(json.dumps({"collected": collected, "objects": len(gc.get_objects())}), flush=True)

signal.signal(signal.SIGUSR2, report)
sys.argv = ["synod", *sys.argv[1:]]
run()
"""
"""`synod up` that collects, and says what all collections have found, when a signal asks for it."""


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """All nodes in one process, which is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, "up", "--port", "0", "--data", str(folder)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.communicate()


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(120):
        return (await process.stdout.readline()).decode()


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_load_leaves_no_garbage_and_a_level_memory(tmp_path: Path) -> None:
    async with cluster(tmp_path) as process:
        url = (await line_of(process)).split()[-1]

        async def figures() -> dict[str, int]:
            process.send_signal(signal.SIGUSR2)
            said: dict[str, int] = json.loads(await line_of(process))
            return {**said, "kib": memory_kib(process.pid, "VmRSS")}

        async def load(writes: int) -> None:
            async with AsyncClient(url, timeout_s=60) as synod, asyncio.TaskGroup() as clients:

                async def write(client: int) -> None:
                    for number in range(writes // CLIENTS):
                        path = f"{client}/{number % 100}"
                        await synod.put(path, f"{number}".encode())
                        assert await synod.read(path) == f"{number}".encode()

                for client in range(CLIENTS):
                    clients.create_task(write(client))

        # Given a cluster that has worked, so that what is made once has been made
        await load(max(WRITES // 4, 4 * 25))
        before = await figures()
        # When clients write and read
        await load(WRITES)
        # Then nothing of it was garbage that only a collection frees.
        after = await figures()
        assert after["collected"] - before["collected"] < WRITES / 20, (before, after)

        if LONG:  # The log's tail, which short runs fill, is cut by now.
            await load(WRITES)
            later = await figures()
            assert later["objects"] < after["objects"] * 1.05, (before, after, later)
            assert later["kib"] < after["kib"] * 1.10, (before, after, later)
