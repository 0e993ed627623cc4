"""Two-phase commit over the stores of a view (design 4)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from actors.numbers import Count
from actors.paxos.ballot import Ballot
from actors.values import (
    Abort,
    Batch,
    DecidedSlot,
    Frozen,
    Holder,
    Members,
    NoOp,
    PreparedSlot,
    Refusal,
    Roster,
    Settled,
    View,
)


class TxnPrepare(Holder):
    """Phase 1 of 2PC for one slot."""

    type: Literal["txn.prepare"] = "txn.prepare"
    held: ClassVar = "batch"
    epoch: Count
    slot: Count
    batch: Batch
    reconsider: bool = False
    """A store that refused commands votes again: no store has a vote in the slot (decision 21)."""


class TxnVote(Frozen):
    """The store has journalled the slot; all commands but `refused` are prepared."""

    type: Literal["txn.vote"] = "txn.vote"
    epoch: Count
    slot: Count
    refused: tuple[Refusal, ...]
    durable: Count


class TxnProgress(Frozen):
    """A store still works on a prepare (it pulls contents from a peer) and asks for patience."""

    type: Literal["txn.progress"] = "txn.progress"
    epoch: Count
    slot: Count


class TxnDecision(Frozen):
    """A decided slot: all its commands commit but `aborted`.

    It was chosen under `ballot`. `value` is given for slots that hold no commands. A decision is
    sent only once it is final, so it holds in every epoch.
    """

    type: Literal["txn.decision"] = "txn.decision"
    epoch: Count
    slot: Count
    ballot: Ballot
    aborted: tuple[Refusal, ...] = ()
    value: (
        Annotated[View | Abort | NoOp | Members | Settled | Roster, Field(discriminator="kind")]
        | None
    ) = None


class TxnInquiry(Frozen):
    """A new coordinator asks for the fate of all slots above `decided`, and fences the store."""

    type: Literal["txn.inquiry"] = "txn.inquiry"
    view: View
    decided: Count


class TxnState(Frozen):
    """The reply to an inquiry; from now on the store refuses older epochs.

    Slots above `applied` that are not in `prepared` are not prepared.

    `whole`: the store holds all contents that its state names.
    """

    type: Literal["txn.state"] = "txn.state"
    epoch: Count
    applied: Count
    whole: bool
    prepared: tuple[PreparedSlot, ...]


class Fenced(Frozen):
    """The sender has answered a coordinator of a newer epoch and refuses the receiver's."""

    type: Literal["txn.fenced"] = "txn.fenced"
    epoch: Count


class PullDecided(Frozen):
    """A request for the decided slots after `applied`."""

    type: Literal["sync.pull"] = "sync.pull"
    applied: Count


class Decided(Frozen):
    """Decided slots in order; `first_kept` is the lowest one that the sender still has."""

    type: Literal["sync.decided"] = "sync.decided"
    entries: tuple[DecidedSlot, ...]
    first_kept: Count
