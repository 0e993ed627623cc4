"""The fence of an acceptor: it serves nobody who may not know who votes now (decision 26, 12)."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from actors.effects import Record
from actors.errors import InvariantViolation, JournalUnreadable
from actors.messages import Accept, LeaseGranted, LeaseHeartbeat, Prepare, Promise, Reject
from actors.node import read_record
from actors.options import Identity
from actors.paxos.acceptor import Acceptor
from actors.paxos.ballot import Ballot
from actors.values import NOOP
from tests.worlds import founded, hand, sent

BALLOT, NEXT = Ballot(50, "proposer-1"), Ballot(51, "proposer-1")


def messages(ballot: Ballot, version: int) -> list[Any]:
    return [
        Prepare(ballot=ballot, first_slot=1, version=version),
        Accept(ballot=ballot, slot=3, value=NOOP, version=version),
        LeaseHeartbeat(ballot=ballot, number=1, version=version),
    ]


@pytest.mark.parametrize("raises", range(3), ids=["prepare", "accept", "heartbeat"])
@pytest.mark.parametrize("refused", range(3), ids=["prepare", "accept", "heartbeat"])
def test_an_acceptor_that_answered_a_version_refuses_lower_ones(raises: int, refused: int) -> None:
    """Given a yes to a message that names version 2, then the fence is in the same commit, and a
    message of version 1 is refused, whatever its ballot; one of version 2 is not.
    """
    world = founded()
    world.run(3_000)
    acceptor = world.actor("acceptor-1")
    acceptor._lease_until = 0

    effects = hand(world, "acceptor-1", "proposer-1", messages(BALLOT, 2)[raises])

    assert not [m for m in sent(effects) if isinstance(m, Reject)]
    assert Record("promised", b'[50,"proposer-1",2]') in effects.records
    for ballot in (BALLOT, NEXT):
        (answer,) = sent(hand(world, "acceptor-1", "proposer-1", messages(ballot, 1)[refused]))
        assert isinstance(answer, Reject)
        assert answer.fence == 2
    assert acceptor.promised == BALLOT
    answers = sent(hand(world, "acceptor-1", "proposer-1", messages(BALLOT, 2)[refused]))
    assert not [m for m in answers if isinstance(m, Reject)]


def test_a_restarted_acceptor_keeps_its_fence() -> None:
    identity = Identity("acceptor-1", "disk", 2, 5, "0" * 16)
    acceptor = Acceptor(identity, founded().options)
    acceptor._restore([Record("promised", b'[50,"proposer-1",2]')])
    assert (acceptor.promised, acceptor.fence) == (BALLOT, 2)
    assert acceptor._remake_row("promised") == b'[50,"proposer-1",2]'

    acceptor._restore([Record("promised", b'[50,"proposer-1"]')])
    assert (acceptor.fence, acceptor._remake_row("promised")) == (0, b'[50,"proposer-1"]')
    acceptor.fence = 3
    with pytest.raises(InvariantViolation, match="had answered version 3"):
        acceptor._promise(messages(NEXT, 2)[0])


def test_a_release_that_knows_no_fence_can_not_read_one() -> None:
    """It would vote without it, for candidates from before the change."""
    with pytest.raises(JournalUnreadable, match="promised"):
        read_record(TypeAdapter(Ballot), Record("promised", b'[50,"proposer-1",2]'))


def test_without_a_change_nothing_new_is_written() -> None:
    """Then a release that knows no versions reads all of it."""
    for message in messages(BALLOT, 0):
        assert b"version" not in message.to_json()
        assert b'"version":1' in message.model_copy(update={"version": 1}).to_json()
    world = founded()
    for name in world.options.names("acceptor"):
        assert world.machines[name].disk.records["promised"].count(b",") == 1
    granted = LeaseGranted(ballot=BALLOT, number=1)
    promise = Promise(ballot=BALLOT, first_slot=1, next_slot=None, accepted=(), truncated_below=1)
    assert b"version" not in granted.to_json() + promise.to_json()
