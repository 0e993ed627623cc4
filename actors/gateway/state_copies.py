"""A copy of the whole state for a backup, page by page, and the hold on the chunks that it names.

The pages are those of `actors.state.snapshots`, but the gateway passes each page on and does not
assemble them, so that its memory does not grow with the namespace. It asks the coordinator first,
because all other states are compared with the coordinator's (design 4.10), then the other learners,
then the stores of the view.
"""

from dataclasses import dataclass

from actors.calls import NOTHING_READ, CopiedPage, CopySnapshot, HoldChunks, Holding, NotDone
from actors.gateway.cluster_state import ClusterState
from actors.messages import ChunkHold, SnapshotPage, SnapshotPull
from actors.numbers import Milliseconds
from actors.rotation import Rotation
from actors.state.snapshots import digest_of
from actors.turn import Turn

_PATIENCE_MS = 2_000


@dataclass(slots=True)
class PendingCopy:
    """A page that was requested and has not come."""

    call: CopySnapshot
    deadline: Milliseconds
    rotation: Rotation
    first: str
    """The replica that sent the page before, or empty."""
    slot: int = 0
    page: int = 0


class Copies:
    """The pages that one gateway waits for."""

    def __init__(self, turn: Turn, cluster: ClusterState) -> None:
        self._turn = turn
        self._cluster = cluster
        self._copying: dict[int, PendingCopy] = {}

    @property
    def busy(self) -> bool:
        """Whether this gateway waits for any page."""
        return bool(self._copying)

    def hold(self, call: HoldChunks) -> None:
        """Ask all stores to keep their chunks: one outside the view may join in the meantime."""
        turn = self._turn
        for store in turn.names("store"):
            turn.send(store, ChunkHold(for_ms=call.for_ms))
        turn.answer(call.token, Holding())

    def copy(self, call: CopySnapshot) -> None:
        """Request a page."""
        turn = self._turn
        named = call.source.partition("/")[0]
        deadline = turn.now + turn.options.request_deadline_ms
        first = named if call.slot > 0 else ""
        copying = PendingCopy(call, deadline, Rotation(deadline=deadline), first)
        self._copying[call.token] = copying
        self._ask(copying)

    def _sources(self, first: str) -> list[str]:
        """All replicas, in order of preference."""
        turn, cluster = self._turn, self._cluster
        view = cluster.view or turn.genesis.view
        names = (view.coordinator, *turn.names("learner"), *cluster.stores)
        return sorted(dict.fromkeys(names), key=lambda name: name != first)

    def _ask(self, copying: PendingCopy) -> None:
        """Ask the replica whose turn it is, if it is time to ask one."""
        turn, cluster, call = self._turn, self._cluster, copying.call
        sources = self._sources(copying.first)
        silent = cluster.silent(tuple(sources)) - {copying.first}
        source = copying.rotation.next(sources, turn.now, _PATIENCE_MS, silent)
        if source is None:
            return
        goes_on = source == copying.first
        copying.slot, copying.page = (call.slot, call.page) if goes_on else (0, 0)
        copying.first = ""  # If that replica is asked again, it is asked for a state from page 0.
        turn.send(source, SnapshotPull(slot=copying.slot, page=copying.page))

    def on_page(self, sender: str, message: SnapshotPage) -> None:
        """The requested page, or the first page of another state; any other one is late."""
        turn = self._turn
        waiting = [c for c in self._copying.values() if c.rotation.asked == sender]
        if waiting and digest_of(message.rows) != message.digest:
            turn.counters["snapshot_pages_refused"] += 1
            for copying in waiting:
                copying.rotation.refused(sender, turn.now, "its page was damaged on its way")
            return
        for copying in waiting:
            expected = (message.slot, message.page) == (copying.slot, copying.page)
            if not expected and (message.page or message.slot < copying.slot):
                continue
            if message.slot < copying.call.at_least:
                why = f"only at slot {message.slot}, not at {copying.call.at_least}"
                copying.rotation.refused(sender, turn.now, why)
                continue
            del self._copying[copying.call.token]
            # Two incarnations of a replica may list the same state in different orders.
            source = f"{sender}/{turn.sender_disk}/{turn.sender_incarnation}"
            turn.answer(copying.call.token, CopiedPage(source, message))

    def tick(self) -> None:
        """Ask the next replica for its own state; end the waits that are over."""
        turn = self._turn
        for token in sorted(self._copying):
            copying = self._copying[token]
            if turn.now >= copying.deadline:
                del self._copying[token]
                reason = f"no replica sent its state ({copying.rotation.account})"
                turn.answer(token, NotDone(reason, NOTHING_READ))
            else:
                self._ask(copying)
