"""A cluster of containers as a target: one of this command's own, made of a folder's compose file.

With one RabbitMQ node that is `docker-compose.yml`, with several `docker-compose.ha.yml`.
It is a compose project with a name, credentials, ports and volumes of its own, so that nothing of
the folder's usual cluster is touched: not its containers, nor the data of a stopped one. Only the
image is shared. With `may_break` it breaks the folder's running cluster instead.

A failpoint needs another command line, so its node gets a second compose file of its own, and its
container is recreated from both; its volume, and so its disk, stays.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from broker.topology import BrokerUsers, Topology
from chaos.cluster.network_cuts import Cuts
from chaos.cluster.processes import ProcessFailed
from chaos.cluster.rabbitmq import COUNT_RUNNING, free_ports
from chaos.cluster.sites import sites_of
from chaos.cluster.target import last_strike, survey
from chaos.scenarios.autopsy import JOURNAL, Held, journal_holds

USUAL_PORT = 80
START_PATIENCE_S = 600.0
"""The image may have to be built."""
BROKER_PATIENCE_S = 120.0

SINGLE = "docker-compose.yml"
HA = "docker-compose.ha.yml"
"""Three RabbitMQ nodes and sites; clients reach the gateways through a proxy."""
OWN_USERS = "compose/own-users.yml"
OWN_USERS_HA = "compose/own-users-ha.yml"
"""What is added to either where each node is a RabbitMQ user of its own."""
OWN_USERS_LABEL = "synod.broker-users=own"
PROXY = "proxy"
OTHER_GATEWAY = "gateway-2"
GATEWAY_PORT = 8080
"""Inside a gateway's container."""
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
BROKER = "rabbitmq"
"""The service of the only broker; several have a number each, too."""
ROLES = ("proposer", "acceptor", "learner", "store", "gateway")

_SERVES = ("--quiet", "check_port_connectivity")
_LOOK_S = 0.1
_GIVE_UP_S = 5.0
_DOWN_ATTEMPTS = 3


class NotOurs(RuntimeError):
    """This command did not start the cluster, and its user has not allowed it to be broken."""


