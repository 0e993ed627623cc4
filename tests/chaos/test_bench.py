"""`synod bench`: what its figures mean, as pure functions and on stores that stall on purpose."""

import asyncio
import io
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from chaos.bench import runner
from chaos.bench.cases import CLIENTS_MAX, LoadCase, Mix, parse_size, size_name
from chaos.bench.loops import Contents, arrival_ns, run_load
from chaos.bench.plot import draw, ticks_of
from chaos.bench.probes import ProbeResult, commit_times
from chaos.bench.recording import (
    DONE,
    LoadResult,
    OperationEnd,
    Recording,
    Spread,
    percentiles_ms,
    ratios,
    spreads,
)
from chaos.bench.report import as_json, ratios_table, remarks, results_table
from chaos.bench.runner import BenchOutcome, BenchPlan, keys_of
from chaos.bench.synod_stores import MemorySynod
from gateway.cli.main import run
from synod.client import Client
from tests.chaos import virtual_time

MS = 1_000_000
READ, WRITE = Mix(1, 0), Mix(0, 1)

# -- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mix"),
    [
        ("read", Mix(100, 0)),
        ("write", Mix(0, 100)),
        ("read=80,write=20", Mix(80, 20)),
        ("write=1, read=3", Mix(3, 1)),
    ],
)
def test_a_mix_is_read(text: str, mix: Mix) -> None:
    assert Mix.parse(text) == mix
    assert Mix.parse(f"{mix}") == mix


@pytest.mark.parametrize(
    "text", ["", "reads", "read,write", "read=1,read=2", "read=0", "read=-1", "read=80;write=20"]
)
def test_what_is_no_mix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"mix|weight|operations"):
        Mix.parse(text)


@pytest.mark.parametrize(
    ("text", "size_bytes", "name"),
    [
        ("100", 100, "100 B"),
        ("1KiB", 1024, "1 KiB"),
        ("1kb", 1000, "1 kB"),
        ("100MB", 100_000_000, "100 MB"),
        ("1 MiB", 2**20, "1 MiB"),
    ],
)
def test_a_size_is_read(text: str, size_bytes: int, name: str) -> None:
    assert parse_size(text) == size_bytes
    assert size_name(size_bytes) == name
    assert parse_size(name) == size_bytes


@pytest.mark.parametrize(
    ("size_bytes", "clients", "rate", "says"),
    [
        (99, 1, None, "100 B"),
        (2**30, 1, None, "100 MiB"),
        (1024, 0, None, "0 clients"),
        (1024, CLIENTS_MAX + 1, None, "1025 clients"),
        (100_000_000, 64, None, "6.0 GiB"),
        (1024, 1, 0.0, "0 requests a second"),
    ],
)
def test_an_impossible_case_is_refused(
    size_bytes: int, clients: int, rate: float | None, says: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        LoadCase(READ, size_bytes, clients, rate)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--clients", "1,x"], "--clients"),
        (["--clients", "2000"], "2000 clients"),
        (["--size", "1GB"], "is no size"),
        (["--mix", "deletes"], "is no mix"),
        (["--beside", "consul"], "'consul' is none of"),
        (["--data", "nowhere"], "is no folder"),
        (["--json"], "requires an argument"),
        (
            ["--url", "http://127.0.0.1:1", "--broker", "memory://"],
            "is no broker that can be measured",
        ),
    ],
)
def test_wrong_use_is_told_before_anything_starts(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_unavailable(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "--url", "http://127.0.0.1:1", "--seconds", "0.1"]) == 6
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_no_two_contents_share_a_part() -> None:
    contents = Contents(200_000, seed=1)
    one, other = contents.new(), contents.new()
    parts = [data[at : at + 65_536] for data in (one, other) for at in range(0, 200_000, 65_536)]
    assert len(one) == 200_000
    assert len(set(parts)) == len(parts)
    assert Contents(200_000, seed=2).new()[:65_536] not in parts


def test_keys_take_a_little_space_and_are_never_few() -> None:
    assert len(keys_of(1024)) == 1000
    assert len(keys_of(2**20)) == 64
    assert len(keys_of(100_000_000)) == 2


# -- what is recorded -----------------------------------------------------------------------------


