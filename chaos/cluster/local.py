"""A cluster on this machine: RabbitMQ and one operating-system process per node.

    folder/
      cluster.json       how the cluster was made: name, broker, ports, counts, settings
      rabbitmq/          a private broker, or several, unless another one was named
      credentials/       each node's password, where each is a user of its own
      data/NODE/         each node's journal
      logs/NODE.log      each node's log
      processes/NODE     which process each node is

From a shell::

    python -m chaos.cluster.local up      starts what does not run, and waits until writes are taken
    python -m chaos.cluster.local status
    python -m chaos.cluster.local down    ends the processes; the data stays, and `up` goes on
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from actors.options import Options
from broker.broker_setup import Setup, prepare
from broker.credentials import environment_of
from broker.journal_folder import PRIVATE_FOLDER, make_private
from broker.topology import BrokerUsers, QueueKind, Topology
from chaos.cluster.hosts import LOOPBACK, NetworkHost
from chaos.cluster.processes import (
    Daemon,
    ProcessFailed,
    Watchdog,
    cpu_seconds,
    memory_kib,
    wait_until,
)
from chaos.cluster.rabbitmq import (
    BrokerFailedError,
    PrivateBroker,
    PrivateBrokerCluster,
    free_ports,
)
from synod.tls import ClientTls

DEFAULT_FOLDER = Path("synod-local")
DEFAULT_PORT = 8080
DESCRIPTION = "cluster.json"

THIS_TREE = ("-m", "synod")
"""The program of a node: arguments of Python before `node NAME`."""


@dataclass(frozen=True)
class Description:
    """How a local cluster is made. Settings are names and values as in `synod config`."""

    cluster: str
    broker: str = ""
    """Empty for a private one."""
    brokers: int = 1
    """How many private ones; several form a cluster, on which queues belong to sessions."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Where each gateway listens."""
    proposers: int = 5
    acceptors: int = 5
    learners: int = 2
    stores: int = 3
    settings: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, int] = field(default_factory=dict)
    """The ports at which the other nodes serve metrics; empty if they serve none."""

    @property
    def broker_names(self) -> tuple[str, ...]:
        """The private brokers: `rabbitmq` alone, or `rabbitmq-1` and so on."""
        if self.broker:
            return ()
        if self.brokers == 1:
            return ("rabbitmq",)
        return tuple(f"rabbitmq-{number}" for number in range(1, self.brokers + 1))

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, gateways last."""
        counts = Options(
            proposers=self.proposers,
            acceptors=self.acceptors,
            learners=self.learners,
            stores=self.stores,
        )
        return (*counts.members, *self.ports)

    @classmethod
    def mint(
        cls,
        *,
        broker: str = "",
        port: int = 0,
        gateways: int = 1,
        counts: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
        metrics: bool = False,
        brokers: int = 1,
    ) -> Self:
        """A new cluster with a name that no former one had; port 0 stands for any free one.

        With `metrics` every node serves its own.
        """
        drawn = iter(free_ports(gateways))
        ports = {f"gateway-{number}": next(drawn) for number in range(1, gateways + 1)}
        if port:
            ports["gateway-1"] = port
        made = cls(
            f"local-{secrets.token_hex(4)}",
            broker,
            brokers,
            ports,
            **(counts or {}),
            settings={**({"queues": "session"} if brokers > 1 else {}), **(settings or {})},
            metrics={},
        )
        if not metrics:
            return made
        members = [name for name in made.nodes if name not in ports]
        return replace(made, metrics=dict(zip(members, free_ports(len(members)), strict=True)))


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What a gateway answered."""

    status: int
    body: bytes


