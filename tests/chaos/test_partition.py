"""Partitions of real networks, and what is reported where none can be made."""

import os
from pathlib import Path

import pytest

from chaos.scenarios.partition import PARTITION
from chaos.scenarios.runner import local, only, run_scenario
from tests.chaos.networks import need_network_namespaces
from tests.long import only_long


@pytest.mark.rabbitmq
@pytest.mark.slow
@pytest.mark.timeout(600)
@only_long
async def test_a_site_is_cut_off_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    need_network_namespaces()

    report = await run_scenario(only(PARTITION, ["site"]), local, tmp_path, tell=print)

    wrong = [finding for finding in report["findings"] if not finding["holds"]]
    assert (report["verdict"], report["void"], wrong) == ("passed", "", [])
    assert {
        "no gap over 15 s after: site-2 is cut off from the other sites",
        "nothing is acknowledged in the minority",
        "a broker without a majority pauses",
    } <= {finding["name"] for finding in report["findings"]}


async def test_without_root_a_partition_is_void_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    report = await run_scenario(PARTITION, local, tmp_path, tell=said.append)

    assert report["verdict"] == "void"
    assert "needs root: run the command as root" in report["void"]
    assert said == []
