"""What an acceptor owes to a leader whose heartbeat it has acknowledged, and tells it."""

from typing import Any

import pytest

from actors.ballot import Ballot
from actors.messages import LeaseGranted, LeaseHeartbeat, Prepare
from chaos.simulator.world import World
from tests.worlds import founded, hand, leader_of, put, sent

_DECADE_MS = 10 * 365 * 24 * 3_600_000
HIGHER = Ballot(99, "proposer-4")


def told(world: World, sender: str, message: Any, late_ms: int) -> list[Any]:
    """What acceptor-2 says to a message `late_ms` after now."""
    return sent(hand(world, "acceptor-2", sender, message, late_ms))


def test_each_heartbeat_that_is_acknowledged_binds_for_one_whole_lease() -> None:
    """Given two heartbeats of a leader, then a lease from the second on nobody else is promised."""
    world = founded()
    world.crash(*world.options.names("proposer"))
    world.run(2 * world.options.lease_ms)
    leader = Ballot(50, "proposer-5")
    for number, late_ms in ((1, 0), (2, 900)):
        heartbeat = LeaseHeartbeat(ballot=leader, number=number)
        (granted,) = told(world, "proposer-5", heartbeat, late_ms)
        assert (granted.type, granted.ballot, granted.number) == ("lease.granted", leader, number)
    end_ms = 900 + world.options.lease_ms
    prepare = Prepare(ballot=HIGHER, first_slot=1)
    for late_ms, answer, left_ms in (
        (901, "paxos.reject", end_ms - 901),
        (end_ms - 1, "paxos.reject", 1),
        (end_ms, "paxos.promise", None),
    ):
        (message,) = told(world, "proposer-4", prepare, late_ms)
        assert (message.type, getattr(message, "lease_left_ms", None)) == (answer, left_ms)


def test_to_acknowledge_a_heartbeat_is_a_promise_that_is_on_disk_first() -> None:
    """Given an acceptor that did not hear of the election, when it acknowledges the leader, then
    it has promised that ballot, and serves no lower one for good.
    """
    world = founded()
    world.crash(*world.options.names("proposer"))
    world.run(2 * world.options.lease_ms)
    heartbeat = LeaseHeartbeat(ballot=HIGHER, number=1)
    effects = hand(world, "acceptor-2", "proposer-4", heartbeat)
    assert [message.type for message in sent(effects)] == ["lease.granted"]
    assert [record.key for record in effects.records] == ["promised"]
    lower = Prepare(ballot=Ballot(98, "proposer-5"), first_slot=1)
    (message,) = told(world, "proposer-5", lower, 2 * world.options.lease_ms)
    assert (message.type, message.promised) == ("paxos.reject", HIGHER)


@pytest.mark.parametrize("wrong_ms", [-_DECADE_MS, _DECADE_MS])
def test_log_time_is_what_a_majority_of_the_acceptors_clocks_has_passed(wrong_ms: int) -> None:
    """Given two acceptors of five, and all proposers, whose wall clocks are off by ten years, when
    a write is acknowledged, then log time is right, and so it is under the next leader.
    """
    world = World(1)
    for name in ("acceptor-2", "acceptor-5", *world.options.names("proposer")):
        world.machines[name].wall_error_ms = wrong_ms
    world.start()
    world.ready()
    world.run(1_000)  # All five have told the leader.
    for number in range(2):
        world.done(put("a", b"%d" % number))
        world.settled()
        assert abs(world.actor("store-1").state.log_time_ms - world.wall_ms) < 5_000
        world.crash(leader_of(world).name)
        world.run(5_000)


def test_nothing_is_proposed_before_a_majority_has_told_its_time() -> None:
    """Given a leader that two acceptors have granted its lease, then what it has taken waits."""
    world = founded()
    leader = leader_of(world)
    leader.actor.phase.wall_offsets.clear()
    for acceptor in ("acceptor-1", "acceptor-2"):
        number = leader.actor.phase.heartbeat_number
        granted = LeaseGranted(ballot=leader.actor.phase.ballot, number=number, wall_ms=1)
        hand(world, leader.name, acceptor, granted)
    token = world.write(put("a", b"1"))
    world.run(20)
    assert leader.actor.phase.queue
    assert token not in world.answers
    world.run(2_000)
    assert token in world.answers