def test_percentiles_are_the_smallest_value_that_so_many_do_not_exceed() -> None:
    times = [number * MS for number in range(1, 1001)]
    assert percentiles_ms(times) == {"p50": 500.0, "p99": 990.0, "p99.9": 999.0, "max": 1000.0}
    assert percentiles_ms([7 * MS]) == {"p50": 7.0, "p99": 7.0, "p99.9": 7.0, "max": 7.0}
    assert percentiles_ms([]) == {}


def test_a_recording_counts_what_ends_in_time_and_times_what_begins_in_it() -> None:
    recording = Recording(from_ns=1000 * MS, until_ns=2000 * MS, clients=1)
    recording.add("read", 900 * MS, 1100 * MS, DONE)  # Begun while it warmed up.
    recording.add("read", 1200 * MS, 1210 * MS, DONE)
    recording.add("write", 1500 * MS, 1600 * MS, DONE)
    recording.add("write", 1900 * MS, 2500 * MS, DONE)  # Ended too late to count.
    recording.add("write", 1300 * MS, 1302 * MS, OperationEnd("refused", "503 crowded", True))
    recording.add("write", 1300 * MS, 1308 * MS, OperationEnd("refused", "503 crowded", False))
    recording.add("read", 1300 * MS, 1301 * MS, OperationEnd("failed", "504"))
    recording.add_unsent(1200 * MS)
    recording.add_unsent(500 * MS)
    assert recording.result(0.25) == LoadResult(
        seconds=1.0,
        done=3,
        rate=3.0,
        latency_ms={"p50": 100.0, "p99": 800.0, "p99.9": 800.0, "max": 800.0},
        by_verb={
            "read": {"p50": 10.0, "p99": 10.0, "p99.9": 10.0, "max": 10.0},
            "write": {"p50": 100.0, "p99": 600.0, "p99.9": 600.0, "max": 600.0},
        },
        refused=2,
        refused_without_retry_after=1,
        refused_ms={"p50": 2.0, "p99": 8.0, "p99.9": 8.0, "max": 8.0},
        failed=1,
        unsent=1,
        problems={"503 crowded": 2, "504": 1},
        load_cores=0.25,
        operations=4,
    )


def test_operations_that_are_longer_than_the_time_are_counted_to_their_end() -> None:
    recording = Recording(from_ns=0, until_ns=1000 * MS, clients=2)
    recording.add("read", 0, 1500 * MS, DONE)
    recording.add("read", 0, 2000 * MS, DONE)
    result = recording.result()
    assert (result.done, result.seconds, result.rate) == (2, 2.0, 1.0)


def _result(rate: float, p50: float) -> LoadResult:
    latency = {"p50": p50, "p99": 2 * p50, "p99.9": 3 * p50, "max": 4 * p50}
    return LoadResult(1.0, int(rate), rate, latency, {}, operations=int(rate))


def test_rounds_give_their_median_and_ratios_of_neighbours() -> None:
    # Given a machine that became ten times slower in the third round, for both,
    ours = [_result(100, 10), _result(120, 9), _result(10, 100)]
    theirs = [_result(200, 5), _result(200, 4.5), _result(20, 50)]
    assert spreads(ours)["rate"] == Spread(100, 10, 120)
    # then the ratio does not know of it.
    assert ratios(ours, theirs)["rate"] == Spread(0.5, 0.5, 0.6)
    assert ratios(ours, theirs)["p50"] == Spread(2.0, 2.0, 2.0)
    assert ratios(ours, [_result(0, 0)] * 3) == {}


# -- the loops ------------------------------------------------------------------------------------


@dataclass
class StallingStore:
    """One session that answers within 1 ms, but for one request, which takes `stall_s`."""

    stall_s: float
    stalls_at: int
    asked: int = 0
    keys: set[str] = field(default_factory=set)
    sizes: set[int] = field(default_factory=set)

    async def read(self, key: str) -> OperationEnd:
        self.keys.add(key)
        self.asked += 1
        await asyncio.sleep(self.stall_s if self.asked == self.stalls_at else 0.001)
        return DONE

    async def write(self, key: str, content: bytes) -> OperationEnd:
        self.sizes.add(len(content))
        return await self.read(key)

    def close(self) -> None:
        pass


