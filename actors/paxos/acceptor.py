"""The acceptor: promises and accepts, durably (Paxos Made Simple, section 2.2).

Safety depends on its journal alone: every answer is committed before it leaves (`Effects` order).
It votes for batches as they came, and reads none (`actors.paxos.votes`).
The lease depends on the rate of its own clock, never on wall time, and on a silence of one whole
lease after every restart, because a lease that the former incarnation granted is not journalled.
"""

from bisect import bisect_left, insort
from typing import ClassVar

from pydantic import TypeAdapter

from actors.effects import Group, Record
from actors.errors import InvariantViolation
from actors.messages import (
    Accept,
    Accepted,
    AcceptedRange,
    LeaseGranted,
    LeaseHeartbeat,
    NodeHeartbeat,
    Prepare,
    Promise,
    PullChosen,
    Reject,
    Superseded,
    Truncate,
)
from actors.node import Handlers, Node, read_record
from actors.numbers import Count
from actors.options import Identity, Options
from actors.paging import Page
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.paxos.votes import accepted_of, are_same, reported, unread
from actors.values import AcceptedValue, Frozen, weight

_PROMISED: TypeAdapter[tuple[int, str] | tuple[int, str, int]] = TypeAdapter(
    tuple[Count, str] | tuple[Count, str, Count]
)
_ACCEPTED = TypeAdapter(AcceptedValue)
_SLOT = TypeAdapter(int)

TRUNCATED = "truncated"
"""The key of the row that names the first slot that is not truncated."""


