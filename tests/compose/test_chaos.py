"""`synod chaos` on containers: a verdict, and nothing is left behind, however it ends.

It needs a Docker engine and the images, so it runs only where SYNOD_COMPOSE=1 says that they are
there. It uses free ports, and touches no other compose project.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = "synod-chaos-"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        os.environ.get("SYNOD_COMPOSE") != "1", reason="SYNOD_COMPOSE=1 runs the containers"
    ),
]


def left() -> list[str]:
    """The containers, volumes and networks of all runs of the command."""
    return [
        name
        for command in (
            ["docker", "ps", "--all", "--format", "{{.Names}}"],
            ["docker", "volume", "ls", "--format", "{{.Name}}"],
            ["docker", "network", "ls", "--format", "{{.Name}}"],
        )
        for name in subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.split()
        if name.startswith(PROJECT)
    ]


def start(reports: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "gateway.cli.main", "chaos", *arguments, "--target", "compose"]
    return subprocess.Popen(
        [*command, "--report", str(reports)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(reports.parent)},
        start_new_session=True,
    )


def test_a_store_that_granted_a_write_dies_in_its_container(tmp_path: Path) -> None:
    process = start(tmp_path / "reports", "store-crash", "--case", "granted")

    assert process.wait(900) == 0

    report = json.loads((tmp_path / "reports/store-crash/report.json").read_text())
    assert (report["verdict"], report["target"]) == ("passed", "compose")
    [held] = [one for one in report["findings"] if "journal holds" in one["name"]]
    assert held["holds"]
    assert left() == []


@pytest.mark.parametrize("containers", [1, 17])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, containers: int) -> None:
    process = start(tmp_path / "reports", "acceptor-crash")
    try:
        deadline_s = time.monotonic() + 600
        while len([name for name in left() if name.endswith("_1")]) < containers:
            assert time.monotonic() < deadline_s, "its containers did not start"
            assert process.poll() is None
            time.sleep(0.2)

        process.send_signal(signal.SIGINT)

        assert process.wait(300) == 130
        assert left() == []
        assert [path.name for path in tmp_path.iterdir()] == ["reports"]
    finally:
        process.kill()
        process.wait()
