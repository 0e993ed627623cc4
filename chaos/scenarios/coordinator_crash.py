"""`chaos-learner-crash`: the coordinator dies at each point of two-phase commit.

Each case proves where the coordinator stopped: by the failpoint's last line in its log, and by the
stores' journals of that slot before the next coordinator has sent them anything. The coordinator
itself keeps nothing on disk.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chaos.scenarios.autopsy import Held
from chaos.scenarios.scenario import AFTER_S, ATTEMPTS, Case, CaseSteps, Run, RunVoid, Scenario

COORDINATOR_LIMIT_S = 8.0
LEARNERS = ("learner-1", "learner-2")
STORES = ("store-1", "store-2", "store-3")
MUTE = "store-3"
"""The store whose vote is missing, so that there is something to abort."""

MUTE_S = 6.0
"""Longer than the coordinator takes to drop a silent store from the view."""

_LOOK_PATIENCE_S = 5.0
_LOOK_S = 0.02
_STILL_S = 0.3
"""How long a journal must stay as it is to prove that nothing was sent."""


@dataclass(frozen=True, slots=True)
class Trail:
    """What the stores' journals must hold of the slot at which the coordinator stopped."""

    says: str
    fits: Callable[[Sequence[Held]], bool]
    least_s: float = 0.0
    """How long it must stay true."""


NOWHERE = Trail(
    "no store has received it",
    lambda held: not any(one.prepared or one.applied for one in held),
    _STILL_S,
)
FIRST_ONLY = Trail(
    "store-1 has prepared it, the others have not received it",
    lambda held: held[0].prepared and not any(one.prepared or one.applied for one in held[1:]),
    _STILL_S,
)
SOMEWHERE = Trail("a store has prepared it", lambda held: any(one.prepared for one in held))
EVERYWHERE = Trail("all stores have prepared it", lambda held: all(one.prepared for one in held))
IN_DOUBT = Trail(
    "all stores have prepared it, and none knows the outcome",
    lambda held: all(one.prepared for one in held),
    _STILL_S,
)
FIRST_KNOWS = Trail(
    "store-1 knows the outcome, the others are in doubt",
    lambda held: held[0].applied and all(one.prepared for one in held[1:]),
)
ALL_KNOW = Trail("all stores know the outcome", lambda held: all(one.applied for one in held))
NONE_KNOWS = Trail(
    "a store has prepared it, and none knows an outcome",
    lambda held: any(one.prepared for one in held) and not any(one.applied for one in held),
)


@dataclass(frozen=True, slots=True)
class Point:
    """A point at which the coordinator stops."""

    rule: str
    what: str
    trail: Trail


ABORT = Point("send:log.propose.abort:1:after:kill", "after it proposed an abort", NONE_KNOWS)

POINTS = (
    Point("send:txn.prepare:1:before:kill", "before any prepare", NOWHERE),
    Point("send:txn.prepare@store-2:1:before:kill", "between prepares", FIRST_ONLY),
    Point("send:txn.prepare:1:after:kill", "after the prepares, before any vote", EVERYWHERE),
    Point("receive:txn.vote:2:after:kill", "with some votes", SOMEWHERE),
    Point("send:client.result:1:before:kill", "with all votes, before it told anybody", IN_DOUBT),
    Point("send:client.result:1:after:kill", "after it told a client, and no store", IN_DOUBT),
    Point("send:txn.decision@store-2:1:before:kill", "after it told some stores", FIRST_KNOWS),
    Point("send:txn.decision:1:after:kill", "after it told all stores", ALL_KNOW),
    ABORT,
)


def _dies_at(point: Point) -> CaseSteps:
    async def steps(run: Run) -> None:
        await run.steady()
        coordinator, epoch = await _coordinator_with(run, point.rule)
        await run.trace_all()
        await run.target.arm(coordinator)
        await run.dies(coordinator)
        await _after_death(run, point, coordinator, epoch)

    return steps


async def _dies_of_an_abort(run: Run) -> None:
    """A store is paused, so that its vote is missing; again if the view drops it before that."""
    await run.steady()
    for _ in range(ATTEMPTS):
        coordinator, epoch = await _coordinator_with(run, ABORT.rule)
        await run.trace_all()
        await run.target.arm(coordinator)
        run.note(f"{MUTE} is paused, so that its votes are missing")
        await run.target.pause(MUTE)
        try:
            died = await run.died(coordinator, MUTE_S)
            if died:
                slot = await _after_death(run, ABORT, coordinator, epoch, resume=MUTE)
                if slot is not None:
                    await _judge_abort(run, slot)
                return
        finally:
            await run.target.resume(MUTE)
        run.note("the view dropped the store before the vote timed out; trying again")
        await run.whole()
    raise RunVoid(f"no vote timed out in {ATTEMPTS} attempts")


