"""What acceptors vote for: values whose batches they don't read (decision 33).

A batch is read by who proposes it and by who learns it. A text that is no batch can be chosen only
if a proposer has proposed it, which no correct one does. It is a no-op then: every reader of one
version takes the same texts for batches, and no version votes for those that name later rules.
"""

import re

from pydantic import TypeAdapter, ValidationError

from actors.effects import Record
from actors.paxos.ballot import Ballot
from actors.unread import HEAD, UnreadBatch, is_of_later_version
from actors.values import NOOP, AcceptedValue, AnyValue, AnyVote, Batch

_BATCH = TypeAdapter(Batch)

_ROW = re.compile(
    rb'\{"slot":(\d{1,18}),"ballot":\[(\d{1,18}),"([ !#-\[\]-~]*)"\],"value":(?=%b)'
    % re.escape(HEAD)
)
"""The beginning of an acceptor's row with a batch, as `Holder` writes it."""


def read_batch(text: bytes) -> Batch | None:
    """The batch of that text, which it keeps as its own; `None` if it is no batch."""
    try:
        batch = _BATCH.validate_json(text)
    except ValidationError:
        return None
    batch.adopt_json(text)
    return batch


def unread(value: AnyVote) -> AnyVote:
    """What an acceptor keeps of `value`: of a batch its text alone."""
    return UnreadBatch.of(value.json_text) if isinstance(value, Batch) else value


def reported(accepted: AcceptedValue) -> AcceptedValue:
    """How an acceptor reports what it has accepted: as a batch, if it is one."""
    value = accepted.value
    batch = read_batch(value.text) if isinstance(value, UnreadBatch) else None
    if batch is None:
        return accepted
    return AcceptedValue(slot=accepted.slot, ballot=accepted.ballot, value=batch)


def learned(value: AnyVote) -> AnyValue:
    """What `value` means once it is chosen: a text that is no batch means nothing."""
    if isinstance(value, UnreadBatch):
        return read_batch(value.text) or NOOP
    return value


def are_same(one: AnyVote, other: AnyVote) -> bool:
    """Whether two values of one ballot are one: batches may be written in two ways."""
    if one == other:
        return True
    texts = [value.text for value in (one, other) if isinstance(value, UnreadBatch)]
    batches = [read_batch(text) for text in texts]
    return len(batches) == 2 and batches[0] is not None and batches[0] == batches[1]


def accepted_of(record: Record) -> AcceptedValue | None:
    """The row of an accepted batch, whatever its text is; `None`: a row of another kind, or of a
    later version.
    """
    row = record.value or b""
    head = _ROW.match(row)
    text = row[head.end() : -1] if head is not None else b""
    if head is None or not row.endswith(b"}") or is_of_later_version(text):
        return None
    ballot = Ballot(int(head[2]), head[3].decode())
    return AcceptedValue(slot=int(head[1]), ballot=ballot, value=UnreadBatch.of(text))
