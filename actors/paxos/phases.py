"""The phases of a proposer: it follows, stands for election, or leads under one ballot."""

from collections import deque
from dataclasses import dataclass, field

from actors.numbers import GAP_SLOTS_MAX, Milliseconds
from actors.paxos.ballot import Ballot
from actors.paxos.membership import Configuration, Key
from actors.paxos.phase_one import Promises
from actors.values import (
    Abort,
    AnyValue,
    AnyVote,
    Command,
    Members,
    Roster,
    Settled,
    StoreMember,
    View,
)


@dataclass(slots=True)
class Following:
    """Another proposer leads, or there is no leader and an election is due."""

    heard_at: Milliseconds


@dataclass(slots=True)
class Electing:
    """Phase 1 runs under `ballot`."""

    ballot: Ballot
    promises: Promises
    lease_bound: set[Key] = field(default_factory=set)
    """The acceptors that may not promise because of a lease, a restart or the fence."""

    def forget(self, acceptor: Key) -> None:
        """Forget the promise of a disk."""
        self.promises.by_acceptor.pop(acceptor, None)
        self.lease_bound.discard(acceptor)


@dataclass(slots=True)
class InFlight:
    """A proposed slot that no learner has reported as chosen yet."""

    value: AnyVote
    sent_at: Milliseconds


@dataclass(slots=True)
class Leading:
    """Phase 2 under `ballot`."""

    ballot: Ballot
    elected_at: Milliseconds
    promises: Promises
    next_slot: int
    """The next slot to propose: what phase 1 found there, or a new value."""
    recovered_through: int
    """The last slot that phase 1 found in use: up to it, other leaders' values may be chosen."""
    far_slot: int | None = None
    """The first slot beyond a gap too long to fill for which an acceptor has a value. This ballot
    proposes nothing there, so that the next phase 1 still finds what was accepted.
    """
    in_flight: dict[int, InFlight] = field(default_factory=dict)
    reproposed: dict[int, AnyVote] = field(default_factory=dict)
    """The values that phase 1 found and that were proposed again. A learner may report one as
    chosen under a former ballot and crash, while this ballot has no quorum yet and the former one
    no longer has any.
    """
    undecided: dict[int, int] = field(default_factory=dict)
    """The number of commands in each slot that no learner has reported as decided."""
    queue: deque[Command] = field(default_factory=deque)
    underway: set[tuple[str, int]] = field(default_factory=set)
    """The commands in `queue` and `in_flight`."""
    heartbeat_number: int = 0
    sent_at: dict[int, Milliseconds] = field(default_factory=dict)
    granted: dict[Key, Milliseconds] = field(default_factory=dict)
    """For each acceptor, when the latest heartbeat that it acknowledged was sent."""
    log_time_at: Milliseconds = 0
    """The time on this clock through which batches have advanced log time."""
    read_grants: dict[str, Milliseconds] = field(default_factory=dict)
    """For each store, the end of the read lease it may hold, on this clock."""
    waiting_views: list[View] = field(default_factory=list)
    """Views that drop a store whose read lease may still run."""
    waiting_values: deque[View | Abort] = field(default_factory=deque)
    """Views and Aborts that wait for their slot."""
    planned: Configuration | None = None
    """The acceptors of a change that was asked for; their promises are wanted before it begins."""
    sent_version: dict[int, int] = field(default_factory=dict)
    """The version that each heartbeat in `sent_at` named."""
    answered: dict[Key, int] = field(default_factory=dict)
    """For each acceptor, the highest version that it has answered: its fence is no lower."""

    def plans(self, acceptor: Key) -> bool:
        """Whether it is one of the acceptors of a change that was asked for."""
        return self.planned is not None and acceptor in self.planned.voters

    def forget(self, acceptor: Key) -> None:
        """Forget what a disk has promised and granted."""
        for table in (self.promises.by_acceptor, self.granted, self.answered):
            table.pop(acceptor, None)

    @property
    def frontier(self) -> int:
        """The first slot that is neither proposed nor found in use by phase 1."""
        return max(self.next_slot, self.recovered_through + 1)

    @property
    def changes_members(self) -> bool:
        """Whether a change of the members, or its end, is in flight."""
        return any(isinstance(f.value, Members | Settled | Roster) for f in self.in_flight.values())

    def take_commands(self, count_max: int, bytes_max: int) -> tuple[Command, ...]:
        """Take the commands of the next slot from the queue: one at least."""
        commands: list[Command] = []
        size_bytes = 0
        while (
            self.queue
            and len(commands) < count_max
            and (not commands or size_bytes + self.queue[0].size_bytes <= bytes_max)
        ):
            commands.append(self.queue.popleft())
            size_bytes += commands[-1].size_bytes
        return tuple(commands)

    def is_asked_for(self, value: AnyValue) -> bool:
        """Whether `value` is proposed and not known as chosen, or waits for its slot."""
        return value in self.waiting_values or any(
            flight.value == value for flight in self.in_flight.values()
        )

    @property
    def pending_views(self) -> list[View]:
        """The Views that may be chosen before any value that comes later."""
        flying = [flight.value for flight in self.in_flight.values()]
        views = [value for value in (*flying, *self.waiting_values) if isinstance(value, View)]
        return views + self.waiting_views


def recoverable_range(low: int, found: set[int]) -> tuple[int, int | None]:
    """The last slot in `found` that is reached from `low` without a gap too long to fill, and the
    first slot beyond such a gap.
    """
    last = low - 1
    for slot in sorted(slot for slot in found if slot >= low):
        if slot - last > GAP_SLOTS_MAX:
            return last, slot
        last = slot
    return last, None


def drops(view: View, member: StoreMember) -> bool:
    """Whether `view` does not continue the membership of `member`."""
    kept = view.member(member.name)
    return kept is None or (kept.disk, kept.added_slot) != (member.disk, member.added_slot)