class LocalCluster:
    """A cluster of processes in a folder of its own.

    The calls block; a coroutine uses `asyncio.to_thread`. Without `outlives` everything ends when
    this process does. With a `description` the folder becomes that cluster's, if it is not one
    already; a later `LocalCluster` on the same folder takes the running processes over.
    `programs` names nodes that run something else than `synod`: arguments of Python. `hosts` says
    where nodes run, and `rabbitmq` or `rabbitmq-1` and so on, if not on the loopback interface.
    """

    def __init__(
        self,
        folder: Path,
        description: Description | None = None,
        *,
        outlives: bool = False,
        programs: Mapping[str, Sequence[str]] | None = None,
        hosts: Mapping[str, NetworkHost] | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.outlives = outlives
        self.description = self._load(description)
        self.hosts = dict(hosts or {})
        self.broker: PrivateBroker | None = None
        self.broker_cluster: PrivateBrokerCluster | None = None
        hosts_of_brokers = [self.host_of(name) for name in self.description.broker_names]
        if self.description.broker:
            pass
        elif self.description.brokers == 1:
            self.broker = PrivateBroker(
                self.folder / "rabbitmq", outlives=outlives, host=hosts_of_brokers[0]
            )
        else:
            self.broker_cluster = PrivateBrokerCluster(
                self.folder / "rabbitmq", outlives=outlives, hosts=hosts_of_brokers
            )
        self.programs = dict(programs or {})
        self.nodes = {name: self._daemon(name) for name in self.description.nodes}
        self._watchdog: Watchdog | None = None

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether the folder holds a cluster."""
        return (folder / DESCRIPTION).exists()

    @property
    def name(self) -> str:
        """The cluster's name on the broker."""
        return self.description.cluster

    @property
    def topology(self) -> Topology:
        """The names on the broker, by the kind of queues that the cluster is set to."""
        settings = self.description.settings
        return Topology(
            self.name,
            cast(QueueKind, settings.get("queues", "named")),
            cast(BrokerUsers, settings.get("broker_users", "shared")),
        )

    @property
    def broker_url(self) -> str:
        """Where the nodes find their broker, credentials included."""
        own = self.broker or self.broker_cluster
        return self.description.broker if own is None else own.url

    @property
    def brokers(self) -> Mapping[str, PrivateBroker]:
        """The private brokers by their names; empty without one."""
        several = [] if self.broker_cluster is None else self.broker_cluster.brokers
        own = several if self.broker is None else [self.broker]
        return dict(zip(self.description.broker_names, own, strict=True))

    @property
    def url(self) -> str:
        """Where the first gateway serves."""
        return self.url_of("gateway-1")

    def url_of(self, gateway: str) -> str:
        """Where a gateway serves."""
        scheme = "https" if "tls_cert" in self.description.settings else "http"
        return f"{scheme}://{self.host_of(gateway).address}:{self.description.ports[gateway]}"

    def host_of(self, name: str) -> NetworkHost:
        """Where a node or broker runs."""
        return self.hosts.get(name, LOOPBACK)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the nodes, without the settings of this process."""
        about = self.description
        settings = {
            "cluster": about.cluster,
            "broker": self.broker_url,
            "data": str(self.data),
            "host": LOOPBACK.address,
            "proposers": str(about.proposers),
            "acceptors": str(about.acceptors),
            "learners": str(about.learners),
            "stores": str(about.stores),
            **about.settings,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNOD_")}
        return kept | {f"SYNOD_{name.upper()}": value for name, value in settings.items()}

    @property
    def data(self) -> Path:
        """Holds one folder for each node."""
        return self.folder / "data"

    # ── All of it ─────────────────────────────────────────────────────────────

    def start(self, timeout_s: float = 120.0) -> None:
        """Start what does not run, and wait until a write could start."""
        self.start_brokers()
        for name in self.nodes:
            self.start_node(name)
        self.wait_ready(timeout_s=timeout_s)

    def start_brokers(self) -> None:
        """Start the private brokers that do not run, and wait until all serve."""
        if own := self.broker or self.broker_cluster:
            own.start()
            if self.topology.own_users:
                self._prepare_brokers()

    def _prepare_brokers(self) -> None:
        """Give each node a user of its own, as `synod broker init` does."""
        credentials = self.folder / "credentials"
        definitions = credentials / "definitions.json"
        setup = Setup(self.topology, tuple(self.nodes), credentials, self.broker_url)
        prepare(setup, definitions)
        first = next(iter(self.brokers.values()))
        first.control("--quiet", "import_definitions", str(definitions))
        for name, daemon in self.nodes.items():
            daemon.environment |= environment_of(credentials, name)

    def wait_brokers(self, *, timeout_s: float = 60.0) -> None:
        """Wait until each of several private brokers knows all others as running."""
        if self.broker_cluster is not None:
            self.broker_cluster.wait_whole(timeout_s=timeout_s)

    def stop(self) -> None:
        """End all processes, a private broker included. The data stays."""
        for daemon in self.nodes.values():
            daemon.signal(signal.SIGTERM)
            daemon.signal(signal.SIGCONT)
        for daemon in self.nodes.values():
            daemon.stop()
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None
        if own := self.broker or self.broker_cluster:
            own.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # ── One node ──────────────────────────────────────────────────────────────

    def add_node(self, name: str) -> None:
        """Make room for a node that the cluster was not founded with; `start_node` starts it with
        the settings of all others.
        """
        self.nodes[name] = self._daemon(name)
        if self.topology.own_users:
            self._prepare_brokers()

    def forget_node(self, name: str) -> None:
        """End a node for good, if it has not ended by itself. Its data and its log stay."""
        self.nodes.pop(name).stop()

    def start_node(self, name: str, *, failpoints: Sequence[str] = (), armed: bool = True) -> None:
        """Start a node, unless it runs, without waiting for it.

        `failpoints` are rules as in `broker.failpoints`, for this start only. With `armed=False`
        they count from `arm` on.
        """
        arguments = [word for rule in failpoints for word in ("--failpoint", rule)]
        if failpoints and not armed:
            arguments.append("--arm-on-signal")
        self.nodes[name].start(arguments, group=self._group())

    def go_over(self, name: str, program: Sequence[str] = THIS_TREE) -> None:
        """End a node in good order, and start it on its data as another program, such as another
        release; see `programs`. Does not wait for the new process.
        """
        self.stop_node(name)
        self.programs[name] = program
        self.nodes[name].command = self._command(name)
        self.start_node(name)

    def arm(self, name: str) -> None:
        """Let the failpoints of a node that was started with `armed=False` count from now on.

        The node must be ready by then: the signal ends a process that has no handler for it yet.
        """
        self.nodes[name].signal(signal.SIGUSR1)

    def stop_node(self, name: str) -> None:
        """End a node in good order (SIGTERM)."""
        self.nodes[name].stop()

    def kill(self, name: str) -> None:
        """End a node as a power cut would (SIGKILL)."""
        self.nodes[name].kill()

    def pause(self, name: str) -> None:
        """Hold a node (SIGSTOP): it neither runs nor ends."""
        self.nodes[name].signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused node go on (SIGCONT)."""
        self.nodes[name].signal(signal.SIGCONT)

    def process_id(self, name: str) -> int | None:
        """The process that a node is, or `None`."""
        return self.nodes[name].process_id

    def vm_hwm_kib(self, name: str) -> int:
        """The peak memory of a node's process so far."""
        process_id = self.process_id(name)
        return 0 if process_id is None else memory_kib(process_id)

    def cpu_seconds(self, name: str) -> float:
        """The processor time that a node's process has used."""
        process_id = self.process_id(name)
        return 0.0 if process_id is None else cpu_seconds(process_id)

    # ── What the gateway says ─────────────────────────────────────────────────

    def ask(self, target: str, gateway: str = "gateway-1", *, timeout_s: float = 5.0) -> HttpAnswer:
        """GET `target` from a gateway. Raises `OSError` if it does not answer."""
        address, port = self.host_of(gateway).address, self.description.ports[gateway]
        token = self.description.settings.get("token", "")
        if "tls_cert" in self.description.settings:
            tls = ClientTls.of(None, None, None).context(trust_env=True)
            connection: HTTPConnection = HTTPSConnection(
                address, port, timeout=timeout_s, context=tls
            )
        else:
            connection = HTTPConnection(address, port, timeout=timeout_s)
        try:
            connection.request(
                "GET", target, headers={"authorization": f"Bearer {token}"} if token else {}
            )
            response = connection.getresponse()
            return HttpAnswer(response.status, response.read())
        except HTTPException as error:
            raise ConnectionError(f"{gateway} gave no HTTP answer: {error!r}") from error
        finally:
            connection.close()

    def survey(self, gateway: str = "gateway-1") -> dict[str, Any]:
        """What `/v1/cluster` answers. Raises `OSError` if the gateway does not answer well."""
        answer = self.ask("/v1/cluster", gateway)
        if answer.status != 200:
            raise ConnectionError(f"{gateway} answered {answer.status}: {answer.body[:300]!r}")
        survey: dict[str, Any] = json.loads(answer.body)
        return survey

    def leader(self) -> str | None:
        """The leading proposer, according to the gateway."""
        leader: str | None = self.survey()["leader"]
        return leader

    def coordinator(self) -> str | None:
        """The learner that coordinates, according to the gateway."""
        view = self.survey()["view"]
        return None if view is None else str(view["coordinator"])

    def ready(self, gateway: str = "gateway-1") -> bool:
        """Whether a write could start, according to the gateway."""
        try:
            return self.ask("/readyz", gateway).status == 200
        except OSError:
            return False

    def wait_ready(self, *, timeout_s: float = 120.0) -> None:
        """Wait until all gateways are ready. Raises `ProcessFailed` if a node ended meanwhile."""
        deadline = time.monotonic() + timeout_s
        missing = list(self.description.ports)
        while missing:
            if self.ready(missing[0]):
                del missing[0]
                continue
            self.check_alive()
            if time.monotonic() > deadline:
                raise ProcessFailed(
                    f"{missing[0]} was not ready within {timeout_s:g} s: {self._complaint()}"
                )
            time.sleep(0.1)

    def wait_whole(self, *, within_ms: int = 5_000, timeout_s: float = 60.0) -> None:
        """Wait until the first gateway is ready and has recent heartbeats of every member."""

        self.wait_until(
            lambda: self.looks_whole(within_ms), "every node sends heartbeats", timeout_s=timeout_s
        )

    def looks_whole(self, within_ms: int = 5_000) -> bool:
        """Whether the first gateway is ready and has recent heartbeats of every member."""
        try:
            survey = self.survey()
        except OSError:
            return False
        ages = [
            node.get("age_ms", within_ms) for node in survey["nodes"] if node["role"] != "gateway"
        ]
        return bool(survey["ready"]) and max(ages) < within_ms

    def check_alive(self) -> None:
        """Raise `ProcessFailed` with the end of its log if a node that was started has ended."""
        for name, daemon in self.nodes.items():
            if daemon.starts and not daemon.runs:
                raise ProcessFailed(f"{name} ended; {daemon.last_words()}")

    def wait_until(self, true: Callable[[], object], what: str, *, timeout_s: float = 30.0) -> None:
        """Wait for a condition; an `OSError` from it counts as "not yet"."""

        def holds() -> bool:
            try:
                return bool(true())
            except OSError:
                return False

        wait_until(holds, what, timeout_s=timeout_s)

    def _complaint(self) -> str:
        try:
            return repr(self.ask("/readyz").body)
        except OSError as error:
            return f"{error!r}; {self.nodes['gateway-1'].last_words()}"

    # ── Files ─────────────────────────────────────────────────────────────────

    def _load(self, description: Description | None) -> Description:
        path = self.folder / DESCRIPTION
        if path.exists():
            return Description(**json.loads(path.read_text()))
        if description is None:
            description = Description.mint()
        make_private(self.folder)
        self.folder.chmod(PRIVATE_FOLDER)
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(description), indent=2) + "\n")
        return description

    def _daemon(self, name: str) -> Daemon:
        environment = self.environment
        if name in self.description.ports:
            environment["SYNOD_HOST"] = self.host_of(name).address
            # Other hosts are network namespaces of this machine.
            environment["SYNOD_INSECURE"] = "1"
            environment["SYNOD_PORT"] = str(self.description.ports[name])
        if name in self.description.metrics:
            environment["SYNOD_METRICS_PORT"] = str(self.description.metrics[name])
        return Daemon(
            name,
            self._command(name),
            environment,
            folder=self.folder,
            log=self.folder / "logs" / f"{name}.log",
            record=self.folder / "processes" / name,
        )

    def _command(self, name: str) -> list[str]:
        program = self.programs.get(name, THIS_TREE)
        return [*self.host_of(name).enter, sys.executable, *program, "node", name]

    def _group(self) -> int | None:
        if self.outlives:
            return None
        if self._watchdog is None:
            self._watchdog = Watchdog()
        return self._watchdog.group


