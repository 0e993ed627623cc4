"""A timer expires when it is due, whatever happens to the messages that were sent for it."""

from actors.effects import TimerKey
from broker.delay_levels import delay_level_ms
from broker.timers import Publication, TimerTable

BEAT = TimerKey("beat")
VOTE = TimerKey("vote", "17")


def publish(book: TimerTable, now: int) -> list[Publication]:
    return book.publications(now)


def test_a_timer_is_held_back_a_little_published_and_due() -> None:
    book = TimerTable()
    book.set(BEAT, 300, now=1000)
    assert publish(book, 1000) == []
    (publication,) = publish(book, 1020)
    assert publication.delay_ms == delay_level_ms(280)
    ((key, generation),) = publication.timers
    assert key == BEAT
    assert book.arrived(BEAT, generation, now=1310) == 10
    # The same message again finds nothing.
    assert book.arrived(BEAT, generation, now=1311) is None
    assert len(book) == 0


def test_a_short_timer_is_published_at_once() -> None:
    book = TimerTable()
    book.set(BEAT, 9, now=1000)
    assert len(publish(book, 1000)) == 1


def test_timers_with_the_same_delay_share_a_message() -> None:
    book = TimerTable()
    book.set(BEAT, 300, now=1000)
    book.set(VOTE, 305, now=1001)
    (publication,) = publish(book, 1030)
    assert [key for key, _ in publication.timers] == [BEAT, VOTE]


def test_a_timer_cancelled_while_held_back_costs_nothing() -> None:
    book = TimerTable()
    book.set(VOTE, 300, now=1000)
    book.cancel(VOTE)
    assert publish(book, 2000) == []
    assert not book.held


def test_a_cancelled_timer_is_not_woken_by_the_message_under_way() -> None:
    book = TimerTable()
    book.set(BEAT, 300, now=1000)
    (publication,) = publish(book, 1020)
    book.cancel(BEAT)
    assert book.arrived(*publication.timers[0], now=1310) is None


def test_a_timer_set_again_for_later_uses_the_message_under_way() -> None:
    # Given a timer whose message is under way
    book = TimerTable()
    book.set(BEAT, 300, now=1000)
    (publication,) = publish(book, 1020)
    # When it is set again and again, no more messages are sent
    for now in range(1050, 1300, 50):
        book.set(BEAT, 300, now=now)
        assert publish(book, now + 25) == []
    # Then the message, which now arrives early, has the remaining time sent
    assert book.arrived(*publication.timers[0], now=1310) is None
    (rest,) = publish(book, 1310)
    assert rest.delay_ms == delay_level_ms(1550 - 1310)
    assert book.arrived(*rest.timers[0], now=1551) == 1


def test_a_timer_set_again_for_earlier_gets_a_message_of_its_own() -> None:
    book = TimerTable()
    book.set(BEAT, 5000, now=1000)
    (slow,) = publish(book, 1020)
    book.set(BEAT, 100, now=1030)
    (fast,) = publish(book, 1040)
    assert book.arrived(*fast.timers[0], now=1131) == 1
    assert book.arrived(*slow.timers[0], now=6001) is None


def test_without_a_delay_a_timer_is_due_in_the_same_turn() -> None:
    book = TimerTable()
    book.set(BEAT, 0, now=1000)
    book.set(VOTE, 0, now=1000)
    book.cancel(BEAT)
    assert book.take_immediate() == VOTE
    assert book.take_immediate() is None
    assert publish(book, 2000) == []


def test_a_lost_message_is_sent_again_with_growing_patience() -> None:
    book = TimerTable()
    book.set(BEAT, 1000, now=0)
    (lost,) = publish(book, 20)
    times = []
    for now in range(0, 20_000, 10):
        book.resend_overdue(now)
        if publish(book, now):
            times.append(now)
    # Overdue by half its delay, then after twice, four and eight times as long.
    assert times == [1500, 2500, 4500, 8500, 16_500]
    assert book.lost == 5
    # And the first message, late after all, is of a former generation.
    assert book.arrived(*lost.timers[0], now=20_000) is None


def test_a_short_timer_is_not_suspected_before_a_quarter_second() -> None:
    book = TimerTable()
    book.set(BEAT, 20, now=0)
    publish(book, 2)
    book.resend_overdue(269)
    assert not book.held
    book.resend_overdue(270)
    assert book.held


