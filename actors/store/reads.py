"""Reads at a store: when one may be served, and its answer (design 4.8).

A linearizable read is served under a lease that the leader granted to this disk, and only once
every slot that was prepared before it and touches its path is decided. Every acknowledged write was
prepared on every store of the view first, so no read can miss one.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from actors.messages import LeaseAsk, LeaseGrant, ReadReply, ReadRequest
from actors.numbers import Milliseconds
from actors.paging import PAGE_BYTES, Page
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.state.namespace import Namespace
from actors.state.rights import EVERYTHING, Need, Rights
from actors.state.tree import is_below
from actors.store import policy_reads
from actors.store.changes import Changes
from actors.store.rejoin import Rejoin
from actors.store.state import StoreState
from actors.turn import Turn
from actors.values import (
    Check,
    CloseSession,
    Command,
    CopyEntry,
    DirectoryEntry,
    MoveEntry,
    OpenSession,
    PolicyChange,
    steps_of,
)

_WAIT_MS = 1_000
_ASK_AGAIN_MS = 150


@dataclass(slots=True)
class WaitingRead:
    """A read that waits for a lease, for prepared slots or for a slot to be applied."""

    sender: str
    request: ReadRequest
    until: Milliseconds
    after_slots: set[int]


@dataclass(slots=True)
class ReadLease:
    """Allows linearizable reads before `until` on this store's clock, once it has applied
    `added_slot`.
    """

    until: Milliseconds
    added_slot: int


class Reads:
    """The reads that wait at one store, and its lease."""

    def __init__(self, turn: Turn, held: StoreState, rejoin: Rejoin) -> None:
        self._turn = turn
        self._held = held
        self._rejoin = rejoin
        self.leader: Ballot = NO_BALLOT
        self._leader_heard_at: Milliseconds = 0
        self.lease = ReadLease(until=0, added_slot=0)
        self._waiting: list[WaitingRead] = []
        self._asked: dict[int, Milliseconds] = {}
        """When each of the latest lease requests was sent."""
        self._number = turn.identity.first_number

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, sender: str, request: ReadRequest) -> None:
        """Serve the read now, or once it may be served."""
        turn, held = self._turn, self._held
        after_slots: set[int] = set()
        if not _may_be_old(request):
            after_slots = {
                slot
                for slot, prepared in held.prepared.items()
                if any(touches(command, request) for command in prepared.batch.commands)
            }
        read = WaitingRead(sender, request, turn.now + _WAIT_MS, after_slots)
        if not self._serve(read):
            self._waiting.append(read)
            turn.arm("tick", 100, 200)

    def wake(self) -> None:
        """Serve the waiting reads that may be served now; something changed, or time passed."""
        if self._waiting:
            self._waiting = [read for read in self._waiting if not self._serve(read)]

    def _serve(self, read: WaitingRead) -> bool:
        """Answer if the read may be served now, and refuse it if its wait is over."""
        turn, held = self._turn, self._held
        obstacle = self._obstacle(read)
        if obstacle is None:
            page_bytes = turn.options.page_bytes
            if read.request.what == "changes":
                answer = answer_changes(held.namespace, held.changes, read.request, page_bytes)
            else:
                answer = answer_read(held.namespace, read.request, page_bytes)
            turn.send(read.sender, answer)
        elif turn.now >= read.until:
            turn.counters["reads_refused"] += 1
            turn.send(
                read.sender,
                ReadReply(
                    number=read.request.number,
                    status="not_served",
                    applied=held.applied,
                    detail=f"{turn.name}: {obstacle}",
                ),
            )
        else:
            return False
        return True

    def _obstacle(self, read: WaitingRead) -> str | None:
        """Why `read` can't be served now; the lease is compared with the clock at each use."""
        turn, applied = self._turn, self._held.applied
        if self._rejoin.has_diverged:
            return "its state has diverged"
        if self._rejoin.is_installing:
            return "its state is being copied"
        if read.request.what == "changes" and turn.now >= read.until:
            return None  # Without changes the answer is an empty one.
        if applied < read.request.at_least:
            return f"slot {read.request.at_least} is not applied here yet"
        if _may_be_old(read.request):
            return None
        if turn.now >= self.lease.until or applied < self.lease.added_slot:
            self._ask_lease()
            return "no read lease"
        if any(slot > applied for slot in read.after_slots):
            return "a write to this path is not decided yet"
        return None

    def follow(self, ballot: Ballot) -> None:
        """Follow the leader of the highest ballot, unless nothing came under it for two leases."""
        turn = self._turn
        if ballot >= self.leader or (
            turn.now - self._leader_heard_at >= 2 * turn.constants.lease_ms
        ):
            self.leader, self._leader_heard_at = ballot, turn.now

    def _ask_lease(self) -> None:
        """Ask the leader for a lease, which counts from this moment; at most once in a while."""
        turn = self._turn
        newest = self._asked.get(self._number, -_ASK_AGAIN_MS)
        if self.leader == NO_BALLOT or turn.now - newest < _ASK_AGAIN_MS:
            return
        self._number += 1
        self._asked[self._number] = turn.now
        self._asked.pop(self._number - 16, None)
        turn.send(self.leader.node, LeaseAsk(number=self._number))

    def give_up_lease(self) -> None:
        """Serve no more linearizable reads under the lease that was granted."""
        self.lease = ReadLease(until=0, added_slot=0)

    def on_lease_grant(self, message: LeaseGrant) -> None:
        """Take the lease, which runs from the time of the request, less the margin."""
        turn = self._turn
        asked_at = self._asked.get(message.number)
        if asked_at is None or message.disk != turn.identity.disk:
            return
        until = asked_at + message.duration_ms - turn.constants.lease_margin_ms
        if until > self.lease.until:
            self.lease = ReadLease(until=until, added_slot=message.added_slot)
        self.wake()


