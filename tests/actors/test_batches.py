"""Batches as text: those that nobody has looked into, and those whose contents became chunks."""

import hashlib
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from actors.ballot import Ballot
from actors.chunks import bare_json
from actors.messages import MESSAGES, Accept, AcceptedRange, Promise
from actors.store import Prepared
from actors.values import (
    AcceptedValue,
    AnyStep,
    Batch,
    Check,
    Chunked,
    Command,
    FileEntry,
    Inline,
    MakeDirectory,
    Precondition,
    PutFile,
    Refusal,
    Transaction,
    stored,
)
from tests.worlds import founded, put

BALLOT = Ballot(3, "proposer-1")

TRAP = '"content":{"kind":"inline","sha256":"'
"""What `bare_json` looks for, inside of a text."""

texts = st.one_of(
    st.text(max_size=8), st.sampled_from((TRAP, TRAP + "ab" * 32 + '","data":"', '"}', "\\", '\\"'))
)
contents = st.one_of(
    st.binary(max_size=80).map(lambda data: Inline(sha256=_sha256(data), data=data)),
    st.just(Chunked(size=3, sha256="cd" * 32, chunks=("cd" * 32,))),
)
puts = st.builds(
    PutFile,
    path=texts,
    content=contents,
    content_type=texts,
    meta=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
)
steps = st.one_of(
    puts, st.builds(MakeDirectory, path=texts), st.just(Check(path="a", when=Precondition()))
)
operations = st.one_of(
    steps.filter(lambda step: not isinstance(step, Check)),
    st.builds(Transaction, steps=st.lists(steps, max_size=3).map(tuple)),
)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _batch(*operations: Any) -> Batch:
    return Batch(
        stamp_ms=7,
        commands=tuple(
            Command(session="s", sequence=n, acknowledged=-1, reply_to="gateway-1", operation=each)
            for n, each in enumerate(operations)
        ),
    )


def _bare(batch: Batch) -> Batch:
    """The same, done to the values."""

    def strip(step: AnyStep) -> AnyStep:
        if not isinstance(step, PutFile):
            return step
        return step.model_copy(update={"content": stored(step.content)})

    def bare(operation: Any) -> Any:
        if isinstance(operation, Transaction):
            return Transaction(steps=tuple(map(strip, operation.steps)))
        return strip(operation)

    commands = (c.model_copy(update={"operation": bare(c.operation)}) for c in batch.commands)
    return Batch(stamp_ms=batch.stamp_ms, commands=tuple(commands))


@given(st.lists(operations, max_size=4))
def test_the_text_without_contents_says_the_same(asked: list[Any]) -> None:
    batch = _batch(*asked)

    assert Batch.model_validate_json(bare_json(batch)) == _bare(batch)
    assert b'"kind":"inline"' not in bare_json(batch).replace(b'\\"', b"")


def test_what_is_written_in_another_way_keeps_its_contents() -> None:
    batch = _batch(put("a", b"1"), put("b", b"2"))
    text = TypeAdapter(Batch).dump_json(batch, indent=1)
    batch.adopt_json(text)

    assert Batch.model_validate_json(bare_json(batch)) == _batch(put("a", b"1"), put("b", b"2"))


def test_a_store_journals_what_it_prepares_without_the_contents() -> None:
    prepared = Prepared(slot=4, batch=_batch(put("a", b"x" * 500)), refused=(_refusal(),))
    text = prepared.to_json()

    back = Prepared.model_validate_json(text)
    assert len(text) < 600
    assert (back.slot, back.refused, back.batch) == (4, (_refusal(),), _bare(prepared.batch))


def _refusal() -> Refusal:
    return Refusal(index=0, reason="no")


def test_an_unread_batch_is_read_when_somebody_looks_into_it() -> None:
    batch = _batch(put("a", b"1"))
    unread = Batch.unread(batch.json_text)

    read = [unread.is_read]
    assert unread == batch  # Their texts are the same.
    read.append(unread.is_read)
    assert unread == _batch(put("a", b"1"))  # This one has no text yet.
    read.append(unread.is_read)
    assert read == [False, False, True]
    assert unread != _batch(put("a", b"2"))
    assert unread.commands == batch.commands
    assert not hasattr(unread, "color")


@pytest.mark.parametrize("text", [b"", b"{", b'{"kind":"batch"}', b'{"stamp_ms":1,"commands":7}'])
def test_who_looks_into_what_is_no_batch_is_told(text: bytes) -> None:
    with pytest.raises(ValidationError):
        _ = Batch.unread(text).commands
    with pytest.raises(ValidationError):
        _ = Batch.unread(text).stamp_ms


def test_nothing_of_an_unread_batch_is_left_out_of_what_is_written() -> None:
    batch = _batch(put("a", b"1"), put("b", b"2"))

    def entry() -> AcceptedValue:
        return AcceptedValue(slot=5, ballot=BALLOT, value=Batch.unread(batch.json_text))

    accept = Accept(ballot=BALLOT, slot=5, value=Batch.unread(batch.json_text))
    promise = Promise(
        ballot=BALLOT, first_slot=1, next_slot=None, accepted=(entry(),), truncated_below=1
    )
    told = AcceptedRange(entries=(entry(), entry()), truncated_below=1)

    for message in (accept, promise, told):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pydantic says if a field is missing, and goes on.
            text = message.to_json()
        assert batch.json_text in text
        (back,) = MESSAGES.validate_json(b"[%b]" % text)
        assert back == message
    assert AcceptedValue.model_validate_json(entry().to_json()).value == batch


def test_acceptors_that_do_not_look_into_batches_elect_a_leader_who_proposes_them() -> None:
    world = founded()
    names = world.options.names("acceptor")
    world.done(put("a", b"1"))
    kept = [v for name in names for v in world.actor(name).accepted.values()]
    batches = [v.value for v in kept if isinstance(v.value, Batch) and not v.value.is_read]
    assert len(batches) >= 3

    leader = world.actor("gateway-1").leader.proposer
    world.crash(leader)
    world.crash("acceptor-1")
    world.start("acceptor-1")
    world.run_until(lambda: world.actor("gateway-1").leader.proposer != leader, 20_000)

    world.done(put("b", b"2"))
    entry = world.read("a").reply.entry
    assert isinstance(entry, FileEntry)
    assert entry.version == 1
