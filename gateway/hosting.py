"""The composition root: starts nodes and HTTP servers in one process, and ends them together.

`synod up` runs all members and a gateway in one TaskGroup; `synod node` runs one node. Whatever
fails ends the process with its reason.
"""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.calls import Survey, Surveyed
from actors.options import Options, role_of
from broker.event_subscription import subscribe_to_events
from broker.failpoints import Failpoints
from broker.journal_folder import JournalError
from broker.keys import KeyRing, KeysRefused
from broker.local_calls import CallOutcomeUnknown, CallRefused
from broker.maintenance import MaintenanceOptions
from broker.memory_broker import MemoryBroker
from broker.node_startup import run_node
from broker.rabbitmq import RabbitOptions, RabbitTransport
from broker.runtime import HostOptions, NodeHalted, NodeHost
from broker.seals import Seals, read_key
from broker.topology import Topology
from broker.transport import Transport, TransportRefused
from gateway.garbage_collection import GarbageCollection, busy_thresholds
from gateway.http.listener import PortInUse, listen
from gateway.http.tls import ServerTls, TlsFiles, TlsUnusable
from gateway.node_observers import NodeObservers
from gateway.readiness import condition_of
from gateway.settings import Settings, masked_url

if TYPE_CHECKING:
    from gateway.http.app import GatewayApp
    from gateway.http.server import Server

log = logging.getLogger("synod.hosting")

_READY_POLL_S = 0.05
_NOT_NEEDED = "Nothing depends on it"
"""Part of what a node says that was removed from the cluster, or whose disk was replaced."""


class HostingFailed(RuntimeError):
    """The process can't continue; the text tells the user why."""


