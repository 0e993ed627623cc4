"""The scenarios on real processes: some of them with every check, and Ctrl-C."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from chaos.cluster.processes import session_members
from chaos.scenarios import broker_nodes, site_loss
from chaos.scenarios.catalogue import SCENARIOS
from chaos.scenarios.runner import local, run_scenario
from tests.chaos.cases import together
from tests.long import only_long

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "name",
    [
        "store-crash",
        pytest.param("broker-crash", marks=only_long),
        pytest.param("acceptor-disk-loss", marks=only_long),
        pytest.param("replace-under-load", marks=only_long),
        pytest.param("grow-and-shrink", marks=only_long),
    ],
)
async def test_nothing_is_lost(tmp_path: Path, name: str) -> None:
    report = await run_scenario(SCENARIOS[name], local, tmp_path, tell=print)

    _assert_passed(report)
    left = set(await asyncio.to_thread(os.listdir, tmp_path))
    assert {"report.html", "report.json", "history.jsonl"} <= left


@only_long
async def test_nothing_is_lost_with_a_site_or_a_majority_of_brokers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given three RabbitMQ nodes, then two of them die, and then the site at which all clients are.

    The limits are what a busy machine may make of those of the scenarios.
    """
    monkeypatch.setattr(broker_nodes, "MAJORITY_LIMIT_S", 30.0)
    monkeypatch.setattr(site_loss, "LOSS_GAP_MAX_S", 30.0)
    monkeypatch.setattr(site_loss, "RETURN_GAP_MAX_S", 30.0)
    cases = together(("broker-node-crash", "majority"), ("site-loss", "site-3"))

    report = await run_scenario(cases, local, tmp_path, tell=print)

    _assert_passed(report)
    gaps = {outage["fault"]: outage["seconds"] for outage in report["outages"]}
    assert list(gaps) == [
        "a majority of RabbitMQ nodes came back",
        "site-3 was lost",
        "site-3 came back",
    ]


def _assert_passed(report: dict[str, Any]) -> None:
    wrong = [finding for finding in report["findings"] if not finding["holds"]]
    assert (report["verdict"], report["void"], wrong) == ("passed", "", [])
    assert report["operations"] > 200


@pytest.mark.parametrize(
    ("scenario", "moment", "number"),
    [
        ("acceptor-crash", "starting the cluster", signal.SIGTERM),
        pytest.param("broker-crash", "RabbitMQ is killed", signal.SIGINT, marks=only_long),
        pytest.param("pause", "is paused", signal.SIGINT, marks=only_long),
    ],
)
def test_an_interrupted_run_ends_what_it_started(
    tmp_path: Path, scenario: str, moment: str, number: int
) -> None:
    said = tmp_path / "said"
    command = [sys.executable, "-m", "gateway.cli.main", "chaos", scenario]
    if number == signal.SIGTERM:  # As a shell starts what runs in the background.
        command = ["env", "--ignore-signal=INT", *command]
    with said.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--report", str(tmp_path / "reports")],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline_s = time.monotonic() + 240
        while moment not in said.read_text() or len(_marked(tmp_path)) < 10:
            assert time.monotonic() < deadline_s, said.read_text()
            assert process.poll() is None, said.read_text()
            time.sleep(0.05)

        process.send_signal(number)

        assert process.wait(120) == 130, said.read_text()
        assert "every process and container of the run has been ended" in said.read_text()
        assert _marked(tmp_path) == []
        assert session_members(process.pid) == []
        assert sorted(path.name for path in tmp_path.iterdir()) == ["reports", "said"]
    finally:
        process.kill()
        process.wait()


def _marked(folder: Path) -> list[int]:
    """The processes whose environment names a folder of the run: the nodes and the broker."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            about = (path / "environ").read_bytes()
        except OSError:
            continue
        if str(folder / "synod-chaos-").encode() in about and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found
