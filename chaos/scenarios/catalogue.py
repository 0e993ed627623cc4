"""The scenarios: which node stops, exactly where, and what must hold then.

The many points at which the coordinator stops are in `chaos.scenarios.coordinator_crash`; nodes of
a RabbitMQ cluster fail in `chaos.scenarios.broker_nodes`, whole sites in
`chaos.scenarios.site_loss`; disks are lost in `chaos.scenarios.disk_loss`, and members are
replaced, added and removed in `chaos.scenarios.member_changes`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from actors.effects import Group
from chaos.load.clients import Asked
from chaos.scenarios.broker_nodes import BROKER_NODE_CRASH, BROKER_NODE_FREEZE
from chaos.scenarios.coordinator_crash import COORDINATOR_LIMIT_S, LEARNER_CRASH
from chaos.scenarios.disk_loss import ACCEPTOR_DISK_LOSS
from chaos.scenarios.member_changes import GROW_AND_SHRINK, REPLACE_UNDER_LOAD
from chaos.scenarios.partition import PARTITION
from chaos.scenarios.scenario import AFTER_S, ATTEMPTS, Case, Run, RunVoid, Scenario
from chaos.scenarios.site_loss import SITE_LOSS

STORE_LIMIT_S = 6.0
LEADER_LIMIT_S = 6.0
ACCEPTOR_LIMIT_S = 2.0
QUORUM_LIMIT_S = 8.0
"""From the first heartbeat of a restarted acceptor on; the start of its process does not count."""
BROKER_LIMIT_S = 15.0
"""From the broker's return on."""
PAUSE_S = 20.0
BLINKS = 2
READERS = 8
CHANGED_PATIENCE_S = 20.0
READS_OF_EACH = 3
ANSWER_PATIENCE_S = 0.5

HEARTBEAT = "send:node.heartbeat:1:after:kill"
PENDING = "receive:txn.prepare:1:before:kill"
GRANTED = "send:txn.vote:1:after:kill"


# -- stores --------------------------------------------------------------------------------------


async def _store_idle(run: Run) -> None:
    await run.steady()
    await run.trace_all()
    # No client asks for anything until it dies, so it sends nothing but heartbeats.
    await run.fleet.hold()
    await run.target.arm("store-1")
    await run.dies("store-1")
    fault = "store-1 died idle"
    at_ns = run.note(fault, "fault")
    run.fleet.release()
    await run.back(fault, at_ns, STORE_LIMIT_S)
    await run.linger(AFTER_S)
    await run.mend("store-1")


async def _store_pending(run: Run) -> None:
    """The missing vote times out and aborts the transaction, unless the view drops the store first.

    On a slow machine the adaptive timeout may be the longer one; then the next view commits the
    write, which is correct, but not the case that is tried here. So it may take several attempts.
    """
    aborted: list[Asked] = []
    slots: list[str] = []
    for _ in range(ATTEMPTS):
        await run.steady()
        await run.trace_all()
        await run.target.arm("store-2")
        await run.dies("store-2")
        fault = "store-2 died before it received a txn.prepare"
        at_ns = run.note(fault, "fault")
        await run.back(fault, at_ns, STORE_LIMIT_S)
        await run.linger(AFTER_S)
        struck = await run.target.struck("store-2")
        slot = None if struck is None else struck[1]
        slots.append(str(slot))
        # Of this slot only: other aborts in the meantime prove nothing.
        aborted = [a for a in run.fleet.asked if a.fate == "aborted" and a.slot == slot]
        await run.mend("store-2", failpoint="" if aborted else PENDING)
        if aborted:
            break
        run.note("the view dropped the store before the vote timed out; trying again")
    run.shown += aborted[:1]
    run.find(
        "the pending transaction was aborted, and its client was notified",
        bool(aborted),
        f"pending at slot {', '.join(slots)}; {len(aborted)} writes of the last one were aborted",
    )


async def _store_granted(run: Run) -> None:
    await run.steady()
    await run.trace_all()
    await run.target.arm("store-3")
    await run.dies("store-3")
    fault = "store-3 died after it voted for a write"
    at_ns = run.note(fault, "fault")
    await run.back(fault, at_ns, STORE_LIMIT_S)
    await run.linger(AFTER_S)
    struck = await run.target.struck("store-3")
    slot = None if struck is None else struck[1]
    if slot is None:
        run.find("the vote is known", False, "store-3 has not logged the slot that it voted for")
    else:
        await _judge_granted(run, "store-3", slot)
    await run.mend("store-3")
    nodes = {node["name"]: node for node in (await run.ask())["nodes"]}
    applied = int(nodes["store-3"]["applied"])
    run.find(
        "the store learned the outcome of the write after its return",
        slot is not None and applied >= slot,
        f"store-3 voted for slot {slot}, and has applied slots up to {applied}",
    )