def test_arrivals_are_at_even_distances() -> None:
    dues = [arrival_ns(number, 250.0, 5 * MS) for number in range(4)]
    assert dues == [5 * MS, 9 * MS, 13 * MS, 17 * MS]
    # After an hour there is no drift by rounding.
    assert arrival_ns(3 * 3600, 3.0, 0) == 3600 * 10**9


def test_an_open_loop_counts_the_wait_behind_a_slow_request() -> None:
    # Given one connection, 200 requests a second, and one request that takes 0.3 s,
    store = StallingStore(stall_s=0.3, stalls_at=10)
    case = LoadCase(Mix(1, 1), 1000, clients=1, rate=200.0)
    result = virtual_time.run(run_load([store], case, ["k"], 0.6, warm_up_s=0))
    # then about sixty others were due meanwhile, and all of their waits are in the figures.
    assert result.operations == store.asked
    assert result.operations + result.unsent == 120
    assert result.latency_ms["max"] >= 299
    assert result.latency_ms["p50"] > 20
    assert store.sizes == {1000}
    assert set(result.by_verb) == {"read", "write"}


def test_a_closed_loop_does_not_know_of_it() -> None:
    store = StallingStore(stall_s=0.3, stalls_at=10)
    case = LoadCase(READ, 1000, clients=1)
    result = virtual_time.run(run_load([store], case, ["k"], 0.6, warm_up_s=0))
    assert result.latency_ms["max"] >= 299
    assert result.latency_ms["p50"] < 15


def test_an_open_loop_reports_what_it_could_never_send() -> None:
    # Given a store that stops answering for longer than the load,
    store = StallingStore(stall_s=0.5, stalls_at=11)
    case = LoadCase(READ, 1000, clients=1, rate=100.0)
    result = virtual_time.run(run_load([store], case, ["k"], 0.4, warm_up_s=0))
    # then the requests that were due after it were not sent.
    assert (result.operations, result.unsent) == (11, 29)
    assert result.latency_ms["max"] >= 499


# -- the report -----------------------------------------------------------------------------------


@pytest.fixture
def outcome() -> BenchOutcome:
    cases = [LoadCase(mix, 1024, clients) for mix in (WRITE, READ) for clients in (1, 64)]
    cases.append(LoadCase(WRITE, 1024, 64, rate=500.0))
    plan = BenchPlan(cases, rounds=2)
    made = BenchOutcome(plan, {"Synod": "about Synod", "etcd": "about etcd <3"})
    made.left_out["nats"] = "not installed"
    made.busy_between_cores = [0.1, 0.2]
    for case in cases:
        rate = 100.0 * case.clients
        made.results[case, "Synod"] = [_result(rate, 10), _result(2 * rate, 8)]
        made.results[case, "etcd"] = [_result(4 * rate, 2), _result(4 * rate, 2)]
    made.results[cases[-1], "Synod"][0].refused = 7
    made.results[cases[-1], "Synod"][0].problems = {"503 unavailable": 7}
    made.probes["hop"] = [ProbeResult(4000.0, {"p50": 0.25, "p99": 0.5, "p99.9": 1.0, "max": 2.0})]
    made.probes["commit"] = [ProbeResult(1000.0, {"p50": 1.0, "p99": 2, "p99.9": 3, "max": 4})]
    made.probes["messages"] = [ProbeResult(50_000.0)]
    return made


def test_json_has_figures_spreads_and_ratios(outcome: BenchOutcome) -> None:
    found = json.loads(json.dumps(as_json(outcome)))
    assert found["format"] == 1
    first, *_, last = found["cases"]
    assert (first["mix"], first["bytes"], first["clients"], first["loop"]) == (
        *("write", 1024, 1, "closed"),
    )
    assert first["stores"]["Synod"]["spread"]["rate"] == {
        "median": 150.0,
        "least": 100.0,
        "greatest": 200.0,
    }
    assert "ratio" not in first["stores"]["Synod"]
    assert first["stores"]["etcd"]["ratio"]["rate"]["median"] == 0.375
    assert first["stores"]["etcd"]["ratio"]["p50"]["median"] == 4.5
    assert len(first["stores"]["etcd"]["rounds"]) == 2
    assert first["in_limits"] == {"hops": 36.0, "commits": 9.0, "messages": 333.33}
    assert (last["loop"], last["offered_rate"]) == ("open", 500.0)
    assert last["stores"]["Synod"]["rounds"][0]["problems"] == {"503 unavailable": 7}
    assert set(found["limits"]) == {"hop", "commit", "messages"}
    assert found["machine"]["cores"] >= 1


