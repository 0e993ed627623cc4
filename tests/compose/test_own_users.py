"""`make up OWN_USERS=1`: each container has the password of its own node, and no other one.

The files are read as compose merges them; of the scripts only Docker is another program, and
`synod broker init` is the real one. `tests/compose/test_own_users_live.py` does it to containers.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker.definitions import SERVICES
from tests.compose.test_files import HA, MEMBERS, ROOT, SINGLE, Service, merged, read, services

OWN, OWN_HA = "compose/own-users.yml", "compose/own-users-ha.yml"
NODES = {SINGLE: {*MEMBERS, "gateway-1"}, HA: {*MEMBERS, "gateway-1", "gateway-2"}}
BROKERS = {SINGLE: ["rabbitmq"], HA: ["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"]}
FOLDER = "${CREDENTIALS_FOLDER:-./.secrets/broker}"
MOUNTED = "/etc/synod/broker.env"


def own_services(file: str) -> dict[str, Service]:
    """The services of `make up OWN_USERS=1`, or with HA=1, too."""
    found = services(file)
    for more in (OWN, OWN_HA) if file == HA else (OWN,):
        for name, own in read(more)["services"].items():
            base = found[name]
            found[name] = {key: merged(base.get(key), own.get(key)) for key in base | own}
    return found


@pytest.mark.parametrize("file", [SINGLE, HA])
def test_each_node_mounts_its_own_credentials_and_nobody_else_any(file: str) -> None:
    for name, service in own_services(file).items():
        # Beside certificates, and Prometheus' copy of the token.
        others = ("${TLS_FOLDER", "../.secrets/token:")
        volumes = [one for one in service.get("volumes", ()) if not one.startswith(others)]
        mounted = [one for one in volumes if ".env" in one or ".secrets" in one]
        assert mounted == ([f"{FOLDER}/{name}.env:{MOUNTED}:ro"] if name in NODES[file] else [])


@pytest.mark.parametrize("file", [SINGLE, HA])
def test_only_rabbitmq_has_the_administrators_password(file: str) -> None:
    for name, service in own_services(file).items():
        is_broker = name in BROKERS[file]
        assert ("RABBITMQ_PASSWORD" in json.dumps(service)) == is_broker, name
        assert ("RABBITMQ_USER" in json.dumps(service)) == is_broker, name
        if name in NODES[file]:
            environment = service["environment"]
            # Without its file a node has no broker, and ends.
            assert environment["SYNOD_BROKER"] == ""
            assert environment["SYNOD_BROKER_CREDENTIALS"] == MOUNTED
            assert service["labels"]["synod.broker-users"] == "own"


@pytest.mark.parametrize("file", [SINGLE, HA])
def test_all_else_is_as_with_one_user(file: str) -> None:
    differ = ("SYNOD_BROKER", "SYNOD_BROKER_CREDENTIALS")
    own, shared = own_services(file), services(file)
    assert set(own) == set(shared)
    for found in (own, shared):
        for service in found.values():
            service["volumes"] = [one for one in service.get("volumes", ()) if MOUNTED not in one]
            labels = {**(service.pop("labels", None) or {})}
            labels.pop("synod.broker-users", None)
            environment = service.get("environment", {})
            service["environment"] = {n: v for n, v in environment.items() if n not in differ}
            service["labels"] = labels

    assert own == shared


# -- the scripts ----------------------------------------------------------------------------------

DOCKER = r"""#!/bin/bash
# Answers for the containers in $STATE/running; each has a file with its command and label.
echo "$*" >>"$STATE/calls"
case "$*" in
*"config --services") cat "$STATE/services" ;;
*" ps --quiet") cat "$STATE/running" ;;
*" ps --quiet "*) echo "${!#}" ;;
inspect*Config.Cmd*) shift 3; for id in "$@"; do cat "$STATE/$id"; done ;;
inspect*Config.Labels*) sed 's/.* //' "$STATE/${!#}" ;;
inspect*Mounts*) echo /host/ca.pem ;;
inspect*.Id*) shift 3; printf '%s running healthy\n' "$@" ;;
*" ps --all --quiet "*) printf '%s\n' rabbitmq ;;
*" broker init "*)
    while [ "$1" != synod:local ]; do
        case $1 in
        --volume) folder=${2%:/credentials} ;;
        --env) export "$2" ;;
        esac
        shift
    done
    shift
    exec "$PYTHON" -m synod "${@//\/credentials/$folder}" ;;
