"""How a store gets into the view: it copies what it lacks, then asks (DESIGN section 4, rule 7).

A store whose disk the view does not name is a newcomer, whatever it was before: it has a say in
nothing and serves no linearizable read. It copies a snapshot if the log is gone, then the contents
that are missing, then the tail of the log, and asks the coordinator to be added. A member whose
state is not the others' takes no part in reads, waits for the View that drops it, and then becomes
a newcomer too: had it forgotten earlier what it holds, it could break a promise made by its votes.
"""

from typing import TYPE_CHECKING

from actors.effects import Group, Milliseconds, Record
from actors.messages import Diverged, JoinRequest, SnapshotPage, SnapshotRow
from actors.snapshots import SnapshotInstaller
from actors.values import StoreMember

if TYPE_CHECKING:
    from actors.store import Store

_ASK_AGAIN_MS = 1_000
_NEAR_SLOTS = 64
_REPORTS_KEPT = 256
_DIVERGED = "diverged"


class Joining:
    """The standing of one store."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        peers = [name for name in store.options.names("store") if name != store.name]
        self._installer = SnapshotInstaller(
            store, [*store.options.names("learner"), *peers], self._install
        )
        self._asked_at: Milliseconds = -_ASK_AGAIN_MS
        self._standing: tuple[bool, StoreMember | None] | None = None
        """What the others were last told at once."""
        self._reported: dict[int, str] = {}
        """The states that this store has lately told others of."""
        self.has_diverged = False
        """Whether this store's state is known not to be what the others have."""

    @property
    def membership(self) -> StoreMember | None:
        """This very disk's place in the view at the applied slot."""
        store = self._store
        view = store.state.view
        member = view.member(store.name) if view else None
        return member if member is not None and member.disk == store.identity.disk else None

    @property
    def is_installing(self) -> bool:
        """Whether a snapshot is being copied."""
        return self._installer.busy

    @property
    def rows_left(self) -> int:
        """How many rows of it are to come."""
        return self._installer.rows_left

    @property
    def is_whole(self) -> bool:
        """Whether this store holds the state at its applied slot with all its contents."""
        return not (self.is_installing or self.has_diverged or self._store.contents.missing)

    @property
    def busy(self) -> bool:
        """Whether there is anything to wait for."""
        return self.is_installing or self.has_diverged or self.membership is None

    def restore(self, record: Record) -> bool:
        """Take in a row of the journal if it is this one's."""
        if record.key == _DIVERGED:
            self.has_diverged = True
        return record.key == _DIVERGED

    def row(self, key: str) -> bytes | None:
        """What the journal is to hold under `key`, if it is one of this one's."""
        return b"true" if key == _DIVERGED and self.has_diverged else None

    # -- becoming a member -----------------------------------------------------------------------

    def watch(self) -> None:
        """Do the next thing on the way into the view; say when the way is over."""
        store = self._store
        self._installer.tick()
        outside = self.membership is None
        if self.has_diverged and outside:
            self._installer.begin()
        standing = (self.is_whole, self.membership)
        if standing != self._standing:
            self._standing = standing
            store._say_vitals()
        near = store.heard_through - store.state.applied <= _NEAR_SLOTS
        if not (outside and self.is_whole and near):
            return
        if store.now - self._asked_at >= _ASK_AGAIN_MS:
            self._asked_at = store.now
            store.counters["join_requests"] += 1
            request = JoinRequest(applied=store.state.applied, state_hash=store.state.state_hash)
            self._note_report(store.state.applied, store.state.state_hash)
            store._send(Group.LEARNERS, request)
        store._arm("tick", 150, 300)

    def install(self) -> None:
        """The log does not reach back to what this store has applied."""
        self._installer.begin()
        self._store._arm("tick", 150, 300)

    def on_page(self, sender: str, message: SnapshotPage) -> None:
        """A page of the snapshot; a diverged state is replaced by any other one."""
        store = self._store
        if self.has_diverged and self.membership is not None:
            return
        applied = 0 if self.has_diverged else store.state.applied
        self._installer.on_page(sender, message, applied)

    def _install(self, slot: int, rows: list[SnapshotRow]) -> None:
        """Another replica's state is complete; what was told of the former one counts no more."""
        self._reported.clear()
        if self.has_diverged:
            self.has_diverged = False
            self._store._journal(_DIVERGED, None)
        self._store.install(slot, rows)
        self.watch()

    # -- agreement -------------------------------------------------------------------------------

    def note_heartbeat(self) -> None:
        """This store tells the others of its state."""
        self._note_report(self._store.state.applied, self._store.state.state_hash)

    def _note_report(self, slot: int, state_hash: str) -> None:
        self._reported[slot] = state_hash
        while len(self._reported) > _REPORTS_KEPT:
            del self._reported[next(iter(self._reported))]

    def on_diverged(self, message: Diverged) -> None:
        """The others have another state. What a former state was told of does not count."""
        store = self._store
        if self._reported.get(message.slot) != message.reported:
            return
        if not self.has_diverged:
            self.has_diverged = True
            store.counters["diverged"] += 1
            store._journal(_DIVERGED, b"true")
        store.reads.give_up_lease()
        store._arm("tick", 150, 300)
