"""The verdicts on runs that were made by hand, and their reports."""

import sqlite3
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from actors.effects import Record
from broker.journal import Journal
from chaos.cluster.rabbitmq import BrokerFailedError
from chaos.cluster.target import last_strike
from chaos.load import clients
from chaos.load.clients import Asked, Fleet
from chaos.scenarios import broker_nodes, coordinator_crash, judgement, report_page, scenario
from chaos.scenarios.autopsy import Held, journal_holds, look_at_slot
from chaos.scenarios.catalogue import SCENARIOS
from chaos.scenarios.coordinator_crash import POINTS
from chaos.scenarios.report import picture, summarize
from chaos.scenarios.runner import only
from chaos.scenarios.scenario import Case, Run, Scenario
from gateway.cli.main import run as run_cli


class StillTarget:
    """A cluster without faults."""

    kind = "local"
    url = other_url = "http://127.0.0.1:1"
    token = ""
    nodes = ("store-1", "store-2")
    brokers: tuple[str, ...] = ("rabbitmq",)


async def _nothing(run: Run) -> None:
    """A case without a fault."""


@pytest.fixture
def run() -> Run:
    made_up = Scenario("made-up", "a story", (Case("one", "nothing", _nothing),))
    return Run(made_up, StillTarget(), 7, lambda text: None)  # type: ignore[arg-type]


_numbers: Iterator[int] = count(1)


def _told(run: Run, f: str, effects: dict[str, str | None], fate: Any, slot: int = 0) -> Asked:
    """One operation as the fleet would have kept it."""
    number = next(_numbers)
    asked = Asked(number, f, effects, number * 10**6, number * 10**6 + 10**6)
    asked.fate, asked.slot, asked.request = fate, slot, f"gateway-1.s-{number}"
    run.fleet.asked.append(asked)
    return asked


def _finding(run: Run) -> tuple[bool, str]:
    [finding] = run.findings
    return finding.holds, finding.evidence


async def test_the_last_acknowledged_write_of_each_path_is_there(run: Run) -> None:
    _told(run, "write", {"a": "v1"}, "done", 1)
    _told(run, "write", {"a": "v2"}, "done", 2)
    _told(run, "txn", {"a": None, "b": "v2"}, "done", 3)
    run.final = {"a": None, "b": "v2", "c": None}

    await judgement._judge_acknowledged(run)

    assert _finding(run) == (True, "3 acknowledged writes on 2 paths")


async def test_an_acknowledged_write_that_is_lost_is_found(run: Run) -> None:
    _told(run, "write", {"a": "v1"}, "done", 1)
    _told(run, "write", {"a": "v2"}, "done", 2)
    run.final = {"a": "v1"}

    await judgement._judge_acknowledged(run)

    assert _finding(run) == (False, "/a holds 'v1', but slot 2 wrote 'v2'")


async def test_a_write_of_unknown_fate_may_be_there_or_not(run: Run) -> None:
    _told(run, "write", {"a": "v1"}, "done", 1)
    _told(run, "write", {"a": "v2"}, "unknown")
    run.final = {"a": "v2"}

    await judgement._judge_acknowledged(run)

    assert _finding(run)[0]


async def test_a_write_that_turned_out_done_counts_as_done(run: Run) -> None:
    _told(run, "write", {"a": "v1"}, "done", 1)
    late = _told(run, "write", {"a": "v2"}, "unknown")
    late.resolved, late.slot, late.index = "done", 4, 0
    run.final = {"a": "v1"}

    await judgement._judge_acknowledged(run)

    assert _finding(run) == (False, "/a holds 'v1', but slot 4 wrote 'v2'")


def test_an_aborted_write_that_was_read_is_found(run: Run) -> None:
    asked = _told(run, "write", {"a": "v1"}, "aborted", 3)
    asked.resolved = "aborted"
    client = run.recorder.client()
    client.invoke("read", "/a")
    client.ok("v1")

    judgement._judge_aborted(run)

    assert _finding(run) == (False, "v1 was read")


