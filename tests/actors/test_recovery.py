"""What the journals of a lost cluster prove: the rules of decision 32, each on a small case.

Three stores were in the view of epoch 3. Slots 1 to 3 are applied; those behind are prepared.
"""

import pytest

from actors.effects import BLOB_ROW, Record
from actors.founding import FOUNDED
from actors.paxos.ballot import Ballot
from actors.recovery.evidence import OldNode, read_node
from actors.recovery.judgement import Judgement, Unrecoverable, judge
from actors.state.namespace import Namespace
from actors.store.state import Prepared
from actors.values import (
    NOOP,
    Abort,
    AcceptedValue,
    AnyOperation,
    AnyValue,
    Batch,
    Command,
    Constants,
    DecidedSlot,
    FoundingMember,
    Genesis,
    OpenSession,
    Precondition,
    Refusal,
    StoreMember,
    View,
)
from tests.worlds import put

STORES = ("store-1", "store-2", "store-3")
ACCEPTORS = tuple(f"acceptor-{number}" for number in range(1, 6))
EPOCH = 3


def view(epoch: int = EPOCH, stores: tuple[str, ...] = STORES, added: int = 0) -> View:
    return View(
        epoch=epoch,
        coordinator="learner-1",
        coordinator_disk="disk-learner-1",
        coordinator_incarnation=1,
        stores=tuple(
            StoreMember(name=name, disk=f"disk-{name}", added_slot=added) for name in stores
        ),
    )


GENESIS = Genesis(
    cluster="old",
    constants=Constants(),
    members=tuple(
        FoundingMember(name=name, disk=f"disk-{name}")
        for name in (*ACCEPTORS, *STORES, "learner-1", "learner-2")
    ),
    view=view(),
)


def batch(sequence: int, operation: AnyOperation) -> Batch:
    command = Command(
        session="s", sequence=sequence, acknowledged=-1, reply_to="gateway-1", operation=operation
    )
    return Batch(commands=(command,))


def write(number: int) -> Batch:
    """The write of the slot of that number."""
    return batch(number, put(f"file-{number}", b"%d" % number))


LOG: dict[int, AnyValue] = {1: batch(0, OpenSession()), 2: write(2), 3: write(3)}


def state(through: int = 3, in_force: View | None = None) -> Namespace:
    known = Namespace()
    known.begin(GENESIS)
    known.view = in_force or GENESIS.view
    for slot in range(1, through + 1):
        known.apply(slot, LOG[slot], ())
    return known


def store(
    number: int,
    *prepared: int,
    through: int = 3,
    fence: int = EPOCH,
    refused: tuple[int, ...] = (),
    in_force: View | None = None,
    **more: AnyValue,
) -> OldNode:
    """A store with slots prepared, those in `refused` with a refusal."""
    name = f"store-{number}"
    node = OldNode(name, f"disk-{name}", GENESIS, state(through, in_force), fence=fence)
    for slot in prepared:
        why = (Refusal(index=0, reason="no room: full"),) if slot in refused else ()
        value = more.get(f"slot_{slot}", write(slot))
        assert isinstance(value, Batch)
        node.prepared[slot] = Prepared(slot=slot, batch=value, refused=why)
    return node


def acceptor(number: int, **values: AnyValue) -> OldNode:
    """An acceptor that accepted `slot_5=…` under one ballot."""
    name = f"acceptor-{number}"
    node = OldNode(name, f"disk-{name}", GENESIS)
    for slot, value in ((int(key.removeprefix("slot_")), value) for key, value in values.items()):
        node.accepted[slot] = AcceptedValue(slot=slot, ballot=Ballot(7, "proposer-1"), value=value)
    return node


def learner(through: int, *kept: int) -> OldNode:
    node = OldNode("learner-1", "disk-learner-1", GENESIS, state(through))
    for slot in kept:
        node.log[slot] = DecidedSlot(slot=slot, value=LOG[slot], aborted=())
    return node