def test_a_reconnect_sends_everything_anew() -> None:
    book = TimerTable()
    book.set(BEAT, 1000, now=0)
    book.set(VOTE, 100, now=0)
    publish(book, 20)
    book.rearm(now=600)
    levels = {publication.delay_ms for publication in publish(book, 600)}
    # One is overdue and expires at once, the other after the rest of its time.
    assert levels == {10, delay_level_ms(400)}


def test_what_was_not_sent_costs_no_patience() -> None:
    # Given a broker that takes no messages for ten seconds
    book = TimerTable()
    book.set(BEAT, 1000, now=0)
    times = []
    for now in range(20, 10_000, 500):
        book.resend_overdue(now)
        for publication in publish(book, now):
            book.not_sent(publication)
            times.append(now)
    # Then it is tried again with each look, and counts as lost no more than it was sent
    assert times == list(range(20, 10_000, 500))
    assert book.lost == 0
    # And a message that is published then and lost counts as overdue as soon as a first one.
    (lost,) = publish_next(book, 10_020)
    book.resend_overdue(10_519)
    assert not book.held
    book.resend_overdue(10_520)
    (found,) = publish(book, 10_520)
    assert book.lost == 1
    assert book.arrived(*lost.timers[0], now=10_530) is None
    assert book.arrived(*found.timers[0], now=10_530) == 9_530


def publish_next(book: TimerTable, now: int) -> list[Publication]:
    """The messages that are sent at the next check."""
    book.resend_overdue(now)
    return publish(book, now)


def test_when_the_broker_takes_messages_again_what_is_due_shares_one_message() -> None:
    # Given timers that were sent before the broker took no more, or were not taken
    book = TimerTable()
    later, soon = TimerKey("later"), TimerKey("soon")
    book.set(later, 3_600_000, now=0)
    book.set(BEAT, 2_000, now=0)
    (in_flight, lost) = publish(book, 20)
    book.set(VOTE, 300, now=1_000)
    book.set(soon, 40_000, now=1_000)
    for publication in publish(book, 1_020):
        book.not_sent(publication)

    # When it takes messages again
    book.resume(now=33_000)

    # Then due timers expire at once, the rest in time, and none twice
    sent = {p.delay_ms: [key for key, _ in p.timers] for p in publish(book, 33_000)}
    assert sent == {10: [BEAT, VOTE], delay_level_ms(8_000): [soon]}
    assert book.arrived(*lost.timers[0], now=33_001) is None
    assert book.arrived(*in_flight.timers[0], now=3_600_001) == 1
    assert book.lost == 0


def test_a_timer_that_was_set_again_or_cancelled_is_not_tried_for_the_former_time() -> None:
    book = TimerTable()
    book.set(BEAT, 300, now=0)
    book.set(VOTE, 300, now=0)
    for publication in publish(book, 20):
        book.not_sent(publication)
    book.cancel(VOTE)
    book.set(BEAT, 5_000, now=100)
    publish(book, 120)
    book.resend_overdue(500)
    assert not book.held


def test_forgotten_messages_are_not_remembered_for_ever() -> None:
    book = TimerTable()
    for number in range(1000):
        key = TimerKey("vote", str(number))
        book.set(key, 5, now=number)
        publish(book, number)
        book.cancel(key)
    book.resend_overdue(now=200_000)
    assert not book._in_flight


def test_a_long_timer_is_looked_into_two_seconds_after_it_was_due() -> None:
    """Given that the queue may be gone that held its message for a minute."""
    book = TimerTable()
    book.set(BEAT, 60_000, now=0)
    publish(book, 20)
    held = []
    for now in (61_999, 62_000):
        book.resend_overdue(now)
        held.append(bool(book.held))
    assert held == [False, True]
    (again,) = publish(book, 62_000)
    assert book.arrived(*again.timers[0], now=62_010) == 2_010


def test_a_queue_that_keeps_no_messages_is_not_asked_all_the_time() -> None:
    """Given messages that return at once, then the timer expires in time, after a few of them."""
    book = TimerTable()
    book.set(BEAT, 2_000, now=0)
    sent = 0
    for now in range(2_100):
        for publication in publish(book, now):
            sent += 1
            late_ms = book.arrived(*publication.timers[0], now=now + 1)
            if late_ms is not None:
                assert (now, late_ms) == (2_000, 1)
    assert len(book) == 0
    assert sent < 12