def test_an_abort_that_is_taken_back_is_found(run: Run) -> None:
    asked = _told(run, "write", {"a": "v1"}, "aborted", 3)
    asked.resolved = "done"

    judgement._judge_aborted(run)

    assert _finding(run) == (False, f"{asked.request} was reported aborted, and now is done")


def test_a_history_that_has_no_order_is_found(run: Run) -> None:
    client = run.recorder.client()
    for f, value, value_read in (
        ("write", "v1", None),
        ("write", "v2", None),
        ("read", None, "v1"),
    ):
        client.invoke(f, "/a", value)  # type: ignore[arg-type]
        client.ok(value_read)

    result, window = judgement._judge_history(run)

    assert result.verdict == "not linearizable"
    assert window is not None
    holds, evidence = _finding(run)
    assert (holds, "2 operations on /a have no order" in evidence) == (False, True)


def test_undecided_is_a_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    client = run.recorder.client()
    client.invoke("write", "/a", "v1")
    client.ok()
    monkeypatch.setattr(judgement, "CHECK_TIME_LIMIT_S", -1.0)

    judgement._judge_history(run)

    assert not _finding(run)[0]


@pytest.mark.parametrize("different", ["hash", "slot", "missing", "doubt"])
async def test_stores_that_are_not_equal_are_found(
    run: Run, monkeypatch: pytest.MonkeyPatch, different: str
) -> None:
    stores: list[dict[str, Any]] = [
        {
            "name": f"store-{number}",
            "role": "store",
            "seen": True,
            "state_hash": "aa",
            "applied": 9,
            "in_doubt": 0,
            "pending": 0,
        }
        for number in (1, 2)
    ]
    change = {"hash": ("state_hash", "bb"), "slot": ("applied", 8), "doubt": ("in_doubt", 1)}
    if different == "missing":
        stores.pop()
    else:
        key, value = change[different]
        stores[1][key] = value

    async def ask() -> dict[str, Any]:
        return {"nodes": stores}

    monkeypatch.setattr(run, "ask", ask)
    monkeypatch.setattr(judgement, "CALM_PATIENCE_S", 0.1)

    await judgement._judge_stores(run)

    wrong = [finding.name for finding in run.findings if not finding.holds]
    assert wrong == ["nothing is in doubt" if different == "doubt" else "all stores are equal"]


# -- gaps, and pauses of all brokers -------------------------------------------------------------

SECOND_NS = 10**9


def _written(run: Run, at_s: float, fate: Any = "done", f: str = "write") -> None:
    """An operation that begins at a second of the run, and ends a tenth later."""
    asked = _told(run, f, {} if f == "read" else {"a": f"v{at_s}"}, fate)
    asked.begun_ns = run.began_ns + int(at_s * SECOND_NS)
    asked.ended_ns = asked.begun_ns + SECOND_NS // 10


async def _judge_gap(run: Run, limit_s: float) -> tuple[bool, str]:
    """Judge a run that is nine seconds old, after a fault in its first: a write is served soon, a
    gap follows in which there are a refusal and a read, and another write is on its way.
    """
    run.began_ns -= 9 * SECOND_NS
    for at_s in (0.5, 1.5, 5.4, 6.0, 7.0, 8.0, 9.0, 12.0):
        _written(run, at_s)
    _written(run, 3.0, "unavailable")
    _written(run, 4.0, f="read")

    await run.gap("a fault", run.began_ns + SECOND_NS, limit_s)

    return _finding(run)


async def test_the_longest_gap_between_acknowledged_writes_counts(run: Run) -> None:
    assert await _judge_gap(run, 4.0) == (True, "the longest was 3.90 s")
    assert [outage.seconds for outage in run.outages] == [3.9]


async def test_a_gap_over_the_limit_is_found(run: Run) -> None:
    assert await _judge_gap(run, 3.0) == (False, "the longest was 3.90 s")


async def test_writes_that_stay_away_are_a_gap_without_end(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenario, "RESUME_PATIENCE_S", 0.05)
    _written(run, -1.0)

    await run.gap("a fault", run.began_ns, 60.0)

    assert _finding(run) == (False, "not back within 0.05 s")


