"""What must hold after every scenario, of the history and of the cluster in its final state.

No check trusts another part: the history is judged from the answers to clients alone; the log's
order is taken from the slots in these answers, and compared with the final contents; the stores are
compared by their hashes.
"""

import asyncio
import time
from collections import defaultdict
from typing import Any

from chaos.checker.counterexample_page import headline
from chaos.checker.history import operations_of
from chaos.checker.linearizability import CheckResult, check
from chaos.checker.window import Window, smallest_window
from chaos.load.clients import Asked
from chaos.scenarios.scenario import Run

CHECK_TIME_LIMIT_S = 120.0
CALM_PATIENCE_S = 45.0
_SHOWN = 3


async def judge(run: Run) -> tuple[CheckResult, Window | None]:
    """Add what must hold to the run's findings; the checker's result and what it can't order."""
    await _judge_stores(run)
    try:
        run.final = await run.fleet.read_all()
    except TimeoutError:
        run.find("every path can be read in the end", False, "not all of them were read in time")
    await run.fleet.resolve()
    await _judge_acknowledged(run)
    _judge_aborted(run)
    await _judge_quarantine(run)
    return await asyncio.to_thread(_judge_history, run)


async def _judge_stores(run: Run) -> None:
    """Wait until the stores have applied the same slots and none is in doubt; compare them."""
    deadline_s = time.monotonic() + CALM_PATIENCE_S
    stores: list[dict[str, Any]] = []
    while time.monotonic() < deadline_s:
        nodes = (await run.ask())["nodes"]
        stores = [node for node in nodes if node["role"] == "store" and node["seen"]]
        in_doubt = sum(node["in_doubt"] + node["pending"] for node in stores)
        if len({node["applied"] for node in stores}) == 1 and not in_doubt:
            break
        await asyncio.sleep(0.5)
    slots = {node["name"]: node["applied"] for node in stores}
    hashes = {node["name"]: node["state_hash"] for node in stores}
    expected = sum(name.startswith("store-") for name in run.target.nodes)
    run.find(
        "all stores are equal",
        len(stores) == expected
        and len(set(slots.values())) == 1
        and len(set(hashes.values())) == 1,
        "; ".join(f"{name}: slot {slots[name]}, hash {hashes[name][:12]}" for name in slots)
        or "no store sends heartbeats",
    )
    doubts = [
        f"{node['name']} has {node['in_doubt']} slots in doubt and {node['pending']} pending"
        for node in stores
        if node["in_doubt"] or node["pending"]
    ]
    evidence = "; ".join(doubts) or f"reported by {len(stores)} stores"
    run.find("nothing is in doubt", not doubts, evidence)


async def _judge_acknowledged(run: Run) -> None:
    """Each path holds its last acknowledged write, or one whose outcome is unknown."""
    by_path: dict[str, list[Asked]] = defaultdict(list)
    open_values: dict[str, set[str | None]] = defaultdict(set)
    for asked in run.fleet.asked:
        for path, value in asked.effects.items():
            if asked.happened:
                by_path[path].append(asked)
            elif asked.fate == "unknown" and asked.resolved in ("", "running", "410"):
                open_values[path].add(value)
    wrong: list[str] = []
    for path, writes in by_path.items():
        last_slot = max(asked.slot for asked in writes)
        last = [asked for asked in writes if asked.slot == last_slot]
        if len(last) > 1:
            await run.fleet.order(last)
            highest = max(asked.index for asked in last)
            last = [asked for asked in last if asked.index == highest]
        expected = {asked.effects[path] for asked in last}
        if path in run.final and run.final[path] not in expected | open_values[path]:
            wrong.append(
                f"/{path} holds {run.final[path]!r}, but slot {last_slot} wrote "
                f"{', '.join(repr(value) for value in expected)}"
            )
    count = sum(asked.happened for asked in run.fleet.asked)
    run.find(
        "every acknowledged write is there",
        not wrong and bool(run.final),
        "; ".join(wrong[:_SHOWN]) or f"{count} acknowledged writes on {len(by_path)} paths",
    )


def _judge_aborted(run: Run) -> None:
    """No read saw a write that was reported as not done, and the log still has it as not done."""
    never = {
        value
        for asked in run.fleet.asked
        if asked.fate in ("aborted", "unavailable", "refused", "failed")
        for value in asked.effects.values()
        if value is not None and asked.f != "txn"
    }
    seen = {
        event.value
        for event in run.recorder.events
        if event.type == "ok" and event.f == "read" and isinstance(event.value, str)
    } | {value for value in run.final.values() if value is not None}
    wrong = [f"{value} was read" for value in sorted(never & seen)]
    aborted = [asked for asked in run.fleet.asked if asked.fate == "aborted"]
    wrong += [
        f"{asked.request} was reported aborted, and now is {asked.resolved}"
        for asked in aborted
        if asked.resolved not in ("aborted", "", "410")
    ]
    run.find(
        "every aborted write is absent",
        not wrong,
        "; ".join(wrong[:_SHOWN])
        or f"{len(aborted)} aborted, {len(never)} values that must never be seen",
    )


async def _judge_quarantine(run: Run) -> None:
    count = await run.target.quarantined()
    run.find("the quarantine is empty", count == 0, f"{count} messages")


def _judge_history(run: Run) -> tuple[CheckResult, Window | None]:
    result = check(operations_of(run.recorder.events), CHECK_TIME_LIMIT_S)
    window: Window | None = None
    evidence = (
        f"{result.operations} operations, {result.unknown} of unknown outcome, "
        f"checked in {result.seconds:.1f} s"
    )
    if result.verdict == "not linearizable":
        window = smallest_window(result.of("not linearizable")[0].component)
        evidence = f"{headline(window)} ({evidence})"
    run.find("the clients' history is linearizable", result.verdict == "linearizable", evidence)
    return result, window
