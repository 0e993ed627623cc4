"""Stores on their way into the view: what they count for, serve, and remember."""

from typing import Any

import pytest

from actors.effects import Send
from actors.errors import InvariantViolation
from actors.messages import (
    Diverged,
    JoinRequest,
    LearnerProgress,
    LeaseAsk,
    LeaseGrant,
    NodeHeartbeat,
    ProposeValue,
    ReadRequest,
    SnapshotPage,
    SnapshotRow,
    TxnPrepare,
    TxnProgress,
    TxnState,
    TxnVote,
)
from actors.state.snapshots import CopiedState, digest_of
from actors.store.reads import WaitingRead
from actors.values import Batch, Command, PreparedSlot, Refusal, View
from chaos.simulator.world import World
from tests import worlds
from tests.worlds import founded, hand, put


def settled() -> World:
    world = founded()
    world.done(put("a", b"1"))
    world.settled()
    world.run(1_000)  # The applied slots get into the journals, too.
    return world


def sent(actor: Any) -> list[Any]:
    """The messages that the actor has not sent yet."""
    return [send.message for send in actor._take().sends if isinstance(send, Send)]


def added_again(world: World, *names: str) -> tuple[Any, int]:
    """The membership of a View that has just added these stores, and its slot."""
    learner = world.actor("learner-1")
    slot = learner.decided + 1
    membership = learner.coordinator.view_change
    membership._view = view = View(
        epoch=learner.view.epoch,
        coordinator=learner.name,
        coordinator_disk=learner.identity.disk,
        coordinator_incarnation=learner.identity.incarnation,
        stores=tuple(
            member.model_copy(update={"added_slot": slot}) if member.name in names else member
            for member in learner.view.stores
        ),
    )
    assert view.member("store-1") is not None
    return membership, slot


# -- caught up ------------------------------------------------------------------------------------


def test_stores_that_are_not_caught_up_are_no_copies() -> None:
    """Given a View with two newcomers, then new writes are refused, and the only whole store is not
    dropped, however silent it is.
    """
    world = settled()
    membership, _ = added_again(world, "store-2", "store-3")

    assert membership.shortage == "writes need 2 whole stores, but the view has 1 (store-1)"
    assert not membership.enough_without([])
    assert not membership.may_drop(["store-1"])
    assert membership.may_drop(["store-2", "store-3"])
    membership._is_lost = lambda member: member.name != "store-2"
    assert [store.name for store in membership._next_view().stores] == ["store-1", "store-2"]


@pytest.mark.parametrize(
    ("applied", "durable", "lacks", "is_whole"),
    [
        (0, 0, {}, True),
        (-1, -1, {}, False),
        (0, -1, {}, False),
        (0, 0, {"chunks_missing": 1}, False),
    ],
    ids=["whole", "behind", "not in its journal", "without contents"],
)
@pytest.mark.parametrize("tells", ["heartbeat", "state"])
def test_a_newcomer_is_caught_up_once_it_has_the_view_that_added_it_and_all_contents(
    applied: int, durable: int, lacks: dict[str, Any], is_whole: bool, tells: str
) -> None:
    world = settled()
    membership, slot = added_again(world, "store-3")
    learner = world.actor("learner-1")
    member = membership._view.member("store-3")
    learner.turn.sender_disk = member.disk
    beat = {"role": "store", "applied": slot + applied, "durable": slot + durable, **lacks}
    if tells == "heartbeat":
        learner.replicas.report("store-3", NodeHeartbeat(journal_commits=1, **beat), compares=True)
    else:
        beat |= {"applied": 0}
        learner.replicas.report("store-3", NodeHeartbeat(journal_commits=1, **beat), compares=True)
        state = TxnState(epoch=0, applied=slot + applied, whole=not lacks, prepared=())
        learner.replicas.note_durable("store-3", state)

    assert learner.replicas.is_whole(member) == is_whole


def test_a_store_that_lacks_contents_reports_it_to_a_new_epoch() -> None:
    world = settled()
    store = world.actor("store-3")
    for missing in (False, True):
        if missing:
            store.contents._copies["0" * 64] = None
        store._send_state("learner-1", 0)
        (state,) = sent(store)
        assert state.whole is not missing


