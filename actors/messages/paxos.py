"""Paxos, the leader's lease, and learning what was chosen (design 3)."""

from typing import Annotated, Literal

from pydantic import Field

from actors.frozen import is_none as _is_none
from actors.numbers import Count
from actors.paxos.ballot import Ballot
from actors.paxos.membership import Membership
from actors.values import Abort, AcceptedValue, Frozen, Holder, SlotValue, View, Vote


def _is_0(count: int) -> bool:
    """For versions, which are written only once the acceptors have changed."""
    return count == 0


class Prepare(Frozen):
    """Phase 1a for all slots from `first_slot` on.

    `version` here, in `Accept` and in `LeaseHeartbeat` is that of the newest acceptors that are
    named durably for certain, as far as the sender knows (design 3.12).
    """

    type: Literal["paxos.prepare"] = "paxos.prepare"
    ballot: Ballot
    first_slot: Count
    version: Count = Field(0, exclude_if=_is_0)


class Promise(Frozen):
    """Phase 1b, one page: covers the slots `first_slot <= s < next_slot` (`None`: all that follow).

    A covered slot that is not in `accepted` is empty at this acceptor.
    """

    type: Literal["paxos.promise"] = "paxos.promise"
    ballot: Ballot
    first_slot: Count
    next_slot: Count | None
    accepted: tuple[AcceptedValue, ...]
    truncated_below: Count


class Accept(Holder):
    """Phase 2a, to acceptors and learners. The votes go to `learner`; empty: to all learners."""

    type: Literal["paxos.accept"] = "paxos.accept"
    ballot: Ballot
    slot: Count
    value: Vote
    learner: str = ""
    version: Count = Field(0, exclude_if=_is_0)


class Accepted(Frozen):
    """Phase 2b, to the learners. The value is not repeated."""

    type: Literal["paxos.accepted"] = "paxos.accepted"
    ballot: Ballot
    slot: Count


class Reject(Frozen):
    """The refusal of `ballot`: a higher one is promised, a lease runs, slots are truncated, or the
    sender of `ballot` does not know the acceptors of version `fence`.
    """

    type: Literal["paxos.reject"] = "paxos.reject"
    ballot: Ballot
    promised: Ballot
    lease_left_ms: Count
    truncated_below: Count
    fence: Count = Field(0, exclude_if=_is_0)


class LeaseHeartbeat(Frozen):
    """The leader asks for its lease; `number` rises with every heartbeat of a ballot."""

    type: Literal["lease.heartbeat"] = "lease.heartbeat"
    ballot: Ballot
    number: Count
    version: Count = Field(0, exclude_if=_is_0)


class LeaseGranted(Frozen):
    """The acceptor promises no other ballot for one lease from its receipt of `number`."""

    type: Literal["lease.granted"] = "lease.granted"
    ballot: Ballot
    number: Count


class LeaderBeat(Frozen):
    """The leader announces itself to all nodes. `ready`: it holds a lease and accepts commands.

    `lease_left_ms` is how long it still holds the lease, and `read_leases_ms` how long each store
    may still hold a read lease, at the sending and on the leader's clock. Both are diagnostics.
    """

    type: Literal["leader.beat"] = "leader.beat"
    ballot: Ballot
    ready: bool
    chosen_through: Count
    lease_left_ms: Count
    read_leases_ms: dict[str, Count]


class LearnerProgress(Frozen):
    """A learner reports the ends of its chosen prefix, with the view there, and its decided one.

    Once the acceptors have changed, also those as of `chosen_through`, and the durable mark: a slot
    through which the learner and all stores of the view hold everything in their journals.
    """

    type: Literal["learn.progress"] = "learn.progress"
    chosen_through: Count
    decided: Count
    view: View
    membership: Membership | None = Field(None, exclude_if=_is_none)
    durable_mark: Count = Field(0, exclude_if=_is_0)


class PullChosen(Frozen):
    """A request for what the receiver knows of the slots `first_slot <= s <= last_slot`."""

    type: Literal["learn.pull"] = "learn.pull"
    first_slot: Count
    last_slot: Count


class Chosen(Frozen):
    """Chosen slots, from a learner."""

    type: Literal["learn.chosen"] = "learn.chosen"
    entries: tuple[SlotValue, ...]


class AcceptedRange(Frozen):
    """What one acceptor accepted in a range, with values; each entry counts as an `Accepted`."""

    type: Literal["learn.accepted"] = "learn.accepted"
    entries: tuple[AcceptedValue, ...]
    truncated_below: Count


class ProposeValue(Frozen):
    """The coordinator asks the leader to put a View or an Abort into the log."""

    type: Literal["log.propose"] = "log.propose"
    value: Annotated[View | Abort, Field(discriminator="kind")]


class Truncate(Frozen):
    """Slots below `below` are durable at the coordinator and all stores of the view.

    Acceptors and learners may forget them.
    """

    type: Literal["log.truncate"] = "log.truncate"
    below: Count