# ── The command ───────────────────────────────────────────────────────────────


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (ProcessFailed, BrokerFailedError) as error:
        print(f"chaos.cluster.local: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos.cluster.local", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(required=True, metavar="up|down|status")

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, metavar="DIR")
        return command

    up = add("up", _up, "Start the cluster, or what of it does not run.")
    up.add_argument("--broker", default="", metavar="URL", help="instead of a private RabbitMQ")
    up.add_argument(
        "--brokers", type=int, default=1, help="how many private RabbitMQ nodes form a cluster"
    )
    up.add_argument("--port", type=int, default=DEFAULT_PORT, help="of the first gateway")
    up.add_argument("--gateways", type=int, default=1)
    up.add_argument("--fresh", action="store_true", help="remove a former cluster's data first")
    up.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="a setting of all nodes, such as lease_ms=2000; only for a fresh cluster",
    )
    for role in ("proposers", "acceptors", "learners", "stores"):
        up.add_argument(f"--{role}", type=int, default=getattr(Options(), role))
    down = add("down", _down, "End the cluster's processes.")
    down.add_argument("--wipe", action="store_true", help="remove its data, too")
    status = add("status", _status, "Print the cluster's processes.")
    status.add_argument("--json", action="store_true")
    return parser


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name.strip().lower(), value


