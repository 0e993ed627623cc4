"""A node's own clock: monotonic until the machine reboots, and with a rate of its own."""

PPM = 1_000_000
"""The rate of a clock that agrees with true time, in parts per million."""


class Clock:
    """Reads whole milliseconds, as the production clock does; true time is in microseconds."""

    __slots__ = ("_base_ms", "_offset_ms", "_since_us", "rate_ppm")

    def __init__(self, first_ms: int, since_us: int, rate_ppm: int = PPM) -> None:
        self._offset_ms = first_ms
        self._base_ms = 0
        self._since_us = since_us
        self.rate_ppm = rate_ppm

    def ran_ms(self, true_us: int) -> int:
        """How long the clock has run by its own rate; a reboot does not change that."""
        return self._base_ms + (true_us - self._since_us) * self.rate_ppm // (PPM * 1000)

    def read_ms(self, true_us: int) -> int:
        """What the clock shows at a moment of true time."""
        return (
            self._offset_ms
            + self._base_ms
            + (true_us - self._since_us) * self.rate_ppm // (PPM * 1000)
        )

    def set_rate(self, rate_ppm: int, true_us: int) -> None:
        """Run at another rate from now on; the reading does not jump."""
        self._base_ms = self.ran_ms(true_us)
        self._since_us = true_us
        self.rate_ppm = rate_ppm

    def reboot(self, true_us: int, first_ms: int) -> None:
        """The machine boots again: its clock shows `first_ms`."""
        self._offset_ms = first_ms - self.ran_ms(true_us)