def test_a_lost_disk_counts_for_no_durable_mark() -> None:
    """Given a store back on a new disk, then its former disk's mark does not count for it."""
    world = settled()
    world.run(3_000)
    learner = world.actor("learner-1")
    assert learner.replicas.durable_through(learner.view.stores) == learner.decided
    store_1, *others = learner.view.stores
    replaced = (store_1.model_copy(update={"disk": "disk-new"}), *others)
    assert learner.replicas.durable_through(replaced) == 0


def test_a_diverged_store_is_not_added() -> None:
    world = settled()
    learner = world.actor("learner-1")
    for state_hash, is_added in (("0" * 32, False), (learner.state.state_hash, True)):
        membership, _ = added_again(world)
        request = JoinRequest(applied=learner.decided, state_hash=state_hash)
        membership.on_join("store-3", "disk-new", request)
        assert ("store-3" in membership._joining) == is_added
        notices = [message for message in sent(learner) if isinstance(message, Diverged)]
        assert bool(notices) == (not is_added)


def test_a_store_is_added_once_it_is_near_not_empty_and_may_return() -> None:
    """Given a store outside the view, then each of these reasons alone keeps it out; and earlier
    reports of its state no longer count once it asks.
    """
    world = settled()
    learner = world.actor("learner-1")
    decided = learner.decided
    hashes = {slot: f"{slot:032x}" for slot in (0, 1, decided + 1)}
    hashes[decided] = learner.state.state_hash

    def asks(applied: int, returns: bool = True) -> bool:
        membership, _ = added_again(world)
        membership._joining.clear()
        learner.replicas.diverged = {("store-3", "disk-new"), ("store-1", "another")}
        learner.replicas.may_return = lambda store: returns
        request = JoinRequest(applied=applied, state_hash=hashes[applied])
        membership.on_join("store-3", "disk-new", request)
        assert [m for m in sent(learner) if isinstance(m, Diverged)] == []
        is_added: bool = membership._joining.get("store-3", ("",))[0] == "disk-new"
        differs = {("store-1", "another")} if is_added else learner.replicas.diverged
        assert learner.replicas.diverged == differs
        return is_added

    for slot in (0, 1):
        learner.replicas.note_own_hash(slot, hashes[slot])
    assert asks(decided)
    assert not asks(decided, returns=False)
    assert not asks(0), "it has copied nothing"
    assert not asks(decided + 1), "this learner can't compare"
    learner.state.applied += 256
    assert asks(decided)
    learner.state.applied += 1
    assert not asks(decided), "it has to copy more first"
    assert not asks(1)


def test_the_needed_number_of_whole_stores_is_enough() -> None:
    world = settled()
    membership, _ = added_again(world, "store-3")
    assert membership._turn.genesis.stores_needed == 2
    assert membership.shortage == ""
    assert membership.enough_without([])
    assert membership.enough_without(["store-3"])
    assert not membership.enough_without(["store-1"])


def test_a_coordinator_that_differs_from_most_replicas_has_diverged_itself() -> None:
    """Given two stores that agree with each other and not with the coordinator, then it drops
    neither.
    """
    learner = settled().actor("learner-1")
    replicas, slot = learner.replicas, learner.decided
    replicas._agrees.clear()
    replicas._compare(("store-1", "d1"), slot, "0" * 32)
    with pytest.raises(InvariantViolation, match="store-1, store-2 have another one"):
        replicas._compare(("store-2", "d2"), slot, "0" * 32)


# -- what is still known --------------------------------------------------------------------------


def rows_of(state: Any) -> list[SnapshotRow]:
    return [SnapshotRow(key=key, value=row.to_json().decode()) for key, row in state.rows()]


def page_of(state: Any) -> SnapshotPage:
    """The whole state as one page."""
    rows = rows_of(state)
    return SnapshotPage(
        slot=state.applied, page=0, rows_left=0, rows=tuple(rows), digest=digest_of(rows)
    )


def test_an_installed_state_keeps_votes_on_later_slots() -> None:
    """Given a store that has voted on slots after the snapshot, then it keeps those votes."""
    world = settled()
    store = world.actor("store-3")
    slot = store.state.applied + 1
    prepare = TxnPrepare(epoch=0, slot=slot, batch=Batch(commands=()))
    store._on_prepare("learner-1", prepare)
    store._take()

    store._install(CopiedState(slot - 1, rows_of(world.actor("store-1").state)))

    assert slot in store.prepared
    key = f"prepared/{slot:016x}"
    assert [record for record in store._take().records if record.key == key] == []


