"""The compose cluster as a target: containers are killed and paused, and `make up`'s files say how.

A failpoint needs another command line, so its node gets a second compose file of its own, and its
container is made anew from both; its volume, and so its disk, stays.
"""

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from broker.topology import Topology
from chaos.processes import ProcessFailed
from chaos.target import last_strike

PORT = 80
START_PATIENCE_S = 300.0


class NotOurs(RuntimeError):
    """The cluster was not started by this command, and nobody said that it may be broken."""


class ComposeTarget:
    """The cluster of a folder's `docker-compose.yml`."""

    kind = "compose"

    def __init__(self, home: Path, folder: Path, *, may_break: bool = False) -> None:
        self.url = f"http://127.0.0.1:{PORT}"
        self.other_url = self.url
        self.token = ""
        self.nodes: Sequence[str] = ()
        self._home = home
        self._folder = folder
        self._may_break = may_break
        self._started = False
        self._secrets: dict[str, str] = {}

    # -- docker ----------------------------------------------------------------------------------

    async def _run(self, *command: str, may_fail: bool = False) -> str:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, complaint = await process.communicate()
        if process.returncode and not may_fail:
            raise ProcessFailed(
                f"{' '.join(command)} ended with {process.returncode}: "
                f"{complaint.decode(errors='replace').strip()[-500:]}"
            )
        return output.decode(errors="replace")

    async def _compose(self, *arguments: str, may_fail: bool = False) -> str:
        return await self._run("docker", "compose", *arguments, may_fail=may_fail)

    async def _container(self, service: str) -> str:
        return (await self._compose("ps", "--all", "--quiet", service)).strip()

    # -- the whole -------------------------------------------------------------------------------

    async def start(self, failpoints: Mapping[str, str]) -> None:
        """See `Target`. Raises `NotOurs` if it runs already and may not be broken."""
        if not (self._folder / "docker-compose.yml").exists():
            raise ProcessFailed(f"there is no docker-compose.yml in {self._folder}")
        if shutil.which("docker") is None:
            raise ProcessFailed("there is no docker here")
        if (await self._compose("ps", "--quiet", may_fail=True)).strip():
            if not self._may_break:
                raise NotOurs(
                    "the compose cluster runs already, and is not this command's own. Stop it with "
                    "make down, or add --break-running-cluster: then its nodes are killed and "
                    "paused, and files are written into it"
                )
        else:
            self._started = True
            async with asyncio.timeout(START_PATIENCE_S):
                await self._run("make", "up")
        self._secrets = dict(
            line.split("=", 1)
            for line in (self._folder / ".env").read_text().splitlines()
            if "=" in line and not line.startswith("#")
        )
        self.token = self._secrets.get("SYNOD_TOKEN", "")
        services = (await self._compose("config", "--services")).split()
        roles = ("proposer", "acceptor", "learner", "store", "gateway")
        self.nodes = tuple(name for name in services if name.partition("-")[0] in roles)
        for node, rule in failpoints.items():
            await self._recreate(node, rule)

    async def stop(self) -> None:
        """See `Target`; a cluster that ran before goes on, without failpoints."""
        if self._started:
            await self._compose("down", "--volumes", may_fail=True)
            return
        for node in self.nodes:
            await self._run("docker", "unpause", await self._container(node), may_fail=True)
        await self._compose("up", "--detach", may_fail=True)

    # -- one node --------------------------------------------------------------------------------

    async def _recreate(self, node: str, failpoint: str) -> None:
        command = ["node", node]
        if failpoint:
            command += ["--failpoint", failpoint, "--arm-on-signal"]
        # A killed container must stay dead until the scenario starts it again.
        extra = self._home / f"{node}.json"
        extra.write_text(json.dumps({"services": {node: {"command": command, "restart": "no"}}}))
        await self._compose(
            *("--file", "docker-compose.yml", "--file", str(extra)),
            *("up", "--detach", "--no-deps", "--force-recreate", node),
        )

    async def kill(self, node: str) -> None:
        """See `Target`."""
        # The policy goes first: the engine would start it again at once.
        await self._run("docker", "update", "--restart=no", await self._container(node))
        await self._compose("kill", "--signal", "KILL", node)

    async def pause(self, node: str) -> None:
        """See `Target`."""
        await self._compose("pause", node)

    async def resume(self, node: str) -> None:
        """See `Target`."""
        await self._compose("unpause", node, may_fail=True)

    async def restart(self, node: str, failpoint: str = "") -> None:
        """See `Target`."""
        await self._recreate(node, failpoint)

    async def arm(self, node: str) -> None:
        """See `Target`."""
        await self._compose("kill", "--signal", "USR1", node)

    async def runs(self, node: str) -> bool:
        """See `Target`."""
        state = await self._run(
            "docker", "inspect", "--format", "{{.State.Running}}", await self._container(node)
        )
        return state.strip() == "true"

    async def struck(self, node: str) -> tuple[str, int | None] | None:
        """See `Target`."""
        return last_strike(await self._compose("logs", "--no-log-prefix", "--tail", "200", node))

    async def holds_prepared(self, node: str, slot: int) -> bool | None:
        """See `Target`: the volume is not looked into."""
        return None

    # -- the broker ------------------------------------------------------------------------------

    async def kill_broker(self) -> None:
        """See `Target`."""
        await self.kill("rabbitmq")

    async def start_broker(self) -> None:
        """See `Target`."""
        await self._compose("start", "rabbitmq")

    async def _in_broker(self, *command: str) -> str:
        return await self._compose("exec", "-T", "rabbitmq", *command)

    async def cut_off(self, node: str, group: str, cut: bool) -> None:
        """See `Target`."""
        topology = Topology("synod")
        queue, exchange = topology.node_queue(node), topology.group(group)
        verb = "delete" if cut else "declare"
        arguments = [f"source={exchange}", "destination_type=queue", f"destination={queue}"]
        if cut:
            arguments.append("properties_key=~")
        user = self._secrets.get("RABBITMQ_USER", "")
        password = self._secrets.get("RABBITMQ_PASSWORD", "")
        await self._in_broker(
            *("rabbitmqadmin", "--username", user, "--password", password),
            *(verb, "binding", *arguments),
        )

    async def quarantined(self) -> int:
        """See `Target`."""
        listing = await self._in_broker(
            "rabbitmqctl", "--quiet", "--formatter", "json", "list_queues", "name", "messages"
        )
        rows: list[dict[str, Any]] = json.loads(listing)
        name = Topology("synod").quarantine
        return sum(int(row["messages"]) for row in rows if row["name"] == name)

    async def logs(self, into: Path) -> None:
        """See `Target`."""
        text = await self._compose("logs", "--no-color", may_fail=True)
        await asyncio.to_thread(into.mkdir, parents=True, exist_ok=True)
        (into / "compose.log").write_text(text)
