"""A gateway on a cluster that is faked (`tests.gateway.fake`), without and with a socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.cluster import ClusterPort
from gateway.http.app import GatewayApp
from gateway.http.connections import ConnectionLimits
from gateway.http.listener import listen
from gateway.http.server import make_server
from gateway.http.tls import ServerTls
from gateway.passwords import Passwords
from gateway.settings import Settings
from tests.gateway.fake import CHEAP, FakeCluster


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("SYNOD_") and not name.startswith("SYNOD_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def settings() -> Settings:
    """Small limits, so that small bodies reach them."""
    return Settings(chunk_bytes=64 * 1024, max_file_bytes=20 * 1024 * 1024, body_timeout_ms=2_000)


@pytest.fixture
async def client(cluster: FakeCluster, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the application without a socket."""
    transport = httpx.ASGITransport(GatewayApp(cluster, settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@asynccontextmanager
async def serving(
    cluster: ClusterPort, settings: Settings, limits: ConnectionLimits | None = None
) -> AsyncIterator[int]:
    """Serves on a free port of this machine while the block runs; gives the port."""
    app = GatewayApp(cluster, settings, passwords=Passwords(CHEAP))
    async with serving_app(app, limits) as port:
        yield port


@asynccontextmanager
async def serving_app(
    app: GatewayApp, limits: ConnectionLimits | None = None, tls: ServerTls | None = None
) -> AsyncIterator[int]:
    """The same for a gateway that the test knows."""
    listener = listen("127.0.0.1", 0)
    http = make_server(app, limits, app.rejected, tls)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(http.serve(sockets=[listener]))
        try:
            yield int(listener.getsockname()[1])
        finally:
            app.watch.end()
            app.live_events.end()
            http.should_exit = True
            await running
            listener.close()


@pytest.fixture
async def port(cluster: FakeCluster, settings: Settings) -> AsyncIterator[int]:
    """The port of a real server."""
    async with serving(cluster, settings) as port:
        yield port
