"""Rotation of one request over several peers, until one of them can serve it.

Round-robin with exponential back-off. In a round every peer is asked once before any is asked
twice, those that seem to be alive first. After a round in which no peer could answer there is a
pause, also if all refused at once, so that a request that no peer can serve yet does not turn into
a storm of messages. This is a leaf: it decides whom to ask, and its owner sends.
"""

from collections import Counter
from collections.abc import Collection, Sequence

from actors.numbers import Milliseconds

_PAUSE_LEAST_MS = 250
_PAUSE_MOST_MS = 2_000
_NO_ANSWER = "no answer"


class Rotation:
    """The rotation of one request.

    `start` is the index of the first peer to ask, so that requests spread over the peers. If the
    request ends at `deadline`, the first round waits for a silent peer only as long as leaves time
    to ask the others. The pause after a round begins with a quarter of a second and doubles up to
    `pause_most_ms`.
    """

    def __init__(
        self,
        start: int = 0,
        deadline: Milliseconds | None = None,
        pause_most_ms: Milliseconds = _PAUSE_MOST_MS,
    ) -> None:
        self.asked = ""
        """The peer that was asked last."""
        self.unanswered: Counter[str] = Counter()
        """How often each peer did not answer in time."""
        self._start = start
        self._deadline = deadline
        self._pause_most_ms = pause_most_ms
        self._awaiting = False
        self._until: Milliseconds = 0
        """Until when an answer is awaited; once none is, when the waiting ended."""
        self._tried: set[str] = set()
        self._rounds = 0
        self._troubles: dict[str, str] = {}

    def next(
        self,
        peers: Sequence[str],
        now: Milliseconds,
        patience_ms: Milliseconds,
        silent: Collection[str] = (),
    ) -> str | None:
        """The peer to ask now, or `None` while an answer or the end of a pause is awaited.

        `peers` are those that may be asked now, in order of preference; one that is added, or added
        again, has its turn in the current round. Those in `silent` are asked last.
        """
        if self.awaits(now):
            return None
        if self._awaiting:
            self.unanswered[self.asked] += 1
            self._end_attempt(self._until, _NO_ANSWER)
        self._tried.intersection_update(peers)
        untried = [peer for peer in peers if peer not in self._tried]
        if not untried:
            if not peers or now < self._until + self._pause_ms:
                return None
            self._rounds += 1
            self._tried.clear()
            untried = list(peers)
        position = {peer: (at - self._start) % len(peers) for at, peer in enumerate(peers)}
        choice = min(untried, key=lambda peer: (peer in silent, position[peer]))
        if self._deadline is not None and self._rounds == 0:
            patience_ms = min(patience_ms, max(0, self._deadline - now) // len(untried))
        self._tried.add(choice)
        self._awaiting, self.asked, self._until = True, choice, now + patience_ms
        return choice

    def awaits(self, now: Milliseconds) -> bool:
        """Whether the peer that was asked last can still answer in time."""
        return self._awaiting and now < self._until

    def is_overdue(self, now: Milliseconds) -> bool:
        """Whether the peer that was asked last has not answered in time."""
        return self._awaiting and now >= self._until

    def refused(self, peer: str, now: Milliseconds, why: str) -> None:
        """`peer` can't serve the request; if its answer is awaited, the waiting ends."""
        if self._awaiting and peer == self.asked:
            self._end_attempt(now, why)
        elif peer in self._tried:
            self._troubles[peer] = why

    def progressed(self, now: Milliseconds, patience_ms: Milliseconds) -> None:
        """The peer that was asked last has sent a part, and is asked for the rest."""
        self._awaiting, self._until = True, now + patience_ms

    def answered(self, now: Milliseconds) -> None:
        """The request is served. The next one of its kind begins with the peers not yet tried."""
        self._awaiting, self._until, self._rounds = False, now, 0
        self._troubles.clear()

    @property
    def account(self) -> str:
        """What each peer that was asked answered, for the error message of a request given up."""
        troubles = dict(self._troubles)
        if self._awaiting:
            troubles[self.asked] = _NO_ANSWER
        return "; ".join(f"{peer}: {why}" for peer, why in troubles.items()) or "none was asked"

    @property
    def _pause_ms(self) -> Milliseconds:
        return min(_PAUSE_LEAST_MS << min(self._rounds, 10), self._pause_most_ms)

    def _end_attempt(self, at: Milliseconds, why: str) -> None:
        self._awaiting, self._until = False, at
        self._troubles[self.asked] = why