class Acceptor(Node):
    """One of the voters. State: the promised ballot, the fence, and what was accepted last for each
    slot.
    """

    def __init__(self, identity: Identity, options: Options) -> None:
        super().__init__(identity, options)
        self.promised = NO_BALLOT
        self.fence = 0
        """The highest version of the acceptors that a message named to which it answered with yes.
        It refuses lower ones: their senders may not know who votes now (design 3.12).
        """
        self.accepted: dict[int, AcceptedValue] = {}
        self.truncated_below = 1
        self._slots: list[int] = []
        """The slots in `accepted`, in order: between two of them there may be any number."""
        self._lease_holder = NO_BALLOT
        self._lease_until = 0
        self._silent_until = 0

    def _restore(self, records: list[Record]) -> None:
        for record in records:
            if record.key == "promised":
                number, proposer, *fence = read_record(_PROMISED, record)
                self.promised, self.fence = Ballot(number, proposer), sum(fence)
                self.founding.version = self.fence
            elif record.key == TRUNCATED:
                self.truncated_below = read_record(_SLOT, record)
            elif record.key.startswith("accepted/"):
                accepted = accepted_of(record) or read_record(_ACCEPTED, record)
                self.accepted[accepted.slot] = accepted
        self._slots = sorted(self.accepted)

    def _start(self) -> None:
        # Its former incarnation may have granted a lease a moment ago, and if its disk is an older
        # copy, the report of that (StaleDisk) must arrive before it votes.
        self._silent_until = self.now + self.constants.lease_ms

    def heartbeat(self) -> NodeHeartbeat:
        promised = None if self.promised == NO_BALLOT else self.promised
        return NodeHeartbeat(role="acceptor", journal_commits=self._commits, ballot=promised)

    def _remake_row(self, key: str) -> Frozen | bytes | None:
        if key == "promised":
            return self._promised_row()
        if key == TRUNCATED:
            return _SLOT.dump_json(self.truncated_below)
        kind, _, slot = key.partition("/")
        return self.accepted.get(int(slot, 16)) if kind == "accepted" else None

    def _may_be_gone(self, key: str) -> bool:
        return key.startswith("accepted/")

    # -- phase 1 ---------------------------------------------------------------------------------

    def _on_prepare(self, sender: str, message: Prepare) -> None:
        if self._refuses(sender, message):
            return
        self._promise(message)
        entries: list[AcceptedValue] = []
        page = Page(self.options.page_bytes)
        next_slot: int | None = None
        for slot in self._slots_from(message.first_slot):
            accepted = self.accepted[slot]
            if not page.takes(weight(accepted.value)):
                next_slot = slot
                break
            entries.append(reported(accepted))
        self._send(
            sender,
            Promise(
                ballot=message.ballot,
                first_slot=message.first_slot,
                next_slot=next_slot,
                accepted=tuple(entries),
                truncated_below=self.truncated_below,
            ),
        )

    # -- phase 2 ---------------------------------------------------------------------------------

    def _on_accept(self, sender: str, message: Accept) -> None:
        if message.slot < self.truncated_below:
            self._reject(sender, message.ballot)
            return
        if self._refuses(sender, message):
            return
        self._promise(message)
        former = self.accepted.get(message.slot)
        value = unread(message.value)
        if former is None or former.ballot != message.ballot:
            accepted = AcceptedValue(slot=message.slot, ballot=message.ballot, value=value)
            self.accepted[message.slot] = accepted
            if former is None:
                insort(self._slots, message.slot)
            self._journal(f"accepted/{message.slot:016x}", accepted)
        elif not are_same(former.value, value):
            raise InvariantViolation(
                f"ballot {message.ballot} proposed two values for slot {message.slot}: "
                f"{former.value!r} and {value!r}"
            )
        self._send(
            message.learner or Group.LEARNERS, Accepted(ballot=message.ballot, slot=message.slot)
        )

    # -- the leader's lease ----------------------------------------------------------------------

    def _on_lease_heartbeat(self, sender: str, message: LeaseHeartbeat) -> None:
        """Promise no other ballot for one lease from now (design 3.8)."""
        if self._refuses(sender, message):
            return
        self._promise(message)
        self._lease_holder = message.ballot
        self._lease_until = self.now + self.constants.lease_ms
        self._send(sender, LeaseGranted(ballot=message.ballot, number=message.number))

    # -- learning --------------------------------------------------------------------------------

    def _on_pull(self, sender: str, message: PullChosen) -> None:
        entries: list[AcceptedValue] = []
        page = Page(self.options.page_bytes)
        for slot in self._slots_from(message.first_slot):
            entry = self.accepted[slot]
            if slot > message.last_slot or not page.takes(weight(entry.value)):
                break
            entries.append(reported(entry))
        self._send(
            sender,
            AcceptedRange(entries=tuple(entries), truncated_below=self.truncated_below),
        )

    def _on_truncate(self, sender: str, message: Truncate) -> None:
        """Forget what is durable at the coordinator and all stores of the view."""
        if message.below <= self.truncated_below:
            return
        count = bisect_left(self._slots, message.below)
        for slot in self._slots[:count]:
            del self.accepted[slot]
            self._journal(f"accepted/{slot:016x}", None)
        del self._slots[:count]
        self.truncated_below = message.below
        self._journal(TRUNCATED, _SLOT.dump_json(message.below))

    def _slots_from(self, first: int) -> list[int]:
        return self._slots[bisect_left(self._slots, first) :]

    # -- promises --------------------------------------------------------------------------------

    def _refuses(self, sender: str, message: Prepare | Accept | LeaseHeartbeat) -> bool:
        """Whether a promise, the silence after a restart, a lease or the fence forbids serving the
        ballot of `message`.

        So does a round that no candidate can have reached: once promised, it could be the last one.
        Refusing is always safe. Without room on its disk the acceptor can promise nothing, and does
        not answer.
        """
        if self.disk_full:
            self.counters["silent_disk_full"] += 1
            return True
        ballot = message.ballot
        leased = ballot != self._lease_holder and self.now < self._lease_until
        implausible = not ballot.is_plausible_after(self.promised)
        if message.version < self.fence:
            self.counters["fenced"] += 1
            self._reject(sender, ballot)
            return True
        if self.now < self._silent_until or ballot < self.promised or leased or implausible:
            self._reject(sender, ballot)
            return True
        return False

    def _reject(self, sender: str, ballot: Ballot) -> None:
        self.counters["rejects"] += 1
        until = max(self._silent_until, self._lease_until)
        self._send(
            sender,
            Reject(
                ballot=ballot,
                promised=self.promised,
                lease_left_ms=max(0, until - self.now),
                truncated_below=self.truncated_below,
                fence=self.fence,
            ),
        )

    def _promise(self, message: Prepare | Accept | LeaseHeartbeat) -> None:
        """Promise the ballot, and raise the fence to the version, before the answer leaves."""
        ballot = message.ballot
        if ballot < self.promised:
            raise InvariantViolation(
                f"{self.name} promised {self.promised} and was about to promise {ballot}"
            )
        if message.version < self.fence:
            raise InvariantViolation(
                f"{self.name} had answered version {self.fence} and was about to serve one that "
                f"knows {message.version}"
            )
        if ballot > self.promised:
            self.counters["promises"] += 1
        if ballot > self.promised or message.version > self.fence:
            self.promised, self.fence = ballot, message.version
            self.founding.version = self.fence
            self._journal("promised", self._promised_row())

    def _promised_row(self) -> bytes:
        """The promised ballot, and the fence once there is one: so no release that does not know
        fences can read the journal, and vote without it.
        """
        number, proposer = self.promised
        if self.fence:
            return _PROMISED.dump_json((number, proposer, self.fence))
        return _PROMISED.dump_json((number, proposer))

    def _on_superseded(self, sender: str, message: Superseded) -> None:
        """Halt: another disk has this name now. What this one votes counts for nothing any more."""
        if message.disk == self.identity.disk:
            self.out.halt = (
                f"{self.name}: this disk ({message.disk}) is no acceptor any more: it was removed "
                f"or replaced (version {message.version} of the acceptors). Nothing depends on it; "
                "its folder may be removed."
            )

    # -- handlers --------------------------------------------------------------------------------

    handlers: ClassVar[Handlers] = {
        Prepare: _on_prepare,
        Accept: _on_accept,
        LeaseHeartbeat: _on_lease_heartbeat,
        PullChosen: _on_pull,
        Truncate: _on_truncate,
        Superseded: _on_superseded,
    }
