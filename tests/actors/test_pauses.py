"""A node that was away blames no other node for missing messages: all were away together.

The broker takes no messages for a while (its memory or disk alarm), or it is gone, or the machine
slept: then every node's timers come late, and before the first message of the others.
"""

from typing import Any

import pytest

from actors.calls import Unknown, WriteDecided
from actors.effects import TimerKey
from actors.messages import Decided as DecidedRange
from actors.messages import TxnDecision, TxnVote
from actors.paxos.phases import Leading
from chaos.simulator.world import World
from tests.worlds import intercepted, leader_of, put, started

WITHIN_MS = 3_000


@pytest.fixture
def world() -> World:
    return started()


def counted(world: World, counter: str) -> int:
    machines = (machine for machine in world.machines.values() if machine.is_up)
    return sum(machine.actor.counters[counter] for machine in machines)


def be_away(world: World, away_ms: int) -> None:
    """No message crosses, and no timer comes; then all goes on."""
    world.network.stop()
    world.run(away_ms)
    world.network.start()


@pytest.mark.parametrize("away_ms", [3_000, 12_000, 35_000])
def test_the_leader_and_the_view_outlast_a_pause_of_all_nodes(world: World, away_ms: int) -> None:
    # Given a cluster at rest,
    leader, view = leader_of(world), world.actor("learner-1").view
    elections = counted(world, "elections")

    # when all are away for a while,
    be_away(world, away_ms)

    # then writes go on,
    answer = world.answer(world.write(put("after", b"2")), within_ms=WITHIN_MS)
    assert isinstance(answer, WriteDecided)
    assert answer.outcome.status == "done"
    # under the same leader, without an election, and in the same view, which stays.
    world.run(10_000)
    assert leader_of(world) is leader
    assert counted(world, "elections") == elections
    assert [world.actor(name).view for name in world.options.names("learner")] == [view, view]


@pytest.mark.parametrize("away_ms", [3_000, 12_000, 35_000])
def test_slots_in_progress_are_decided_after_a_pause_and_no_store_is_dropped(
    world: World, away_ms: int
) -> None:
    # Given a write that all stores have prepared, and of which one vote is lost,
    def passes(sender: str, to: str, message: Any) -> bool:
        return not (sender == "store-2" and isinstance(message, TxnVote))

    view = world.actor("learner-1").view
    with intercepted(world, passes):
        token = world.write(put("under/way", b"2"))
        world.run(200)
        assert [store.actor.heartbeat().in_doubt for store in world.up("store")] == [1, 1, 1]
        assert counted(world, "aborts_proposed") == 0

        # when all are away for a while,
        be_away(world, away_ms)

    # then it is committed where it was proposed: no store is dropped, no learner takes over,
    world.run(WITHIN_MS)
    world.settled()
    assert world.read("under/way").reply.status == "found"
    assert [world.actor(name).view for name in world.options.names("learner")] == [view, view]
    # nothing is aborted, and the client had a truthful answer in time,
    assert counted(world, "aborts_proposed") == 0
    answer = world.answers.pop(token)
    in_time = away_ms < world.options.request_deadline_ms
    assert isinstance(answer, WriteDecided if in_time else Unknown)
    # and the coordinator's patience with the next votes is soon what it was.
    for number in range(10):
        world.done(put(f"next/{number}", b"3"))
    assert world.actor("learner-1").learned.vote_time.timeout_ms < 1_500


@pytest.mark.parametrize("away_ms", [3_000, 12_000, 35_000])
def test_the_other_learner_does_not_take_over_after_an_absence(world: World, away_ms: int) -> None:
    # Given a learner that knows of a slot, and not of its decision,
    def passes(sender: str, to: str, message: Any) -> bool:
        return not (to == "learner-2" and isinstance(message, TxnDecision | DecidedRange))

    view = world.actor("learner-1").view
    other = world.actor("learner-2")
    with intercepted(world, passes):
        world.done(put("under/way", b"2"))
        world.run(500)
        assert other.decided < other.chosen_through

        # when all are away for a while,
        be_away(world, away_ms)

    # then it learns the decision, and does not take over from the coordinator.
    world.run(WITHIN_MS)
    assert other.decided == other.chosen_through
    assert (other.view, other.counters["takeovers_proposed"]) == (view, 0)


def test_a_turn_whose_messages_are_all_dropped_ends_an_absence_too(world: World) -> None:
    # Given a proposer that follows, and whose first turn after an absence has only stale timers,
    machine = next(m for m in world.up("proposer") if m is not leader_of(world))
    resumed_at = machine.now_ms + 12_000
    machine.actor.settle(resumed_at)

    # when its election is due in the turn after that, then it waits for the leader all the same.
    effects = machine.actor.expire(TimerKey("election"), resumed_at + 10)
    assert (effects.sends, [timer.key.name for timer in effects.timers]) == ((), ["election"])


def test_a_leader_that_returns_alone_steps_down(world: World) -> None:
    # Given a leader that is paused, while the others elect another one,
    former = leader_of(world)
    former.pause(20_000_000)
    world.run(19_000)

    # when it goes on,
    world.run(2_000)

    # then it no longer leads, and writes go on under the other one.
    assert leader_of(world) is not former
    assert not isinstance(former.actor.phase, Leading)
    assert world.done(put("after", b"2")).outcome.status == "done"


def test_a_leader_that_died_while_all_were_away_is_replaced_soon(world: World) -> None:
    # Given a leader that dies while all are away,
    former = leader_of(world)
    world.network.stop()
    world.crash(former.name)
    world.run(12_000)
    elections = counted(world, "elections")

    # when the others return,
    world.network.start()

    # then one of them leads soon, and they did not all campaign at once.
    answer = world.answer(world.write(put("after", b"2")), within_ms=WITHIN_MS)
    assert answer.outcome.status == "done"
    assert leader_of(world) is not former
    assert counted(world, "elections") - elections <= 3
