"""Who has been silent for too long (design 5).

A suspicion is a reason to propose something, never a fact: whoever acts on one goes through the
log. So a wrong one costs time and no more. Any message is a sign of life; the patience with a
silent node adapts to how regularly its heartbeats came, so that a slow one is not mistaken for a
dead one twice (Chen, Toueg and Aguilera, On the Quality of Service of Failure Detectors, 2002).
"""

from actors import timeouts
from actors.adaptive_timeout import Estimator
from actors.numbers import Milliseconds
from actors.peers import Key


class FailureDetector:
    """The signs of life that one node has seen."""

    def __init__(self, heartbeat_ms: Milliseconds) -> None:
        self._least_ms = heartbeat_ms * 3 // 2
        self._most_ms = heartbeat_ms * 4
        self.observing_since: Milliseconds = 0
        """Nobody's silence counts from before: the observer itself was away until then."""
        self._message_at = 0
        self._expired_at = 0
        self._sign_at: dict[Key, Milliseconds] = {}
        self._beat_at: dict[Key, Milliseconds] = {}
        self._intervals: dict[Key, Estimator] = {}

    def message_received(self, now: Milliseconds) -> None:
        """A message came. After a long gap it is its own absence that others filled."""
        if now - self._message_at > timeouts.AWAY_MS:
            self._resume(now)
        self._message_at = now

    def timer_expired(self, now: Milliseconds) -> None:
        """A timer came. A node that gets its timers and no message sees others silent; after a
        pause, or when the broker took no messages, timers come first and prove nothing.
        """
        if now - max(self._message_at, self._expired_at) > timeouts.AWAY_MS:
            self._resume(now)
        self._expired_at = now

    def _resume(self, now: Milliseconds) -> None:
        self.observing_since = now
        self._beat_at.clear()

    def sign_of_life(self, key: Key, now: Milliseconds) -> None:
        """Any message came from it."""
        self._sign_at[key] = now

    def heartbeat(self, key: Key, now: Milliseconds) -> None:
        """Its heartbeat came. An interval that was taken for death is a sample like any other."""
        former = self._beat_at.get(key)
        self._beat_at[key] = now
        if former is not None:
            estimator = self._intervals.get(key)
            if estimator is None:
                estimator = self._intervals[key] = Estimator(self._least_ms, self._most_ms)
            estimator.observe(now - former)

    def forget(self, key: Key) -> None:
        """No more is kept of it."""
        self._sign_at.pop(key, None)
        self._beat_at.pop(key, None)
        self._intervals.pop(key, None)

    def silence_ms(self, key: Key, now: Milliseconds) -> Milliseconds:
        """How long nothing has come from it, as far as this node would have noticed."""
        return now - max(self.observing_since, self._sign_at.get(key, 0))

    def is_silent(self, key: Key, now: Milliseconds) -> bool:
        """Whether even its heartbeats stay away for longer than they ever should."""
        estimator = self._intervals.get(key)
        patience_ms = estimator.timeout_ms if estimator else self._most_ms
        return self.silence_ms(key, now) >= patience_ms