def files(judged: Judgement) -> set[int]:
    return {int(path.removeprefix("file-")) for path in judged.state.entries}


def left_out(judged: Judgement) -> dict[int, str]:
    return {one.slot: one.left_out for one in judged.open if one.left_out}


# -- what is applied -------------------------------------------------------------------------------


def test_what_one_store_prepared_is_applied_in_order_over_slots_that_no_store_has() -> None:
    """Given a store with slots 4, 5 and 7 prepared, then each may have been acknowledged, and slot
    6 is chosen and holds no write that was.
    """
    judged = judge([store(1, 4, 5, 7)])

    assert (judged.base_slot, judged.through, judged.unknown) == (3, 7, [6])
    assert files(judged) == {2, 3, 4, 5, 7}
    assert [(one.slot, one.outcome.status, one.left_out) for one in judged.open] == [
        (4, "done", ""),
        (5, "done", ""),
        (7, "done", ""),
    ]
    entry = judged.state.entries["file-7"]
    assert (entry.slot, entry.index) == (7, 0)
    assert judged.members == ["store-1"]
    assert judged.absent == ("store-2", "store-3")


def test_the_most_advanced_state_counts_and_a_store_behind_is_told() -> None:
    judged = judge([store(2, 3, 4, through=2), store(1, 4, through=3), learner(1)])

    assert (judged.base.name, judged.base_slot, files(judged)) == ("store-1", 3, {2, 3, 4})
    assert judged.standings[("store-2", "disk-store-2")] == "member"


def test_a_slot_that_a_voter_has_not_prepared_was_not_acknowledged() -> None:
    """Given two stores of the view of which one lacks slot 4, then it is left out, and slot 5,
    which both have, is applied: slot 4 may have been aborted before.
    """
    judged = judge([store(1, 4, 5), store(2, 5)])

    assert files(judged) == {2, 3, 5}
    assert left_out(judged) == {4: "store-2 had not prepared it"}
    (first, _) = judged.open
    assert first.outcome.status == "aborted"


def test_a_missing_vote_proves_nothing_once_a_later_epoch_was_answered() -> None:
    """Given that store-1 has answered epoch 4, then store-2 may have been dropped by its View, and
    slot 4 acknowledged without it.
    """
    judged = judge([store(1, 4, 5, fence=EPOCH + 1), store(2, 5)])

    assert files(judged) == {2, 3, 4, 5}
    assert judged.is_later_view_known


def test_a_store_that_was_added_later_has_no_vote() -> None:
    late = view().model_copy(
        update={
            "stores": tuple(
                m.model_copy(update={"added_slot": 5 if m.name == "store-2" else 0})
                for m in view().stores
            )
        }
    )
    judged = judge([store(1, 4, 6, in_force=late), store(2, 6, through=2, in_force=late)])

    assert files(judged) == {2, 3, 4, 6}
    assert judged.standings[("store-2", "disk-store-2")] == "joining"


def test_a_command_that_a_voter_refused_was_not_acknowledged() -> None:
    judged = judge([store(1, 4, 5), store(2, 4, 5, refused=(4,))])

    assert left_out(judged) == {4: "no room: full"}
    assert judged.open[0].outcome.status == "no_room"
    assert files(judged) == {2, 3, 5}


def test_a_refusal_counts_in_a_later_epoch_only_if_no_store_takes_the_command() -> None:
    others = judge([store(1, 4, fence=EPOCH + 1), store(2, 4, refused=(4,))])
    all_of_them = judge([store(1, 4, fence=EPOCH + 1, refused=(4,)), store(2, 4, refused=(4,))])

    assert files(others) == {2, 3, 4}
    assert files(all_of_them) == {2, 3}


