"""How a learner gets what it missed: it asks, and never waits to be told.

Nothing depends on a notification arriving (DESIGN section 3, rule 6; section 4, rule 10): what is
chosen is asked of the other learners and of the acceptors, what is decided of the other learners,
page after page. Where the log is gone, another replica's state takes its place
(`actors.snapshots`).
"""

from typing import TYPE_CHECKING

from actors.effects import Group
from actors.messages import Chosen, Decided, PullChosen, PullDecided
from actors.values import DecidedSlot, SlotValue, weight

if TYPE_CHECKING:
    from actors.learner import Learner

_PAGE_SLOTS = 256
_STUCK_TICKS = 4


class CatchingUp:
    """What one learner asks for, and what it answers to those who ask it."""

    def __init__(self, learner: "Learner") -> None:
        self._learner = learner
        self._scanned_at_tick = 0
        self._decided_at_tick = 0
        self._ticks_stuck = 0
        self._acceptors_keep_from = 1
        self._asks_acceptors = False

    @property
    def undecided(self) -> bool:
        """Whether somebody was heard to be further than this learner has decided."""
        learner = self._learner
        return learner.decided < max(learner.scanned, learner.log.heard_through)

    def acceptors_keep_from(self, slot: int) -> None:
        """An acceptor has forgotten all slots before this one."""
        self._acceptors_keep_from = max(self._acceptors_keep_from, slot)

    # -- asking ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Ask for all that there may be."""
        self.ask_chosen()
        self.ask_decided()

    def tick(self) -> None:
        """Ask again for what has not moved since the last time."""
        learner = self._learner
        behind = learner.scanned < learner.log.heard_through
        if behind and learner.scanned == self._scanned_at_tick:
            self.ask_chosen()
            self._ticks_stuck += 1
            gone = self._acceptors_keep_from > learner.scanned + 1
            if self._ticks_stuck >= _STUCK_TICKS and gone:
                # The acceptors have forgotten the next slot, and no learner has sent it.
                learner.copy_state()
        else:
            self._ticks_stuck = 0
        waits = learner.coordinator is None and learner.decided == self._decided_at_tick
        if self.undecided and waits:
            self.ask_decided()
        self._scanned_at_tick, self._decided_at_tick = learner.scanned, learner.decided

    def ask_chosen(self) -> None:
        """Ask the other learners, and every other time the acceptors too."""
        learner = self._learner
        first = learner.scanned + 1
        pull = PullChosen(first_slot=first, last_slot=first + _PAGE_SLOTS - 1)
        learner.counters["pulls"] += 1
        for peer in learner.peers:
            learner._send(peer, pull)
        if self._asks_acceptors:
            learner._send(Group.ACCEPTORS, pull)
        self._asks_acceptors = not self._asks_acceptors

    def ask_decided(self) -> None:
        """Ask the other learners, who tell only what is final."""
        learner = self._learner
        for peer in learner.peers:
            learner._send(peer, PullDecided(applied=learner.decided))

    # -- answering -------------------------------------------------------------------------------

    def tell_chosen(self, sender: str, message: PullChosen) -> None:
        """Tell of the chosen slots that were asked for, up to a gap."""
        learner = self._learner
        entries: list[SlotValue] = []
        size = 0
        for slot in range(message.first_slot, message.last_slot + 1):
            known = learner.log.known.get(slot)
            if known is None or size > learner.options.page_bytes:
                break
            entries.append(SlotValue(slot=slot, value=known.value))
            size += weight(known.value)
        if entries:
            learner._send(sender, Chosen(entries=tuple(entries)))

    def tell_decided(self, sender: str, message: PullDecided) -> None:
        """Answered also when there is nothing to tell: it is a sign of life."""
        learner = self._learner
        entries: list[DecidedSlot] = []
        size = 0
        for slot in range(message.applied + 1, learner.decided + 1):
            known = learner.log.known.get(slot)
            if known is None or known.aborted is None or size > learner.options.page_bytes:
                break
            entries.append(DecidedSlot(slot=slot, value=known.value, aborted=known.aborted))
            size += weight(known.value)
        answer = Decided(entries=tuple(entries), first_kept=learner.log.first_kept)
        learner._send(sender, answer)