@pytest.mark.parametrize(
    ("begun_s", "fate", "verdict"),
    [
        (1.0, "done", (False, "0 of 0 writes that began during the pause were acknowledged")),
        (3.0, "unavailable", (True, "0 of 1 writes that began during the pause were acknowledged")),
        (3.0, "done", (False, "1 of 1 writes that began during the pause were acknowledged")),
    ],
)
def test_what_is_acknowledged_while_no_broker_serves_is_found(
    run: Run, begun_s: float, fate: str, verdict: tuple[bool, str]
) -> None:
    _written(run, begun_s, fate)

    broker_nodes.judge_paused(run, run.began_ns + 2 * SECOND_NS)

    assert _finding(run) == verdict


class TargetWithAPartedBroker(StillTarget):
    """A RabbitMQ node stays parted from the others until it is started anew."""

    brokers = broker_nodes.BROKERS

    def __init__(self, parted: str) -> None:
        self.parted = parted
        self.calls: list[str] = []

    async def wait_brokers(self) -> None:
        if self.parted:
            raise BrokerFailedError("one does not know all others")

    async def kill_broker(self, broker: str) -> None:
        self.calls.append(f"kill {broker}")

    async def start_broker(self, broker: str) -> None:
        self.calls.append(f"start {broker}")
        if broker == self.parted:
            self.parted = ""


async def test_a_broker_that_stays_parted_is_started_anew(run: Run) -> None:
    target = TargetWithAPartedBroker("rabbitmq-2")
    run.target = target  # type: ignore[assignment]

    await broker_nodes.brokers_whole(run, "rabbitmq-2")

    assert target.calls == ["kill rabbitmq-2", "start rabbitmq-2"]
    assert "does not heal by itself: one does not know" in run.moments[0].text


async def test_brokers_that_no_restart_brings_together_end_the_run(run: Run) -> None:
    run.target = TargetWithAPartedBroker("rabbitmq-1")  # type: ignore[assignment]

    with pytest.raises(BrokerFailedError):
        await broker_nodes.brokers_whole(run, "rabbitmq-2")


# -- journals of dead and running nodes ----------------------------------------------------------


def test_the_journal_of_a_dead_store_is_read(tmp_path: Path) -> None:
    with Journal.open(tmp_path, "store-1", "test") as journal:
        journal.commit([Record(f"prepared/{7:016x}", b"{}")], [])
        journal.commit([Record("state", b'{"applied": 4}')], [])

    assert [slot for slot in range(1, 10) if journal_holds(tmp_path, slot)] == [1, 2, 3, 4, 7]
    with pytest.raises(sqlite3.OperationalError):
        journal_holds(tmp_path / "elsewhere", 1)


def test_the_journal_of_a_running_store_is_read(tmp_path: Path) -> None:
    with Journal.open(tmp_path, "store-1", "test") as journal:
        journal.commit([Record(f"prepared/{7:016x}", b"{}")], [])
        assert look_at_slot(tmp_path, 7) == Held(prepared=True, applied=False, fence=0)

        journal.commit([Record("state", b'{"applied": 7}'), Record("fence", b"3")], [])
        assert look_at_slot(tmp_path, 7) == Held(prepared=False, applied=True, fence=3)
        assert look_at_slot(tmp_path, 8) == Held(prepared=False, applied=False, fence=3)


NOTHING, PREPARED, APPLIED = Held(False, False, 0), Held(True, False, 0), Held(False, True, 0)


