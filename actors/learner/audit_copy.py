"""How a learner gets back the records of the audit that it lacks: from the other learners.

A learner lacks records if it has copied another replica's state, as one does that has lost its
disk. It knows the end of the chain from that state, so it takes over nothing that does not lead
there. It asks each other learner until it has all that any of them keeps, and again from time to
time, for one that has none may get them, and one that was away may have them.
"""

from collections.abc import Callable

from actors.learner.audit_log import AuditLog, part_of
from actors.messages import AuditPage, AuditRead
from actors.rotation import Rotation
from actors.state.audit import next_hash
from actors.turn import Turn

_PATIENCE_MS = 2_000
_LIMIT = 4_096


class AuditCopy:
    """The copying of records into one learner's log."""

    def __init__(self, turn: Turn, log: AuditLog, peers: Callable[[], list[str]]) -> None:
        self._turn = turn
        self._log = log
        self._peers = peers
        self._waiting: set[str] = set()
        """The learners that may have what is missing."""
        self._number = turn.identity.first_number
        self._rotation = Rotation()
        self._was_in_vain = False
        """Whether it has asked all others before, and none has sent anything since."""

    @property
    def asks(self) -> bool:
        """Whether a learner is to be asked."""
        return bool(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether records are still to be had, as far as is known."""
        return self.asks and not self._was_in_vain

    def begin(self, *, again: bool = False) -> None:
        """Records before the kept ones may be missing: ask the other learners, or ask all `again`
        that had none.
        """
        log = self._log
        lacks = log.first > 1 and log.bytes < self._turn.options.audit_bytes // 2
        if lacks and not (again and self.asks):
            self._was_in_vain = again
            self._waiting = set(self._peers())
            self._rotation = Rotation()

    def tick(self) -> None:
        """Ask the learner whose turn it is, if it is time to ask one."""
        peers = [name for name in self._peers() if name in self._waiting]
        self._waiting.intersection_update(peers)  # Of removed ones nothing comes any more.
        if not peers:
            return
        turn = self._turn
        peer = self._rotation.next(peers, turn.now, _PATIENCE_MS)
        if peer is not None:
            self._ask(peer)

    def _ask(self, peer: str) -> None:
        log = self._log
        run = log.run
        after = log.parts[run - 1].last if run else 0
        self._number += 1
        read = AuditRead(number=self._number, after=after, before=log.first, limit=_LIMIT)
        self._turn.send(peer, read)

    def on_page(self, sender: str, page: AuditPage) -> None:
        """A learner's records, or that it has none that are missing here."""
        turn, log = self._turn, self._log
        if page.number != self._number or sender != self._rotation.asked:
            return
        if not page.records:
            self._without(sender)
        elif not self._take(page):
            turn.counters["audit_pages_refused"] += 1
            self._without(sender)
        elif log.first == 1 or log.bytes >= turn.options.audit_bytes:
            self._end()
        else:
            self._was_in_vain = False
            self._rotation.progressed(turn.now, _PATIENCE_MS)
            self._ask(sender)

    def _without(self, peer: str) -> None:
        """`peer` has no more. In the end, records beyond a gap that nobody fills are of no use."""
        self._waiting.discard(peer)
        self._rotation.refused(peer, self._turn.now, "it has none of the records")
        if not self._waiting:
            self._end()

    def _end(self) -> None:
        self._waiting.clear()
        self._log.drop(self._log.parts[: self._log.run])

    def _take(self, page: AuditPage) -> bool:
        """Add the records of a page, if they fit; whether they did."""
        log = self._log
        run = log.run
        goal = log.parts[run].previous if run < len(log.parts) else log.head
        before = log.parts[run - 1] if run else None
        first = page.through - len(page.records) + 1
        lines = [record.text for record in page.records]
        head = page.previous
        for line in lines:
            head = next_hash(head, line)
        reaches = page.through + 1 == log.first
        follows = before is not None and first == before.last + 1
        if page.through >= log.first or first <= (0 if before is None else before.last):
            return False
        if follows and before is not None and page.previous != before.head:
            return False
        if reaches and head != goal:
            log.drop(log.parts[:run])
            return False
        if not follows:
            # The peer keeps only later ones: what is before the new gap can't be joined to them.
            log.drop(log.parts[:run])
        log.insert(part_of(first, lines, page.previous, head, pack=True))
        self._turn.counters["audit_records_copied"] += len(lines)
        if reaches:
            self._turn.counters["audit_gaps_filled"] += 1
        return True
