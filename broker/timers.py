"""The armed timers of one node, and their delayed messages in flight.

A timer's message is only a hint, which allows two optimizations that save most of the traffic. A
message in flight also serves a timer that was set again for later: when it arrives, the remaining
time is sent as a new message. And the message of a timer that is not urgent is held back a little,
because most timers are cancelled within milliseconds and the others can share one message.

A message that was published and does not arrive may only be late, so it is sent again with a
backoff. A message that the transport did not accept is sent again without a backoff, as soon as the
transport accepts messages again.
"""

from dataclasses import dataclass
from typing import NamedTuple

from actors.effects import TimerKey
from actors.numbers import Milliseconds
from broker.delay_levels import delay_level_ms

OVERDUE_MS = 250
"""A timer's message is sent again when overdue by this much, or by half its delay if more."""

OVERDUE_MS_MAX = 2_000
"""But no later than this: the queue that held the message may have been deleted."""

HELD_MS_MAX = 20
"""How long a timer's message may be held back; a tenth of its delay if that is less."""

EARLY_MS = 2
"""Two clocks read in whole milliseconds may differ by this much."""

_EARLY_RESEND_MS = 250
"""A queue that does not keep messages (a policy may bound its length) delivers them at once. A
timer whose message arrives much too early is sent again no more often than this.
"""

_BACKOFF_MS_MAX = 30_000
_FORGET_AFTER_MS = 60_000


class Publication(NamedTuple):
    """One delayed message to send, for `timers` with the message's generation for each."""

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
        """Whether it arrived before half of its delay was over."""
        return 2 * now < self.sent_ms + self.arrives_ms - 2 * EARLY_MS


def _overdue_allowance_ms(delay_ms: Milliseconds) -> Milliseconds:
    """By how much a timer must be overdue before its message is sent again."""
    return min(max(OVERDUE_MS, delay_ms // 2), OVERDUE_MS_MAX)


class TimerTable:
    """The armed timers, and their messages in flight and to send. Times: the node's clock."""

    def __init__(self) -> None:
        self._armed: dict[TimerKey, _Armed] = {}
        self._in_flight: dict[TimerKey, _InFlight] = {}
        self._held: dict[TimerKey, Milliseconds] = {}
        self._unsent: dict[TimerKey, None] = {}
        """The timers whose latest message the transport did not accept."""
        self._immediate: list[TimerKey] = []
        self._generation = 0
        self._swept_ms = 0
        self.lost = 0
        """Messages that were sent again because their timers were overdue."""

    def __len__(self) -> int:
        return len(self._armed)

    @property
    def held(self) -> bool:
        """Whether messages are held back for `publications`."""
        return bool(self._held)

    def set(self, key: TimerKey, delay_ms: Milliseconds, now: Milliseconds) -> None:
        """Arm `key`, replacing an earlier setting. Without a delay it expires in this turn."""
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
        """Disarm `key`; a message in flight for it will be ignored."""
        self._armed.pop(key, None)
        self._held.pop(key, None)
        self._unsent.pop(key, None)
        if key in self._immediate:
            self._immediate.remove(key)

    def take_immediate(self) -> TimerKey | None:
        """Remove and return the next timer that was set without a delay."""
        return self._immediate.pop(0) if self._immediate else None

    @property
    def has_immediate(self) -> bool:
        """Whether timers that were set without a delay wait."""
        return bool(self._immediate)

    def arrived(self, key: TimerKey, generation: int, now: Milliseconds) -> Milliseconds | None:
        """A message arrived. If its timer is due, disarm it and return how late it is."""
        in_flight = self._in_flight.get(key)
        if in_flight is None or in_flight.generation != generation:
            return None
        del self._in_flight[key]
        armed = self._armed.get(key)
        if armed is None:
            return None
        late_ms = now - armed.due_ms
        if late_ms < -EARLY_MS:
            # The timer was set again for later, or the queue did not keep the message long enough.
            early = in_flight.is_early(now)
            self._held[key] = min(armed.due_ms, now + _EARLY_RESEND_MS) if early else now
            return None
        del self._armed[key]
        self._held.pop(key, None)
        return max(0, late_ms)

    def publications(self, now: Milliseconds) -> list[Publication]:
        """The messages to send now; timers of the same delay level share one."""
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
        """The transport did not accept the message: its timers have none in flight."""
        for key, _ in publication.timers:
            del self._in_flight[key]
            self._unsent[key] = None

    def resend_overdue(self, now: Milliseconds) -> None:
        """Have the messages of overdue timers sent again, with a backoff for each timer.

        Messages that the transport did not accept are sent again without a backoff.
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
        """A new session began: send all timers again, as messages in flight may be lost."""
        self._in_flight.clear()
        self._unsent.clear()
        for key in self._armed:
            self._send_anew(key, now)

    def resume(self, now: Milliseconds) -> None:
        """The broker accepts messages again: send the rejected messages, and those due by now.

        All that are due share one message. Messages that were published before and are not due yet
        are still in flight; to send them again at each alarm would fill the queues of long delays.
        """
        for key, armed in self._armed.items():
            if key in self._unsent or armed.due_ms <= now:
                self._in_flight.pop(key, None)
                self._send_anew(key, now)
        self._unsent.clear()

    def _send_anew(self, key: TimerKey, now: Milliseconds) -> None:
        """As if `key` had just been armed for its remaining time, with no lost message so far."""
        armed = self._armed[key]
        armed.tries = 0
        armed.retry_ms = max(now, armed.due_ms) + _overdue_allowance_ms(armed.delay_ms)
        self._held[key] = now

    def clear(self) -> None:
        """Drop all timers, because the actor is rebuilt."""
        self._armed.clear()
        self._in_flight.clear()
        self._held.clear()
        self._unsent.clear()
        self._immediate.clear()