def test_an_installed_state_reports_no_earlier_changes() -> None:
    """Given kept changes, when another state replaces theirs, then they are not reported."""
    world = settled()
    store = world.actor("store-3")
    slot = store.state.applied
    assert store.held.changes.since(0, 10)[0]

    store._install(CopiedState(slot, rows_of(world.actor("store-1").state)))

    assert (store.held.changes.first, store.held.changes.last) == (slot + 1, slot)
    assert store.held.changes.since(slot, 10) == ((), slot)


def test_a_sound_store_installs_no_state_that_is_not_newer() -> None:
    """Given a page of a state at its own slot, then a store keeps its state, and stops copying."""
    world = settled()
    store = world.actor("store-3")
    store.rejoin._installer.begin()
    sender = store.rejoin._installer._copying.source
    slot = store.state.applied
    rows = rows_of(world.actor("store-1").state)
    page = SnapshotPage(slot=slot, page=0, rows_left=0, rows=tuple(rows), digest=digest_of(rows))
    store._take()

    assert store.rejoin.on_page(sender, page) is None

    assert store._take().records == ()
    assert not store.rejoin.is_installing
    assert store.held.changes.first < slot


def test_an_installed_state_keeps_counted_aborts_of_later_slots() -> None:
    """Given an abort that counts and is not decided, then an earlier snapshot does not undo it."""
    world = settled()
    learner = world.actor("learner-2")
    learner.learned.aborts = {learner.decided + 1: {0: "late"}, learner.decided: {0: "done with"}}

    learner._install(learner.decided, rows_of(world.actor("learner-1").state))

    assert learner.learned.aborts == {learner.decided + 1: {0: "late"}}


# -- leases ---------------------------------------------------------------------------------------


def view_without(view: View, store: str) -> View:
    kept = tuple(member for member in view.stores if member.name != store)
    return view.model_copy(update={"epoch": view.epoch + 1, "stores": kept})


def test_a_view_is_reported_to_the_leader_before_earlier_slots_are_decided() -> None:
    """Given a View that is chosen and not applied, then it is the one in force."""
    world = settled()
    learner = world.actor("learner-2")
    value = view_without(learner.view, "store-3")
    learner.log.choose(learner.chosen_through + 2, value, learner.learned.leader)
    learner.log.choose(learner.chosen_through + 1, Batch(commands=()), learner.learned.leader)
    learner._extend_prefix()
    learner._take()

    learner._asked = True
    learner._report_progress()

    (progress,) = [message for message in sent(learner) if isinstance(message, LearnerProgress)]
    assert (progress.chosen_through, progress.decided) == (learner.decided + 2, learner.decided)
    assert progress.view.epoch == value.epoch


def test_a_store_gets_no_lease_while_a_view_without_it_may_be_chosen() -> None:
    """Given a View that was proposed and is not reported yet, then it may be in force."""
    world = settled()
    (leader,) = [m.actor for m in world.up("proposer") if m.actor.holds_lease]
    member = leader.view.member("store-3")
    leader.phase.read_grants.clear()
    leader._on_propose_value("learner-1", ProposeValue(value=view_without(leader.view, "store-3")))
    assert not leader.phase.waiting_views
    leader._take()

    leader.turn.sender_disk = member.disk
    leader._on_lease_ask("store-3", LeaseAsk(number=1))
    assert sent(leader) == []
    leader.turn.sender_disk = leader.view.member("store-2").disk
    leader._on_lease_ask("store-2", LeaseAsk(number=1))
    assert [message.type for message in sent(leader)] == ["lease.grant"]


def test_a_lease_names_the_slot_that_the_store_must_have_applied() -> None:
    store = settled().actor("store-3")
    store.reads.give_up_lease()
    store.reads._asked = {7: store.now}
    added = store.state.applied + 1
    grant = LeaseGrant(
        number=7, epoch=0, disk=store.identity.disk, added_slot=added, duration_ms=1_000
    )

    store.reads.on_lease_grant(grant)

    assert store.reads.lease.added_slot == added
    assert store.reads._obstacle(read_of(store)) == "no read lease"


def read_of(store: Any, *after_slots: int) -> WaitingRead:
    request = ReadRequest(number=1, what="entry", path="a")
    return WaitingRead("gateway-1", request, store.now + 1_000, set(after_slots))