@pytest.mark.parametrize(
    ("what", "held", "fits"),
    [
        ("before any prepare", (NOTHING, NOTHING, NOTHING), True),
        ("before any prepare", (PREPARED, NOTHING, NOTHING), False),
        ("between prepares", (PREPARED, NOTHING, NOTHING), True),
        ("between prepares", (PREPARED, PREPARED, NOTHING), False),
        ("after it told some stores", (APPLIED, PREPARED, PREPARED), True),
        ("after it told some stores", (APPLIED, APPLIED, PREPARED), False),
        ("after it told a client, and no store", (PREPARED, PREPARED, PREPARED), True),
        ("after it told a client, and no store", (PREPARED, APPLIED, PREPARED), False),
        ("after it told all stores", (APPLIED, PREPARED, APPLIED), False),
        ("after it proposed an abort", (PREPARED, PREPARED, NOTHING), True),
        ("after it proposed an abort", (PREPARED, APPLIED, NOTHING), False),
    ],
)
async def test_what_the_stores_hold_proves_where_the_coordinator_stopped(
    run: Run, monkeypatch: pytest.MonkeyPatch, what: str, held: tuple[Held, ...], fits: bool
) -> None:
    [point] = [point for point in POINTS if point.what == what]
    target = _stopped(monkeypatch, run, point.rule, held)

    await coordinator_crash._judge_stop(run, point, "learner-1", epoch=0)

    holds, evidence = _finding(run)
    assert holds is fits
    assert f"{point.rule} struck at slot 9 in epoch 0" in evidence
    assert target.looks >= len(held)


