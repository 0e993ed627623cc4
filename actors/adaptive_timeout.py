"""Adaptive timeouts from measured round trips (RFC 6298, section 2: mean and mean deviation)."""

from actors.numbers import Milliseconds


class Estimator:
    """Estimates how long to wait. A call that timed out is a sample too, so slowness raises it.

    `timeout_ms` stays between `least_ms` and `most_ms`. A longer sample counts as `most_ms`; else a
    pause of the broker or of this node would raise the estimate for dozens of samples.
    """

    def __init__(self, least_ms: Milliseconds, most_ms: Milliseconds) -> None:
        self._least = least_ms
        self._most = most_ms
        self._mean: float | None = None
        self._deviation = 0.0

    def observe(self, sample_ms: Milliseconds) -> None:
        """Add one measured duration."""
        sample_ms = min(sample_ms, self._most)
        if self._mean is None:
            self._mean, self._deviation = float(sample_ms), sample_ms / 2
        else:
            self._deviation += (abs(sample_ms - self._mean) - self._deviation) / 4
            self._mean += (sample_ms - self._mean) / 8

    @property
    def timeout_ms(self) -> Milliseconds:
        """How long to wait before giving up; `most_ms` until something was measured."""
        if self._mean is None:
            return self._most
        return int(min(self._most, max(self._least, self._mean + 4 * self._deviation)))
