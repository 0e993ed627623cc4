"""What replicas find out about each other."""

import hashlib
from typing import Any

import pytest

from actors.calls import Upload, Uploaded, WriteDecided
from actors.messages import Diverged, SnapshotPull
from actors.options import Options
from actors.values import Chunked, FileEntry, PutFile
from chaos.simulator.disk import Disk
from chaos.simulator.violation import Violation
from chaos.simulator.world import World
from tests.worlds import founded, intercepted, put


def test_a_diverged_learner_halts_and_reports_what_to_do() -> None:
    cluster = founded()
    cluster.done(put("a", b"1"))
    cluster.settled()
    odd = cluster.actor("learner-2")
    odd.state.state_hash = "0" * 32
    odd.replicas.note_own_hash(odd.state.applied, "0" * 32)

    with pytest.raises(Violation, match="start learner-2 on an empty folder"):
        cluster.run(10_000)


def test_hashes_of_a_lost_disk_do_not_count_in_the_comparison() -> None:
    """Given a store that had diverged, lost its disk and agrees now, then another one is dropped
    alone.
    """
    cluster = founded()
    cluster.done(put("a", b"1"))
    cluster.settled()
    learner = cluster.actor("learner-1")
    replicas = learner.replicas
    replicas._agrees.clear()
    slot, state_hash = learner.state.applied, learner.state.state_hash

    replicas._compare(("store-1", "lost disk"), slot, "0" * 32)
    replicas._compare(("store-1", "new disk"), slot, state_hash)
    replicas._compare(("store-2", "its disk"), slot, "0" * 32)

    assert replicas.diverged >= {("store-2", "its disk")}


def test_a_restarted_learner_can_compare_the_state_it_starts_with() -> None:
    """Given that no slot is decided any more, then a store that asks to join is still compared."""
    cluster = founded()
    cluster.done(put("a", b"1"))
    cluster.settled()
    cluster.run(3_000)
    applied = cluster.actor("learner-1").state.applied
    cluster.crash("learner-1")

    cluster.start("learner-1")

    learner = cluster.actor("learner-1")
    assert learner.state.applied == applied
    assert learner.replicas.own_hash(applied) == learner.state.state_hash


def test_the_last_disk_of_the_view_is_lost_before_anything_was_decided() -> None:
    """Given no slot is decided yet, then a new disk holds all that there is, and asks to join."""
    world = World(1, Options(), 1)
    mute = ("txn.vote", "txn.state")
    with intercepted(world, lambda sender, to, message: message.type not in mute):
        world.start()
        learner = world.machines["learner-1"]
        world.run_until(lambda: learner.is_up and learner.actor.chosen_through >= 1, 30_000)
        world.crash("store-1", "store-2")
        world.run_until(lambda: [m.name for m in learner.actor.view.stores] == ["store-3"], 7_000)
        world.crash("store-3")
    assert {world.actor(name).decided for name in ("learner-1", "learner-2")} == {0}
    world.machines["store-3"].disk = Disk("disk-new")

    world.start("store-1", "store-2", "store-3")
    world.run(30_000)

    assert {m.name for m in learner.actor.view.stores} == {"store-1", "store-2", "store-3"}
    world.ready()
    world.done(put("a", b"1"))
    world.settled()
    assert learner.actor.view.member("store-3").disk == "disk-new"