async def _judge_granted(run: Run, store: str, slot: int) -> None:
    """What a store voted for is on its disk, and two-phase commit does not abort it."""
    held = await run.target.holds_prepared(store, slot)
    if held is not None:
        run.find(
            "the dead store's journal holds what it voted for",
            held,
            f"{store} voted for slot {slot}, and its journal {'has' if held else 'lacks'} it",
        )
    requests = [asked for asked in run.fleet.asked if asked.changes and asked.slot == slot]
    fates = {asked.fate for asked in requests}
    run.shown += requests[:1]
    run.find(
        "the granted write was carried through",
        bool(requests) and fates <= {"done", "refused", "unknown", "failed"},
        f"slot {slot}: {len(requests)} requests, {', '.join(sorted(fates)) or 'no results'}",
    )


async def _store_cut_off(run: Run) -> None:
    """A store receives nothing that is sent to all stores, but answers what is sent to it alone."""
    await run.steady()
    await run.trace_all()
    await run.target.cut_off("store-2", Group.STORES, True)
    fault = "store-2 no longer receives what is sent to all stores"
    at_ns = run.note(fault, "fault")
    try:
        await run.back(fault, at_ns, STORE_LIMIT_S)
        await run.linger(AFTER_S)
    finally:
        await run.target.cut_off("store-2", Group.STORES, False)
    run.note("store-2 receives everything again", "heal")
    await run.whole()


async def _gateway_unaware(run: Run) -> None:
    """The view drops a paused store, which then goes on; neither it nor a gateway learns of that.

    So reads go on arriving at a store that knows nothing of the latest writes. Only its lapsed
    lease keeps it from answering them.
    """
    await run.steady()
    run.fleet.read_elsewhere(run.target.other_url, READERS)
    await run.target.cut_off("gateway-2", Group.HEARTBEATS, True)
    run.note("gateway-2 receives no more heartbeats, so it learns of no view and no leader")
    await run.trace_all()
    try:
        for _ in range(BLINKS):
            await _deafen_store(run, True)
            at_ns = run.note("store-2 is paused, and will not learn of the next view", "fault")
            await run.target.pause("store-2")
            try:
                await run.back("store-2 was paused", at_ns, STORE_LIMIT_S)
                waiting = await _read_what_changed(run)
            finally:
                await run.target.resume("store-2")
            run.note(f"store-2 goes on, and {waiting} reads wait for an answer")
            await run.linger(AFTER_S)
            await _deafen_store(run, False)
            run.note("store-2 receives everything again", "heal")
            await run.whole()
    finally:
        await _deafen_store(run, False)
        await run.target.cut_off("gateway-2", Group.HEARTBEATS, False)
    await run.whole()


async def _deafen_store(run: Run, deaf: bool) -> None:
    groups = (Group.STORES, Group.HEARTBEATS)
    await asyncio.gather(*(run.target.cut_off("store-2", group, deaf) for group in groups))


async def _read_what_changed(run: Run) -> int:
    """Read what changes from now on through gateway-2, which sends a third to the paused store.

    Returns how many reads wait for the store. Its answer to any of them would be wrong: it has not
    even been asked to vote for these changes.
    """
    since_ns = time.monotonic_ns()
    deadline_s = time.monotonic() + CHANGED_PATIENCE_S
    while len(changed := run.fleet.changed_since(since_ns)) * 2 < len(run.fleet.paths):
        if time.monotonic() > deadline_s:
            raise RunVoid(f"only {len(changed)} paths changed while the store was paused")
        await run.linger(0.05)
    waiting = await run.fleet.read_at_once(
        run.target.other_url, sorted(changed) * READS_OF_EACH, ANSWER_PATIENCE_S
    )
    if not waiting:
        raise RunVoid("no read waited for the store that was paused")
    return waiting


# -- the leader, acceptors, the coordinator ------------------------------------------------------


async def _leader_killed(run: Run) -> None:
    await run.steady()
    await run.trace_all()
    leader = await run.leader()
    at_ns = run.note(f"{leader}, the leader, is killed", "fault")
    await run.target.kill(leader)
    await run.back(f"the leader {leader} was killed", at_ns, LEADER_LIMIT_S)
    await run.linger(AFTER_S)
    await run.mend(leader, failpoint=LEADER_POINT)


async def _leader_between(run: Run) -> None:
    await run.steady()
    await run.trace_all()
    leader = await run.leader()
    await run.target.arm(leader)
    await run.dies(leader)
    fault = f"the leader {leader} died between two paxos.accept"
    at_ns = run.note(fault, "fault")
    await run.back(fault, at_ns, LEADER_LIMIT_S)
    await run.linger(AFTER_S)
    await run.mend(leader)


LEADER_POINT = "send:paxos.accept@acceptor-3:1:after:kill"
"""The message has left for a bare majority of the acceptors, not for the others or the learners."""


async def _acceptors_killed(run: Run) -> None:
    await run.steady()
    await run.trace_all()
    at_ns = run.note("acceptor-2 and acceptor-4 are killed", "fault")
    for acceptor in ("acceptor-2", "acceptor-4"):
        await run.target.kill(acceptor)
    await run.back("two of five acceptors were killed", at_ns, ACCEPTOR_LIMIT_S)
    await run.linger(AFTER_S)
    await run.mend("acceptor-2", "acceptor-4")


