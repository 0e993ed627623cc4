"""Synod itself as a measured store: a cluster of its own, or one that runs already."""

import asyncio
import contextlib
import math
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from chaos.bench.cases import SIZE_BYTES_MAX
from chaos.bench.http_stores import SynodSession
from chaos.bench.loops import StoreSession
from chaos.bench.stores import MeasuredStore, ProcessStore
from chaos.cluster.local import Description, LocalCluster
from chaos.cluster.rabbitmq import free_ports
from chaos.measure.trace_cost import cpu_by_role
from gateway.cli.signals import Ended
from synod.client import AsyncClient
from synod.connection import Address
from synod.errors import NotFound, SynodError, Unavailable
from synod.tls import ClientTls

CLIENTS_OF_A_GATEWAY = 700
"""A gateway takes 750 connections from one address (`gateway.http.connections`)."""

_NAME = "Synod"
_REMOVE_S = 60.0
_SYNOD_VALUE_BYTES_MAX = SIZE_BYTES_MAX


class LocalSynod(MeasuredStore):
    """A cluster of one process for each node, over a private RabbitMQ or the one that is named."""

    name = _NAME
    value_bytes_max = _SYNOD_VALUE_BYTES_MAX

    def __init__(self, folder: Path, broker: str, clients: int) -> None:
        gateways = math.ceil(clients / CLIENTS_OF_A_GATEWAY)
        description = Description.mint(broker=broker, gateways=gateways)
        self.cluster = LocalCluster(folder / "synod", description)
        nodes = len(self.cluster.nodes)
        self.about = f"Synod, a process for each of {nodes} nodes, {_gateways(gateways)}"
        self._folder = f"bench-{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        self.cluster.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cluster.stop()

    @property
    def broker_url(self) -> str:
        """Where its broker is."""
        return self.cluster.broker_url

    @property
    def data(self) -> Path:
        """Where its nodes keep their data."""
        return self.cluster.data

    async def open(self, size_bytes: int, clients: int) -> Sequence[StoreSession]:
        """See `MeasuredStore`. The clients spread over the gateways."""
        urls = [self.cluster.url_of(gateway) for gateway in self.cluster.description.ports]
        return [
            SynodSession(urls[number % len(urls)], size_bytes, self._folder)
            for number in range(clients)
        ]

    def cpu_seconds(self) -> dict[str, float]:
        """See `MeasuredStore`."""
        return dict(cpu_by_role(self.cluster))


class MemorySynod(ProcessStore):
    """A whole cluster in one process, over the in-memory broker."""

    name = _NAME
    value_bytes_max = _SYNOD_VALUE_BYTES_MAX

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.about = "Synod, all nodes in one process over the in-memory broker"
        self.url = ""
        """Where it serves."""
        self._folder = f"bench-{secrets.token_hex(4)}"

    @property
    def data(self) -> Path:
        """Where its nodes keep their data."""
        return self.folder / "data"

    def _start(self) -> None:
        [port] = free_ports(1)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNOD_")}
        options = ["--broker", "memory://", "--data", str(self.data), "--port", str(port)]
        self._run("synod", [sys.executable, "-m", "synod", "up", *options], kept)
        self.url = f"http://127.0.0.1:{port}"
        self._wait(lambda: _is_ready(port), "the cluster is ready")

    async def open(self, size_bytes: int, clients: int) -> Sequence[StoreSession]:
        """See `MeasuredStore`."""
        return [SynodSession(self.url, size_bytes, self._folder) for _ in range(clients)]


class RunningSynod(MeasuredStore):
    """A cluster that runs already. What the bench writes is below a folder of its own, which is
    removed in the end.
    """

    name = _NAME
    value_bytes_max = _SYNOD_VALUE_BYTES_MAX

    def __init__(self, url: str, tell: Callable[[str], None]) -> None:
        """Raises `Misconfigured` for a URL that can't be used."""
        self._address = address = Address.of(url, None, ClientTls.of(None, None, None))
        self._folder = f"bench-{secrets.token_hex(4)}"
        self._tell = tell
        self.about = f"Synod at {address.shown}, below /{self._folder}"

    def __enter__(self) -> Self:
        """Raises `SynodError` if the gateway does not answer, or asks for another token."""
        asyncio.run(self._look())
        return self

    async def _look(self) -> None:
        async with AsyncClient(self._address.url, token=self._address.token, timeout_s=5.0) as one:
            status = await one.cluster()
        if not status["ready"]:
            raise Unavailable(f"{self._address.shown} can take no write now; synod status says why")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            asyncio.run(self._remove())
        except (SynodError, Ended) as failure:
            self._tell(
                f"/{self._folder} is still there: {failure}. "
                f"Remove it: synod rm -r {self._folder} --url {self._address.shown}"
            )
            if isinstance(failure, Ended):
                raise

    async def _remove(self) -> None:
        """Folder by folder: each is small enough to be removed by one request."""
        address = self._address
        async with AsyncClient(address.url, token=address.token, timeout_s=_REMOVE_S) as synod:
            with contextlib.suppress(NotFound):  # It ended before its first write.
                for entry in [entry async for entry in synod.list(self._folder)]:
                    await synod.remove_directory(entry.path, recursive=True)
                await synod.remove_directory(self._folder, recursive=True)

    async def open(self, size_bytes: int, clients: int) -> Sequence[StoreSession]:
        """See `MeasuredStore`."""
        url, token, *_ = self._address
        return [SynodSession(url, size_bytes, self._folder, token) for _ in range(clients)]


def _gateways(count: int) -> str:
    return "one gateway" if count == 1 else f"{count} gateways"


def _is_ready(port: int) -> bool:
    """Whether the gateway at this port would take a write. Raises `OSError` if it is not there."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except HTTPException as error:
        raise ConnectionError(f"no HTTP answer: {error!r}") from error
    finally:
        connection.close()
