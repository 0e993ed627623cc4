"""A cluster of real hosts and journals in one event loop, whose nodes can be stopped anywhere."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.calls import Read, ReadDone, Survey, Upload, Uploaded, Write, WriteDecided
from actors.messages import AnyMessage, ReadRequest
from actors.options import Options, role_of
from actors.values import AnyOperation, FileEntry
from broker.journal import Journal
from broker.maintenance import MaintenanceOptions
from broker.memory_broker import MemoryBroker
from broker.node_startup import make_host
from broker.observer import Interceptor
from broker.runtime import HostOptions, NodeHost
from broker.transport import Transport


@dataclass
class Stop(Interceptor):
    """Stops its node before or after the `nth` message of a type since it was armed."""

    when: str
    kind: str
    nth: int = 1
    side: str = "before"
    about: Callable[[AnyMessage], bool] = lambda message: True
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    armed: bool = False
    seen: int = 0

    async def _pass(self, when: str, side: str, message: AnyMessage) -> None:
        if (when, side) != (self.when, self.side):
            return
        if message.type != self.kind:  # type: ignore[attr-defined]
            return
        if self.armed and self.about(message):
            self.seen += 1
            if self.seen == self.nth:
                self.reached.set()
                await self.released.wait()

    async def receiving(self, message: AnyMessage) -> None:
        await self._pass("receive", "before", message)

    async def received(self, message: AnyMessage) -> None:
        await self._pass("receive", "after", message)

    async def sending(self, to: str, message: AnyMessage) -> None:
        await self._pass("send", "before", message)

    async def sent(self, to: str, message: AnyMessage) -> None:
        await self._pass("send", "after", message)


class MemoryCluster:
    """Nodes by name; a killed one keeps its folder, and `start` restarts it."""

    def __init__(
        self,
        folder: Path,
        options: Options,
        transport: Callable[[str], Transport] | None = None,
        reserve_bytes: int | None = None,
    ) -> None:
        self.folder = folder
        self._reserve_bytes = reserve_bytes
        self.options = options
        self.broker = MemoryBroker()
        self._transport = transport or self.broker.transport
        self.hosts: dict[str, NodeHost] = {}
        self._journals: dict[str, Journal] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self.names = (*options.members, "gateway-1")

    # -- nodes -----------------------------------------------------------------------------------

    async def start(
        self, name: str, interceptor: Interceptor | None = None, **host_options: Any
    ) -> NodeHost:
        """Start a node on its folder."""
        if self._reserve_bytes is not None:
            kept = MaintenanceOptions.of_role(role_of(name), self._reserve_bytes)
            host_options.setdefault("maintenance", kept)
        journal = Journal.open(self.folder / name, name, "test")
        host = make_host(
            name,
            self.options,
            journal,
            self._transport(name),
            host_options=HostOptions(**host_options),
            interceptor=interceptor,
        )
        self.hosts[name], self._journals[name] = host, journal
        self._running[name] = asyncio.create_task(host.run(), name=name)
        await host.ready()
        return host

    async def kill(self, name: str) -> None:
        """End the node at once; what it had not committed or sent is lost."""
        task = self._running.pop(name)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        journal = self._journals.pop(name)
        journal._failed = "the node was killed"  # So its log is not folded, and read at the start.
        journal.close()
        del self.hosts[name]

    async def restart(self, name: str, interceptor: Interceptor | None = None) -> NodeHost:
        """Kill and start."""
        await self.kill(name)
        return await self.start(name, interceptor)

    def actor(self, name: str) -> Any:
        """A running node's actor."""
        return self.hosts[name].actor

    # -- the gateway -----------------------------------------------------------------------------

    async def write(self, operation: AnyOperation, retry: bool = False) -> Any:
        """Write through the gateway's actor."""
        return await self.hosts["gateway-1"].call(
            lambda token: Write(token=token, operation=operation, retry_aborted=retry)
        )

    async def done(self, operation: AnyOperation, retry: bool = True) -> WriteDecided:
        """A write that succeeds. With `retry` it is sent again until enough stores are in the view,
        as an aborted write was not applied.
        """
        answer = await self.write(operation, retry)
        until_s = asyncio.get_running_loop().time() + 20
        while retry and isinstance(answer, WriteDecided) and answer.outcome.status == "aborted":
            if asyncio.get_running_loop().time() > until_s:
                break
            await self.ready()
            answer = await self.write(operation, retry)
        assert isinstance(answer, WriteDecided), answer
        assert answer.outcome.status == "done", answer
        return answer

    async def read(self, path: str) -> ReadDone:
        """A linearizable read."""
        request = ReadRequest(number=0, what="entry", path=path)
        answer = await self.hosts["gateway-1"].call(
            lambda token: Read(token=token, request=request)
        )
        assert isinstance(answer, ReadDone), answer
        return answer

    async def version(self, path: str) -> int:
        """The version that a linearizable read returns; 0 if there is no file."""
        entry = (await self.read(path)).reply.entry
        return entry.version if isinstance(entry, FileEntry) else 0

    async def upload(self, data: bytes) -> str:
        """Put a chunk on every store of the view; its name."""
        name = hashlib.sha256(data).hexdigest()
        answer = await self.hosts["gateway-1"].call(
            lambda token: Upload(token=token, sha256=name, manifest=False, data=data)
        )
        assert isinstance(answer, Uploaded), answer
        return name

    async def ready(self) -> None:
        """Wait until a write could start."""

        async def is_ready() -> bool:
            survey = await self.hosts["gateway-1"].call(lambda token: Survey(token=token))
            return bool(survey.ready)

        await eventually(is_ready)

    async def settled(self, within_s: float = 20.0) -> None:
        """Wait until all stores are in the view, and all replicas equal, whole, none in doubt."""

        def equal() -> bool:
            actors = [self.actor(name) for name in self.names if name.startswith(("store", "lea"))]
            stores = [actor for actor in actors if actor.name.startswith("store")]
            return (
                len({(a.state.applied, a.state.state_hash) for a in actors}) == 1
                and all(a.heartbeat().in_doubt == 0 for a in actors)
                and all(s.held.membership is not None and s.rejoin.is_whole for s in stores)
            )

        await eventually(equal, within_s=within_s)

    @property
    def coordinators(self) -> list[str]:
        """The learners that coordinate: none between two views."""
        return [
            name
            for name in self.options.names("learner")
            if name in self.hosts and self.actor(name).coordinator is not None
        ]

    @property
    def coordinator(self) -> str:
        """The learner that coordinates."""
        return self.coordinators[0]

    @property
    def view(self) -> list[str]:
        """The stores of the latest view that any learner knows."""
        learners = [name for name in self.options.names("learner") if name in self.hosts]
        view = max((self.actor(name).view for name in learners), key=lambda view: view.epoch)
        return [store.name for store in view.stores]

    @property
    def epoch(self) -> int:
        """The highest epoch that any learner knows."""
        learners = [name for name in self.options.names("learner") if name in self.hosts]
        return max(int(self.actor(name).view.epoch) for name in learners)


async def eventually(condition: Callable[[], Any], within_s: float = 20.0) -> None:
    """Wait until `condition` holds, asynchronous or not."""
    async with asyncio.timeout(within_s):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def memory_cluster(
    folder: Path,
    taps: dict[str, Interceptor] | None = None,
    transport: Callable[[str], Transport] | None = None,
    reserve_bytes: int | None = None,
    **options: Any,
) -> AsyncIterator[MemoryCluster]:
    """A founded cluster that takes writes; all of it ends with the block.

    `transport` connects its nodes, by name, to another broker than the one inside this process.
    `reserve_bytes` is the setting `disk_reserve_bytes`.
    """
    cluster = MemoryCluster(folder, Options(**options), transport, reserve_bytes)
    try:
        await asyncio.gather(
            *(cluster.start(name, (taps or {}).get(name)) for name in cluster.names)
        )
        await cluster.ready()
        yield cluster
    finally:
        for name in list(cluster.hosts):
            await cluster.kill(name)
