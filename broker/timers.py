"""The armed timers of one node, and which delayed messages are under way for them.

A timer's message is only a hint, so two things are free to choose here that save most of the
traffic: a message that is under way already serves a timer that was set again for later (on
arrival the rest of the time is sent anew), and a timer that is not urgent is held back a little,
for most are cancelled within milliseconds and the others can share one message.

A message that was published and did not come is sent again with growing patience, for it may be
late only. One that the transport did not take can't be late: it costs no patience, and goes out as
soon as the transport takes messages again.
"""

from dataclasses import dataclass
from typing import NamedTuple

from actors.effects import TimerKey
from actors.numbers import Milliseconds
from broker.topology import delay_level_ms

OVERDUE_MS = 250
"""A timer is looked into when it is overdue by this much, or by half its delay if that is more."""

OVERDUE_MS_MAX = 2_000
"""But no later than this: the queue that held its message may be gone, with all that was in it."""

HELD_MS_MAX = 20
"""How long the message of a timer may be held back; a tenth of its delay if that is less."""

EARLY_MS = 2
"""Two clocks that are read in whole milliseconds may differ by this much."""

_EARLY_RESEND_MS = 250
"""A queue that does not keep messages (a policy may bound its length) hands each on at once. A
timer whose message comes back much too early is sent anew no more often than this.
"""

_BACKOFF_MS_MAX = 30_000
_FORGET_AFTER_MS = 60_000


class Publication(NamedTuple):
    """One delayed message to send: it wakes `timers`, each with the message's generation."""

    delay_ms: Milliseconds
    timers: tuple[tuple[TimerKey, int], ...]


@dataclass(slots=True)
class _Armed:
    due_ms: Milliseconds
    delay_ms: Milliseconds
    retry_ms: Milliseconds
    tries: int = 0


class _InFlight(NamedTuple):
    generation: int
    sent_ms: Milliseconds
    arrives_ms: Milliseconds

    def is_early(self, now: Milliseconds) -> bool:
        """Whether it came back before half of its time was over."""
        return 2 * now < self.sent_ms + self.arrives_ms - 2 * EARLY_MS