async def test_a_coordinator_that_stopped_elsewhere_is_found(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = POINTS
    _stopped(monkeypatch, run, second.rule, (NOTHING,) * 3)

    await coordinator_crash._judge_stop(run, first, "learner-1", epoch=0)

    holds, evidence = _finding(run)
    assert not holds
    assert second.rule in evidence


async def test_what_the_next_coordinator_did_is_no_evidence(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stopped(monkeypatch, run, POINTS[0].rule, (PREPARED._replace(fence=1), NOTHING, NOTHING))

    await coordinator_crash._judge_stop(run, POINTS[0], "learner-1", epoch=0)

    holds, evidence = _finding(run)
    assert holds
    assert "not looked at in time" in evidence


class Stopped(StillTarget):
    """A cluster whose coordinator was stopped by a failpoint at slot 9."""

    def __init__(self, rule: str, held: tuple[Held, ...]) -> None:
        self.rule = rule
        self.held = held
        self.looks = 0

    async def struck(self, node: str) -> tuple[str, int]:
        return self.rule, 9

    async def look(self, store: str, slot: int) -> Held:
        self.looks += 1
        return self.held[int(store.removeprefix("store-")) - 1]


def _stopped(
    monkeypatch: pytest.MonkeyPatch, run: Run, rule: str, held: tuple[Held, ...]
) -> Stopped:
    target = Stopped(rule, held)
    run.target = target  # type: ignore[assignment]
    monkeypatch.setattr(coordinator_crash, "_LOOK_PATIENCE_S", 0.05)
    monkeypatch.setattr(coordinator_crash, "_LOOK_S", 0.001)
    return target


def test_two_nodes_take_turns_also_in_some_of_the_cases() -> None:
    whole = SCENARIOS["learner-crash"]
    rules = [case.failpoint for case in whole.cases]
    assert whole.first_failpoints == {"learner-1": rules[0], "learner-2": rules[1]}
    assert [whole.next_failpoint(rule) for rule in rules] == [*rules[2:], "", ""]

    some = only(whole, ["between-prepares", "after-it-proposed-an-abort"])
    assert some.first_failpoints == {"learner-1": rules[1], "learner-2": rules[-1]}
    assert some.next_failpoint(rules[1]) == ""


def test_the_last_strike_is_read_from_a_log() -> None:
    log = (
        "WARNING failpoint send:txn.vote:1:after:kill strikes at slot 12\n"
        "WARNING failpoint receive:txn.prepare:2:before:kill strikes\n"
    )
    assert last_strike(log) == ("receive:txn.prepare:2:before:kill", None)
    assert last_strike(log.partition("\n")[0]) == ("send:txn.vote:1:after:kill", 12)
    assert last_strike("nothing") is None


# -- what clients conclude from answers ----------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "problem", "fate"),
    [
        (503, "aborted", "aborted"),
        (503, "unavailable", "unavailable"),
        (504, "unknown", "unknown"),
        (500, "", "unknown"),
        (507, "disk_full", "failed"),
        (412, "precondition_failed", "refused"),
        (404, "not_found", "failed"),
    ],
)
def test_an_answer_says_what_is_certain(status: int, problem: str, fate: str) -> None:
    assert clients._fate(status, problem, refused=(412,)) == fate


def test_every_value_is_written_once_and_never_comes_back(run: Run) -> None:
    fleet: Fleet = run.fleet
    fleet.moves = True
    for path in fleet.paths:
        fleet._known[path] = (f"old at {path}", '"1-0"')
    works = [fleet._choose() for _ in range(2000)]

    written = [work.value for work in works if work.f == "write"]
    written += [work.value[1] for work in works if work.f == "cas" and work.value[1] is not None]
    assert len(written) == len(set(written)) > 500
    moved = [work.effects for work in works if work.f == "txn"]
    sources = {source for source, _ in fleet.pairs}
    assert moved
    assert all(effects[path] is None for effects in moved for path in effects if path in sources)
    assert {work.f for work in works} == {"read", "write", "cas", "delete", "txn"}


# -- the report ----------------------------------------------------------------------------------


def _report(run: Run) -> Mapping[str, Any]:
    for slot in range(1, 40):
        _told(run, "write", {"a": f"v{slot}"}, "done", slot)
    for number, asked in enumerate(run.fleet.asked):
        asked.begun_ns = run.began_ns + number * 10**8
        asked.ended_ns = asked.begun_ns + 10**7
    run.note("<store-2> died", "fault")
    run.note("store-2 started again", "heal")
    run.find("it holds", True, "a fact")
    run.find("it does not", False, "another <fact>")
    run.shown.append(run.fleet.asked[0])
    return summarize(run, None, command="synod chaos made-up", seconds=4.2)


def test_the_report_says_what_was_found(run: Run) -> None:
    report = dict(_report(run))

    assert (report["verdict"], report["operations"], report["fates"]) == (
        "failed",
        39,
        {"done": 39},
    )
    assert sum(one["per_s"] for one in report["bins"]) * report["bin_s"] == 39
    bars, marks = picture(report)
    assert ("✗" in marks, "+" in marks or "✗" in marks) == (True, True)
    assert "writes/s" in bars


def test_the_page_is_self_contained_and_escapes_text(run: Run) -> None:
    page = report_page.render(dict(_report(run)))

    assert "<store-2>" not in page
    assert "&lt;store-2&gt; died" in page
    assert "another &lt;fact&gt;" in page
    assert "prefers-color-scheme: dark" in page
    assert not any(word in page for word in ("<script", "<link", "http:", "https:", "src="))


def test_a_void_run_is_no_success(run: Run) -> None:
    run.find("it holds", True, "a fact")

    assert summarize(run, None, void="too little load")["verdict"] == "void"
    assert summarize(run, None)["verdict"] == "passed"


def test_nothing_found_is_no_success(run: Run) -> None:
    assert summarize(run, None)["verdict"] == "failed"


# -- the command ---------------------------------------------------------------------------------


def test_one_case_can_be_chosen() -> None:
    chosen = only(SCENARIOS["store-crash"], ["granted"])

    assert [case.name for case in chosen.cases] == ["granted"]
    with pytest.raises(ValueError, match="it has idle, pending, granted"):
        only(SCENARIOS["store-crash"], ["other"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("store-crush",), "no such scenario: store-crush; known are all, store-crash"),
        (("store-crash", "--case", "other"), "it has idle, pending, granted"),
        (("all", "--case", "idle"), "needs one scenario by name"),
        (("store-crash", "--target", "moon"), "neither local nor compose"),
        (("store-crash", "--break-running-cluster"), "always the command's own"),
        (("partition", "--target", "compose"), "partition cuts the network, which is for --target"),
        (("grow-and-shrink", "--target", "compose"), "grow-and-shrink adds nodes, which is for"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_cli(["chaos", *arguments])

    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert (code, says in printed) == (2, True)
