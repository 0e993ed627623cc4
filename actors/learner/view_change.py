"""Membership of the view: which stores to drop, which to add, and whether there are enough.

The coordinator proposes a View when a member is silent, answers nothing for long or has diverged
from the other replicas, and when a store outside asks to join (design 4.4, 4.5 and 4.7). A View
keeps a store that is whole, so no state is ever left without a copy. The exception is a view whose
last whole store has lost its disk: then only the learners and the log are left, and the next View
consists of stores that have copied everything decided from them.
"""

from actors import timeouts
from actors.learner.replicas import Replicas
from actors.learner.state import LearnerState
from actors.messages import Diverged, JoinRequest, TxnInquiry
from actors.numbers import Milliseconds
from actors.turn import Turn
from actors.values import StoreMember, View


class ViewChange:
    """The stores of one epoch, as its coordinator sees them, and the View to propose next."""

    def __init__(self, turn: Turn, learned: LearnerState, replicas: Replicas, view: View) -> None:
        self._turn = turn
        self._learned = learned
        self._replicas = replicas
        self._view = view
        self._awaiting_reply: dict[str, Milliseconds] = {}
        """The stores that owe an answer, each with the time since when it has."""
        self._joining: dict[str, tuple[str, Milliseconds]] = {}
        """The stores that may be added: the disk on which each last asked to join, and when."""
        self._pinged_at: Milliseconds = -timeouts.PING_MS
        self._proposed: View | None = None
        """The View proposed for the log. It may be chosen at any time, so it is final."""

    @property
    def busy(self) -> bool:
        """Whether an answer of a store is awaited, or a View was proposed."""
        return bool(self._awaiting_reply or self._proposed)

    @property
    def shortage(self) -> str:
        """Why new writes are refused; empty if there are enough stores."""
        whole = [store.name for store in self._view.stores if self._replicas.is_whole(store)]
        return self._turn.genesis.shortage(whole, self._learned.stores_needed)

    # -- answers and requests --------------------------------------------------------------------

    def expect_reply(self, store: str) -> None:
        """Note that `store` was sent a request."""
        self._awaiting_reply.setdefault(store, self._turn.now)

    def replied(self, store: str, awaits_more: bool) -> None:
        """Note an answer, from which the time for the store's other answers counts anew."""
        self._awaiting_reply.pop(store, None)
        if awaits_more:
            self._awaiting_reply[store] = self._turn.now

    def knows_less_than(self, message: JoinRequest) -> bool:
        """Whether a store outside the view has applied more than this learner has decided, while
        all stores of the view are lost: only outside the view is it known what this learner had
        decided before its restart.
        """
        ahead = message.applied > self._learned.decided
        return ahead and all(map(self._is_lost, self._view.stores))

    def on_join(self, sender: str, disk: str, message: JoinRequest) -> bool:
        """A store outside the view asks to join, for which its state must equal the others'.
        Whether it becomes a candidate.
        """
        learned, replicas = self._learned, self._replicas
        own_hash = replicas.own_hash(message.applied)
        near = learned.decided - message.applied <= timeouts.JOINING_NEAR_SLOTS
        empty = learned.decided and not message.applied
        if own_hash is None or empty or not near or not replicas.may_return(sender):
            return False  # It is ahead of this learner, has copied too little, or came too early.
        if own_hash != message.state_hash:
            self._turn.send(
                sender,
                Diverged(slot=message.applied, state_hash=own_hash, reported=message.state_hash),
            )
            return False
        replicas.diverged.discard((sender, disk))
        self._joining[sender] = (disk, self._turn.now)
        return True

    # -- views -----------------------------------------------------------------------------------

    def due(self) -> View | None:
        """The View to propose, if there is a reason for one; the same until it is chosen."""
        self._ping()
        if self._proposed is None:
            self._proposed = self._next_view()
        return self._proposed

    def _ping(self) -> None:
        """Ask silent stores that owe an answer again: perhaps only a message was lost."""
        turn, learned = self._turn, self._learned
        if turn.now - self._pinged_at < timeouts.PING_MS:
            return
        for member in self._view.stores:
            silent_ms = learned.failure_detector.silence_ms((member.name, member.disk), turn.now)
            if member.name in self._awaiting_reply and silent_ms >= timeouts.PING_MS:
                self._pinged_at = turn.now
                turn.send(member.name, TxnInquiry(view=self._view, decided=learned.decided))

    def may_drop(self, stores: list[str]) -> bool:
        """Whether a View without `stores` would still have a whole store."""
        return any(
            member.name not in stores and self._replicas.is_whole(member)
            for member in self._view.stores
        )

    def enough_without(self, stores: list[str]) -> bool:
        """Whether a View without `stores` would have enough whole stores for new writes."""
        whole = [
            member
            for member in self._view.stores
            if member.name not in stores and self._replicas.is_whole(member)
        ]
        return len(whole) >= self._learned.stores_needed

    def _next_view(self) -> View | None:
        turn, view, replicas = self._turn, self._view, self._replicas
        if turn.name not in self._learned.members("learner"):
            return None  # It was removed, and another learner takes over.
        stores = self._learned.members("store")
        asking = [
            (name, disk)
            for name, (disk, at) in sorted(self._joining.items())
            if turn.now - at < timeouts.JOINING_MS and name in stores
        ]
        lost = [m.name for m in view.stores if self._is_lost(m) or m.name not in stores]
        if lost and not self.may_drop(lost):
            # A whole store is awaited for as long as it takes, unless its disk is gone: then
            # another disk asks to join under its name, with a copy of everything decided, as every
            # joining store has. If no store is whole, this holds for all stores.
            whole = {m.name for m in view.stores if replicas.is_whole(m)}
            awaited = whole or {m.name for m in view.stores}
            gone = {name for name, _ in asking}
            lost = [name for name in lost if name in gone or name not in awaited]
        kept = [m for m in view.stores if m.name not in lost]
        joining = [
            StoreMember(name=name, disk=disk, added_slot=None)
            for name, disk in asking
            if all(m.name != name for m in kept)
        ]
        if not lost and not joining:
            return None
        for name in lost:
            replicas.note_dropped(name)
        turn.counters["stores_dropped"] += len(lost)
        turn.counters["stores_added"] += len(joining)
        me = turn.identity
        return View(
            epoch=view.epoch + 1,
            coordinator=me.name,
            coordinator_disk=me.disk,
            coordinator_incarnation=me.incarnation,
            stores=tuple(sorted((*kept, *joining), key=lambda member: member.name)),
        )

    def _is_lost(self, member: StoreMember) -> bool:
        """Whether a member is silent, sends only heartbeats but no answers, or has diverged."""
        turn, learned = self._turn, self._learned
        key = (member.name, member.disk)
        if key in self._replicas.diverged:
            return True
        if learned.failure_detector.is_silent(key, turn.now):
            return True
        awaiting_since = self._awaiting_reply.get(member.name)
        if awaiting_since is None:
            return False
        awaiting_ms = turn.now - max(awaiting_since, learned.failure_detector.observing_since)
        silent_ms = learned.failure_detector.silence_ms(key, turn.now)
        # If answers are slow anyway, silence is weaker evidence.
        patience_ms = min(
            max(timeouts.SILENT_MS, 2 * learned.vote_time.timeout_ms), timeouts.SILENT_MS_MAX
        )
        return min(awaiting_ms, silent_ms) >= patience_ms or awaiting_ms >= timeouts.UNRESPONSIVE_MS
