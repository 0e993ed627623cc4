"""The calls of Docker by `chaos --target compose`, which a program in its place records."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from chaos.cluster.compose import ComposeTarget, NotOurs
from chaos.cluster.processes import ProcessFailed

DOCKER = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
"compose version") echo 2 ;;
"compose ps --quiet rabbitmq") cat "$RUNNING" ;;
*"config --services") printf '%s\\n' rabbitmq store-1 grafana; exit "${CONFIG:-0}" ;;
"inspect "*) echo usual ;;
*" ls "*) cat "$LEFT" ;;
esac
"""


class Engine:
    """A program `docker` that records its calls, and prints what `running` and `left` hold."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running, self.left, self._calls = (
            folder / name for name in ("running", "left", "calls")
        )
        for file in (self.running, self.left, self._calls, folder / "docker-compose.yml"):
            file.touch()
        programs = folder / "programs"
        programs.mkdir()
        (programs / "docker").write_text(DOCKER)
        (programs / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("CALLS", str(self._calls))
        monkeypatch.setenv("RUNNING", str(self.running))
        monkeypatch.setenv("LEFT", str(self.left))

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(tmp_path, monkeypatch)


async def test_a_cluster_of_others_is_not_touched(engine: Engine, tmp_path: Path) -> None:
    engine.running.write_text("0123456789ab\n")
    target = ComposeTarget(tmp_path, tmp_path)

    with pytest.raises(NotOurs, match="--break-running-cluster"):
        await target.start({"store-1": "send:txn.vote:1:after:kill"})
    await target.stop()

    assert engine.calls == ["compose version", "compose ps --quiet rabbitmq"]


async def test_of_a_running_cluster_only_the_broken_nodes_are_recreated(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def survey(target: ComposeTarget) -> dict[str, Any]:
        return {"ready": True, "nodes": []}

    monkeypatch.setattr("chaos.cluster.compose.survey", survey)
    engine.running.write_text("0123456789ab\n")
    engine.left.write_text("fedcba\n")
    (tmp_path / ".env").write_text("# ours\nSYNOD_TOKEN=secret\nSYNOD_HTTP_PORT=8081\n")
    target = ComposeTarget(tmp_path, tmp_path, may_break=True)

    await target.start({"store-1": "send:txn.vote:1:after:kill"})
    await target.stop()

    assert (target.url, target.token) == ("http://127.0.0.1:8081", "secret")
    extra = json.loads((tmp_path / "store-1.json").read_text())["services"]["store-1"]
    assert extra["command"][2:] == ["--failpoint", "send:txn.vote:1:after:kill", "--arm-on-signal"]
    compose = "compose --project-name usual"
    files = f"--file docker-compose.yml --file {tmp_path / 'store-1.json'}"
    assert [call for call in engine.calls if " up " in call] == [
        f"{compose} {files} up --detach --no-deps --force-recreate store-1",
        f"{compose} up --detach --no-deps store-1",
    ]
    assert not any(" down " in call for call in engine.calls)


async def test_its_own_cluster_has_a_unique_name_and_is_removed(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFIG", "1")
    target = ComposeTarget(tmp_path, tmp_path)

    with pytest.raises(ProcessFailed, match="config --services ended with 1"):
        await target.start({})
    await target.stop()

    project = engine.calls[2].split()[2]
    assert project.startswith("synod-chaos-")
    assert engine.calls[2:4] == [
        f"compose --project-name {project} config --services",
        f"compose --project-name {project} down --volumes --timeout 3",
    ]
    assert all(f"label=com.docker.compose.project={project}" in call for call in engine.calls[4:])


async def test_what_could_not_be_removed_is_named(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFIG", "1")
    engine.left.write_text("fedcba\n")
    target = ComposeTarget(tmp_path, tmp_path)

    with pytest.raises(ProcessFailed):
        await target.start({})
    with pytest.raises(ProcessFailed, match=r"could not remove, .*: container fedcba, volume"):
        await target.stop()

    assert sum(" down " in call for call in engine.calls) == 3
