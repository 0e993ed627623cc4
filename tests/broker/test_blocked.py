"""A node whose broker takes no messages waits as if it were paused, and resumes at once."""

import asyncio
from pathlib import Path

from actors.calls import Survey
from actors.effects import Answer, Envelope, TimerKey
from broker.memory_broker import MemoryTransport
from broker.transport import TimerMessage
from tests.broker.actors import Puppet, note
from tests.broker.hosting import inject, memory_house, puppet, until


def survey(token: int) -> Survey:
    return Survey(token=token)


async def test_nothing_from_the_broker_reaches_the_actor_and_its_own_calls_do(
    tmp_path: Path,
) -> None:
    # Given a node whose broker takes no messages
    house, broker = memory_house(tmp_path)
    host = house.host("store-1")
    async with house.running(host):
        broker.block()

        # When a message arrives that was in flight
        inject(broker, "store-1", note("on its way"))
        assert host.inbox_messages == 1

        # Then a turn for the node's own call leaves it where it is
        assert await host.call(survey) == ["call.survey"]
        assert host.inbox_messages == 1

        # Until the messages that it makes the actor send can leave.
        broker.unblock()
        await until(lambda: puppet(host).seen == ["call.survey", "on its way"])
        assert not broker.lanes("store-1")[0].unacknowledged


async def test_timers_that_were_not_sent_come_as_soon_as_the_broker_takes_messages(
    tmp_path: Path,
) -> None:
    # Given timers that were armed while the broker takes no messages, one of them due by now
    def arm(this: Puppet, envelope: Envelope) -> None:
        this.set_timer("due", 30)
        this.set_timer("later", 60_000)
        this.out.answers.append(Answer(envelope.message.token, None))  # type: ignore[attr-defined]

    loop = asyncio.get_running_loop()
    house, broker = memory_house(tmp_path)
    host = house.host("store-1", {"call.survey": arm})
    async with house.running(host):
        broker.block()
        armed_s = loop.time()
        await host.call(survey)
        await until(lambda: loop.time() - armed_s > 1.5)
        assert puppet(host).timer_expired == []
        assert host.timers_armed == 2

        # When it takes them again
        unblocked_s = loop.time()
        broker.unblock()

        # Then the due timer expires at once, and the other one in time.
        await until(lambda: puppet(host).timer_expired)
        assert loop.time() - unblocked_s < 0.3
        assert puppet(host).timer_expired == [TimerKey("due")]
        assert host.timers_armed == 1


class Congested(MemoryTransport):
    """A connection whose socket has too much to send for the first timer."""

    left = 1

    def delay(self, delay_ms: int, timer_message: TimerMessage) -> bool:
        if self.left:
            self.left -= 1
            return False
        return super().delay(delay_ms, timer_message)


async def test_a_timer_that_was_not_taken_is_tried_again_before_it_is_due(tmp_path: Path) -> None:
    def arm(this: Puppet, envelope: Envelope) -> None:
        this.set_timer("due", 1_500)
        this.out.answers.append(Answer(envelope.message.token, None))  # type: ignore[attr-defined]

    # Given a connection that takes a timer's message with the second try,
    loop = asyncio.get_running_loop()
    house, broker = memory_house(tmp_path)
    broker.transport("store-1")
    house.transport = lambda name: Congested(broker, name)
    host = house.host("store-1", {"call.survey": arm})
    async with house.running(host):
        # when a timer is armed,
        armed_s = loop.time()
        await host.call(survey)

        # then it expires in time, because no message of it was lost in flight.
        await until(lambda: puppet(host).timer_expired)
        assert 1.4 < loop.time() - armed_s < 2.1
        assert host.transport.left == 0  # type: ignore[attr-defined]
