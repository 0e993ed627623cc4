"""A private RabbitMQ: started, killed and started again on the same data.

    folder/
      broker.json        ports, node name and credentials: the same at every start
      rabbitmq.conf      listens at its host's address only, by default on the loopback interface
      home/              the Erlang cookie
      mnesia/  log/      data and logs

One start is one session of processes: a shell starts the Erlang port mapper (epmd) on a port
of its own and then becomes the broker, so the broker's process id is also its session's, and
nothing of it is left behind. A watchdog, a shell that waits on a pipe whose other end only this
process holds, ends them when this process dies in whatever way.
"""

import asyncio
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import aio_pika

from broker.journal_folder import PRIVATE_FOLDER, make_private
from broker.tls import BrokerTls
from chaos.cluster.hosts import LOOPBACK, NetworkHost
from chaos.cluster.processes import Daemon, Watchdog, session_members, started_at

_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = b"\x01"

# Above this range Linux draws the ports of outgoing connections. A client that retries a dead
# port within it can connect to itself and so keep the broker from coming back.
_PORTS = range(20_000, 32_000)

COUNT_RUNNING = (
    "length([N || N <- [node() | nodes()], rpc:call(N, rabbit, is_running, [], 5000) =:= true,"
    " rpc:call(N, rabbit_node_monitor, partitions, [], 5000) =:= []])."
)
"""In Erlang, for `rabbitmqctl eval`: how many RabbitMQ nodes this one knows as running and as not
partitioned from another. Partitioned nodes run and are connected, but don't share their bindings.
"""

NET_TICK_S = 2
"""After about so long, give or take a quarter, the brokers of a cluster take a silent one for dead.
Until then the others complete no declaration, and stop reading from clients that publish to queues
of the silent one. A node leaves a silent broker after about the same time (`RabbitOptions.of`), and
can then declare at another one at once. A false alarm costs the restart of one RabbitMQ node.
"""

MESSAGE_BYTES_MAX = 128 << 20
"""RabbitMQ's default from 4.0 on is as much as a node sends at most; tests send more."""

_PORT_MAPPER = 'epmd -address "$ERL_EPMD_ADDRESS" -port "$ERL_EPMD_PORT" </dev/null'
_START = f'{_PORT_MAPPER} & exec "$0"'
_WATCH = 'read -r word; [ "$word" = done ] || kill -s KILL -- "-$0"'


class BrokerFailedError(RuntimeError):
    """The private RabbitMQ could not be found, started or reached."""


@dataclass(frozen=True)
class BrokerIdentity:
    """What stays the same from one start of a broker to the next."""

    node: str
    amqp_port: int
    distribution_port: int
    epmd_port: int
    management_port: int
    user: str
    password: str

    cookie: str = ""
    """The secret that the nodes of a cluster share; empty for a broker by itself."""
    peers: tuple[str, ...] = ()
    """The nodes of its cluster, itself included; empty for a broker by itself."""
    metrics_port: int = 0

    @classmethod
    def mint(cls, host: NetworkHost = LOOPBACK) -> Self:
        """Draw free ports and new credentials."""
        amqp, distribution, epmd, management, metrics = free_ports(5)
        return cls(
            node=f"synod-{amqp}@{'localhost' if host.is_loopback else host.address}",
            amqp_port=amqp,
            distribution_port=distribution,
            epmd_port=epmd,
            management_port=management,
            user="synod",
            password=secrets.token_hex(16),
            metrics_port=metrics,
        )


@dataclass(frozen=True)
class BrokerCertificates:
    """PEM files by which a broker speaks TLS. With `ask_clients` a client must show one of `ca`."""

    ca: Path
    cert: Path
    key: Path
    ask_clients: bool = False
    client_cert: Path | None = None
    client_key: Path | None = None
    """What this process shows to see whether the broker serves."""


