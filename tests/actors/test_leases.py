"""What an acceptor promises to a leader whose heartbeat it has acknowledged, and its answer."""

from typing import Any

from actors.messages import Accept, LeaseHeartbeat, Prepare, Submit
from actors.paxos.ballot import Ballot
from actors.values import Batch, Command, OpenSession
from chaos.simulator.world import World
from tests.worlds import founded, hand, leader_of, put, sent

HIGHER = Ballot(99, "proposer-4")


def answers_to(world: World, sender: str, message: Any, late_ms: int) -> list[Any]:
    """The answer of acceptor-2 to a message `late_ms` after now."""
    return sent(hand(world, "acceptor-2", sender, message, late_ms))


def test_each_heartbeat_that_is_acknowledged_binds_for_one_whole_lease() -> None:
    """Given two heartbeats of a leader, then no other ballot gets a promise for a lease from the
    second.
    """
    world = founded()
    world.crash(*world.options.names("proposer"))
    world.run(2 * world.options.lease_ms)
    leader = Ballot(50, "proposer-5")
    for number, late_ms in ((1, 0), (2, 900)):
        heartbeat = LeaseHeartbeat(ballot=leader, number=number)
        (granted,) = answers_to(world, "proposer-5", heartbeat, late_ms)
        assert (granted.type, granted.ballot, granted.number) == ("lease.granted", leader, number)
    end_ms = 900 + world.options.lease_ms
    prepare = Prepare(ballot=HIGHER, first_slot=1)
    for late_ms, answer, left_ms in (
        (901, "paxos.reject", end_ms - 901),
        (end_ms - 1, "paxos.reject", 1),
        (end_ms, "paxos.promise", None),
    ):
        (message,) = answers_to(world, "proposer-4", prepare, late_ms)
        assert (message.type, getattr(message, "lease_left_ms", None)) == (answer, left_ms)


def test_acknowledging_a_heartbeat_is_a_promise_that_is_journalled_first() -> None:
    """Given an acceptor that missed the election, when it acknowledges the leader, then it has
    promised that ballot, and serves no lower one for good.
    """
    world = founded()
    world.crash(*world.options.names("proposer"))
    world.run(2 * world.options.lease_ms)
    heartbeat = LeaseHeartbeat(ballot=HIGHER, number=1)
    effects = hand(world, "acceptor-2", "proposer-4", heartbeat)
    assert [message.type for message in sent(effects)] == ["lease.granted"]
    assert [record.key for record in effects.records] == ["promised"]
    lower = Prepare(ballot=Ballot(98, "proposer-5"), first_slot=1)
    (message,) = answers_to(world, "proposer-5", lower, 2 * world.options.lease_ms)
    assert (message.type, message.promised) == ("paxos.reject", HIGHER)


def test_log_time_is_the_time_for_which_leaders_have_led() -> None:
    """Given a minute under one leader, and another one under the next, whose node started much
    later, then log time has run for both, and no faster than real time.
    """
    world = founded()
    for _ in range(2):
        world.run(60_000)
        world.done(put("a", b"1"), retry=True)
        leader = leader_of(world).name
        world.crash(leader)
        world.run(5_000)
        world.start(leader)
        world.ready()
    world.done(put("a", b"2"))
    world.settled()

    log_time_ms = world.actor("store-1").state.log_time_ms
    assert 120_000 < log_time_ms <= world.now


def test_a_leader_without_a_lease_advances_no_log_time() -> None:
    """Given a leader that was paused for an hour, in which another one may have led, when it goes
    on with its queue, then its hour does not count before it has its lease again.
    """
    world = founded()
    leader = leader_of(world)
    phase, hour_ms = leader.actor.phase, 3_600_000
    command = Command(
        session="gateway-1.s",
        sequence=1,
        acknowledged=0,
        reply_to="gateway-1",
        operation=OpenSession(),
    )
    submit = Submit(ballot=phase.ballot, command=command)
    hand(world, leader.name, "gateway-1", submit, late_ms=hour_ms)
    (accept,) = [
        m for m in sent(leader.actor.settle(leader.now_ms + hour_ms)) if isinstance(m, Accept)
    ]

    assert accept.value == Batch(elapsed_ms=0, commands=(command,))
    assert phase.log_time_at <= leader.now_ms
