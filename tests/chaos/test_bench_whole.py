"""`synod bench` as a whole: its own cluster over RabbitMQ, and how it ends when it is told to."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.long import only_long

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(300), only_long]

COMMAND = (sys.executable, "-m", "synod", "bench", "--rounds", "2", "--mix", "write=50,read=50")


def _started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A bench whose temporary files, and so whose processes, can be told from all others."""
    return subprocess.Popen(
        [*COMMAND, *words],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _processes_in(folder: Path) -> list[str]:
    """The commands of all processes that work in a folder, or were given one below it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            where = str((process / "cwd").readlink())
        except OSError:
            continue
        if where.startswith(str(folder)) or str(folder) in command:
            found.append(command)
    return found


def test_a_cluster_of_its_own_is_measured_and_ended(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    to = tmp_path / "b.json"
    bench = _started(temporary, "--clients", "1,16", "--seconds", "1", "--json", str(to))
    printed, said = bench.communicate(timeout=250)
    assert bench.returncode == 0, said
    assert "broker: a hop" in printed
    found = json.loads(to.read_text())
    assert found["broker"].startswith("RabbitMQ ")
    assert set(found["limits"]) == {"commit", "hop", "messages"}
    for case in found["cases"]:
        assert set(case["in_limits"]) == {"hops", "commits", "messages"}
        for name, store in case["stores"].items():
            assert len(store["rounds"]) == 2
            for result in store["rounds"]:
                assert result["problems"] == {}, name
                assert result["done"] > 0
                assert sum(result["cpu_ms"].values()) > 0
    roles = found["cases"][0]["stores"]["Synod"]["rounds"][0]["cpu_ms"]
    assert set(roles) == {"proposer", "acceptor", "learner", "store", "gateway", "broker"}
    assert _processes_in(temporary) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["starting Synod", "round 1"])
def test_a_signal_ends_everything(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    # Given a bench that starts its cluster, or measures it,
    bench = _started(tmp_path, "--clients", "8", "--seconds", "60")
    assert bench.stderr is not None
    for line in bench.stderr:
        if line.startswith(moment):
            break
    deadline_s = time.monotonic() + 60
    while not _processes_in(tmp_path) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert _processes_in(tmp_path) != []
    # when it is told to end,
    bench.send_signal(number)
    _, said = bench.communicate(timeout=60)
    # then it says so by its exit code, and nothing of it is left.
    assert bench.returncode == 128 + number, said
    assert f"ended by {number.name}" in said
    assert _processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_what_was_killed_leaves_no_process(tmp_path: Path) -> None:
    bench = _started(tmp_path, "--clients", "8", "--seconds", "60")
    assert bench.stderr is not None
    for line in bench.stderr:
        if line.startswith("round 1"):
            break
    bench.kill()
    bench.communicate(timeout=60)
    deadline_s = time.monotonic() + 30
    while _processes_in(tmp_path) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert _processes_in(tmp_path) == []
