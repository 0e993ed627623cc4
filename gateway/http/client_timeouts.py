"""How long a client may make a gateway wait: to send bytes of a body, or to receive some."""

LEAST_BYTES_PER_S = 1024
"""Slower than any link in use, so only a stalled or malicious client falls below it."""


class ClientTooSlow(Exception):
    """A client reads below the minimum rate; the server must close its connection."""


class WaitAllowance:
    """How long the gateway still waits for one client: a token bucket, in seconds.

    It is full at first. Waiting drains it, and each transferred byte refills the time that it may
    take at the minimum rate, up to a full bucket. So the gateway gives up a stalled client after a
    full bucket at the latest, one that drips somewhat later, and one that keeps the minimum rate
    never. Time in which the gateway does not wait for the client does not count.
    """

    def __init__(self, timeout_s: float) -> None:
        self.left_s = timeout_s
        self._full_s = timeout_s

    def moved(self, size: int, waited_s: float) -> None:
        """Record that `size` bytes were transferred after a wait of `waited_s`."""
        left_s = self.left_s - waited_s + size / LEAST_BYTES_PER_S
        self.left_s = min(left_s, self._full_s)
