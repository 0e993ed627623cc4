"""What a learner keeps of the log, and what it forgets."""

import pytest

from actors.errors import InvariantViolation
from actors.learner.chosen_log import ChosenLog
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.values import ALPHA, NOOP, FoundingMember, Members, Refusal, Settled, weight
from tests.worlds import FIVE_ACCEPTORS, batch, founding_acceptors, voter

BALLOT = Ballot(1, "proposer-1")


@pytest.fixture
def log() -> ChosenLog:
    """Slots of which the last one lies beyond a gap, with votes on the gap and on a later slot."""
    log = ChosenLog()
    log.begin(FIVE_ACCEPTORS, ALPHA)
    for slot in (1, 2, 3, 4, 6):
        log.choose(slot, batch(slot), BALLOT)
    while log.extend_prefix():
        pass
    for slot in (5, 7):
        log.record_vote(slot, BALLOT, voter(1))
    return log


def kept(log: ChosenLog) -> tuple[list[int], list[int], int]:
    """The known and the open slots, and where the kept ones begin."""
    assert log.kept_bytes == sum(weight(known.value) for known in log.known.values())
    return sorted(log.known), sorted(log._open), log.first_kept


@pytest.mark.parametrize(
    ("applied", "known", "open_slots", "chosen_through"),
    [(2, [3, 4, 6], [5, 7], 4), (5, [6], [7], 5), (6, [], [7], 6), (9, [], [], 9)],
)
def test_a_snapshot_covers_all_slots_up_to_its_own(
    log: ChosenLog, applied: int, known: list[int], open_slots: list[int], chosen_through: int
) -> None:
    """Given an installed state, then no earlier slot is kept, and the prefix never gets shorter."""
    before = set(log.known)
    assert set(log.start_after(applied)) == before - set(known)
    assert kept(log) == (known, open_slots, applied + 1)
    assert (log.chosen_through, log.reported_through) == (chosen_through, max(7, applied))
    assert [log.is_known(slot) for slot in (chosen_through, chosen_through + 1)] == [
        True,
        chosen_through + 1 in known,
    ]


def test_a_chosen_slot_never_gets_another_value(log: ChosenLog) -> None:
    for slot in (4, 6):
        log.choose(slot, batch(slot), Ballot(2, "proposer-2"))
        assert log[slot].ballot == BALLOT
        with pytest.raises(InvariantViolation, match=f"two values chosen for slot {slot}"):
            log.choose(slot, batch(99), BALLOT)
    log.start_after(5)
    log.choose(3, batch(99), BALLOT)  # An old slot, whose value is not known here.
    assert kept(log) == ([6], [7], 6)


def test_votes_for_a_chosen_slot_are_noted_and_no_longer_count(log: ChosenLog) -> None:
    log.record_vote(6, BALLOT, voter(2))
    log.record_vote(6, BALLOT, voter(2))
    log.record_vote(6, Ballot(2, "proposer-2"), voter(3))
    log.record_vote(2, BALLOT, voter(1))
    assert (log[6].accepted_by, log[2].accepted_by) == (("acceptor-2",), ("acceptor-1",))
    assert kept(log) == ([1, 2, 3, 4, 6], [5, 7], 1)


def test_only_slots_beyond_the_bytes_to_keep_and_below_the_limit_are_forgotten(
    log: ChosenLog,
) -> None:
    each = weight(batch(1))
    assert log.forget(below=1, keep_bytes=0) == []
    assert log.forget(below=4, keep_bytes=4 * each) == [1]
    assert log.forget(below=4, keep_bytes=4 * each) == []
    assert log.forget(below=4, keep_bytes=0) == [2, 3]
    assert kept(log) == ([4, 6], [5, 7], 4)
    assert log.forget(below=7, keep_bytes=0) == [4, 6]
    assert kept(log) == ([], [5, 7], 7)


