"""What an acceptor owes to a leader whose heartbeat it has acknowledged."""

from typing import Any

from actors.ballot import Ballot
from actors.effects import Effects, Send
from actors.messages import LeaseHeartbeat, Prepare
from chaos.simulator.world import World
from tests.worlds import founded, hand

HIGHER = Ballot(99, "proposer-4")


def told(world: World, sender: str, message: Any, late_ms: int) -> list[Any]:
    """What acceptor-2 says to a message `late_ms` after now."""
    return said(hand(world, "acceptor-2", sender, message, late_ms))


def said(effects: Effects) -> list[Any]:
    return [send.message for send in effects.sends if isinstance(send, Send)]


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
    assert [message.type for message in said(effects)] == ["lease.granted"]
    assert [record.key for record in effects.records] == ["promised"]
    lower = Prepare(ballot=Ballot(98, "proposer-5"), first_slot=1)
    (message,) = told(world, "proposer-5", lower, 2 * world.options.lease_ms)
    assert (message.type, message.promised) == ("paxos.reject", HIGHER)
