"""What `make up` prints of containers that do not become well, with a program in Docker's place.

`tests/compose/test_three_sites.py` does the same to real ones.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

DOCKER = """#!/bin/bash
# Answers for two containers, `broker` and `node`; the files of $STATE say how they are.
case "$*" in
"compose up --detach --remove-orphans") exit "$(cat "$STATE/up")" ;;
"compose ps --all --quiet") printf '%s\\n' broker node ;;
"inspect --format {{.Id}} "*) cat "$STATE/states" ;;
inspect*config.Labels*|inspect*Config.Labels*) echo "$2-1: running, unhealthy" ;;
inspect*.Health*) echo "$2 does not answer" ;;
inspect*.Mounts*) echo "synod_rabbitmq" ;;
logs*) cat "$STATE/${!#}.log" ;;
*) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


class Engine:
    """The state of the two containers, and the command."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "docker").write_text(DOCKER)
        (folder / "docker").chmod(0o755)
        self.set(up="0", states="broker running healthy\nnode running healthy\n")
        self.log("broker", "Server startup complete\n")
        self.log("node", "")

    def set(self, **state: str) -> None:
        for name, value in state.items():
            (self._folder / name).write_text(value)

    def log(self, container: str, text: str) -> None:
        (self._folder / f"{container}.log").write_text(text)

    def up(self) -> "subprocess.CompletedProcess[str]":
        path = f"{self._folder}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [str(ROOT / "compose/up.sh"), "0", "docker", "compose"],
            env=os.environ | {"PATH": path, "STATE": str(self._folder)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


def test_it_says_nothing_when_all_are_well(engine: Engine) -> None:
    done = engine.up()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_ill_container_is_described_and_a_well_one_is_not(engine: Engine) -> None:
    engine.set(states="broker running healthy\nnode running unhealthy\n")
    engine.log("node", "halted: the disk is another one\n")

    done = engine.up()

    assert done.returncode == 1
    assert done.stderr == (
        "Not well within 0 s:\n"
        "\n"
        "node-1: running, unhealthy\n"
        "  health check: node does not answer\n"
        "  | halted: the disk is another one\n"
        "\n"
        "More of what a container said: docker compose logs SERVICE\n"
    )


def test_a_volume_with_another_password_is_recognised_in_a_long_log(engine: Engine) -> None:
    engine.set(states="broker running healthy\nnode restarting unhealthy\n")
    refusal = "[error] PLAIN login refused: user 'synod' - invalid credentials\n"
    engine.log("broker", refusal + "accepting AMQP connection\n" * 10_000)

    done = engine.up()

    assert done.returncode == 1
    assert "Likely cause: RabbitMQ refuses the password of .env" in done.stderr
    assert "\n  docker compose down\n  docker volume rm synod_rabbitmq\n" in done.stderr


def test_what_could_not_be_started_is_described_at_once(engine: Engine) -> None:
    engine.set(up="1", states="broker running unhealthy\nnode created\n")

    done = engine.up()

    assert done.returncode == 1
    assert done.stderr.startswith("Not started:\n\nbroker-1: running, unhealthy\n")
    assert "\nnode-1: " in done.stderr
