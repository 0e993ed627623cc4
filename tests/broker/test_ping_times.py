"""How long to wait for a ping, as it is learnt and forgotten."""

from broker.ping_times import PingTimes


def _pinged(pings: PingTimes, now_s: float, took_s: float) -> float:
    pings.receive(pings.send(now_s), now_s + took_s)
    return now_s + took_s


def test_after_a_broker_was_given_up_the_next_one_is_soon_waited_for_as_short_as_before() -> None:
    pings = PingTimes(1.5, 5.0)
    now_s = _pinged(pings, 0.0, 0.03)
    assert pings.timeout_s == 1.5
    pings.send(now_s)
    pings.give_up()
    assert pings.timeout_s == 5.0
    # Given a node that is never without messages, then it pings all the same,
    sent, now_s = 0, now_s + 5.0
    while pings.is_due(now_s, every_s=1.0):
        now_s = max(_pinged(pings, now_s, 0.03), now_s + 1.0)
        sent += 1
    # until it is as impatient as before.
    assert pings.timeout_s == 1.5
    assert 5 < sent < 12


def test_a_slow_broker_is_waited_for() -> None:
    pings = PingTimes(1.5, 5.0)
    now_s = 0.0
    for took_s in (1.0, 1.8, 0.9, 2.0, 1.1) * 4:
        now_s = _pinged(pings, now_s, took_s)
    assert 2.2 < pings.timeout_s <= 5.0


def test_only_the_last_ping_counts_and_one_is_under_way_at_a_time() -> None:
    pings = PingTimes(1.5, 5.0)
    first, second = pings.send(0.0), pings.send(10.0)
    pings.receive(first, 14.0)
    assert not pings.is_due(14.9, every_s=1.0)
    # Given that it was lost, then another one is sent.
    assert pings.is_due(15.0, every_s=1.0)
    pings.receive(second, 10.01)
    pings.receive(second, 14.0)
    pings.receive(None, 14.0)
    assert pings.timeout_s == 1.5