async def _quorum_lost(run: Run) -> None:
    dead = ("acceptor-1", "acceptor-3", "acceptor-5")
    await run.steady()
    await run.trace_all()
    at_ns = run.note("three of five acceptors are killed", "fault")
    for acceptor in dead:
        await run.target.kill(acceptor)
    refused = await run.fleet.first(
        lambda asked: (
            asked.changes and asked.begun_ns > at_ns + 2e9 and asked.fate == "unavailable"
        ),
        30.0,
    )
    run.find(
        "without a quorum writes are refused for certain",
        refused is not None,
        "no write was refused" if refused is None else f"{refused.status} {refused.problem}",
    )
    await run.linger(AFTER_S)
    done = [asked for asked in run.since(at_ns, "done") if asked.begun_ns > at_ns + 5e8]
    run.find(
        "without a quorum nothing is acknowledged",
        not done,
        f"{len(done)} writes that began after the kill were acknowledged",
    )
    await run.restart("acceptor-3")
    back_ns = run.note("acceptor-3 sends heartbeats again")
    await run.back("acceptor-3 came back", back_ns, QUORUM_LIMIT_S)
    await run.linger(AFTER_S)
    await run.mend("acceptor-1", "acceptor-5")


# -- the broker, pauses --------------------------------------------------------------------------


async def _broker_killed(run: Run) -> None:
    await run.steady()
    await run.trace_all()
    run.note("RabbitMQ is killed", "fault")
    await asyncio.gather(*map(run.target.kill_broker, run.target.brokers))
    await run.linger(AFTER_S)
    # At once: the node that did not die last waits for that one.
    await asyncio.gather(*map(run.target.start_broker, run.target.brokers))
    back_ns = run.note("RabbitMQ is back", "heal")
    await run.back("RabbitMQ came back", back_ns, BROKER_LIMIT_S)
    await run.linger(AFTER_S)
    await run.whole()


def _paused(
    role: str, who: Callable[[Run], Awaitable[str]], limit_s: float
) -> Callable[[Run], Awaitable[None]]:
    async def steps(run: Run) -> None:
        await run.steady()
        await run.trace_all()
        node = await who(run)
        at_ns = run.note(f"{node}, {role}, is paused", "fault")
        await run.target.pause(node)
        try:
            await run.back(f"{node}, {role}, was paused", at_ns, limit_s)
            await run.linger(PAUSE_S)
        finally:
            await run.target.resume(node)
        run.note(f"{node} goes on", "heal")
        await run.linger(AFTER_S)
        await run.whole()

    return steps


async def _a_store(run: Run) -> str:
    return "store-2"


# -- the table -----------------------------------------------------------------------------------

STORE_CRASH = Scenario(
    "store-crash",
    "a store dies idle, with a pending request, and after it granted a write",
    (
        Case("idle", "it has nothing to do; the view drops it", _store_idle),
        Case("pending", "a request waits for its vote; the transaction aborts", _store_pending),
        Case("granted", "it has voted yes; two-phase commit completes", _store_granted),
    ),
    failpoints={"store-1": HEARTBEAT, "store-2": PENDING, "store-3": GRANTED},
)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        STORE_CRASH,
        Scenario(
            "proposer-crash",
            "the leading proposer dies",
            (
                Case("killed", "kill -9 at any moment", _leader_killed),
                Case("between", "between two messages of one turn", _leader_between),
            ),
            failpoints={f"proposer-{number}": LEADER_POINT for number in range(1, 6)},
        ),
        Scenario(
            "acceptor-crash",
            "two of five acceptors die; service goes on",
            (Case("two", "kill -9 to both", _acceptors_killed),),
        ),
        Scenario(
            "acceptor-quorum-loss",
            "three of five acceptors die: unavailable, then back",
            (Case("three", "kill -9 to all three", _quorum_lost),),
        ),
        ACCEPTOR_DISK_LOSS,
        REPLACE_UNDER_LOAD,
        GROW_AND_SHRINK,
        LEARNER_CRASH,
        Scenario(
            "broker-crash",
            "RabbitMQ is killed under load and comes back",
            (Case("killed", "kill -9, and a start on the same data", _broker_killed),),
        ),
        Scenario(
            "pause",
            f"SIGSTOP for {PAUSE_S:g} s: the leader, the coordinator, a store",
            (
                Case("leader", "the leader", _paused("the leader", Run.leader, LEADER_LIMIT_S)),
                Case(
                    "coordinator",
                    "the coordinator",
                    _paused("the coordinator", Run.coordinator, COORDINATOR_LIMIT_S),
                ),
                Case("store", "a store", _paused("a store", _a_store, STORE_LIMIT_S)),
            ),
        ),
        Scenario(
            "cut-off",
            "nodes run, but don't receive what is sent to their group",
            (
                Case("store", "a store misses what is sent to all stores", _store_cut_off),
                Case("gateway", "a gateway does not know who is in the view", _gateway_unaware),
            ),
        ),
        BROKER_NODE_CRASH,
        BROKER_NODE_FREEZE,
        SITE_LOSS,
        PARTITION,
    )
}