def _up(options: argparse.Namespace) -> int:
    if options.fresh and LocalCluster.exists(options.folder):
        _down(argparse.Namespace(folder=options.folder, wipe=True))
    going_on = LocalCluster.exists(options.folder)
    counts = {role: getattr(options, role) for role in ("proposers", "acceptors", "learners")}
    description = Description.mint(
        broker=options.broker,
        brokers=options.brokers,
        port=options.port,
        gateways=options.gateways,
        counts=counts | {"stores": options.stores},
        settings=dict(options.set),
    )
    cluster = LocalCluster(options.folder, description, outlives=True)
    if going_on:
        print(f"Going on with the cluster in {options.folder}", file=sys.stderr)
    cluster.start()
    print(cluster.url)
    return 0


def _down(options: argparse.Namespace) -> int:
    if not LocalCluster.exists(options.folder):
        print(f"There is no cluster in {options.folder}", file=sys.stderr)
        return 0
    LocalCluster(options.folder, outlives=True).stop()
    if options.wipe:
        shutil.rmtree(options.folder)
    return 0


def _status(options: argparse.Namespace) -> int:
    if not LocalCluster.exists(options.folder):
        print(f"There is no cluster in {options.folder}", file=sys.stderr)
        return 1
    cluster = LocalCluster(options.folder, outlives=True)
    rows: list[dict[str, Any]] = [
        {
            "node": name,
            "process_id": daemon.process_id,
            "vm_hwm_kib": cluster.vm_hwm_kib(name),
            "cpu_seconds": round(cluster.cpu_seconds(name), 2),
        }
        for name, daemon in cluster.nodes.items()
    ]
    ready = cluster.ready()
    if options.json:
        about = {"url": cluster.url, "cluster": cluster.name, "ready": ready, "nodes": rows}
        print(json.dumps(about, indent=2))
    else:
        print(f"{cluster.url} {'is ready' if ready else 'is not ready'}")
        for row in rows:
            where = f"process {row['process_id']}" if row["process_id"] else "does not run"
            peak_mib = row["vm_hwm_kib"] // 1024
            print(f"{row['node']:12} {where:16} {peak_mib:5} MiB {row['cpu_seconds']:9.2f} s")
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main())
