"""Learners and stores keep the acceptors as a part of their state (decision 26, rule 2)."""

import json

from actors.effects import Record
from actors.paxos.membership import Membership
from actors.state.namespace import Namespace
from actors.values import (
    NOOP,
    AnyValue,
    Constants,
    FoundingMember,
    Genesis,
    Members,
    Settled,
    StoreMember,
    View,
)
from tests.worlds import founding_acceptors

ALPHA = 2
GENESIS = Genesis(
    cluster="c",
    constants=Constants(alpha=ALPHA),
    members=founding_acceptors(3),
    view=View(
        epoch=0,
        coordinator="learner-1",
        coordinator_disk="l1",
        coordinator_incarnation=1,
        stores=(StoreMember(name="store-1", disk="s1", added_slot=0),),
    ),
)
REPLACED = Members(
    version=1, acceptors=(*founding_acceptors(2), FoundingMember(name="acceptor-3", disk="new"))
)


def state_after(*values: object) -> Namespace:
    state = Namespace()
    state.begin(GENESIS)
    for slot, value in enumerate(values, start=1):
        state.apply(slot, value, ())  # type: ignore[arg-type]
    return state


def rows(state: Namespace) -> list[Record]:
    return [Record(key, row.to_json()) for key, row in state.rows()]


def test_a_state_without_a_change_is_written_as_before() -> None:
    state = state_after(NOOP)
    assert state.membership == Membership.founded(GENESIS)
    assert b"membership" not in b"".join(record.value or b"" for record in rows(state))
    assert b"alpha" not in Constants().to_json()


def test_the_acceptors_follow_from_the_log_alone() -> None:
    state = state_after(REPLACED, NOOP, Settled(version=1))
    expected = Membership.founded(GENESIS).after(1, REPLACED, ALPHA)
    expected = expected.after(3, Settled(version=1), ALPHA)
    assert state.membership == expected
    assert expected.newest.acceptors == REPLACED.acceptors


def test_a_change_is_in_the_hash_and_a_value_that_does_not_count_is_not() -> None:
    void = Settled(version=4)
    assert state_after(REPLACED).state_hash != state_after(NOOP).state_hash
    assert state_after(void).state_hash == state_after(NOOP).state_hash


def test_a_restart_and_a_snapshot_keep_the_acceptors() -> None:
    """Given a change under way, then a restarted replica and one that copies the state know it; and
    one that was ahead under other acceptors takes those of the snapshot.
    """
    state = state_after(REPLACED, NOOP)
    restarted = Namespace()
    for record in rows(state):
        assert restarted.restore(record)
    restarted.begin(GENESIS)
    assert restarted.membership == state.membership

    copied = state_after(NOOP)
    copied.replace(rows(state))
    assert copied.membership == state.membership
    copied.replace(rows(state_after(NOOP)))
    assert copied.membership == Membership.founded(GENESIS)


def test_the_beginning_and_the_end_of_a_change_are_in_the_audit() -> None:
    """Given a change that a token asked for, then its beginning and its end have a record each, in
    the chain that the state's hash covers; what does not count has none.
    """
    asked = REPLACED.model_copy(update={"principal": "t1"})
    state = Namespace()
    constants = Constants(alpha=ALPHA, audit=True)
    state.begin(GENESIS.model_copy(update={"constants": constants}))
    state.audit.kept = []
    values: tuple[AnyValue, ...] = (asked, asked, Settled(version=1), Settled(version=1))
    for slot, value in enumerate(values, start=1):
        state.apply(slot, value, ())
    assert len(state.audit.kept) == 2
    begun, ended = (json.loads(line) for line, _ in state.audit.kept)
    assert begun == {
        "number": 1,
        "slot": 1,
        "index": 0,
        "log_time_ms": 0,
        "principal": "t1",
        "operation": "change_acceptors",
        "version": 1,
        "acceptors": [["acceptor-1", "disk-1"], ["acceptor-2", "disk-2"], ["acceptor-3", "new"]],
        "result": "done",
        "request": "",
    }
    assert (ended["number"], ended["slot"], ended["principal"]) == (2, 3, None)
    assert (ended["operation"], ended["version"]) == ("settle_acceptors", 1)
    assert state.audit.mark is not None
    assert state.audit.mark.head == state.audit.kept[-1][1]


def test_a_new_cluster_has_the_acceptors_of_its_own_genesis() -> None:
    """Given the state of a cluster whose acceptors have changed, when another cluster is founded
    with it, then those that it is from are no part of it.
    """
    state = state_after(REPLACED, NOOP, Settled(version=1))
    state.found_anew(9, GENESIS.view)
    again = Namespace()
    for record in rows(state):
        assert again.restore(record)
    again.begin(GENESIS)
    assert (again.applied, again.view, again.view_slot) == (9, GENESIS.view, 9)
    assert again.membership == Membership.founded(GENESIS)