def test_a_read_waits_for_prepared_writes_to_its_path_and_no_others() -> None:
    store = settled().actor("store-3")
    store.reads.lease.until, store.reads.lease.added_slot = store.now + 500, 0
    applied = store.state.applied

    assert store.reads._obstacle(read_of(store, applied)) is None
    waits = store.reads._obstacle(read_of(store, applied, applied + 1))
    assert waits == "a write to this path is not decided yet"


def test_a_diverged_store_serves_no_read_whatever_its_lease_also_after_a_restart() -> None:
    world = settled()
    store = world.actor("store-3")
    store.rejoin.note_report()
    notice = Diverged(
        slot=store.state.applied, state_hash="0" * 32, reported=store.state.state_hash
    )
    machine = world.machines["store-3"]
    store.rejoin.on_diverged(notice)
    (kept,) = [record for record in store.out.records if record.key == "diverged"]
    machine.disk.records[kept.key] = kept.value
    for _ in range(2):
        store.reads.lease.until = store.now + 500
        assert store.reads._obstacle(read_of(store)) == "its state has diverged"
        world.crash("store-3")
        world.start("store-3")
        store = world.actor("store-3")


def diverged(world: World, name: str) -> Any:
    """A store that was notified of its divergence, and has journalled it."""
    store = world.actor(name)
    slot, reported = store.state.applied, store.state.state_hash
    store.rejoin.note_report()
    store.rejoin.on_diverged(Diverged(slot=slot, state_hash="0" * 32, reported=reported))
    world.machines[name].disk.records["diverged"] = b"true"
    store._take()
    return store


def test_a_store_that_has_copied_a_state_is_sound_also_after_a_restart() -> None:
    """Given a diverged store, when it has copied another state, then neither it nor its next
    incarnation counts as diverged, and a report of its former state no longer counts.
    """
    world = settled()
    machine = world.machines["store-3"]
    store = diverged(world, "store-3")
    former = Diverged(
        slot=store.state.applied, state_hash="0" * 32, reported=store.state.state_hash
    )

    store.state.view = view_without(store.state.view, "store-3")
    store.rejoin.install()
    sender = store.rejoin._installer._copying.source
    store._on_snapshot_page(sender, page_of(world.actor("store-1").state))

    assert not store.rejoin.has_diverged
    written = {record.key: record.value for record in store._take().records}
    assert ("diverged", None) in written.items()
    store.rejoin.on_diverged(former)
    assert not store.rejoin.has_diverged
    store.rejoin.note_report()
    store.rejoin.on_diverged(former)
    assert store.rejoin.has_diverged, "it has reported this very state again"
    for key, value in written.items():
        machine.disk.records.pop(key, None)
        if value is not None:
            machine.disk.records[key] = value
    world.crash("store-3")
    world.start("store-3")
    assert not world.actor("store-3").rejoin.has_diverged


@pytest.mark.parametrize(("slot", "reported"), [(1, ""), (0, "f" * 32)], ids=["slot", "hash"])
def test_a_notice_about_a_hash_never_reported_does_not_count(slot: int, reported: str) -> None:
    """Given a notice about another slot, or about another state, then this store goes on."""
    store = settled().actor("store-3")
    store.rejoin.note_report()
    said = Diverged(
        slot=store.state.applied + slot,
        state_hash="0" * 32,
        reported=reported or store.state.state_hash,
    )

    store.rejoin.on_diverged(said)

    assert not store.rejoin.has_diverged


def test_a_store_announces_a_change_of_its_standing_at_once_and_only_once() -> None:
    """Given a store that lacks contents and then has them, then it announces that before its next
    regular heartbeat, and announces nothing while nothing changes.
    """
    world = settled()
    store = world.actor("store-3")

    def says() -> list[tuple[int, bool]]:
        store._watch()
        beats = [m for m in sent(store) if isinstance(m, NodeHeartbeat)]
        return [(beat.chunks_missing, store.rejoin.is_whole) for beat in beats]

    says()
    assert says() == []
    store.contents._copies["0" * 64] = None
    assert [says(), says()] == [[(1, False)], []]
    del store.contents._copies["0" * 64]
    assert [says(), says()] == [[(0, True)], []]


def test_a_diverged_member_copies_nothing_before_a_view_has_dropped_it() -> None:
    """Given pages of a snapshot that come all the same, then the store keeps its votes."""
    world = settled()
    store = diverged(world, "store-3")
    source = world.actor("store-1")
    store.rejoin._installer.begin()
    page = page_of(source.state)
    sender = store.rejoin._installer._copying.source
    before = dict(store.state.rows())

    store._on_snapshot_page(sender, page)
    assert (dict(store.state.rows()), store.rejoin.has_diverged) == (before, True)

    store.state.view = view_without(store.state.view, "store-3")
    store._on_snapshot_page(sender, page)
    assert not store.rejoin.has_diverged
    assert store.state.view == source.state.view


