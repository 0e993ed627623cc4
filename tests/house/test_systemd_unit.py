"""The unit of the documents is one that systemd accepts, and starts a node with its settings."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.test_tidy import ROOT

UNIT = ROOT / "docs" / "systemd" / "synod@.service"
INSTALLED = "/opt/synod/bin/synod"


def values(key: str) -> list[str]:
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    # It must name a program that exists.
    copy.write_text(UNIT.read_text(encoding="utf-8").replace(INSTALLED, sys.executable))

    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_starts_a_node_with_the_settings_of_its_host(tmp_path: Path) -> None:
    """Given the file of settings that the unit names, then the node that it starts reads them."""
    (tmp_path / "synod.toml").write_text('queues = "session"\n', encoding="utf-8")
    environment = dict(pair.split("=") for text in values("Environment") for pair in text.split())
    assert environment["SYNOD_CONFIG"].startswith("/etc/synod/")
    environment["SYNOD_CONFIG"] = str(tmp_path / "synod.toml")
    (command,) = values("ExecStart")
    assert shlex.split(command) == [INSTALLED, "node", "%i"]

    done = subprocess.run(
        [sys.executable, "-m", "synod", "config", "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("SYNOD_")} | environment,
    )

    settings = json.loads(done.stdout)
    assert settings["queues"] == {"value": "session", "source": "file"}
    assert settings["data"] == {"value": f"/{'var'}/lib/synod", "source": "environment"}
