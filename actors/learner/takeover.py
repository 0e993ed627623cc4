"""When a learner asks the log to make it the coordinator (design 4.5).

Nothing here is about safety: a View is a compare-and-set on the epoch, stores fence the former
coordinator before the new one decides anything, and a learner coordinates only under a View that
names its running start. This is about not waiting for a dead coordinator, and about two learners
not taking turns for ever, which is why patience doubles with every takeover that led to nothing.
"""

from actors import timeouts
from actors.learner.state import LearnerState
from actors.numbers import Milliseconds
from actors.turn import Turn
from actors.values import View


class Takeover:
    """Watches the coordinator on behalf of a learner that is not it."""

    def __init__(self, turn: Turn, learned: LearnerState) -> None:
        self._turn = turn
        self._learned = learned
        self._back_off = 1
        self._progress = (0, 0)
        """The decided and the chosen mark when one of them last moved as it should."""
        self._progress_at: Milliseconds = 0
        self._rank_ms = (int(turn.name.rpartition("-")[2]) - 1) * timeouts.SILENT_MS // 2

    @property
    def busy(self) -> bool:
        """Whether a clock runs here that no message would wake."""
        return self._learned.decided < self._learned.chosen_through or self._is_named()

    def follow(self, view: View) -> None:
        """A View took effect: whoever it names has all its time before it."""
        if view.coordinator == self._turn.name:
            self._back_off = min(2 * self._back_off, timeouts.TAKEOVERS_BACK_OFF_MOST)
        self._progress_at = self._turn.now

    def due(self, is_installing: bool) -> View | None:
        """The View that names this learner, if it is time to take over."""
        learned = self._learned
        view = learned.view
        assert view is not None
        self._note_progress()
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
        """This learner is named, but by a former start: it never goes on in that epoch."""
        view = self._learned.view
        return view is not None and view.coordinator == self._turn.name

    def _note_progress(self) -> None:
        learned = self._learned
        decided, chosen_through = learned.decided, learned.chosen_through
        if decided > self._progress[0]:
            self._back_off = 1
        if decided > self._progress[0] or self._progress[0] == self._progress[1]:
            # Decided on, or nothing was waiting to be.
            self._progress_at = self._turn.now
        self._progress = (decided, chosen_through)

    def _is_overdue(self, view: View) -> bool:
        """The coordinator is dead for all that can be seen, or it gets nothing decided."""
        learned = self._learned
        key = (view.coordinator, view.coordinator_disk)
        if learned.failure_detector.is_silent(key, self._turn.now):
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