@pytest.mark.parametrize("ails", ["diverged", "installing"])
@pytest.mark.parametrize("what", ["entry", "list", "result", "changes"])
def test_a_store_with_a_wrong_or_partial_state_serves_no_reads(ails: str, what: Any) -> None:
    """Given a store that knows that its state is wrong, or that replaces it, then it refuses all
    reads, also stale ones and those of watchers.
    """
    world = settled()
    machine = world.machines["store-3"]
    store = machine.actor
    if ails == "diverged":
        store.rejoin.has_diverged = True
    else:
        store.rejoin._installer.begin()
    request = ReadRequest(
        number=1, what=what, path="a", consistency="stale", at_least=store.state.applied
    )
    store._take()

    assert hand(world, "store-3", "gateway-1", request).sends == ()
    store.turn.now += 1_000
    store.reads.wake()

    (reply,) = sent(store)
    assert (reply.status, reply.changes, reply.entry) == ("not_served", (), None)


def test_a_watcher_is_answered_at_once_or_when_its_patience_ends() -> None:
    """Given a sound store, then changes that are here are answered at once, and an empty answer
    comes after a while; neither needs a lease.
    """
    world = settled()
    store = world.actor("store-3")
    applied = store.state.applied
    store._take()

    def watch(at_least: int) -> list[Any]:
        request = ReadRequest(number=1, what="changes", at_least=at_least)
        return worlds.sent(hand(world, "store-3", "gateway-1", request))

    (reply,) = watch(applied)
    assert [change.path for change in reply.changes] == ["a"]
    assert watch(applied + 1) == []
    store.turn.now += 1_000
    store.reads.wake()
    (none,) = sent(store)
    assert (none.status, none.changes, none.applied) == ("found", (), applied)


def test_a_commands_result_is_read_only_under_a_lease() -> None:
    """Given a store without a lease, which may have missed slots, then it does not report a session
    as unknown, however old a state the caller would accept.
    """
    world = settled()
    store = world.actor("store-3")
    store.reads.give_up_lease()
    store._take()
    request = ReadRequest(number=1, what="result", session="s", sequence=1, consistency="stale")

    effects = hand(world, "store-3", "gateway-1", request)

    assert [type(message) for message in worlds.sent(effects)] == [LeaseAsk]


def test_a_diverged_store_is_not_a_whole_one_that_a_view_may_keep() -> None:
    """Given a view of two, one of which has diverged, when the other one is silent, then the
    coordinator waits for it, because it alone has the state.
    """
    world = settled()
    learner = world.actor("learner-1")
    membership, _ = added_again(world)
    view = membership._view
    membership._view = view.model_copy(update={"stores": view.stores[:2]})
    odd, silent = view.stores[:2]
    learner.replicas.diverged.add((odd.name, odd.disk))
    membership._is_lost = lambda member: True

    assert not learner.replicas.is_whole(odd)
    assert [store.name for store in membership._next_view().stores] == [silent.name]
    assert membership.shortage == f"writes need 2 whole stores, but the view has 1 ({silent.name})"


def test_a_store_that_asks_on_two_disks_is_added_once() -> None:
    """Given a store that asked to join and lost its disk at once, then its newest disk counts."""
    world = settled()
    learner = world.actor("learner-1")
    membership, _ = added_again(world)
    view = membership._view
    membership._view = view.model_copy(update={"stores": view.stores[:2]})
    request = JoinRequest(applied=learner.decided, state_hash=learner.state.state_hash)
    for disk in ("disk-z", "disk-new"):
        membership.on_join("store-3", disk, request)

    stores = [(member.name, member.disk) for member in membership._next_view().stores]

    assert [name for name, _ in stores] == ["store-1", "store-2", "store-3"]
    assert stores[-1] == ("store-3", "disk-new")


# -- a new coordinator ----------------------------------------------------------------------------