class NodeProcess:
    """The nodes of this process, and HTTP for the gateway among them."""

    def __init__(
        self,
        names: tuple[str, ...],
        settings: Settings,
        announce: Callable[[str], None],
        *,
        wait_for_broker: bool,
        failpoints: Failpoints | None = None,
    ) -> None:
        self._names = names
        self._failpoints = failpoints
        self._settings = settings
        self._options: Options = settings.options()
        self._announce = announce
        self._wait_for_broker = wait_for_broker
        self._memory = MemoryBroker() if settings.broker.startswith("memory:") else None
        self._topology = Topology(settings.cluster, settings.queues, settings.broker_users)
        self._serves = any(role_of(name) == "gateway" for name in names)
        self._observers = NodeObservers(settings, collects=self._serves)
        self._garbage = GarbageCollection(
            len(names), commits=self._observers.commits, collected=self._observers.collected
        )
        if self._memory is not None and self._serves:
            self._memory.listen(self._observers.tracing.on_event)
        self._keys: KeyRing | None = None
        self._stop = asyncio.Event()
        self._server: Server | None = None
        self._app: GatewayApp | None = None
        self._tls: ServerTls | None = None

    async def run(self) -> None:
        """Run until SIGINT or SIGTERM. Raises `HostingFailed`."""
        settings = self._settings
        if len(self._names) > 1 and self._memory is None and self._topology.own_users:
            raise HostingFailed(
                "with broker_users = 'own' each node needs a process of its own: synod node NAME"
            )
        try:
            self._keys = KeyRing.load(settings.key_file, settings.key_command)
            self._tls = self._load_certificate()
            listener = self._listen()
        except (PortInUse, TlsUnusable, KeysRefused) as error:
            raise HostingFailed(str(error)) from None
        except OSError as error:
            where = settings.url if self._serves else settings.metrics_url
            raise HostingFailed(f"can't listen at {where}: {error.strerror}") from None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        if self._failpoints is not None:
            loop.add_signal_handler(signal.SIGUSR1, self._failpoints.arm)
        if self._tls is not None:
            loop.add_signal_handler(signal.SIGHUP, self._renew_certificate, self._tls)
        try:
            await self._run_all(listener)
        except BaseExceptionGroup as failures:
            first = _first_of(failures)
            if isinstance(first, NodeHalted | JournalError | TransportRefused | ValueError):
                raise HostingFailed(str(first)) from failures
            if isinstance(first, OSError):
                where = f"{first.filename}: " if first.filename else ""
                log.error("the process can't continue", exc_info=first)
                raise HostingFailed(f"{where}{first.strerror or first}") from failures
            raise
        finally:
            if listener is not None:
                listener.close()

    async def _run_all(self, listener: socket.socket | None) -> None:
        async with asyncio.TaskGroup() as group:
            tracing = self._observers.tracing
            background = [
                group.create_task(tracing.run(), name="tracing"),
                group.create_task(self._garbage.run(), name="garbage collection"),
            ]
            nodes = [
                group.create_task(self._run_node(name, group, background, listener), name=name)
                for name in self._names
            ]
            if self._serves and self._memory is None:
                background.append(group.create_task(self._subscribe_events(), name="events"))
            if listener is not None and not self._serves:
                group.create_task(self._serve_metrics(listener), name="metrics")
            await self._stop.wait()
            log.info("ending")
            for task in background:
                task.cancel()
            if self._app is not None:
                self._app.live_events.end()
                self._app.watch.end()
                self._app.audit.end()
            if self._server is not None:
                # Requests in progress are answered before the nodes that process them end.
                self._server.should_exit = True
                await self._server.ended.wait()
            for node in nodes:
                node.cancel()

    async def _run_node(
        self,
        name: str,
        group: asyncio.TaskGroup,
        background: list[asyncio.Task[None]],
        listener: socket.socket | None,
    ) -> None:
        """Run a node until it is cancelled; `background` gets what must end before it."""
        transport = self._transport(name)

        def started(host: NodeHost) -> None:
            self._observers.watch(host)
            # Without space on its disk it waits for ever.
            background.append(group.create_task(self._garbage.watch(host), name="freeze"))
            if listener is not None and role_of(name) == "gateway":
                group.create_task(self._serve(host, transport, listener), name="http")
            elif len(self._names) == 1:
                # Without a broker it waits for ever.
                announcing = group.create_task(self._announce_started(host), name="announce")
                background.append(announcing)

        try:
            await run_node(
                name,
                self._options,
                self._settings.data / name,
                transport,
                cluster_name=self._settings.cluster,
                host_options=HostOptions(
                    commit_in_thread=len(self._names) > 1,
                    maintenance=MaintenanceOptions.of_role(
                        role_of(name),
                        self._settings.disk_reserve_bytes,
                        scrub_bytes_per_s=self._settings.scrub_bytes_per_s,
                    ),
                ),
                observer=self._observers.observer(name, transport),
                interceptor=self._failpoints,
                started=started,
                keys=self._keys,
                encrypted=self._settings.encrypt_journals,
            )
        except NodeHalted as error:
            if len(self._names) == 1 or _NOT_NEEDED not in str(error):
                raise
            # Also at each later start, since the settings go on to name it.
            log.warning("%s The other nodes of this process go on.", error)

    def _load_certificate(self) -> ServerTls | None:
        """Raises `TlsUnusable`."""
        settings = self._settings
        if settings.tls_cert is None:
            return None
        tls = ServerTls(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
        if reason := tls.why_invalid():
            log.error("clients will refuse this node's certificate: %s", reason)
        return tls

    def _renew_certificate(self, tls: ServerTls) -> None:
        try:
            tls.reload()
        except TlsUnusable as error:
            log.error("the former certificate stays in use: %s", error)
        else:
            log.info("new connections get the certificate of %s", self._settings.tls_cert)

    def _listen(self) -> socket.socket | None:
        """The listening socket: of a gateway's API, or of a node's metrics. Raises `OSError`."""
        settings = self._settings
        if self._serves:
            return listen(settings.host, settings.port)
        if settings.metrics_port is not None:
            return listen(settings.metrics_host, settings.metrics_port)
        return None

    async def _subscribe_events(self) -> None:
        on_event = self._observers.tracing.on_event
        settings = self._settings
        await subscribe_to_events(
            settings.broker, self._topology, self._names[-1], on_event, settings.broker_tls
        )

    async def _serve_metrics(self, listener: socket.socket) -> None:
        # Only here and for a gateway: other nodes start without a server for HTTP.
        from gateway.http.auth import Authenticator, AuthMiddleware
        from gateway.http.connections import ConnectionLimits
        from gateway.http.node_endpoints import node_app
        from gateway.http.server import make_server

        observers = self._observers
        app = node_app(self._names[0], observers.registry, observers.unhealthy_reason)
        limits = ConnectionLimits.of_process(body_s=self._settings.body_timeout_ms / 1000)
        guarded = AuthMiddleware(app, Authenticator(self._settings.token))
        self._server = make_server(guarded, limits, tls=self._tls)
        try:
            await self._server.serve(sockets=[listener])
        finally:
            self._server.ended.set()

    def _transport(self, name: str) -> Transport:
        if self._memory is not None:
            return self._memory.transport(name)
        options = RabbitOptions.of(
            self._settings.broker,
            wait=self._wait_for_broker,
            silence_ms=self._settings.broker_silence_ms,
            ping_timeout_ms=self._settings.broker_ping_timeout_ms,
            tls=self._settings.broker_tls,
            seals=self._seals(),
        )
        return RabbitTransport(self._settings.broker, self._topology, name, options)

    def _seals(self) -> Seals | None:
        """Raises `ValueError`, or `OSError` with the name of the file."""
        file = self._settings.broker_seal_key
        return None if file is None else Seals(read_key(file))

    async def _serve(self, host: NodeHost, transport: Transport, listener: socket.socket) -> None:
        from gateway.http.app import GatewayApp
        from gateway.http.connections import ConnectionLimits
        from gateway.http.server import make_server

        tracing = self._observers.tracing
        app = GatewayApp(
            host,
            self._settings,
            node=host.name,
            registry=self._observers.registry,
            broker_outage=lambda: self._broker_outage(transport),
            tracing=tracing,
            command=lambda order: tracing.command(order, transport),
        )
        self._app = app
        limits = ConnectionLimits.of_process(body_s=self._settings.body_timeout_ms / 1000)
        self._server = make_server(app, limits, app.rejected, self._tls)
        async with asyncio.TaskGroup() as group:
            announcing = group.create_task(self._announce_ready(host, transport, listener))
            live_events = group.create_task(app.live_events.run(), name="live events")
            try:
                await self._server.serve(sockets=[listener])
            finally:
                self._server.ended.set()
                announcing.cancel()
                live_events.cancel()

    def _broker_outage(self, transport: Transport) -> str:
        return broker_outage(transport, "the broker" if self._memory is not None else "RabbitMQ")

    async def _announce_started(self, host: NodeHost) -> None:
        await host.ready()
        self._announce(f"{host.name} runs, on {masked_url(self._settings.broker)}")

    async def _announce_ready(
        self, host: NodeHost, transport: Transport, listener: socket.socket
    ) -> None:
        """Announce when the cluster can take the first write."""
        await host.ready()
        while True:
            try:
                survey: Any = await host.call(lambda token: Survey(token=token))
            except (CallOutcomeUnknown, CallRefused):
                survey = None
            why_not = self._broker_outage(transport)
            if isinstance(survey, Surveyed) and condition_of(survey, why_not).ready:
                break
            await asyncio.sleep(_READY_POLL_S)
        address, port = listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        scheme = "http" if self._tls is None else "https"
        self._announce(f"Synod is ready at {scheme}://{shown}:{port}")


def broker_outage(transport: Transport, broker: str = "the broker") -> str:
    """Why the node can't send at present, naming its broker; empty if it can."""
    health = transport.health
    if not health.connected:
        return f"the gateway has no connection to {broker}"
    if health.blocked:
        return f"{broker} takes no messages at present (its memory or disk alarm)"
    return ""


def run_cluster(settings: Settings, announce: Callable[[str], None]) -> None:
    """All members and one gateway in this process. Raises `HostingFailed`."""
    names = (*settings.options().members, "gateway-1")
    _run(names, settings, announce, wait_for_broker=False)


def run_single(
    name: str,
    settings: Settings,
    announce: Callable[[str], None],
    failpoints: Failpoints | None = None,
) -> None:
    """One node in this process; SIGUSR1 arms its failpoints. Raises `HostingFailed`."""
    _run((name,), settings, announce, wait_for_broker=True, failpoints=failpoints)


def _run(
    names: tuple[str, ...],
    settings: Settings,
    announce: Callable[[str], None],
    *,
    wait_for_broker: bool,
    failpoints: Failpoints | None = None,
) -> None:
    async def run() -> None:
        await NodeProcess(
            names, settings, announce, wait_for_broker=wait_for_broker, failpoints=failpoints
        ).run()

    # The modules that are loaded by now stay, and restoring a journal makes no garbage.
    gc.freeze()
    gc.set_threshold(*busy_thresholds(len(names)))
    with asyncio.Runner(loop_factory=fast_event_loop) as runner:
        runner.run(run())


def fast_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop of uvloop, where there is one for this Python."""
    try:
        import uvloop
    except ImportError:  # Not on every Python; asyncio's own loop does the same more slowly.
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _first_of(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
