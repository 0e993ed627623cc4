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
*"ps --quiet $BROKER") cat "$RUNNING" ;;
*ha.yml*"config --services")
    printf '%s\\n' rabbitmq-1 rabbitmq-2 rabbitmq-3 store-1 store-2 gateway-1 \\
        gateway-2 proxy grafana ;;
*"config --services") printf '%s\\n' rabbitmq store-1 grafana; exit "${CONFIG:-0}" ;;
"inspect "*) echo usual ;;
*label=synod.broker-users=own) echo "$OWN" ;;
*" ls "*) cat "$LEFT" ;;
esac
"""


class Engine:
    """A program `docker` that records its calls, and prints what `running` and `left` hold."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running, self.left, self._calls = (
            folder / name for name in ("running", "left", "calls")
        )
        for file in (self.running, self.left, self._calls):
            file.touch()
        for name in ("docker-compose.yml", "docker-compose.ha.yml"):
            (folder / name).touch()
        programs = folder / "programs"
        programs.mkdir()
        (programs / "docker").write_text(DOCKER)
        (programs / "docker").chmod(0o755)
        (folder / "compose").mkdir()
        certificates = folder / "compose/certificates.sh"
        certificates.write_text('#!/bin/sh\nmkdir -p "$1"\n')
        certificates.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("CALLS", str(self._calls))
        monkeypatch.setenv("RUNNING", str(self.running))
        monkeypatch.setenv("BROKER", "rabbitmq")
        monkeypatch.setenv("OWN", "")
        monkeypatch.setenv("LEFT", str(self.left))

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()


async def _whole(target: ComposeTarget) -> dict[str, Any]:
    return {"ready": True, "nodes": []}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(tmp_path, monkeypatch)


async def test_a_cluster_of_others_is_not_touched(engine: Engine, tmp_path: Path) -> None:
    engine.running.write_text("0123456789ab\n")
    target = ComposeTarget(tmp_path, tmp_path)

    with pytest.raises(NotOurs, match="--break-running-cluster"):
        await target.start({"store-1": "send:txn.vote:1:after:kill"})
    await target.stop()

    assert engine.calls == [
        "compose version",
        "compose --file docker-compose.yml ps --quiet rabbitmq",
    ]


async def test_a_running_cluster_decides_which_file_it_is_of(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER", "rabbitmq-1")
    monkeypatch.setenv("OWN", "fedcba")
    monkeypatch.setattr("chaos.cluster.compose.survey", _whole)
    engine.running.write_text("0123456789ab\n")
    (tmp_path / ".env").write_text("SYNOD_TOKEN=secret\n")
    target = ComposeTarget(tmp_path, tmp_path, may_break=True)

    await target.start({})

    assert list(target.brokers) == ["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"]
    assert (target.url, target.other_url) == ("http://127.0.0.1:80", "http://127.0.0.1:80")
    assert engine.calls[-1] == (
        "compose --project-name usual --file docker-compose.ha.yml --file compose/own-users.yml "
        "--file compose/own-users-ha.yml config --services"
    )


async def test_three_brokers_are_those_of_the_file_with_sites(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.cluster.compose.survey", _whole)
    target = ComposeTarget(tmp_path, tmp_path, brokers=3)

    await target.start({"store-1": "send:txn.vote:1:after:kill"})
    await target.stop()

    assert target.sites["site-2"] == ["rabbitmq-2", "store-2", "gateway-2"]
    assert target.url != target.other_url
    published = json.loads((tmp_path / "published.json").read_text())["services"]
    port = target.other_url.rpartition(":")[2]
    assert published == {"gateway-2": {"ports": [f"127.0.0.1:{port}:8080"]}}
    assert (tmp_path / "erlang_cookie").stat().st_mode & 0o777 == 0o600
    project = next(call for call in engine.calls if " build " in call).split()[2]
    files = f"--file docker-compose.ha.yml --file {tmp_path / 'published.json'}"
    [up] = [call for call in engine.calls if " up " in call]
    assert up == (
        f"compose --project-name {project} {files} --file {tmp_path / 'store-1.json'} "
        "up --detach rabbitmq-1 rabbitmq-2 rabbitmq-3 store-1 store-2 gateway-1 gateway-2 proxy"
    )
    assert f"compose --project-name {project} {files} down --volumes --timeout 3" in engine.calls


@pytest.mark.parametrize(
    ("own", "more"), [("", ""), ("fedcba", " --file compose/own-users.yml")], ids=["shared", "own"]
)
async def test_of_a_running_cluster_only_the_broken_nodes_are_recreated(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, more: str
) -> None:
    """And as users of the same kind: as of another one they would hear nothing."""
    monkeypatch.setenv("OWN", own)
    monkeypatch.setattr("chaos.cluster.compose.survey", _whole)
    engine.running.write_text("0123456789ab\n")
    engine.left.write_text("fedcba\n")
    (tmp_path / ".env").write_text("# ours\nSYNOD_TOKEN=secret\nSYNOD_HTTP_PORT=8081\n")
    target = ComposeTarget(tmp_path, tmp_path, may_break=True)

    await target.start({"store-1": "send:txn.vote:1:after:kill"})
    await target.stop()

    assert (target.url, target.token) == ("http://127.0.0.1:8081", "secret")
    extra = json.loads((tmp_path / "store-1.json").read_text())["services"]["store-1"]
    assert extra["command"][2:] == ["--failpoint", "send:txn.vote:1:after:kill", "--arm-on-signal"]
    compose = f"compose --project-name usual --file docker-compose.yml{more}"
    extra_file = f"--file {tmp_path / 'store-1.json'}"
    assert [call for call in engine.calls if " up " in call] == [
        f"{compose} {extra_file} up --detach --no-deps --force-recreate store-1",
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

    project = engine.calls[3].split()[2]
    assert project.startswith("synod-chaos-")
    compose = f"compose --project-name {project} --file docker-compose.yml"
    assert engine.calls[3:5] == [
        f"{compose} config --services",
        f"{compose} down --volumes --timeout 3",
    ]
    assert all(f"label=com.docker.compose.project={project}" in call for call in engine.calls[5:])


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
