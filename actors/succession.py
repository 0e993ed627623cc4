"""When a learner asks the log to make it the coordinator (DESIGN section 4, rule 5).

Nothing here is about safety: a View is a compare-and-set on the epoch, stores fence the former
coordinator before the new one decides anything, and a learner coordinates only under a View that
names its running start. This is about not waiting for a dead coordinator, and about two learners
not taking turns for ever, which is why patience doubles with every takeover that led to nothing.
"""

from typing import TYPE_CHECKING

from actors import patience
from actors.effects import Milliseconds
from actors.values import View

if TYPE_CHECKING:
    from actors.learner import Learner


class Succession:
    """Watches the coordinator on behalf of a learner that is not it."""

    def __init__(self, learner: "Learner") -> None:
        self._learner = learner
        self._back_off = 1
        self._progress = (0, 0)
        """The decided and the scanned mark when one of them last moved as it should."""
        self._progress_at: Milliseconds = 0
        self._rank_ms = (int(learner.name.rpartition("-")[2]) - 1) * patience.SILENT_MS // 2

    @property
    def busy(self) -> bool:
        """Whether a clock runs here that nobody's message would wake."""
        learner = self._learner
        return learner.coordinator is None and (learner.decided < learner.scanned or self._owes())

    def follow(self, view: View) -> None:
        """A View took effect: whoever it names has all its time before it."""
        if view.coordinator == self._learner.name:
            self._back_off = min(2 * self._back_off, patience.TAKEOVERS_BACK_OFF_MOST)
        self._progress_at = self._learner.now

    def watch(self) -> None:
        """Take over, if it is time."""
        learner = self._learner
        view = learner.view
        assert view is not None
        self._note_progress()
        near = learner.scanned + patience.COORDINATOR_NEAR_SLOTS >= learner.log.heard_through
        if not near or learner.is_installing:
            return
        if self._owes() or self._is_overdue(view):
            me = learner.identity
            learner.counters["takeovers_proposed"] += 1
            learner.propose(
                view.model_copy(
                    update={
                        "epoch": view.epoch + 1,
                        "coordinator": me.name,
                        "coordinator_disk": me.disk,
                        "coordinator_incarnation": me.incarnation,
                    }
                )
            )

    def _owes(self) -> bool:
        """This learner is named, but by a former start: it never goes on in that epoch."""
        learner = self._learner
        return (
            learner.view is not None
            and learner.coordinator is None
            and learner.view.coordinator == learner.name
        )

    def _note_progress(self) -> None:
        learner = self._learner
        decided, scanned = learner.decided, learner.scanned
        if decided > self._progress[0]:
            self._back_off = 1
        if decided > self._progress[0] or self._progress[0] == self._progress[1]:
            # Decided on, or nothing was waiting to be.
            self._progress_at = learner.now
        self._progress = (decided, scanned)

    def _is_overdue(self, view: View) -> bool:
        """The coordinator is dead for all that can be seen, or it gets nothing decided."""
        learner = self._learner
        key = (view.coordinator, view.coordinator_disk)
        if learner.suspicion.is_silent(key, learner.now):
            return True
        if learner.decided >= learner.scanned:
            return False
        progress_at = max(self._progress_at, learner.suspicion.since)
        stalled_ms = learner.now - progress_at - self._rank_ms
        silent_ms = learner.suspicion.silence_ms(key, learner.now)
        return (
            silent_ms >= patience.SILENT_MS * self._back_off
            and stalled_ms >= patience.STALLED_MS * self._back_off
        ) or stalled_ms >= patience.UNRESPONSIVE_COORDINATOR_MS * self._back_off
