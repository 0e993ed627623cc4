"""A decoded batch keeps its text, and only a text that encodes exactly this batch."""

import json
from typing import Any

import pytest

from actors.effects import Record
from actors.messages import Accept, AcceptedRange, AnyMessage, Promise, TxnPrepare
from actors.paxos.ballot import Ballot
from actors.paxos.votes import accepted_of, learned, reported
from actors.unread import UNREAD_BYTES_MAX, UnreadBatch
from actors.values import (
    NOOP,
    AcceptedValue,
    AnyOperation,
    Batch,
    Command,
    DecidedSlot,
    Frozen,
    Inline,
    MakeDirectory,
    PutFile,
)
from broker.codec import Undecodable, decode, encode
from broker.transport import Parcel

HASH = "ab" * 32


def batch() -> Batch:
    # What could be taken for JSON of ours stands inside of the text.
    trap = '"}]},"value":{"kind":"batch",'
    content = Inline(sha256=HASH, data=b'}]}}]"' * 10)
    put = PutFile(path=f"a/{trap}", content=content, meta=(("m", trap),))
    operations: tuple[AnyOperation, ...] = (put, MakeDirectory(path="ä\\"))
    return Batch(
        elapsed_ms=7,
        commands=tuple(
            Command(session="s", sequence=n, acknowledged=-1, reply_to="gateway-1", operation=each)
            for n, each in enumerate(operations)
        ),
    )


def read(kind: str, body: bytes, *, for_votes: bool = False) -> tuple[AnyMessage, ...]:
    sample = parcel(Accept(ballot=Ballot(1, "proposer-1"), slot=1, value=NOOP))
    (encoded,) = encode(sample)
    decoded = decode(encoded.properties._replace(type=kind), body, for_votes=for_votes)
    assert isinstance(decoded, Parcel)
    return decoded.messages


def read_if_possible(kind: str, body: bytes, *, for_votes: bool = False) -> tuple[AnyMessage, ...]:
    """Nothing of what a node would put into quarantine."""
    try:
        return read(kind, body, for_votes=for_votes)
    except Undecodable:
        return ()


def parcel(*messages: AnyMessage) -> Parcel:
    return Parcel("c1", "proposer-1", "d1", 3, messages)


def held_by(message: Any) -> Batch:
    found = message.batch if isinstance(message, TxnPrepare) else message.value
    assert isinstance(found, Batch)
    return found


MESSAGES = [
    Accept(ballot=Ballot(3, "proposer-2"), slot=12, value=batch(), learner="learner-1"),
    Accept(ballot=Ballot(3, "proposer-2"), slot=12, value=batch()),
    Accept(ballot=Ballot(3, "proposer-2/0b5e"), slot=12, value=batch()),
    TxnPrepare(epoch=2, slot=12, batch=batch()),
    TxnPrepare(epoch=2, slot=12, batch=batch(), reconsider=True),
]


@pytest.mark.parametrize(
    "message",
    MESSAGES,
    ids=["accept", "accept to all", "accept of another disk", "prepare", "reconsider"],
)
def test_a_batch_that_came_alone_keeps_its_text(message: AnyMessage) -> None:
    (encoded,) = encode(parcel(message))
    (back,) = read(encoded.properties.type, encoded.body)
    text = held_by(back).__dict__["json_text"]

    assert back == message
    assert text in encoded.body
    assert Batch.model_validate_json(text) == batch()
    (again,) = encode(parcel(back))
    assert again.body == encoded.body


def test_several_at_once_are_read_like_any_other() -> None:
    (encoded,) = encode(parcel(*MESSAGES[:2]))
    assert read(encoded.properties.type, encoded.body) == tuple(MESSAGES[:2])


@pytest.mark.parametrize(
    "row",
    [
        AcceptedValue(slot=3, ballot=Ballot(1, "proposer-1"), value=batch()),
        AcceptedValue(slot=3, ballot=Ballot(1, "proposer-1"), value=NOOP),
        DecidedSlot(slot=3, value=batch(), aborted=()),
    ],
    ids=["batch", "no-op", "decided"],
)
def test_a_row_is_the_same_json_however_it_was_written(row: Frozen) -> None:
    assert json.loads(row.to_json()) == json.loads(row.model_dump_json())
    assert type(row).model_validate_json(row.to_json()) == row


TEXT = batch().to_json()
ACCEPT = b'[{"type":"paxos.accept","ballot":[9,"proposer-1"],"slot":12,"learner":"","value":'
PREPARE = b'[{"type":"txn.prepare","epoch":2,"slot":12,"reconsider":false,"batch":'


@pytest.mark.parametrize(
    ("body", "slots"),
    [
        (PREPARE + TEXT + b',"slot":13}]', [13]),
        (PREPARE + TEXT + b"},{" + PREPARE[2:] + TEXT + b"}]", [12, 12]),
        (b" " + PREPARE + TEXT + b"}]", [12]),
    ],
    ids=["said twice", "two messages", "other white space"],
)
def test_what_a_node_would_not_write_is_read_as_json(body: bytes, slots: list[int]) -> None:
    messages: Any = read("txn.prepare", body)
    assert [message.slot for message in messages] == slots
    for message in messages:
        assert held_by(message).to_json() == TEXT


