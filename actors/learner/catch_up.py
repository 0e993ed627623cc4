"""How a learner catches up: it pulls the slots that it lacks, page after page.

Nothing depends on the arrival of a notification (design 3.6 and 4.10). Chosen slots are pulled from
the other learners and the acceptors, decided ones from the other learners. Where the log is
truncated, another replica's state takes its place (`actors.state.snapshots`).
"""

from actors.effects import Group
from actors.learner.state import LearnerState
from actors.messages import Chosen, Decided, PullChosen, PullDecided
from actors.paging import Page
from actors.turn import Turn
from actors.values import DecidedSlot, SlotValue, weight

_PAGE_SLOTS = 256
_STUCK_TICKS = 4
_UNCONFIRMED_TICKS = 40
"""After so many ticks without the next slot, a learner discards the reports that there is one. A
wrong number would else keep it asking, and from ever taking over from a dead coordinator."""


class CatchUp:
    """The pulls of one learner, and its answers to the pulls of others."""

    def __init__(self, turn: Turn, learned: LearnerState) -> None:
        self._turn = turn
        self._learned = learned
        self._chosen_at_tick = 0
        self._decided_at_tick = 0
        self._ticks_stuck = 0
        self._acceptors_keep_from = 1
        self._asks_acceptors = False

    @property
    def undecided(self) -> bool:
        """Whether slots are chosen, or reported in use, that this learner has not decided."""
        learned = self._learned
        return learned.decided < max(learned.chosen_through, learned.log.reported_through)

    def acceptors_keep_from(self, slot: int) -> None:
        """An acceptor has forgotten all slots before this one."""
        self._acceptors_keep_from = max(self._acceptors_keep_from, slot)

    # -- pulling ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Pull everything that there may be."""
        self.ask_chosen()
        self.ask_decided()

    def tick_chosen(self) -> bool:
        """Pull chosen slots again if none came since the last tick. Whether the next slots seem to
        be truncated, so that another replica's state has to take their place.
        """
        learned = self._learned
        behind = learned.chosen_through < learned.log.reported_through
        if not behind or learned.chosen_through != self._chosen_at_tick:
            self._chosen_at_tick, self._ticks_stuck = learned.chosen_through, 0
            return False
        self.ask_chosen()
        self._ticks_stuck += 1
        if (
            self._ticks_stuck >= _STUCK_TICKS
            and self._acceptors_keep_from > learned.chosen_through + 1
        ):
            # The acceptors have forgotten the next slot, and no learner has sent it.
            return True
        if self._ticks_stuck >= _UNCONFIRMED_TICKS:
            self._ticks_stuck = 0
            self._turn.counters["reports_discarded"] += 1
            learned.log.discard_reports()
        return False

    def tick_decided(self, coordinates: bool) -> None:
        """Pull decided slots again if none came since the last tick; a coordinator decides them
        itself.
        """
        decided = self._learned.decided
        if self.undecided and not coordinates and decided == self._decided_at_tick:
            self.ask_decided()
        self._decided_at_tick = decided

    def ask_chosen(self) -> None:
        """Pull chosen slots from the other learners and, every other time, from the acceptors."""
        learned = self._learned
        first = learned.chosen_through + 1
        pull = PullChosen(first_slot=first, last_slot=first + _PAGE_SLOTS - 1)
        self._turn.counters["pulls"] += 1
        for peer in learned.peers:
            self._turn.send(peer, pull)
        if self._asks_acceptors:
            self._turn.send(Group.ACCEPTORS, pull)
        self._asks_acceptors = not self._asks_acceptors

    def ask_decided(self) -> None:
        """Pull decided slots from the other learners, which send only what is final."""
        learned = self._learned
        for peer in learned.peers:
            self._turn.send(peer, PullDecided(applied=learned.decided))

    # -- answering -------------------------------------------------------------------------------

    def send_chosen(self, sender: str, message: PullChosen) -> None:
        """Send the chosen slots that were pulled, up to a gap."""
        learned = self._learned
        entries: list[SlotValue] = []
        page = Page(self._turn.options.page_bytes)
        for slot in range(message.first_slot, message.last_slot + 1):
            known = learned.log.known.get(slot)
            if known is None or not page.takes(weight(known.value)):
                break
            entries.append(SlotValue(slot=slot, value=known.value))
        if entries:
            self._turn.send(sender, Chosen(entries=tuple(entries)))

    def send_decided(self, sender: str, message: PullDecided) -> None:
        """Send the decided slots that were pulled; an empty answer is a sign of life."""
        learned = self._learned
        entries: list[DecidedSlot] = []
        page = Page(self._turn.options.page_bytes)
        for slot in range(message.applied + 1, learned.decided + 1):
            known = learned.log.known.get(slot)
            if known is None or known.aborted is None:
                break
            decided = DecidedSlot(slot=slot, value=known.value, aborted=known.aborted)
            if not page.takes(len(decided.to_json())):
                break
            entries.append(decided)
        answer = Decided(entries=tuple(entries), first_kept=learned.log.first_kept)
        self._turn.send(sender, answer)
