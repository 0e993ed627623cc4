"""The contents of docker-compose.yml and of the files beside it, without an engine."""

import re
import subprocess
from pathlib import Path

from actors.options import Options

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
SERVICES = re.findall(r"^  ([a-z0-9-]+):$", COMPOSE.partition("\nservices:\n")[2], re.MULTILINE)
VOLUMES = re.findall(r"^  ([a-z0-9-]+):$", COMPOSE.partition("\nvolumes:\n")[2], re.MULTILINE)


def test_every_node_has_a_container_and_a_volume_of_its_own() -> None:
    nodes = {*Options().members, "gateway-1"}

    assert nodes | {"rabbitmq", "prometheus", "grafana"} == set(SERVICES) == set(VOLUMES)
    for name in nodes:
        assert COMPOSE.count(f"command: [node, {name}]") == 1
        assert COMPOSE.count(f'["{name}:/data"]') == 1


def test_ports_are_published_on_this_machine_only() -> None:
    published = re.findall(r"ports: (.*)", COMPOSE)

    assert sorted(published) == sorted(
        f'["127.0.0.1:{ports}"]'
        for ports in (
            "${SYNOD_HTTP_PORT:-80}:8080",
            "${RABBITMQ_CONSOLE_PORT:-15672}:15672",
            "9090:9090",
            "3000:3000",
        )
    )


def test_prometheus_asks_every_node() -> None:
    config = (ROOT / "observability/prometheus/prometheus.yml").read_text()
    targets = set(re.findall(r"- ([a-z]+-\d):\d+$", config, re.MULTILINE))

    assert targets == {*Options().members, "gateway-1"}


def test_no_credential_is_in_the_repository() -> None:
    for name in re.findall(r"\$\{(\w*(?:PASSWORD|TOKEN)\w*)[:}]", COMPOSE):
        assert f"{name}=" in (ROOT / "Makefile").read_text()
    assert "guest" not in COMPOSE
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", ".env", ".env.part", ".secrets/token"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ignored.stdout.split() == [".env", ".env.part", ".secrets/token"]


def test_the_image_is_made_from_the_code_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        line.split()[1]
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
    }

    assert "*" in lines
    assert {"actors", "broker", "gateway", "observability", "chaos", "synod"} <= copied
    assert {line[1:] for line in lines if line.startswith("!")} >= copied