def _overdue_allowance_ms(delay_ms: Milliseconds) -> Milliseconds:
    """By how much a timer is overdue that is looked into."""
    return min(max(OVERDUE_MS, delay_ms // 2), OVERDUE_MS_MAX)


class TimerTable:
    """What is armed, what is under way, and what to send. Times are the node's clock's."""

    def __init__(self) -> None:
        self._armed: dict[TimerKey, _Armed] = {}
        self._in_flight: dict[TimerKey, _InFlight] = {}
        self._held: dict[TimerKey, Milliseconds] = {}
        self._unsent: dict[TimerKey, None] = {}
        """The timers whose latest message the transport did not take."""
        self._immediate: list[TimerKey] = []
        self._generation = 0
        self._swept_ms = 0
        self.lost = 0
        """Messages that had to be sent again because the timer was overdue."""

    def __len__(self) -> int:
        return len(self._armed)

    @property
    def held(self) -> bool:
        """Whether a message waits for `publications`."""
        return bool(self._held)

    def set(self, key: TimerKey, delay_ms: Milliseconds, now: Milliseconds) -> None:
        """Arm `key`, in place of what it was. Without a delay it is due in this turn."""
        if delay_ms <= 0:
            self.cancel(key)
            self._immediate.append(key)
            return
        due_ms = now + delay_ms
        patience_ms = _overdue_allowance_ms(delay_ms)
        self._armed[key] = _Armed(due_ms, delay_ms, due_ms + patience_ms)
        self._unsent.pop(key, None)
        in_flight = self._in_flight.get(key)
        if in_flight is not None and now <= in_flight.arrives_ms <= due_ms:
            self._held.pop(key, None)
        else:
            self._held[key] = now + min(HELD_MS_MAX, delay_ms // 10)

    def cancel(self, key: TimerKey) -> None:
        """Forget `key`; a message that is under way for it finds nothing."""
        self._armed.pop(key, None)
        self._held.pop(key, None)
        self._unsent.pop(key, None)
        if key in self._immediate:
            self._immediate.remove(key)

    def take_immediate(self) -> TimerKey | None:
        """The next timer that was set without a delay."""
        return self._immediate.pop(0) if self._immediate else None

    @property
    def has_immediate(self) -> bool:
        """Whether a timer that was set without a delay still waits."""
        return bool(self._immediate)

    def arrived(self, key: TimerKey, generation: int, now: Milliseconds) -> Milliseconds | None:
        """A message came back. If its timer is due, forget it and return how late it is."""
        in_flight = self._in_flight.get(key)
        if in_flight is None or in_flight.generation != generation:
            return None
        del self._in_flight[key]
        armed = self._armed.get(key)
        if armed is None:
            return None
        late_ms = now - armed.due_ms
        if late_ms < -EARLY_MS:
            # It was set again for later while this message was under way, or was not kept so long.
            early = in_flight.is_early(now)
            self._held[key] = min(armed.due_ms, now + _EARLY_RESEND_MS) if early else now
            return None
        del self._armed[key]
        self._held.pop(key, None)
        return max(0, late_ms)

    def publications(self, now: Milliseconds) -> list[Publication]:
        """The messages to send now; timers with the same delay share one."""
        if not self._held:
            return []
        by_level: dict[Milliseconds, list[tuple[TimerKey, int]]] = {}
        for key in [key for key, until_ms in self._held.items() if until_ms <= now]:
            del self._held[key]
            level = delay_level_ms(max(1, self._armed[key].due_ms - now))
            self._generation += 1
            self._in_flight[key] = _InFlight(self._generation, now, now + level)
            by_level.setdefault(level, []).append((key, self._generation))
        return [Publication(level, tuple(timers)) for level, timers in by_level.items()]

    def not_sent(self, publication: Publication) -> None:
        """The transport did not take it, so nothing is under way for its timers."""
        for key, _ in publication.timers:
            del self._in_flight[key]
            self._unsent[key] = None

    def resend_overdue(self, now: Milliseconds) -> None:
        """Have the messages of overdue timers sent again: one at a time for each, backing off.

        Those that the transport did not take are tried again without.
        """
        for key in self._unsent:
            self._send_anew(key, now)
        self._unsent.clear()
        for key, armed in self._armed.items():
            if now >= armed.retry_ms and key not in self._held:
                self.lost += 1
                armed.tries += 1
                patience_ms = _overdue_allowance_ms(armed.delay_ms) * 2**armed.tries
                armed.retry_ms = now + min(patience_ms, _BACKOFF_MS_MAX)
                self._held[key] = now
        if now - self._swept_ms > _FORGET_AFTER_MS:
            self._swept_ms = now
            for key, in_flight in list(self._in_flight.items()):
                if key not in self._armed and now - in_flight.arrives_ms > _FORGET_AFTER_MS:
                    del self._in_flight[key]

    def rearm(self, now: Milliseconds) -> None:
        """The broker was away: nothing that was under way is relied on any more."""
        self._in_flight.clear()
        self._unsent.clear()
        for key in self._armed:
            self._send_anew(key, now)

    def resume(self, now: Milliseconds) -> None:
        """The broker takes messages again: send what it did not take, and what is due by now.

        All that is due shares one message. What was published before and is not due yet is still
        under way, and to publish it again at each alarm would fill the queues of long delays.
        """
        for key, armed in self._armed.items():
            if key in self._unsent or armed.due_ms <= now:
                self._in_flight.pop(key, None)
                self._send_anew(key, now)
        self._unsent.clear()

    def _send_anew(self, key: TimerKey, now: Milliseconds) -> None:
        """As if `key` had just been armed for the rest of its time: nothing was lost so far."""
        armed = self._armed[key]
        armed.tries = 0
        armed.retry_ms = max(now, armed.due_ms) + _overdue_allowance_ms(armed.delay_ms)
        self._held[key] = now

    def clear(self) -> None:
        """The actor is thrown away, and its timers with it."""
        self._armed.clear()
        self._in_flight.clear()
        self._held.clear()
        self._unsent.clear()
        self._immediate.clear()
