"""How long a client may make a gateway wait: for the next bytes of a body, or to take some."""

LEAST_BYTES_PER_S = 1024
"""Slower than any link in use, so that only a client that stalls or means harm falls below it."""


class ClientTooSlow(Exception):
    """A reader takes less than the least rate; the connection is to be cut."""


class WaitAllowance:
    """The patience that is left with one client, in seconds of waiting for it.

    It is full at first. Waiting uses it up, and each byte that moves gives back what it may take at
    the least rate, up to the full patience again. So a client that stalls is given up after the
    full patience at the latest, one that drips somewhat later, and one that keeps the least rate
    never. Time in which the gateway does not wait for the client does not count.
    """

    def __init__(self, timeout_s: float) -> None:
        self.left_s = timeout_s
        self._full_s = timeout_s

    def moved(self, size: int, waited_s: float) -> None:
        """After a wait of `waited_s`, `size` bytes moved."""
        left_s = self.left_s - waited_s + size / LEAST_BYTES_PER_S
        self.left_s = min(left_s, self._full_s)
