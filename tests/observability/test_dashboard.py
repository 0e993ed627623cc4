"""Every query of every panel gives figures that move, on a real cluster with a real failure."""

import asyncio
import json
import math
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard as Schema

from chaos.cluster.local import Description, LocalCluster
from chaos.load.writers import Load
from observability.dashboard.__main__ import DASHBOARDS, FOLDER
from observability.dashboard.grafana import GRID_COLUMNS, json_of
from observability.dashboard.panels import Dashboard
from observability.dashboard.synod import SYNOD
from tests.observability.prometheus import Prometheus, program

ROOT = Path(__file__).parents[2]
FILES = ROOT / "observability"


def _file(dashboard: Dashboard) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{dashboard.uid}.json").read_text())
    return found


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.uid)
def test_the_file_is_what_the_code_makes(dashboard: Dashboard) -> None:
    assert (FOLDER / f"{dashboard.uid}.json").read_text() == json_of(dashboard)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.uid)
def test_grafanas_schema_knows_all_of_the_file(dashboard: Dashboard) -> None:
    found = _file(dashboard)
    # Grafana's Prometheus data source reads these; the schema of all annotations has none of them.
    for mark in found["annotations"]["list"]:
        for name in ("titleFormat", "textFormat", "step"):
            assert mark.pop(name)

    read = Schema.from_json(found)

    assert json.loads(json.dumps(read, cls=JSONEncoder)) == found


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.uid)
def test_every_panel_has_a_place_of_its_own(dashboard: Dashboard) -> None:
    panels = _file(dashboard)["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < GRID_COLUMNS
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_question_has_a_row() -> None:
    rows = [panel["title"] for panel in _file(SYNOD)["panels"] if panel["type"] == "row"]
    assert rows == [
        "Is it healthy?",
        "Is it fast?",
        "Who leads?",
        "What is stuck?",
        "What failed when?",
    ]


def test_every_metric_of_a_query_or_rule_is_one_that_there_is() -> None:
    known = set(re.findall(r"`(paxos_\w+)`", (ROOT / "docs/metrics.md").read_text()))
    used = "\n".join(expression for _, expression in SYNOD.queries())
    used += (FILES / "prometheus/rules.yml").read_text()
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"paxos_\w+", used)}

    assert names - known == set()


def test_no_query_is_padded() -> None:
    for title, expression in SYNOD.queries():
        assert not re.search(r"\b(vector|absent|label_replace)\b|\bor\b", expression), title


def test_the_alerts_fire_when_they_should() -> None:
    done = subprocess.run(
        [program("promtool"), "test", "rules", "rules_test.yml"],
        cwd=FILES / "prometheus",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rules = (FILES / "prometheus/rules.yml").read_text()
    tests = (FILES / "prometheus/rules_test.yml").read_text()
    for alert in re.findall(r"- alert: (\w+)", rules):
        assert f"name: {alert}\n" in tests, f"{alert} is not tested"
        assert f"name: {alert}, in health\n" in tests, f"the silence of {alert} is not tested"


@pytest.mark.slow
@pytest.mark.rabbitmq
@pytest.mark.timeout(240)
def test_every_query_moves_when_a_machine_fails(tmp_path: Path) -> None:
    # One machine of a smaller cluster is lost with all it runs: leader, coordinator and a store.
    counts = {"proposers": 2, "acceptors": 3, "learners": 2, "stores": 3}
    description = Description.mint(counts=counts, metrics=True)
    targets = {**description.metrics, **description.ports}
    with (
        LocalCluster(tmp_path / "cluster", description) as cluster,
        Prometheus(tmp_path / "prometheus", targets) as prometheus,
    ):
        began_s = time.time()
        asyncio.run(_live_through(cluster, prometheus))
        dead = _dead(prometheus, began_s, time.time())

    assert not dead, "\n".join(f"{title}: {why}: {query}" for (title, query), why in dead.items())


async def _live_through(cluster: LocalCluster, prometheus: Prometheus) -> None:
    """Write and read while a machine fails and returns; end once Prometheus has scraped all."""
    leader, coordinator = cluster.leader(), cluster.coordinator()
    assert leader is not None
    assert coordinator is not None
    lost = (leader, coordinator, "store-3")

    async def seen(condition: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        await asyncio.to_thread(_seen, prometheus, condition, meanwhile)

    async with Load(cluster.url, clients=2, size_bytes=64 * 1024, paths=10_000) as load:
        await load.acknowledged_since(time.monotonic_ns())
        path = load.attempts[0].path
        await seen('count(up{job="synod"} == 1) == 11')
        await seen("sum(rate(paxos_gateway_requests_total[5s])) > 0")
        for name in lost:
            await asyncio.to_thread(cluster.kill, name)
        killed_ns = time.monotonic_ns()
        await seen('count(up{job="synod"} == 0) == 3')
        # The remaining nodes take over and continue without the store.
        await load.acknowledged_since(killed_ns, timeout_s=90)
        await seen("max(paxos_learner_view_stores) == 2")
        # An election is over between two samples: without a quorum it takes as long as it has to.
        voters = ("acceptor-1", "acceptor-2")
        for name in voters:
            await asyncio.to_thread(cluster.kill, name)
        await seen("max_over_time(sum(paxos_proposer_leader)[6s:1s]) == 0")
        for name in (*lost, *voters):
            cluster.start_node(name)
        # More clients at once put more commands into a slot.
        async with Load(cluster.url, clients=24):
            await asyncio.to_thread(cluster.wait_whole)
            await seen("sum(paxos_proposer_leader) == 1 and sum(up) == 11")
            await seen("max(paxos_learner_view_stores) == 3")
            # A store holds a lease only while somebody reads, and one sample may lie between the
            # steps of the query below.
            await seen(
                "sum(sum_over_time(paxos_store_read_lease[10s])) >= 5",
                lambda: cluster.ask(f"/v1/files/{path}"),
            )


def _seen(prometheus: Prometheus, condition: str, meanwhile: Callable[[], object]) -> None:
    """Wait until Prometheus has seen it."""
    deadline = time.monotonic() + 90
    while not prometheus.ask("query", query=condition):
        assert time.monotonic() < deadline, f"never: {condition}"
        meanwhile()
        time.sleep(0.25)


def _dead(prometheus: Prometheus, began_s: float, ended_s: float) -> dict[tuple[str, str], str]:
    """The queries without changing figures, and the problem of each."""
    found = {}
    for title, expression in SYNOD.queries():
        asked = expression.replace("$__rate_interval", "5s")
        series = prometheus.ask(
            "query_range", query=asked, start=f"{began_s}", end=f"{ended_s}", step="1"
        )
        values = [
            [number for _, text in each["values"] if not math.isnan(number := float(text))]
            for each in series
        ]
        if not any(values):
            found[title, expression] = "no data"
        elif all(len(set(each)) < 2 for each in values) and not _is_mark(title):
            found[title, expression] = f"constant: {json.dumps(values)[:120]}"
    return found


def _is_mark(title: str) -> bool:
    """An annotation marks moments; that there are some is all it can say."""
    return any(mark.name == title for mark in SYNOD.annotations)