def test_a_write_in_a_view_of_too_few_stores_aborts_though_their_disks_are_lost() -> None:
    """Given a view of one store, and a write chosen after it, when that disk is gone together with
    the contents, then the write cannot have been reported as done: the client is answered that it
    was aborted, and the cluster goes on.
    """
    world = founded()
    learner = world.machines["learner-1"]
    data = b"c" * 100_000
    name = hashlib.sha256(data).hexdigest()
    world.crash("store-1", "store-2")
    world.run_until(lambda: [m.name for m in learner.actor.view.stores] == ["store-3"], 7_000)
    gateway = world.actor("gateway-1")
    world.run_until(lambda: len(gateway.cluster_state.view.stores) == 1, 5_000)
    uploaded = world.call(lambda token: Upload(token=token, sha256=name, manifest=False, data=data))
    assert isinstance(world.answer(uploaded), Uploaded)
    unheard = ("txn.prepare", "log.propose")
    with intercepted(world, lambda sender, to, message: message.type not in unheard):
        before = learner.actor.chosen_through
        content = Chunked(size=len(data), sha256=name, chunks=(name,))
        token = world.write(PutFile(path="a", content=content))
        world.run_until(lambda: learner.actor.chosen_through > before, 5_000, 1)
        world.crash("store-3", "learner-1", "learner-2")
    world.machines["store-3"].disk = Disk("disk-new")

    world.start("store-1", "store-2", "store-3", "learner-1", "learner-2")

    answer = world.answer(token)
    assert isinstance(answer, WriteDecided)
    assert answer.outcome.status == "aborted"
    assert answer.outcome.detail == "writes need 2 whole stores, but the view has 1 (store-3)"
    world.ready()
    world.done(put("b", b"1"))
    world.settled()


def test_a_learner_copies_slots_that_only_stores_outside_the_view_have_applied() -> None:
    """Given a view of one store, whose disk is lost while both learners restart and know less than
    was decided, and which copies the state of the stores outside, then no store knows as little as
    the learners do: these copy that state, too, and add the stores.
    """
    world = founded(options=Options(min_stores=1))
    learner = world.machines["learner-1"]
    with intercepted(world, lambda sender, to, message: message.type != "view.join"):
        world.crash("store-1", "store-2")
        world.run_until(lambda: [m.name for m in learner.actor.view.stores] == ["store-3"], 7_000)
        world.start("store-1", "store-2")
        world.run(3_000)
        for number in range(9):
            world.done(put("a", b"%d" % number), retry=True)
        acknowledged = world.done(put("a", b"last"), retry=True)
        world.run(20)
        applied = world.actor("store-1").state.applied
        world.crash("learner-1", "learner-2", "store-3")
        world.machines["store-3"].disk = Disk("disk-new")
        world.start("learner-1", "learner-2")
        assert max(world.actor(name).decided for name in ("learner-1", "learner-2")) < applied
    assert acknowledged.outcome.slot == applied

    def is_no_learners_state(sender: str, to: str, message: Any) -> bool:
        informs = message.type in ("sync.decided", "snapshot.page")
        return not (informs and to == "store-3" and sender.startswith("learner-"))

    with intercepted(world, is_no_learners_state):
        world.start("store-3")
        store = world.machines["store-3"]
        world.actor("store-3").rejoin.install()
        world.run_until(lambda: store.actor.state.applied == applied, 20_000)

    world.ready()
    entry = world.read("a").reply.entry
    assert isinstance(entry, FileEntry)
    assert entry.etag == acknowledged.outcome.etag
    world.done(put("a", b"on"))
    assert {m.name for m in learner.actor.view.stores} == {"store-1", "store-2", "store-3"}


def test_a_diverged_store_serves_no_snapshot() -> None:
    """Given a diverged store that is asked for its state, then it does not answer, and another
    replica is asked.
    """
    cluster = founded()
    cluster.done(put("a", b"1"))
    cluster.settled()
    store = cluster.actor("store-3")
    pull = SnapshotPull(slot=0, page=0)

    def answers() -> list[str]:
        store._on_snapshot_pull("learner-2", pull)
        return [send.message.type for send in store._take().sends]

    assert answers() == ["snapshot.page"]
    slot, reported = store.state.applied, store.state.state_hash
    store.rejoin.note_report()
    store.rejoin.on_diverged(Diverged(slot=slot, state_hash="0" * 32, reported=reported))
    assert answers() == []


def test_old_hashes_are_forgotten_also_where_a_snapshot_skips_slots() -> None:
    cluster = founded()
    replicas = cluster.actor("learner-1").replicas
    for slot in (*range(1_000, 2_000), *range(50_000, 60_000)):
        replicas.note_own_hash(slot, f"{slot:032x}")

    assert replicas.own_hash(1_500) is None
    assert replicas.own_hash(59_000) == f"{59_000:032x}"
    assert len(replicas._own_hashes) == 4_096