def test_a_takeover_changes_no_stores_votes() -> None:
    """Given a founding store and two added later, then the next View keeps their slots."""
    world = settled()
    for name in ("store-2", "store-3"):
        learner = world.actor("learner-1")
        epoch = learner.view.epoch
        world.crash(name)
        world.run_until(lambda: learner.view.epoch > epoch, 20_000)  # noqa: B023
        world.start(name)
        world.settled()
        world.run_until(lambda: len(learner.view.stores) == 3, 20_000)  # noqa: B023
    former = world.actor("learner-1").view
    assert len({member.added_slot for member in former.stores}) == 3

    world.crash("learner-1")

    other = world.actor("learner-2")
    world.run_until(lambda: other.view.epoch > former.epoch, 20_000)
    assert other.view.coordinator == "learner-2"
    assert other.view.stores == former.stores


def test_too_few_stores_refuse_no_write_whose_result_a_former_epoch_may_have_reported() -> None:
    """Given a slot that all have voted on, when too few stores are whole, then it commits if it is
    of a former epoch, and is aborted through the log if it is of this one.
    """
    world = settled()
    learner = world.actor("learner-1")
    coordinator, slot = learner.coordinator, learner.chosen_through + 1
    world.network.cut |= {("learner-1", "store-3")}
    world.write(put("open", b"1"))
    world.run_until(lambda: slot in coordinator.rounds, 5_000, 1)
    round_ = coordinator.rounds[slot]
    round_.votes = dict.fromkeys(world.options.names("store"), ())
    learner.replicas.is_whole = lambda member: member.name == "store-1"
    value = learner.log[slot].value
    in_force, coordinator.view_slot = coordinator.view_slot, slot + 1
    assert coordinator._decidable(slot, value) == ()
    assert learner.counters["aborts_proposed"] == 0
    coordinator.view_slot = in_force
    assert coordinator._decidable(slot, value) == round_.abort
    assert learner.counters["aborts_proposed"] == 1
    assert "writes need 2 whole stores" in round_.abort.reason


@pytest.mark.parametrize(
    ("applied", "prepared", "ends"),
    [(0, False, "committed"), (-1, True, "voted"), (-1, False, "not prepared")],
    ids=["applied", "prepared", "neither"],
)
def test_a_fenced_stores_report_on_a_slot_of_a_former_epoch_counts(
    applied: int, prepared: bool, ends: str
) -> None:
    """Given a slot of a former epoch, then a store that has applied it has committed it."""
    world = settled()
    learner = world.actor("learner-1")
    coordinator, slot = learner.coordinator, learner.chosen_through + 1
    world.network.cut |= {("learner-1", "store-3")}
    world.write(put("open", b"1"))
    world.run_until(lambda: slot in coordinator.rounds, 5_000, 1)
    coordinator.view_slot = slot + 1
    coordinator.rounds.clear()
    held = (PreparedSlot(slot=slot, refused=()),) if prepared else ()
    state = TxnState(
        epoch=coordinator.view.epoch, applied=slot + applied, whole=True, prepared=held
    )

    coordinator._on_state("store-2", state)

    round_ = coordinator.rounds[slot]
    assert (round_.committed, round_.votes, round_.not_prepared) == {
        "committed": (True, {}, set()),
        "voted": (False, {"store-2": ()}, set()),
        "not prepared": (False, {}, {"store-2"}),
    }[ends]


def test_without_voters_all_stores_of_the_view_must_hold_the_slot() -> None:
    """Given a slot of a former epoch and newcomers only, then one of them alone is not enough."""
    world = settled()
    learner = world.actor("learner-1")
    coordinator, slot = learner.coordinator, learner.chosen_through + 1
    world.network.cut |= {("learner-1", "store-3")}
    world.write(put("open", b"1"))
    world.run_until(lambda: slot in coordinator.rounds, 5_000, 1)
    round_, value = coordinator.rounds[slot], learner.log[slot].value
    membership, _ = added_again(world, "store-1", "store-2", "store-3")
    coordinator.view, coordinator.view_slot = membership._view, slot + 1
    round_.votes = {"store-1": (), "store-2": ()}
    assert coordinator._decidable(slot, value) is None
    round_.votes["store-3"] = ()
    assert coordinator._decidable(slot, value) == ()


