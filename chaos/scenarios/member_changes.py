"""Members are replaced, added and removed while clients go on (decision 26).

`chaos-replace-under-load`: every member of every role loses its disk for good, one after the other,
and is replaced. Gateways are no members.

`chaos-grow-and-shrink`: nodes that the cluster was not founded with become members, two acceptors
among them; then members of the founding are removed, and their processes end by themselves.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from chaos.scenarios.scenario import WHOLE_PATIENCE_S, Case, Run, RunVoid, Scenario
from synod.membership import Action, has_begun, member_of, version_of, waits_for

GAP_MAX_S = 3.0
CALM_S = 1.5
"""For how long the load goes on after each change, before the next one."""

END_PATIENCE_S = 30.0
HALTED = ("it was removed (version", "is no acceptor any more")
"""What a removed node says of itself at its end."""

ROLES = ("acceptor", "proposer", "learner", "store")
ADDED = ("store-4", "learner-3", "proposer-6", "acceptor-6", "acceptor-7")
ACCEPTORS_REMOVED = ("acceptor-1", "acceptor-2")
_LOOK_S = 0.2
_ASK_AGAIN_S = 10.0
"""After this time without a sign of the change it is asked for again: its leader may have died."""


async def changed(run: Run, action: Action, member: str) -> bool:
    """Change a member as `synod … --wait` does; whether it ended, which is a finding, too."""
    since_s = asked_s = time.monotonic()
    before = await run.members()
    version = await run.change(action, member)
    missing = "the leader to begin"
    while time.monotonic() < since_s + WHOLE_PATIENCE_S:
        known = await run.members()
        if version is None and has_begun(before, known, action, member):
            version = version_of(known, member)  # The answer was lost.
        if version is not None and version_of(known, member) >= version:
            asked_ms_ago = (time.monotonic() - since_s) * 1000
            missing = waits_for(known, action, member, asked_ms_ago)
            if not missing:
                break
        elif version is None or time.monotonic() > asked_s + _ASK_AGAIN_S:
            asked_s = time.monotonic()
            version = await run.change(action, member)
        await asyncio.sleep(_LOOK_S)
    seconds = time.monotonic() - since_s
    if not missing:
        run.note(f"{action} {member} is over after {seconds:.2f} s", "heal")
    run.find(
        f"{action} {member}: it ends, and can't be forgotten any more",
        not missing,
        f"after {seconds:.2f} s" if not missing else f"it waits for {missing}",
    )
    return not missing


async def seen(run: Run, what: str, node: str, is_so: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until a gateway has heard of a node and `is_so` of what it knows of it. Raises
    `RunVoid`.
    """
    deadline_s = time.monotonic() + WHOLE_PATIENCE_S
    while time.monotonic() < deadline_s:
        if (known := member_of(await run.members(), node)) is not None and is_so(dict(known)):
            run.note(what)
            return
        await asyncio.sleep(_LOOK_S)
    raise RunVoid(f"a gateway did not see that {what}")


async def lose_disk(run: Run, node: str) -> int:
    """Kill a node, and start it on an empty disk; when it was killed."""
    former = member_of(await run.members(), node)
    disk = None if former is None else former["runs_on"]
    at_ns = run.note(f"{node} is killed, and its disk is lost", "fault")
    await run.target.kill(node)
    await run.target.wipe(node)
    await run.target.restart(node)
    await seen(
        run,
        f"{node} runs on an empty disk",
        node,
        lambda known: known["runs_on"] not in (None, disk),
    )
    return at_ns


# -- every member is replaced --------------------------------------------------------------------


async def _replaced(run: Run) -> None:
    await run.steady()
    await run.trace_all()
    for role in ROLES:
        for node in [name for name in run.target.nodes if name.startswith(f"{role}-")]:
            at_ns = await lose_disk(run, node)
            if not await changed(run, "replace", node):
                return
            await run.linger(CALM_S)
            await run.gap(f"{node} lost its disk and was replaced", at_ns, GAP_MAX_S)
    await run.whole()


REPLACE_UNDER_LOAD = Scenario(
    "replace-under-load",
    "every member of every role loses its disk, one by one, and is replaced under load",
    (Case("replaced", "no disk of the founding is left in the end", _replaced),),
)


# -- the cluster grows and shrinks ---------------------------------------------------------------


async def _grown(run: Run) -> None:
    await run.steady()
    await run.trace_all()
    for node in ADDED:
        run.note(f"{node} starts on an empty disk", "fault")
        await run.target.add(node)
        await seen(run, f"{node} waits to be added", node, lambda known: bool(known["command"]))
        at_ns = run.note(f"{node} is added", "fault")
        if not await changed(run, "add", node):
            return
        await run.linger(CALM_S)
        await run.gap(f"{node} was added", at_ns, GAP_MAX_S)
    await run.whole()


async def _shrunk(run: Run) -> None:
    await run.steady()
    await run.trace_all()
    for find in (*map(_that, ACCEPTORS_REMOVED), Run.leader, Run.coordinator, _that("store-1")):
        node = await find(run)
        at_ns = run.note(f"{node} is removed", "fault")
        if not await changed(run, "remove", node):
            return
        await _ends_by_itself(run, node)
        await run.target.forget(node)
        await run.linger(CALM_S)
        await run.gap(f"{node} was removed", at_ns, GAP_MAX_S)
    await run.whole()


def _that(node: str) -> Callable[[Run], Awaitable[str]]:
    async def find(run: Run) -> str:
        return node

    return find


async def _ends_by_itself(run: Run, node: str) -> None:
    ended = await run.died(node, END_PATIENCE_S)
    words = await run.target.last_words(node) if ended else ""
    last = words.strip().rpartition("\n")[2]
    if ended:
        run.note(f"{node} ended: {last}")
    run.find(
        f"{node} ends by itself and says that it is no member any more",
        ended and any(text in words for text in HALTED),
        f"its last words: {last}" if ended else f"it still runs after {END_PATIENCE_S:g} s",
    )


GROW_AND_SHRINK = Scenario(
    "grow-and-shrink",
    "a store, a learner, a proposer, two acceptors are added, then others removed, under load",
    (
        Case("grown", "store-4, learner-3, proposer-6, acceptor-6 and -7 are added", _grown),
        Case("shrunk", "two acceptors, the leader, the coordinator, a store are removed", _shrunk),
    ),
    grows=True,
)
