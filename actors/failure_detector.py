"""The failure detector: which nodes have been silent for too long (design 5).

A suspicion is a reason to propose a value for the log, never a fact, so a wrong one only costs
time. Any message is a sign of life; the patience with a silent node adapts to how regularly its
heartbeats came, so that a slow one is not mistaken for a dead one twice (Chen, Toueg and Aguilera,
On the Quality of Service of Failure Detectors, 2002).
"""

from actors import timeouts
from actors.adaptive_timeout import Estimator
from actors.numbers import Milliseconds
from actors.peers import Key


class FailureDetector:
    """The signs of life that one node has received."""

    def __init__(self, heartbeat_ms: Milliseconds) -> None:
        self._least_ms = heartbeat_ms * 3 // 2
        self._most_ms = heartbeat_ms * 4
        self.observing_since: Milliseconds = 0
        """Silence before this moment does not count: this node itself was away until then."""
        self._message_at = 0
        self._expired_at = 0
        self._sign_at: dict[Key, Milliseconds] = {}
        self._beat_at: dict[Key, Milliseconds] = {}
        self._intervals: dict[Key, Estimator] = {}

    def message_received(self, now: Milliseconds) -> None:
        """Note that a message came. After a long gap it was this node that was away."""
        if now - self._message_at > timeouts.AWAY_MS:
            self._resume(now)
        self._message_at = now

    def timer_expired(self, now: Milliseconds) -> None:
        """Note that a timer expired. To a node that gets timers but no messages others are silent.
        After a pause of the node or the broker, timers come first and prove nothing.
        """
        if now - max(self._message_at, self._expired_at) > timeouts.AWAY_MS:
            self._resume(now)
        self._expired_at = now

    def _resume(self, now: Milliseconds) -> None:
        self.observing_since = now
        self._beat_at.clear()

    def sign_of_life(self, key: Key, now: Milliseconds) -> None:
        """Note any message of `key`."""
        self._sign_at[key] = now

    def heartbeat(self, key: Key, now: Milliseconds) -> None:
        """Note a heartbeat of `key`. An interval that was taken for death is a sample, too."""
        former = self._beat_at.get(key)
        self._beat_at[key] = now
        if former is not None:
            estimator = self._intervals.get(key)
            if estimator is None:
                estimator = self._intervals[key] = Estimator(self._least_ms, self._most_ms)
            estimator.observe(now - former)

    def forget(self, key: Key) -> None:
        """Forget `key`."""
        self._sign_at.pop(key, None)
        self._beat_at.pop(key, None)
        self._intervals.pop(key, None)

    def silence_ms(self, key: Key, now: Milliseconds) -> Milliseconds:
        """For how long this node has been observing and has received nothing from `key`."""
        return now - max(self.observing_since, self._sign_at.get(key, 0))

    def is_silent(self, key: Key, now: Milliseconds) -> bool:
        """Whether even the heartbeats of `key` have stayed away for longer than expected."""
        estimator = self._intervals.get(key)
        patience_ms = estimator.timeout_ms if estimator else self._most_ms
        return self.silence_ms(key, now) >= patience_ms
