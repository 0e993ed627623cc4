"""Rules that need a certain moment: each has a test that shows the moment."""

import hashlib
from typing import Any

import pytest

from actors.calls import Upload
from actors.effects import Envelope, Send
from actors.messages import ChunkPut, Prepare
from actors.options import Options
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.state.namespace import Namespace
from actors.store.chunks import RELEASED_GRACE_MS, Chunks
from actors.values import (
    NOOP,
    Batch,
    Chunked,
    Command,
    Constants,
    DeleteFile,
    OpenSession,
    PutFile,
)
from chaos.simulator.disk import Disk
from chaos.simulator.world import World
from tests.worlds import put

STORES = ("store-1", "store-2", "store-3")


def started(**options: Any) -> World:
    world = World(5, Options(**options))
    world.start()
    world.ready()
    return world


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_wiped_store_has_no_vote() -> None:
    """Given a store back on an empty disk before any node missed it, when it votes, then the
    coordinator does not count that as the vote of the member that it was.
    """
    world = started()
    world.done(put("before", b"1"))
    world.crash("store-3")
    world.machines["store-3"].disk = Disk("disk-new")
    world.start("store-3")
    world.run(200)
    learner = world.actor("learner-1")
    assert learner.view.epoch == 0
    slot = learner.chosen_through + 1
    world.write(put("after", b"2"))
    world.run(100)
    assert slot in learner.coordinator.rounds, "it waits for the vote of the disk that is gone"
    assert set(learner.coordinator.rounds[slot].votes) == {"store-1", "store-2"}
    assert learner.counters["dropped_outside_view"] > 0
    world.run(20_000)
    assert learner.view.epoch > 0
    assert learner.view.member("store-3").disk == "disk-new"


def test_an_acceptor_keeps_its_promise_across_a_restart() -> None:
    """Given a promise and nothing accepted under it, then a new incarnation still refuses older
    ballots.
    """
    world = started()
    acceptor = world.machines["acceptor-2"]
    assert acceptor.actor.promised > NO_BALLOT
    higher = Ballot(99, "proposer-4")
    world.run(5_000)
    world.crash(*world.options.names("proposer"))
    world.run(2_000)
    sender = world.machines["proposer-4"].disk
    cluster = acceptor.actor.cluster
    prepare = Prepare(ballot=higher, first_slot=1)
    acceptor.arrive((Envelope(cluster, "proposer-4", sender.identity, 99, prepare),))
    world.run(100)
    assert acceptor.actor.promised == higher
    world.crash("acceptor-2")
    world.start("acceptor-2")
    assert acceptor.actor.promised == higher


def test_a_store_that_lacks_contents_does_not_ask_to_join() -> None:
    """Given a store that missed a chunk, when it can reach no store, then it stays a newcomer until
    it has the chunk, although it has applied the whole log.
    """
    world = started()
    learner = world.actor("learner-1")
    world.crash("store-3")
    world.run_until(lambda: learner.view.member("store-3") is None, 20_000)
    data = b"contents" * 4_000
    chunk = name_of(data)
    world.answer(
        world.call(lambda token: Upload(token=token, sha256=chunk, manifest=False, data=data))
    )
    content = Chunked(size=len(data), sha256=chunk, chunks=(chunk,))
    world.done(PutFile(path="big", content=content))
    world.network.cut |= {(name, "store-3") for name in STORES}
    world.start("store-3")
    store = world.actor("store-3")
    world.run_until(lambda: "big" in store.state.entries, 20_000)
    joined_before = store.counters["join_requests"]
    world.run(5_000)
    assert store.contents.missing == 1
    assert store.counters["join_requests"] == joined_before
    assert learner.view.member("store-3") is None
    world.network.cut.clear()
    world.run_until(lambda: learner.view.member("store-3") is not None, 30_000)
    assert world.machines["store-3"].disk.blobs[chunk] == data


def test_a_chunk_that_two_files_share_outlives_one_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given short graces, when one of two files is deleted, then the shared chunk stays."""
    monkeypatch.setattr("actors.store.chunks.RELEASED_GRACE_MS", 200)
    monkeypatch.setattr("actors.store.chunks.READING_GRACE_MS", 500)
    monkeypatch.setattr("actors.store.contents.READING_GRACE_MS", 500)
    monkeypatch.setattr("actors.store.contents._SWEEP_MS", 100)
    world = started()
    for path in ("one", "two"):
        world.done(put(path, b"shared"))
    for number in range(2):
        world.done(put("other", b"%d" % number))
    world.done(DeleteFile(path="one"))
    world.run(5_000)
    for store in STORES:
        blobs = world.machines[store].disk.blobs
        assert name_of(b"shared") in blobs, store
        assert name_of(b"0") not in blobs, "nothing was swept, so this shows nothing"


def test_chunks_of_replaced_versions_leave_nothing_behind() -> None:
    """Given very many small writes to one file, then the memory for them stays small."""
    chunks = Chunks()
    held: list[str] = []
    for number in range(20_000):
        name = name_of(b"%d" % number)
        content = Chunked(size=1, sha256=name, chunks=(name,))
        chunks.add(name, number)
        chunks.use(content)
        chunks.release(content, number)
        held.append(name)
        for expired in chunks.take_expired(number - 500 + RELEASED_GRACE_MS, 1_000):
            assert expired == held.pop(0)
            chunks.remove(expired)
    assert len(chunks.held) == len(held) == 500
    assert len(chunks._due) == len(chunks._kept_until) == 500


def test_contents_under_a_wrong_name_are_refused() -> None:
    """Given a chunk whose bytes don't match its name, then it is not kept."""
    world = started()
    store, gateway = world.actor("store-1"), world.actor("gateway-1").identity
    message = ChunkPut(sha256=name_of(b"these"), manifest=False, data=b"others")
    envelope = Envelope(store.cluster, gateway.name, gateway.disk, gateway.incarnation, message)
    effects = store.receive(envelope, world.machines["store-1"].now_ms)
    assert effects.blobs == ()
    assert [type(s.message).__name__ for s in effects.sends if isinstance(s, Send)] == [
        "ChunkRefused"
    ]


def test_a_store_with_another_state_is_dropped() -> None:
    """Given a store whose state hash differs, then it is notified and leaves the view."""
    world = started()
    world.done(put("a", b"1"))
    world.settled()
    world.actor("store-3").state.state_hash = "0" * 32
    epoch = world.actor("learner-1").view.epoch
    world.run(10_000)
    assert world.actor("learner-1").counters["diverged"] == 1
    assert world.actor("learner-1").view.epoch > epoch
    assert world.actor("store-3").counters["snapshots_installed"] == 1


def test_the_state_hash_chains() -> None:
    """Given two states that differ, when the same slot is applied to both, then their hashes still
    differ: a difference is never forgotten.
    """
    one, other = Namespace(Constants()), Namespace(Constants())
    command = Command(
        session="s", sequence=0, acknowledged=-1, reply_to="gateway-1", operation=OpenSession()
    )
    one.apply(1, Batch(commands=(command,)), ())
    other.apply(1, NOOP, ())
    for state in (one, other):
        state.apply(2, NOOP, ())
    assert one.state_hash != other.state_hash