def test_a_restored_log_goes_on_after_the_decided_slots() -> None:
    late = (Refusal(index=0, reason="late"),)
    log = ChosenLog()
    log.restore(4, batch(4), ())
    log.restore(5, batch(5), late)
    log.restored(5)
    assert kept(log) == ([4, 5], [], 4)
    assert (log.chosen_through, log[4].aborted, log[5].aborted) == (5, (), late)
    assert log[5].ballot == NO_BALLOT
    log.choose(6, batch(6), BALLOT)
    assert log.extend_prefix() == 6

    empty = ChosenLog()
    empty.restored(9)
    assert kept(empty) == ([], [], 10)
    assert [empty.is_known(slot) for slot in (9, 10)] == [True, False]


# -- acceptors that change (docs/decisions/0026-membership.md) -------------------------------------

REPLACED = Members(
    version=1,
    acceptors=(FoundingMember(name="acceptor-1", disk="new"), *founding_acceptors(5)[1:]),
)


def changing(alpha: int) -> ChosenLog:
    """A log whose slot 1 replaces acceptor-1 by its new disk, from slot 1 + `alpha` on."""
    log = ChosenLog()
    log.begin(FIVE_ACCEPTORS, alpha)
    log.choose(1, REPLACED, BALLOT)
    return log


def vote(log: ChosenLog, slot: int, *voters: tuple[str, str]) -> bool:
    """Whether the votes choose the slot."""
    log.record_value(slot, BALLOT, NOOP)
    for one in voters:
        log.record_vote(slot, BALLOT, one)
    return log.is_known(slot)


def test_a_disk_votes_and_not_a_name() -> None:
    log = ChosenLog()
    log.begin(FIVE_ACCEPTORS, ALPHA)
    assert not vote(log, 1, voter(1), voter(1, "new"), voter(2), voter(3, "new"))
    assert vote(log, 1, voter(3))
    assert log[1].accepted_by == ("acceptor-1", "acceptor-2", "acceptor-3")


def test_a_slot_is_chosen_by_its_own_acceptors() -> None:
    """Given a change at slot 1 with alpha 3, then the old ones choose slots 2 and 3, and the new
    ones slot 4 and those after it.
    """
    log = changing(3)
    assert log.extend_prefix() == 1
    for slot in (2, 3):
        assert not vote(log, slot, voter(1, "new"), voter(2), voter(3))
        assert vote(log, slot, voter(1))
    assert not vote(log, 4, voter(1), voter(2), voter(3))
    assert vote(log, 4, voter(1, "new"))


def test_votes_wait_until_the_acceptors_of_their_slot_are_known() -> None:
    """Given votes on slot 4 before slot 1 is known, then they count as soon as it is, and only
    those of its own acceptors.
    """
    for old, is_chosen in (("disk-1", False), ("new", True)):
        log = changing(3)
        assert not vote(log, 4, voter(1, old), voter(2), voter(3))
        assert log.extend_prefix() == 1
        assert log.is_known(4) == is_chosen


def test_after_settled_the_old_disk_chooses_nothing() -> None:
    log = changing(1)
    log.choose(2, Settled(version=1), BALLOT)
    assert [log.extend_prefix(), log.extend_prefix()] == [1, 2]
    assert log.membership is not None
    assert (log.membership.is_settled, log.membership.settled_slot) == (True, 2)
    assert not vote(log, 3, voter(1), voter(2), voter(3))


def test_a_snapshot_brings_the_acceptors_as_of_its_slot() -> None:
    """Given a snapshot behind the change, then votes that waited count by the new acceptors."""
    log = ChosenLog()
    log.begin(FIVE_ACCEPTORS, 3)
    assert not vote(log, 9, voter(1, "new"), voter(2), voter(3))
    assert not vote(log, 10, voter(1), voter(2), voter(3))
    log.start_after(7)
    log.begin(FIVE_ACCEPTORS.after(5, REPLACED, 3), 3)
    assert [log.is_known(slot) for slot in (9, 10)] == [True, False]
