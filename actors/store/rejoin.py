"""How a store joins the view: it copies what it lacks, then asks (design 4.7).

A store whose disk the view does not name is a newcomer, whatever it was before: it has no votes and
serves no linearizable reads. It copies a snapshot if the log is truncated, then the contents that
are missing, then the tail of the log, and asks the coordinator to add it. A member whose state has
diverged serves no reads, waits for the View that drops it, and then becomes a newcomer too: if it
discarded its state earlier, it could break the promises of its votes.
"""

from dataclasses import dataclass

from actors.effects import Group, Record
from actors.messages import Diverged, JoinRequest, SnapshotPage
from actors.numbers import Milliseconds
from actors.state.snapshots import CopiedState, SnapshotInstaller
from actors.store.contents import StoreContents
from actors.store.state import StoreState
from actors.turn import Turn
from actors.values import StoreMember

_ASK_AGAIN_MS = 1_000
_NEAR_SLOTS = 64
_REPORTS_KEPT = 256
_DIVERGED = "diverged"


@dataclass(frozen=True, slots=True)
class Copying:
    """Outside the view, and lacking rows or contents."""

    member: None = None
    is_whole = False


@dataclass(frozen=True, slots=True)
class Outside:
    """Outside the view and whole, but too far behind the log to be added."""

    member: None = None
    is_whole = True


@dataclass(frozen=True, slots=True)
class Asking:
    """Outside the view and whole: asks to join."""

    member: None = None
    is_whole = True


@dataclass(frozen=True, slots=True)
class Joining:
    """In the view, and lacking rows or contents."""

    member: StoreMember
    is_whole = False


@dataclass(frozen=True, slots=True)
class Member:
    """In the view and whole."""

    member: StoreMember
    is_whole = True


@dataclass(frozen=True, slots=True)
class HasDiverged:
    """Known to have diverged from the other replicas: it serves no reads, and waits for the View
    that drops it, after which it copies another replica's state.
    """

    member: StoreMember | None
    is_whole = False


Standing = Copying | Outside | Asking | Joining | Member | HasDiverged


class Rejoin:
    """The steps of one store towards membership of the view."""

    def __init__(self, turn: Turn, held: StoreState, contents: StoreContents) -> None:
        self._turn = turn
        self._held = held
        self._contents = contents
        self._installer = SnapshotInstaller(turn, self._sources)
        self._asked_at: Milliseconds = -_ASK_AGAIN_MS
        self._reported: dict[int, str] = {}
        """The hashes of its state, by slot, that this store has lately reported."""
        self.has_diverged = False
        """Whether this store's state is known to differ from the other replicas'."""

    def _sources(self) -> list[str]:
        """The replicas to copy a state from."""
        turn = self._turn
        peers = [name for name in turn.names("store") if name != turn.name]
        return [*turn.names("learner"), *peers]

    @property
    def is_installing(self) -> bool:
        """Whether a snapshot is being copied."""
        return self._installer.busy

    @property
    def rows_left(self) -> int:
        """The number of its rows that are to come."""
        return self._installer.rows_left

    @property
    def is_whole(self) -> bool:
        """Whether this store holds the state at its applied slot with all its contents."""
        return not (self.is_installing or self.has_diverged or self._contents.missing)

    @property
    def standing(self) -> Standing:
        """Where this store stands on its way into the view."""
        held, member = self._held, self._held.membership
        if self.has_diverged:
            return HasDiverged(member)
        if member is not None:
            return Member(member) if self.is_whole else Joining(member)
        if not self.is_whole:
            return Copying()
        near = held.reported_through - held.applied <= _NEAR_SLOTS
        return Asking() if near else Outside()

    @property
    def busy(self) -> bool:
        """Whether this store copies a snapshot, or has to join first."""
        return self.is_installing or self.has_diverged or self._held.membership is None

    def restore(self, record: Record) -> bool:
        """Restore a row of the journal if it belongs to this part."""
        if record.key == _DIVERGED:
            self.has_diverged = True
        return record.key == _DIVERGED

    def row(self, key: str) -> bytes | None:
        """The journal's value under `key`, if it belongs to this part."""
        return b"true" if key == _DIVERGED and self.has_diverged else None

    # -- becoming a member -----------------------------------------------------------------------

    def step(self) -> Standing:
        """Go on copying; return the new standing."""
        self._installer.tick()
        if self.has_diverged and self._held.membership is None:
            self._installer.begin()
        return self.standing

    def ask(self) -> None:
        """Ask the learners to join, at most once a second."""
        turn, state = self._turn, self._held.namespace
        if turn.now - self._asked_at >= _ASK_AGAIN_MS:
            self._asked_at = turn.now
            turn.counters["join_requests"] += 1
            request = JoinRequest(applied=state.applied, state_hash=state.state_hash)
            self.note_report()
            turn.send(Group.LEARNERS, request)
        turn.arm("tick", 150, 300)

    def install(self) -> None:
        """Begin to copy a snapshot: the log no longer reaches back to the applied slot."""
        self._installer.begin()
        self._turn.arm("tick", 150, 300)

    def on_page(self, sender: str, message: SnapshotPage) -> CopiedState | None:
        """A page of the snapshot; with the last one, the state to install. It replaces a diverged
        state whatever its slot, and earlier reports no longer count.
        """
        if self.has_diverged and self._held.membership is not None:
            return None
        applied = 0 if self.has_diverged else self._held.applied
        copied = self._installer.on_page(sender, message, applied)
        if copied is not None:
            self._reported.clear()
            if self.has_diverged:
                self.has_diverged = False
                self._turn.journal(_DIVERGED, None)
        return copied

    # -- agreement -------------------------------------------------------------------------------

    def note_report(self) -> None:
        """Remember the hash that this store is about to report."""
        state = self._held.namespace
        self._reported[state.applied] = state.state_hash
        while len(self._reported) > _REPORTS_KEPT:
            del self._reported[next(iter(self._reported))]

    def on_diverged(self, message: Diverged) -> bool:
        """The coordinator's state is another. It counts only if this state's hash was reported."""
        if self._reported.get(message.slot) != message.reported:
            return False
        if not self.has_diverged:
            self.has_diverged = True
            self._turn.counters["diverged"] += 1
            self._turn.journal(_DIVERGED, b"true")
        self._turn.arm("tick", 150, 300)
        return True
