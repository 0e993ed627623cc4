"""A timer comes back when it is due, whatever becomes of the messages that were sent for it."""

from actors.effects import TimerKey
from broker.timers import Publication, TimerBook
from broker.topology import rung_ms

BEAT = TimerKey("beat")
VOTE = TimerKey("vote", "17")


def publish(book: TimerBook, now: int) -> list[Publication]:
    return book.publications(now)


def test_a_timer_is_held_back_a_little_published_and_due() -> None:
    book = TimerBook()
    book.set(BEAT, 300, now=1000)
    assert publish(book, 1000) == []
    (publication,) = publish(book, 1020)
    assert publication.delay_ms == rung_ms(280)
    ((key, generation),) = publication.timers
    assert key == BEAT
    assert book.arrived(BEAT, generation, now=1310) == 10
    # The same message again finds nothing.
    assert book.arrived(BEAT, generation, now=1311) is None
    assert len(book) == 0


def test_a_short_timer_is_published_at_once() -> None:
    book = TimerBook()
    book.set(BEAT, 9, now=1000)
    assert len(publish(book, 1000)) == 1


def test_timers_with_the_same_delay_share_a_message() -> None:
    book = TimerBook()
    book.set(BEAT, 300, now=1000)
    book.set(VOTE, 305, now=1001)
    (publication,) = publish(book, 1030)
    assert [key for key, _ in publication.timers] == [BEAT, VOTE]


def test_a_timer_cancelled_while_held_back_costs_nothing() -> None:
    book = TimerBook()
    book.set(VOTE, 300, now=1000)
    book.cancel(VOTE)
    assert publish(book, 2000) == []
    assert not book.held


def test_a_cancelled_timer_is_not_woken_by_the_message_under_way() -> None:
    book = TimerBook()
    book.set(BEAT, 300, now=1000)
    (publication,) = publish(book, 1020)
    book.cancel(BEAT)
    assert book.arrived(*publication.timers[0], now=1310) is None


def test_a_timer_set_again_for_later_uses_the_message_under_way() -> None:
    # Given a timer whose message is under way
    book = TimerBook()
    book.set(BEAT, 300, now=1000)
    (publication,) = publish(book, 1020)
    # When it is set again and again, no more messages are sent
    for now in range(1050, 1300, 50):
        book.set(BEAT, 300, now=now)
        assert publish(book, now + 25) == []
    # Then the message, which comes early now, has the rest sent
    assert book.arrived(*publication.timers[0], now=1310) is None
    (rest,) = publish(book, 1310)
    assert rest.delay_ms == rung_ms(1550 - 1310)
    assert book.arrived(*rest.timers[0], now=1551) == 1


def test_a_timer_set_again_for_earlier_gets_a_message_of_its_own() -> None:
    book = TimerBook()
    book.set(BEAT, 5000, now=1000)
    (slow,) = publish(book, 1020)
    book.set(BEAT, 100, now=1030)
    (fast,) = publish(book, 1040)
    assert book.arrived(*fast.timers[0], now=1131) == 1
    assert book.arrived(*slow.timers[0], now=6001) is None


def test_without_a_delay_a_timer_is_due_in_the_same_turn() -> None:
    book = TimerBook()
    book.set(BEAT, 0, now=1000)
    book.set(VOTE, 0, now=1000)
    book.cancel(BEAT)
    assert book.take_immediate() == VOTE
    assert book.take_immediate() is None
    assert publish(book, 2000) == []


def test_a_lost_message_is_sent_again_with_growing_patience() -> None:
    book = TimerBook()
    book.set(BEAT, 1000, now=0)
    (lost,) = publish(book, 20)
    times = []
    for now in range(0, 20_000, 10):
        book.look_for_overdue(now)
        if publish(book, now):
            times.append(now)
    # Overdue by half its delay, then after twice, four and eight times as long.
    assert times == [1500, 2500, 4500, 8500, 16_500]
    assert book.lost == 5
    # And the first message, late after all, is of a former generation.
    assert book.arrived(*lost.timers[0], now=20_000) is None


def test_a_short_timer_is_not_suspected_before_a_quarter_second() -> None:
    book = TimerBook()
    book.set(BEAT, 20, now=0)
    publish(book, 2)
    book.look_for_overdue(269)
    assert not book.held
    book.look_for_overdue(270)
    assert book.held


def test_a_reconnect_sends_everything_anew() -> None:
    book = TimerBook()
    book.set(BEAT, 1000, now=0)
    book.set(VOTE, 100, now=0)
    publish(book, 20)
    book.rearm(now=600)
    rungs = {publication.delay_ms for publication in publish(book, 600)}
    # One is overdue and comes back at once, the other after the rest of its time.
    assert rungs == {10, rung_ms(400)}


def test_forgotten_messages_are_not_remembered_for_ever() -> None:
    book = TimerBook()
    for number in range(1000):
        key = TimerKey("vote", str(number))
        book.set(key, 5, now=number)
        publish(book, number)
        book.cancel(key)
    book.look_for_overdue(now=200_000)
    assert not book._under_way
