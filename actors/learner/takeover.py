"""When a learner asks the log to make it the coordinator (design 4.5).

Safety does not depend on it: a View is a compare-and-set on the epoch, stores fence the former
coordinator before the new one decides anything, and a learner coordinates only under a View that
names its running start. This keeps learners from waiting for a dead coordinator, and two of them
from replacing each other for ever: patience doubles with every takeover that decided nothing.
"""

from actors import timeouts
from actors.learner.state import LearnerState
from actors.numbers import Milliseconds
from actors.turn import Turn
from actors.values import View


class Takeover:
    """Watches the coordinator for a learner that does not coordinate."""

    def __init__(self, turn: Turn, learned: LearnerState) -> None:
        self._turn = turn
        self._learned = learned
        self._back_off = 1
        self._progress = (0, 0)
        """The decided and the chosen mark at the last check."""
        self._progress_at: Milliseconds = 0

    @property
    def busy(self) -> bool:
        """Whether time may make a takeover due, without any message."""
        learned = self._learned
        waits = learned.decided < learned.chosen_through
        return waits or self._is_named() or self._is_removed(learned.view)

    def follow(self, view: View) -> None:
        """Follow a View that took effect: its coordinator gets the full patience."""
        if view.coordinator == self._turn.name:
            self._back_off = min(2 * self._back_off, timeouts.TAKEOVERS_BACK_OFF_MOST)
        self._progress_at = self._turn.now

    def due(self, is_installing: bool) -> View | None:
        """The View that makes this learner the coordinator, if it is time to take over."""
        learned = self._learned
        view = learned.view
        assert view is not None
        self._note_progress()
        if self._turn.name not in learned.members("learner"):
            return None  # It waits to be added, or was removed.
        near = (
            learned.chosen_through + timeouts.COORDINATOR_NEAR_SLOTS >= learned.log.reported_through
        )
        if not near or is_installing or not (self._is_named() or self._is_overdue(view)):
            return None
        me = self._turn.identity
        self._turn.counters["takeovers_proposed"] += 1
        return view.model_copy(
            update={
                "epoch": view.epoch + 1,
                "coordinator": me.name,
                "coordinator_disk": me.disk,
                "coordinator_incarnation": me.incarnation,
            }
        )

    def _is_named(self) -> bool:
        """Whether the view names a former start of this learner, which never goes on."""
        view = self._learned.view
        return view is not None and view.coordinator == self._turn.name

    def _is_removed(self, view: View | None) -> bool:
        """Whether the coordinator is no member any more: it goes on only until the next View."""
        return view is not None and view.coordinator not in self._learned.members("learner")

    @property
    def _rank_ms(self) -> Milliseconds:
        """By how much longer this learner waits than the first one."""
        rank = self._learned.members("learner").index(self._turn.name)
        return rank * timeouts.SILENT_MS // 2

    def _note_progress(self) -> None:
        learned = self._learned
        decided, chosen_through = learned.decided, learned.chosen_through
        if decided > self._progress[0]:
            self._back_off = 1
        if decided > self._progress[0] or self._progress[0] == self._progress[1]:
            # The decided prefix has grown, or no slot waited to be decided.
            self._progress_at = self._turn.now
        self._progress = (decided, chosen_through)

    def _is_overdue(self, view: View) -> bool:
        """Whether the coordinator seems dead, or gets nothing decided."""
        learned = self._learned
        key = (view.coordinator, view.coordinator_disk)
        if learned.failure_detector.is_silent(key, self._turn.now) or self._is_removed(view):
            return True
        if learned.decided >= learned.chosen_through:
            return False
        progress_at = max(self._progress_at, learned.failure_detector.observing_since)
        stalled_ms = self._turn.now - progress_at - self._rank_ms
        silent_ms = learned.failure_detector.silence_ms(key, self._turn.now)
        return (
            silent_ms >= timeouts.SILENT_MS * self._back_off
            and stalled_ms >= timeouts.STALLED_MS * self._back_off
        ) or stalled_ms >= timeouts.UNRESPONSIVE_COORDINATOR_MS * self._back_off