def test_the_tables_have_a_row_for_each_store(outcome: BenchOutcome) -> None:
    console = Console(width=200, file=io.StringIO(), record=True)
    for table in (results_table(outcome), ratios_table(outcome)):
        console.print(table)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["write", "1", "KiB", "1", "Synod", "150", "100–200", "9.00", "18.0", "27.0"] in lines
    assert ["etcd", "400", "400–400", "2.00", "4.00", "6.00"] in lines
    assert [
        *("write", "1", "KiB", "1", "etcd", "0.38", "0.25–0.50", "4.50", "4.50", "4.50"),
    ] in lines
    text = "\n".join(remarks(outcome))
    assert "Synod, write 1 KiB at 500/s, 64 clients: 7 refused, 503 unavailable" in text
    assert "write 1 KiB, one client: the median takes as long as 36.0 hops, 9.00 commits" in text
    assert "Not measured: nats: not installed" in text


def test_a_run_in_which_nothing_was_done_is_a_failure(outcome: BenchOutcome) -> None:
    assert outcome.fault == ""
    case = outcome.plan.cases[0]
    dead = LoadResult(1.0, 0, 0.0, {}, {}, failed=3, problems={"404": 3})
    outcome.results[case, "Synod"] = [dead, dead]
    assert outcome.fault == "Synod: no operation was done (write 1 KiB, 1 clients): 404"


def test_the_plot_is_svg_for_dark_and_light(outcome: BenchOutcome) -> None:
    picture = draw(outcome)
    root = ElementTree.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    # Two mixes with two panels each; the open loop has none. A rate is one line for each store, a
    # latency two.
    assert len(root.findall(f"{space}g")) == 4
    assert len(root.findall(f".//{space}polyline")) == 2 * (2 + 4)
    assert "prefers-color-scheme:dark" in picture


@pytest.mark.parametrize(
    ("least", "greatest", "ticks"),
    [
        (3, 40, [2, 5, 10, 20, 50]),
        (1, 1, [1, 2, 5, 10]),
        (0.2, 3000, [0.1, 1, 10, 100, 1000, 10_000]),
    ],
)
def test_an_axis_encloses_its_values(least: float, greatest: float, ticks: list[float]) -> None:
    assert ticks_of(least, greatest) == pytest.approx(ticks)


# -- the whole, once ------------------------------------------------------------------------------


def test_the_disk_is_really_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fdatasync

    def sync(number: int) -> None:
        synced.append(number)
        real(number)

    monkeypatch.setattr("os.fdatasync", sync)
    result = commit_times(tmp_path, 0.05)
    assert len(synced) >= 1
    assert result.rate > 0
    assert list(tmp_path.iterdir()) == []


def test_a_running_cluster_is_loaded_and_left_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "KEYS_MAX", 20)
    # Given a cluster that runs and holds a file,
    with MemorySynod(tmp_path) as cluster, Client(cluster.url) as synod:
        synod.put("mine", b"kept")
        # when it is loaded,
        code = run(
            [
                *("bench", "--url", cluster.url, "--data", str(tmp_path), "--rounds", "1"),
                *("--seconds", "0.3", "--clients", "4", "--mix", "read=50,write=50"),
                *("--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.svg")),
            ]
        )
        printed = capsys.readouterr()
        assert code == 0, printed.err
        # then its figures are there, and nothing else is.
        assert [entry.path for entry in synod.list("")] == ["mine"]
    found = json.loads((tmp_path / "b.json").read_text())
    [case] = found["cases"]
    assert set(case["stores"]) == {"Synod", "Starlette"}
    for store in case["stores"].values():
        [result] = store["rounds"]
        assert result["done"] > 0
        assert (result["failed"], result["refused"], result["problems"]) == (0, 0, {})
        assert set(result["by_verb"]) == {"read", "write"}
    assert found["limits"]["commit"]["median"]["rate"] > 0
    assert found["left_out"]["hop"] == "not known; see --broker"
    assert "Starlette" in printed.out
    assert (tmp_path / "b.svg").read_text().startswith("<svg")