*import_definitions*) cat >"$STATE/imported" ;;
*"printenv RABBITMQ_DEFAULT_USER") echo admin ;;
*"printenv RABBITMQ_DEFAULT_PASS") echo hidden ;;
*" firehose"*) echo "$SYNOD_BROKER" >"$STATE/firehose" ;;
esac
"""


class Engine:
    """The state of the containers, and the commands of `make`."""

    def __init__(self, folder: Path, file: str) -> None:
        self.credentials = folder / "secrets" / "broker"
        self._folder = folder
        (folder / "docker").write_text(DOCKER)
        (folder / "docker").chmod(0o755)
        self._write("services", "\n".join([*BROKERS[file], *sorted(NODES[file]), "grafana", ""]))
        self._write("running", "")

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)

    def run_nodes(self, *names: str, label: str, but: dict[str, str] | None = None) -> None:
        """Let these containers run, with that label; `but` has those of some."""
        self._write("running", "".join(f"{name}\n" for name in (*names, "grafana")))
        self._write("grafana", "grafana-server \n")
        for name in names:
            self._write(name, f"node {name} {(but or {}).get(name, label)}\n")

    def imported(self) -> str:
        """What RabbitMQ has got."""
        return (self._folder / "imported").read_text()

    def said(self, name: str) -> str:
        return (self._folder / name).read_text()

    def calls(self) -> list[str]:
        """The calls of Docker since the last time."""
        file = self._folder / "calls"
        found = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    def __call__(self, script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        path = f"{self._folder}{os.pathsep}{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNOD_")}
        return subprocess.run(
            [f"compose/{script}", *arguments, "docker", "compose"],
            cwd=ROOT,
            env=kept | {"PATH": path, "STATE": str(self._folder), "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )

    def make_users(self) -> str:
        """As `make up OWN_USERS=1` does before it starts the nodes."""
        done = self("own-users.sh", str(self.credentials), "0")
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def engine(tmp_path: Path, request: pytest.FixtureRequest) -> Engine:
    return Engine(tmp_path, getattr(request, "param", SINGLE))


@pytest.mark.parametrize(
    ("engine", "file"), [(SINGLE, SINGLE), (HA, HA)], indirect=["engine"], ids=["single", "ha"]
)
def test_users_are_made_before_nodes_start_and_none_gets_the_administrators(
    engine: Engine, file: str
) -> None:
    """Given nothing, when users are made, then each node has a file, RabbitMQ hashes, and all runs
    in this order; when they are made again, then nothing is another one.
    """
    assert "New RabbitMQ passwords" in engine.make_users()

    files = {path.name: path for path in engine.credentials.iterdir()}
    assert set(files) == {f"{name}.env" for name in (*NODES[file], *SERVICES)}
    assert engine.credentials.stat().st_mode & 0o777 == 0o700
    for name, path in files.items():
        # A container's own user has to read its file; nobody else gets through the folder.
        service = name.removesuffix(".env") in SERVICES
        assert path.stat().st_mode & 0o777 == (0o600 if service else 0o644), name
        assert all(f"@{broker}:5671/" in path.read_text() for broker in BROKERS[file])
    users = {user["name"] for user in json.loads(engine.imported())["users"]}
    assert users == {f"synod.synod.{name}" for name in (*NODES[file], *SERVICES)}
    calls = engine.calls()
    steps = ["broker init", "up --detach --remove-orphans rabbitmq", "import_definitions"]
    found = [index for step in steps for index, call in enumerate(calls) if step in call]
    assert found == sorted(found)
    assert len(found) == len(steps)
    [init] = [call for call in calls if "broker init" in call]
    assert "--network none" in init
    # In the image's own folder this user may not even look for settings.
    assert "--workdir / " in init
    assert not any("close_all_user_connections" in call or " rm " in call for call in calls)

    before = {path: (path.stat().st_ino, path.read_text()) for path in files.values()}
    engine.run_nodes("store-1", "store-2", label="own")
    assert engine.make_users() == ""
    assert {path: (path.stat().st_ino, path.read_text()) for path in files.values()} == before
    assert set(engine.credentials.iterdir()) == set(files.values())
    assert not any("close_all_user" in call or " rm " in call for call in engine.calls())


def test_who_has_no_file_gets_a_new_password_and_starts_again(engine: Engine) -> None:
    engine.make_users()
    former = (engine.credentials / "store-1.env").read_text()
    (engine.credentials / "store-1.env").unlink()
    engine.run_nodes("store-1", "store-2", label="own")
    engine.calls()

    assert engine.make_users() == "New RabbitMQ passwords, in .secrets/broker: store-1\n"

    assert (engine.credentials / "store-1.env").read_text() != former
    ending = [call.partition("rabbitmqctl --quiet ")[2] or call for call in engine.calls()][-2:]
    assert ending == [
        "close_all_user_connections synod.synod.store-1 it has a new password",
        "compose rm --stop --force store-1",
    ]


@pytest.mark.parametrize(
    ("running", "wanted", "advice"),
    [
        ("", "own", "make down && make up OWN_USERS=1"),
        ("own", "shared", "make up OWN_USERS=1"),
        ("own", "own", None),
        ("", "shared", None),
    ],
)
def test_nodes_of_both_kinds_never_run_together(
    engine: Engine, running: str, wanted: str, advice: str | None
) -> None:
    engine.run_nodes("acceptor-1", "store-1", label=running)

    done = engine("users-of-nodes.sh", wanted)

    assert done.returncode == (0 if advice is None else 1), done.stderr
    if advice is not None:
        assert done.stderr.startswith("acceptor-1 runs, and logs on to RabbitMQ as ")
        assert f"\n  {advice}\n" in done.stderr


def test_one_that_differs_from_the_others_is_enough_to_refuse(engine: Engine) -> None:
    engine.run_nodes("acceptor-1", "store-1", label="own", but={"store-1": ""})

    assert "store-1 runs" in engine("users-of-nodes.sh", "own").stderr
    assert "acceptor-1 runs" in engine("users-of-nodes.sh", "shared").stderr


def test_the_trace_takes_the_administrators_password_only_where_nodes_have_none(
    engine: Engine,
) -> None:
    engine.run_nodes("gateway-1", label="")
    assert engine("trace.sh", "--seconds 3 --all").returncode == 0
    assert engine.calls()[-1] == "compose exec -T gateway-1 synod firehose --seconds 3 --all"

    engine.run_nodes("gateway-1", label="own")
    assert engine("trace.sh", "--seconds 3").returncode == 0
    asked = engine.calls()[-1]
    assert asked.startswith("run --rm --init --network container:gateway-1 ")
    assert asked.endswith("--env SYNOD_BROKER_USERS=own synod:local firehose --seconds 3")
    assert "hidden" not in asked
    assert engine.said("firehose") == "amqps://admin:hidden@rabbitmq:5671/\n"