async def _coordinator_with(run: Run, rule: str) -> tuple[str, int]:
    """The coordinator, which has this failpoint, and its epoch. Raises `RunVoid`.

    On a slow machine the other learner may have taken over; then the two change places again.
    """
    for _ in range(ATTEMPTS):
        await run.coordinator()
        view = (await run.ask())["view"]
        coordinator, epoch = str(view["coordinator"]), int(view["epoch"])
        if run.failpoints.get(coordinator) == rule:
            return coordinator, epoch
        [other] = [name for name in LEARNERS if name != coordinator]
        run.note(f"{coordinator} coordinates, but it is the other learner's turn")
        if run.failpoints.get(other) != rule:
            await run.target.kill(other)
            await run.mend(other, failpoint=rule)
        await run.target.kill(coordinator)
        await run.mend(coordinator, failpoint=run.scenario.next_failpoint(rule))
        await run.steady()
    raise RunVoid(f"the learner with {rule} did not become the coordinator")


async def _after_death(
    run: Run, point: Point, coordinator: str, epoch: int, resume: str = ""
) -> int | None:
    """Prove where it stopped, wait for service, and restart it; the slot at which it stopped."""
    fault = f"the coordinator {coordinator} died {point.what}"
    at_ns = run.note(f"{fault} ({point.rule})", "fault")
    if resume:
        # Before its journal is read: no process can be started in a paused container.
        await run.target.resume(resume)
        run.note(f"{resume} goes on", "heal")
    slot = await _judge_stop(run, point, coordinator, epoch)
    await run.back(fault, at_ns, COORDINATOR_LIMIT_S)
    await run.linger(AFTER_S)
    run.shown += run.since(at_ns, "unknown", "aborted")[:1]
    await run.mend(coordinator, failpoint=run.scenario.next_failpoint(point.rule))
    return slot


async def _judge_stop(run: Run, point: Point, coordinator: str, epoch: int) -> int | None:
    """Find out whether it stopped there and nowhere else; the slot."""
    rule, slot = await run.target.struck(coordinator) or ("nothing", None)
    name = f"it stopped {point.what}"
    if rule != point.rule or slot is None:
        run.find(name, False, f"{coordinator} was stopped by {rule} at slot {slot}")
        return slot
    held = await _look(run, point.trail, slot, epoch)
    if held is None:
        # The failpoint's log line stands, but the next coordinator was faster than the first look.
        run.find(name, True, f"{rule} struck at slot {slot}; the stores were not looked at in time")
        return slot
    run.find(
        name,
        point.trail.fits(held),
        f"{rule} struck at slot {slot} in epoch {epoch}, and {point.trail.says}: "
        + ", ".join(f"{store} {_state_of(one)}" for store, one in zip(STORES, held, strict=True)),
    )
    return slot


def _state_of(held: Held) -> str:
    return "applied" if held.applied else "prepared" if held.prepared else "nothing"


async def _look(run: Run, trail: Trail, slot: int, epoch: int) -> Sequence[Held] | None:
    """What the stores hold of a slot, as their former coordinator left it.

    Waits until it fits `trail`, and for as long as it must stay so. `None` if the next coordinator
    was there before the first look.
    """
    began_s = time.monotonic()
    last: Sequence[Held] | None = None
    while time.monotonic() < began_s + _LOOK_PATIENCE_S:
        held = await asyncio.gather(*(run.target.look(store, slot) for store in STORES))
        if any(one.fence > epoch for one in held):
            return last
        former, last = last, held
        fits = trail.fits(held)
        if fits and time.monotonic() >= began_s + trail.least_s:
            return held
        if former is not None and trail.fits(former) and not fits:
            return held
        await asyncio.sleep(_LOOK_S)
    return last


async def _judge_abort(run: Run, slot: int) -> None:
    """Every client with a result of the slot has the one that the log has."""
    entry = await run.log_entry(slot)
    if entry is None:
        run.find("the log has the slot's outcome", False, f"it has no slot {slot}")
        return
    outcome = entry["outcome"]
    requests = {command["request"]: command["outcome"] for command in entry["commands"]}
    answered = [asked for asked in run.fleet.asked if asked.request in requests]
    wrong = [
        f"{asked.request} was reported {asked.fate}; in the log it is {requests[asked.request]}"
        for asked in answered
        if asked.fate != "unknown"
        and (asked.fate == "aborted") != (requests[asked.request] == "aborted")
    ]
    run.shown += [asked for asked in answered if asked not in run.shown][:1]
    fates = ", ".join(sorted(asked.fate for asked in answered)) or "none"
    run.find(
        "clients were notified of the slot's outcome in the log",
        outcome in ("aborted", "committed", "partly aborted") and not wrong,
        "; ".join(wrong) or f"slot {slot} of epoch {entry['epoch']} is {outcome}; results: {fates}",
    )


LEARNER_CRASH = Scenario(
    "learner-crash",
    "the coordinator dies at each point of two-phase commit",
    tuple(
        Case(
            name=point.what.replace(" ", "-").replace(",", ""),
            says=f"the coordinator dies {point.what}; the other learner takes over",
            steps=_dies_of_an_abort if point is ABORT else _dies_at(point),
            failpoint=point.rule,
        )
        for point in POINTS
    ),
    turns=LEARNERS,
)
