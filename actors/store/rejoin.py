"""How a store gets into the view: it copies what it lacks, then asks (design 4.7).

A store whose disk the view does not name is a newcomer, whatever it was before: it has a say in
nothing and serves no linearizable read. It copies a snapshot if the log is gone, then the contents
that are missing, then the tail of the log, and asks the coordinator to be added. A member whose
state is not the others' takes no part in reads, waits for the View that drops it, and then becomes
a newcomer too: had it forgotten earlier what it holds, it could break a promise made by its votes.
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
    """Outside the view and whole; what is to be applied first is too much yet to be added."""

    member: None = None
    is_whole = True


@dataclass(frozen=True, slots=True)
class Asking:
    """Outside the view and whole: asks to be added."""

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
    """Its state is known not to be what the others have: it serves no reads, and waits for the
    View that drops it, after which it copies another's state.
    """

    member: StoreMember | None
    is_whole = False


Standing = Copying | Outside | Asking | Joining | Member | HasDiverged


class Rejoin:
    """The way of one store into the view."""

    def __init__(self, turn: Turn, held: StoreState, contents: StoreContents) -> None:
        self._turn = turn
        self._held = held
        self._contents = contents
        names = turn.options.names
        peers = [name for name in names("store") if name != turn.name]
        self._installer = SnapshotInstaller(turn, [*names("learner"), *peers])
        self._asked_at: Milliseconds = -_ASK_AGAIN_MS
        self._reported: dict[int, str] = {}
        """The states that this store has lately told others of."""
        self.has_diverged = False
        """Whether this store's state is known not to be what the others have."""

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
        return not (self.is_installing or self.has_diverged or self._contents.missing)

    @property
    def standing(self) -> Standing:
        """Where this store is on its way."""
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
        """Whether there is anything to wait for."""
        return self.is_installing or self.has_diverged or self._held.membership is None

    def restore(self, record: Record) -> bool:
        """Take in a row of the journal if it is this one's."""
        if record.key == _DIVERGED:
            self.has_diverged = True
        return record.key == _DIVERGED

    def row(self, key: str) -> bytes | None:
        """What the journal is to hold under `key`, if it is one of this one's."""
        return b"true" if key == _DIVERGED and self.has_diverged else None

    # -- becoming a member -----------------------------------------------------------------------

    def step(self) -> Standing:
        """Go on with the copying; the standing that comes of it."""
        self._installer.tick()
        if self.has_diverged and self._held.membership is None:
            self._installer.begin()
        return self.standing

    def ask(self) -> None:
        """Ask the learners to be added, at most once a second."""
        turn, state = self._turn, self._held.namespace
        if turn.now - self._asked_at >= _ASK_AGAIN_MS:
            self._asked_at = turn.now
            turn.counters["join_requests"] += 1
            request = JoinRequest(applied=state.applied, state_hash=state.state_hash)
            self.note_report()
            turn.send(Group.LEARNERS, request)
        turn.arm("tick", 150, 300)

    def install(self) -> None:
        """The log does not reach back to what this store has applied."""
        self._installer.begin()
        self._turn.arm("tick", 150, 300)

    def on_page(self, sender: str, message: SnapshotPage) -> CopiedState | None:
        """A page of the snapshot; with the last one, the state to install. A diverged state is
        replaced by any other one, and what was told of it counts no more.
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
        """This store tells the others of its state."""
        state = self._held.namespace
        self._reported[state.applied] = state.state_hash
        while len(self._reported) > _REPORTS_KEPT:
            del self._reported[next(iter(self._reported))]

    def on_diverged(self, message: Diverged) -> bool:
        """The others have another state. What a former state was told of does not count."""
        if self._reported.get(message.slot) != message.reported:
            return False
        if not self.has_diverged:
            self.has_diverged = True
            self._turn.counters["diverged"] += 1
            self._turn.journal(_DIVERGED, b"true")
        self._turn.arm("tick", 150, 300)
        return True
