"""Batches as text: what a store journals of a batch whose contents became chunks."""

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from actors.paxos.ballot import Ballot
from actors.store.chunks import bare_json
from actors.store.state import Prepared
from actors.values import (
    AnyStep,
    Batch,
    Check,
    Chunked,
    Command,
    Inline,
    MakeDirectory,
    Precondition,
    PutFile,
    Refusal,
    Transaction,
    stored,
)
from tests.worlds import put

BALLOT = Ballot(3, "proposer-1")

TRAP = '"content":{"kind":"inline","sha256":"'
"""The text that `bare_json` searches for, inside a string."""

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
        elapsed_ms=7,
        commands=tuple(
            Command(session="s", sequence=n, acknowledged=-1, reply_to="gateway-1", operation=each)
            for n, each in enumerate(operations)
        ),
    )


def _bare(batch: Batch) -> Batch:
    """The same, done to the values instead of the text."""

    def strip(step: AnyStep) -> AnyStep:
        if not isinstance(step, PutFile):
            return step
        return step.model_copy(update={"content": stored(step.content)})

    def bare(operation: Any) -> Any:
        if isinstance(operation, Transaction):
            return Transaction(steps=tuple(map(strip, operation.steps)))
        return strip(operation)

    commands = (c.model_copy(update={"operation": bare(c.operation)}) for c in batch.commands)
    return Batch(elapsed_ms=batch.elapsed_ms, commands=tuple(commands))


@given(st.lists(operations, max_size=4))
def test_the_text_without_contents_means_the_same(asked: list[Any]) -> None:
    batch = _batch(*asked)

    assert Batch.model_validate_json(bare_json(batch)) == _bare(batch)
    assert b'"kind":"inline"' not in bare_json(batch).replace(b'\\"', b"")


def test_contents_that_another_encoder_wrote_stay_inline() -> None:
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