def _may_be_old(request: ReadRequest) -> bool:
    """Whether any state of the log may answer. Not the result of a command: that it has none is
    final, so only a current state may report it; and not who may do what.
    """
    return request.what == "changes" or (
        request.what in ("entry", "list") and request.consistency == "stale"
    )


def answer_read(state: Namespace, request: ReadRequest, page_bytes: int = PAGE_BYTES) -> ReadReply:
    """The answer at the state's applied slot, by the principal's rights there. A list ends after
    `limit` children, or earlier after `page_bytes` of them; `more`: whether others follow.
    """
    rights = state.policy.rights_of(request.principal, state.log_time_ms)
    if rights is None:
        return _refused(state.applied, request, "unauthenticated", "")
    if request.what == "result":
        return _answer_result(state, request, rights)
    if request.what == "quotas":
        return policy_reads.answer_quotas(state, request, rights)
    if request.what == "access" or request.what in policy_reads.OF_THE_POLICY:
        return policy_reads.answer(state, request, rights, page_bytes)
    listed = request.what == "list" and rights.leads_on(request.path)
    if not (rights.may("read", request.path) or listed):
        need = Need("read", request.path)
        return _refused(state.applied, request, "denied", need.text)
    entry = state.tree.lookup(request.path)
    if entry is None:
        return ReadReply(number=request.number, status="absent", applied=state.applied)
    if request.what == "list" and isinstance(entry, DirectoryEntry):
        children, more = state.tree.list_directory(
            request.path,
            request.after,
            request.limit,
            None if rights.may("read", request.path) else rights.may_reach,
        )
        page = Page(page_bytes)
        fitting = tuple(itertools.takewhile(lambda one: page.takes(len(one.to_json())), children))
        return ReadReply(
            number=request.number,
            status="found",
            applied=state.applied,
            entry=entry,
            children=fitting,
            more=more or len(fitting) < len(children),
        )
    return ReadReply(number=request.number, status="found", applied=state.applied, entry=entry)


def answer_changes(
    state: Namespace, changes: Changes, request: ReadRequest, page_bytes: int = PAGE_BYTES
) -> ReadReply:
    """The changes from slot `at_least` on that the principal may read, by its rights now;
    `forgotten` if not all changes are kept here.

    The answer ends after `limit` changes, or `page_bytes` of them; `applied` is its last slot.
    """
    rights = state.policy.rights_of(request.principal, state.log_time_ms)
    if rights is None:
        return _refused(state.applied, request, "unauthenticated", "")
    if not rights.leads_on(""):
        return _refused(state.applied, request, "denied", Need("read", "").text)
    after = max(0, request.at_least - 1)
    if after + 1 < changes.first:
        return ReadReply(
            number=request.number,
            status="forgotten",
            applied=changes.last,
            detail=f"changes are kept from slot {changes.first} on",
        )
    rows, through = changes.since(after, request.limit, page_bytes)
    if rights is not EVERYTHING:
        shown = (policy_reads.visible_part(change, rights) for change in rows)
        rows = tuple(change for change in shown if change is not None)
    return ReadReply(number=request.number, status="found", applied=through, changes=rows)


def _refused(
    applied: int, request: ReadRequest, status: Literal["denied", "unauthenticated"], detail: str
) -> ReadReply:
    """The answer to a principal that may not read this, whether it is there or not."""
    return ReadReply(number=request.number, status=status, applied=applied, detail=detail)


def _answer_result(state: Namespace, request: ReadRequest, rights: Rights) -> ReadReply:
    """The result of a command; `absent`, which is final, if its session closed without one. Its
    principal may read it, and those who may read everything.
    """
    session = state.sessions.by_name.get(request.session)
    # A session that was unknown when it was closed may have expired, with all its results.
    if session is None or (session.acknowledged < 0 and 0 not in session.results):
        return ReadReply(number=request.number, status="unknown_session", applied=state.applied)
    outcome = session.results.get(request.sequence)
    if outcome is not None:
        own = request.principal is not None and outcome.token == request.principal.owner
        if not own and not rights.may("read", ""):
            return _refused(state.applied, request, "denied", "")
        return ReadReply(
            number=request.number, status="found", applied=state.applied, outcome=outcome
        )
    if request.sequence <= session.acknowledged:
        return ReadReply(number=request.number, status="forgotten", applied=state.applied)
    status = "absent" if session.closed else "running"
    return ReadReply.model_validate(
        {"number": request.number, "status": status, "applied": state.applied}
    )


def touches(command: Command, request: ReadRequest) -> bool:
    """Whether the outcome of `command` can change the answer: it changes the path, or one above or
    below it. Who may read what depends on every change of the policy.
    """
    if isinstance(command.operation, PolicyChange) and _rests_on_policy(request):
        return True
    if request.what == "result":
        return (command.session, command.sequence) == (request.session, request.sequence)
    return any(
        path == request.path or is_below(request.path, path) or is_below(path, request.path)
        for path in _changed_paths(command)
    )


def _rests_on_policy(request: ReadRequest) -> bool:
    """Whether the answer depends on who may do what."""
    return request.principal is not None or request.what in policy_reads.OF_THE_POLICY


def _changed_paths(command: Command) -> Iterator[str]:
    """The paths at which, and below which, the command may change something."""
    for step in steps_of(command.operation):
        match step:
            case OpenSession() | CloseSession() | Check():
                pass
            case _ if isinstance(step, PolicyChange):
                pass
            case MoveEntry(source=source, target=target):
                yield source
                yield target
            case CopyEntry(target=target):
                yield target
            case _:
                yield step.path