class PrivateBroker:
    """A RabbitMQ server in a folder of its own, by default on the loopback interface.

    The calls block; a coroutine uses `asyncio.to_thread`. With `outlives=True` the broker goes
    on when this process ends, and a later `PrivateBroker` on the same folder takes it over.
    """

    def __init__(
        self,
        folder: Path,
        *,
        management: bool = False,
        metrics: bool = False,
        outlives: bool = False,
        identity: BrokerIdentity | None = None,
        host: NetworkHost = LOOPBACK,
        certificates: BrokerCertificates | None = None,
    ) -> None:
        """A new broker gets `identity`, or one of its own; a former one keeps what it had.

        With `certificates` it and its console speak TLS, and nothing else.
        """
        self.folder = folder.absolute()
        self.management = management
        self.metrics = metrics
        self.outlives = outlives
        self.host = host
        self.certificates = certificates
        self.identity = self._load_identity(identity)
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The AMQP URL, credentials included."""
        who = self.identity
        scheme = "amqps" if self.certificates else "amqp"
        return f"{scheme}://{who.user}:{who.password}@{self.host.address}:{who.amqp_port}/"

    @property
    def path(self) -> str:
        """Where the programs are that it starts."""
        return f"{os.environ.get('PATH', os.defpath)}:/usr/local/bin:/usr/bin:/bin"

    @property
    def management_url(self) -> str:
        """The address of the management console, if the broker was started with it."""
        scheme = "https" if self.certificates else "http"
        return f"{scheme}://{self.host.address}:{self.identity.management_port}/"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.folder / "log" / "rabbitmq.log"

    @property
    def process_id(self) -> int | None:
        """The process id of the running server, or None."""
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else None
        return self._recorded_process_id()

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start the server and wait until it serves; a running one is left as it is."""
        if self.process_id is None:
            self._end_session()
            self._write_configuration()
            with (self.folder / "log" / "output.log").open("ab") as output:
                self._process = subprocess.Popen(
                    [*self.host.enter, "/bin/sh", "-c", _START, str(_server_program())],
                    cwd=self.folder,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            if not self.outlives:
                self._watchdog = subprocess.Popen(
                    ["/bin/sh", "-c", _WATCH, str(self._process.pid)],
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                )
            self._record(self._process.pid)
        try:
            self.wait_ready(timeout_s=timeout_s)
        except BaseException:
            self.kill()
            raise

    def stop(self, *, timeout_s: float = 30.0) -> None:
        """Stop the server in good order; kill what is left after `timeout_s`."""
        process_id = self.process_id
        if process_id is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGTERM)
            deadline = time.monotonic() + timeout_s
            while self.process_id is not None and time.monotonic() < deadline:
                time.sleep(0.05)
        self._end_session()

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL)."""
        self._end_session()

    def pause(self) -> None:
        """Hold all processes of the server (SIGSTOP): its sockets stay open and say nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for member in self.members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, number)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold the server for the length of a block; see `pause`."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    @property
    def members(self) -> list[int]:
        """The running processes of the server: itself and its helpers."""
        leader = self.process_id
        return [] if leader is None else session_members(leader)

    def restart(self, *, timeout_s: float = 60.0) -> None:
        """Stop in good order, then start on the same data."""
        self.stop()
        self.start(timeout_s=timeout_s)

    def wait_ready(self, *, timeout_s: float = 60.0) -> None:
        """Wait until the server answers an AMQP header and opens a connection."""
        deadline = time.monotonic() + timeout_s
        while self.process_id is not None:
            if self.answers() and self._opens():
                return
            if time.monotonic() > deadline:
                raise BrokerFailedError(
                    f"RabbitMQ did not serve within {timeout_s} s; {self._evidence()}"
                )
            time.sleep(0.1)
        raise BrokerFailedError(f"RabbitMQ ended by itself; {self._evidence()}")

    def control(self, *command: str) -> str:
        """Run `rabbitmqctl` and return what it prints. Raises `BrokerFailedError`."""
        program = _server_program().with_name("rabbitmqctl")
        done = subprocess.run(
            [*self.host.enter, str(program), "-n", self.identity.node, *command],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            output = done.stderr or done.stdout
            raise BrokerFailedError(f"rabbitmqctl {' '.join(command)}: {output}")
        return done.stdout

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # ── Processes ─────────────────────────────────────────────────────────────

    def _end_session(self) -> None:
        """Kill what the last start left, the server's own children included, and wait for it."""
        leader = self._process.pid if self._process is not None else self._recorded_leader()
        while leader is not None and (members := session_members(leader)):
            for member in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
            if self._process is not None:
                self._process.poll()
            time.sleep(0.01)
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self._watchdog is not None:
            self._watchdog.communicate(b"done\n")
            self._watchdog = None
        (self.folder / "process.json").unlink(missing_ok=True)

    def _record(self, process_id: int) -> None:
        content = {"process_id": process_id, "started_at": started_at(process_id)}
        (self.folder / "process.json").write_text(json.dumps(content))

    def _recorded_process_id(self) -> int | None:
        """Return the process a former object started, if it still runs."""
        leader = self._recorded_leader()
        return None if leader is None or started_at(leader) is None else leader

    def _recorded_leader(self) -> int | None:
        """Return the session a former object founded, unless its number was reused since.

        Linux does not reuse a number while any process of its session runs, so a session whose
        founder ended is still the one that was recorded.
        """
        try:
            content = json.loads((self.folder / "process.json").read_text())
        except FileNotFoundError:
            return None
        leader = int(content["process_id"])
        return leader if started_at(leader) in (None, content["started_at"]) else None

    # ── Readiness ─────────────────────────────────────────────────────────────

    def answers(self) -> bool:
        """Whether the server answers an AMQP header; in a minority that pauses it does not."""
        try:
            address = (self.host.address, self.identity.amqp_port)
            with contextlib.ExitStack() as stack:
                connection = stack.enter_context(socket.create_connection(address, timeout=2.0))
                if tls := self._tls.context_for(self.url):
                    connection = stack.enter_context(
                        tls.wrap_socket(connection, server_hostname=self.host.address)
                    )
                connection.sendall(_PROTOCOL_HEADER)
                return connection.recv(1) == _METHOD_FRAME
        except OSError:
            return False

    @property
    def _tls(self) -> BrokerTls:
        made = self.certificates
        return BrokerTls(made.ca, made.client_cert, made.client_key) if made else BrokerTls()

    def _opens(self) -> bool:
        async def open_and_close() -> None:
            connection = await aio_pika.connect(
                self.url, timeout=5.0, ssl_context=self._tls.context_for(self.url)
            )
            await connection.close()

        # A loop may run in this thread already, so the probe gets a thread of its own.
        with ThreadPoolExecutor(max_workers=1) as thread:
            try:
                thread.submit(lambda: asyncio.run(open_and_close())).result()
            except (OSError, TimeoutError, aio_pika.exceptions.AMQPError):
                return False
        return True

    def _evidence(self) -> str:
        for path in (self.log, self.folder / "log" / "output.log"):
            if path.exists() and (text := path.read_text(errors="replace").strip()):
                tail = "\n".join(text.splitlines()[-15:])
                return f"the end of {path}:\n{tail}"
        return f"no log was written under {self.folder}"

    # ── Files ─────────────────────────────────────────────────────────────────

    def _load_identity(self, identity: BrokerIdentity | None) -> BrokerIdentity:
        path = self.folder / "broker.json"
        if path.exists():
            found = json.loads(path.read_text())
            return BrokerIdentity(**{**found, "peers": tuple(found.get("peers", ()))})
        make_private(self.folder)
        self.folder.chmod(PRIVATE_FOLDER)
        identity = identity or BrokerIdentity.mint(self.host)
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(identity), indent=2) + "\n")
        return identity

    def _write_configuration(self) -> None:
        who = self.identity
        for name in ("home", "mnesia", "log", "conf.d"):
            (self.folder / name).mkdir(exist_ok=True)
        lines = [
            *self._listener(),
            f"default_user = {who.user}",
            f"default_pass = {who.password}",
            "disk_free_limit.absolute = 50MB",
            f"max_message_size = {MESSAGE_BYTES_MAX}",
        ]
        if self.management:
            kind = "ssl" if self.certificates else "tcp"
            lines += [
                f"management.{kind}.ip = {self.host.address}",
                f"management.{kind}.port = {who.management_port}",
                *self._certificate_lines("management.ssl"),
            ]
        if self.metrics:
            lines += [
                f"prometheus.tcp.ip = {self.host.address}",
                f"prometheus.tcp.port = {who.metrics_port}",
            ]
        if who.peers:
            # Of three nodes this pauses the same ones as `pause_minority`. But a node that was
            # frozen may reconnect before that rule acts, and its database then stays partitioned
            # for good; `autoheal` restarts the smaller side.
            handling = "cluster_partition_handling"
            lines += [f"{handling} = pause_if_all_down"]
            lines += [f"{handling}.pause_if_all_down.recover = autoheal"]
            others = [peer for peer in who.peers if peer != who.node]
            lines += [
                f"{handling}.pause_if_all_down.nodes.{number} = {peer}"
                for number, peer in enumerate(others, start=1)
            ]
            lines += ["cluster_formation.peer_discovery_backend = classic_config"]
            lines += [
                f"cluster_formation.classic_config.nodes.{number} = {peer}"
                for number, peer in enumerate(who.peers, start=1)
            ]
            cookie = self.folder / "home" / ".erlang.cookie"
            if not cookie.exists():
                cookie.touch(mode=0o600)
                cookie.write_text(who.cookie)
                cookie.chmod(0o400)
        configuration = self.folder / "rabbitmq.conf"
        configuration.touch(mode=0o600)
        configuration.write_text("\n".join(lines) + "\n")
        plugins = {"rabbitmq_management": self.management, "rabbitmq_prometheus": self.metrics}
        enabled = ",".join(name for name, wanted in plugins.items() if wanted)
        (self.folder / "enabled_plugins").write_text(f"[{enabled}].\n")
        (self.folder / "rabbitmq-env.conf").touch()

    def _listener(self) -> list[str]:
        address = f"{self.host.address}:{self.identity.amqp_port}"
        if self.certificates is None:
            return [f"listeners.tcp.local = {address}"]
        asked = str(self.certificates.ask_clients).lower()
        return [
            "listeners.tcp = none",
            f"listeners.ssl.local = {address}",
            *self._certificate_lines("ssl_options"),
            "ssl_options.verify = verify_peer",
            f"ssl_options.fail_if_no_peer_cert = {asked}",
            "ssl_options.versions.1 = tlsv1.3",
            "ssl_options.versions.2 = tlsv1.2",
        ]

    def _certificate_lines(self, prefix: str) -> list[str]:
        if self.certificates is None:
            return []
        return [
            f"{prefix}.cacertfile = {self.certificates.ca}",
            f"{prefix}.certfile = {self.certificates.cert}",
            f"{prefix}.keyfile = {self.certificates.key}",
        ]

    def _environment(self) -> dict[str, str]:
        """Return the whole environment of the server: no setting of a system-wide RabbitMQ."""
        who = self.identity
        return {
            "PATH": self.path,
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(who.epmd_port),
            "ERL_EPMD_ADDRESS": self.host.address,
            "ERL_CRASH_DUMP": str(self.folder / "log" / "erl_crash.dump"),
            # With this the start script becomes the server instead of waiting for it as a parent.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": who.node,
            # Only in a long name may the host be an address.
            "RABBITMQ_USE_LONGNAME": str(not self.host.is_loopback).lower(),
            "RABBITMQ_DIST_PORT": str(who.distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(self.folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "conf.d"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": str(self.log),
            "RABBITMQ_PID_FILE": str(self.folder / "rabbitmq.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                # On a shared machine its threads must neither spin nor be bound to processors.
                "+sbwt none +sbwtdcpu none +sbwtdio none +stbt u"
                f" -kernel inet_dist_use_interface {{{self.host.address.replace('.', ',')}}}"
                + (f" -kernel net_ticktime {NET_TICK_S}" if who.peers else "")
            ),
        }


class PrivateBrokerCluster:
    """Several RabbitMQ servers that form one cluster, each in a folder of its own.

    On each host there is an Erlang port mapper that belongs to none of them, so that each can be
    killed. One that reaches no other pauses (`pause_if_all_down`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        management: bool = False,
        metrics: bool = False,
        outlives: bool = False,
        hosts: Sequence[NetworkHost] = (LOOPBACK,) * 3,
    ) -> None:
        """One broker for each of `hosts`, which may be the same several times."""
        self.folder = folder.absolute()
        make_private(self.folder)
        minted = [BrokerIdentity.mint(host) for host in hosts]
        shared = replace(
            minted[0],
            cookie=secrets.token_hex(16),
            peers=tuple(identity.node for identity in minted),
        )
        self.brokers = [
            PrivateBroker(
                self.folder / f"rabbitmq-{number}",
                management=management,
                metrics=metrics,
                outlives=outlives,
                identity=replace(
                    identity,
                    epmd_port=shared.epmd_port,
                    user=shared.user,
                    password=shared.password,
                    cookie=shared.cookie,
                    peers=shared.peers,
                ),
                host=host,
            )
            for number, (host, identity) in enumerate(zip(hosts, minted, strict=True), start=1)
        ]
        self._outlives = outlives
        self._watchdog: Watchdog | None = None
        of_host = {broker.host: broker for broker in self.brokers}
        self._port_mappers = [self._port_mapper(broker) for broker in of_host.values()]

    def _port_mapper(self, broker: PrivateBroker) -> Daemon:
        """The port mapper of a broker's host."""
        address = broker.host.address
        return Daemon(
            "epmd",
            [*broker.host.enter, "/bin/sh", "-c", f"exec {_PORT_MAPPER}"],
            {
                "PATH": broker.path,
                "ERL_EPMD_ADDRESS": address,
                "ERL_EPMD_PORT": str(broker.identity.epmd_port),
            },
            folder=self.folder,
            log=self.folder / f"epmd-{address}.log",
            record=self.folder / f"epmd-{address}.json",
        )

    @property
    def url(self) -> str:
        """The AMQP URLs of all of them, separated by commas, as the setting `broker` takes them."""
        return ",".join(broker.url for broker in self.brokers)

    def start(self, *, timeout_s: float = 120.0) -> None:
        """Start all and wait until each serves and knows the others."""
        if not self._outlives and self._watchdog is None:
            self._watchdog = Watchdog()
        for port_mapper in self._port_mappers:
            port_mapper.start(group=self._watchdog.group if self._watchdog else None)
        with ThreadPoolExecutor(max_workers=len(self.brokers)) as threads:
            starts = [threads.submit(each.start, timeout_s=timeout_s) for each in self.brokers]
            for start in starts:
                start.result()

    def wait_whole(self, *, timeout_s: float = 60.0) -> None:
        """Wait until every server knows all others as running, and none as partitioned. Raises
        `BrokerFailedError`.

        One that has just started serves before the others count it, and until then they are a
        minority without one more.
        """
        deadline = time.monotonic() + timeout_s
        size = str(len(self.brokers))
        for broker in self.brokers:
            while broker.control("--quiet", "eval", COUNT_RUNNING).strip() != size:
                if time.monotonic() > deadline:
                    raise BrokerFailedError(
                        f"{broker.identity.node} does not know all others within {timeout_s} s"
                    )

    def stop(self) -> None:
        """Kill all: in good order each would wait for the others."""
        for broker in self.brokers:
            broker.kill()
        for port_mapper in self._port_mappers:
            port_mapper.kill()
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None


def server_available() -> bool:
    """Whether a RabbitMQ server is installed on this machine."""
    try:
        _server_program()
    except BrokerFailedError:
        return False
    return True


def _server_program() -> Path:
    """Find RabbitMQ's own start script; Debian's in sbin insists on a user of its choice.

    `SYNOD_TEST_RABBITMQ_SERVER` names another one.
    """
    if named := os.environ.get("SYNOD_TEST_RABBITMQ_SERVER"):
        return Path(named)
    debian = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if debian.exists():
        return debian
    found = shutil.which("rabbitmq-server")
    if found is None:
        raise BrokerFailedError(
            "RabbitMQ is not installed; install it: apt-get install rabbitmq-server"
        )
    return Path(found)


def free_ports(count: int) -> list[int]:
    """Draw `count` distinct ports of the loopback interface on which no process listens."""
    found: list[int] = []
    for port in random.sample(_PORTS, 200 + count):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise BrokerFailedError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")