@pytest.mark.parametrize(
    "body",
    [
        PREPARE + TEXT + b"]",
        PREPARE + TEXT[:-1] + b"}]",
        PREPARE + b'{"kind":"batch","elapsed_ms":1,"commands":[{}]}}]',
        PREPARE + TEXT + b',"more":1}]',
        ACCEPT + b'{"kind":"batch","elapsed_ms":1,"garbage":}}]',
        ACCEPT + b'{"kind":"batch","elapsed_ms":1,"garbage":"\xff"}}]',
        ACCEPT + b'{"kind":"batch","elapsed_ms":1,"kind":"view"}}]',
        ACCEPT + b'{"kind":"batch","elapsed_ms":1},"slot":13}]',
        ACCEPT + b'{"kind":"batch","elapsed_ms":1,"commands":[],"rules":2}}]',
        ACCEPT + b'{"kind":"batches","elapsed_ms":1}}]',
        ACCEPT + b'{"kind":"batch","garbage":"' + b"x" * UNREAD_BYTES_MAX + b'"}}]',
        b'[{"type":"paxos.accept","ballot":[1,"\xff"],"slot":1,"learner":"","value":'
        + TEXT
        + b"}]",
    ],
)
def test_garbage_around_a_batch_is_undecodable(body: bytes) -> None:
    """Also to an acceptor: what it holds of a batch must end where it seems to end."""
    kind = "paxos.accept" if b"paxos" in body else "txn.prepare"
    for for_votes in (False, True):
        with pytest.raises(Undecodable):
            read(kind, body, for_votes=for_votes)


# -- for votes ------------------------------------------------------------------------------------

GARBAGE = UnreadBatch(text=b'{"kind":"batch","elapsed_ms":1,"garbage":"}},{"}')


def test_an_acceptor_gets_the_text_of_a_batch_and_reads_it_not() -> None:
    """Given a proposal, then an acceptor gets exactly the text that came, which a learner reads,
    and it writes the row that it would write of the batch.
    """
    for message in MESSAGES[:3]:
        (encoded,) = encode(parcel(message))
        (vote,) = read("paxos.accept", encoded.body, for_votes=True)
        assert isinstance(vote, Accept)
        assert isinstance(vote.value, UnreadBatch)
        assert learned(vote.value) == batch()
        assert vote.model_copy(update={"value": batch()}) == message

        row = AcceptedValue(slot=12, ballot=vote.ballot, value=vote.value)
        of_batch = AcceptedValue(slot=12, ballot=vote.ballot, value=batch())
        assert row.to_json() == of_batch.to_json()
        assert accepted_of(Record("accepted/c", row.to_json())) == row
        assert reported(row) == of_batch


def test_an_acceptor_reads_several_proposals_at_once_one_by_one() -> None:
    first, second = (
        Accept(ballot=Ballot(3, "proposer-2"), slot=slot, value=batch()) for slot in (12, 13)
    )
    (encoded,) = encode(parcel(first, second))
    assert encoded.properties.type == "paxos.accept"
    assert read("paxos.accept", encoded.body, for_votes=True) == (first, second)


@pytest.mark.parametrize("for_votes", [False, True])
def test_garbage_in_the_place_of_a_batch_is_the_same_to_all_readers(for_votes: bool) -> None:
    """Given what is JSON and no batch, then acceptors may vote for it, so whoever learns it must
    know it, too; and beside it a leader's other proposals are not lost.
    """
    ballot = Ballot(3, "proposer-2")
    others = (
        Accept(ballot=ballot, slot=11, value=batch()),
        Accept(ballot=ballot, slot=12, value=GARBAGE),
        Accept(ballot=ballot, slot=13, value=batch()),
    )
    found: list[Any] = []
    for encoded in encode(parcel(*others)):
        found += read_if_possible("paxos.accept", encoded.body, for_votes=for_votes)
    assert {message.slot: learned(message.value) for message in found} == {
        11: batch(),
        12: NOOP,
        13: batch(),
    }


@pytest.mark.parametrize("wraps", [Promise, AcceptedRange])
def test_what_acceptors_report_can_be_read_whatever_they_hold(wraps: Any) -> None:
    ballot = Ballot(3, "proposer-2")
    votes = tuple(
        reported(AcceptedValue(slot=slot, ballot=ballot, value=UnreadBatch(text=text)))
        for slot, text in ((12, GARBAGE.text), (13, TEXT))
    )
    if wraps is Promise:
        message: AnyMessage = Promise(
            ballot=ballot, first_slot=1, next_slot=None, accepted=votes, truncated_below=1
        )
    else:
        message = AcceptedRange(entries=votes, truncated_below=1)
    (encoded,) = encode(parcel(message))
    assert read_if_possible(encoded.properties.type, encoded.body) == (message,)
    assert [learned(vote.value) for vote in votes] == [NOOP, batch()]