def test_an_abort_that_was_proposed_in_the_last_epoch_is_heeded() -> None:
    """Given one acceptor of five that accepted an abort of slot 4, then its coordinator did not
    commit the slot, chosen or not; but an abort of an epoch before the last one proves nothing.
    """

    def judged(epoch: int, fence: int) -> Judgement:
        abort = Abort(slot=4, commands=(0,), epoch=epoch, reason="late")
        return judge([store(1, 4, 5, fence=fence), acceptor(1, slot_6=abort)])

    assert left_out(judged(EPOCH, EPOCH)) == {4: "late"}
    assert left_out(judged(EPOCH, EPOCH + 1)) == {}
    assert left_out(judged(EPOCH - 1, EPOCH - 1)) == {}


def test_a_view_of_too_few_stores_aborts_new_writes() -> None:
    alone = view(stores=("store-1",))

    judged = judge([store(1, 4, in_force=alone)])
    later = judge([store(1, 4, 6, in_force=alone, fence=EPOCH + 1)])

    assert list(left_out(judged)) == [4]
    assert "writes need 2 whole stores" in left_out(judged)[4]
    assert list(left_out(later)) == [4], "which view is in force behind slot 5 is not known"


def test_a_write_that_depends_on_one_that_may_be_aborted_is_told() -> None:
    """Given two writes of a file that must not exist, both prepared, then the second one has no
    effect, and the report says so: the first may have been aborted, and the second acknowledged.
    """
    none = Precondition(if_none_match=("*",))
    first, second = (batch(number, put("file-9", b"%d" % number, when=none)) for number in (4, 5))

    judged = judge([store(1, 4, 5, slot_4=first, slot_5=second)])

    assert [one.outcome.status for one in judged.open] == ["done", "precondition_failed"]


# -- what acceptors prove --------------------------------------------------------------------------


def test_what_a_quorum_accepted_under_one_ballot_is_chosen() -> None:
    """Given that three of five acceptors hold a View without store-2 in slot 4, then store-2 has no
    vote on slot 5 any more; two of five prove nothing.
    """
    without = view(EPOCH + 1, ("store-1", "store-3"))
    stores = [store(1, 5, fence=EPOCH + 1), store(2, fence=EPOCH)]

    proven = judge([*stores, *(acceptor(number, slot_4=without) for number in (1, 2, 3))])
    hinted = judge([store(1, 5), store(2), *(acceptor(n, slot_4=without) for n in (1, 2))])

    assert (proven.view.epoch, proven.unknown, files(proven)) == (EPOCH + 1, [], {2, 3, 5})
    assert proven.standings[("store-2", "disk-store-2")] == "dropped"
    assert proven.has_quorum
    assert (hinted.view.epoch, hinted.unknown, files(hinted)) == (EPOCH, [4], {2, 3})
    assert not hinted.has_quorum


def test_an_abort_that_counts_is_heeded_whatever_epoch_follows() -> None:
    abort = Abort(slot=4, commands=(0,), epoch=EPOCH, reason="late")
    acceptors = [acceptor(number, slot_5=abort) for number in (1, 2, 3)]

    judged = judge([store(1, 4, fence=EPOCH + 1), *acceptors])

    assert left_out(judged) == {4: "late"}


def test_what_only_acceptors_have_is_applied_if_no_store_of_the_view_is_given() -> None:
    """Given a slot that a quorum of acceptors proves, then a store that has a vote on it and has
    not prepared it shows that it was not acknowledged. Fewer acceptors prove nothing.
    """
    few = judge([store(1, 4), acceptor(1, slot_5=write(5), slot_9=NOOP)])
    chosen = [acceptor(number, slot_4=write(4)) for number in (1, 2, 3)]
    by_stores = judge([store(1), *chosen])
    by_log = judge([learner(3), *chosen])

    assert (files(few), few.accepted_through) == ({2, 3, 4}, {"acceptor-1": 9})
    assert (files(by_stores), by_stores.through) == ({2, 3}, 4)
    assert (files(by_log), by_log.through) == ({2, 3, 4}, 4)


# -- what does not fit together --------------------------------------------------------------------