def test_a_store_that_refused_reconsiders_where_no_store_has_a_vote() -> None:
    """Given a slot that can't be aborted, then a refusal for want of room holds only while room
    lacks, and a yes is never taken back.
    """
    world = settled()
    store, learner = world.actor("store-3"), world.actor("learner-1")
    coordinator, slot = learner.coordinator, learner.chosen_through + 1
    world.network.cut |= {("learner-1", "store-3")}
    world.write(put("open", b"1"))
    world.run_until(lambda: slot in coordinator.rounds, 5_000, 1)
    round_, value = coordinator.rounds[slot], learner.log[slot].value
    membership, _ = added_again(world, "store-1", "store-2", "store-3")
    coordinator.view, coordinator.view_slot = membership._view, slot + 1

    def asked() -> tuple[Refusal, ...]:
        sent(learner)
        coordinator._prepare("store-3", slot)
        (prepare,) = sent(learner)
        store._on_prepare("learner-1", prepare)
        votes = [message for message in sent(store) if isinstance(message, TxnVote)]
        refused: tuple[Refusal, ...] = votes[-1].refused
        return refused

    store.turn.disk_full = True
    refused = asked()
    assert [refusal.index for refusal in refused] == [0]
    round_.votes = {"store-1": (), "store-2": (), "store-3": refused}
    assert coordinator._decidable(slot, value) is None
    assert set(round_.votes) == {"store-1", "store-2"}, "it is not asked again"
    assert asked() == refused
    store.turn.disk_full = False
    assert asked() == ()
    store.turn.disk_full = True
    assert asked() == ()
    assert store.prepared[slot].refused == ()


def test_a_refusal_is_final_where_a_store_has_a_vote() -> None:
    """Given a store that refused for want of room, then it repeats the refusal also with room: its
    coordinator may have proposed to abort the refused commands.
    """
    world = settled()
    store = world.actor("store-3")
    slot = store.state.applied + 1
    batch = Batch(
        commands=(
            Command(
                session="s",
                sequence=0,
                acknowledged=-1,
                reply_to="gateway-1",
                operation=put("open", b"1"),
            ),
        )
    )
    prepare = TxnPrepare(epoch=store.fence, slot=slot, batch=batch)
    for is_full in (True, False):
        store.turn.disk_full = is_full
        store._on_prepare("learner-1", prepare)
        (vote,) = [message for message in sent(store) if isinstance(message, TxnVote)]
        assert [refusal.index for refusal in vote.refused] == [0]


@pytest.mark.parametrize(("epoch", "slot", "counts"), [(0, 0, True), (1, 0, False), (0, 9, False)])
def test_only_progress_of_this_epoch_and_of_an_open_slot_gives_more_time(
    epoch: int, slot: int, counts: bool
) -> None:
    """Given a store that copies contents before it votes, then its slot's deadline moves on."""
    world = settled()
    learner = world.actor("learner-1")
    coordinator, open_slot = learner.coordinator, learner.chosen_through + 1
    world.network.cut |= {("learner-1", "store-3")}
    world.write(put("open", b"1"))
    world.run_until(lambda: open_slot in coordinator.rounds, 5_000, 1)
    before = coordinator.rounds[open_slot].deadline
    learner.turn.now += 5_000
    coordinator.view_change._awaiting_reply.clear()
    progress = TxnProgress(epoch=coordinator.view.epoch + epoch, slot=open_slot + slot)

    coordinator._on_progress("store-3", progress)

    deadline = learner.now + 2 * learner.learned.vote_time.timeout_ms if counts else before
    assert coordinator.rounds[open_slot].deadline == deadline
    assert coordinator.view_change._awaiting_reply == ({"store-3": learner.now} if counts else {})


def test_a_lost_prepare_of_a_former_epochs_slot_is_sent_again() -> None:
    """Given a store that answered and was asked to prepare, when that message is lost, then it is
    sent again: nothing else would make the store vote.
    """
    world = settled()
    learner = world.actor("learner-1")
    coordinator, slot = learner.coordinator, learner.chosen_through + 1
    world.network.cut |= {("learner-1", "store-3")}
    world.write(put("open", b"1"))
    world.run_until(lambda: slot in coordinator.rounds, 5_000, 1)
    coordinator.view_slot = slot + 1
    state = TxnState(epoch=coordinator.view.epoch, applied=slot - 1, whole=True, prepared=())
    coordinator._on_state("store-3", state)
    learner._take()
    learner.turn.now = coordinator.rounds[slot].sent_at + 400
    coordinator.rounds[slot].deadline = learner.now + 1

    list(coordinator.tick())

    sends = learner._take().sends
    assert [s.to for s in sends if isinstance(s.message, TxnPrepare)] == ["store-3"]
