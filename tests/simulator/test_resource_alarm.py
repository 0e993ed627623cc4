"""A broker that accepts nothing for a while, from some nodes or from all, and then does again."""

import pytest

from actors.calls import WriteDecided
from chaos.simulator.network import ResourceAlarm
from tests.worlds import put, started


@pytest.mark.parametrize("holds", [True, False])
def test_what_is_sent_to_a_blocked_broker_waits_or_is_lost(holds: bool) -> None:
    """Given a gateway whose messages are blocked, when the alarm ends, then the write goes on."""
    world = started()
    alarm = ResourceAlarm(frozenset(("gateway-1",)), holds)
    world.network.alarms.append(alarm)
    before = world.network.blocked_publications
    token = world.write(put("a", b"1"))
    world.run(2_000)
    assert token not in world.answers
    assert world.network.blocked_publications > before
    assert bool(alarm.held) == holds

    world.network.clear_alarm(alarm)
    answer = world.answer(token)
    assert isinstance(answer, WriteDecided)
    assert answer.outcome.status == "done"


def test_a_blocked_broker_delivers_what_it_has() -> None:
    """Given messages in the queues, when the broker accepts no more, then they arrive."""
    world = started()
    token = world.write(put("a", b"1"))
    world.network.alarms.append(ResourceAlarm(frozenset(("gateway-1",)), holds=False))
    assert isinstance(world.answer(token), WriteDecided)


def test_all_nodes_are_blocked_for_half_a_minute() -> None:
    """Given a broker that accepts nothing at all, when it does again, then writes succeed."""
    world = started()
    alarm = ResourceAlarm(frozenset(world.names), holds=True)
    world.network.alarms.append(alarm)
    deliveries = world.network.deliveries
    world.run(1_000)
    quiet = world.network.deliveries
    world.run(29_000)
    assert world.network.deliveries == quiet >= deliveries

    world.network.clear_alarm(alarm)
    world.ready()
    assert world.done(put("a", b"2"), retry=True).outcome.status == "done"


def test_a_restart_of_the_broker_forgets_what_waited() -> None:
    world = started()
    alarm = ResourceAlarm(frozenset(world.names), holds=True)
    world.network.alarms.append(alarm)
    world.run(1_000)
    assert alarm.held
    world.network.stop()
    assert not alarm.held
