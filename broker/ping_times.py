"""How long a node's messages to itself take lately, and so how long to wait for one."""

from actors.adaptive_timeout import Estimator


class PingTimes:
    """Estimates the patience with a silent broker, from the pings that came back.

    A broker that is given up raises the estimate, for it may only have been slow. Pings are sent in
    silence alone, so a busy node would keep that estimate for minutes, and wait as long for the
    next broker that dies. Therefore it pings amid traffic, too, until the estimate is low again.
    """

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least_ms = round(least_s * 1000)
        self._most_ms = round(most_s * 1000)
        self._estimate = Estimator(self._least_ms, self._most_ms)
        self._number = 0
        self._sent_s = 0.0
        self._is_under_way = False

    @property
    def timeout_s(self) -> float:
        """How long a ping may take."""
        return self._estimate.timeout_ms / 1000

    def send(self, now_s: float) -> int:
        """A ping leaves; returns its number. An earlier one that is under way counts no more."""
        self._number += 1
        self._sent_s, self._is_under_way = now_s, True
        return self._number

    def receive(self, number: object, now_s: float) -> None:
        """A ping came back."""
        if self._is_under_way and number == self._number:
            self._is_under_way = False
            self._estimate.observe(round((now_s - self._sent_s) * 1000))

    def give_up(self) -> None:
        """None came back in time."""
        self._is_under_way = False
        self._estimate.observe(self._most_ms)

    def is_due(self, now_s: float, every_s: float) -> bool:
        """Whether to send one although messages arrive."""
        is_raised = self._least_ms < self._estimate.timeout_ms
        # One that has not come back by now was dropped, or lost with its session.
        wait_s = self._most_ms / 1000 if self._is_under_way else every_s
        return is_raised and now_s - self._sent_s >= wait_s