def test_states_of_one_slot_that_differ_are_refused() -> None:
    other = store(2)
    other.state.state_hash = "another"

    with pytest.raises(Unrecoverable, match=r"store-2 \(slot 3\) and store-1|store-1 \(slot 3\)"):
        judge([store(1), other])


def test_an_older_state_is_compared_by_its_files_and_by_a_learners_log() -> None:
    lacks = store(2, 3, through=2)
    del lacks.state.entries["file-2"]
    with pytest.raises(Unrecoverable, match=r"differ in 'file-2'"):
        judge([store(1), lacks])

    other = store(2, 3, through=2)
    other.state.state_hash = "another"
    judge([store(1), other])  # Nothing shows it.
    other = store(2, 3, through=2)
    other.state.state_hash = "another"
    with pytest.raises(Unrecoverable, match="hash over all slots"):
        judge([store(1), other, learner(3, 2, 3)])

    judged = judge([store(1), store(2, 3, through=2), learner(3, 3)])
    assert set(judged.compared.values()) == {"the same hash"}


def test_an_older_copy_of_a_disk_is_refused() -> None:
    """Given a store of the view that lacks slot 3, which all stores had prepared before it was
    committed, then its folder is an older copy, and would keep out what was acknowledged since.
    """
    with pytest.raises(Unrecoverable, match=r"store-2 \(slot 2\) is an older copy"):
        judge([store(1, 4), store(2, through=2)])

    judged = judge([store(1, 4), store(2, 3, 4, through=2)])
    assert files(judged) == {2, 3, 4}


def test_two_values_prepared_for_one_slot_are_refused() -> None:
    with pytest.raises(Unrecoverable, match="different commands for slot 4"):
        judge([store(1, 4), store(2, 4, slot_4=write(5))])


def test_a_store_that_knows_that_it_diverged_gives_no_state() -> None:
    diverged = store(2, 4)
    diverged.has_diverged = True
    diverged.state.state_hash = "another"

    with pytest.raises(Unrecoverable, match="whose state may be used"):
        judge([diverged])
    judged = judge([store(1, 4, through=2), diverged])

    assert (judged.base.name, judged.standings[("store-2", "disk-store-2")]) == (
        "store-1",
        "diverged",
    )


def test_folders_that_are_not_of_one_cluster_are_refused() -> None:
    foreign = store(2)
    foreign.genesis = GENESIS.model_copy(update={"cluster": "new"})
    with pytest.raises(Unrecoverable, match="several clusters: store-1 to old, store-2 to new"):
        judge([store(1), foreign])
    with pytest.raises(Unrecoverable, match="two copies of the disk"):
        judge([store(1), store(1)])
    with pytest.raises(Unrecoverable, match="founded"):
        judge([OldNode("store-1", "disk")])
    empty = OldNode("store-1", "new-disk", GENESIS)
    empty.state.begin(GENESIS)
    with pytest.raises(Unrecoverable, match="it had copied nothing yet"):
        judge([empty])


# -- rows ------------------------------------------------------------------------------------------


def test_the_rows_of_a_store_are_read_as_it_wrote_them() -> None:
    known = store(1, 4, 5, refused=(5,))
    rows = [
        Record(BLOB_ROW + "a" * 64, b""),
        Record("fence", b"3"),
        Record(FOUNDED, GENESIS.to_json()),
        Record("prepared/0000000000000003", known.prepared[4].to_json().replace(b"4", b"3", 1)),
        *(
            Record(f"prepared/{slot:016x}", prepared.to_json())
            for slot, prepared in known.prepared.items()
        ),
        *(Record(key, row.to_json()) for key, row in known.state.rows()),
    ]

    node = read_node("store-1", "disk-store-1", rows)

    assert (node.fence, node.applied, node.blobs) == (3, 3, {"a" * 64})
    assert {slot: one.batch.digest for slot, one in node.prepared.items()} == {
        slot: one.batch.digest for slot, one in known.prepared.items()
    }
    assert node.prepared[5].refused == known.prepared[5].refused
    assert files(judge([node])) == {2, 3, 4}
