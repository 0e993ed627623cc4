"""A node's own clock: it never goes back while the machine is up, and runs at its own rate."""

PPM = 1_000_000
"""The rate of a clock that agrees with true time, in parts per million."""


class Clock:
    """Reads whole milliseconds, as the production clock does; true time is in microseconds."""

    __slots__ = ("_base_ms", "_since_us", "rate_ppm")

    def __init__(self, base_ms: int, since_us: int, rate_ppm: int = PPM) -> None:
        self._base_ms = base_ms
        self._since_us = since_us
        self.rate_ppm = rate_ppm

    def read_ms(self, true_us: int) -> int:
        """What the clock shows at a moment of true time."""
        return self._base_ms + (true_us - self._since_us) * self.rate_ppm // (PPM * 1000)

    def when_us(self, local_ms: int) -> int:
        """The first moment of true time at which the clock shows `local_ms`."""
        ticks = (local_ms - self._base_ms) * PPM * 1000
        return self._since_us - (-ticks // self.rate_ppm)

    def set_rate(self, rate_ppm: int, true_us: int) -> None:
        """Run at another rate from now on, without a jump."""
        self._base_ms = self.read_ms(true_us)
        self._since_us = true_us
        self.rate_ppm = rate_ppm

    def reboot(self, true_us: int, base_ms: int) -> None:
        """The machine was started anew: its clock begins again."""
        self._base_ms = base_ms
        self._since_us = true_us
