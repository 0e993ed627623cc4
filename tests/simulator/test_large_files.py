"""Files of many chunks, and the rules that fail when a client loses one of them."""

from collections.abc import Callable
from typing import Any

import pytest

from actors.calls import Holding, KeepChunks
from actors.gateway.chunk_transfers import Transfers
from actors.messages import ChunkKeep, ChunkPut, ChunkStored
from actors.store.contents import StoreContents
from actors.store.store import Store
from chaos.simulator.run import Plan, Simulation, run_plan
from gateway.http.chunk_keeping import DOWNLOAD_SCHEDULE

_on_put = StoreContents.on_put


def _do_not_listen(self: StoreContents, message: ChunkKeep) -> None:
    return None


def _do_not_send(self: Transfers, call: KeepChunks) -> None:
    self._turn.answer(call.token, Holding())


def _say_stored(self: StoreContents, sender: str, message: ChunkPut) -> None:
    if self._turn.name != "store-2":
        _on_put(self, sender, message)
    else:
        self._turn.send(sender, ChunkStored(sha256=message.sha256))


def _lack_nothing(self: Store, batch: Any, refused: Any) -> dict[int, tuple[str, ...]]:
    return {}


def _send_no_chunk(self: Transfers) -> None:
    return None


def test_large_files_are_written_read_and_shared() -> None:
    """Given no faults, then files of many chunks go up and down, and none of them is lost."""
    simulation = Simulation(Plan(seed=3, faults=(), storm_ms=30_000, acknowledged=200))
    report = simulation.run()
    assert report.passed, report.detail
    assert report.operations["large files written"] >= 10
    assert report.operations["large files read"] >= 5
    assert report.operations["chunks lost to a client"] == 0


def test_slow_clients_wait_between_chunks() -> None:
    """Given slow clients, then their transfers take longer than unused chunks are kept."""
    simulation = Simulation(Plan(seed=2204112, faults=("slow-clients",)))
    assert simulation.options.chunk_grace_ms < simulation.script.pause_ms_max
    report = simulation.run()
    assert report.passed, report.detail
    assert report.operations["pauses of large files"] >= 5
    assert report.counters["store.chunks_kept"] > 100
    assert report.counters["store.chunks_deleted"] > 100
    assert report.operations["chunks lost to a client"] == 0


@pytest.mark.parametrize(
    ("broken", "faults", "invariant"),
    [
        ([(StoreContents, "on_keep", _do_not_listen)], ("slow-clients",), "kept_chunks_stay"),
        ([(Transfers, "keep", _do_not_send)], ("slow-clients",), "contents_are_kept"),
        (
            [(StoreContents, "on_put", _say_stored), (Store, "_missing_contents", _lack_nothing)],
            (),
            "acknowledged_contents_are_held",
        ),
        ([(Transfers, "_pump", _send_no_chunk)], (), "serves_after_healing"),
    ],
    ids=[
        "a store ignores requests to keep chunks",
        "a gateway does not ask to keep chunks",
        "a store acknowledges chunks that it does not have",
        "a gateway sends no chunk",
    ],
)
def test_broken_contents_are_found(
    broken: list[tuple[type, str, Callable[..., Any]]],
    faults: tuple[str, ...],
    invariant: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given a bug in the handling of contents, then the rule that it breaks fails."""
    for target, name, wrong in broken:
        monkeypatch.setattr(target, name, wrong)
    for seed in range(2204100, 2204130):
        report = run_plan(Plan(seed, faults, storm_ms=30_000, acknowledged=60))
        if not report.passed:
            assert report.invariant == invariant, report.detail
            return
    pytest.fail("no rule has failed")


def test_the_same_seed_has_the_same_large_files() -> None:
    plan = Plan(seed=4, faults=("slow-clients",), storm_ms=8_000, acknowledged=30)
    assert run_plan(plan).digest == run_plan(plan).digest


def test_a_late_answer_of_an_ended_upload_leaves_the_next_ones_renewals_alone() -> None:
    """Found by seed 2710122: the chunks of the next upload were no longer kept."""
    simulation = Simulation(Plan(seed=1))
    large_files, process = simulation.large_files, simulation.workload.processes[0]
    ended = large_files._begin(["late"], DOWNLOAD_SCHEDULE)
    ended.over = True
    running = large_files._begin(["first"], DOWNLOAD_SCHEDULE)

    large_files._keep(process, running, ["first"])
    large_files._keep(process, ended, ["late"])

    assert large_files._requests[process.number] is running
