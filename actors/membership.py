"""Which stores belong to the view: who is dropped, who is added, and if they are enough.

The coordinator proposes a View when a member is silent, answers nothing for long or has another
state than the others, and when a store outside asks to be let in (DESIGN section 4, rules 4, 5
and 7). A View keeps a store that is whole, so no state is ever left without a copy. The exception
is a view whose last whole store has lost its disk: there the learners and the log are what is left,
and a store that has copied all that was decided starts anew from them.
"""

from typing import TYPE_CHECKING

from actors import patience
from actors.effects import Milliseconds
from actors.messages import Diverged, JoinRequest, TxnInquiry
from actors.values import StoreMember, View

if TYPE_CHECKING:
    from actors.learner import Learner


class Membership:
    """The stores of one epoch, as its coordinator sees them."""

    def __init__(self, learner: "Learner", view: View) -> None:
        self._learner = learner
        self._view = view
        self._owing: dict[str, Milliseconds] = {}
        """Since when each store has left something unanswered that it was asked."""
        self._joining: dict[str, tuple[str, Milliseconds]] = {}
        """The stores that may be added: the disk on which each last asked for it, and when."""
        self._pinged_at: Milliseconds = -patience.PING_MS
        self._proposed: View | None = None
        """The View asked of the log. It may be chosen at any time, so it is not taken back."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to wait for."""
        return bool(self._owing or self._proposed)

    @property
    def shortage(self) -> str:
        """Why new writes are refused; empty if there are stores enough."""
        needed = self._learner.genesis.stores_needed
        whole = [store for store in self._view.stores if self._learner.replicas.is_whole(store)]
        if len(whole) >= needed:
            return ""
        names = ", ".join(store.name for store in whole) or "none"
        return f"writes need {needed} whole stores, but the view has {len(whole)} ({names})"

    # -- signs -----------------------------------------------------------------------------------

    def owes(self, store: str) -> None:
        """It was asked something."""
        self._owing.setdefault(store, self._learner.now)

    def answered(self, store: str, owes_more: bool) -> None:
        """It answered something, so its time begins anew."""
        self._owing.pop(store, None)
        if owes_more:
            self._owing[store] = self._learner.now

    def on_join(self, sender: str, disk: str, message: JoinRequest) -> None:
        """A store outside the view asks to be added; its state must be the others'."""
        learner = self._learner
        member = self._view.member(sender)
        if member is not None and member.disk == disk:
            return  # It will learn so from the log.
        if message.applied > learner.decided and all(map(self._is_lost, self._view.stores)):
            # What this learner's former start had decided is known outside of the view only.
            learner.copy_state()
            return
        own_hash = learner.replicas.own_hash(message.applied)
        near = learner.decided - message.applied <= patience.JOINING_NEAR_SLOTS
        empty = learner.decided and not message.applied
        if own_hash is None or empty or not near or not learner.replicas.may_return(sender):
            return  # It is ahead of this learner, has copied too little, or is early.
        if own_hash != message.state_hash:
            learner._send(
                sender,
                Diverged(slot=message.applied, state_hash=own_hash, reported=message.state_hash),
            )
            return
        learner.replicas.diverged.discard((sender, disk))
        self._joining[sender] = (disk, learner.now)
        self.watch()

    # -- views -----------------------------------------------------------------------------------

    def watch(self) -> None:
        """Propose the next View, if there is a reason for one."""
        learner = self._learner
        self._ping()
        if self._proposed is None:
            self._proposed = self._next_view()
        if self._proposed is not None:
            learner.propose(self._proposed)
            learner._arm("tick", 100, 200)

    def _ping(self) -> None:
        """Ask those who owe an answer and are silent for any: a lost message is not a death."""
        learner = self._learner
        if learner.now - self._pinged_at < patience.PING_MS:
            return
        for member in self._view.stores:
            silent_ms = learner.suspicion.silence_ms((member.name, member.disk), learner.now)
            if member.name in self._owing and silent_ms >= patience.PING_MS:
                self._pinged_at = learner.now
                learner._send(member.name, TxnInquiry(view=self._view, decided=learner.decided))

    def may_drop(self, stores: list[str]) -> bool:
        """Whether a View without `stores` would still have a whole store."""
        return any(
            member.name not in stores and self._learner.replicas.is_whole(member)
            for member in self._view.stores
        )

    def enough_without(self, stores: list[str]) -> bool:
        """Whether a View without `stores` would have whole stores enough for new writes."""
        whole = [
            member
            for member in self._view.stores
            if member.name not in stores and self._learner.replicas.is_whole(member)
        ]
        return len(whole) >= self._learner.genesis.stores_needed

    def _next_view(self) -> View | None:
        learner, view = self._learner, self._view
        replicas = learner.replicas
        asking = [
            (name, disk)
            for name, (disk, at) in sorted(self._joining.items())
            if learner.now - at < patience.JOINING_MS
        ]
        lost = [m.name for m in view.stores if self._is_lost(m)]
        if lost and not self.may_drop(lost):
            # Whoever is whole is waited for, however long, unless its disk is gone: another one
            # asks in its name, and has copied what was decided, as all who ask have. Where none
            # is whole, all are waited for so.
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
        learner.counters["stores_dropped"] += len(lost)
        learner.counters["stores_added"] += len(joining)
        me = learner.identity
        return View(
            epoch=view.epoch + 1,
            coordinator=me.name,
            coordinator_disk=me.disk,
            coordinator_incarnation=me.incarnation,
            stores=tuple(sorted((*kept, *joining), key=lambda member: member.name)),
        )

    def _is_lost(self, member: StoreMember) -> bool:
        """Silent, or heard but answering nothing, or of another state than the others."""
        learner = self._learner
        key = (member.name, member.disk)
        if key in learner.replicas.diverged:
            return True
        if learner.suspicion.is_silent(key, learner.now):
            return True
        owing_since = self._owing.get(member.name)
        if owing_since is None:
            return False
        owing_ms = learner.now - max(owing_since, learner.suspicion.since)
        silent_ms = learner.suspicion.silence_ms(key, learner.now)
        # Where answers are slow anyway, silence says less.
        patience_ms = min(
            max(patience.SILENT_MS, 2 * learner.vote_time.timeout_ms), patience.SILENT_MS_MAX
        )
        return min(owing_ms, silent_ms) >= patience_ms or owing_ms >= patience.UNRESPONSIVE_MS