class ComposeTarget:
    """Containers as a compose file of a folder describes them."""

    kind = "compose"

    def __init__(
        self, home: Path, folder: Path, *, brokers: int = 1, may_break: bool = False
    ) -> None:
        self.url = self.other_url = f"http://127.0.0.1:{USUAL_PORT}"
        """With `HA` the proxy; the other one is a gateway, if it is published."""
        self.token = ""
        self.nodes: Sequence[str] = ()
        self.brokers: Sequence[str] = ()
        self._brokers_needed = brokers
        self._home = home
        self._folder = folder
        self._may_break = may_break
        self._project = ""
        """Empty until it is known which containers may be touched."""
        self._own = False
        self._client: Sequence[str] = ("docker", "compose")
        self._file = SINGLE if brokers == 1 else HA
        self._more_files: tuple[str, ...] = ()
        """What is added to it, as options."""
        self._users: BrokerUsers = "shared"
        self._environment = dict(os.environ)
        self._paused: set[str] = set()
        self._cuts = Cuts(self._evaluate)
        self._remade: set[str] = set()
        """The nodes of a running cluster whose containers were changed."""

    @property
    def sites(self) -> Mapping[str, Sequence[str]]:
        """See `Target`."""
        return sites_of(self.nodes, self.brokers)

    # -- docker ----------------------------------------------------------------------------------

    async def _run(self, *command: str, may_fail: bool = False) -> str:
        """What a command prints. Raises `ProcessFailed` with the end of its error output."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Only `synod chaos` itself gets a Ctrl-C; it ends what it started in order.
            start_new_session=True,
        )
        try:
            output, complaint = await process.communicate()
        except asyncio.CancelledError:
            await _end(process)
            raise
        if process.returncode and not may_fail:
            raise ProcessFailed(
                f"{' '.join(command)} ended with {process.returncode}: "
                f"{complaint.decode(errors='replace').strip()[-500:]}"
            )
        return output.decode(errors="replace")

    async def _compose(self, *arguments: str, may_fail: bool = False) -> str:
        project = ("--project-name", self._project) if self._project else ()
        files = ("--file", self._file, *self._more_files)
        return await self._run(*self._client, *project, *files, *arguments, may_fail=may_fail)

    async def _listed(self, what: str, *filters: str) -> list[str]:
        """The ids of the project's containers, volumes or networks."""
        command = ["docker", what, "ls", "--quiet"]
        if what == "container":
            command.append("--all")
        for one in (f"{PROJECT_LABEL}={self._project}", *filters):
            command += ["--filter", f"label={one}"]
        return (await self._run(*command)).split()

    async def _container(self, service: str) -> str:
        found = await self._listed("container", f"{SERVICE_LABEL}={service}")
        if len(found) != 1:
            raise ProcessFailed(f"there are {len(found)} containers of {service}")
        return found[0]

    async def _docker(self, *command: str, node: str, may_fail: bool = False) -> str:
        return await self._run("docker", *command, await self._container(node), may_fail=may_fail)

    # -- the whole -------------------------------------------------------------------------------

    async def start(self, failpoints: Mapping[str, str]) -> None:
        """See `Target`. Raises `NotOurs` if the folder's cluster runs and may not be broken."""
        if not (self._folder / self._file).exists():
            raise ProcessFailed(f"there is no {self._file} in {self._folder}")
        if shutil.which("docker") is None:
            raise ProcessFailed("docker is not installed")
        if not await self._run("docker", "compose", "version", may_fail=True):
            self._client = ("docker-compose",)
        running = await self._running()
        if running and not self._may_break:
            raise NotOurs(
                "the compose cluster of this folder runs already, and is not this command's own. "
                "Stop it with make down, or add --break-running-cluster: then its nodes are killed "
                "and paused, and files are written into it"
            )
        async with asyncio.timeout(START_PATIENCE_S):
            if running:
                await self._take_over(running)
            else:
                self._mint()
                if self._file == HA:
                    self._mint_ha()
                certificates = self._home / "tls"
                await self._run(str(self._folder / "compose/certificates.sh"), str(certificates))
                self._environment["TLS_FOLDER"] = str(certificates)
            services = (await self._compose("config", "--services")).split()
            self.nodes = tuple(name for name in services if name.partition("-")[0] in ROLES)
            self.brokers = tuple(name for name in services if name.partition("-")[0] == BROKER)
            if len(self.brokers) < self._brokers_needed:
                raise ProcessFailed(
                    f"{self._file} has {len(self.brokers)} of the {self._brokers_needed} RabbitMQ "
                    "nodes that are needed"
                )
            if self._own:
                await self._compose("build", "--quiet")
                files = self._extra(failpoints)
                proxies = [name for name in services if name == PROXY]
                await self._compose(*files, "up", "--detach", *self.brokers, *self.nodes, *proxies)
            else:
                for node, rule in failpoints.items():
                    await self.restart(node, rule)
            while not await self._whole():  # noqa: ASYNC110  No event announces it.
                await asyncio.sleep(1.0)

    async def _running(self) -> str:
        """The container of a RabbitMQ node of the folder's cluster, whose file is then ours."""
        asked_for = self._file
        for self._file, broker in ((SINGLE, BROKER), (HA, f"{BROKER}-1")):
            if found := (await self._compose("ps", "--quiet", broker, may_fail=True)).split():
                return found[0]
        self._file = asked_for
        return ""

    def _mint(self) -> None:
        """Draw a name, secrets and ports that no other cluster has."""
        port, console_port = free_ports(2)
        self._own = True
        self._project = f"synod-chaos-{secrets.token_hex(4)}"
        self.url = self.other_url = f"http://127.0.0.1:{port}"
        self.token = secrets.token_urlsafe(24)
        self._environment |= {
            "SYNOD_HTTP_PORT": str(port),
            "RABBITMQ_CONSOLE_PORT": str(console_port),
            "RABBITMQ_USER": "chaos",
            "RABBITMQ_PASSWORD": secrets.token_hex(16),
            "SYNOD_TOKEN": self.token,
            "GRAFANA_PASSWORD": secrets.token_hex(16),
        }

    def _mint_ha(self) -> None:
        """Draw what only `HA` needs, and publish a gateway beside the proxy."""
        gateway_port, *console_ports = free_ports(3)
        self.other_url = f"http://127.0.0.1:{gateway_port}"
        cookie = self._home / "erlang_cookie"
        cookie.touch(mode=0o600)
        cookie.write_text(secrets.token_hex(16))
        self._environment |= {
            "ERLANG_COOKIE_FILE": str(cookie),
            "RABBITMQ_2_CONSOLE_PORT": str(console_ports[0]),
            "RABBITMQ_3_CONSOLE_PORT": str(console_ports[1]),
        }
        ports = [f"127.0.0.1:{gateway_port}:{GATEWAY_PORT}"]
        published = self._home / "published.json"
        published.write_text(json.dumps({"services": {OTHER_GATEWAY: {"ports": ports}}}))
        self._more_files = ("--file", str(published))

    async def _take_over(self, container: str) -> None:
        label = f'{{{{index .Config.Labels "{PROJECT_LABEL}"}}}}'
        self._project = (await self._run("docker", "inspect", "--format", label, container)).strip()
        if await self._listed("container", OWN_USERS_LABEL):
            self._users = "own"
            self._more_files = ("--file", OWN_USERS)
            if self._file == HA:
                self._more_files += ("--file", OWN_USERS_HA)
        given = dict(
            line.split("=", 1)
            for line in (self._folder / ".env").read_text().splitlines()
            if "=" in line and not line.startswith("#")
        )
        self.token = given.get("SYNOD_TOKEN", "")
        port = given.get("SYNOD_HTTP_PORT", USUAL_PORT)
        self.url = self.other_url = f"http://127.0.0.1:{port}"

    async def _whole(self) -> bool:
        """Whether a write could start, and every member has sent heartbeats."""
        try:
            about = await survey(self)
        except (ConnectionError, ValueError):
            return False
        return bool(about["ready"]) and all(
            node["seen"] for node in about["nodes"] if node["role"] != "gateway"
        )

    async def stop(self) -> None:
        """See `Target`; a cluster that ran before goes on, without failpoints.

        Raises `ProcessFailed` if something is left.
        """
        if not self._project:
            return
        for service in sorted(self._paused):
            await self.resume(service)
        if not self._own:
            for broker in self.brokers:
                await self._start_broker(broker)
            if self._remade:
                # Only these nodes: compose would recreate any other whose definition has changed.
                again = ("up", "--detach", "--no-deps", *sorted(self._remade))
                await self._compose(*again, may_fail=True)
            await self._cuts.end_all()
            return
        left: list[str] = []
        for _ in range(_DOWN_ATTEMPTS):
            # After a cancelled `up` the engine may still be making what it was asked for.
            await self._compose("down", "--volumes", "--timeout", "3", may_fail=True)
            left = [
                f"{what} {name}"
                for what in ("container", "volume", "network")
                for name in await self._listed(what)
            ]
            if not left:
                return
        raise ProcessFailed(f"could not remove, of {self._project}: {', '.join(left)}")

    # -- one node --------------------------------------------------------------------------------

    def _extra(self, failpoints: Mapping[str, str]) -> list[str]:
        """The options that name one more compose file for each of these nodes."""
        files: list[str] = []
        for node, rule in failpoints.items():
            # A killed container must stay down until the scenario starts it again.
            about: dict[str, Any] = {"restart": "no", "command": ["node", node]}
            if rule:
                about["command"] += ["--failpoint", rule, "--arm-on-signal"]
            extra = self._home / f"{node}.json"
            extra.write_text(json.dumps({"services": {node: about}}))
            files += ["--file", str(extra)]
        return files

    async def kill(self, node: str) -> None:
        """See `Target`."""
        # The policy goes first: the engine would start it again at once.
        self._remade.add(node)
        await self._docker("update", "--restart=no", node=node)
        await self._docker("kill", "--signal", "KILL", node=node)

    async def pause(self, node: str) -> None:
        """See `Target`: the engine freezes it, as SIGSTOP would."""
        self._paused.add(node)
        await self._docker("pause", node=node)

    async def resume(self, node: str) -> None:
        """See `Target`."""
        await self._docker("unpause", node=node, may_fail=True)
        self._paused.discard(node)

    async def restart(self, node: str, failpoint: str = "") -> None:
        """See `Target`."""
        self._remade.add(node)
        files = self._extra({node: failpoint})
        await self._compose(*files, "up", "--detach", "--no-deps", "--force-recreate", node)

    async def wipe(self, node: str) -> None:
        """See `Target`: by a container of the same image that mounts the dead one's volume."""
        container = await self._container(node)
        image = (await self._run("docker", "inspect", "--format", "{{.Image}}", container)).strip()
        options = ("--rm", "--network", "none", "--volumes-from", container)
        remove = ("-c", "import shutil, sys; shutil.rmtree(sys.argv[1])", f"/data/{node}")
        await self._run("docker", "run", *options, "--entrypoint", "python", image, *remove)

    async def add(self, node: str) -> None:
        """See `Target`: the compose file names all containers."""
        raise ProcessFailed(f"{self._file} has no {node}")

    async def forget(self, node: str) -> None:
        """See `Target`."""
        self.nodes = tuple(name for name in self.nodes if name != node)

    async def last_words(self, node: str) -> str:
        """See `Target`: a container's standard error is that of `docker logs`."""
        script = 'exec docker logs --tail 200 "$1" 2>&1'
        return await self._run("sh", "-c", script, "sh", await self._container(node))

    async def arm(self, node: str) -> None:
        """See `Target`."""
        await self._docker("kill", "--signal", "USR1", node=node)

    async def runs(self, node: str) -> bool:
        """See `Target`."""
        state = await self._docker("inspect", "--format", "{{.State.Running}}", node=node)
        await asyncio.sleep(_LOOK_S)  # Each inspection starts a process.
        return state.strip() == "true"

    async def struck(self, node: str) -> tuple[str, int | None] | None:
        """See `Target`."""
        return last_strike(await self.last_words(node))

    async def holds_prepared(self, node: str, slot: int) -> bool | None:
        """See `Target`: at a copy of what is on the dead container's volume."""
        copy = self._home / f"{node}-{slot}"
        source = f"{await self._container(node)}:/data/{node}"
        await self._run("docker", "cp", source, str(copy))
        if not (copy / JOURNAL).exists():
            raise ProcessFailed(f"the volume of {node} holds no {JOURNAL}")
        return await asyncio.to_thread(journal_holds, copy, slot)

    async def look(self, store: str, slot: int) -> Held:
        """See `Target`: by a process inside the container."""
        container = await self._container(store)
        command = ("python", "-m", "chaos.scenarios.autopsy", f"/data/{store}", str(slot))
        return Held(*json.loads(await self._run("docker", "exec", container, *command)))

    # -- the broker ------------------------------------------------------------------------------

    async def kill_broker(self, broker: str) -> None:
        """See `Target`."""
        await self._docker("update", "--restart=no", node=broker)
        await self._docker("kill", "--signal", "KILL", node=broker)

    async def start_broker(self, broker: str) -> None:
        """See `Target`."""
        await self._start_broker(broker)
        await self._wait_broker(f"{broker} serves", broker, "rabbitmq-diagnostics", *_SERVES)

    async def _start_broker(self, broker: str) -> None:
        await self._docker("start", node=broker)
        await self._docker("update", "--restart=unless-stopped", node=broker)

    async def pause_broker(self, broker: str) -> None:
        """See `Target`."""
        await self.pause(broker)

    async def resume_broker(self, broker: str) -> None:
        """See `Target`."""
        await self.resume(broker)

    async def wait_brokers(self) -> None:
        """See `Target`."""
        whole = f"true = {len(self.brokers)} =:= {COUNT_RUNNING}"
        for broker in self.brokers:
            what = f"{broker} knows all others as running"
            await self._wait_broker(what, broker, "rabbitmqctl", "eval", whole)

    async def _wait_broker(self, what: str, broker: str, *command: str) -> None:
        """Wait until a command in a RabbitMQ node's container succeeds. Raises `ProcessFailed`."""
        deadline_s = time.monotonic() + BROKER_PATIENCE_S
        while True:
            try:
                await self._in_broker(broker, *command)
            except ProcessFailed as error:
                if time.monotonic() > deadline_s:
                    raise ProcessFailed(
                        f"not within {BROKER_PATIENCE_S:g} s: {what}: {error}"
                    ) from error
                await asyncio.sleep(_LOOK_S)
            else:
                return

    async def _in_broker(self, broker: str, *command: str) -> str:
        return await self._run("docker", "exec", await self._container(broker), *command)

    @property
    def _topology(self) -> Topology:
        return Topology("synod", "named" if len(self.brokers) == 1 else "session", self._users)

    async def cut_off(self, node: str, group: str, cut: bool) -> None:
        """See `Target`."""
        if node not in self.nodes:
            raise ProcessFailed(f"there is no {node} among the containers")
        change = self._cuts.begin if cut else self._cuts.end
        await change(self._topology, node, group)

    async def _evaluate(self, erlang: str) -> None:
        await self._in_broker(self.brokers[0], "rabbitmqctl", "eval", erlang)

    async def quarantined(self) -> int:
        """See `Target`."""
        command = ("rabbitmqctl", "--quiet", "--formatter", "json", "list_queues")
        listing = await self._in_broker(self.brokers[0], *command, "name", "messages")
        rows: list[dict[str, Any]] = json.loads(listing)
        name = self._topology.quarantine_queue
        return sum(int(row["messages"]) for row in rows if row["name"] == name)

    async def logs(self, into: Path) -> None:
        """See `Target`."""
        text = await self._compose("logs", "--no-color", may_fail=True)
        await asyncio.to_thread(into.mkdir, parents=True, exist_ok=True)
        (into / "compose.log").write_text(text)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a command whose caller was cancelled."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_GIVE_UP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
