"""What a learner keeps of the log, and what it forgets."""

import pytest

from actors.errors import InvariantViolation
from actors.learner.chosen_log import ChosenLog
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.paxos.quorum import Voters
from actors.values import Refusal, weight
from tests.worlds import batch

BALLOT = Ballot(1, "proposer-1")


@pytest.fixture
def log() -> ChosenLog:
    """Slots of which the last one lies beyond a gap, with votes on the gap and on a later slot."""
    log = ChosenLog()
    log.voters = Voters(f"acceptor-{number}" for number in range(1, 6))
    for slot in (1, 2, 3, 4, 6):
        log.choose(slot, batch(slot), BALLOT)
    while log.extend_prefix():
        pass
    for slot in (5, 7):
        log.record_vote(slot, BALLOT, "acceptor-1")
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
    log.record_vote(6, BALLOT, "acceptor-2")
    log.record_vote(6, BALLOT, "acceptor-2")
    log.record_vote(6, Ballot(2, "proposer-2"), "acceptor-3")
    log.record_vote(2, BALLOT, "acceptor-1")
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
